//! Where everything is joined: what is seen, what is decided, what is written.
//!
//! One task holds all that is known and runs no request itself: watches, readings of Kafka and answers to writes come in
//! as events, and what is to be done goes out as jobs. It acts on what is, not on why it was woken, so that an event that
//! is lost or comes twice changes nothing. While another process leads it only listens.

mod carry_out;
mod clusters;
mod conflicts;
mod group_offsets;
mod jobs;
mod leading;
mod pool;
mod retry;
mod role;
mod rollout;
mod secrets;
mod step;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::events::EventWriter;
use crate::health::{Heartbeat, Readiness};
use crate::lease::Leadership;
use crate::metrics::{Leads, Metrics};
use crate::plan::PoolId;
use crate::settings::WorkerSettings;
use crate::watch;
use crate::watch::world::{Scope, World};
use leading::Leading;

/// Events that wait to be taken in. Watches are held up when there are more: a list of a thousand pools with their
/// Deployments and pods is some ten thousand.
const EVENTS: usize = 1_024;

/// Events taken in before anything is worked on: many are about the same pool.
const EVENTS_AT_ONCE: usize = 256;

/// How often what waits for time alone is looked at: retries, secrets.
const TICK: Duration = Duration::from_secs(1);

/// What the operator waits for before it is ready.
pub const CLUSTER: &str = "pools, Deployments and pods";

/// How old things may be that are read again only to notice what somebody did to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refresh {
    /// A secret: one that was rotated is taken up within this.
    pub secrets: Duration,
    /// Committed offsets of a group for which nothing waits: one that was rewound is noticed within twice this.
    pub offsets: Duration,
}

/// What the operator works with.
pub struct Operator {
    /// A client whose writes are refused once the lease's deadline has passed.
    pub client: Client,
    /// Who leads.
    pub leadership: Leadership,
    /// What is watched: namespaces, or everything.
    pub scopes: Vec<Scope>,
    /// What is added to every pool.
    pub workers: WorkerSettings,
    /// How long writes that were begun may take once the operator is told to stop.
    pub last_writes: Duration,
    /// How long offsets of an idle group are left before they are committed again.
    pub keep_offsets_after: Duration,
    /// How old things may be that are read again only to notice what somebody did to them.
    pub refresh: Refresh,
    /// What takes events for people.
    pub events: EventWriter,
    /// What is counted and measured.
    pub metrics: Metrics,
    /// Shows that this runs.
    pub heartbeat: Heartbeat,
    /// Told once everything was seen.
    pub readiness: Readiness,
}

/// A task of the operator ended although it must run until the end: nothing is seen any more of what it followed.
#[derive(Debug, thiserror::Error)]
#[error("a watch ended: {0}")]
pub struct WatchEnded(String);

impl Operator {
    /// Works until `stop`, then lets writes that were begun end.
    ///
    /// # Errors
    /// When a watch panicked. The process must end then: it would act on what it last saw, for ever.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), WatchEnded> {
        let (tell, mut told) = mpsc::channel(EVENTS);
        let mut watches = JoinSet::new();
        for scope in &self.scopes {
            let follow = watch::follow(
                self.client.clone(),
                scope.clone(),
                tell.clone(),
                self.metrics.clone(),
            );
            watches.spawn(follow);
        }
        let clock = Clock::start();
        let mut world = World::new(self.scopes.iter().cloned());
        let mut leading: Option<Leading> = None;
        let mut leadership = self.leadership.clone();
        let mut tick = tokio::time::interval(TICK);
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
                event = told.recv() => match event {
                    Some((scope, told)) => touched.extend(world.take(&scope, told)),
                    None => break,
                },
                event = next(&mut leading) => if let Some(leading) = &mut leading {
                    touched.extend(leading.take(event, &mut world));
                },
                _ = tick.tick() => if let Some(leading) = &mut leading {
                    touched.extend(leading.due());
                },
            }
            for _ in 0..EVENTS_AT_ONCE {
                let Ok((scope, event)) = told.try_recv() else {
                    break;
                };
                touched.extend(world.take(&scope, event));
            }
            self.follow_leadership(&mut leading, &world, clock, &mut touched);
            if let Some(leading) = &mut leading {
                leading.work_on(touched, &world);
            }
            self.heartbeat.beat();
            if world.is_whole() {
                self.readiness.seen(CLUSTER);
            }
        }
        if let Some(leading) = leading {
            leading.finish(self.last_writes).await;
        }
        ended
    }

    /// Begins to act when we lead and everything was seen, and ceases when we do not.
    fn follow_leadership(
        &self,
        leading: &mut Option<Leading>,
        world: &World,
        clock: Clock,
        touched: &mut BTreeSet<Arc<PoolId>>,
    ) {
        let term = self.leadership.term(Instant::now());
        self.metrics
            .leads(if term.is_some() { Leads::Yes } else { Leads::No });
        if leading
            .as_ref()
            .is_some_and(|leading| Some(leading.term()) != term)
        {
            tracing::warn!("No longer leading: nothing is written any more");
            *leading = None;
        }
        if let (None, Some(term), true) = (&leading, term, world.is_whole()) {
            tracing::info!(pools = world.pools().count(), "Leading");
            *leading = Some(Leading::new(self, term, clock));
            touched.extend(world.pools().map(|(id, _)| Arc::clone(id)));
        }
    }
}

/// The next event of our own doing; never, while another process leads.
async fn next(leading: &mut Option<Leading>) -> leading::Event {
    match leading {
        Some(leading) => leading.next().await,
        None => std::future::pending().await,
    }
}
