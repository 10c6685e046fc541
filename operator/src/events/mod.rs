//! Kubernetes events about pools, limited to a readable number.
//!
//! [`EventPolicy`] decides which events to write, as a plain state machine; [`EventWriter`] queues them and never blocks
//! its caller, and [`EventTask`] writes them at a limited rate. kube's own recorder increments the count of a repeated
//! event and keeps the first text, so that a later "from 8 to 2" would read "from 0 to 8"; therefore each event here is
//! a new object.

mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::crd::OffsetsStatus;
use crate::decide::{Explanation, Moment, Reason};
use crate::names::API_COMPONENT;
use crate::observe::OffsetAnomaly;
use crate::observe::workload::WorkloadProblem;
use crate::plan::{Problems, Role};
use crate::status::{anomaly_reason, anomaly_text};

pub use writer::{EventTask, EventWriter, event_writer};

/// Minimum time between two equal events: at most six an hour. The API server keeps events for an hour.
const REPEAT_AFTER: Duration = Duration::from_secs(600);

/// Scalings within this time become one event.
const MERGE_SCALINGS: Duration = Duration::from_secs(2);

/// A state that may end by itself gets an event after this time.
const HELD_FOR: Duration = Duration::from_secs(60);

/// Different events that are remembered; beyond that, new ones are dropped until old ones expire.
const MAX_REMEMBERED: usize = 32;

/// Longest note that the API server accepts, in bytes.
const MAX_NOTE_BYTES: usize = 1_024;

/// Reason of events about workers that cannot run; the note starts with the cluster's own reason.
const CANNOT_RUN: &str = "WorkersCannotRun";

/// Reason of events about an HTTP API that cannot run, likewise.
const API_CANNOT_RUN: &str = "ApiCannotRun";

/// Content of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventText {
    /// Type of the event.
    pub type_: EventType,
    /// Reason, in one word.
    pub reason: &'static str,
    /// Action that was taken or attempted, in one word.
    pub action: &'static str,
    /// Message.
    pub note: String,
}

/// Type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// No user action is needed.
    Normal,
    /// A user should act.
    Warning,
}

/// State of a role after a decision and its writes.
#[derive(Debug, Clone, Copy)]
pub struct RoleFacts<'a> {
    /// Processor or uploader.
    pub role: Role,
    /// The decision.
    pub explanation: &'a Explanation,
    /// Offset anomalies.
    pub anomalies: &'a [OffsetAnomaly],
    /// Replicas, if they were just written.
    pub scaled: Option<Scaled>,
    /// Problems that the cluster reports and a person must solve.
    pub problems: &'a [WorkloadProblem],
    /// The group's offsets, if they were just initialized.
    pub adopted: Option<&'a OffsetsStatus>,
}

/// Replicas that were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scaled {
    /// Replicas before.
    pub from: u32,
    /// Replicas after.
    pub to: u32,
}

/// A problem of a pool, not of one role.
#[derive(Debug, Clone, Copy)]
pub enum PoolFact<'a> {
    /// Its spec is invalid.
    InvalidSpec(&'a Problems),
    /// A Secret that it names does not exist or lacks a key.
    SecretMissing {
        /// The missing Secret or key, with the fix.
        what: &'a str,
    },
    /// A certificate, a private key or another setting for Kafka cannot be used.
    InvalidConnection {
        /// The setting, with the fix.
        why: &'a str,
    },
    /// The operator must not use the identity that the pool needs for Kafka.
    IdentityRefused {
        /// The broker or the audience, with the fix.
        why: &'a str,
    },
}

/// Decides which events to write about one pool or one of its roles, and remembers them.
#[derive(Debug, Clone, Default)]
pub struct EventPolicy {
    /// When each event was last returned: its reason, and its note if notes distinguish events of one reason.
    returned_at: BTreeMap<(&'static str, Option<String>), Moment>,
    /// The last reason, and since when.
    held: Option<(Reason, Moment)>,
    unschedulable_since: Option<Moment>,
    scaled_at: Option<Moment>,
    /// A scaling that is delayed to be merged with the next ones.
    delayed: Option<(Scaled, EventText)>,
}

impl EventPolicy {
    /// Events about a role that are due now. Called after every decision.
    pub fn role(&mut self, facts: &RoleFacts<'_>, now: Moment) -> Vec<EventText> {
        self.forget(now);
        let mut texts: Vec<EventText> = self.scaling(facts, now).into_iter().collect();
        let once = [
            self.held(facts, now),
            self.unschedulable(facts, now),
            adopted(facts),
        ];
        let each = once.into_iter().flatten().chain(offset_anomalies(facts));
        texts.extend(each.filter(|text| self.record_if_new((text.reason, None), now)));
        // Unschedulable pods have their own event above.
        let problems = facts.problems.iter();
        let problems = problems.filter(|problem| &*problem.reason != "Unschedulable");
        texts.extend(self.cannot_run(CANNOT_RUN, facts.role.name(), problems, now));
        texts
    }

    /// Events about the problems of a pool's HTTP API that are due now. Called on every reconciliation.
    pub fn api(&mut self, problems: &[WorkloadProblem], now: Moment) -> Vec<EventText> {
        self.forget(now);
        self.cannot_run(API_CANNOT_RUN, API_COMPONENT, problems.iter(), now)
    }

    /// Messages of one problem differ between attempts, so only its reason is remembered.
    fn cannot_run<'a>(
        &mut self,
        reason: &'static str,
        component: &str,
        problems: impl Iterator<Item = &'a WorkloadProblem>,
        now: Moment,
    ) -> Vec<EventText> {
        let new =
            problems.filter(|problem| self.record_if_new((reason, Some(problem.reason.to_string())), now));
        let texts = new.map(|problem| {
            let note = format!("{component}: {}: {}", problem.reason, problem.message);
            EventText::new(EventType::Warning, reason, "Run", note)
        });
        texts.collect()
    }

    /// The event about a pool that is due now. Called on every reconciliation while `fact` holds.
    pub fn pool(&mut self, fact: PoolFact<'_>, now: Moment) -> Option<EventText> {
        self.forget(now);
        let (reason, action, note) = match fact {
            PoolFact::InvalidSpec(problems) => ("InvalidSpec", "Validate", problems.to_string()),
            PoolFact::SecretMissing { what } => ("SecretMissing", "ReadSecret", what.to_owned()),
            PoolFact::InvalidConnection { why } => ("InvalidConnection", "Connect", why.to_owned()),
            PoolFact::IdentityRefused { why } => ("IdentityRefused", "Authenticate", why.to_owned()),
        };
        let text = EventText::new(EventType::Warning, reason, action, note);
        self.record_if_new((reason, Some(text.note.clone())), now)
            .then_some(text)
    }

    fn scaling(&mut self, facts: &RoleFacts<'_>, now: Moment) -> Option<EventText> {
        if let Some(scaled) = facts.scaled {
            let from = self.delayed.take().map_or(scaled.from, |(before, _)| before.from);
            let explanation = facts.explanation;
            let reason = explanation.reason.name();
            let note = format!(
                "{}: scaled from {from} to {}: {explanation}",
                facts.role, scaled.to
            );
            let text = EventText::new(EventType::Normal, reason, "Scale", note);
            self.delayed = Some((Scaled { from, ..scaled }, text));
            // This event includes the limit that applied: it needs no event of its own.
            self.returned_at.insert((reason, None), now);
        }
        let soon = |at: Moment| now.since(at) < MERGE_SCALINGS;
        if self.scaled_at.is_some_and(soon) {
            return None;
        }
        let (scaled, text) = self.delayed.take()?;
        self.scaled_at = Some(now);
        (scaled.from != scaled.to).then_some(text)
    }

    fn held(&mut self, facts: &RoleFacts<'_>, now: Moment) -> Option<EventText> {
        let reason = facts.explanation.reason;
        let since = match self.held {
            Some((before, since)) if before == reason => since,
            _ => now,
        };
        self.held = Some((reason, since));
        let (type_, after) = match reason {
            Reason::LimitedByMaxReplicas | Reason::LimitedByPartitions => (EventType::Normal, Duration::ZERO),
            Reason::Conflict => (EventType::Warning, Duration::ZERO),
            Reason::HeldUnknownLag
            | Reason::HeldPartialLag
            | Reason::HeldUnknownMembers
            | Reason::HeldUnknownPods
            | Reason::HeldByDependency => (EventType::Warning, HELD_FOR),
            // Unschedulable pods have their own event; the other reasons are normal operation.
            Reason::HeldUnschedulable
            | Reason::BacklogCovered
            | Reason::AtMinimum
            | Reason::HeldByRollout
            | Reason::HeldBusy
            | Reason::HeldDraining
            | Reason::Stabilizing
            | Reason::CoolingDown
            | Reason::Rebalancing
            | Reason::SelectingIdlePods
            | Reason::ScalingDown
            | Reason::Paused
            | Reason::DryRun => return None,
        };
        if facts.scaled.is_some() || now.since(since) < after {
            return None;
        }
        let note = format!("{}: {}", facts.role, facts.explanation);
        Some(EventText::new(type_, reason.name(), "Decide", note))
    }

    fn unschedulable(&mut self, facts: &RoleFacts<'_>, now: Moment) -> Option<EventText> {
        let pods = facts.explanation.pods.unschedulable;
        if pods == 0 {
            self.unschedulable_since = None;
            return None;
        }
        let since = *self.unschedulable_since.get_or_insert(now);
        let note = format!(
            "{}: no node has had room for {pods} workers for {} s; fix: add nodes, or lower maxReplicas",
            facts.role,
            HELD_FOR.as_secs()
        );
        (now.since(since) >= HELD_FOR)
            .then(|| EventText::new(EventType::Warning, "Unschedulable", "Schedule", note))
    }

    fn record_if_new(&mut self, event: (&'static str, Option<String>), now: Moment) -> bool {
        let is_new = !self.returned_at.contains_key(&event) && self.returned_at.len() < MAX_REMEMBERED;
        if is_new {
            self.returned_at.insert(event, now);
        }
        is_new
    }

    fn forget(&mut self, now: Moment) {
        self.returned_at.retain(|_, at| now.since(*at) < REPEAT_AFTER);
    }
}

fn adopted(facts: &RoleFacts<'_>) -> Option<EventText> {
    let adoption = facts.adopted?;
    let note = format!(
        "{}: the consumer group's offsets were initialized on {} partitions ({:?}); {}",
        facts.role,
        adoption.partitions,
        adoption.initial_offset,
        included(facts)
    );
    Some(EventText::new(EventType::Normal, "OffsetsAdopted", "Adopt", note))
}

/// How many messages an adoption includes.
fn included(facts: &RoleFacts<'_>) -> String {
    match facts.explanation.lag {
        Some(lag) if lag.missing == 0 => format!("{} messages are included", lag.messages),
        _ => "the number of messages that are included is not known yet".to_owned(),
    }
}

/// One event for each kind of offset anomaly, however many partitions have it.
fn offset_anomalies(facts: &RoleFacts<'_>) -> Vec<EventText> {
    let mut kinds: BTreeMap<&'static str, (&OffsetAnomaly, usize)> = BTreeMap::new();
    for anomaly in facts.anomalies {
        kinds.entry(anomaly_reason(anomaly)).or_insert((anomaly, 0)).1 += 1;
    }
    let each = kinds.into_iter().map(|(reason, (first, count))| {
        let more = match count - 1 {
            0 => String::new(),
            more => format!(", and {more} more partitions"),
        };
        let note = format!("{}: {}{more}", facts.role, anomaly_text(first));
        EventText::new(EventType::Warning, reason, "ReadLag", note)
    });
    each.collect()
}

impl EventText {
    /// The event about a new spec whose pods have a longer grace period than clusters allow.
    pub fn long_grace_period(note: String) -> Self {
        Self::new(
            EventType::Normal,
            "GracePeriodExceedsAutoscaler",
            "Validate",
            note,
        )
    }

    fn new(type_: EventType, reason: &'static str, action: &'static str, mut note: String) -> Self {
        if note.len() > MAX_NOTE_BYTES {
            note.truncate(note.floor_char_boundary(MAX_NOTE_BYTES - '…'.len_utf8()));
            note.push('…');
        }
        Self {
            type_,
            reason,
            action,
            note,
        }
    }
}
