//! Settings of Kafka clients, with the names and values of librdkafka.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Margin between a task's deadline and `max.poll.interval.ms`, for uploading, committing and closing.
pub const CLOSE_MARGIN: Duration = Duration::from_secs(30);

/// Timings by which the group detects a dead consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// `max.poll.interval.ms`: longest time between two polls, and longest time that a rebalance waits for a member.
    pub max_poll_interval: Duration,
    /// `session.timeout.ms`: time without heartbeats after which the broker removes a member.
    pub session_timeout: Duration,
    /// `heartbeat.interval.ms`.
    pub heartbeat_interval: Duration,
}

/// A rule that a consumer's timings break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimingsError {
    /// Three heartbeats must fit into a session.
    #[error(
        "the session timeout ({session_ms} ms) must be more than three heartbeat intervals (3 x {heartbeat_ms} ms); \
         fix: raise it or lower the heartbeat interval"
    )]
    Heartbeat {
        /// Session timeout, in milliseconds.
        session_ms: u128,
        /// Heartbeat interval, in milliseconds.
        heartbeat_ms: u128,
    },
    /// A session must fit into a poll interval.
    #[error(
        "the poll interval ({poll_ms} ms) must be more than the session timeout ({session_ms} ms); \
         fix: raise the poll interval or lower the session timeout"
    )]
    Session {
        /// Session timeout, in milliseconds.
        session_ms: u128,
        /// Poll interval, in milliseconds.
        poll_ms: u128,
    },
    /// A task and the closing margin must fit into a poll interval.
    #[error(
        "a task's time limit ({task_s} s) and {margin_s} s for closing must be less than the poll interval \
         ({poll_s} s); fix: lower the limit or raise the poll interval"
    )]
    Task {
        /// A task's time limit, in seconds.
        task_s: u64,
        /// Margin, in seconds.
        margin_s: u64,
        /// Poll interval, in seconds.
        poll_s: u64,
    },
}

impl Timings {
    /// The timings of uvr5-api's processors.
    pub const PROCESSOR: Self = Self {
        max_poll_interval: Duration::from_millis(600_000),
        session_timeout: Duration::from_millis(60_000),
        heartbeat_interval: Duration::from_millis(10_000),
    };

    /// The timings of uvr5-api's uploaders.
    pub const UPLOADER: Self = Self {
        max_poll_interval: Duration::from_millis(300_000),
        ..Self::PROCESSOR
    };

    /// The default time limit of a task: `max.poll.interval.ms` less [`CLOSE_MARGIN`], but at least half of it.
    pub fn default_task_timeout(&self) -> Duration {
        let half = self.max_poll_interval / 2;
        self.max_poll_interval.saturating_sub(CLOSE_MARGIN).max(half)
    }

    fn margin(&self) -> Duration {
        CLOSE_MARGIN.min(self.max_poll_interval / 2)
    }

    /// Checks that `3 * heartbeat < session < poll interval` and that a task of `task_timeout` fits.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn check(&self, task_timeout: Duration) -> Result<(), TimingsError> {
        if self.heartbeat_interval * 3 >= self.session_timeout {
            return Err(TimingsError::Heartbeat {
                session_ms: self.session_timeout.as_millis(),
                heartbeat_ms: self.heartbeat_interval.as_millis(),
            });
        }
        if self.session_timeout >= self.max_poll_interval {
            return Err(TimingsError::Session {
                session_ms: self.session_timeout.as_millis(),
                poll_ms: self.max_poll_interval.as_millis(),
            });
        }
        if task_timeout + self.margin() > self.max_poll_interval {
            return Err(TimingsError::Task {
                task_s: task_timeout.as_secs(),
                margin_s: self.margin().as_secs(),
                poll_s: self.max_poll_interval.as_secs(),
            });
        }
        Ok(())
    }
}

/// Partition assignor. The two cannot be mixed in one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Assignor {
    /// Revokes only partitions that move; members keep the others during a rebalance.
    #[default]
    CooperativeSticky,
    /// That of uvr5-api: every rebalance revokes all partitions.
    Range,
}

/// A value that a setting does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not one of {valid}")]
pub struct InvalidValue {
    /// The rejected value.
    pub value: String,
    /// The valid values, comma separated.
    pub valid: String,
}

/// The one of `values` with this name.
///
/// # Errors
/// When none has it.
pub fn named<T: Copy>(text: &str, values: &[T], name: fn(T) -> &'static str) -> Result<T, InvalidValue> {
    let found = values.iter().copied().find(|value| name(*value) == text);
    found.ok_or_else(|| InvalidValue {
        value: text.to_owned(),
        valid: values
            .iter()
            .map(|value| name(*value))
            .collect::<Vec<_>>()
            .join(", "),
    })
}

impl Assignor {
    /// Its name in Kafka.
    pub fn name(self) -> &'static str {
        match self {
            Self::CooperativeSticky => "cooperative-sticky",
            Self::Range => "range",
        }
    }
}

impl fmt::Display for Assignor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Assignor {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        named(text, &[Self::CooperativeSticky, Self::Range], Self::name)
    }
}

/// Where a partition without a committed offset starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OffsetReset {
    /// At the end, like uvr5-api: messages published before are skipped.
    #[default]
    Latest,
    /// At the first message.
    Earliest,
}

impl OffsetReset {
    /// Its name in Kafka.
    pub fn name(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Earliest => "earliest",
        }
    }
}

impl fmt::Display for OffsetReset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for OffsetReset {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        named(text, &[Self::Latest, Self::Earliest], Self::name)
    }
}

/// SASL mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SaslMechanism {
    /// The password in plain text; use it only over TLS.
    Plain,
    /// SCRAM with SHA-256.
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
    /// A token of an OAuth 2 authorization server, or of a Kubernetes service account.
    OauthBearer,
    /// A token signed with AWS credentials, for Amazon MSK.
    AwsMskIam,
}

impl SaslMechanism {
    /// All mechanisms.
    pub const ALL: [Self; 5] = [
        Self::Plain,
        Self::ScramSha256,
        Self::ScramSha512,
        Self::OauthBearer,
        Self::AwsMskIam,
    ];

    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OauthBearer => "OAUTHBEARER",
            Self::AwsMskIam => "AWS_MSK_IAM",
        }
    }

    /// Its name in Kafka's protocol. Tokens for Amazon MSK are sent as any other token.
    pub fn wire_name(self) -> &'static str {
        match self {
            Self::AwsMskIam => Self::OauthBearer.name(),
            other => other.name(),
        }
    }
}

impl FromStr for SaslMechanism {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        named(text, &Self::ALL, Self::name)
    }
}

/// Security protocols of brokers' listeners.
pub const SECURITY_PROTOCOLS: [&str; 4] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];

/// Bootstrap servers whose `PROTOCOL://` prefixes are invalid. The fix is to write `host:port` for each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServersError {
    /// A prefix is not one of [`SECURITY_PROTOCOLS`].
    #[error("the protocol of `{server}` is not one of {}", SECURITY_PROTOCOLS.join(", "))]
    Protocol {
        /// The server.
        server: String,
    },
    /// Servers have different prefixes, or only some of them have one.
    #[error("`{servers}` are servers with different protocols")]
    Mixed {
        /// All servers.
        servers: String,
    },
}

/// Bootstrap servers without the `PROTOCOL://` that other clients write before each, and that protocol if they have one.
///
/// # Errors
/// When a protocol is unknown or differs among the servers.
pub fn strip_protocols(servers: &str) -> Result<(String, Option<&'static str>), ServersError> {
    let mut stripped = Vec::new();
    let mut protocols = Vec::new();
    for server in servers.split(',').map(str::trim) {
        let Some((prefix, address)) = server.split_once("://") else {
            stripped.push(server);
            protocols.push(None);
            continue;
        };
        let named = |protocol: &&&str| protocol.eq_ignore_ascii_case(prefix);
        let known = SECURITY_PROTOCOLS.iter().find(named).copied();
        let unknown = || ServersError::Protocol {
            server: server.to_owned(),
        };
        stripped.push(address.trim_end_matches('/'));
        protocols.push(Some(known.ok_or_else(unknown)?));
    }
    if protocols.iter().any(|protocol| *protocol != protocols[0]) {
        return Err(ServersError::Mixed {
            servers: servers.to_owned(),
        });
    }
    Ok((stripped.join(","), protocols[0]))
}

/// The AWS region in the names of brokers of Amazon MSK, such as
/// `b-1.songs.abc123.c2.kafka.eu-central-1.amazonaws.com:9098`; none if no name has one, or two have different ones.
pub fn aws_region(servers: &str) -> Option<&str> {
    let mut regions = servers.split(',').filter_map(region_of);
    let first = regions.next()?;
    regions.all(|region| region == first).then_some(first)
}

fn region_of(server: &str) -> Option<&str> {
    let (host, _) = server.trim().rsplit_once(':')?;
    let host = host.strip_suffix(".cn").unwrap_or(host);
    let (service, region) = host.strip_suffix(".amazonaws.com")?.rsplit_once('.')?;
    let is_msk = service.ends_with(".kafka") || service.ends_with(".kafka-serverless");
    (is_msk && is_aws_region(region)).then_some(region)
}

/// Whether a text may be the name of an AWS region, which becomes part of host names.
pub fn is_aws_region(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(is_allowed)
}

/// Connection settings of any client.
pub fn connection(bootstrap_servers: &str, client_id: &str) -> Vec<(&'static str, String)> {
    vec![
        ("bootstrap.servers", bootstrap_servers.to_owned()),
        ("client.id", client_id.to_owned()),
        ("socket.keepalive.enable", "true".to_owned()),
        // The client reconnects within two seconds after a broker is available again.
        ("reconnect.backoff.ms", "100".to_owned()),
        ("reconnect.backoff.max.ms", "2000".to_owned()),
        // Created topics and moved leaders are noticed soon.
        ("topic.metadata.refresh.interval.ms", "10000".to_owned()),
    ]
}

/// Settings of a consumer that processes one message at a time and commits explicitly.
pub fn one_message_consumer(
    group: &str,
    timings: &Timings,
    assignor: Assignor,
    reset: OffsetReset,
) -> Vec<(&'static str, String)> {
    let milliseconds = |duration: Duration| duration.as_millis().to_string();
    vec![
        ("group.id", group.to_owned()),
        ("enable.auto.commit", "false".to_owned()),
        ("enable.auto.offset.store", "false".to_owned()),
        ("auto.offset.reset", reset.name().to_owned()),
        ("partition.assignment.strategy", assignor.name().to_owned()),
        ("max.poll.interval.ms", milliseconds(timings.max_poll_interval)),
        ("session.timeout.ms", milliseconds(timings.session_timeout)),
        ("heartbeat.interval.ms", milliseconds(timings.heartbeat_interval)),
        ("isolation.level", "read_committed".to_owned()),
        // One message is enough: of each partition, the worker reads only the first one in advance. Tasks have hundreds
        // of bytes.
        ("queued.min.messages", "1".to_owned()),
        ("queued.max.messages.kbytes", "1024".to_owned()),
        ("fetch.message.max.bytes", "65536".to_owned()),
        ("fetch.wait.max.ms", "500".to_owned()),
        // A partition whose queue was full is fetched again after this time.
        ("fetch.queue.backoff.ms", "10".to_owned()),
        ("fetch.error.backoff.ms", "100".to_owned()),
    ]
}

/// Settings of a producer that waits for all in-sync replicas.
pub fn producer(idempotent: bool) -> Vec<(&'static str, String)> {
    vec![
        ("acks", "all".to_owned()),
        ("enable.idempotence", idempotent.to_string()),
        ("linger.ms", "0".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(poll_ms: u64, session_ms: u64, heartbeat_ms: u64, task_ms: u64) -> Result<(), TimingsError> {
        let timings = Timings {
            max_poll_interval: Duration::from_millis(poll_ms),
            session_timeout: Duration::from_millis(session_ms),
            heartbeat_interval: Duration::from_millis(heartbeat_ms),
        };
        timings.check(Duration::from_millis(task_ms))
    }

    #[test]
    fn timings_are_checked_together() {
        assert_eq!(check(600_000, 60_000, 10_000, 570_000), Ok(()));
        assert_eq!(check(20_000, 6_000, 1_000, 10_000), Ok(()));
        let heartbeat = check(600_000, 30_000, 10_000, 570_000);
        assert!(matches!(heartbeat, Err(TimingsError::Heartbeat { .. })));
        let session = check(60_000, 60_000, 10_000, 10_000);
        assert!(matches!(session, Err(TimingsError::Session { .. })));
        let task = check(600_000, 60_000, 10_000, 570_001);
        assert!(matches!(task, Err(TimingsError::Task { .. })));
    }

    #[test]
    fn the_default_limit_of_a_task_always_fits() {
        for poll in [7_000, 59_000, 60_000, 61_000, 300_000, 600_000] {
            let timings = Timings {
                max_poll_interval: Duration::from_millis(poll),
                session_timeout: Duration::from_millis(6_000),
                heartbeat_interval: Duration::from_millis(1_000),
            };
            assert_eq!(timings.check(timings.default_task_timeout()), Ok(()), "{poll}");
        }
        let processor = Timings::PROCESSOR.default_task_timeout();
        assert_eq!(processor, Duration::from_secs(570));
    }

    #[test]
    fn the_protocol_before_each_server_is_removed_and_must_be_the_same() {
        let check = |servers: &str| strip_protocols(servers);
        let same = |servers: &str, protocol| Ok((servers.to_owned(), protocol));
        assert_eq!(check("a:1,b:2"), same("a:1,b:2", None));
        assert_eq!(
            check("SASL_SSL://a:1, sasl_ssl://[::1]:2/"),
            same("a:1,[::1]:2", Some("SASL_SSL"))
        );
        assert!(matches!(check("https://a:1"), Err(ServersError::Protocol { .. })));
        for mixed in ["SSL://a:1,b:2", "SSL://a:1,PLAINTEXT://b:2"] {
            assert!(matches!(check(mixed), Err(ServersError::Mixed { .. })), "{mixed}");
        }
    }

    #[test]
    fn the_region_is_that_of_the_brokers_of_amazon_msk() {
        let check = |servers: &str, expected: Option<&str>| {
            assert_eq!(aws_region(servers), expected, "{servers}");
        };
        let broker = "b-1.songs.abc123.c2.kafka.eu-central-1.amazonaws.com:9098";
        check(broker, Some("eu-central-1"));
        check(
            &format!("{broker}, {}", broker.replace("b-1", "b-2")),
            Some("eu-central-1"),
        );
        let serverless = "boot-abc.c1.kafka-serverless.us-gov-west-1.amazonaws.com:9098";
        check(serverless, Some("us-gov-west-1"));
        check(
            "b-1.songs.kafka.cn-north-1.amazonaws.com.cn:9098",
            Some("cn-north-1"),
        );
        for none in [
            "kafka:9092",
            "ec2-1-2-3-4.eu-west-1.compute.amazonaws.com:9098",
            "b-1.kafka.eu-central-1.amazonaws.com.evil.example:9098",
            "evilamazonaws.com:9098",
        ] {
            check(none, None);
        }
        check(&format!("{broker},{serverless}"), None);
        check(&format!("kafka.example:9098,{broker}"), Some("eu-central-1"));
    }
}
