//! Lag of many groups, read with as few questions as keep it right.
//!
//! One round asks for the ends of all partitions; for committed offsets only where ends moved, where work waits, where the
//! last round failed, where they are not initialised yet, or where nobody asked for a while (somebody may have rewound a group by hand); and for starts only
//! where something waits. Descriptions of topics are asked again after a while, and at once where an end went backwards. An
//! end that is older than a commit beyond it is read again in the same round.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use separation_contract::offset_metadata::{Hold, OffsetMetadata};

use super::vanished::{Before, Seen};
use super::{Adoption, LagFound, PartitionOffsets, Relation, TopicOffsets, lag_of};
use crate::decide::{Lag, Moment};
use crate::kafka::{Cluster, Commit, Deadline, GroupCommits, Topic, TopicPartition, Unread, Which};

/// How old a topic's description may be: partitions that are added are seen within this.
const DESCRIPTION_AGE: Duration = Duration::from_secs(10);

/// How long what was read for a query is kept after the query was last asked: twice the longest poll interval. Rounds read
/// only the roles that are due, so that one round says nothing about the others.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// Whose lag is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The topic.
    pub topic: Arc<str>,
    /// The consumer group.
    pub group: Arc<str>,
    /// What is known of how its offsets were initialised.
    pub adoption: Adoption,
}

/// What was found for a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The topic, where it could be described.
    pub topic: Option<Topic>,
    /// Its offsets for the group, with which they can be initialised or kept alive.
    pub offsets: Option<TopicOffsets>,
    /// What waits, and what is odd about it.
    pub lag: LagFound,
    /// The first thing that could not be read.
    pub unread: Option<Unread>,
    /// What refuses workers, as they report it for partitions with messages.
    pub holds: Vec<Hold>,
}

impl Found {
    /// Nothing was read, for this reason.
    pub(super) fn nothing(why: Arc<str>, unread: Unread) -> Self {
        Self {
            topic: None,
            offsets: None,
            lag: LagFound {
                lag: Lag::Unknown { why },
                flags: Vec::new(),
            },
            unread: Some(unread),
            holds: Vec::new(),
        }
    }
}

/// Reads lag of one cluster, round by round.
#[derive(Debug)]
pub struct LagReader {
    cluster: Arc<Cluster>,
    committed_age: Duration,
    topics: HashMap<Arc<str>, Described>,
    ends: HashMap<TopicPartition, i64>,
    groups: HashMap<(Arc<str>, Arc<str>), Committed>,
    seen: HashMap<(Arc<str>, Arc<str>), Seen>,
    asked_at: HashMap<(Arc<str>, Arc<str>), Moment>,
    asked: QuestionCount,
}

/// What was asked in all rounds, in partitions, groups and topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QuestionCount {
    /// Ends of partitions.
    pub ends: u64,
    /// Starts of partitions.
    pub starts: u64,
    /// Groups.
    pub groups: u64,
    /// Topics.
    pub topics: u64,
}

#[derive(Debug)]
struct Described {
    topic: Topic,
    at: Moment,
}

#[derive(Debug)]
struct Committed {
    /// What refuses workers, as they report it beside the offsets.
    holds: BTreeMap<TopicPartition, Hold>,
    offsets: BTreeMap<TopicPartition, Result<Option<i64>, Unread>>,
    at: Moment,
    /// Whether every partition was read, and nothing waited in any.
    idle: bool,
}

impl LagReader {
    /// Nothing was read yet. An idle group's committed offsets may be as old as `committed_age`; each group has its own age
    /// between this and twice this, so that a thousand groups do not ask at once.
    pub fn new(cluster: Arc<Cluster>, committed_age: Duration) -> Self {
        Self {
            cluster,
            committed_age,
            topics: HashMap::new(),
            ends: HashMap::new(),
            groups: HashMap::new(),
            seen: HashMap::new(),
            asked_at: HashMap::new(),
            asked: QuestionCount::default(),
        }
    }

    /// The cluster, for other questions.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// What was asked so far.
    pub fn asked(&self) -> QuestionCount {
        self.asked
    }

    /// Forgets what was read, as if nothing had been.
    pub fn start_again(&mut self) {
        *self = Self::new(Arc::clone(&self.cluster), self.committed_age);
    }

    /// Reads the lag of each query. What has not been answered by the deadline is unknown.
    pub async fn read(&mut self, queries: &[Query], now: Moment, deadline: &Deadline) -> Vec<Found> {
        let mut unknown = self.describe(queries, now, deadline).await;
        let mut ends = self.read_ends(queries, deadline).await;
        let backwards = self.topics_that_went_backwards(&ends);
        if !backwards.is_empty() {
            // Made anew: what was known of it belongs to the old one.
            self.topics.retain(|topic, _| !backwards.contains(topic));
            unknown.extend(self.describe(queries, now, deadline).await);
            ends.retain(|partition, _| !backwards.contains(&partition.topic));
            let again: Vec<Query> = queries
                .iter()
                .filter(|query| backwards.contains(&query.topic))
                .cloned()
                .collect();
            ends.extend(self.read_ends(&again, deadline).await);
            self.groups.retain(|(_, topic), _| !backwards.contains(topic));
            self.seen.retain(|(_, topic), _| !backwards.contains(topic));
        }
        self.read_committed(queries, &ends, now, deadline).await;
        self.read_overtaken_ends(queries, &mut ends, deadline).await;
        let starts = self.read_starts(queries, &ends, deadline).await;
        let found: Vec<Found> = queries
            .iter()
            .map(|query| self.join(query, &unknown, &ends, &starts))
            .collect();
        for (query, found) in queries.iter().zip(&found) {
            self.note_idle(query, found);
        }
        self.remember(queries, &ends, now);
        found
    }

    async fn describe(
        &mut self,
        queries: &[Query],
        now: Moment,
        deadline: &Deadline,
    ) -> HashMap<Arc<str>, Unread> {
        let fresh = |described: &Described| now.since(described.at) < DESCRIPTION_AGE;
        let due = |topic: &Arc<str>| !self.topics.get(topic).is_some_and(fresh);
        let due: BTreeSet<_> = queries
            .iter()
            .map(|query| Arc::clone(&query.topic))
            .filter(due)
            .collect();
        let due: Vec<_> = due.into_iter().collect();
        if due.is_empty() {
            return HashMap::new();
        }
        self.asked.topics += due.len() as u64;
        let mut unknown = HashMap::new();
        for (name, described) in self.cluster.topics(&due, deadline).await {
            match described {
                Ok(topic) => {
                    let before = self.topics.insert(
                        Arc::clone(&name),
                        Described {
                            topic: topic.clone(),
                            at: now,
                        },
                    );
                    let Some(before) = before else { continue };
                    if before.topic.identity != topic.identity {
                        self.seen.retain(|(_, of), _| *of != name);
                    }
                    if before.topic != topic {
                        // Another topic of that name, or more partitions: committed offsets are asked anew.
                        self.groups.retain(|(_, of), _| *of != name);
                    }
                }
                Err(why) => {
                    self.topics.remove(&name);
                    unknown.insert(name, why);
                }
            }
        }
        unknown
    }

    fn partitions(&self, query: &Query) -> Vec<TopicPartition> {
        let described = self.topics.get(&query.topic);
        let numbers = described
            .map(|described| described.topic.partitions.iter())
            .into_iter()
            .flatten();
        let named = numbers.map(|partition| TopicPartition {
            topic: Arc::clone(&query.topic),
            partition: *partition,
        });
        named.collect()
    }

    async fn read_ends(
        &mut self,
        queries: &[Query],
        deadline: &Deadline,
    ) -> BTreeMap<TopicPartition, Result<i64, Unread>> {
        let asked: BTreeSet<_> = queries.iter().flat_map(|query| self.partitions(query)).collect();
        let asked: Vec<_> = asked.into_iter().collect();
        self.asked.ends += asked.len() as u64;
        self.cluster.offsets(&asked, Which::End, deadline).await
    }

    fn topics_that_went_backwards(
        &self,
        ends: &BTreeMap<TopicPartition, Result<i64, Unread>>,
    ) -> BTreeSet<Arc<str>> {
        let backwards = ends.iter().filter(|(partition, end)| {
            let (Ok(end), Some(before)) = (end, self.ends.get(*partition)) else {
                return false;
            };
            end < before
        });
        backwards
            .map(|(partition, _)| Arc::clone(&partition.topic))
            .collect()
    }

    async fn read_committed(
        &mut self,
        queries: &[Query],
        ends: &BTreeMap<TopicPartition, Result<i64, Unread>>,
        now: Moment,
        deadline: &Deadline,
    ) {
        let (mut due, mut asked) = (Vec::new(), Vec::new());
        for query in queries {
            let partitions = self.partitions(query);
            let moved = partitions.iter().any(|partition| {
                let before = self.ends.get(partition);
                !matches!((ends.get(partition), before), (Some(Ok(end)), Some(before)) if end == before)
            });
            let fresh = self
                .groups
                .get(&key(query))
                .is_some_and(|known| known.idle && now.since(known.at) < self.age(query));
            // While brokers are away their coordinators are not asked either.
            let reachable = partitions
                .iter()
                .any(|partition| matches!(ends.get(partition), Some(Ok(_))));
            if reachable && (moved || !fresh) {
                due.push((Arc::clone(&query.group), partitions));
                asked.push(query);
            }
        }
        self.asked.groups += due.len() as u64;
        let read = self.cluster.commits_of(&due, deadline).await;
        for (query, commits) in asked.into_iter().zip(read) {
            let before = match self.relation(query) {
                Some(Relation::Same) => Before::Initialized,
                _ => Before::Unknown,
            };
            let holds = holds_in(&commits);
            let offset = |commit: Option<Commit>| commit.map(|commit| commit.next);
            let offsets = commits
                .into_iter()
                .map(|(partition, commit)| (partition, commit.map(offset)));
            let mut offsets: BTreeMap<_, _> = offsets.collect();
            let seen = self.seen.entry(key(query)).or_default();
            seen.doubt(&mut offsets, before, now);
            let known = Committed {
                holds,
                offsets,
                at: now,
                idle: false,
            };
            self.groups.insert(key(query), known);
        }
    }

    /// Reads ends again that are older than what the group has committed since: taken as they are, the offset would seem to
    /// lie beyond the end, and everything that the topic retains would count.
    async fn read_overtaken_ends(
        &mut self,
        queries: &[Query],
        ends: &mut BTreeMap<TopicPartition, Result<i64, Unread>>,
        deadline: &Deadline,
    ) {
        let mut overtaken = BTreeSet::new();
        for committed in queries.iter().filter_map(|query| self.groups.get(&key(query))) {
            let newer = committed.offsets.iter().filter(|(partition, offset)| {
                let end = ends.get(*partition);
                matches!((offset, end), (Ok(Some(offset)), Some(Ok(end))) if offset > end)
            });
            overtaken.extend(newer.map(|(partition, _)| partition.clone()));
        }
        if overtaken.is_empty() {
            return;
        }
        let overtaken: Vec<_> = overtaken.into_iter().collect();
        self.asked.ends += overtaken.len() as u64;
        ends.extend(self.cluster.offsets(&overtaken, Which::End, deadline).await);
    }

    /// Starts, where an end is not what was committed.
    async fn read_starts(
        &mut self,
        queries: &[Query],
        ends: &BTreeMap<TopicPartition, Result<i64, Unread>>,
        deadline: &Deadline,
    ) -> BTreeMap<TopicPartition, Result<i64, Unread>> {
        let mut asked = BTreeSet::new();
        for query in queries {
            let recreated = self.relation(query) == Some(Relation::Recreated);
            let committed = self.groups.get(&key(query));
            for partition in self.partitions(query) {
                let Some(Ok(end)) = ends.get(&partition) else {
                    continue;
                };
                let Some(Ok(committed)) = committed.and_then(|known| known.offsets.get(&partition)) else {
                    continue;
                };
                if recreated || *committed != Some(*end) {
                    asked.insert(partition);
                }
            }
        }
        let asked: Vec<_> = asked.into_iter().collect();
        self.asked.starts += asked.len() as u64;
        self.cluster.offsets(&asked, Which::Start, deadline).await
    }

    /// Each group's own age, from its name.
    fn age(&self, query: &Query) -> Duration {
        let mut hasher = DefaultHasher::new();
        key(query).hash(&mut hasher);
        self.committed_age
            + self
                .committed_age
                .mul_f64((hasher.finish() % 1_000) as f64 / 1_000.0)
    }

    /// How the topic is related to the one that offsets were initialized for; none where it was not described.
    fn relation(&self, query: &Query) -> Option<Relation> {
        let described = self.topics.get(&query.topic)?;
        Some(query.adoption.relation(&described.topic.identity))
    }

    fn join(
        &self,
        query: &Query,
        unknown: &HashMap<Arc<str>, Unread>,
        ends: &BTreeMap<TopicPartition, Result<i64, Unread>>,
        starts: &BTreeMap<TopicPartition, Result<i64, Unread>>,
    ) -> Found {
        let Some(described) = self.topics.get(&query.topic) else {
            let why = unknown.get(&query.topic).cloned();
            let why = why.unwrap_or_else(|| Unread::new("the topic was not described"));
            return Found::nothing(format!("topic {}: {why}", query.topic).into(), why);
        };
        let committed = self.groups.get(&key(query));
        let not_read = || Unread::new("was not read");
        let partitions = self.partitions(query).into_iter().map(|partition| {
            let end = ends.get(&partition).cloned().unwrap_or_else(|| Err(not_read()));
            let committed = committed.and_then(|known| known.offsets.get(&partition)).cloned();
            PartitionOffsets {
                // Where it was not asked, nothing waits, and any start up to the end gives that.
                start: starts.get(&partition).cloned().unwrap_or_else(|| end.clone()),
                partition: partition.partition,
                end,
                committed: committed.unwrap_or_else(|| Err(not_read())),
            }
        });
        let offsets = TopicOffsets {
            identity: described.topic.identity.clone(),
            partitions: partitions.collect(),
        };
        let unread = offsets.partitions.iter().find_map(|partition| {
            let read = [
                partition.end.as_ref().err(),
                partition.committed.as_ref().err(),
                partition.start.as_ref().err(),
            ];
            read.into_iter().flatten().next().cloned()
        });
        Found {
            topic: Some(described.topic.clone()),
            unread,
            holds: committed.map_or_else(Vec::new, |known| standing(&known.holds, query, &offsets)),
            lag: lag_of(&offsets, &query.adoption),
            offsets: Some(offsets),
        }
    }

    fn note_idle(&mut self, query: &Query, found: &Found) {
        // Offsets that are about to be initialized, or committed again, are read each time: an old answer confirms nothing.
        let is_adopted = self.relation(query) == Some(Relation::Same);
        if let Some(known) = self.groups.get_mut(&key(query)) {
            let has_offsets = known.offsets.values().any(|offset| matches!(offset, Ok(Some(_))));
            known.idle = is_adopted
                && has_offsets
                && matches!(&found.lag.lag, Lag::Known(work) if work.messages() == 0);
        }
    }

    /// Keeps what later rounds compare with, of what was asked about lately.
    fn remember(
        &mut self,
        queries: &[Query],
        ends: &BTreeMap<TopicPartition, Result<i64, Unread>>,
        now: Moment,
    ) {
        self.asked_at
            .extend(queries.iter().map(|query| (key(query), now)));
        self.asked_at.retain(|_, at| now.since(*at) < FORGOTTEN_AFTER);
        let asked = &self.asked_at;
        let topics: BTreeSet<_> = asked.keys().map(|(_, topic)| topic).collect();
        self.topics.retain(|topic, _| topics.contains(topic));
        self.ends.retain(|partition, _| topics.contains(&partition.topic));
        self.groups.retain(|group, _| asked.contains_key(group));
        self.seen.retain(|group, _| asked.contains_key(group));
        let known = ends
            .iter()
            .filter_map(|(partition, end)| Some((partition.clone(), *end.as_ref().ok()?)));
        self.ends.extend(known);
    }
}

/// What workers report beside committed offsets.
fn holds_in(commits: &GroupCommits) -> BTreeMap<TopicPartition, Hold> {
    let each = commits.iter().filter_map(|(partition, commit)| {
        let metadata = commit.as_ref().ok()?.as_ref()?.metadata.as_deref()?;
        Some((partition.clone(), OffsetMetadata::parse(metadata).held?))
    });
    each.collect()
}

/// Reports about messages that exist: the record beside an offset describes the message there.
fn standing(holds: &BTreeMap<TopicPartition, Hold>, query: &Query, offsets: &TopicOffsets) -> Vec<Hold> {
    let waiting = offsets.partitions.iter().filter(|partition| {
        let (committed, end) = (&partition.committed, &partition.end);
        matches!((committed, end), (Ok(Some(committed)), Ok(end)) if committed < end)
    });
    let partitions = waiting.map(|partition| TopicPartition {
        topic: Arc::clone(&query.topic),
        partition: partition.partition,
    });
    partitions
        .filter_map(|partition| holds.get(&partition).cloned())
        .collect()
}

fn key(query: &Query) -> (Arc<str>, Arc<str>) {
    (Arc::clone(&query.group), Arc::clone(&query.topic))
}
