//! What a process does while it leads: events in, jobs out. All that is known here is lost with the lease; whoever leads
//! next begins with what the cluster and Kafka say, and is more careful for a while.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;

use super::carry_out::{Annotated, Deployed, Failure, Hands};
use super::clusters::{Clusters, Opening};
use super::conflicts::GroupUses;
use super::jobs::{Done, For, Jobs};
use super::pool::{Login, PoolState, Variant, of_role};
use super::role::Surroundings;
use super::secrets::{SecretName, secrets_of};
use super::step::Step;
use super::{Operator, conflicts};
use crate::apply::rollout;
use crate::clock::Clock;
use crate::decide::Moment;
use crate::events::{EventWriter, PoolFact};
use crate::lease::Term;
use crate::metrics::{Metrics, Outcome};
use crate::observe::poller::Polled;
use crate::observe::workload::{DeploymentSeen, workload};
use crate::plan::{PoolId, PoolPlan, Role};
use crate::settings::WorkerSettings;
use crate::watch::mirror::Change;
use crate::watch::world::{PoolSeen, RoleKey, Told, World};

/// Rounds that wait to be taken in: one of each of some clusters.
const ROUNDS: usize = 8;

/// What happens while we lead.
pub(super) enum Event {
    /// A cluster was read.
    Polled(Vec<Polled<RoleKey>>),
    /// A job ended.
    Done(For, Box<Done>),
}

/// All that is known while we lead.
pub(super) struct Leading {
    term: Term,
    clock: Clock,
    workers: Arc<WorkerSettings>,
    keep_offsets_after: Duration,
    metrics: Metrics,
    events: EventWriter,
    jobs: Jobs,
    clusters: Clusters,
    pools: HashMap<Arc<PoolId>, PoolState>,
    /// Roles that are held because another pool has their group.
    held: HashMap<RoleKey, Arc<str>>,
    /// What `held` was made of.
    held_of: HashMap<Arc<PoolId>, HeldOf>,
    send_polled: mpsc::Sender<Vec<Polled<RoleKey>>>,
    polled: mpsc::Receiver<Vec<Polled<RoleKey>>>,
}

/// What may change who shares a group: a pool's uid, its generation, and the clusters that it uses its groups in. That it
/// has initialized offsets matters only when one of these changes, for a role that is held initializes none.
type HeldOf = (Arc<str>, Option<i64>, [Option<Arc<str>>; 2]);

impl Leading {
    pub(super) fn new(operator: &Operator, term: Term, clock: Clock) -> Self {
        let (send_polled, polled) = mpsc::channel(ROUNDS);
        Self {
            term,
            clock,
            workers: Arc::new(operator.workers.clone()),
            keep_offsets_after: operator.keep_offsets_after,
            metrics: operator.metrics.clone(),
            events: operator.events.clone(),
            jobs: Jobs::new(
                Hands::new(operator.client.clone(), operator.leadership.clone()),
                operator.metrics.clone(),
            ),
            clusters: Clusters::new(operator.refresh),
            pools: HashMap::new(),
            held: HashMap::new(),
            held_of: HashMap::new(),
            send_polled,
            polled,
        }
    }

    /// The term that all this belongs to.
    pub(super) fn term(&self) -> Term {
        self.term
    }

    /// What happens next. Nothing is lost when this is dropped halfway.
    pub(super) async fn next(&mut self) -> Event {
        tokio::select! {
            // The other sender is ours: there is always another round to wait for.
            Some(polled) = self.polled.recv() => Event::Polled(polled),
            (of, done) = self.jobs.next() => Event::Done(of, Box::new(done)),
        }
    }

    /// Lets jobs that run end.
    pub(super) async fn finish(self, longest: Duration) {
        if tokio::time::timeout(longest, self.jobs.finish()).await.is_err() {
            tracing::warn!("Writes that were begun did not end in time");
        }
    }

    /// Takes in what happened, and gives the pools that may need something now.
    pub(super) fn take(&mut self, event: Event, world: &mut World) -> BTreeSet<Arc<PoolId>> {
        match event {
            Event::Polled(polled) => self.read(polled),
            Event::Done(of, done) => self.done(of.as_deref(), *done, world),
        }
    }

    /// Pools for which time alone has made something due.
    pub(super) fn due(&self) -> BTreeSet<Arc<PoolId>> {
        let now = self.clock.now();
        let due = self.pools.iter().filter(|(_, pool)| pool.is_due(now));
        due.map(|(id, _)| Arc::clone(id)).collect()
    }

    /// Does for each pool what is to be done now.
    pub(super) fn work_on(&mut self, mut touched: BTreeSet<Arc<PoolId>>, world: &World) {
        touched.extend(self.share(&touched, world));
        for id in touched {
            match world.pool(&id) {
                Some(seen) => {
                    let (started, begun) = (Instant::now(), self.jobs.begun_for_pools());
                    self.work_on_pool(&id, seen, world);
                    if self.jobs.begun_for_pools() == begun {
                        self.metrics.reconciled(Outcome::Unchanged, started.elapsed());
                    }
                }
                None => self.forget(&id, world),
            }
        }
        for name in self.clusters.secrets.due(self.clock.now()) {
            self.jobs.read_secret(name);
        }
    }

    fn work_on_pool(&mut self, id: &Arc<PoolId>, seen: &PoolSeen, world: &World) {
        let now = self.clock.now();
        if self.pools.get(id).is_some_and(|pool| pool.uid != seen.uid) {
            self.forget(id, world);
        }
        // Taken out while it is worked on, so that everything else of ours is at hand.
        let mut pool = self
            .pools
            .remove(id)
            .unwrap_or_else(|| PoolState::new(id, seen, now));
        pool.plan(seen, &self.workers);
        match (pool.plan.clone(), &pool.refused) {
            (Some(plan), None) => {
                self.log_in(&mut pool, &plan);
                for role in Role::ALL {
                    self.work_on_role(&mut pool, &plan, role, seen, world, now);
                }
            }
            (_, refused) => {
                stop_reading(&pool);
                if let Some(problems) = refused.clone() {
                    pool.tell(PoolFact::InvalidSpec(&problems), &self.events, now);
                }
            }
        }
        if let Some(status) = pool.due_status(world, seen, now, &time()) {
            pool.status.is_busy = true;
            self.jobs.say(Arc::clone(id), Arc::clone(&seen.uid), status);
        }
        self.pools.insert(Arc::clone(id), pool);
    }

    fn work_on_role(
        &mut self,
        pool: &mut PoolState,
        plan: &Arc<PoolPlan>,
        role: Role,
        seen: &PoolSeen,
        world: &World,
        now: Moment,
    ) {
        let key = pool.key(role);
        let of_role_plan = plan.role(role);
        let running = world.deployment(&key);
        let workload = workload(running, world.pods(&key).map(|(_, pod)| pod), Timestamp::now());
        // A role that the pool does not have is read while it has offsets to keep.
        let is_read = of_role_plan.enabled || pool.role_ref(role).adoption().is_some();
        if let Login::Open(opened) = &pool.login {
            if is_read {
                let of_role = pool.role_ref(role);
                let wanted = of_role.wanted(of_role_plan, &workload, self.keep_offsets_after, now);
                opened.poller.want(&key, wanted);
            } else {
                opened.poller.forget(&key);
            }
        }
        let step = if of_role_plan.enabled {
            let ids = conflicts::WorkerIds::new(&key, &seen.uid);
            let group = pool.role_ref(role).members();
            let conflict = self
                .held
                .get(&key)
                .cloned()
                .or_else(|| conflicts::foreign_members(plan, role, group, &ids, &workload));
            let variant = self.variant(plan, role, running);
            let manifest_hash = pool.manifest_hash(plan, role, &self.workers, &variant);
            let around = Surroundings {
                plan: of_role_plan,
                servers: &plan.kafka.bootstrap_servers,
                deployment: running,
                manifest_hash: &manifest_hash,
                pool_uid: &seen.uid,
                worker_ids: &ids,
                written_adoption: seen
                    .status
                    .as_deref()
                    .and_then(|status| of_role(status, role)?.adoption.as_ref()),
                keep_after: self.keep_offsets_after,
            };
            let step = pool.role(role).next(around, workload, conflict, now);
            pool.measure(role, &self.metrics, now);
            pool.tell_of_role(role, world, &self.events, now);
            step
        } else {
            let keep_after = self.keep_offsets_after;
            pool.role(role)
                .stand_down(of_role_plan, &workload, keep_after, now)
        };
        if let Some(step) = step {
            self.begin(pool, plan, key, step, world);
        }
    }

    /// What of a role's Deployment does not follow from its plan. While a Secret cannot be read, pods keep the hash that they
    /// have.
    fn variant(&self, plan: &PoolPlan, role: Role, running: Option<&DeploymentSeen>) -> Variant {
        let read = self.clusters.secrets.hash(plan, role).map(Arc::from);
        Variant {
            rollout: rollout(running, plan.role(role)),
            secrets_hash: read.or_else(|| running?.secrets_hash.clone()),
        }
    }

    /// Begins a job.
    fn begin(&mut self, pool: &mut PoolState, plan: &Arc<PoolPlan>, key: RoleKey, step: Step, world: &World) {
        let role = key.role;
        let uid = Arc::clone(&pool.uid);
        match (step, &pool.login) {
            (Step::Deploy { replicas }, _) => {
                let running = world.deployment(&key);
                let manifest = pool.manifest(plan, role, &self.workers, self.variant(plan, role, running));
                log_deployment(&key, replicas, running.map(|running| running.replicas), pool);
                let known = running.map(|running| Arc::clone(&running.resource_version));
                self.jobs.deploy(key, uid, manifest, replicas, known);
            }
            (Step::Annotate { pods, marked }, _) => self.jobs.annotate(key, uid, pods, marked),
            (Step::Adopt(adopt), Login::Open(opened)) => {
                tracing::info!(pool = %key.pool, %role, topic_id = ?adopt.topic.topic_id, cluster_id = ?adopt.topic.cluster_id, commits = adopt.commits.len(), "Offsets are initialized");
                self.jobs
                    .adopt(key, uid, Arc::clone(opened), plan.role(role), adopt, time());
            }
            (Step::Restore(commits), Login::Open(opened)) => {
                tracing::warn!(pool = %key.pool, %role, commits = commits.len(), "The brokers have lost the group's offsets: those in the pool's status are committed");
                self.jobs
                    .restore(key, uid, Arc::clone(opened), plan.role(role), commits);
            }
            (Step::Keep(partitions), Login::Open(opened)) => {
                self.jobs
                    .keep(key, uid, Arc::clone(opened), plan.role(role), partitions);
            }
            // What was read rests on a login: it is open.
            (Step::Adopt(_) | Step::Restore(_) | Step::Keep(_), _) => pool.role(role).done(self.clock.now()),
        }
    }

    /// Opens the pool's Kafka, as far as its secrets are known.
    fn log_in(&mut self, pool: &mut PoolState, plan: &PoolPlan) {
        let now = self.clock.now();
        self.clusters.secrets.need(plan);
        let opened = match self.clusters.settings(&plan.kafka, &plan.id) {
            Opening::Waiting => return,
            Opening::Missing(why) => Err(why),
            Opening::Ready(settings) => {
                let current = match &pool.login {
                    Login::Open(opened) => Some(opened),
                    _ => None,
                };
                self.clusters
                    .open(settings, current, self.clock, &self.send_polled, &self.metrics)
            }
        };
        match opened {
            Ok(opened) => {
                if let Login::Open(before) = &pool.login
                    && !Arc::ptr_eq(before, &opened)
                {
                    stop_reading(pool);
                    if before.servers() != opened.servers() {
                        // What the brokers of before said is not about those of now.
                        for role in Role::ALL {
                            pool.role(role).forget_reading();
                        }
                    }
                }
                pool.login = Login::Open(opened);
            }
            Err(why) => {
                stop_reading(pool);
                for role in Role::ALL {
                    pool.role(role).cannot_read(&why, now);
                }
                pool.tell(PoolFact::SecretMissing { what: &why.0 }, &self.events, now);
                pool.login = Login::Missing;
            }
        }
    }

    fn forget(&mut self, id: &Arc<PoolId>, world: &World) {
        if let Some(pool) = self.pools.remove(id) {
            stop_reading(&pool);
        }
        let plans = world.pools().filter_map(|(_, pool)| pool.plan.as_deref().ok());
        self.clusters.secrets.retain(plans);
    }

    /// Finds the roles that share a group, where a spec changed or a pool was seen to use its group; gives the pools for which
    /// the answer changed.
    fn share(&mut self, touched: &BTreeSet<Arc<PoolId>>, world: &World) -> BTreeSet<Arc<PoolId>> {
        let mut is_same = true;
        for id in touched {
            let now = world.pool(id).map(|seen| {
                let uses = self.group_uses(id, seen);
                let clusters = uses.map(|group_use| group_use.map(|group_use| group_use.cluster_id));
                (Arc::clone(&seen.uid), seen.generation, clusters)
            });
            is_same &= self.held_of.get(id) == now.as_ref();
            match now {
                Some(now) => self.held_of.insert(Arc::clone(id), now),
                None => self.held_of.remove(id),
            };
        }
        if is_same {
            return BTreeSet::new();
        }
        let pools = world
            .pools()
            .map(|(id, seen)| (id, seen, self.group_uses(id, seen)));
        let held = conflicts::shared_groups(pools);
        let differs = |key: &&RoleKey| held.get(*key) != self.held.get(*key);
        let changed = held.keys().chain(self.held.keys()).filter(differs);
        let changed = changed.map(|key| Arc::clone(&key.pool)).collect();
        self.held = held;
        changed
    }

    fn group_uses(&self, id: &Arc<PoolId>, seen: &PoolSeen) -> GroupUses {
        let Ok(plan) = &seen.plan else {
            return GroupUses::default();
        };
        match self.pools.get(id).filter(|pool| pool.uid == seen.uid) {
            Some(pool) => pool.group_uses(plan),
            None => PoolState::new(id, seen, Moment::default()).group_uses(plan),
        }
    }

    fn read(&mut self, polled: Vec<Polled<RoleKey>>) -> BTreeSet<Arc<PoolId>> {
        let time = time();
        let mut touched = BTreeSet::new();
        for polled in polled {
            let Some(pool) = self.pools.get_mut(&polled.key.pool) else {
                continue;
            };
            let Some(plan) = pool.plan.clone() else { continue };
            // A round of brokers that are not asked any more may have been under way.
            if !matches!(&pool.login, Login::Open(opened) if Arc::ptr_eq(&opened.cluster, &polled.cluster)) {
                continue;
            }
            let key = polled.key.clone();
            pool.role(key.role).read(polled, plan.role(key.role), &time);
            touched.insert(key.pool);
        }
        touched
    }

    fn done(&mut self, of: Option<&str>, done: Done, world: &mut World) -> BTreeSet<Arc<PoolId>> {
        let now = self.clock.now();
        if let Some(id) = done.pool()
            && self.pools.get(id).map(|pool| &*pool.uid) != of
        {
            // It was done for a pool that is gone: one that was made anew under its name has work of its own under way.
            return BTreeSet::from([Arc::clone(id)]);
        }
        match done {
            Done::Deployed(key, result) => {
                let mut touched = BTreeSet::from([Arc::clone(&key.pool)]);
                let Some(pool) = self.pools.get_mut(&key.pool) else {
                    return touched;
                };
                let role = pool.role(key.role);
                let change = match result {
                    Ok(Deployed::Written(seen)) => {
                        role.deployed(&seen);
                        role.done(now);
                        if let Some(before) = world.deployment(&key) {
                            pool.wrote_replicas(key.role, before.replicas, seen.replicas);
                        }
                        Change::Applied(key.clone(), seen)
                    }
                    Ok(Deployed::Found(seen)) => {
                        role.outdated(now);
                        Change::Applied(key.clone(), seen)
                    }
                    Ok(Deployed::Gone) => {
                        role.outdated(now);
                        Change::Missing(key.clone())
                    }
                    Err(failure) => {
                        role_failed(role, &key, failure, "Deployment could not be written", now);
                        return touched;
                    }
                };
                touched.extend(world.answered(&key.pool, Told::Deployment(change)));
                touched
            }
            Done::Annotated(key, Annotated { pods, gone, failure }) => {
                let mut touched = BTreeSet::from([Arc::clone(&key.pool)]);
                let Some(pool) = self.pools.get_mut(&key.pool) else {
                    return touched;
                };
                match failure {
                    None => pool.role(key.role).done(now),
                    Some(failure) => role_failed(
                        pool.role(key.role),
                        &key,
                        failure,
                        "Pods could not be annotated",
                        now,
                    ),
                }
                let there = pods
                    .into_iter()
                    .map(|(name, seen)| Change::Applied((key.clone(), name), seen));
                let gone = gone.into_iter().map(|name| Change::Missing((key.clone(), name)));
                for change in there.chain(gone) {
                    touched.extend(world.answered(&key.pool, Told::Pod(change)));
                }
                touched
            }
            Done::Adopted(key, result) => {
                let touched = BTreeSet::from([Arc::clone(&key.pool)]);
                let Some(pool) = self.pools.get_mut(&key.pool) else {
                    return touched;
                };
                let role = pool.role(key.role);
                match result {
                    Ok(adoption) => {
                        role.done(now);
                        role.adopted(adoption, now);
                        pool.adopted(key.role);
                    }
                    Err(failure) => role_failed(role, &key, failure, "Offsets could not be initialised", now),
                }
                touched
            }
            Done::Kept(key, result) => self.of_role(&key, |role| match result {
                Ok(()) => {
                    role.done(now);
                    role.kept(now);
                }
                Err(failure) => role_failed(role, &key, failure, "Offsets could not be committed again", now),
            }),
            Done::Restored(key, result) => self.of_role(&key, |role| match result {
                Ok(()) => {
                    role.done(now);
                    role.restored(now);
                }
                Err(failure) => role_failed(role, &key, failure, "Offsets could not be restored", now),
            }),
            Done::Said(id, result) => {
                let mut touched = BTreeSet::from([Arc::clone(&id)]);
                let Some(pool) = self.pools.get_mut(&id) else {
                    return touched;
                };
                let status = &mut pool.status;
                status.is_busy = false;
                match result {
                    Ok(seen) => {
                        status.retry.succeeded();
                        status.written_at = Some(now);
                        touched
                            .extend(world.answered(&id, Told::Pool(Change::Applied(Arc::clone(&id), *seen))));
                    }
                    Err(failure) => {
                        tracing::warn!(pool = %id, error = failure.error, "Status could not be written");
                        status.retry.failed(failure.pause, now);
                    }
                }
                touched
            }
            Done::SecretRead(name, result) => self.secret_read(&name, result, world),
        }
    }

    fn of_role(
        &mut self,
        key: &RoleKey,
        then: impl FnOnce(&mut super::role::RoleState),
    ) -> BTreeSet<Arc<PoolId>> {
        if let Some(pool) = self.pools.get_mut(&key.pool) {
            then(pool.role(key.role));
        }
        BTreeSet::from([Arc::clone(&key.pool)])
    }

    fn secret_read(
        &mut self,
        name: &SecretName,
        result: Result<Option<Box<k8s_openapi::api::core::v1::Secret>>, Failure>,
        world: &World,
    ) -> BTreeSet<Arc<PoolId>> {
        let read = match result {
            Ok(secret) => Ok(secret.map(|secret| *secret)),
            Err(failure) => {
                tracing::warn!(
                    namespace = name.namespace,
                    secret = name.name,
                    error = failure.error,
                    "A secret could not be read"
                );
                Err(failure.error)
            }
        };
        if !self.clusters.secrets.read(name, read, self.clock.now()) {
            return BTreeSet::new();
        }
        let uses = |plan: &PoolPlan| secrets_of(plan).contains(name);
        world
            .pools()
            .filter(|(_, pool)| pool.plan.as_ref().is_ok_and(|plan| uses(plan)))
            .map(|(id, _)| Arc::clone(id))
            .collect()
    }
}

fn role_failed(role: &mut super::role::RoleState, key: &RoleKey, failure: Failure, what: &str, now: Moment) {
    tracing::warn!(pool = %key.pool, role = %key.role, error = failure.error, "{what}");
    role.failed(failure.trouble, failure.pause, now);
}

/// Ceases to read a pool.
fn stop_reading(pool: &PoolState) {
    if let Login::Open(opened) = &pool.login {
        for role in Role::ALL {
            opened.poller.forget(&pool.key(role));
        }
    }
}

fn log_deployment(key: &RoleKey, replicas: u32, before: Option<u32>, pool: &PoolState) {
    let explanation = pool.role_ref(key.role).explanation.as_ref();
    let reason = explanation.map(|explanation| explanation.reason.name());
    let why = explanation.map(ToString::to_string);
    tracing::info!(pool = %key.pool, role = %key.role, before, replicas, reason, why, "Deployment is written");
}

/// Now, as people read it: in whole seconds, as the API server keeps it.
fn time() -> Time {
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}
