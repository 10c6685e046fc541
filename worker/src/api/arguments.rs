//! Options of the API: address, clients, limits of one song.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use secrecy::{ExposeSecret as _, SecretString};
use separation_contract::environment as env;
use separation_contract::names;
use separation_daemon::LogArguments;
use url::Url;

use super::api_keys;
use super::clients::{Client, Clients};
use super::v1::V1Settings;
use crate::outbound::DownloadLimits;
use crate::settings::{
    KafkaArguments, OutboundArguments, S3Arguments, SettingError, StagingArguments, WebhookArguments,
};
use crate::webhook::Signer;

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// Options of the API.
#[derive(Debug, Clone, Args)]
pub struct ApiArguments {
    /// Address to listen on [default: 0.0.0.0, or 127.0.0.1 without a password and without API keys]
    #[arg(long, env = env::API_HOST, value_name = "ADDRESS")]
    host: Option<String>,
    /// Port to listen on; 0 selects any free port
    #[arg(long, env = env::API_PORT, default_value = "8000", value_name = "PORT")]
    port: u16,
    /// Username for HTTP Basic authentication of clients
    #[arg(long, env = env::BASIC_AUTH_USERNAME, default_value = "admin", value_name = "NAME")]
    username: String,
    /// Password for HTTP Basic authentication of clients; set it in the environment rather than on the command line
    #[arg(long, env = env::BASIC_AUTH_PASSWORD, hide_env_values = true, value_name = "PASSWORD")]
    password: Option<SecretString>,
    /// API keys of clients, as JSON; set it in the environment rather than on the command line
    #[arg(long, env = env::API_KEYS, hide_env_values = true, value_name = "JSON")]
    api_keys: Option<SecretString>,
    /// URL of the API as its clients reach it, for links in responses and webhooks; without it, links are paths
    #[arg(long, env = env::API_PUBLIC_URL, value_name = "URL")]
    public_url: Option<String>,
    /// Maximum size of one song, in bytes
    #[arg(long, env = env::MAX_INPUT_BYTES, default_value = "2147483648", value_name = "BYTES")]
    max_input_bytes: u64,
    /// Maximum length of one song of the HTTP API v1, in seconds
    #[arg(long, env = env::MAX_INPUT_SECONDS, default_value = "14400", value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..))]
    max_input_seconds: u64,
    /// Days after which uploaders delete finished stems, to report when they expire [default: never]
    #[arg(long, env = env::STEMS_RETENTION_DAYS, value_name = "DAYS",
          value_parser = clap::value_parser!(u16).range(1..))]
    stems_retention_days: Option<u16>,
    /// Maximum time for fetching or receiving one song, in seconds
    #[arg(long, env = env::INPUT_TIMEOUT_SECONDS, default_value = "600", value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    input_timeout_seconds: u64,
    /// Maximum time without data while fetching or receiving one song, in seconds
    #[arg(long, env = env::INPUT_IDLE_SECONDS, default_value = "30", value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    input_idle_seconds: u64,
    /// Maximum number of songs fetched or received simultaneously; further requests are answered 503 with Retry-After
    #[arg(long, env = env::MAX_CONCURRENT_INPUTS, default_value = "8", value_name = "COUNT",
          value_parser = clap::value_parser!(u16).range(1..))]
    max_concurrent_inputs: u16,
    /// Topic that tasks are published to
    #[arg(long, env = env::KAFKA_TASK_TOPIC, default_value = names::TASK_TOPIC, value_name = "TOPIC")]
    task_topic: String,
    /// Consumer group of the processors, used to place tasks and to report how many are queued before one
    #[arg(long, env = env::KAFKA_PROCESSOR_GROUP_ID, default_value = names::PROCESSOR_GROUP, value_name = "GROUP")]
    processor_group: String,
    /// Partition of each task: idle for one of an idle processor, or else of the processor that is expected to begin the
    /// task first; key for that of its message key's hash
    #[arg(long, env = env::PLACEMENT, value_enum, default_value = "idle", value_name = "PLACEMENT")]
    placement: PlacementChoice,
    /// Address of the admin endpoint (live, ready, metrics, drain); port 0 selects any free port
    #[arg(long, env = env::ADMIN_ADDR, default_value = "0.0.0.0:8081", value_name = "ADDRESS")]
    pub admin_addr: SocketAddr,
    /// Kafka connection.
    #[command(flatten)]
    pub kafka: KafkaArguments,
    /// Staging of songs.
    #[command(flatten)]
    pub staging: StagingArguments,
    /// Bucket of finished stems.
    #[command(flatten)]
    pub s3: S3Arguments,
    /// Addresses that may be called.
    #[command(flatten)]
    pub outbound: OutboundArguments,
    /// Signatures of the webhooks of the client with the username and the password.
    #[command(flatten)]
    webhook: WebhookArguments,
    /// Log output.
    #[command(flatten)]
    pub logs: LogArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PlacementChoice {
    Idle,
    Key,
}

/// Validated settings of the API.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// Address to listen on.
    pub address: SocketAddr,
    /// The clients and their authentication.
    pub clients: Arc<Clients>,
    /// Limits of one song: size, total time, idle time.
    pub input: DownloadLimits,
    /// Maximum number of songs fetched or received simultaneously.
    pub max_concurrent_inputs: usize,
    /// Topic that tasks are published to.
    pub task_topic: String,
    /// Consumer group of the processors.
    pub processor_group: String,
    /// How the partition of a task is chosen.
    placement: PlacementChoice,
    /// Settings of the HTTP API v1.
    pub v1: V1Settings,
}

impl ApiSettings {
    /// Whether tasks are placed on idle processors, rather than by the hash of their message keys.
    pub(super) fn places_on_idle(&self) -> bool {
        self.placement == PlacementChoice::Idle
    }
}

impl ApiArguments {
    /// Validates the options together.
    ///
    /// # Errors
    /// When an option is invalid, or the host is not a loopback address and neither a password nor an API key is set.
    pub fn settings(&self) -> Result<ApiSettings, SettingError> {
        let clients = self.clients()?;
        let ip = self.ip(&clients)?;
        let total = Duration::from_secs(self.input_timeout_seconds);
        Ok(ApiSettings {
            address: SocketAddr::new(ip, self.port),
            clients: Arc::new(clients),
            input: DownloadLimits {
                max_bytes: self.max_input_bytes,
                total,
                idle: Duration::from_secs(self.input_idle_seconds).min(total),
            },
            max_concurrent_inputs: self.max_concurrent_inputs.into(),
            task_topic: self.task_topic.clone(),
            processor_group: self.processor_group.clone(),
            placement: self.placement,
            v1: self.v1()?,
        })
    }

    /// Those of `API_KEYS`, and the one with the username if a password is set. An empty password counts as none.
    fn clients(&self) -> Result<Clients, SettingError> {
        let signers = self.signers()?;
        let password = self.password.as_ref().map(SecretString::expose_secret);
        let password = password.filter(|password| !password.is_empty());
        let keys = self.api_keys.as_ref().map(api_keys::parse).transpose()?;
        let mut all = keys.unwrap_or_default();
        match password {
            None if all.is_empty() => return Ok(Clients::open(signers)),
            None => {}
            Some(password) => all.push(Client::with_password(&self.username, password, signers)),
        }
        Clients::new(all)
    }

    fn signers(&self) -> Result<Vec<Signer>, SettingError> {
        let WebhookArguments {
            webhook_secret,
            webhook_previous_secret,
        } = &self.webhook;
        let mut signers = Vec::new();
        for (name, secret) in [
            (env::WEBHOOK_SECRET, webhook_secret),
            (env::WEBHOOK_PREVIOUS_SECRET, webhook_previous_secret),
        ] {
            let signer = secret.as_ref().map(Signer::new).transpose();
            signers.extend(signer.map_err(|error| {
                let fix = "set whsec_ and base64, or any other text";
                SettingError::new(name, error.to_string(), fix)
            })?);
        }
        Ok(signers)
    }

    fn ip(&self, clients: &Clients) -> Result<IpAddr, SettingError> {
        let open = clients.is_open();
        let host = self.host.as_deref().map(str::trim);
        let ip = match host.filter(|host| !host.is_empty()) {
            None if open => Ipv4Addr::LOCALHOST.into(),
            None => Ipv4Addr::UNSPECIFIED.into(),
            Some("localhost") => Ipv4Addr::LOCALHOST.into(),
            Some(host) => host.parse::<IpAddr>().map_err(|_| {
                let fix = "set an IP address of this machine, such as 0.0.0.0 or 127.0.0.1";
                SettingError::new(env::API_HOST, format!("`{host}` is not an IP address"), fix)
            })?,
        };
        if open && !ip.is_loopback() {
            let problem = format!("not set, and any client could post songs to {ip} without authentication");
            let fix = "set BASIC_AUTH_PASSWORD or API_KEYS, or listen on 127.0.0.1";
            return Err(SettingError::new(env::BASIC_AUTH_PASSWORD, problem, fix));
        }
        Ok(ip)
    }

    fn v1(&self) -> Result<V1Settings, SettingError> {
        let public_url = self.public_url.as_deref().map(str::trim);
        let public_url = public_url.filter(|url| !url.is_empty()).map(|text| {
            let url = Url::parse(text).ok().filter(|url| {
                let has_more = url.query().is_some() || url.fragment().is_some();
                matches!(url.scheme(), "http" | "https") && url.has_host() && !has_more
            });
            url.ok_or_else(|| {
                let problem = format!("`{text}` is not an http:// or https:// URL without a query");
                let fix = "set the URL that clients use, such as https://separation.example";
                SettingError::new(env::API_PUBLIC_URL, problem, fix)
            })
        });
        let days = self.stems_retention_days.map(u64::from);
        Ok(V1Settings {
            public_url: public_url.transpose()?,
            stems_retention: days.map(|days| Duration::from_secs(days * SECONDS_PER_DAY)),
            max_input_seconds: self.max_input_seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        api: ApiArguments,
    }

    fn settings(options: &[&str]) -> Result<ApiSettings, SettingError> {
        let line = Line::try_parse_from([&["api"], options].concat()).expect("the options are known");
        line.api.settings()
    }

    #[test]
    fn without_a_password_the_api_listens_only_on_loopback() {
        assert_eq!(
            settings(&[]).expect("loopback").address.to_string(),
            "127.0.0.1:8000"
        );
        for host in ["127.0.0.1", "::1", "localhost", ""] {
            settings(&["--host", host]).expect(host);
        }
        for host in ["0.0.0.0", "10.0.0.1", "::"] {
            let refused = settings(&["--host", host]).expect_err(host);
            assert_eq!(refused.name, "BASIC_AUTH_PASSWORD");
            let empty = settings(&["--host", host, "--password", ""]).expect_err(host);
            assert_eq!(empty.name, "BASIC_AUTH_PASSWORD");
        }
        let with = settings(&["--password", "x"]).expect("with a password");
        assert_eq!(with.address.to_string(), "0.0.0.0:8000");
        let refused = settings(&["--host", "example.com"]).expect_err("a name");
        assert_eq!(refused.name, "API_HOST");
    }

    const KEY: &str =
        r#"[{"name": "acme", "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}]"#;

    #[test]
    fn an_api_key_authenticates_like_a_password() {
        let open = settings(&["--api-keys", "[]"]).expect("no keys");
        assert!(open.clients.is_open());
        let keys = settings(&["--api-keys", KEY]).expect("a key");
        assert_eq!(keys.address.to_string(), "0.0.0.0:8000");
        assert!(!keys.clients.is_open());
        let both = settings(&["--api-keys", KEY, "--password", "x"]).expect("both");
        for name in ["acme", "admin"] {
            assert!(both.clients.by_name(name).is_some(), "{name}");
        }
        let same = ["--api-keys", KEY, "--password", "x", "--username", "acme"];
        assert_eq!(settings(&same).expect_err("one name twice").name, "API_KEYS");
    }

    #[test]
    fn secrets_of_webhooks_belong_to_the_client_with_the_password() {
        let options = [
            "--password",
            "x",
            "--webhook-secret",
            "a",
            "--webhook-previous-secret",
            "b",
        ];
        let clients = settings(&options).expect("two secrets").clients;
        assert_eq!(clients.by_name("admin").expect("the username").signers.len(), 2);
        let invalid = settings(&["--webhook-secret", "whsec_?"]).expect_err("not base64");
        assert_eq!(invalid.name, "WEBHOOK_SECRET");
    }

    #[test]
    fn a_public_url_is_the_start_of_links() {
        let public_url = |url| settings(&["--public-url", url]).map(|settings| settings.v1.public_url);
        let url = public_url("https://separation.example/api").expect("a URL");
        assert_eq!(url.expect("set").as_str(), "https://separation.example/api");
        assert_eq!(public_url(" ").expect("empty"), None);
        for url in ["separation.example", "ftp://a", "https://a/?x=1", "https://a/#x"] {
            let refused = public_url(url).expect_err(url);
            assert_eq!(refused.name, "API_PUBLIC_URL", "{url}");
        }
    }
}
