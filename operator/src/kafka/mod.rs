//! A small client of one Kafka cluster: offsets, groups and descriptions, and nothing that consumes or produces.
//!
//! One [`Cluster`] serves every pool with the same servers and login, over one connection per broker. Nothing here
//! decides, and no question outlives its [`Deadline`]. What a broker does wrong, being away, silent or talking nonsense,
//! leaves unknown what that broker alone could have answered, and nothing else.

mod assignment;
mod broker;
mod cluster;
mod connection;
mod coordinators;
mod groups;
mod limits;
mod login;
mod offsets;
mod protocol;
mod routes;
mod scram;
mod settings;
mod shape;
mod tls;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use cluster::Cluster;
pub use groups::{Commit, Group, GroupCommits, GroupMember, GroupState};
pub use offsets::Which;
pub use settings::{ClientCertificate, ClusterSettings, Sasl, SecretText, Tls};

/// The longest text of an [`Unread`], in bytes: parts of it come from brokers, and it ends in a pool's status.
const LONGEST_WHY_BYTES: usize = 500;

/// Why something could not be read; cheap to copy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unread(pub Arc<str>, pub Cause);

/// What kind of failure an [`Unread`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No broker answers, or the one that could is not available.
    Unreachable,
    /// Credentials are refused, or the user is not allowed to ask.
    Refused,
    /// Anything else.
    Other,
}

impl Unread {
    pub(crate) fn new(why: impl AsRef<str>) -> Self {
        Self::because(why, Cause::Other)
    }

    pub(crate) fn unreachable(why: impl AsRef<str>) -> Self {
        Self::because(why, Cause::Unreachable)
    }

    pub(crate) fn refused(why: impl AsRef<str>) -> Self {
        Self::because(why, Cause::Refused)
    }

    pub(crate) fn because(why: impl AsRef<str>, cause: Cause) -> Self {
        let why = why.as_ref();
        if why.len() <= LONGEST_WHY_BYTES {
            return Self(why.into(), cause);
        }
        let end = why.floor_char_boundary(LONGEST_WHY_BYTES);
        Self(format!("{}…", &why[..end]).into(), cause)
    }

    /// What a broker answered in place of an answer.
    fn said(code: i16) -> Self {
        Self::because(protocol::meaning(code), protocol::cause(code))
    }
}

/// When a reading must have ended.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
}

impl Deadline {
    /// So long from now.
    pub fn after(length: Duration) -> Self {
        Self {
            at: Instant::now() + length,
        }
    }

    /// At an instant.
    pub fn until(at: Instant) -> Self {
        Self { at }
    }

    /// The instant itself.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// The time until then.
    pub fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

/// A topic of a cluster, by ids that never change and are never used again. What brokers do not report is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicIdentity {
    /// The cluster's id.
    pub cluster_id: Option<Arc<str>>,
    /// The topic's id: another one in the same cluster means that the topic was deleted and created again.
    pub topic_id: Option<Arc<str>>,
}

/// A topic, as its cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Which topic it is.
    pub identity: TopicIdentity,
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
