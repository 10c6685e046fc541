//! Where lag comes from: the embedded broker, or the brokers that a pool names, with offsets initialised first.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use separation_contract::kafka::OffsetReset;

use super::broker::EmbeddedLag;
use crate::apply::offsets::to_adopt;
use crate::decide::{Lag, LagReading, Moment};
use crate::kafka::{Cluster, Deadline, Unread};
use crate::observe::{Adoption, Found, LagReader, Query, TopicOffsets};
use crate::plan::RolePlan;

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
    policy: OffsetReset,
    /// What was read last, while offsets are not initialised: twice the same is believed.
    before: Option<TopicOffsets>,
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
                adoption: match role.adoption {
                    OffsetReset::Latest => Adoption::FromLatest,
                    OffsetReset::Earliest => Adoption::FromEarliest,
                },
            },
            policy: role.adoption,
            before: None,
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
        let (Some(offsets), false) = (offsets, matches!(self.query.adoption, Adoption::Done { .. })) else {
            return lag.lag;
        };
        match self.adopt(offsets, &deadline).await {
            Ok(true) => lag.lag,
            Ok(false) => Lag::Unknown {
                why: "offsets are read once more before they are initialised".into(),
            },
            Err(why) => Lag::Unknown {
                why: format!("offsets are not initialised: {why}").into(),
            },
        }
    }

    /// Initialises offsets once; whether they are.
    async fn adopt(&mut self, offsets: TopicOffsets, deadline: &Deadline) -> Result<bool, Unread> {
        let commits = to_adopt(&offsets, &self.query.adoption, self.policy)?;
        let topic_id = Arc::clone(&offsets.topic_id);
        if !commits.is_empty() {
            // A coordinator that was just elected may know of no offsets yet.
            if self.before.as_ref() != Some(&offsets) {
                self.before = Some(offsets);
                return Ok(false);
            }
            self.reader
                .cluster()
                .commit(&self.query.group, &self.query.topic, &commits, deadline)
                .await?;
            tracing::info!(group = %self.query.group, topic = %self.query.topic, "Offsets initialised");
        }
        self.query.adoption = Adoption::Done { topic_id };
        Ok(true)
    }
}
