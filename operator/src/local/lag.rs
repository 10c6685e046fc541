//! Where lag comes from: the embedded broker, or the brokers that a pool names, with offsets initialised first.

use std::sync::Arc;
use std::time::Duration;

use super::broker::EmbeddedLag;
use crate::apply::offsets::{Steady, to_adopt};
use crate::decide::{Lag, LagReading, Moment};
use crate::kafka::{Cluster, Deadline, Unread};
use crate::observe::{Adoption, Found, LagReader, Query, TopicOffsets};
use crate::plan::RolePlan;
use anyhow::Context as _;

/// How long one reading may take.
const READ_WITHIN: Duration = Duration::from_secs(5);

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
    /// Whether readings in a row agree on what is committed, while offsets are not initialized.
    steady: Steady,
}

impl LagSource {
    /// Reads now.
    pub(super) async fn read(&mut self, now: Moment) -> LagReading {
        let lag = match self {
            Self::Embedded(lag) => {
                let lag = Arc::clone(lag);
                let read = tokio::task::spawn_blocking(move || lag.read()).await;
                let read = read.context("the reading ended early").and_then(|read| read);
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
    /// Lag of a role's group in its topic.
    pub(super) fn new(cluster: Arc<Cluster>, role: &RolePlan) -> Self {
        Self {
            reader: LagReader::new(cluster, COMMITTED_AGE),
            query: Query {
                topic: role.topic.as_str().into(),
                group: role.group.as_str().into(),
                adoption: Adoption::pending(role.adoption),
            },
            steady: Steady::default(),
        }
    }

    async fn read(&mut self, now: Moment) -> Lag {
        let deadline = Deadline::after(READ_WITHIN);
        let mut found = self
            .reader
            .read(std::slice::from_ref(&self.query), now, &deadline)
            .await;
        let Some(Found { offsets, lag, .. }) = found.pop() else {
            return Lag::Unknown {
                why: "nothing was read".into(),
            };
        };
        let (Some(offsets), None) = (offsets, &self.query.adoption.initialized_for) else {
            return lag.lag;
        };
        match self.adopt(offsets, now, &deadline).await {
            Ok(true) => lag.lag,
            Ok(false) => Lag::Unknown {
                why: "offsets are initialized when readings have agreed for five seconds".into(),
            },
            Err(why) => Lag::Unknown {
                why: format!("offsets are not initialized: {why}").into(),
            },
        }
    }

    /// Initializes offsets once; whether they are.
    async fn adopt(
        &mut self,
        offsets: TopicOffsets,
        now: Moment,
        deadline: &Deadline,
    ) -> Result<bool, Unread> {
        let commits = to_adopt(&offsets, &self.query.adoption)?;
        if !commits.is_empty() {
            self.steady.note(Some(&offsets), now);
            if !self.steady.is_long_enough() {
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
