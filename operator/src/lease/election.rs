//! The election as a state machine: the next action, from what this replica observed of the lease and when, by its own
//! clock.
//!
//! Clocks of other processes are never used. For another replica, a lease expires when it has observed no change for
//! the lease's duration. For its holder, it expires earlier: at the renew deadline, counted from before its request. So
//! a replica acquires the lease only after the last holder has stopped, whatever their clocks show, and wherever either
//! was frozen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{ElectionState, Held, Term};
use crate::settings::LeaseTimings;

/// Random delay of an attempt, as a fraction of the period, so that replicas that started together do not stay in step.
const JITTER: f64 = 0.2;

/// The fields of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// The holder's identity; `None` if it was released.
    pub(super) holder: Option<Arc<str>>,
    /// Time without a renewal after which it expires; `None` if it is not set.
    pub(super) duration: Option<Duration>,
    /// The resourceVersion, which changes with every write.
    pub(super) version: Arc<str>,
}

/// The next action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ElectionAction {
    /// Write this replica into the lease.
    Acquire(Precondition),
    /// Renew the lease.
    Renew(Precondition),
    /// Another replica holds it.
    Wait,
}

/// The precondition of a write, which fails if the precondition no longer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Precondition {
    /// There is no lease.
    Absent,
    /// The lease has this version.
    Version(Arc<str>),
}

/// This replica's view of the lease.
#[derive(Debug)]
pub(super) struct Election {
    identity: Arc<str>,
    timings: LeaseTimings,
    /// The last observed record, kept even after the lease was deleted.
    observed: Option<Observed>,
    /// Whether the record may have changed although this replica holds the lease.
    uncertain: bool,
    held: Option<Held>,
    terms: u64,
}

#[derive(Debug)]
struct Observed {
    record: Record,
    /// When this version was first observed.
    since: Instant,
    /// Whether the lease existed at the last read.
    exists: bool,
}

impl Election {
    pub(super) fn new(identity: Arc<str>, timings: LeaseTimings) -> Self {
        Self {
            identity,
            timings,
            observed: None,
            uncertain: false,
            held: None,
            terms: 0,
        }
    }

    /// Whether the lease must be read before the next step.
    pub(super) fn must_read(&self) -> bool {
        self.uncertain || self.held.is_none()
    }

    /// Records a read of the lease; `now` is when the response arrived.
    pub(super) fn record_read(&mut self, found: Option<Record>, now: Instant) {
        self.uncertain = false;
        let Some(record) = found else {
            // The lease was deleted. Its holder may not know that yet, so its duration still counts.
            if let Some(observed) = &mut self.observed {
                observed.exists = false;
            }
            return;
        };
        if !self.is_us(&record) {
            self.held = None;
        }
        match &mut self.observed {
            Some(observed) if observed.record == record => observed.exists = true,
            observed => {
                *observed = Some(Observed {
                    record,
                    since: now,
                    exists: true,
                });
            }
        }
    }

    /// The next action. Call it after the lease was read if [`Self::must_read`].
    pub(super) fn next_action(&self, now: Instant) -> ElectionAction {
        let Some(observed) = &self.observed else {
            return ElectionAction::Acquire(Precondition::Absent);
        };
        let precondition = if observed.exists {
            Precondition::Version(Arc::clone(&observed.record.version))
        } else {
            Precondition::Absent
        };
        match (&observed.record.holder, self.held) {
            (Some(holder), Some(_)) if *holder == self.identity => ElectionAction::Renew(precondition),
            (Some(holder), _) if *holder != self.identity && now < self.expires_at(observed) => {
                ElectionAction::Wait
            }
            _ => ElectionAction::Acquire(precondition),
        }
    }

    /// Records a successful write. `requested_at` is when the request began: the lease counts from there, because others may
    /// have observed the write at any time since.
    pub(super) fn record_write(&mut self, record: Record, requested_at: Instant) {
        let term = self.held.map_or_else(
            || {
                self.terms += 1;
                Term(self.terms)
            },
            |held| held.term,
        );
        self.held = Some(Held {
            term,
            until: requested_at + self.timings.renew_deadline(),
        });
        self.uncertain = false;
        self.observed = Some(Observed {
            record,
            since: requested_at,
            exists: true,
        });
    }

    /// Records that a write's outcome is unknown: the lease may have changed.
    pub(super) fn mark_uncertain(&mut self) {
        self.uncertain = true;
    }

    /// Stops leading.
    pub(super) fn resign(&mut self) {
        self.held = None;
    }

    /// Stops leading if the deadline has passed.
    pub(super) fn expire(&mut self, now: Instant) {
        self.held = self.held.filter(|held| now < held.until);
    }

    /// When to try next. `random` is between 0 and 1; `requested_at` is when the last attempt began.
    pub(super) fn next_attempt(&self, requested_at: Instant, now: Instant, random: f64) -> Instant {
        let period = self.timings.retry_period().mul_f64(1.0 + JITTER * random);
        let next = (requested_at + period).max(now);
        let earlier = match (self.held, &self.observed) {
            // This replica's own expiry must be noticed when it happens.
            (Some(held), _) => Some(held.until),
            // The other holder's expiry is the first moment at which this replica may lead.
            (None, Some(observed)) => Some(self.expires_at(observed)),
            (None, None) => None,
        };
        earlier.filter(|at| now < *at).map_or(next, |at| at.min(next))
    }

    /// The leader as far as it is known, and this replica's own term.
    pub(super) fn state(&self, now: Instant) -> ElectionState {
        let leader = self.observed.as_ref().and_then(|observed| {
            let holder = observed.record.holder.as_ref()?;
            let leads = if *holder == self.identity {
                self.held.is_some()
            } else {
                now < self.expires_at(observed)
            };
            leads.then(|| Arc::clone(holder))
        });
        ElectionState {
            leader,
            held: self.held,
        }
    }

    fn is_us(&self, record: &Record) -> bool {
        record.holder.as_ref() == Some(&self.identity)
    }

    /// When the lease expires if it is not renewed.
    fn expires_at(&self, observed: &Observed) -> Instant {
        observed.since + observed.record.duration.unwrap_or(self.timings.duration())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: &str = "us";
    const OTHER: &str = "other";

    fn election() -> Election {
        Election::new(US.into(), LeaseTimings::default())
    }

    fn record(holder: Option<&str>, version: &str) -> Record {
        Record {
            holder: holder.map(Into::into),
            duration: Some(Duration::from_secs(15)),
            version: version.into(),
        }
    }

    fn at(start: Instant, seconds: f64) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    fn version(version: &str) -> Precondition {
        Precondition::Version(version.into())
    }

    #[test]
    fn a_missing_lease_is_created_and_a_released_lease_is_acquired() {
        let now = Instant::now();
        let mut election = election();
        assert!(election.must_read());
        election.record_read(None, now);
        assert_eq!(
            election.next_action(now),
            ElectionAction::Acquire(Precondition::Absent)
        );
        election.record_read(Some(record(None, "7")), now);
        assert_eq!(election.next_action(now), ElectionAction::Acquire(version("7")));
    }

    #[test]
    fn anothers_lease_expires_a_duration_after_its_last_observed_change() {
        let start = Instant::now();
        let mut election = election();
        election.record_read(Some(record(Some(OTHER), "1")), start);
        election.record_read(Some(record(Some(OTHER), "1")), at(start, 14.0));
        assert_eq!(election.next_action(at(start, 14.9)), ElectionAction::Wait);
        assert_eq!(
            election.next_action(at(start, 15.0)),
            ElectionAction::Acquire(version("1"))
        );
        election.record_read(Some(record(Some(OTHER), "2")), at(start, 14.95));
        assert_eq!(election.next_action(at(start, 29.9)), ElectionAction::Wait);
        assert_eq!(
            election.next_action(at(start, 30.0)),
            ElectionAction::Acquire(version("2"))
        );
    }

    #[test]
    fn the_duration_in_a_lease_is_respected() {
        let start = Instant::now();
        let mut election = election();
        let longer = Record {
            duration: Some(Duration::from_secs(60)),
            ..record(Some(OTHER), "1")
        };
        election.record_read(Some(longer), start);
        assert_eq!(election.next_action(at(start, 59.0)), ElectionAction::Wait);
        let without_duration = Record {
            duration: None,
            ..record(Some(OTHER), "2")
        };
        election.record_read(Some(without_duration), start);
        assert_eq!(election.next_action(at(start, 14.0)), ElectionAction::Wait);
        assert_eq!(
            election.next_action(at(start, 15.0)),
            ElectionAction::Acquire(version("2"))
        );
    }

    #[test]
    fn a_deleted_lease_of_another_replica_is_acquired_only_after_its_duration() {
        let start = Instant::now();
        let mut election = election();
        election.record_read(Some(record(Some(OTHER), "1")), start);
        election.record_read(None, at(start, 1.0));
        assert_eq!(election.next_action(at(start, 14.0)), ElectionAction::Wait);
        assert_eq!(
            election.next_action(at(start, 15.0)),
            ElectionAction::Acquire(Precondition::Absent)
        );
    }

    #[test]
    fn a_held_lease_counts_from_the_start_of_its_request_and_is_renewed() {
        let start = Instant::now();
        let mut election = election();
        election.record_read(None, start);
        election.record_write(record(Some(US), "1"), start);
        let held = election.state(at(start, 3.0)).held.expect("held");
        assert_eq!((held.term, held.until), (Term(1), at(start, 10.0)));
        assert!(!election.must_read());
        assert_eq!(
            election.next_action(at(start, 3.0)),
            ElectionAction::Renew(version("1"))
        );
        election.record_write(record(Some(US), "2"), at(start, 2.0));
        let held = election.state(at(start, 3.0)).held.expect("held");
        assert_eq!((held.term, held.until), (Term(1), at(start, 12.0)));
    }

    #[test]
    fn a_replica_that_finds_another_holder_stops_leading() {
        let start = Instant::now();
        let mut election = election();
        election.record_write(record(Some(US), "1"), start);
        election.mark_uncertain();
        assert!(election.must_read());
        election.record_read(Some(record(Some(OTHER), "2")), at(start, 1.0));
        let state = election.state(at(start, 1.0));
        assert_eq!((state.held, state.leader.as_deref()), (None, Some(OTHER)));
        assert_eq!(election.next_action(at(start, 1.0)), ElectionAction::Wait);
    }

    #[test]
    fn a_write_whose_response_was_lost_is_found_and_renewed() {
        let start = Instant::now();
        let mut election = election();
        election.record_read(None, start);
        election.mark_uncertain();
        election.record_read(Some(record(Some(US), "1")), at(start, 4.0));
        assert_eq!(election.state(at(start, 4.0)).leader, None);
        assert_eq!(
            election.next_action(at(start, 4.0)),
            ElectionAction::Acquire(version("1"))
        );
    }

    #[test]
    fn a_term_ends_with_its_deadline_and_the_next_is_another() {
        let start = Instant::now();
        let mut election = election();
        election.record_write(record(Some(US), "1"), start);
        election.expire(at(start, 9.9));
        assert!(election.state(start).held.is_some());
        election.expire(at(start, 10.0));
        assert_eq!(election.state(start).held, None);
        assert!(election.must_read());
        election.record_write(record(Some(US), "2"), at(start, 11.0));
        assert_eq!(election.state(start).held.map(|held| held.term), Some(Term(2)));
    }

    #[test]
    fn attempts_are_made_once_a_period_and_at_expiry() {
        let start = Instant::now();
        let mut election = election();
        assert_eq!(election.next_attempt(start, start, 0.0), at(start, 2.0));
        assert_eq!(election.next_attempt(start, start, 0.5), at(start, 2.2));
        // An attempt that took longer than the period is followed immediately by the next one.
        assert_eq!(election.next_attempt(start, at(start, 3.0), 0.0), at(start, 3.0));
        election.record_read(Some(record(Some(OTHER), "1")), start);
        let late = at(start, 14.0);
        assert_eq!(election.next_attempt(late, late, 0.0), at(start, 15.0));
        let later = at(start, 15.5);
        assert_eq!(election.next_attempt(later, later, 0.0), at(start, 17.5));
        election.record_write(record(Some(US), "2"), start);
        let late = at(start, 9.0);
        assert_eq!(election.next_attempt(late, late, 0.0), at(start, 10.0));
    }
}
