//! A small client of one Kafka cluster: offsets, groups and topic descriptions. It creates topics, and
//! neither consumes nor produces. It also fetches the tokens that any Kafka client authenticates with ([`TokenCache`]), and checks
//! whether credentials suffice ([`check_access`]).
//! It imports no other crate of this workspace but `separation-contract`.
//!
//! One [`Cluster`] serves all callers with the same servers and credentials, over one connection per broker. No request
//! outlives its [`Deadline`]. A broker that is unreachable, stalled or sends malformed responses makes unknown only what
//! that broker alone could have answered.

mod access;
mod address;
mod assignment;
mod batches;
mod broker;
mod check;
mod cluster;
mod connection;
mod connector;
mod coordinators;
mod creation;
mod error;
mod groups;
mod handshake;
mod limits;
mod members;
mod offsets;
mod protocol;
mod routes;
mod sasl;
mod scram;
mod settings;
mod shape;
mod tls;
mod tokens;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use access::{Operation, Operations};
pub use address::bootstrap_hosts;
pub use check::{NeededTopic, check_access};
pub use cluster::Cluster;
pub use error::{ReadError, ReadErrorKind};
pub use groups::{Commit, GroupCommits};
pub use members::{Group, GroupMember, GroupState};
pub use offsets::OffsetKind;
pub use settings::{
    ClientCertificate, ClientCredentials, ClusterSettings, Password, Sasl, SecretText, Tls, TokenOrigin,
    TokenSettings,
};
pub use tokens::{
    FetchToken, Token, TokenCache, aws_http_client, check_token_endpoint, fetcher, msk_token,
    web_identity_credentials,
};

/// The instant by which a reading must end.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
}

impl Deadline {
    /// `length` from now.
    pub fn after(length: Duration) -> Self {
        Self {
            at: Instant::now() + length,
        }
    }

    /// At the given instant.
    pub fn until(at: Instant) -> Self {
        Self { at }
    }

    /// The instant itself.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// The remaining time; zero once it has passed.
    pub fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

/// Identifies a topic by ids that never change and are never reused. An id that brokers do not report is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicIdentity {
    /// The cluster's id.
    pub cluster_id: Option<Arc<str>>,
    /// The topic's id: a different one in the same cluster means that the topic was deleted and recreated.
    pub topic_id: Option<Arc<str>>,
}

/// A topic's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// The topic's ids.
    pub identity: TopicIdentity,
    /// Partition numbers, ascending.
    pub partitions: Vec<i32>,
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
}
