//! Which lease the replicas of the operator share, and how long it lasts.

use std::time::Duration;

use clap::Args;
use uuid::Uuid;

use super::SettingError;

/// The longest lease: what a cluster without its leader waits for the next.
const LONGEST_LEASE: Duration = Duration::from_secs(600);

/// What must lie between the leader's last write and the first of the next one: a write that was sent at the last
/// moment is done by then, or refused.
const LEAST_GAP: Duration = Duration::from_secs(2);

/// How often the leader may fail to renew before it stops, at least.
const LEAST_TRIES: u32 = 3;

/// The shortest time between two tries: a thousandth of what an API server answers in a second.
const SHORTEST_RETRY: Duration = Duration::from_millis(200);

/// Options about the lease that the operator's replicas share.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Leader election")]
pub struct LeaseArguments {
    /// Name of the Lease that the operator's replicas share
    #[arg(
        long,
        env = "LEASE_NAME",
        value_name = "NAME",
        default_value = "separation-operator"
    )]
    pub lease_name: String,
    /// Namespace of the Lease: the operator's own
    #[arg(
        long,
        env = "POD_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "separation-system"
    )]
    pub lease_namespace: String,
    /// Who this replica is: its pod's name, to which each start adds something of its own
    #[arg(
        long,
        env = "POD_NAME",
        value_name = "NAME",
        default_value = "separation-operator"
    )]
    pub pod_name: String,
    /// How long others wait for a leader that says nothing, in whole seconds
    #[arg(
        long,
        env = "LEASE_DURATION_SECONDS",
        value_name = "SECONDS",
        default_value = "15"
    )]
    pub lease_duration_seconds: u32,
    /// How long the leader writes after it last renewed the lease; shorter than the lease, so that no two ever write
    #[arg(
        long,
        env = "LEASE_RENEW_DEADLINE_SECONDS",
        value_name = "SECONDS",
        default_value = "10"
    )]
    pub lease_renew_deadline_seconds: f64,
    /// How often the lease is renewed, or looked at
    #[arg(
        long,
        env = "LEASE_RETRY_PERIOD_SECONDS",
        value_name = "SECONDS",
        default_value = "2"
    )]
    pub lease_retry_period_seconds: f64,
}

/// Which lease, who asks for it, and how long it lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseSettings {
    /// The lease's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Who asks: another one after every start.
    pub identity: String,
    /// How long it lasts.
    pub timings: LeaseTimings,
}

/// How long a lease lasts; the three fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimings {
    duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
}

impl LeaseArguments {
    /// The settings, with an identity of this start.
    ///
    /// # Errors
    /// When the times do not fit together, or a name is none.
    pub fn settings(&self) -> Result<LeaseSettings, SettingError> {
        for (option, name) in [
            ("--lease-name", &self.lease_name),
            ("--lease-namespace", &self.lease_namespace),
            ("--pod-name", &self.pod_name),
        ] {
            if !is_object_name(name) {
                return Err(SettingError {
                    option,
                    problem: format!("{name:?} is no name of an object"),
                    fix: "use lower-case letters, digits, - and .".to_owned(),
                });
            }
        }
        let parse = |option, seconds: f64| {
            Duration::try_from_secs_f64(seconds).map_err(|_| SettingError {
                option,
                problem: format!("{seconds} is no number of seconds"),
                fix: "give a positive number".to_owned(),
            })
        };
        let timings = LeaseTimings::default()
            .with_duration(Duration::from_secs(self.lease_duration_seconds.into()))
            .with_renew_deadline(parse(
                "--lease-renew-deadline-seconds",
                self.lease_renew_deadline_seconds,
            )?)
            .with_retry_period(parse(
                "--lease-retry-period-seconds",
                self.lease_retry_period_seconds,
            )?)
            .checked()?;
        // A container that starts anew in its pod is another process: it waits for the old one's lease as others do.
        let start = Uuid::new_v4().simple().to_string();
        Ok(LeaseSettings {
            name: self.lease_name.clone(),
            namespace: self.lease_namespace.clone(),
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
    /// How long others wait for a leader that says nothing; whole seconds.
    pub fn duration(self) -> Duration {
        self.duration
    }

    /// How long the leader writes after the start of its last successful renewal.
    pub fn renew_deadline(self) -> Duration {
        self.renew_deadline
    }

    /// How often the lease is renewed, or looked at.
    pub fn retry_period(self) -> Duration {
        self.retry_period
    }

    /// How long one request may take. After a wait, two fit into the renew deadline: 2 + 3.3 + 2.4 of 10 seconds begin a
    /// second one.
    pub fn request_timeout(self) -> Duration {
        self.renew_deadline / 3
    }

    fn with_duration(self, duration: Duration) -> Self {
        Self { duration, ..self }
    }

    fn with_renew_deadline(self, renew_deadline: Duration) -> Self {
        Self {
            renew_deadline,
            ..self
        }
    }

    fn with_retry_period(self, retry_period: Duration) -> Self {
        Self { retry_period, ..self }
    }

    fn checked(self) -> Result<Self, SettingError> {
        let Self {
            duration,
            renew_deadline,
            retry_period,
        } = self;
        let seconds = |duration: Duration| duration.as_secs_f64();
        if retry_period < SHORTEST_RETRY {
            return Err(SettingError {
                option: "--lease-retry-period-seconds",
                problem: format!("{} s would keep the API server busy", seconds(retry_period)),
                fix: format!("choose {} s at least", seconds(SHORTEST_RETRY)),
            });
        }
        if renew_deadline < retry_period * LEAST_TRIES {
            return Err(SettingError {
                option: "--lease-renew-deadline-seconds",
                problem: format!(
                    "{} s leaves no room for {LEAST_TRIES} tries, one every {} s",
                    seconds(renew_deadline),
                    seconds(retry_period)
                ),
                fix: format!(
                    "choose {} s at least, or a shorter --lease-retry-period-seconds",
                    seconds(retry_period * LEAST_TRIES)
                ),
            });
        }
        if duration < renew_deadline + LEAST_GAP {
            return Err(SettingError {
                option: "--lease-duration-seconds",
                problem: format!(
                    "{} s would let another replica lead while this one may still write, {} s after a renewal",
                    seconds(duration),
                    seconds(renew_deadline)
                ),
                fix: format!(
                    "choose {} s at least, or a shorter --lease-renew-deadline-seconds",
                    seconds(renew_deadline + LEAST_GAP).ceil()
                ),
            });
        }
        if duration > LONGEST_LEASE {
            return Err(SettingError {
                option: "--lease-duration-seconds",
                problem: format!("nobody would lead for {} s after a crash", seconds(duration)),
                fix: format!("choose {} s at most", seconds(LONGEST_LEASE)),
            });
        }
        Ok(self)
    }
}

/// Whether it is a DNS subdomain, as most objects are named by.
fn is_object_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Whether it is a DNS label, as namespaces are named by. An object's name has labels of any length.
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
    fn the_defaults_fit_together_and_every_start_is_somebody_else() {
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
             renewal; fix: choose 12 s at least, or a shorter --lease-renew-deadline-seconds",
        );
        refused(
            "--lease-retry-period-seconds 4",
            "--lease-renew-deadline-seconds: 10 s leaves no room for 3 tries, one every 4 s; fix: choose 12 s at least, or \
             a shorter --lease-retry-period-seconds",
        );
        refused(
            "--lease-retry-period-seconds 0.01",
            "--lease-retry-period-seconds: 0.01 s would keep the API server busy; fix: choose 0.2 s at least",
        );
        refused(
            "--lease-duration-seconds 3600",
            "--lease-duration-seconds: nobody would lead for 3600 s after a crash; fix: choose 600 s at most",
        );
        refused(
            "--lease-renew-deadline-seconds=-1",
            "--lease-renew-deadline-seconds: -1 is no number of seconds; fix: give a positive number",
        );
    }

    #[test]
    fn names_that_no_object_can_have_are_refused() {
        for name in ["", "A", "a_b", "-a", "a.", "a..b"] {
            let error = settings(&format!("--lease-name={name}")).expect_err("no name");
            assert_eq!(error.option, "--lease-name", "{name}");
        }
        assert!(settings("--lease-name=a-1.b").is_ok());
    }
}
