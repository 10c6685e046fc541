//! How the store is reached: credentials, region, time limits.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use secrecy::ExposeSecret as _;

use super::{S3, TransferLimits};
use crate::settings::S3Settings;

/// The region of requests to a store that does not care, and AWS's own default.
const DEFAULT_REGION: &str = "us-east-1";

/// How long the store may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// For a connection to come up.
    pub connect: Duration,
    /// For one request, up to its answer; a body that is sent counts, one that is read does not.
    pub request: Duration,
    /// For copying, and for joining parts, which the store does by itself.
    pub server_side: Duration,
    /// For a body to stand still.
    pub stall: Duration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            // A file of 16 MiB at 140 kB/s.
            request: Duration::from_secs(120),
            // 5 GiB at 18 MB/s.
            server_side: Duration::from_secs(300),
            stall: Duration::from_secs(20),
        }
    }
}

impl S3 {
    /// A client for the store that `settings` name. Connects when it is first used.
    pub async fn connect(settings: &S3Settings) -> Self {
        Self::connect_within(settings, TimeLimits::default()).await
    }

    /// As [`connect`](Self::connect), with other time limits.
    pub async fn connect_within(settings: &S3Settings, times: TimeLimits) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
        if let Some(credentials) = &settings.credentials {
            let token = credentials.session_token.as_ref();
            loader = loader.credentials_provider(Credentials::new(
                &credentials.access_key,
                credentials.secret_key.expose_secret(),
                token.map(|token| token.expose_secret().to_owned()),
                None,
                "settings",
            ));
        }
        if let Some(region) = fixed_region(settings) {
            loader = loader.region(Region::new(region.to_owned()));
        }
        let shared = loader.load().await;
        let region = shared
            .region()
            .cloned()
            .unwrap_or(Region::from_static(DEFAULT_REGION));
        let mut builder = Builder::from(&shared)
            .region(region)
            .force_path_style(settings.path_style)
            // Some servers refuse the checksums that newer clients add by themselves.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            // Trying again has one owner, which knows the task's deadline.
            .retry_config(RetryConfig::disabled())
            .timeout_config(times.of_a_request(times.request))
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled()
                    .grace_period(times.stall)
                    .build(),
            );
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.endpoint_url(endpoint.as_str());
        }
        Self {
            client: aws_sdk_s3::Client::from_conf(builder.build()),
            limits: TransferLimits::default(),
            times,
        }
    }
}

impl TimeLimits {
    /// What requests that the store works on by itself have in place of the usual time limits.
    pub(super) fn server_side(self) -> Builder {
        Builder::new().timeout_config(self.of_a_request(self.server_side))
    }

    fn of_a_request(self, request: Duration) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(self.connect)
            .read_timeout(request)
            .operation_attempt_timeout(request)
            .operation_timeout(request)
            .build()
    }
}

/// The region that is asked for, if it is not left to AWS's usual places.
fn fixed_region(settings: &S3Settings) -> Option<&str> {
    match (settings.region.as_str(), &settings.endpoint) {
        ("" | "auto", Some(_)) => Some(DEFAULT_REGION),
        ("" | "auto", None) => None,
        (region, _) => Some(region),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_a_real_region_for_servers_of_ones_own_and_left_open_at_aws() {
        let mut settings = S3Settings {
            endpoint: Some("http://s3:9000".parse().unwrap()),
            credentials: None,
            region: "auto".into(),
            bucket: None,
            public_domain: None,
            path_style: true,
        };
        assert_eq!(fixed_region(&settings), Some("us-east-1"));
        settings.endpoint = None;
        assert_eq!(fixed_region(&settings), None);
        settings.region = "eu-central-1".into();
        assert_eq!(fixed_region(&settings), Some("eu-central-1"));
    }
}
