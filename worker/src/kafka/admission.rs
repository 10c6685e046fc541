//! Whether the brokers accept this process, and when it ends because they do not. Pure: no client, no clock.
//!
//! Credentials are read once, at the start. A process that was accepted and is refused for minutes has old ones, so it
//! ends, to be started with the current ones. One that was never accepted waits: starting it again changes nothing.

use std::time::{Duration, Instant};

use crate::faults;

/// How long a process that was accepted may be refused: an authorizer or a user that is changed by hand takes less.
const REFUSED_LIMIT: Duration = Duration::from_secs(120);

/// The least time from the start to such an end: Kubernetes forgets earlier restarts of a container after 10 minutes,
/// so that the pause before the next start stays short.
const LEAST_UPTIME: Duration = Duration::from_secs(600);

/// Time between two questions whether the brokers still refuse.
const QUESTION_INTERVAL: Duration = Duration::from_secs(10);

/// What brokers refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The client or its group: any answer shows that they accept it again.
    Client,
    /// The topic: only what needs it shows that they accept the client again.
    Topic,
}

/// What brokers showed by answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepted {
    /// They answer this client.
    Client,
    /// They let it read the topic, or commit there.
    Topic,
}

/// Why the process ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "Kafka accepted this process and has refused it for {} s ({dependency}); it ends, to be started with the current \
     credentials", .duration.as_secs()
)]
pub struct Refusal {
    /// The dependency and its code, such as `kafka:58`.
    pub dependency: String,
    /// For how long it has refused.
    pub duration: Duration,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// To ask the brokers whether they still refuse.
    Ask,
    /// To end the process.
    End(Refusal),
}

/// Whether the brokers accept this process.
#[derive(Debug)]
pub(super) struct Admission {
    started: Instant,
    refused_limit: Duration,
    least_uptime: Duration,
    accepted_once: bool,
    refused: Option<Refused>,
}

#[derive(Debug)]
struct Refused {
    dependency: String,
    scope: Scope,
    since: Instant,
    ask_at: Instant,
}

impl Admission {
    pub(super) fn new(started: Instant) -> Self {
        Self {
            started,
            refused_limit: faults::limit("SEPARATION_REFUSED_LIMIT_MS", REFUSED_LIMIT),
            least_uptime: faults::limit("SEPARATION_LEAST_UPTIME_MS", LEAST_UPTIME),
            accepted_once: false,
            refused: None,
        }
    }

    /// The brokers refused something at `now`. Gives whether that is new.
    pub(super) fn refused(&mut self, dependency: &str, scope: Scope, now: Instant) -> bool {
        if self.refused.is_some() {
            return false;
        }
        self.refused = Some(Refused {
            dependency: dependency.to_owned(),
            scope,
            since: now,
            ask_at: now + QUESTION_INTERVAL,
        });
        true
    }

    /// The brokers answered. Gives the dependency that refused until now, if one did.
    pub(super) fn accepted(&mut self, accepted: Accepted) -> Option<String> {
        self.accepted_once = true;
        let ended = self
            .refused
            .take_if(|refused| accepted == Accepted::Topic || refused.scope == Scope::Client);
        ended.map(|refused| refused.dependency)
    }

    /// When something is due, if the brokers refuse.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let refused = self.refused.as_ref()?;
        Some(match self.end_at() {
            Some(end_at) => refused.ask_at.min(end_at),
            None => refused.ask_at,
        })
    }

    /// What is due at `now`.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        let end_at = self.end_at();
        let refused = self.refused.as_mut()?;
        if end_at.is_some_and(|end_at| end_at <= now) {
            return Some(Due::End(Refusal {
                dependency: refused.dependency.clone(),
                duration: now.saturating_duration_since(refused.since),
            }));
        }
        (refused.ask_at <= now).then(|| {
            refused.ask_at = now + QUESTION_INTERVAL;
            Due::Ask
        })
    }

    fn end_at(&self) -> Option<Instant> {
        let refused = self.refused.as_ref().filter(|_| self.accepted_once)?;
        Some((refused.since + self.refused_limit).max(self.started + self.least_uptime))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_process_that_was_never_accepted_waits() {
        let start = Instant::now();
        let mut admission = Admission::new(start);
        assert_eq!(admission.due_at(), None);
        assert!(admission.refused("kafka:58", Scope::Client, start));
        assert!(!admission.refused("kafka:58", Scope::Client, start + HOUR));
        assert_eq!(admission.due_at(), Some(start + QUESTION_INTERVAL));
        assert_eq!(admission.due(start), None);
        assert_eq!(admission.due(start + HOUR), Some(Due::Ask));
        assert_eq!(admission.due_at(), Some(start + HOUR + QUESTION_INTERVAL));
    }

    #[test]
    fn a_process_that_was_accepted_ends_two_minutes_after_the_first_refusal() {
        let start = Instant::now();
        let mut admission = Admission::new(start);
        assert_eq!(admission.accepted(Accepted::Client), None);
        admission.refused("kafka:58", Scope::Client, start + HOUR);
        let end = start + HOUR + REFUSED_LIMIT;
        assert_eq!(admission.due(end - QUESTION_INTERVAL), Some(Due::Ask));
        let refusal = Refusal {
            dependency: "kafka:58".into(),
            duration: REFUSED_LIMIT,
        };
        assert_eq!(admission.due_at(), Some(end));
        assert_eq!(admission.due(end), Some(Due::End(refusal)));
    }

    #[test]
    fn a_process_ends_at_most_once_in_ten_minutes() {
        let start = Instant::now();
        let mut admission = Admission::new(start);
        admission.accepted(Accepted::Client);
        admission.refused("kafka:58", Scope::Client, start);
        assert_eq!(admission.due(start + LEAST_UPTIME / 2), Some(Due::Ask));
        let due = admission.due(start + LEAST_UPTIME);
        assert!(matches!(due, Some(Due::End(_))), "{due:?}");
    }

    #[test]
    fn an_answer_ends_a_refusal_of_its_scope() {
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
