//! Lag and members, read through one connection set per cluster and login.
//!
//! Calls block: they belong on threads of their own. Every call has a deadline, and one partition that cannot be read
//! leaves the others known.

mod assignment;
mod lag;
mod librdkafka;
mod login;
mod reader;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use separation_contract::kafka::connection;

use crate::decide::{GroupReading, Holds, Member, Moment};
use librdkafka::{Answer, Questions};

pub use lag::{Adoption, Flag, LagFound, PartitionOffsets, TopicOffsets, lag_of};
pub use librdkafka::Which;
pub use reader::{Found, LagReader, Query, QuestionCount};

/// Partitions in one question. A broker answers some hundreds in a few milliseconds, and one that fails loses no more.
const PARTITIONS_PER_QUESTION: usize = 500;

/// Groups that are asked about at once: each is one request to its coordinator.
const GROUPS_IN_FLIGHT: usize = 32;

/// Topics in one question.
const TOPICS_PER_QUESTION: usize = 200;

/// How a cluster is reached, with secrets read.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Brokers, `host:port`, comma separated.
    pub bootstrap_servers: String,
    /// What else librdkafka needs: protocol, certificates (PEM), login. Values may be secret.
    pub security: Vec<(&'static str, String)>,
}

impl std::fmt::Debug for ClusterSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterSettings")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .finish_non_exhaustive()
    }
}

/// Why something could not be read; cheap to copy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unread(pub Arc<str>);

impl Unread {
    pub(crate) fn new(why: impl Into<Arc<str>>) -> Self {
        Self(why.into())
    }

    fn no_answer(deadline: &Deadline) -> Self {
        Self::new(format!("no answer within {} s", deadline.length.as_secs_f32()))
    }
}

/// When a reading must have ended.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
    length: Duration,
}

impl Deadline {
    /// So long from now.
    pub fn after(length: Duration) -> Self {
        Self {
            at: Instant::now() + length,
            length,
        }
    }

    fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

/// A topic, as its cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its id: another one means that it was made anew.
    pub id: Arc<str>,
    /// Its partitions' numbers, ascending.
    pub partitions: Vec<i32>,
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
}

/// Connections to one cluster, with one login.
pub struct Cluster {
    client: BaseConsumer,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cluster")
    }
}

impl Cluster {
    /// Prepares connections; none is made before the first question.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn new(settings: &ClusterSettings) -> Result<Self, Unread> {
        let mut config = ClientConfig::new();
        let common = connection(&settings.bootstrap_servers, "separation-operator");
        for (name, value) in common.iter().chain(&settings.security) {
            config.set(*name, value);
        }
        // A consumer of a group that it never joins, for librdkafka looks into its own group when another's coordinator has
        // moved, and crashes where it has none (librdkafka's issue 5040).
        config.set("group.id", "separation-operator");
        let client = config.create().map_err(|error| Unread::new(error.to_string()))?;
        Ok(Self { client })
    }

    /// Serves the client's own events, such as brokers that went away: they would pile up. They are logged already.
    fn serve_events(&self) {
        // At most as many as there are brokers and a few more; the bound keeps a storm from holding up a reading.
        for _ in 0..1_000 {
            if self.client.poll(Duration::ZERO).is_none() {
                return;
            }
        }
    }

    /// Describes topics. Each is there by its name, described or not.
    pub fn topics(
        &self,
        names: &[Arc<str>],
        deadline: &Deadline,
    ) -> BTreeMap<Arc<str>, Result<Topic, Unread>> {
        let mut questions = Questions::new(&self.client);
        for (tag, chunk) in names.chunks(TOPICS_PER_QUESTION).enumerate() {
            questions.ask_topics(tag, chunk, deadline.left());
        }
        let silent = || Err(Unread::no_answer(deadline));
        let mut found: BTreeMap<_, _> = names.iter().map(|name| (Arc::clone(name), silent())).collect();
        while let Some((tag, answer)) = questions.next(deadline.left()) {
            match answer {
                Answer::Topics(topics) => {
                    for (name, topic) in topics {
                        if let Some(slot) = found.get_mut(&*name) {
                            *slot = topic;
                        }
                    }
                }
                Answer::Failed(why) => {
                    for name in names.chunks(TOPICS_PER_QUESTION).nth(tag).into_iter().flatten() {
                        found.insert(Arc::clone(name), Err(why.clone()));
                    }
                }
                Answer::Offsets(_) => {}
            }
        }
        found
    }

    /// First or next offsets of partitions, the latter as readers of committed records see them. What has no answer is
    /// not there by mistake: it is an error.
    pub fn offsets(
        &self,
        partitions: &[TopicPartition],
        which: Which,
        deadline: &Deadline,
    ) -> BTreeMap<TopicPartition, Result<i64, Unread>> {
        let mut questions = Questions::new(&self.client);
        for (tag, chunk) in partitions.chunks(PARTITIONS_PER_QUESTION).enumerate() {
            questions.ask_offsets(tag, chunk, which, deadline.left());
        }
        let mut found = BTreeMap::new();
        while let Some((tag, answer)) = questions.next(deadline.left()) {
            let chunk = partitions
                .chunks(PARTITIONS_PER_QUESTION)
                .nth(tag)
                .unwrap_or_default();
            note_offsets(&mut found, chunk, answer);
        }
        complete(&mut found, partitions, deadline);
        found
    }

    /// Committed offsets of groups: per group, those of its partitions; none where it never committed.
    pub fn committed(
        &self,
        groups: &[(Arc<str>, Vec<TopicPartition>)],
        deadline: &Deadline,
    ) -> Vec<BTreeMap<TopicPartition, Result<Option<i64>, Unread>>> {
        let mut found: Vec<BTreeMap<TopicPartition, Result<i64, Unread>>> =
            vec![BTreeMap::new(); groups.len()];
        let mut questions = Questions::new(&self.client);
        let mut waiting = groups.iter().enumerate();
        for (tag, (group, partitions)) in waiting.by_ref().take(GROUPS_IN_FLIGHT) {
            questions.ask_committed(tag, group, partitions);
        }
        while let Some((tag, answer)) = questions.next(deadline.left()) {
            if let (Some(found), Some((_, partitions))) = (found.get_mut(tag), groups.get(tag)) {
                note_offsets(found, partitions, answer);
            }
            if let Some((tag, (group, partitions))) = waiting.next() {
                questions.ask_committed(tag, group, partitions);
            }
        }
        let none_below_zero =
            |offset: Result<i64, Unread>| offset.map(|offset| (offset >= 0).then_some(offset));
        let each = found.into_iter().zip(groups).map(|(mut found, (_, partitions))| {
            complete(&mut found, partitions, deadline);
            found
                .into_iter()
                .map(|(partition, offset)| (partition, none_below_zero(offset)))
                .collect()
        });
        each.collect()
    }

    /// Members of a group, and what they own of `topic`.
    pub fn group(&self, group: &str, topic: &str, at: Moment, deadline: &Deadline) -> GroupReading {
        let unknown = |why: String| GroupReading::Unknown { at, why: why.into() };
        let list = match self.client.fetch_group_list(Some(group), deadline.left()) {
            Ok(list) => list,
            Err(error) => return unknown(error.to_string()),
        };
        let Some(found) = list.groups().iter().find(|found| found.name() == group) else {
            // A group that nobody has joined yet.
            return GroupReading::Stable {
                at,
                members: Vec::new(),
            };
        };
        match found.state() {
            "Empty" | "Dead" => GroupReading::Stable {
                at,
                members: Vec::new(),
            },
            "PreparingRebalance" | "CompletingRebalance" => GroupReading::Rebalancing { at },
            "Stable" => {
                let members = found.members().iter().map(|member| {
                    let owned = assignment::partitions_of(member.assignment().unwrap_or_default(), topic)?;
                    Some(Member {
                        pod: member.client_id().into(),
                        holds: Holds::Partitions(owned),
                    })
                });
                match members.collect::<Option<Vec<_>>>() {
                    Some(members) => GroupReading::Stable { at, members },
                    None => unknown(format!("a member of {group} has an assignment of another kind")),
                }
            }
            other => unknown(format!("the group is in the unknown state {other}")),
        }
    }
}

fn note_offsets(
    found: &mut BTreeMap<TopicPartition, Result<i64, Unread>>,
    asked: &[TopicPartition],
    answer: Answer,
) {
    match answer {
        Answer::Offsets(offsets) => found.extend(offsets),
        Answer::Failed(why) => {
            found.extend(
                asked
                    .iter()
                    .map(|partition| (partition.clone(), Err(why.clone()))),
            );
        }
        Answer::Topics(_) => {}
    }
}

/// A partition that no answer named is unknown, not empty.
fn complete(
    found: &mut BTreeMap<TopicPartition, Result<i64, Unread>>,
    asked: &[TopicPartition],
    deadline: &Deadline,
) {
    for partition in asked {
        found
            .entry(partition.clone())
            .or_insert_with(|| Err(Unread::no_answer(deadline)));
    }
}
