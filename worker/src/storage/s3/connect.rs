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
use secrecy::ExposeSecret as _;
use separation_kafka::aws_http_client;

use super::signer::Signer;
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
        let http = aws_http_client();
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
        let signer = public
            .zip(shared.credentials_provider())
            .map(|(endpoint, provider)| {
                Signer::new(builder.clone().endpoint_url(endpoint.as_str()), provider)
            });
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.endpoint_url(endpoint.as_str());
        }
        Self {
            client: aws_sdk_s3::Client::from_conf(builder.build()),
            signer,
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
    use std::process::{Command, Stdio};

    use clap::Parser as _;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::settings::S3Arguments;

    /// Set in the child process, which connects.
    const CHILD: &str = "SEPARATION_TEST_CONNECTS";

    const ANSWER_LIMIT: Duration = Duration::from_secs(60);

    const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        s3: S3Arguments,
    }

    /// Sends a request with the environment of this process.
    #[tokio::test]
    async fn child_that_connects() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let settings = Line::parse_from(["test"]).s3.settings().unwrap();
        let s3 = S3::connect(&settings).await;
        let answer = s3.client.head_object().bucket("stems").key("a").send().await;
        panic!("{answer:?}");
    }

    async fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        (listener, url)
    }

    /// The connection of the next client, after the first line of its request.
    async fn accept(listener: &TcpListener) -> (TcpStream, String) {
        let accepted = tokio::time::timeout(ANSWER_LIMIT, listener.accept()).await;
        let (stream, _) = accepted.expect("a connection").unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        (stream.into_inner(), line.trim().to_owned())
    }

    fn child(home: &Path, environment: &[(&str, &str)]) -> Command {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["--exact", "storage::s3::connect::tests::child_that_connects"])
            .env_clear()
            .env("HOME", home)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(environment.iter().copied())
            .env(CHILD, "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        child
    }

    /// The first request that the proxy receives from a process with this environment.
    async fn first_request(home: &Path, environment: &[(&str, &str)]) -> String {
        let (proxy, url) = listen().await;
        let mut child = child(home, environment);
        let mut child = child.env("HTTPS_PROXY", url).spawn().unwrap();
        let (_, request) = accept(&proxy).await;
        child.kill().unwrap();
        child.wait().unwrap();
        request
    }

    #[tokio::test]
    async fn without_region_and_endpoint_the_sdks_provider_chain_decides() {
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
            let request = first_request(home.path(), &environment).await;
            assert_eq!(request, format!("CONNECT {host}:443 HTTP/1.1"), "{environment:?}");
        }
        let endpoint = [&KEYS[..], &[auto, ("S3_ENDPOINT_URL", "https://s3.example")]].concat();
        let request = first_request(home.path(), &endpoint).await;
        assert_eq!(request, "CONNECT s3.example:443 HTTP/1.1");
        let nowhere = tempfile::tempdir().unwrap();
        let request = first_request(nowhere.path(), &[&KEYS[..], &[auto]].concat()).await;
        assert_eq!(request, "CONNECT stems.s3.us-east-1.amazonaws.com:443 HTTP/1.1");
    }

    #[tokio::test]
    async fn a_containers_credentials_are_requested_directly_and_the_store_through_the_proxy() {
        let home = tempfile::tempdir().unwrap();
        let ((agent, agent_url), (proxy, proxy_url)) = (listen().await, listen().await);
        let credentials = format!("{agent_url}/v1/credentials");
        let environment = [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", credentials.as_str()),
            ("S3_ENDPOINT_URL", "http://s3.example"),
            ("HTTP_PROXY", proxy_url.as_str()),
        ];
        let mut child = child(home.path(), &environment).spawn().unwrap();
        let (mut stream, request) = accept(&agent).await;
        assert_eq!(request, "GET /v1/credentials HTTP/1.1");
        let body =
            r#"{"AccessKeyId":"a","SecretAccessKey":"b","Token":"c","Expiration":"2099-01-01T00:00:00Z"}"#;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
        let response = format!("{head}: {}\r\n\r\n{body}", body.len());
        stream.write_all(response.as_bytes()).await.unwrap();
        let (_, request) = accept(&proxy).await;
        assert_eq!(request, "HEAD http://s3.example/stems/a HTTP/1.1");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
