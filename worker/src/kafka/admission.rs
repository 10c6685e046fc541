//! Whether the brokers accept this process, and when it exits because they refuse it. Pure: no client, no clock.
//!
//! Credentials are read once, at the start. A process that was accepted and is then refused for minutes probably has
//! old credentials, so it exits to be restarted with the current ones. A process that was never accepted keeps trying:
//! a restart would change nothing.

use std::time::{Duration, Instant};

use crate::faults;

/// How long an accepted process may be refused before it exits. Changing an authorizer or a user by hand takes less.
const REFUSED_LIMIT: Duration = Duration::from_secs(120);

/// Minimum uptime before such an exit. Kubernetes resets a container's restart back-off after 10 minutes of uptime, so
/// the next start is not delayed.
const MIN_UPTIME: Duration = Duration::from_secs(600);

/// Time between two checks whether the brokers still refuse.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Scope of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The client or its group. Any successful response ends the refusal.
    Client,
    /// The topic. Only a successful read of the topic, commit or publish ends the refusal.
    Topic,
}

/// Scope of a successful response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepted {
    /// The brokers respond to this client.
    Client,
    /// The brokers let it read the topic, commit or publish.
    Topic,
}

/// Why the process exits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "Kafka accepted this process at first and has refused it for {} s ({dependency}); it exits, to be restarted with \
     the current credentials", .duration.as_secs()
)]
pub struct Refusal {
    /// The dependency and its error code, such as `kafka:58`.
    pub dependency: String,
    /// Time since the first refusal.
    pub duration: Duration,
}

/// The next action.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Ask the brokers whether they still refuse.
    Check,
    /// Exit the process.
    Exit(Refusal),
}

#[derive(Debug)]
pub(super) struct Admission {
    started: Instant,
    refused_limit: Duration,
    min_uptime: Duration,
    accepted_once: bool,
    refused: Option<Refused>,
}

#[derive(Debug)]
struct Refused {
    dependency: String,
    scope: Scope,
    since: Instant,
    check_at: Instant,
}

impl Admission {
    pub(super) fn new(started: Instant) -> Self {
        Self {
            started,
            refused_limit: faults::limit("SEPARATION_REFUSED_LIMIT_MS", REFUSED_LIMIT),
            min_uptime: faults::limit("SEPARATION_LEAST_UPTIME_MS", MIN_UPTIME),
            accepted_once: false,
            refused: None,
        }
    }

    /// Records a refusal at `now`. Returns whether it is the first of a series.
    pub(super) fn refused(&mut self, dependency: &str, scope: Scope, now: Instant) -> bool {
        if self.refused.is_some() {
            return false;
        }
        self.refused = Some(Refused {
            dependency: dependency.to_owned(),
            scope,
            since: now,
            check_at: now + CHECK_INTERVAL,
        });
        true
    }

    /// Records a successful response. Returns the dependency whose refusal it ends, if any.
    pub(super) fn accepted(&mut self, accepted: Accepted) -> Option<String> {
        self.accepted_once = true;
        let ended = self
            .refused
            .take_if(|refused| accepted == Accepted::Topic || refused.scope == Scope::Client);
        ended.map(|refused| refused.dependency)
    }

    /// Time of the next action; `None` if the brokers do not refuse.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let refused = self.refused.as_ref()?;
        Some(match self.exit_at() {
            Some(exit_at) => refused.check_at.min(exit_at),
            None => refused.check_at,
        })
    }

    /// The action due at `now`.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        let exit_at = self.exit_at();
        let refused = self.refused.as_mut()?;
        if exit_at.is_some_and(|exit_at| exit_at <= now) {
            return Some(Due::Exit(Refusal {
                dependency: refused.dependency.clone(),
                duration: now.saturating_duration_since(refused.since),
            }));
        }
        (refused.check_at <= now).then(|| {
            refused.check_at = now + CHECK_INTERVAL;
            Due::Check
        })
    }

    fn exit_at(&self) -> Option<Instant> {
        let refused = self.refused.as_ref().filter(|_| self.accepted_once)?;
        Some((refused.since + self.refused_limit).max(self.started + self.min_uptime))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_process_that_was_never_accepted_keeps_trying() {
        let start = Instant::now();
        let mut admission = Admission::new(start);
        assert_eq!(admission.due_at(), None);
        assert!(admission.refused("kafka:58", Scope::Client, start));
        assert!(!admission.refused("kafka:58", Scope::Client, start + HOUR));
        assert_eq!(admission.due_at(), Some(start + CHECK_INTERVAL));
        assert_eq!(admission.due(start), None);
        assert_eq!(admission.due(start + HOUR), Some(Due::Check));
        assert_eq!(admission.due_at(), Some(start + HOUR + CHECK_INTERVAL));
    }

    #[test]
    fn a_process_that_was_accepted_exits_two_minutes_after_the_first_refusal() {
        let start = Instant::now();
        let mut admission = Admission::new(start);
        assert_eq!(admission.accepted(Accepted::Client), None);
        admission.refused("kafka:58", Scope::Client, start + HOUR);
        let end = start + HOUR + REFUSED_LIMIT;
        assert_eq!(admission.due(end - CHECK_INTERVAL), Some(Due::Check));
        let refusal = Refusal {
            dependency: "kafka:58".into(),
            duration: REFUSED_LIMIT,
        };
        assert_eq!(admission.due_at(), Some(end));
        assert_eq!(admission.due(end), Some(Due::Exit(refusal)));
    }

    #[test]
    fn a_process_exits_at_most_once_in_ten_minutes() {
        let start = Instant::now();
        let mut admission = Admission::new(start);
        admission.accepted(Accepted::Client);
        admission.refused("kafka:58", Scope::Client, start);
        assert_eq!(admission.due(start + MIN_UPTIME / 2), Some(Due::Check));
        let due = admission.due(start + MIN_UPTIME);
        assert!(matches!(due, Some(Due::Exit(_))), "{due:?}");
    }

    #[test]
    fn a_successful_response_ends_a_refusal_of_its_scope() {
        let start = Instant::now();
        let mut admission = Admission::new(start);
        admission.refused("kafka:29", Scope::Topic, start);
        assert_eq!(admission.accepted(Accepted::Client), None);
        assert_eq!(admission.accepted(Accepted::Topic), Some("kafka:29".into()));
        assert_eq!(admission.due_at(), None);
        admission.refused("kafka:58", Scope::Client, start + HOUR);
        assert_eq!(admission.accepted(Accepted::Client), Some("kafka:58".into()));
        assert_eq!(admission.due(start + HOUR * 2), None);
    }
}
