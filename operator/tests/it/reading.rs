//! A reader of a real Kafka, for tests.

use std::sync::Arc;
use std::time::Duration;

use separation_operator::decide::{GroupReading, Lag, Moment, Work};
use separation_operator::observe::kafka::{
    Adoption, ClusterSettings, Deadline, Found, LagReader, Query, QuestionCount,
};
use separation_testbed::{Kafka, eventually};

pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// A reader that tests ask from async code; its clock is moved by hand.
pub(crate) struct Reading {
    reader: Option<LagReader>,
    now: Moment,
}

impl Reading {
    pub(crate) fn of(bootstrap: &str) -> Self {
        Self::with(&plain(bootstrap))
    }

    pub(crate) fn with(settings: &ClusterSettings) -> Self {
        Self {
            reader: Some(LagReader::new(settings.clone()).expect("settings")),
            now: Moment::default(),
        }
    }

    pub(crate) async fn read_within(&mut self, queries: &[Query], deadline: Duration) -> Vec<Found> {
        let mut reader = self.reader.take().expect("one reading at a time");
        let (queries, now) = (queries.to_vec(), self.now);
        let asked = tokio::task::spawn_blocking(move || {
            let found = reader.read(&queries, now, &Deadline::after(deadline));
            (reader, found)
        });
        let (reader, found) = asked.await.expect("no panic");
        self.reader = Some(reader);
        self.now = self.now + Duration::from_secs(2);
        found
    }

    pub(crate) async fn read(&mut self, query: &Query) -> Found {
        // The coordinator of a broker that has just started reads its offsets first.
        eventually("an answer of the coordinator", DEADLINE, async || {
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

    pub(crate) fn asked(&self) -> QuestionCount {
        self.reader.as_ref().expect("no reading now").asked()
    }

    /// Long enough that descriptions and idle groups are read anew.
    pub(crate) fn later(&mut self) {
        self.now = self.now + Duration::from_secs(60);
    }

    pub(crate) async fn group(&mut self, query: &Query) -> GroupReading {
        let reader = self.reader.take().expect("one reading at a time");
        let (query, now) = (query.clone(), self.now);
        let asked = tokio::task::spawn_blocking(move || {
            let reading = reader
                .cluster()
                .group(&query.group, &query.topic, now, &Deadline::after(DEADLINE));
            (reader, reading)
        });
        let (reader, reading) = asked.await.expect("no panic");
        self.reader = Some(reader);
        reading
    }
}

pub(crate) fn query(topic: &str) -> Query {
    Query {
        topic: topic.into(),
        group: format!("{topic}-workers").into(),
        adoption: Adoption::FromEarliest,
    }
}

pub(crate) fn adopted(query: &Query, found: &Found) -> Query {
    let topic_id = Arc::clone(&found.topic.as_ref().expect("a topic").id);
    Query {
        adoption: Adoption::Done { topic_id },
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
    Lag::Known(Work::of(messages))
}

pub(crate) fn plain(bootstrap: &str) -> ClusterSettings {
    ClusterSettings {
        bootstrap_servers: bootstrap.to_owned(),
        security: Vec::new(),
    }
}
