//! The source of lag: the embedded broker, or the brokers that a pool names, for which offsets are initialized first.

use std::sync::Arc;
use std::time::Duration;

use separation_contract::kafka::OffsetReset;
use separation_kafka::{Cluster, Deadline, ReadError};
use separation_operator::apply::offsets::{StableOffsets, to_adopt};
use separation_operator::decide::{Lag, LagReading, Moment, Queue};
use separation_operator::observe::{Adoption, FinishedTask, LagReader, Query, QueryResult, TopicOffsets};
use separation_operator::plan::RolePlan;

use super::manifest::ServerSource;

/// Time for one reading.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// How old the committed offsets of an idle group may be.
const COMMITTED_AGE: Duration = Duration::from_secs(10);

/// Lag of one role's group on its topic.
pub(super) struct LagSource {
    reader: LagReader,
    query: Query,
    /// Whether consecutive readings agree on the committed offsets, while offsets are not initialized. `None` on the
    /// embedded broker: its workers start at the first message.
    stable_offsets: Option<StableOffsets>,
}

/// A reading of a role's group.
pub(super) struct GroupOffsets {
    pub(super) lag: LagReading,
    /// When the messages arrived.
    pub(super) queue: Option<Queue>,
    /// Tasks that were completed since the last reading.
    pub(super) finished: Vec<FinishedTask>,
}

impl LagSource {
    /// Lag in `cluster`, which the pool names or this process provides.
    pub(super) fn new(cluster: Arc<Cluster>, kafka: ServerSource, role: &RolePlan) -> Self {
        let (policy, stable_offsets) = match kafka {
            ServerSource::Named => (role.initial_offset, Some(StableOffsets::default())),
            ServerSource::Embedded => (OffsetReset::Earliest, None),
        };
        Self {
            reader: LagReader::new(cluster, COMMITTED_AGE),
            query: Query {
                topic: role.topic.as_str().into(),
                group: role.group.as_str().into(),
                adoption: Adoption::pending(policy),
                start_deadline: role.policy.target.start_deadline(),
            },
            stable_offsets,
        }
    }

    /// Reads the lag; `now` is the time of the reading.
    pub(super) async fn read(&mut self, now: Moment) -> GroupOffsets {
        let deadline = Deadline::after(READ_TIMEOUT);
        let mut found = self
            .reader
            .read(std::slice::from_ref(&self.query), now, &deadline)
            .await;
        let Some(QueryResult {
            offsets,
            lag,
            queue,
            finished,
            ..
        }) = found.pop()
        else {
            return GroupOffsets::unknown("the lag was not read", now);
        };
        let known = GroupOffsets {
            lag: LagReading {
                at: now,
                lag: lag.lag,
            },
            queue,
            finished,
        };
        let (Some(offsets), None) = (offsets, &self.query.adoption.initialized_for) else {
            return known;
        };
        match self.adopt(offsets, now, &deadline).await {
            Ok(true) => known,
            Ok(false) => {
                let why = "offsets are not initialized yet: readings must agree for five seconds";
                GroupOffsets::unknown(why, now)
            }
            Err(why) => GroupOffsets::unknown(&format!("offsets are not initialized: {why}"), now),
        }
    }

    /// Initializes offsets once, unless workers start at the first message; returns whether workers may start.
    async fn adopt(
        &mut self,
        offsets: TopicOffsets,
        now: Moment,
        deadline: &Deadline,
    ) -> Result<bool, ReadError> {
        let Some(stable_offsets) = &mut self.stable_offsets else {
            return Ok(true);
        };
        let commits = to_adopt(&offsets, &self.query.adoption)?;
        if !commits.is_empty() {
            stable_offsets.record(Some(&offsets), now);
            if !stable_offsets.are_stable() {
                return Ok(false);
            }
            self.reader
                .cluster()
                .commit(&self.query.group, &self.query.topic, &commits, deadline)
                .await?;
            tracing::info!(group = %self.query.group, topic = %self.query.topic, "Offsets initialized");
        }
        self.query.adoption.initialized_for = Some(offsets.identity);
        Ok(true)
    }
}

impl GroupOffsets {
    fn unknown(why: &str, at: Moment) -> Self {
        let lag = Lag::Unknown { why: why.into() };
        Self {
            lag: LagReading { at, lag },
            queue: None,
            finished: Vec::new(),
        }
    }
}
