//! AWS credentials for a web identity: a token of a Kubernetes service account.

use std::time::{Duration, SystemTime};

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_sdk_sts::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;

use super::aws_http::aws_http_client;
use crate::error::{causes, excerpt};
use crate::{ReadError, ReadErrorKind};

/// Time for the request, including retries.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The most of an error of AWS that an error contains.
const MAX_REASON_BYTES: usize = 250;

/// An error of `AssumeRoleWithWebIdentity`.
pub(super) type StsError = SdkError<AssumeRoleWithWebIdentityError>;

/// Exchanges a token for temporary credentials of a role (`AssumeRoleWithWebIdentity`). `AWS_ENDPOINT_URL_STS` in the
/// environment replaces the region's endpoint.
///
/// # Errors
/// When AWS refuses, or does not answer.
pub async fn web_identity_credentials(
    role_arn: &str,
    token: &str,
    region: &str,
    session_name: &str,
) -> Result<Credentials, ReadError> {
    let config = aws_config::defaults(BehaviorVersion::latest())
        .http_client(aws_http_client())
        .region(Region::new(region.to_owned()))
        .timeout_config(TimeoutConfig::builder().operation_timeout(TIMEOUT).build())
        .no_credentials()
        .load()
        .await;
    let request = aws_sdk_sts::Client::new(&config)
        .assume_role_with_web_identity()
        .role_arn(role_arn)
        .role_session_name(session_name)
        .web_identity_token(token);
    let response = request.send().await.map_err(|error| {
        let kind = failure_kind(&error);
        let why = if kind == ReadErrorKind::Unauthorized {
            format!(
                "AWS refuses the role {role_arn} to the service account: {} ({}); fix: name the cluster's OIDC provider \
                 and the service account in the role's trust policy",
                error.code().unwrap_or("no code"),
                excerpt(error.message().unwrap_or("no message"), MAX_REASON_BYTES)
            )
        } else {
            format!(
                "AWS STS issues no credentials in the region {region}: {}; fix: check the region and HTTPS_PROXY",
                excerpt(&causes(&error), MAX_REASON_BYTES)
            )
        };
        ReadError::with_kind(why, kind)
    })?;
    let malformed = || ReadError::malformed("AWS STS responded without valid credentials");
    let credentials = response.credentials.ok_or_else(malformed)?;
    let expiry = SystemTime::try_from(credentials.expiration).map_err(|_| malformed())?;
    Ok(Credentials::new(
        credentials.access_key_id,
        credentials.secret_access_key,
        Some(credentials.session_token),
        Some(expiry),
        "WebIdentityToken",
    ))
}

/// The class of an error: `Unauthorized` only if a retry cannot succeed.
pub(super) fn failure_kind(error: &StsError) -> ReadErrorKind {
    match error {
        SdkError::TimeoutError(_) => ReadErrorKind::TimedOut,
        SdkError::ServiceError(refused) => {
            let status = refused.raw().status().as_u16();
            let code = refused.err().code().unwrap_or_default();
            let is_temporary = matches!(status, 408 | 429)
                || matches!(code, "IDPCommunicationError" | "RequestLimitExceeded")
                || code.starts_with("Throttl");
            if (400..500).contains(&status) && !is_temporary {
                ReadErrorKind::Unauthorized
            } else {
                ReadErrorKind::Unreachable
            }
        }
        _ => ReadErrorKind::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_sts::config::http::HttpResponse;
    use aws_sdk_sts::error::ErrorMetadata;

    use super::*;

    #[test]
    fn only_a_refusal_that_a_retry_does_not_change_is_unauthorized() {
        for (status, code, expected) in [
            (403_u16, "AccessDenied", ReadErrorKind::Unauthorized),
            (400, "InvalidIdentityToken", ReadErrorKind::Unauthorized),
            (400, "IDPCommunicationError", ReadErrorKind::Unreachable),
            (400, "Throttling", ReadErrorKind::Unreachable),
            (429, "", ReadErrorKind::Unreachable),
            (408, "", ReadErrorKind::Unreachable),
            (503, "ServiceUnavailable", ReadErrorKind::Unreachable),
        ] {
            let refused = ErrorMetadata::builder().code(code).build();
            let refused = AssumeRoleWithWebIdentityError::generic(refused);
            let response = HttpResponse::new(status.try_into().unwrap(), "".into());
            let error = SdkError::service_error(refused, response);
            assert_eq!(failure_kind(&error), expected, "{status} {code}");
        }
        assert_eq!(
            failure_kind(&SdkError::timeout_error("10 s")),
            ReadErrorKind::TimedOut
        );
    }
}
