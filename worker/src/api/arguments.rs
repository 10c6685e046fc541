//! What the API is told: where to listen, who may call, how much a song may be.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::Args;
use secrecy::SecretString;
use separation_contract::environment as env;
use separation_contract::names;

use super::Access;
use crate::outbound::DownloadLimits;
use crate::settings::{KafkaArguments, OutboundArguments, S3Arguments, SettingError, StagingArguments};
use crate::telemetry::LogsArguments;

/// Options of the API.
#[derive(Debug, Clone, Args)]
pub struct ApiArguments {
    /// Address to listen on [default: 0.0.0.0, or 127.0.0.1 without a password]
    #[arg(long, env = env::API_HOST, value_name = "ADDRESS")]
    host: Option<String>,
    /// Port to listen on; 0 takes any free one
    #[arg(long, env = env::API_PORT, default_value = "8000", value_name = "PORT")]
    port: u16,
    /// Name that callers log in with
    #[arg(long, env = env::BASIC_AUTH_USERNAME, default_value = "admin", value_name = "NAME")]
    username: String,
    /// Password that callers log in with; better given in the environment
    #[arg(long, env = env::BASIC_AUTH_PASSWORD, hide_env_values = true, value_name = "PASSWORD")]
    password: Option<SecretString>,
    /// The largest song that is taken, in bytes
    #[arg(long, env = env::MAX_INPUT_BYTES, default_value = "2147483648", value_name = "BYTES")]
    max_input_bytes: u64,
    /// The longest time for fetching or receiving one song, in seconds
    #[arg(long, env = env::INPUT_TIMEOUT_SECONDS, default_value = "600", value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    input_timeout_seconds: u64,
    /// The longest silence while fetching or receiving one song, in seconds
    #[arg(long, env = env::INPUT_IDLE_SECONDS, default_value = "30", value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    input_idle_seconds: u64,
    /// How many songs are fetched or received at once; further callers are told to come back
    #[arg(long, env = env::MAX_CONCURRENT_INPUTS, default_value = "8", value_name = "COUNT",
          value_parser = clap::value_parser!(u16).range(1..))]
    max_concurrent_inputs: u16,
    /// Topic that tasks go to
    #[arg(long, env = env::KAFKA_TASK_TOPIC, default_value = names::TASK_TOPIC, value_name = "TOPIC")]
    task_topic: String,
    /// Consumer group of processors, for telling how many tasks are ahead
    #[arg(long, env = env::KAFKA_PROCESSOR_GROUP_ID, default_value = names::PROCESSOR_GROUP, value_name = "GROUP")]
    processor_group: String,
    /// Address of live, ready, metrics and drain; port 0 takes any free one
    #[arg(long, env = env::ADMIN_ADDR, default_value = "0.0.0.0:8081", value_name = "ADDRESS")]
    pub admin_addr: SocketAddr,
    /// How Kafka is reached.
    #[command(flatten)]
    pub kafka: KafkaArguments,
    /// Where songs wait.
    #[command(flatten)]
    pub staging: StagingArguments,
    /// Where finished stems are.
    #[command(flatten)]
    pub s3: S3Arguments,
    /// What may be called.
    #[command(flatten)]
    pub outbound: OutboundArguments,
    /// How to log.
    #[command(flatten)]
    pub logs: LogsArguments,
}

/// What the API is told, checked.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who may call it.
    pub access: Access,
    /// What one song may take.
    pub input: DownloadLimits,
    /// How many songs are taken at once.
    pub max_concurrent_inputs: usize,
    /// Topic that tasks go to.
    pub task_topic: String,
    /// Consumer group of processors.
    pub processor_group: String,
}

impl ApiArguments {
    /// Checks the options together.
    ///
    /// # Errors
    /// When the address cannot be used, or anybody could call.
    pub fn settings(&self) -> Result<ApiSettings, SettingError> {
        let access = Access::new(&self.username, self.password.as_ref());
        let open = matches!(access, Access::Open);
        let ip = match self
            .host
            .as_deref()
            .map(str::trim)
            .filter(|host| !host.is_empty())
        {
            None if open => Ipv4Addr::LOCALHOST.into(),
            None => Ipv4Addr::UNSPECIFIED.into(),
            Some("localhost") => Ipv4Addr::LOCALHOST.into(),
            Some(host) => host.parse::<IpAddr>().map_err(|_| SettingError {
                name: env::API_HOST,
                problem: format!("`{host}` is no address"),
                fix: "write an address of this machine, such as 0.0.0.0 or 127.0.0.1",
            })?,
        };
        if open && !ip.is_loopback() {
            return Err(SettingError {
                name: env::BASIC_AUTH_PASSWORD,
                problem: format!("not set, and anybody could post songs to {ip}"),
                fix: "set BASIC_AUTH_PASSWORD, or listen on 127.0.0.1",
            });
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
    fn without_a_password_only_this_machine_may_call() {
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
