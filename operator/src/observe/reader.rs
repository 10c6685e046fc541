//! Reads the lag of many groups with as few requests as correctness allows.
//!
//! One round requests the end offsets of all partitions. It requests committed offsets only where ends moved, where
//! there is lag, where the last round failed, where offsets are not initialized yet, or where the last request is old
//! (a user may have rewound a group); and start offsets only where there is lag. Topics are described again after
//! [`DESCRIPTION_AGE`], and immediately where an end offset decreased. An end that is smaller than a newer commit is
//! read again in the same round, and then also without the isolation of open transactions. Offsets at a time are
//! requested once, for partitions with lag at their first reading whose query has a start deadline.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use separation_contract::offset_metadata::Hold;
use separation_kafka::{Cluster, Commit, Deadline, OffsetKind, ReadError, Topic, TopicPartition};

use super::missing_offsets::{OffsetHistory, PriorOffsets};
use super::queue::{AGES, QueueHistory};
use super::worker_reports::{CommittedNext, FinishedTask, StartedTasks, WorkerReports};
use super::{
    Adoption, LagWithAnomalies, OffsetAnomaly, PartitionOffsets, TopicOffsets, TopicRelation, compute_lag,
};
use crate::clock::WallClock;
use crate::decide::{Lag, Moment, Queue};

/// The longest time until a topic is described again: new partitions are noticed within it.
const DESCRIPTION_AGE: Duration = Duration::from_secs(10);

/// How long the readings of a query are kept after it was last in a round: twice the longest poll interval. Rounds
/// contain only the roles that are due, so a query that is not in a round may still be in use.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// Offsets by partition.
type Offsets = BTreeMap<TopicPartition, Result<i64, ReadError>>;

/// The topic and group whose lag is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The topic.
    pub topic: Arc<str>,
    /// The consumer group.
    pub group: Arc<str>,
    /// How its offsets were initialized.
    pub adoption: Adoption,
    /// Time within which each task should begin; without it, brokers are not asked for the ages of messages.
    pub start_deadline: Option<Duration>,
}

/// The result for a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryResult {
    /// The topic, if it could be described.
    pub topic: Option<Topic>,
    /// The topic's offsets for the group, from which they can be initialized or committed again.
    pub offsets: Option<TopicOffsets>,
    /// The lag, and anomalies of offsets.
    pub lag: LagWithAnomalies,
    /// The first error.
    pub error: Option<ReadError>,
    /// The refusals that workers report for partitions with lag.
    pub holds: Vec<Hold>,
    /// Tasks that were completed since the reading before, at most one for each partition.
    pub finished: Vec<FinishedTask>,
    /// When the messages of the lag arrived and, with a start deadline, which run; none if the lag is unknown.
    pub queue: Option<Queue>,
}

impl QueryResult {
    /// A result without any reading.
    pub(super) fn failed(why: Arc<str>, error: ReadError) -> Self {
        Self {
            topic: None,
            offsets: None,
            lag: LagWithAnomalies {
                lag: Lag::Unknown { why },
                anomalies: Vec::new(),
            },
            error: Some(error),
            holds: Vec::new(),
            finished: Vec::new(),
            queue: None,
        }
    }
}

/// Reads the lag of groups in one cluster, round by round.
#[derive(Debug)]
pub struct LagReader {
    cluster: Arc<Cluster>,
    committed_age: Duration,
    topics: HashMap<Arc<str>, DescribedTopic>,
    ends: HashMap<TopicPartition, i64>,
    groups: HashMap<(Arc<str>, Arc<str>), CommittedOffsets>,
    histories: HashMap<(Arc<str>, Arc<str>), GroupHistory>,
    last_requested: HashMap<(Arc<str>, Arc<str>), Moment>,
    counts: RequestCounts,
}

/// Partitions, groups and topics requested in all rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestCounts {
    /// Partitions whose end offset was requested.
    pub ends: u64,
    /// Partitions whose start offset was requested.
    pub starts: u64,
    /// Partitions whose offset at a time was requested, each as often as it was.
    pub times: u64,
    /// Groups whose committed offsets were requested.
    pub groups: u64,
    /// Topics that were described.
    pub topics: u64,
}

#[derive(Debug)]
struct DescribedTopic {
    topic: Topic,
    at: Moment,
}

/// The readings of a group's offsets in a topic, as long as it is the same topic.
#[derive(Debug, Default)]
struct GroupHistory {
    committed: OffsetHistory,
    queue: QueueHistory,
}

#[derive(Debug)]
struct CommittedOffsets {
    /// What workers report in the metadata of the offsets.
    reports: WorkerReports,
    offsets: CommittedNext,
    at: Moment,
    /// Whether every partition was read, and none had lag.
    is_idle: bool,
}

impl LagReader {
    /// `committed_age` is how old an idle group's committed offsets may be. Each group has its own age between this and
    /// twice this, so that a thousand groups are not requested together.
    pub fn new(cluster: Arc<Cluster>, committed_age: Duration) -> Self {
        Self {
            cluster,
            committed_age,
            topics: HashMap::new(),
            ends: HashMap::new(),
            groups: HashMap::new(),
            histories: HashMap::new(),
            last_requested: HashMap::new(),
            counts: RequestCounts::default(),
        }
    }

    /// The cluster, for other requests.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Counts of all requests so far.
    pub fn request_counts(&self) -> RequestCounts {
        self.counts
    }

    /// Discards all readings and counts.
    pub fn reset(&mut self) {
        *self = Self::new(Arc::clone(&self.cluster), self.committed_age);
    }

    /// Reads the lag of each query, in the order of `queries`. Lag without a response by the deadline is unknown.
    pub async fn read(&mut self, queries: &[Query], now: Moment, deadline: &Deadline) -> Vec<QueryResult> {
        let mut unknown = self.describe(queries, now, deadline).await;
        let mut ends = self.read_ends(queries, deadline).await;
        let decreased = self.topics_with_decreased_ends(&ends);
        if !decreased.is_empty() {
            // Recreated: earlier readings are about the old topic.
            self.topics.retain(|topic, _| !decreased.contains(topic));
            unknown.extend(self.describe(queries, now, deadline).await);
            ends.retain(|partition, _| !decreased.contains(&partition.topic));
            let again: Vec<Query> = queries
                .iter()
                .filter(|query| decreased.contains(&query.topic))
                .cloned()
                .collect();
            ends.extend(self.read_ends(&again, deadline).await);
            self.groups.retain(|(_, topic), _| !decreased.contains(topic));
            self.histories.retain(|(_, topic), _| !decreased.contains(topic));
        }
        self.read_committed(queries, &ends, now, deadline).await;
        let high_watermarks = self.read_overtaken_ends(queries, &mut ends, deadline).await;
        let starts = self.read_starts(queries, &ends, deadline).await;
        let mut found: Vec<QueryResult> = queries
            .iter()
            .map(|query| self.assemble(query, &unknown, &ends, &high_watermarks, &starts))
            .collect();
        for (query, found) in queries.iter().zip(&mut found) {
            self.record_idle(query, found);
            if let Some(known) = self.groups.get_mut(&query_key(query)) {
                found.finished = std::mem::take(&mut known.reports.finished);
            }
        }
        self.read_queues(queries, &mut found, now, deadline).await;
        self.retain_readings(queries, &ends, now);
        found
    }

    async fn describe(
        &mut self,
        queries: &[Query],
        now: Moment,
        deadline: &Deadline,
    ) -> HashMap<Arc<str>, ReadError> {
        let is_fresh = |described: &DescribedTopic| now.since(described.at) < DESCRIPTION_AGE;
        let due = |topic: &Arc<str>| !self.topics.get(topic).is_some_and(is_fresh);
        let due: BTreeSet<_> = queries
            .iter()
            .map(|query| Arc::clone(&query.topic))
            .filter(due)
            .collect();
        let due: Vec<_> = due.into_iter().collect();
        if due.is_empty() {
            return HashMap::new();
        }
        self.counts.topics += due.len() as u64;
        let mut unknown = HashMap::new();
        for (name, described) in self.cluster.topics(&due, deadline).await {
            match described {
                Ok(topic) => {
                    let prior = self.topics.insert(
                        Arc::clone(&name),
                        DescribedTopic {
                            topic: topic.clone(),
                            at: now,
                        },
                    );
                    let Some(prior) = prior else { continue };
                    if prior.topic.identity != topic.identity {
                        self.histories.retain(|(_, of), _| *of != name);
                    }
                    if prior.topic != topic {
                        // Another topic of that name, or more partitions: committed offsets are requested again.
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

    async fn read_ends(&mut self, queries: &[Query], deadline: &Deadline) -> Offsets {
        let requested: BTreeSet<_> = queries.iter().flat_map(|query| self.partitions(query)).collect();
        let requested: Vec<_> = requested.into_iter().collect();
        self.counts.ends += requested.len() as u64;
        self.cluster.offsets(&requested, OffsetKind::End, deadline).await
    }

    fn topics_with_decreased_ends(&self, ends: &Offsets) -> BTreeSet<Arc<str>> {
        let decreased = ends.iter().filter(|(partition, end)| {
            let (Ok(end), Some(prior)) = (end, self.ends.get(*partition)) else {
                return false;
            };
            end < prior
        });
        decreased
            .map(|(partition, _)| Arc::clone(&partition.topic))
            .collect()
    }

    async fn read_committed(&mut self, queries: &[Query], ends: &Offsets, now: Moment, deadline: &Deadline) {
        let (mut due, mut requested) = (Vec::new(), Vec::new());
        for query in queries {
            let partitions = self.partitions(query);
            let moved = partitions.iter().any(|partition| {
                let prior = self.ends.get(partition);
                !matches!((ends.get(partition), prior), (Some(Ok(end)), Some(prior)) if end == prior)
            });
            let is_fresh = self
                .groups
                .get(&query_key(query))
                .is_some_and(|known| known.is_idle && now.since(known.at) < self.age(query));
            // If no partition's leader is reachable, the coordinators are not asked either.
            let reachable = partitions
                .iter()
                .any(|partition| matches!(ends.get(partition), Some(Ok(_))));
            if reachable && (moved || !is_fresh) {
                due.push((Arc::clone(&query.group), partitions));
                requested.push(query);
            }
        }
        self.counts.groups += due.len() as u64;
        let read = self.cluster.committed_offsets(&due, deadline).await;
        for (query, commits) in requested.into_iter().zip(read) {
            let prior = match self.relation(query) {
                Some(TopicRelation::Same) => PriorOffsets::Initialized,
                _ => PriorOffsets::Unknown,
            };
            let before = self.groups.get(&query_key(query)).map(|known| &known.offsets);
            let started = match query.start_deadline {
                Some(_) => StartedTasks::Keep,
                None => StartedTasks::Drop,
            };
            let reports = WorkerReports::parse(&commits, before, started);
            let offset = |commit: Option<Commit>| commit.map(|commit| commit.next);
            let offsets = commits
                .into_iter()
                .map(|(partition, commit)| (partition, commit.map(offset)));
            let mut offsets: BTreeMap<_, _> = offsets.collect();
            let history = self.histories.entry(query_key(query)).or_default();
            history.committed.apply_grace_period(&mut offsets, prior, now);
            let known = CommittedOffsets {
                reports,
                offsets,
                at: now,
                is_idle: false,
            };
            self.groups.insert(query_key(query), known);
        }
    }

    /// Reads ends again that are smaller than what the group has committed since. Otherwise the committed offset would
    /// seem to be beyond the end, and every retained message would count as lag. Returns the high watermarks of
    /// partitions whose end is still smaller.
    async fn read_overtaken_ends(
        &mut self,
        queries: &[Query],
        ends: &mut Offsets,
        deadline: &Deadline,
    ) -> Offsets {
        let overtaken = self.overtaken(queries, ends);
        if overtaken.is_empty() {
            return Offsets::new();
        }
        ends.extend(self.cluster.offsets(&overtaken, OffsetKind::End, deadline).await);
        let still_overtaken = self.overtaken(queries, ends);
        self.counts.ends += (overtaken.len() + still_overtaken.len()) as u64;
        self.cluster
            .offsets(&still_overtaken, OffsetKind::HighWatermark, deadline)
            .await
    }

    /// The partitions whose end is smaller than a committed offset.
    fn overtaken(&self, queries: &[Query], ends: &Offsets) -> Vec<TopicPartition> {
        let mut overtaken = BTreeSet::new();
        for committed in queries
            .iter()
            .filter_map(|query| self.groups.get(&query_key(query)))
        {
            let newer = committed.offsets.iter().filter(|(partition, offset)| {
                let end = ends.get(*partition);
                matches!((offset, end), (Ok(Some(offset)), Some(Ok(end))) if offset > end)
            });
            overtaken.extend(newer.map(|(partition, _)| partition.clone()));
        }
        overtaken.into_iter().collect()
    }

    /// Reads start offsets, where the end differs from the committed offset.
    async fn read_starts(&mut self, queries: &[Query], ends: &Offsets, deadline: &Deadline) -> Offsets {
        let mut requested = BTreeSet::new();
        for query in queries {
            let recreated = self.relation(query) == Some(TopicRelation::Recreated);
            let committed = self.groups.get(&query_key(query));
            for partition in self.partitions(query) {
                let Some(Ok(end)) = ends.get(&partition) else {
                    continue;
                };
                let Some(Ok(committed)) = committed.and_then(|known| known.offsets.get(&partition)) else {
                    continue;
                };
                if recreated || *committed != Some(*end) {
                    requested.insert(partition);
                }
            }
        }
        let requested: Vec<_> = requested.into_iter().collect();
        self.counts.starts += requested.len() as u64;
        self.cluster
            .offsets(&requested, OffsetKind::Start, deadline)
            .await
    }

    /// The age after which a group's committed offsets are read again, derived from its name.
    fn age(&self, query: &Query) -> Duration {
        let mut hasher = DefaultHasher::new();
        query_key(query).hash(&mut hasher);
        self.committed_age
            + self
                .committed_age
                .mul_f64((hasher.finish() % 1_000) as f64 / 1_000.0)
    }

    /// How the topic is related to the one that offsets were initialized for; `None` if it was not described.
    fn relation(&self, query: &Query) -> Option<TopicRelation> {
        let described = self.topics.get(&query.topic)?;
        Some(query.adoption.relation(&described.topic.identity))
    }

    fn assemble(
        &self,
        query: &Query,
        unknown: &HashMap<Arc<str>, ReadError>,
        ends: &Offsets,
        high_watermarks: &Offsets,
        starts: &Offsets,
    ) -> QueryResult {
        let Some(described) = self.topics.get(&query.topic) else {
            let why = unknown.get(&query.topic).cloned();
            let why = why.unwrap_or_else(|| ReadError::new("the topic was not described"));
            return QueryResult::failed(format!("topic {}: {why}", query.topic).into(), why);
        };
        let committed = self.groups.get(&query_key(query));
        let not_read = || ReadError::new("not read in this round");
        let partitions = self.partitions(query).into_iter().map(|partition| {
            let committed = committed.and_then(|known| known.offsets.get(&partition)).cloned();
            let committed = committed.unwrap_or_else(|| Err(not_read()));
            let end = ends.get(&partition).cloned().unwrap_or_else(|| Err(not_read()));
            let end = end_for_group(end, &committed, high_watermarks.get(&partition));
            PartitionOffsets {
                // Without a request there is no lag, and any start up to the end gives lag 0.
                start: starts.get(&partition).cloned().unwrap_or_else(|| end.clone()),
                partition: partition.partition,
                end,
                committed,
            }
        });
        let offsets = TopicOffsets {
            identity: described.topic.identity.clone(),
            partitions: partitions.collect(),
        };
        let error = offsets.partitions.iter().find_map(|partition| {
            let read = [
                partition.end.as_ref().err(),
                partition.committed.as_ref().err(),
                partition.start.as_ref().err(),
            ];
            read.into_iter().flatten().next().cloned()
        });
        QueryResult {
            topic: Some(described.topic.clone()),
            error,
            holds: committed.map_or_else(Vec::new, |known| current_holds(&known.reports, &offsets)),
            lag: compute_lag(&offsets, &query.adoption),
            offsets: Some(offsets),
            finished: Vec::new(),
            queue: None,
        }
    }

    fn record_idle(&mut self, query: &Query, found: &QueryResult) {
        // Offsets that are about to be initialized, replaced, or committed again, are read each time: an old reading
        // confirms nothing.
        let is_adopted = self.relation(query) == Some(TopicRelation::Same);
        let mut anomalies = found.lag.anomalies.iter();
        let is_beyond_end = anomalies.any(|anomaly| matches!(anomaly, OffsetAnomaly::BeyondEnd { .. }));
        if let Some(known) = self.groups.get_mut(&query_key(query)) {
            let has_offsets = known.offsets.values().any(|offset| matches!(offset, Ok(Some(_))));
            known.is_idle = is_adopted
                && has_offsets
                && !is_beyond_end
                && matches!(&found.lag.lag, Lag::Known(work) if work.messages() == 0);
        }
    }

    /// Adds to the results when the messages arrived and, for queries with a start deadline, which run.
    async fn read_queues(
        &mut self,
        queries: &[Query],
        found: &mut [QueryResult],
        now: Moment,
        deadline: &Deadline,
    ) {
        let clock = WallClock::read(now);
        let mut without_ages: BTreeMap<Duration, BTreeSet<TopicPartition>> = BTreeMap::new();
        for (query, found) in queries.iter().zip(found.iter()) {
            let Some(offsets) = &found.offsets else { continue };
            let history = self.histories.entry(query_key(query)).or_default();
            let partitions = history
                .queue
                .record(offsets, &found.lag.lag, query.start_deadline, now);
            let Some(start_deadline) = query.start_deadline else {
                continue;
            };
            let named = partitions.into_iter().map(|partition| TopicPartition {
                topic: Arc::clone(&query.topic),
                partition,
            });
            without_ages.entry(start_deadline).or_default().extend(named);
        }
        without_ages.retain(|_, partitions| !partitions.is_empty());
        for (start_deadline, partitions) in without_ages {
            let ages = self.read_ages(partitions, start_deadline, clock, deadline).await;
            let same_deadline = queries
                .iter()
                .filter(|query| query.start_deadline == Some(start_deadline));
            for query in same_deadline {
                let history = self.histories.entry(query_key(query)).or_default();
                history.queue.set_ages(&query.topic, &ages);
            }
        }
        for (query, found) in queries.iter().zip(found) {
            let reports = self.groups.get(&query_key(query)).map(|known| &known.reports);
            let running = |partition, offset| reports?.running(partition, offset, clock);
            let history = self.histories.get(&query_key(query));
            found.queue = history
                .zip(found.offsets.as_ref())
                .and_then(|(history, offsets)| history.queue.queue(offsets, &found.lag.lag, running));
        }
    }

    /// The first offsets of messages that arrived later than the [`AGES`] ago, as far as brokers report them.
    async fn read_ages(
        &mut self,
        partitions: BTreeSet<TopicPartition>,
        start_deadline: Duration,
        clock: WallClock,
        deadline: &Deadline,
    ) -> BTreeMap<TopicPartition, Vec<(i64, Moment)>> {
        let partitions: Vec<_> = partitions.into_iter().collect();
        let mut ages: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for age in AGES.map(|thirds| start_deadline * thirds / 3) {
            self.counts.times += partitions.len() as u64;
            let kind = OffsetKind::At(clock.unix_millis_before(age));
            for (partition, offset) in self.cluster.offsets(&partitions, kind, deadline).await {
                if let Ok(offset) = offset {
                    let of_partition = ages.entry(partition).or_default();
                    of_partition.push((offset, clock.moment_before(age)));
                }
            }
        }
        ages
    }

    /// Keeps the values that later rounds compare with, for queries within [`FORGET_AFTER`].
    fn retain_readings(&mut self, queries: &[Query], ends: &Offsets, now: Moment) {
        self.last_requested
            .extend(queries.iter().map(|query| (query_key(query), now)));
        self.last_requested.retain(|_, at| now.since(*at) < FORGET_AFTER);
        let requested = &self.last_requested;
        let topics: BTreeSet<_> = requested.keys().map(|(_, topic)| topic).collect();
        self.topics.retain(|topic, _| topics.contains(topic));
        self.ends.retain(|partition, _| topics.contains(&partition.topic));
        self.groups.retain(|group, _| requested.contains_key(group));
        self.histories.retain(|group, _| requested.contains_key(group));
        let known = ends
            .iter()
            .filter_map(|(partition, end)| Some((partition.clone(), *end.as_ref().ok()?)));
        self.ends.extend(known);
    }
}

/// Refusals on partitions with lag: the metadata of an offset is about the message at that offset, if there is one.
fn current_holds(reports: &WorkerReports, offsets: &TopicOffsets) -> Vec<Hold> {
    let with_lag = offsets.partitions.iter().filter(|partition| {
        let (committed, end) = (&partition.committed, &partition.end);
        matches!((committed, end), (Ok(Some(committed)), Ok(end)) if committed < end)
    });
    reports.holds(with_lag.map(|partition| partition.partition))
}

/// The end offset for a group. A committed offset that is beyond it is valid up to the high watermark: a transaction is
/// open, and consumers that do not wait for its end are ahead. No message follows the offset for others yet.
fn end_for_group(
    end: Result<i64, ReadError>,
    committed: &Result<Option<i64>, ReadError>,
    high_watermark: Option<&Result<i64, ReadError>>,
) -> Result<i64, ReadError> {
    let end = end?;
    match (committed, high_watermark) {
        (Ok(Some(committed)), Some(high_watermark)) if *committed > end => {
            let is_valid = *committed <= high_watermark.clone()?;
            Ok(if is_valid { *committed } else { end })
        }
        _ => Ok(end),
    }
}

fn query_key(query: &Query) -> (Arc<str>, Arc<str>) {
    (Arc::clone(&query.group), Arc::clone(&query.topic))
}
