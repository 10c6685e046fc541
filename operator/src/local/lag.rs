//! The source of lag: the embedded broker, or the brokers that a pool names, for which offsets are initialized first.

use std::sync::Arc;
use std::time::Duration;

use super::broker::EmbeddedLag;
use crate::apply::offsets::{StableOffsets, to_adopt};
use crate::decide::{Lag, LagReading, Moment};
use crate::kafka::{Cluster, Deadline, ReadError};
use crate::observe::{Adoption, LagReader, Query, QueryResult, TopicOffsets};
use crate::plan::RolePlan;
use anyhow::Context as _;

/// Time for one reading.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// How old the committed offsets of an idle group may be.
const COMMITTED_AGE: Duration = Duration::from_secs(10);

/// Lag of one role.
pub(super) enum LagSource {
    Embedded(Arc<EmbeddedLag>),
    Cluster(Box<ClusterLag>),
}

/// Lag of one role on brokers that the pool names.
pub(super) struct ClusterLag {
    reader: LagReader,
    query: Query,
    /// Whether consecutive readings agree on the committed offsets, while offsets are not initialized.
    stable_offsets: StableOffsets,
}

impl LagSource {
    /// Reads the lag; `now` is the time of the reading.
    pub(super) async fn read(&mut self, now: Moment) -> LagReading {
        let lag = match self {
            Self::Embedded(lag) => {
                let lag = Arc::clone(lag);
                let read = tokio::task::spawn_blocking(move || lag.read()).await;
                let read = read.context("the reading was aborted").and_then(|read| read);
                read.map(Lag::Known).unwrap_or_else(|error| Lag::Unknown {
                    why: format!("{error:#}").into(),
                })
            }
            Self::Cluster(lag) => lag.read(now).await,
        };
        LagReading { at: now, lag }
    }
}

impl ClusterLag {
    /// Lag of a role's group on its topic.
    pub(super) fn new(cluster: Arc<Cluster>, role: &RolePlan) -> Self {
        Self {
            reader: LagReader::new(cluster, COMMITTED_AGE),
            query: Query {
                topic: role.topic.as_str().into(),
                group: role.group.as_str().into(),
                adoption: Adoption::pending(role.adoption),
            },
            stable_offsets: StableOffsets::default(),
        }
    }

    async fn read(&mut self, now: Moment) -> Lag {
        let deadline = Deadline::after(READ_TIMEOUT);
        let mut found = self
            .reader
            .read(std::slice::from_ref(&self.query), now, &deadline)
            .await;
        let Some(QueryResult { offsets, lag, .. }) = found.pop() else {
            return Lag::Unknown {
                why: "the lag was not read".into(),
            };
        };
        let (Some(offsets), None) = (offsets, &self.query.adoption.initialized_for) else {
            return lag.lag;
        };
        match self.adopt(offsets, now, &deadline).await {
            Ok(true) => lag.lag,
            Ok(false) => Lag::Unknown {
                why: "offsets are not initialized yet: readings must agree for five seconds".into(),
            },
            Err(why) => Lag::Unknown {
                why: format!("offsets are not initialized: {why}").into(),
            },
        }
    }

    /// Initializes offsets once; returns whether they are initialized.
    async fn adopt(
        &mut self,
        offsets: TopicOffsets,
        now: Moment,
        deadline: &Deadline,
    ) -> Result<bool, ReadError> {
        let commits = to_adopt(&offsets, &self.query.adoption)?;
        if !commits.is_empty() {
            self.stable_offsets.record(Some(&offsets), now);
            if !self.stable_offsets.are_stable() {
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
