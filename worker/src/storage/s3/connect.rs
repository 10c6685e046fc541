//! Connection to the store: credentials, region, time limits.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use secrecy::ExposeSecret as _;

use super::{S3, TransferLimits};
use crate::settings::S3Settings;

/// Region of requests to a store that ignores it, and the default for AWS.
const DEFAULT_REGION: &str = "us-east-1";

/// Time limits of requests to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// For connecting.
    pub connect: Duration,
    /// For one request until its response; sending a body counts, reading one does not.
    pub request: Duration,
    /// For server-side copies and for completing a multipart upload.
    pub server_side: Duration,
    /// For a body without progress.
    pub stall: Duration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            // 16 MiB at 140 kB/s.
            request: Duration::from_secs(120),
            // 5 GiB at 18 MB/s.
            server_side: Duration::from_secs(300),
            stall: Duration::from_secs(20),
        }
    }
}

impl S3 {
    /// A client for the store of `settings`. Connects on first use.
    pub async fn connect(settings: &S3Settings) -> Self {
        Self::connect_within(settings, TimeLimits::default()).await
    }

    /// [`connect`](Self::connect) with other time limits.
    pub async fn connect_within(settings: &S3Settings, times: TimeLimits) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        Self::connect_through(http, settings, times).await
    }

    async fn connect_through(http: SharedHttpClient, settings: &S3Settings, times: TimeLimits) -> Self {
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone());
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
        // Also used by the requests that exchange a web identity for credentials.
        let shared = loader.region(region(settings, http)).load().await;
        let mut builder = Builder::from(&shared)
            .force_path_style(settings.path_style)
            // Some servers refuse the checksums that newer SDKs add by default.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            // Callers retry, because they know the task's deadline.
            .retry_config(RetryConfig::disabled())
            .timeout_config(times.of_a_request(times.request))
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled()
                    .grace_period(times.stall)
                    .build(),
            );
        let public = settings.public_endpoint.as_ref();
        let signer = public.map(|endpoint| builder.clone().endpoint_url(endpoint.as_str()));
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.endpoint_url(endpoint.as_str());
        }
        Self {
            client: aws_sdk_s3::Client::from_conf(builder.build()),
            signer: signer.map(|signer| aws_sdk_s3::Client::from_conf(signer.build())),
            limits: TransferLimits::default(),
            times,
        }
    }
}

impl TimeLimits {
    /// Configuration of server-side copies and completions, with their own time limit.
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

/// The region of requests. With neither a region nor an endpoint set, the AWS SDK's provider chain without its first
/// provider, the environment: the settings read that, because it may contain `auto`, which is not an AWS region.
fn region(settings: &S3Settings, http: SharedHttpClient) -> RegionProviderChain {
    let default = Region::from_static(DEFAULT_REGION);
    match (&settings.region, &settings.endpoint) {
        (Some(region), _) => RegionProviderChain::first_try(Region::new(region.clone())),
        (None, Some(_)) => RegionProviderChain::first_try(default),
        (None, None) => {
            let config = ProviderConfig::default().with_http_client(http);
            RegionProviderChain::first_try(ProfileFileRegionProvider::new())
                .or_else(ImdsRegionProvider::builder().configure(&config).build())
                .or_else(default)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use aws_smithy_http_client::Connector;
    use aws_smithy_http_client::proxy::ProxyConfig;
    use clap::Parser as _;
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    use tokio::net::TcpListener;

    use super::*;
    use crate::settings::S3Arguments;

    /// Set in the child process, which connects.
    const CHILD: &str = "SEPARATION_TEST_CONNECTS";

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        s3: S3Arguments,
    }

    /// Prints the first host that the SDK connects to with the environment of this process.
    #[tokio::test]
    #[allow(clippy::print_stdout, reason = "the parent reads it")]
    async fn child_that_connects() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = proxy.local_addr().unwrap();
        let http = aws_smithy_http_client::Builder::new().build_with_connector_fn(move |_, _| {
            let proxy = ProxyConfig::all(format!("http://{address}")).unwrap();
            Connector::builder()
                .proxy_config(proxy)
                .tls_provider(Provider::Rustls(CryptoMode::Ring))
                .build()
        });
        let settings = Line::parse_from(["test"]).s3.settings().unwrap();
        let s3 = S3::connect_through(http, &settings, TimeLimits::default()).await;
        let request = s3.client.head_object().bucket("stems").key("a").send();
        let first_line = async {
            let (stream, _) = proxy.accept().await.unwrap();
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).await.unwrap();
            line
        };
        tokio::select! {
            line = first_line => println!("first request: {line}"),
            answer = request => panic!("{answer:?}"),
        }
    }

    #[track_caller]
    fn first_request(home: &Path, environment: &[(&str, &str)]) -> String {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "storage::s3::connect::tests::child_that_connects",
            ])
            .env_clear()
            .env("HOME", home)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(environment.iter().copied())
            .env(CHILD, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find_map(|line| line.split_once("first request: "));
        line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
            .1
            .trim()
            .to_owned()
    }

    #[test]
    fn without_region_and_endpoint_the_sdks_provider_chain_decides() {
        const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
        let home = tempfile::tempdir().unwrap();
        let aws = home.path().join(".aws");
        std::fs::create_dir(&aws).unwrap();
        std::fs::write(aws.join("config"), "[default]\nregion = eu-central-1\n").unwrap();
        let token = home.path().join("token");
        std::fs::write(&token, "a token").unwrap();
        let web_identity = [
            ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/worker"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
        ];
        let auto = ("AWS_REGION", "auto");
        for (environment, host) in [
            (
                [&KEYS[..], &[auto]].concat(),
                "stems.s3.eu-central-1.amazonaws.com",
            ),
            (
                [&KEYS[..], &[auto, ("AWS_DEFAULT_REGION", "eu-west-1")]].concat(),
                "stems.s3.eu-west-1.amazonaws.com",
            ),
            (
                [&KEYS[..], &[("AWS_REGION", "eu-north-1")]].concat(),
                "stems.s3.eu-north-1.amazonaws.com",
            ),
            (
                [&web_identity[..], &[auto]].concat(),
                "sts.eu-central-1.amazonaws.com",
            ),
        ] {
            let request = first_request(home.path(), &environment);
            assert_eq!(request, format!("CONNECT {host}:443 HTTP/1.1"), "{environment:?}");
        }
        let endpoint = [&KEYS[..], &[auto, ("S3_ENDPOINT_URL", "https://s3.example")]].concat();
        let request = first_request(home.path(), &endpoint);
        assert_eq!(request, "CONNECT s3.example:443 HTTP/1.1");
        let nowhere = tempfile::tempdir().unwrap();
        let request = first_request(nowhere.path(), &[&KEYS[..], &[auto]].concat());
        assert_eq!(request, "CONNECT stems.s3.us-east-1.amazonaws.com:443 HTTP/1.1");
    }
}
