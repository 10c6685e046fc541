//! Who leads, as a plain state machine: what to do next, given what was seen of the lease and when, on our own clock.
//!
//! Clocks of others are never read. A lease runs out for us when it has stood unchanged, before our eyes, for as long as
//! its holder says; and for its holder already at the renew deadline, counted from before it asked. So whoever takes a
//! lease over does it after its last holder has stopped, whatever their clocks show, and wherever either was frozen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Held, Standing, Term};
use crate::settings::LeaseTimings;

/// How much later than asked for a try may come, as a part of the period: replicas that started together drift apart.
const JITTER: f64 = 0.2;

/// What the lease's record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Who holds it; nobody where it was given back.
    pub(super) holder: Option<Arc<str>>,
    /// How long it lasts without a sign of its holder; none where it does not say.
    pub(super) duration: Option<Duration>,
    /// Another one after every change.
    pub(super) version: Arc<str>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Write ourselves into the lease.
    Acquire(Basis),
    /// Write once more that we are there.
    Renew(Basis),
    /// Somebody else holds it.
    Wait,
}

/// What a write rests on: it fails where that is not so any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Basis {
    /// There is no lease.
    Absent,
    /// The lease has this version.
    Version(Arc<str>),
}

/// Our view of the lease.
#[derive(Debug)]
pub(super) struct Election {
    identity: Arc<str>,
    timings: LeaseTimings,
    /// The record that was seen last, also when it is gone.
    seen: Option<Seen>,
    /// Whether the record may be another by now although we hold the lease.
    outdated: bool,
    held: Option<Held>,
    terms: u64,
}

#[derive(Debug)]
struct Seen {
    record: Record,
    /// When it was first seen like this.
    since: Instant,
    /// Whether it was still there when last looked for.
    there: bool,
}

impl Election {
    pub(super) fn new(identity: Arc<str>, timings: LeaseTimings) -> Self {
        Self {
            identity,
            timings,
            seen: None,
            outdated: false,
            held: None,
            terms: 0,
        }
    }

    /// Whether the lease must be read before the next step.
    pub(super) fn must_look(&self) -> bool {
        self.outdated || self.held.is_none()
    }

    /// The lease was read: `found` is what it says, `now` is when the answer came.
    pub(super) fn saw(&mut self, found: Option<Record>, now: Instant) {
        self.outdated = false;
        let Some(record) = found else {
            // Somebody deleted it. Its holder does not know that yet: it is waited for all the same.
            if let Some(seen) = &mut self.seen {
                seen.there = false;
            }
            return;
        };
        if !self.is_us(&record) {
            self.held = None;
        }
        match &mut self.seen {
            Some(seen) if seen.record == record => seen.there = true,
            seen => {
                *seen = Some(Seen {
                    record,
                    since: now,
                    there: true,
                });
            }
        }
    }

    /// What to do, once the lease was looked at where it must be.
    pub(super) fn step(&self, now: Instant) -> Step {
        let Some(seen) = &self.seen else {
            return Step::Acquire(Basis::Absent);
        };
        let basis = if seen.there {
            Basis::Version(Arc::clone(&seen.record.version))
        } else {
            Basis::Absent
        };
        match (&seen.record.holder, self.held) {
            (Some(holder), Some(_)) if *holder == self.identity => Step::Renew(basis),
            (Some(holder), _) if *holder != self.identity && now < self.runs_out(seen) => Step::Wait,
            _ => Step::Acquire(basis),
        }
    }

    /// Our write was done, and the lease has become `record`. `asked` is when the request began: the lease counts from
    /// there, for others may have seen it at any time since.
    pub(super) fn wrote(&mut self, record: Record, asked: Instant) {
        let term = self.held.map_or_else(
            || {
                self.terms += 1;
                Term(self.terms)
            },
            |held| held.term,
        );
        self.held = Some(Held {
            term,
            until: asked + self.timings.renew_deadline(),
        });
        self.outdated = false;
        self.seen = Some(Seen {
            record,
            since: asked,
            there: true,
        });
    }

    /// A write of ours was refused, or its answer never came: the lease may be another by now.
    pub(super) fn unsure(&mut self) {
        self.outdated = true;
    }

    /// The lease was given back, or is not wanted any more.
    pub(super) fn resign(&mut self) {
        self.held = None;
    }

    /// Takes notice of a deadline that has passed.
    pub(super) fn expire(&mut self, now: Instant) {
        self.held = self.held.filter(|held| now < held.until);
    }

    /// When to try next. `chance` is between 0 and 1; `asked` is when the last try began.
    pub(super) fn next_try(&self, asked: Instant, now: Instant, chance: f64) -> Instant {
        let period = self.timings.retry_period().mul_f64(1.0 + JITTER * chance);
        let next = (asked + period).max(now);
        let earlier = match (self.held, &self.seen) {
            // The end of our own time must be noticed when it comes.
            (Some(held), _) => Some(held.until),
            // The end of another's time is the first moment at which we may lead.
            (None, Some(seen)) => Some(self.runs_out(seen)),
            (None, None) => None,
        };
        earlier.filter(|at| now < *at).map_or(next, |at| at.min(next))
    }

    /// Who leads, as far as we know.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        let leader = self.seen.as_ref().and_then(|seen| {
            let holder = seen.record.holder.as_ref()?;
            let leads = if *holder == self.identity {
                self.held.is_some()
            } else {
                now < self.runs_out(seen)
            };
            leads.then(|| Arc::clone(holder))
        });
        Standing {
            leader,
            held: self.held,
        }
    }

    fn is_us(&self, record: &Record) -> bool {
        record.holder.as_ref() == Some(&self.identity)
    }

    /// When the record's holder has been silent for as long as it said.
    fn runs_out(&self, seen: &Seen) -> Instant {
        seen.since + seen.record.duration.unwrap_or(self.timings.duration())
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

    fn version(version: &str) -> Basis {
        Basis::Version(version.into())
    }

    #[test]
    fn a_lease_that_never_was_is_made_and_one_that_was_given_back_is_taken() {
        let now = Instant::now();
        let mut election = election();
        assert!(election.must_look());
        election.saw(None, now);
        assert_eq!(election.step(now), Step::Acquire(Basis::Absent));
        election.saw(Some(record(None, "7")), now);
        assert_eq!(election.step(now), Step::Acquire(version("7")));
    }

    #[test]
    fn anothers_lease_is_waited_for_from_its_last_change_that_we_saw() {
        let start = Instant::now();
        let mut election = election();
        election.saw(Some(record(Some(OTHER), "1")), start);
        election.saw(Some(record(Some(OTHER), "1")), at(start, 14.0));
        assert_eq!(election.step(at(start, 14.9)), Step::Wait);
        assert_eq!(election.step(at(start, 15.0)), Step::Acquire(version("1")));
        election.saw(Some(record(Some(OTHER), "2")), at(start, 14.95));
        assert_eq!(election.step(at(start, 29.9)), Step::Wait);
        assert_eq!(election.step(at(start, 30.0)), Step::Acquire(version("2")));
    }

    #[test]
    fn a_lease_that_says_how_long_it_lasts_is_believed() {
        let start = Instant::now();
        let mut election = election();
        let longer = Record {
            duration: Some(Duration::from_secs(60)),
            ..record(Some(OTHER), "1")
        };
        election.saw(Some(longer), start);
        assert_eq!(election.step(at(start, 59.0)), Step::Wait);
        let silent = Record {
            duration: None,
            ..record(Some(OTHER), "2")
        };
        election.saw(Some(silent), start);
        assert_eq!(election.step(at(start, 14.0)), Step::Wait);
        assert_eq!(election.step(at(start, 15.0)), Step::Acquire(version("2")));
    }

    #[test]
    fn a_lease_that_was_deleted_is_waited_for_like_one_that_stands() {
        let start = Instant::now();
        let mut election = election();
        election.saw(Some(record(Some(OTHER), "1")), start);
        election.saw(None, at(start, 1.0));
        assert_eq!(election.step(at(start, 14.0)), Step::Wait);
        assert_eq!(election.step(at(start, 15.0)), Step::Acquire(Basis::Absent));
    }

    #[test]
    fn what_is_held_counts_from_before_it_was_asked_for_and_is_renewed() {
        let start = Instant::now();
        let mut election = election();
        election.saw(None, start);
        election.wrote(record(Some(US), "1"), start);
        let held = election.standing(at(start, 3.0)).held.expect("held");
        assert_eq!((held.term, held.until), (Term(1), at(start, 10.0)));
        assert!(!election.must_look());
        assert_eq!(election.step(at(start, 3.0)), Step::Renew(version("1")));
        election.wrote(record(Some(US), "2"), at(start, 2.0));
        let held = election.standing(at(start, 3.0)).held.expect("held");
        assert_eq!((held.term, held.until), (Term(1), at(start, 12.0)));
    }

    #[test]
    fn whoever_finds_another_in_the_lease_leads_no_more() {
        let start = Instant::now();
        let mut election = election();
        election.wrote(record(Some(US), "1"), start);
        election.unsure();
        assert!(election.must_look());
        election.saw(Some(record(Some(OTHER), "2")), at(start, 1.0));
        let standing = election.standing(at(start, 1.0));
        assert_eq!((standing.held, standing.leader.as_deref()), (None, Some(OTHER)));
        assert_eq!(election.step(at(start, 1.0)), Step::Wait);
    }

    #[test]
    fn a_write_whose_answer_was_lost_is_found_and_renewed() {
        let start = Instant::now();
        let mut election = election();
        election.saw(None, start);
        election.unsure();
        election.saw(Some(record(Some(US), "1")), at(start, 4.0));
        assert_eq!(election.standing(at(start, 4.0)).leader, None);
        assert_eq!(election.step(at(start, 4.0)), Step::Acquire(version("1")));
    }

    #[test]
    fn a_term_ends_with_its_deadline_and_the_next_is_another() {
        let start = Instant::now();
        let mut election = election();
        election.wrote(record(Some(US), "1"), start);
        election.expire(at(start, 9.9));
        assert!(election.standing(start).held.is_some());
        election.expire(at(start, 10.0));
        assert_eq!(election.standing(start).held, None);
        assert!(election.must_look());
        election.wrote(record(Some(US), "2"), at(start, 11.0));
        assert_eq!(election.standing(start).held.map(|held| held.term), Some(Term(2)));
    }

    #[test]
    fn tries_come_once_a_period_and_at_the_moment_at_which_time_runs_out() {
        let start = Instant::now();
        let mut election = election();
        assert_eq!(election.next_try(start, start, 0.0), at(start, 2.0));
        assert_eq!(election.next_try(start, start, 0.5), at(start, 2.2));
        // A try that took longer than the period is followed by the next at once.
        assert_eq!(election.next_try(start, at(start, 3.0), 0.0), at(start, 3.0));
        election.saw(Some(record(Some(OTHER), "1")), start);
        let late = at(start, 14.0);
        assert_eq!(election.next_try(late, late, 0.0), at(start, 15.0));
        let later = at(start, 15.5);
        assert_eq!(election.next_try(later, later, 0.0), at(start, 17.5));
        election.wrote(record(Some(US), "2"), start);
        let late = at(start, 9.0);
        assert_eq!(election.next_try(late, late, 0.0), at(start, 10.0));
    }
}
