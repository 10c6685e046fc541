//! How a role takes messages, and what it does with those that fail.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use separation_contract::environment as env;
use separation_contract::kafka::{Assignor, OffsetReset, Timings, UnknownWord};
use separation_contract::names;

use super::SettingError;

/// The greatest `max.poll.interval.ms` of librdkafka: a day.
const MAX_POLL_INTERVAL_MS: u64 = 86_400_000;

/// The greatest `session.timeout.ms` and `heartbeat.interval.ms` of librdkafka: an hour.
const MAX_SESSION_MS: u64 = 3_600_000;

/// The roles that take messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumedRole {
    /// Tasks in, results out.
    Processor,
    /// Results in, webhooks out.
    Uploader,
}

/// Options about taking messages.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Messages")]
pub struct ConsumerArguments {
    /// Topic of tasks
    #[arg(long, env = env::KAFKA_TASK_TOPIC, default_value = names::TASK_TOPIC, value_name = "TOPIC")]
    task_topic: String,
    /// Topic of results
    #[arg(long, env = env::KAFKA_RESULT_TOPIC, default_value = names::RESULT_TOPIC, value_name = "TOPIC")]
    result_topic: String,
    /// Topic for messages that nobody can work on [default: the topic's name with _dead_letters]
    #[arg(long, env = env::KAFKA_DEAD_LETTER_TOPIC, value_name = "TOPIC")]
    dead_letter_topic: Option<String>,
    /// Consumer group of processors
    #[arg(long, env = env::KAFKA_PROCESSOR_GROUP_ID, default_value = names::PROCESSOR_GROUP, value_name = "GROUP")]
    processor_group: String,
    /// Consumer group of uploaders
    #[arg(long, env = env::KAFKA_UPLOADER_GROUP_ID, default_value = names::UPLOADER_GROUP, value_name = "GROUP")]
    uploader_group: String,
    /// The longest time between two polls, in milliseconds [default: 600000 for processors, 300000 for uploaders]
    #[arg(long, env = env::KAFKA_MAX_POLL_INTERVAL_MS, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(1..=MAX_POLL_INTERVAL_MS))]
    max_poll_interval_ms: Option<u64>,
    /// The longest silence before this worker counts as dead, in milliseconds
    #[arg(long, env = env::KAFKA_SESSION_TIMEOUT_MS, default_value = "60000", value_name = "MS",
          value_parser = clap::value_parser!(u64).range(1..=MAX_SESSION_MS))]
    session_timeout_ms: u64,
    /// Time between two signs of life, in milliseconds
    #[arg(long, env = env::KAFKA_HEARTBEAT_INTERVAL_MS, default_value = "10000", value_name = "MS",
          value_parser = clap::value_parser!(u64).range(1..=MAX_SESSION_MS))]
    heartbeat_interval_ms: u64,
    /// How partitions are shared: cooperative-sticky, or range beside workers of another make
    #[arg(long, env = env::KAFKA_ASSIGNOR, default_value_t, value_name = "ASSIGNOR")]
    assignor: Assignor,
    /// Where a partition that the group never committed starts: latest or earliest
    #[arg(long, env = env::KAFKA_AUTO_OFFSET_RESET, default_value_t, value_name = "RESET")]
    auto_offset_reset: OffsetReset,
    /// How long one message may take, in seconds [default: the poll interval less 30 s]
    #[arg(long, env = env::TASK_TIMEOUT_SECONDS, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=MAX_POLL_INTERVAL_MS / 1_000))]
    task_timeout_seconds: Option<u64>,
    /// What becomes of a message that fails: AlwaysCommit or RetryOnFailure
    #[arg(long, env = env::ON_FAILURE, default_value = "AlwaysCommit", value_name = "POLICY")]
    on_failure: PolicyName,
    /// How often RetryOnFailure puts a message back at the end of its topic
    #[arg(long, env = env::MAX_RETRIES, default_value = "3", value_name = "COUNT")]
    max_retries: u32,
    /// How often a message may kill its worker before it becomes a dead letter
    #[arg(long, env = env::MAX_ATTEMPTS, default_value = "3", value_name = "COUNT")]
    max_attempts: u32,
    /// How long partitions must stand still before the first message is taken, in milliseconds
    #[arg(long, env = env::SETTLE_MS, default_value = "1000", value_name = "MS",
          value_parser = clap::value_parser!(u64).range(0..=MAX_SESSION_MS))]
    settle_ms: u64,
}

/// How a role takes messages.
#[derive(Debug, Clone)]
pub struct ConsumerSettings {
    /// The role.
    pub role: ConsumedRole,
    /// Topic of messages to take.
    pub topic: String,
    /// Topic of results, where processors publish.
    pub result_topic: String,
    /// Topic for messages that nobody can work on.
    pub dead_letter_topic: String,
    /// The consumer group.
    pub group: String,
    /// How this member proves that it lives.
    pub timings: Timings,
    /// How partitions are shared.
    pub assignor: Assignor,
    /// Where a partition that was never committed starts.
    pub reset: OffsetReset,
    /// How long one message may take.
    pub task_timeout: Duration,
    /// What becomes of a message that fails.
    pub policy: FailurePolicy,
    /// How often a message may kill its worker.
    pub max_attempts: u32,
    /// How long partitions must stand still before the first message.
    pub settle: Duration,
}

/// What becomes of a message whose work failed for a reason that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailurePolicy {
    /// The failure is published and the message committed.
    AlwaysCommit,
    /// The message goes to the tail of its topic with `retry_count + 1`, until it was there this often.
    RetryOnFailure {
        /// How often.
        max_retries: u32,
    },
}

/// When a task's song is deleted; always after its result is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeleteInput {
    /// When its stems are there; a failed task's song is kept, so that it can be posted again.
    #[default]
    AfterSuccess,
    /// Whatever became of it, as the existing system does.
    Always,
    /// Not at all.
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
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match &*plain(word) {
            "aftersuccess" => Ok(Self::AfterSuccess),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err(UnknownWord {
                word: word.into(),
                known: "after-success, always, never",
            }),
        }
    }
}

/// The name of a failure policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PolicyName {
    AlwaysCommit,
    RetryOnFailure,
}

impl FromStr for PolicyName {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match &*plain(word) {
            "alwayscommit" => Ok(Self::AlwaysCommit),
            "retryonfailure" => Ok(Self::RetryOnFailure),
            _ => Err(UnknownWord {
                word: word.into(),
                known: "AlwaysCommit, RetryOnFailure",
            }),
        }
    }
}

/// A word without hyphens and capitals: a SeparationPool spells its values `AfterSuccess`, options `after-success`.
fn plain(word: &str) -> String {
    word.replace('-', "").to_ascii_lowercase()
}

impl ConsumerArguments {
    /// Checks the options together, for one role.
    ///
    /// # Errors
    /// When the timings do not go together.
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
        timings.check(task_timeout).map_err(|error| SettingError {
            name: env::KAFKA_MAX_POLL_INTERVAL_MS,
            problem: error.to_string(),
            fix: "3 x heartbeat < session < poll interval, and the time limit 30 s below it",
        })?;
        if self.max_attempts == 0 {
            return Err(SettingError {
                name: env::MAX_ATTEMPTS,
                problem: "no message would ever be tried".into(),
                fix: "allow at least 1",
            });
        }
        let policy = match self.on_failure {
            PolicyName::RetryOnFailure => FailurePolicy::RetryOnFailure {
                max_retries: self.max_retries,
            },
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
            settle: Duration::from_millis(self.settle_ms),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_in_the_spelling_of_options_and_of_pools() {
        for word in ["after-success", "AfterSuccess"] {
            assert_eq!(word.parse(), Ok(DeleteInput::AfterSuccess));
        }
        for word in ["RetryOnFailure", "retry-on-failure"] {
            assert_eq!(word.parse(), Ok(PolicyName::RetryOnFailure));
        }
        assert!("success".parse::<DeleteInput>().is_err());
        assert!("Never".parse::<PolicyName>().is_err());
    }
}
