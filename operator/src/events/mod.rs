//! What people are told about a pool as it happens: Kubernetes events, few enough to be read.
//!
//! [`Teller`] decides what is worth saying, as a plain state machine; [`EventWriter`] writes it, later and at its own
//! pace, and never holds anybody up. kube's own recorder counts a repeated event up with the first one's text, which
//! would make "from 0 to 8" of a later "from 8 to 2"; hence each of ours is an event of its own.

mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::crd::AdoptionStatus;
use crate::decide::{Explanation, Moment, Reason};
use crate::observe::Flag;
use crate::observe::workload::Trouble;
use crate::plan::{Problems, Role};
use crate::status::{flag_reason, flag_text};

pub use writer::{EventTask, EventWriter, event_writer};

/// The same is not said again for so long: six times an hour at most, and events live for an hour.
const SAME_AGAIN: Duration = Duration::from_secs(600);

/// Scalings within so long are said as one.
const MERGE_SCALINGS: Duration = Duration::from_secs(2);

/// What may pass by itself is said once it has lasted for so long.
const HELD_FOR: Duration = Duration::from_secs(60);

/// How many different things are remembered as said; beyond that, nothing new is said until some are forgotten.
const MOST_REMEMBERED: usize = 32;

/// The longest note that the API server takes, in bytes.
const LONGEST_NOTE: usize = 1_024;

/// The reason of what the cluster says is wrong with workers; its own word begins the note.
const CANNOT_RUN: &str = "WorkersCannotRun";

/// An event's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventText {
    /// Whether somebody should look.
    pub weight: Weight,
    /// Why, in one word.
    pub reason: &'static str,
    /// What was done or tried, in one word.
    pub action: &'static str,
    /// The sentence.
    pub note: String,
}

/// Whether somebody should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Nobody needs to.
    Normal,
    /// Somebody should.
    Warning,
}

/// What is known of a role after a decision and its writes.
#[derive(Debug, Clone, Copy)]
pub struct RoleFacts<'a> {
    /// Which role.
    pub role: Role,
    /// The decision.
    pub explanation: &'a Explanation,
    /// What is odd about offsets.
    pub flags: &'a [Flag],
    /// The number of workers, where it was written just now.
    pub scaled: Option<Scaled>,
    /// What the cluster says that a person must look at.
    pub troubles: &'a [Trouble],
    /// The group's offsets, where they were taken over just now.
    pub adopted: Option<&'a AdoptionStatus>,
}

/// A number of workers that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scaled {
    /// What it was.
    pub from: u32,
    /// What it is.
    pub to: u32,
}

/// What keeps a whole pool from working.
#[derive(Debug, Clone, Copy)]
pub enum PoolFact<'a> {
    /// Its spec cannot be done.
    InvalidSpec(&'a Problems),
    /// A secret that it names is not there, or lacks a key.
    SecretMissing {
        /// What is missing, with its fix.
        what: &'a str,
    },
}

/// Decides what is said of one pool, or of one of its roles, and remembers what was.
#[derive(Debug, Clone, Default)]
pub struct Teller {
    /// When what was said last: its reason, and its note where that tells one thing from another.
    said: BTreeMap<(&'static str, Option<String>), Moment>,
    /// Why nothing is changed, and since when.
    held: Option<(Reason, Moment)>,
    unschedulable_since: Option<Moment>,
    scaled_at: Option<Moment>,
    /// A scaling that waits for others to be said with.
    waiting: Option<(Scaled, EventText)>,
}

impl Teller {
    /// What is to be said of a role now. To be asked after every decision.
    pub fn role(&mut self, facts: &RoleFacts<'_>, now: Moment) -> Vec<EventText> {
        self.forget(now);
        let mut texts: Vec<EventText> = self.scaling(facts, now).into_iter().collect();
        let once = [
            self.held(facts, now),
            self.unschedulable(facts, now),
            adopted(facts),
        ];
        let each = once.into_iter().flatten().chain(odd_offsets(facts));
        texts.extend(each.filter(|text| self.first_time((text.reason, None), now)));
        for trouble in facts.troubles {
            // Pods without a node are said above; messages of the same trouble differ from try to try.
            let is_new = &*trouble.reason != "Unschedulable"
                && self.first_time((CANNOT_RUN, Some(trouble.reason.to_string())), now);
            if is_new {
                let note = format!("{}: {}: {}", facts.role, trouble.reason, trouble.message);
                texts.push(EventText::new(Weight::Warning, CANNOT_RUN, "Run", note));
            }
        }
        texts
    }

    /// What is to be said of a pool now. To be asked whenever that is so.
    pub fn pool(&mut self, fact: PoolFact<'_>, now: Moment) -> Option<EventText> {
        self.forget(now);
        let (reason, action, note) = match fact {
            PoolFact::InvalidSpec(problems) => ("InvalidSpec", "Validate", problems.to_string()),
            PoolFact::SecretMissing { what } => ("SecretMissing", "ReadSecret", what.to_owned()),
        };
        let text = EventText::new(Weight::Warning, reason, action, note);
        self.first_time((reason, Some(text.note.clone())), now)
            .then_some(text)
    }

    fn scaling(&mut self, facts: &RoleFacts<'_>, now: Moment) -> Option<EventText> {
        if let Some(scaled) = facts.scaled {
            let from = self.waiting.take().map_or(scaled.from, |(before, _)| before.from);
            let explanation = facts.explanation;
            let reason = explanation.reason.name();
            let note = format!("{}: from {from} to {}: {explanation}", facts.role, scaled.to);
            let text = EventText::new(Weight::Normal, reason, "Scale", note);
            self.waiting = Some((Scaled { from, ..scaled }, text));
            // The bound that bit is in this event: it need not be said by itself.
            self.said.insert((reason, None), now);
        }
        let soon = |at: Moment| now.since(at) < MERGE_SCALINGS;
        if self.scaled_at.is_some_and(soon) {
            return None;
        }
        let (scaled, text) = self.waiting.take()?;
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
        let (weight, after) = match reason {
            Reason::CappedByMax | Reason::CappedByPartitions => (Weight::Normal, Duration::ZERO),
            Reason::Conflict => (Weight::Warning, Duration::ZERO),
            Reason::HeldUnknownLag
            | Reason::HeldPartialLag
            | Reason::HeldUnknownMembers
            | Reason::HeldUnknownPods
            | Reason::HeldByDependency => (Weight::Warning, HELD_FOR),
            // Pods without a node are said of their own, whatever the reason; the rest is as it should be.
            Reason::HeldUnschedulable
            | Reason::NeedMet
            | Reason::AtMinimum
            | Reason::HeldByRollout
            | Reason::HeldBusy
            | Reason::HeldDraining
            | Reason::Stabilising
            | Reason::Settling
            | Reason::Rebalancing
            | Reason::MarkingIdle
            | Reason::ScalingIn
            | Reason::Paused
            | Reason::RecommendOnly => return None,
        };
        if facts.scaled.is_some() || now.since(since) < after {
            return None;
        }
        let note = format!("{}: {}", facts.role, facts.explanation);
        Some(EventText::new(weight, reason.name(), "Decide", note))
    }

    fn unschedulable(&mut self, facts: &RoleFacts<'_>, now: Moment) -> Option<EventText> {
        let pods = facts.explanation.pods.unschedulable;
        if pods == 0 {
            self.unschedulable_since = None;
            return None;
        }
        let since = *self.unschedulable_since.get_or_insert(now);
        let note = format!(
            "{}: no node has had room for {pods} of the workers for {} s; fix: add nodes, or lower maxReplicas",
            facts.role,
            HELD_FOR.as_secs()
        );
        (now.since(since) >= HELD_FOR)
            .then(|| EventText::new(Weight::Warning, "Unschedulable", "Schedule", note))
    }

    fn first_time(&mut self, what: (&'static str, Option<String>), now: Moment) -> bool {
        let fresh = !self.said.contains_key(&what) && self.said.len() < MOST_REMEMBERED;
        if fresh {
            self.said.insert(what, now);
        }
        fresh
    }

    fn forget(&mut self, now: Moment) {
        self.said.retain(|_, at| now.since(*at) < SAME_AGAIN);
    }
}

fn adopted(facts: &RoleFacts<'_>) -> Option<EventText> {
    let adoption = facts.adopted?;
    let note = format!(
        "{}: the group's offsets were taken over on {} partitions ({})",
        facts.role, adoption.partitions, adoption.policy
    );
    Some(EventText::new(Weight::Normal, "OffsetsAdopted", "Adopt", note))
}

/// One event for each kind of oddity, however many partitions have it.
fn odd_offsets(facts: &RoleFacts<'_>) -> Vec<EventText> {
    let mut kinds: BTreeMap<&'static str, (&Flag, usize)> = BTreeMap::new();
    for flag in facts.flags {
        kinds.entry(flag_reason(flag)).or_insert((flag, 0)).1 += 1;
    }
    let each = kinds.into_iter().map(|(reason, (first, count))| {
        let more = match count - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let note = format!("{}: {}{more}", facts.role, flag_text(first));
        EventText::new(Weight::Warning, reason, "ReadLag", note)
    });
    each.collect()
}

impl EventText {
    fn new(weight: Weight, reason: &'static str, action: &'static str, mut note: String) -> Self {
        if note.len() > LONGEST_NOTE {
            note.truncate(note.floor_char_boundary(LONGEST_NOTE - '…'.len_utf8()));
            note.push('…');
        }
        Self {
            weight,
            reason,
            action,
            note,
        }
    }
}
