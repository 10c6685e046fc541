//! The leader's state: events in, jobs out. All of this state is dropped with the lease; the next leader
//! starts from the cluster and Kafka, and its stabilization begins again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::api_writer::ApiWriter;
use super::clusters::Clusters;
use super::conflicts;
use super::conflicts::GroupUses;
use super::jobs::{JobResult, Jobs, PoolUid};
use super::operator::Operator;
use super::pool::{ClusterAccess, PoolState, wall_clock_time};
use crate::clock::Clock;
use crate::decide::Moment;
use crate::events::EventWriter;
use crate::lease::Term;
use crate::metrics::Metrics;
use crate::observe::poller::Polled;
use crate::plan::PoolId;
use crate::settings::WorkerSettings;
use crate::watch::cache::{Cache, PoolSnapshot, RoleKey};

/// The most queued rounds of readings: one for each of some clusters.
const READING_QUEUE_SIZE: usize = 8;

/// An event of the leader.
pub(super) enum LeaderEvent {
    /// A round of readings of a cluster.
    Polled(Vec<Polled<RoleKey>>),
    /// A job ended.
    JobEnded(PoolUid, Box<JobResult>),
}

/// The leader's state.
pub(super) struct Leader {
    term: Term,
    pub(super) clock: Clock,
    pub(super) workers: Arc<WorkerSettings>,
    pub(super) keep_offsets_after: Duration,
    pub(super) metrics: Metrics,
    pub(super) events: EventWriter,
    pub(super) jobs: Jobs,
    pub(super) clusters: Clusters,
    pub(super) pools: HashMap<Arc<PoolId>, PoolState>,
    /// Roles that are held because another pool uses their group, with the reason.
    pub(super) held: HashMap<RoleKey, Arc<str>>,
    /// The inputs that `held` was computed from.
    held_inputs: HashMap<Arc<PoolId>, HeldInputs>,
    pub(super) send_polled: mpsc::Sender<Vec<Polled<RoleKey>>>,
    polled: mpsc::Receiver<Vec<Polled<RoleKey>>>,
}

/// The inputs that can change which pools share a group: a pool's uid, its generation, and the clusters that it uses
/// its groups in, with whether that is proven. Whether it has initialized offsets matters only when one of these changes,
/// because a held role initializes none.
type HeldInputs = (Arc<str>, Option<i64>, [Option<(Arc<str>, bool)>; 2]);

impl Leader {
    pub(super) fn new(operator: &Operator, term: Term, clock: Clock) -> Self {
        let (send_polled, polled) = mpsc::channel(READING_QUEUE_SIZE);
        let writer = ApiWriter::new(operator.client.clone(), operator.leadership.clone());
        Self {
            term,
            clock,
            workers: Arc::new(operator.workers.clone()),
            keep_offsets_after: operator.keep_offsets_after,
            metrics: operator.metrics.clone(),
            events: operator.events.clone(),
            jobs: Jobs::new(writer.clone(), operator.metrics.clone()),
            clusters: Clusters::new(operator.refresh, operator.identity.clone(), writer),
            pools: HashMap::new(),
            held: HashMap::new(),
            held_inputs: HashMap::new(),
            send_polled,
            polled,
        }
    }

    /// The term of this leadership.
    pub(super) fn term(&self) -> Term {
        self.term
    }

    /// The next event. Cancel-safe.
    pub(super) async fn next(&mut self) -> LeaderEvent {
        tokio::select! {
            // `send_polled` is kept in `self`, so the channel never closes.
            Some(polled) = self.polled.recv() => LeaderEvent::Polled(polled),
            (pool_uid, result) = self.jobs.next() => LeaderEvent::JobEnded(pool_uid, Box::new(result)),
        }
    }

    /// Waits for running jobs, at most `max_wait`.
    pub(super) async fn finish(self, max_wait: Duration) {
        if tokio::time::timeout(max_wait, self.jobs.finish()).await.is_err() {
            tracing::warn!("Writes in flight did not finish in time");
        }
    }

    /// Applies an event, and returns the pools to reconcile.
    pub(super) fn apply(&mut self, event: LeaderEvent, cache: &mut Cache) -> BTreeSet<Arc<PoolId>> {
        match event {
            LeaderEvent::Polled(polled) => self.apply_readings(polled),
            LeaderEvent::JobEnded(pool_uid, result) => {
                self.apply_job_result(pool_uid.as_deref(), *result, cache)
            }
        }
    }

    /// Pools with a retry that is due, or whose status changes by time alone.
    pub(super) fn due(&self) -> BTreeSet<Arc<PoolId>> {
        let (now, time) = (self.clock.now(), wall_clock_time());
        let due = self.pools.iter().filter(|(_, pool)| pool.is_due(now, &time));
        due.map(|(id, _)| Arc::clone(id)).collect()
    }

    /// Reconciles these pools, and those whose group conflicts changed.
    pub(super) fn reconcile(&mut self, mut touched: BTreeSet<Arc<PoolId>>, cache: &Cache) {
        touched.extend(self.update_group_conflicts(&touched, cache));
        for id in touched {
            match cache.pool(&id).filter(|pool| !pool.is_being_deleted) {
                Some(snapshot) => {
                    let (started, jobs_before) = (Instant::now(), self.jobs.started_for_pools());
                    self.reconcile_pool(&id, snapshot, cache);
                    if self.jobs.started_for_pools() == jobs_before {
                        self.metrics.reconciled("unchanged", started.elapsed());
                    }
                }
                None => self.forget(&id, cache),
            }
        }
        for name in self.clusters.secrets.due(self.clock.now()) {
            self.jobs.read_secret(name);
        }
    }

    pub(super) fn forget(&mut self, id: &Arc<PoolId>, cache: &Cache) {
        if let Some(pool) = self.pools.remove(id) {
            pool.stop_reading();
        }
        let plans = cache.pools().filter_map(|(_, pool)| pool.plan.as_deref().ok());
        self.clusters.secrets.retain(plans);
    }

    /// Recomputes which roles share a group, if a spec changed, or a pool's credentials were first accepted for its
    /// group, or the members that prove its use of the group changed. Returns the pools whose result changed.
    fn update_group_conflicts(
        &mut self,
        touched: &BTreeSet<Arc<PoolId>>,
        cache: &Cache,
    ) -> BTreeSet<Arc<PoolId>> {
        let mut is_unchanged = true;
        for id in touched {
            let now = cache.pool(id).map(|snapshot| {
                let uses = self.group_uses(id, snapshot);
                let clusters = uses
                    .map(|group_use| group_use.map(|group_use| (group_use.cluster_id, group_use.is_proven)));
                (Arc::clone(&snapshot.uid), snapshot.generation, clusters)
            });
            is_unchanged &= self.held_inputs.get(id) == now.as_ref();
            match now {
                Some(now) => self.held_inputs.insert(Arc::clone(id), now),
                None => self.held_inputs.remove(id),
            };
        }
        if is_unchanged {
            return BTreeSet::new();
        }
        let pools = cache
            .pools()
            .map(|(id, snapshot)| (id, snapshot, self.group_uses(id, snapshot)));
        let held = conflicts::shared_groups(pools);
        let differs = |key: &&RoleKey| held.get(*key) != self.held.get(*key);
        let changed = held.keys().chain(self.held.keys()).filter(differs);
        let changed = changed.map(|key| Arc::clone(&key.pool)).collect();
        self.held = held;
        changed
    }

    fn group_uses(&self, id: &Arc<PoolId>, snapshot: &PoolSnapshot) -> GroupUses {
        let Ok(plan) = &snapshot.plan else {
            return GroupUses::default();
        };
        let proof = self.clusters.group_proof(plan);
        match self.pools.get(id).filter(|pool| pool.uid == snapshot.uid) {
            Some(pool) => pool.group_uses(plan, proof),
            None => PoolState::new(id, snapshot, Moment::default()).group_uses(plan, proof),
        }
    }

    fn apply_readings(&mut self, polled: Vec<Polled<RoleKey>>) -> BTreeSet<Arc<PoolId>> {
        let time = wall_clock_time();
        let mut touched = BTreeSet::new();
        for polled in polled {
            let Some(pool) = self.pools.get_mut(&polled.key.pool) else {
                continue;
            };
            let Some(plan) = pool.plan.clone() else { continue };
            // A round of a cluster that the pool no longer uses may still have been in progress.
            if !matches!(&pool.access, ClusterAccess::Open(open_cluster) if Arc::ptr_eq(&open_cluster.cluster, &polled.cluster))
            {
                continue;
            }
            touched.insert(Arc::clone(&polled.key.pool));
            pool.read(polled, &plan, &time);
        }
        touched
    }
}
