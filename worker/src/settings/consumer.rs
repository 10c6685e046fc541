//! Settings of consumers: topics, group, timings, and the handling of failed messages.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use separation_contract::environment as env;
use separation_contract::failure_policy::FailurePolicy;
use separation_contract::kafka::{Assignor, InvalidValue, OffsetReset, Timings};
use separation_contract::names;

use super::SettingError;

/// librdkafka's maximum of `max.poll.interval.ms`: one day.
const MAX_POLL_INTERVAL_MS: u64 = 86_400_000;

/// librdkafka's maximum of `session.timeout.ms` and `heartbeat.interval.ms`: one hour.
const MAX_SESSION_MS: u64 = 3_600_000;

/// The roles that consume messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumedRole {
    /// Consumes tasks and publishes results.
    Processor,
    /// Consumes results, uploads stems and delivers webhooks.
    Uploader,
}

/// Options for consuming messages.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Messages")]
pub struct ConsumerArguments {
    /// Topic of tasks
    #[arg(long, env = env::KAFKA_TASK_TOPIC, default_value = names::TASK_TOPIC, value_name = "TOPIC")]
    task_topic: String,
    /// Topic of results
    #[arg(long, env = env::KAFKA_RESULT_TOPIC, default_value = names::RESULT_TOPIC, value_name = "TOPIC")]
    result_topic: String,
    /// Dead-letter topic [default: the consumed topic's name with _dead_letters]
    #[arg(long, env = env::KAFKA_DEAD_LETTER_TOPIC, value_name = "TOPIC")]
    dead_letter_topic: Option<String>,
    /// Consumer group of processors
    #[arg(long, env = env::KAFKA_PROCESSOR_GROUP_ID, default_value = names::PROCESSOR_GROUP, value_name = "GROUP")]
    processor_group: String,
    /// Consumer group of uploaders
    #[arg(long, env = env::KAFKA_UPLOADER_GROUP_ID, default_value = names::UPLOADER_GROUP, value_name = "GROUP")]
    uploader_group: String,
    /// Kafka max.poll.interval.ms: longest time between polls [default: 600000 for processors, 300000 for uploaders]
    #[arg(long, env = env::KAFKA_MAX_POLL_INTERVAL_MS, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(1..=MAX_POLL_INTERVAL_MS))]
    max_poll_interval_ms: Option<u64>,
    /// Kafka session.timeout.ms: time without heartbeats after which the broker removes this worker from the group
    #[arg(long, env = env::KAFKA_SESSION_TIMEOUT_MS, default_value = "60000", value_name = "MS",
          value_parser = clap::value_parser!(u64).range(1..=MAX_SESSION_MS))]
    session_timeout_ms: u64,
    /// Kafka heartbeat.interval.ms: time between two heartbeats
    #[arg(long, env = env::KAFKA_HEARTBEAT_INTERVAL_MS, default_value = "10000", value_name = "MS",
          value_parser = clap::value_parser!(u64).range(1..=MAX_SESSION_MS))]
    heartbeat_interval_ms: u64,
    /// Partition assignor: cooperative-sticky, or range in one group with workers of another implementation
    #[arg(long, env = env::KAFKA_ASSIGNOR, default_value_t, value_name = "ASSIGNOR")]
    assignor: Assignor,
    /// Where a partition without a committed offset starts: latest or earliest
    #[arg(long, env = env::KAFKA_AUTO_OFFSET_RESET, default_value_t, value_name = "RESET")]
    auto_offset_reset: OffsetReset,
    /// Time limit of one message, in seconds [default: KAFKA_MAX_POLL_INTERVAL_MS less 30 s]
    #[arg(long, env = env::TASK_TIMEOUT_SECONDS, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=MAX_POLL_INTERVAL_MS / 1_000))]
    task_timeout_seconds: Option<u64>,
    /// Policy for messages that fail: AlwaysCommit or RetryOnFailure
    #[arg(long, env = env::ON_FAILURE, default_value = "AlwaysCommit", value_name = "POLICY")]
    on_failure: PolicyName,
    /// How often RetryOnFailure republishes a message to the end of its topic
    #[arg(long, env = env::MAX_RETRIES, default_value = "3", value_name = "COUNT")]
    max_retries: u32,
    /// Number of worker crashes on one message after which it is sent to the dead-letter topic
    #[arg(long, env = env::MAX_ATTEMPTS, default_value = "3", value_name = "COUNT")]
    max_attempts: u32,
    /// How long the assignment must be unchanged before the first message, in milliseconds
    #[arg(long, env = env::SETTLE_MS, default_value = "1000", value_name = "MS",
          value_parser = clap::value_parser!(u64).range(0..=MAX_SESSION_MS))]
    settle_ms: u64,
    /// Seconds between two commits of a running task's progress
    #[arg(long, env = env::PROGRESS_SECONDS, default_value = "3", value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=MAX_SESSION_MS / 1_000))]
    progress_seconds: u64,
}

/// Consumer settings of one role.
#[derive(Debug, Clone)]
pub struct ConsumerSettings {
    /// The role.
    pub role: ConsumedRole,
    /// The consumed topic.
    pub topic: String,
    /// The topic that processors publish results to.
    pub result_topic: String,
    /// The dead-letter topic.
    pub dead_letter_topic: String,
    /// The consumer group.
    pub group: String,
    /// `max.poll.interval.ms`, `session.timeout.ms` and `heartbeat.interval.ms`.
    pub timings: Timings,
    /// The partition assignor.
    pub assignor: Assignor,
    /// Where a partition without a committed offset starts.
    pub reset: OffsetReset,
    /// Time limit of one message.
    pub task_timeout: Duration,
    /// Policy for messages that fail.
    pub policy: FailurePolicy,
    /// Number of worker crashes on one message after which it is sent to the dead-letter topic.
    pub max_attempts: u32,
    /// How long the assignment must be unchanged before the first message.
    pub start_delay: Duration,
    /// Minimum time between two commits of a running task's progress.
    pub progress_interval: Duration,
    /// Longest time that a running task may take after a shutdown request: the poll interval, within which every task
    /// ends, unless [`with_drain`](Self::with_drain) shortens it.
    pub drain: Duration,
}

/// When a task's input is deleted; always after its result is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeleteInput {
    /// After success; the input of a failed task is kept, so that the task can be posted again.
    #[default]
    AfterSuccess,
    /// After success and failure, like uvr5-api.
    Always,
    /// Never.
    Never,
}

impl fmt::Display for DeleteInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AfterSuccess => "after-success",
            Self::Always => "always",
            Self::Never => "never",
        })
    }
}

impl FromStr for DeleteInput {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match &*normalized(text) {
            "aftersuccess" => Ok(Self::AfterSuccess),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err(InvalidValue {
                value: text.into(),
                valid: "after-success, always, never".into(),
            }),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PolicyName {
    AlwaysCommit,
    RetryOnFailure,
}

impl FromStr for PolicyName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match &*normalized(text) {
            "alwayscommit" => Ok(Self::AlwaysCommit),
            "retryonfailure" => Ok(Self::RetryOnFailure),
            _ => Err(InvalidValue {
                value: text.into(),
                valid: "AlwaysCommit, RetryOnFailure".into(),
            }),
        }
    }
}

/// `text` without hyphens, in lower case: a SeparationPool has `AfterSuccess`, the options have `after-success`.
fn normalized(text: &str) -> String {
    text.replace('-', "").to_ascii_lowercase()
}

impl ConsumerArguments {
    /// Validates the options for one role.
    ///
    /// # Errors
    /// When the timings contradict each other, or no attempt is allowed.
    pub fn settings(&self, role: ConsumedRole) -> Result<ConsumerSettings, SettingError> {
        let (topic, group, default_timings) = match role {
            ConsumedRole::Processor => (&self.task_topic, &self.processor_group, Timings::PROCESSOR),
            ConsumedRole::Uploader => (&self.result_topic, &self.uploader_group, Timings::UPLOADER),
        };
        let timings = Timings {
            max_poll_interval: self
                .max_poll_interval_ms
                .map_or(default_timings.max_poll_interval, Duration::from_millis),
            session_timeout: Duration::from_millis(self.session_timeout_ms),
            heartbeat_interval: Duration::from_millis(self.heartbeat_interval_ms),
        };
        let task_timeout = self
            .task_timeout_seconds
            .map_or_else(|| timings.default_task_timeout(), Duration::from_secs);
        timings.check(task_timeout).map_err(|error| {
            let fix = "3 x heartbeat < session < poll interval, and the time limit 30 s below it";
            SettingError::new(env::KAFKA_MAX_POLL_INTERVAL_MS, error.to_string(), fix)
        })?;
        if self.max_attempts == 0 {
            let problem = "0 attempts would process no message";
            return Err(SettingError::new(
                env::MAX_ATTEMPTS,
                problem,
                "set it to at least 1",
            ));
        }
        let policy = match self.on_failure {
            PolicyName::RetryOnFailure => FailurePolicy::RetryOnFailure(self.max_retries),
            PolicyName::AlwaysCommit => FailurePolicy::AlwaysCommit,
        };
        Ok(ConsumerSettings {
            role,
            topic: topic.clone(),
            result_topic: self.result_topic.clone(),
            dead_letter_topic: self
                .dead_letter_topic
                .clone()
                .unwrap_or_else(|| names::dead_letter_topic(topic)),
            group: group.clone(),
            timings,
            assignor: self.assignor,
            reset: self.auto_offset_reset,
            task_timeout,
            policy,
            max_attempts: self.max_attempts,
            start_delay: Duration::from_millis(self.settle_ms),
            progress_interval: Duration::from_secs(self.progress_seconds),
            drain: timings.max_poll_interval,
        })
    }
}

impl ConsumerSettings {
    /// Shortens the time that a running task may take after a shutdown request.
    ///
    /// # Errors
    /// When it is longer than the poll interval.
    pub fn with_drain(mut self, drain: Duration) -> Result<Self, SettingError> {
        if drain <= self.timings.max_poll_interval {
            self.drain = drain;
            return Ok(self);
        }
        let (drain_seconds, limit_seconds) = (drain.as_secs(), self.timings.max_poll_interval.as_secs());
        let problem = format!(
            "{drain_seconds} is longer than the poll interval, within which every task ends: {limit_seconds} s"
        );
        let fix = "set it to at most the poll interval, or raise KAFKA_MAX_POLL_INTERVAL_MS";
        Err(SettingError::new(env::DRAIN_SECONDS, problem, fix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_parsed_in_the_spelling_of_options_and_of_pools() {
        for text in ["after-success", "AfterSuccess"] {
            assert_eq!(text.parse(), Ok(DeleteInput::AfterSuccess));
        }
        for text in ["RetryOnFailure", "retry-on-failure"] {
            assert_eq!(text.parse(), Ok(PolicyName::RetryOnFailure));
        }
        assert!("success".parse::<DeleteInput>().is_err());
        assert!("Never".parse::<PolicyName>().is_err());
    }

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        consumer: ConsumerArguments,
    }

    #[test]
    fn a_drain_takes_up_to_the_poll_interval_by_default() {
        let settings = |options: &[&str]| {
            let line = <Line as clap::Parser>::parse_from([&["test"], options].concat());
            line.consumer.settings(ConsumedRole::Processor).expect("valid")
        };
        let drain = |settings: ConsumerSettings| settings.drain.as_secs();
        assert_eq!(drain(settings(&[])), 600);
        let short = settings(&["--max-poll-interval-ms=300000"]);
        assert_eq!(drain(short.clone()), 300);
        let with_drain = |seconds| short.clone().with_drain(Duration::from_secs(seconds));
        assert_eq!(drain(with_drain(300).expect("valid")), 300);
        assert_eq!(drain(with_drain(25).expect("valid")), 25);
        let refused = with_drain(301).expect_err("too long");
        assert!(refused.to_string().contains("DRAIN_SECONDS"), "{refused}");
    }
}
