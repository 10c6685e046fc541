//! Options of the API: address, credentials, limits of one song.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::Args;
use secrecy::SecretString;
use separation_contract::environment as env;
use separation_contract::names;
use separation_daemon::LogArguments;

use super::Access;
use crate::outbound::DownloadLimits;
use crate::settings::{KafkaArguments, OutboundArguments, S3Arguments, SettingError, StagingArguments};

/// Options of the API.
#[derive(Debug, Clone, Args)]
pub struct ApiArguments {
    /// Address to listen on [default: 0.0.0.0, or 127.0.0.1 without a password]
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
    /// Maximum size of one song, in bytes
    #[arg(long, env = env::MAX_INPUT_BYTES, default_value = "2147483648", value_name = "BYTES")]
    max_input_bytes: u64,
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
    /// Consumer group of the processors, used to report how many tasks are queued before one
    #[arg(long, env = env::KAFKA_PROCESSOR_GROUP_ID, default_value = names::PROCESSOR_GROUP, value_name = "GROUP")]
    processor_group: String,
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
    /// Log output.
    #[command(flatten)]
    pub logs: LogArguments,
}

/// Validated settings of the API.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// Address to listen on.
    pub address: SocketAddr,
    /// Authentication of clients.
    pub access: Access,
    /// Limits of one song: size, total time, idle time.
    pub input: DownloadLimits,
    /// Maximum number of songs fetched or received simultaneously.
    pub max_concurrent_inputs: usize,
    /// Topic that tasks are published to.
    pub task_topic: String,
    /// Consumer group of the processors.
    pub processor_group: String,
}

impl ApiArguments {
    /// Validates the options together.
    ///
    /// # Errors
    /// When the host is not an IP address, or is not a loopback address and no password is set.
    pub fn settings(&self) -> Result<ApiSettings, SettingError> {
        let access = Access::new(&self.username, self.password.as_ref());
        let open = matches!(access, Access::Open);
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
            let fix = "set BASIC_AUTH_PASSWORD, or listen on 127.0.0.1";
            return Err(SettingError::new(env::BASIC_AUTH_PASSWORD, problem, fix));
        }
        let total = Duration::from_secs(self.input_timeout_seconds);
        Ok(ApiSettings {
            address: SocketAddr::new(ip, self.port),
            access,
            input: DownloadLimits {
                max_bytes: self.max_input_bytes,
                total,
                idle: Duration::from_secs(self.input_idle_seconds).min(total),
            },
            max_concurrent_inputs: self.max_concurrent_inputs.into(),
            task_topic: self.task_topic.clone(),
            processor_group: self.processor_group.clone(),
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
}
