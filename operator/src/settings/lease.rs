//! Settings of the lease that the operator's replicas share.

use std::time::Duration;

use clap::Args;
use uuid::Uuid;

use super::SettingError;

/// Longest lease: the time without a leader after a crash.
const MAX_LEASE_DURATION: Duration = Duration::from_secs(600);

/// Minimum time between the leader's last write and the next leader's first write: a write that was sent just before
/// the deadline is completed or refused by then.
const MIN_GAP: Duration = Duration::from_secs(2);

/// Renewal attempts that must fit into the renew deadline.
const MIN_ATTEMPTS: u32 = 3;

/// Minimum time between two renewal attempts: five requests a second, a thousandth of what an API server can answer.
const MIN_RETRY_PERIOD: Duration = Duration::from_millis(200);

/// Leader election options.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Leader election")]
pub struct LeaseArguments {
    #[command(flatten)]
    lease: LeaseName,
    /// Name of this replica: its pod's name. Its identity is this name and a random suffix
    #[arg(
        long,
        env = "POD_NAME",
        value_name = "NAME",
        default_value = "separation-operator"
    )]
    pub pod_name: String,
    /// Time without a renewal after which another replica may lead, in whole seconds
    #[arg(
        long,
        env = "LEASE_DURATION_SECONDS",
        value_name = "SECONDS",
        default_value = "15"
    )]
    pub lease_duration_seconds: u32,
    /// Time after its last renewal during which the leader may write; shorter than the lease, so that only one replica
    /// writes
    #[arg(
        long,
        env = "LEASE_RENEW_DEADLINE_SECONDS",
        value_name = "SECONDS",
        default_value = "10"
    )]
    pub lease_renew_deadline_seconds: f64,
    /// Time between two renewals of the leader, or two reads of a standby
    #[arg(
        long,
        env = "LEASE_RETRY_PERIOD_SECONDS",
        value_name = "SECONDS",
        default_value = "2"
    )]
    pub lease_retry_period_seconds: f64,
}

/// Options that name the Lease.
#[derive(Debug, Clone, Args)]
pub struct LeaseName {
    /// Name of the Lease that the operator's replicas share
    #[arg(
        long,
        env = "LEASE_NAME",
        value_name = "NAME",
        default_value = "separation-operator"
    )]
    pub lease_name: String,
    /// Namespace of the Lease, usually the operator's own
    #[arg(
        long,
        env = "POD_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "separation-system"
    )]
    pub lease_namespace: String,
}

/// Lease, identity of this replica, and timings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseSettings {
    /// Name of the Lease.
    pub name: String,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Holder identity of this replica; differs after every start.
    pub identity: String,
    /// Duration, renew deadline and retry period.
    pub timings: LeaseTimings,
}

/// Duration, renew deadline and retry period of a lease, validated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimings {
    duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
}

impl LeaseArguments {
    /// Validates the arguments and creates the identity of this start.
    ///
    /// # Errors
    /// If the times do not fit together or a name is invalid.
    pub fn settings(&self) -> Result<LeaseSettings, SettingError> {
        for (option, name) in [
            ("--lease-name", &self.lease.lease_name),
            ("--lease-namespace", &self.lease.lease_namespace),
            ("--pod-name", &self.pod_name),
        ] {
            if !is_object_name(name) {
                let problem = format!("{name:?} is not a valid object name");
                let fix = "use lower-case letters, digits, - and .";
                return Err(SettingError::new(option, problem, fix));
            }
        }
        let parse = |option, seconds: f64| {
            Duration::try_from_secs_f64(seconds).map_err(|_| {
                let problem = format!("{seconds} is not a valid number of seconds");
                SettingError::new(option, problem, "give a positive number")
            })
        };
        let timings = LeaseTimings {
            duration: Duration::from_secs(self.lease_duration_seconds.into()),
            renew_deadline: parse(
                "--lease-renew-deadline-seconds",
                self.lease_renew_deadline_seconds,
            )?,
            retry_period: parse("--lease-retry-period-seconds", self.lease_retry_period_seconds)?,
        }
        .checked()?;
        // A container that restarts in its pod is another process: like any standby it waits for the old lease to
        // expire.
        let start = Uuid::new_v4().simple().to_string();
        Ok(LeaseSettings {
            name: self.lease.lease_name.clone(),
            namespace: self.lease.lease_namespace.clone(),
            identity: format!("{}_{}", self.pod_name, &start[..8]),
            timings,
        })
    }
}

impl Default for LeaseTimings {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

impl LeaseTimings {
    /// Time without a renewal after which another replica may lead; whole seconds.
    pub fn duration(self) -> Duration {
        self.duration
    }

    /// Time after the start of its last successful renewal during which the leader may write.
    pub fn renew_deadline(self) -> Duration {
        self.renew_deadline
    }

    /// Time between two renewals of the leader, or two reads of a standby.
    pub fn retry_period(self) -> Duration {
        self.retry_period
    }

    /// Timeout of one request. After a retry period, two fit into the renew deadline: of 10 s, a wait of 2 s, a request
    /// of 3.3 s and a wait with jitter of 2.4 s pass before a second one starts.
    pub fn request_timeout(self) -> Duration {
        self.renew_deadline / 3
    }

    fn checked(self) -> Result<Self, SettingError> {
        let Self {
            duration,
            renew_deadline,
            retry_period,
        } = self;
        let least_deadline = retry_period * MIN_ATTEMPTS;
        let least_duration = renew_deadline + MIN_GAP;
        let [length, deadline, period] =
            [duration, renew_deadline, retry_period].map(|time| time.as_secs_f64());
        let (name, problem, fix) = if retry_period < MIN_RETRY_PERIOD {
            (
                "--lease-retry-period-seconds",
                format!("{period} s would overload the API server"),
                format!("choose at least {} s", MIN_RETRY_PERIOD.as_secs_f64()),
            )
        } else if renew_deadline < least_deadline {
            (
                "--lease-renew-deadline-seconds",
                format!("{deadline} s leaves no room for {MIN_ATTEMPTS} attempts, one every {period} s"),
                format!(
                    "choose at least {} s, or a shorter --lease-retry-period-seconds",
                    least_deadline.as_secs_f64()
                ),
            )
        } else if duration < least_duration {
            (
                "--lease-duration-seconds",
                format!(
                    "{length} s would let another replica lead while this one may still write, {deadline} s after a \
                     renewal"
                ),
                format!(
                    "choose at least {} s, or a shorter --lease-renew-deadline-seconds",
                    least_duration.as_secs_f64().ceil()
                ),
            )
        } else if duration > MAX_LEASE_DURATION {
            (
                "--lease-duration-seconds",
                format!("no replica would lead for {length} s after a crash"),
                format!("choose at most {} s", MAX_LEASE_DURATION.as_secs_f64()),
            )
        } else {
            return Ok(self);
        };
        Err(SettingError::new(name, problem, fix))
    }
}

/// Whether a name is a DNS subdomain, as most object names must be.
pub(super) fn is_object_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Whether a text is a DNS label of any length. Namespaces are labels of at most 63 characters.
pub(super) fn is_label(label: &str) -> bool {
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    label.starts_with(ends) && label.ends_with(ends) && label.chars().all(|c| ends(c) || c == '-')
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        lease: LeaseArguments,
    }

    fn settings(arguments: &str) -> Result<LeaseSettings, SettingError> {
        let arguments = std::iter::once("operator").chain(arguments.split_whitespace());
        Command::try_parse_from(arguments)
            .expect("arguments")
            .lease
            .settings()
    }

    #[track_caller]
    fn refused(arguments: &str, expected: &str) {
        let error = settings(arguments).expect_err("they do not fit");
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn the_defaults_are_valid_and_every_start_has_its_own_identity() {
        let (one, other) = (settings("").expect("defaults"), settings("").expect("defaults"));
        assert_eq!(one.timings, LeaseTimings::default());
        assert!(
            one.identity.starts_with("separation-operator_"),
            "{}",
            one.identity
        );
        assert_ne!(one.identity, other.identity);
    }

    #[test]
    fn times_that_do_not_fit_together_are_refused_with_a_fix() {
        refused(
            "--lease-duration-seconds 11",
            "--lease-duration-seconds: 11 s would let another replica lead while this one may still write, 10 s after a \
             renewal; fix: choose at least 12 s, or a shorter --lease-renew-deadline-seconds",
        );
        refused(
            "--lease-retry-period-seconds 4",
            "--lease-renew-deadline-seconds: 10 s leaves no room for 3 attempts, one every 4 s; fix: choose at least \
             12 s, or a shorter --lease-retry-period-seconds",
        );
        refused(
            "--lease-retry-period-seconds 0.01",
            "--lease-retry-period-seconds: 0.01 s would overload the API server; fix: choose at least 0.2 s",
        );
        refused(
            "--lease-duration-seconds 3600",
            "--lease-duration-seconds: no replica would lead for 3600 s after a crash; fix: choose at most 600 s",
        );
        refused(
            "--lease-renew-deadline-seconds=-1",
            "--lease-renew-deadline-seconds: -1 is not a valid number of seconds; fix: give a positive number",
        );
    }

    #[test]
    fn invalid_object_names_are_refused() {
        for name in ["", "A", "a_b", "-a", "a.", "a..b"] {
            let error = settings(&format!("--lease-name={name}")).expect_err("no name");
            assert_eq!(error.name, "--lease-name", "{name}");
        }
        assert!(settings("--lease-name=a-1.b").is_ok());
    }
}
