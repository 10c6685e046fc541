//! A reader of a real Kafka, for tests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use separation_contract::kafka::OffsetReset;
use separation_kafka::{Cluster, ClusterSettings, Deadline, Group};
use separation_operator::decide::{GroupReading, Lag, LagByPartition, Moment};
use separation_operator::observe::{Adoption, LagReader, Query, QueryResult, RequestCounts, read_groups};
use separation_testbed::{Kafka, eventually};

pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// The operator's default.
pub(crate) const COMMITTED_AGE: Duration = Duration::from_secs(30);

/// A reader with a manual clock.
pub(crate) struct Reading {
    reader: LagReader,
    now: Moment,
    real_time: Option<Instant>,
}

impl Reading {
    pub(crate) fn of(bootstrap: &str) -> Self {
        Self::with(&plain(bootstrap))
    }

    pub(crate) fn with(settings: &ClusterSettings) -> Self {
        Self {
            reader: LagReader::new(Arc::new(Cluster::new(settings).expect("settings")), COMMITTED_AGE),
            now: Moment::default(),
            real_time: None,
        }
    }

    /// Uses real time from now on, if the brokers need time.
    pub(crate) fn in_real_time(mut self) -> Self {
        self.real_time = Some(Instant::now());
        self
    }

    pub(crate) async fn read_within(&mut self, queries: &[Query], deadline: Duration) -> Vec<QueryResult> {
        let found = self
            .reader
            .read(queries, self.now, &Deadline::after(deadline))
            .await;
        self.now = match self.real_time {
            Some(started) => Moment::default() + started.elapsed(),
            None => self.now + Duration::from_secs(2),
        };
        found
    }

    /// One round.
    pub(crate) async fn read_once(&mut self, query: &Query) -> QueryResult {
        self.read_within(std::slice::from_ref(query), DEADLINE)
            .await
            .remove(0)
    }

    pub(crate) async fn read(&mut self, query: &Query) -> QueryResult {
        // The coordinator of a broker that has just started loads its offsets first.
        eventually("a response of the coordinator", DEADLINE, async || {
            let found = self
                .read_within(std::slice::from_ref(query), DEADLINE)
                .await
                .remove(0);
            let loading = |why: &str| why.to_lowercase().contains("coordinator");
            match &found.lag.lag {
                Lag::Unknown { why } | Lag::Partial { why, .. } if loading(why) => None,
                _ => Some(found),
            }
        })
        .await
    }

    /// The time of the next reading.
    pub(crate) fn now(&self) -> Moment {
        self.now
    }

    pub(crate) fn request_counts(&self) -> RequestCounts {
        self.reader.request_counts()
    }

    /// Long enough that descriptions and idle groups are read again.
    pub(crate) fn later(&mut self) {
        self.now = self.now + Duration::from_secs(60);
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        self.reader.cluster()
    }

    /// The group reading that a decision gets, once the group's coordinator answers.
    pub(crate) async fn group(&mut self, query: &Query) -> GroupReading {
        eventually("a response of the coordinator", DEADLINE, async || {
            let requested = [(Arc::clone(&query.group), Arc::clone(&query.topic))];
            let deadline = Deadline::after(DEADLINE);
            let reading = read_groups(self.cluster(), &requested, self.now, &deadline)
                .await
                .remove(0);
            (!matches!(reading, GroupReading::Unknown { .. })).then_some(reading)
        })
        .await
    }

    /// The query's group as Kafka describes it.
    pub(crate) async fn described(&self, query: &Query) -> Group {
        let groups = [Arc::clone(&query.group)];
        let deadline = Deadline::after(DEADLINE);
        let mut described = self.cluster().describe_groups(&groups, &deadline).await;
        described.remove(0).expect("a group")
    }
}

pub(crate) fn query(topic: &str) -> Query {
    Query {
        topic: topic.into(),
        group: format!("{topic}-workers").into(),
        adoption: Adoption::pending(OffsetReset::Earliest),
        start_deadline: None,
    }
}

pub(crate) fn adopted(query: &Query, found: &QueryResult) -> Query {
    let topic = found.topic.as_ref().expect("a topic").identity.clone();
    Query {
        adoption: Adoption {
            initialized_for: Some(topic),
            ..query.adoption
        },
        ..query.clone()
    }
}

pub(crate) async fn publish(kafka: &Kafka, topic: &str, partition: i32, count: usize) {
    for _ in 0..count {
        kafka
            .publish_to(topic, partition, "key", "value")
            .await
            .expect("published");
    }
}

pub(crate) fn known<const N: usize>(messages: [u64; N]) -> Lag {
    Lag::Known(LagByPartition::from_messages(messages))
}

pub(crate) fn plain(bootstrap: &str) -> ClusterSettings {
    ClusterSettings {
        client_id: "tests".to_owned(),
        bootstrap_servers: bootstrap.to_owned(),
        tls: None,
        sasl: None,
    }
}
