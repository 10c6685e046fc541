//! Tokens for Amazon MSK with IAM: a presigned URL that MSK verifies with AWS.

use std::error::Error as _;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_config::Region;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_credential_types::provider::error::CredentialsError;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningParams, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use separation_contract::kafka::is_aws_region;
use url::Url;

use super::aws_http::aws_http_client;
use super::token::{FetchToken, Token};
use super::web_identity::{StsError, failure_kind};
use crate::error::{causes, excerpt};
use crate::{ReadError, ReadErrorKind};

/// The validity of a token, MSK's maximum.
const LIFETIME: Duration = Duration::from_secs(900);

/// The name of the service in signatures.
const SERVICE: &str = "kafka-cluster";

/// MSK reads the user from the signature; librdkafka requires a name.
const PRINCIPAL: &str = "aws-msk-iam";

/// The most of an error of AWS that an error contains.
const MAX_REASON_BYTES: usize = 300;

/// Signs tokens with the AWS credentials of this process.
#[derive(Debug)]
pub(super) struct MskIam {
    region: String,
}

impl MskIam {
    pub(super) fn new(region: String) -> Result<Self, ReadError> {
        check_region(&region)?;
        Ok(Self { region })
    }

    /// Workload identity precedes the environment, whose keys may be those of another provider's object store.
    fn credentials(&self) -> CredentialsProviderChain {
        let config = ProviderConfig::without_region()
            .with_region(Some(Region::new(self.region.clone())))
            .with_http_client(aws_http_client());
        let web_identity = WebIdentityTokenCredentialsProvider::builder().configure(&config);
        let container = EcsCredentialsProvider::builder().configure(&config);
        let environment = EnvironmentVariableCredentialsProvider::new();
        let profile = ProfileFileCredentialsProvider::builder().configure(&config);
        let instance = ImdsCredentialsProvider::builder().configure(&config);
        CredentialsProviderChain::first_try("WebIdentityToken", web_identity.build())
            .or_else("Container", container.build())
            .or_else("Environment", environment)
            .or_else("Profile", profile.build())
            .or_else("Ec2InstanceMetadata", instance.build())
    }
}

#[async_trait]
impl FetchToken for MskIam {
    async fn fetch(&self) -> Result<Token, ReadError> {
        // A new chain for each token: some providers never read their sources again after an error.
        let credentials = self.credentials();
        let credentials = credentials.provide_credentials().await;
        let credentials = credentials.map_err(|error| no_credentials(&error))?;
        msk_token(&self.region, &credentials, SystemTime::now())
    }
}

fn no_credentials(error: &CredentialsError) -> ReadError {
    let kind = match error {
        CredentialsError::CredentialsNotLoaded(_) => {
            return ReadError::unauthorized(
                "no AWS credentials for Amazon MSK; fix: give the service account an IAM role, with IRSA or EKS Pod \
                 Identity",
            );
        }
        CredentialsError::InvalidConfiguration(_) => ReadErrorKind::Unauthorized,
        CredentialsError::ProviderTimedOut(_) => ReadErrorKind::TimedOut,
        // Other sources do not report the status of a response.
        error => {
            let of_sts = error
                .source()
                .and_then(|source| source.downcast_ref::<StsError>());
            of_sts.map_or(ReadErrorKind::Unreachable, failure_kind)
        }
    };
    let why = format!(
        "no AWS credentials for Amazon MSK: {}; fix: check the IAM role and its trust policy",
        excerpt(&causes(error), MAX_REASON_BYTES)
    );
    ReadError::with_kind(why, kind)
}

/// The token for Amazon MSK in a region. It is valid for 15 minutes from `at`, and not longer than the credentials.
///
/// # Errors
/// When the region is not valid.
pub fn msk_token(region: &str, credentials: &Credentials, at: SystemTime) -> Result<Token, ReadError> {
    check_region(region)?;
    let unsignable = || {
        ReadError::new(format!(
            "cannot sign a token for Amazon MSK in the region {region}"
        ))
    };
    let url = format!("https://kafka.{region}.amazonaws.com/?Action={SERVICE}%3AConnect");
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(LIFETIME);
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(SERVICE)
        .time(at)
        .settings(settings)
        .build()
        .map_err(|_| unsignable())?;
    let params = SigningParams::from(params);
    let request = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::Bytes(&[]))
        .map_err(|_| unsignable())?;
    let (instructions, _) = sign(request, &params).map_err(|_| unsignable())?.into_parts();
    let mut url = Url::parse(&url).map_err(|_| unsignable())?;
    url.query_pairs_mut()
        .extend_pairs(instructions.params())
        .append_pair("User-Agent", "separation");
    let expires = at + LIFETIME;
    Ok(Token {
        text: URL_SAFE_NO_PAD.encode(url.as_str()).into(),
        principal: PRINCIPAL.to_owned(),
        expires: credentials.expiry().map_or(expires, |expiry| expiry.min(expires)),
    })
}

/// The region is part of a host name that is signed.
fn check_region(region: &str) -> Result<(), ReadError> {
    if is_aws_region(region) {
        return Ok(());
    }
    Err(ReadError::new(format!(
        "`{}` is not an AWS region; fix: write one as eu-central-1",
        excerpt(region, 50)
    )))
}

#[cfg(test)]
mod tests;
