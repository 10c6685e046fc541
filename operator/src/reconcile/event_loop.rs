//! The event loop: batches events, follows the leadership, and has the touched pools reconciled. Each turn applies a bounded
//! number of events, so that neither watches nor pools wait for the other for long.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::leader::{Leader, LeaderEvent};
use super::operator::Operator;
use crate::clock::Clock;
use crate::metrics::Leads;
use crate::plan::PoolId;
use crate::watch;
use crate::watch::cache::Cache;

/// The most queued watch events; watches block when the queue is full. A list of a thousand pools with their
/// Deployments and pods is about ten thousand events.
const EVENT_QUEUE_SIZE: usize = 1_024;

/// The most events applied before pools are reconciled: many events concern the same pool.
const MAX_EVENTS_PER_TURN: usize = 256;

/// How often work that is due by time is checked: retries and Secrets.
const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// The kinds that must be listed before the operator is ready.
pub const WATCHED_KINDS: &str = "pools, Deployments, pods, Services and service accounts";

/// A watch task ended before shutdown, so its objects would no longer be updated.
#[derive(Debug, thiserror::Error)]
#[error("a watch ended: {0}")]
pub struct WatchEnded(String);

impl Operator {
    /// Runs until `stop`, then waits for writes in flight.
    ///
    /// # Errors
    /// When a watch task ended. The process must then end, because its cache would never be updated again.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), WatchEnded> {
        let (event_sender, mut events) = mpsc::channel(EVENT_QUEUE_SIZE);
        let mut watches = JoinSet::new();
        for scope in &self.scopes {
            let follow = watch::follow(
                self.client.clone(),
                scope.clone(),
                event_sender.clone(),
                self.metrics.clone(),
            );
            watches.spawn(follow);
        }
        let clock = Clock::start();
        let mut cache = Cache::new(self.scopes.iter().cloned());
        let mut leader: Option<Leader> = None;
        let mut leadership = self.leadership.clone();
        let mut tick = tokio::time::interval(TICK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(stop);
        let mut ended = Ok(());
        loop {
            let mut touched = BTreeSet::new();
            tokio::select! {
                () = &mut stop => break,
                Some(watch) = watches.join_next() => {
                    let why = watch.err().map_or_else(|| "it returned".to_owned(), |error| error.to_string());
                    ended = Err(WatchEnded(why));
                    break;
                }
                change = leadership.changed() => {
                    if change.is_err() {
                        break;
                    }
                }
                event = events.recv() => match event {
                    Some((scope, event)) => touched.extend(cache.apply(&scope, event)),
                    None => break,
                },
                event = next(&mut leader) => if let Some(leader) = &mut leader {
                    touched.extend(leader.apply(event, &mut cache));
                },
                _ = tick.tick() => if let Some(leader) = &mut leader {
                    touched.extend(leader.due());
                },
            }
            for _ in 0..MAX_EVENTS_PER_TURN {
                let Ok((scope, event)) = events.try_recv() else {
                    break;
                };
                touched.extend(cache.apply(&scope, event));
            }
            self.follow_leadership(&mut leader, &cache, clock, &mut touched);
            if let Some(leader) = &mut leader {
                leader.reconcile(touched, &cache);
            }
            self.heartbeat.beat();
            if cache.is_listed() {
                self.readiness.record_listed(WATCHED_KINDS);
            }
        }
        if let Some(leader) = leader {
            leader.finish(self.last_writes).await;
        }
        ended
    }

    /// Starts acting when this replica leads and all kinds were listed, and stops when it no longer leads.
    fn follow_leadership(
        &self,
        leader: &mut Option<Leader>,
        cache: &Cache,
        clock: Clock,
        touched: &mut BTreeSet<Arc<PoolId>>,
    ) {
        let term = self.leadership.term(Instant::now());
        self.metrics
            .leads(if term.is_some() { Leads::Yes } else { Leads::No });
        if leader.as_ref().is_some_and(|leader| Some(leader.term()) != term) {
            tracing::warn!("No longer leading: writes have stopped");
            *leader = None;
        }
        if let (None, Some(term), true) = (&leader, term, cache.is_listed()) {
            tracing::info!(pools = cache.pools().count(), "Leading");
            *leader = Some(Leader::new(self, term, clock));
            touched.extend(cache.pools().map(|(id, _)| Arc::clone(id)));
        }
    }
}

/// The next event while this replica leads; pending while it does not.
async fn next(leader: &mut Option<Leader>) -> LeaderEvent {
    match leader {
        Some(leader) => leader.next().await,
        None => std::future::pending().await,
    }
}
