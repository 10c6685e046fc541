//! One pool: its plan, how its Kafka is reached, its roles, and what is said about it. Pure but for the poller it holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};

use kube::Resource as _;

use super::clusters::Opened;
use super::conflicts::GroupUses;
use super::retry::Retry;
use super::role::RoleState;
use crate::apply::{Rollout, deployment, manifest_hash, with_secrets_hash};
use crate::crd::{RoleStatus, SeparationPool, SeparationPoolStatus};
use crate::decide::Moment;
use crate::events::{EventWriter, PoolFact, RoleFacts, Scaled, Teller};
use crate::metrics::{Metrics, RoleMetrics};
use crate::observe::workload::Trouble;
use crate::plan::{PoolId, PoolPlan, Problems, Role};
use crate::settings::WorkerSettings;
use crate::status::{self, PoolReport, RoleReport, WriteDue};
use crate::watch::world::{PoolSeen, RoleKey, World};

/// How a pool's Kafka is reached.
#[derive(Debug, Clone, Default)]
pub(super) enum Login {
    /// Its secrets are being read.
    #[default]
    Waiting,
    /// A secret is missing, or does not fit: its roles say so.
    Missing,
    /// It is being read.
    Open(Arc<Opened>),
}

/// What is known of a pool.
#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) id: Arc<PoolId>,
    pub(super) uid: Arc<str>,
    generation: Option<i64>,
    owner: Option<OwnerReference>,
    /// The last spec that could be done.
    pub(super) plan: Option<Arc<PoolPlan>>,
    /// What of the present spec cannot be done.
    pub(super) refused: Option<Problems>,
    pub(super) login: Login,
    roles: [RoleState; 2],
    manifests: [Option<(Variant, Arc<str>)>; 2],
    pub(super) status: StatusState,
    metrics: [Option<RoleMetrics>; 2],
    telling: Telling,
}

/// What people are told as it happens.
#[derive(Debug, Default)]
struct Telling {
    pool: Teller,
    roles: [Teller; 2],
    /// Done, and not told yet.
    scaled: [Option<Scaled>; 2],
    adopted: [bool; 2],
}

/// What a Deployment is made of: small, where the Deployment is not.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) plan: Arc<PoolPlan>,
    pub(super) role: Role,
    pub(super) owner: Option<OwnerReference>,
    pub(super) settings: Arc<WorkerSettings>,
    pub(super) variant: Variant,
}

/// What of a Deployment does not follow from the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) rollout: Rollout,
    /// Hash of the contents of its Secrets, once they were read.
    pub(super) secrets_hash: Option<Arc<str>>,
}

impl Manifest {
    /// The Deployment with so many replicas; none where overrides are refused, which the plan found out already.
    pub(super) fn with(&self, replicas: u32) -> Option<Deployment> {
        let deployment = deployment(
            &self.plan,
            self.role,
            self.owner.as_ref(),
            &self.settings,
            replicas,
            self.variant.rollout,
        )
        .ok()?;
        Some(match &self.variant.secrets_hash {
            Some(hash) => with_secrets_hash(deployment, hash),
            None => deployment,
        })
    }
}

/// Writes of a pool's status.
#[derive(Debug, Default)]
pub(super) struct StatusState {
    pub(super) is_busy: bool,
    pub(super) retry: Retry,
    pub(super) written_at: Option<Moment>,
}

impl StatusState {
    /// Time since this process last wrote the status. One that it never wrote counts as written long ago, also in the first
    /// seconds of the process.
    fn since_write(&self, now: Moment) -> Duration {
        self.written_at.map_or(Duration::MAX, |at| now.since(at))
    }
}

impl PoolState {
    /// Nothing is known but what was read.
    pub(super) fn new(id: &Arc<PoolId>, seen: &PoolSeen, now: Moment) -> Self {
        let status = seen.status.as_deref();
        let adoption = |role: Role| status.and_then(|status| of_role(status, role)?.adoption.as_ref());
        Self {
            id: Arc::clone(id),
            uid: Arc::clone(&seen.uid),
            generation: None,
            owner: None,
            plan: None,
            refused: None,
            login: Login::default(),
            roles: Role::ALL.map(|role| RoleState::new(adoption(role), now)),
            manifests: [None, None],
            status: StatusState::default(),
            metrics: [None, None],
            telling: Telling::default(),
        }
    }

    /// Takes in the spec as it was read.
    pub(super) fn plan(&mut self, seen: &PoolSeen, settings: &WorkerSettings) {
        if self.generation == seen.generation && (self.plan.is_some() || self.refused.is_some()) {
            return;
        }
        self.generation = seen.generation;
        self.owner.clone_from(&seen.owner);
        self.manifests = [None, None];
        // What failed was about another spec.
        self.status.retry.succeeded();
        for role in &mut self.roles {
            role.retry.succeeded();
        }
        let checked = seen.plan.clone().and_then(|plan| {
            for role in Role::ALL {
                deployment(&plan, role, None, settings, 0, Rollout::Rolling)?;
            }
            Ok(plan)
        });
        match checked {
            Ok(plan) => {
                self.plan = Some(plan);
                self.refused = None;
            }
            Err(problems) => self.refused = Some(problems),
        }
    }

    /// A role's key.
    pub(super) fn key(&self, role: Role) -> RoleKey {
        RoleKey {
            pool: Arc::clone(&self.id),
            role,
        }
    }

    /// A role, to look at.
    pub(super) fn role_ref(&self, role: Role) -> &RoleState {
        &self.roles[index(role)]
    }

    /// A role.
    pub(super) fn role(&mut self, role: Role) -> &mut RoleState {
        &mut self.roles[index(role)]
    }

    /// Where its roles were seen to be able to use their groups.
    pub(super) fn group_uses(&self, plan: &PoolPlan) -> GroupUses {
        Role::ALL.map(|role| self.roles[index(role)].offsets.group_use(plan.role(role)))
    }

    /// What a role's Deployment is made of.
    pub(super) fn manifest(
        &self,
        plan: &Arc<PoolPlan>,
        role: Role,
        settings: &Arc<WorkerSettings>,
        variant: Variant,
    ) -> Manifest {
        Manifest {
            variant,
            plan: Arc::clone(plan),
            role,
            owner: self.owner.clone(),
            settings: Arc::clone(settings),
        }
    }

    /// The hash of the Deployment that a role should have.
    pub(super) fn manifest_hash(
        &mut self,
        plan: &Arc<PoolPlan>,
        role: Role,
        settings: &Arc<WorkerSettings>,
        variant: &Variant,
    ) -> Arc<str> {
        if let Some((known, hash)) = &self.manifests[index(role)]
            && known == variant
        {
            return Arc::clone(hash);
        }
        let built = self.manifest(plan, role, settings, variant.clone()).with(0);
        let hash: Arc<str> = built.as_ref().and_then(manifest_hash).unwrap_or_default().into();
        self.manifests[index(role)] = Some((variant.clone(), Arc::clone(&hash)));
        hash
    }

    /// The status to write now, if any.
    pub(super) fn due_status(
        &mut self,
        world: &World,
        seen: &PoolSeen,
        now: Moment,
        time: &Time,
    ) -> Option<SeparationPoolStatus> {
        if self.status.is_busy || !self.status.retry.is_over(now) {
            return None;
        }
        let report = self.report(world, now)?;
        let before = seen.status.as_deref();
        let mut after = status::status(&report, before, self.generation, time);
        self.keep_adoptions(&mut after);
        let since = self.status.since_write(now);
        (status::write_due(before, &after, since) == WriteDue::Yes).then_some(after)
    }

    /// Adds the adoption of roles that the pool does not have now: it may have them again.
    fn keep_adoptions(&self, status: &mut SeparationPoolStatus) {
        let Some(plan) = self.plan.as_ref().filter(|_| self.refused.is_none()) else {
            return;
        };
        for role in Role::ALL.into_iter().filter(|role| !plan.role(*role).enabled) {
            let adoption = self.roles[index(role)].adoption().cloned();
            let kept = adoption.map(|adoption| RoleStatus {
                adoption: Some(adoption),
                ..RoleStatus::default()
            });
            match role {
                Role::Processor => status.processor = kept,
                Role::Uploader => status.uploader = kept,
            }
        }
    }

    /// What is known of the pool; none before every role was read or given up on.
    pub(super) fn report(&self, world: &World, now: Moment) -> Option<PoolReport> {
        if let Some(problems) = &self.refused {
            return Some(PoolReport::Refused(problems.clone()));
        }
        let plan = self.plan.as_ref()?;
        let mut reports = Vec::new();
        for role in Role::ALL.into_iter().filter(|role| plan.role(*role).enabled) {
            let state = &self.roles[index(role)];
            let (lag, flags) = state.lag()?;
            reports.push(RoleReport {
                role,
                explanation: state.explanation.clone()?,
                lag: lag.clone(),
                flags: flags.to_vec(),
                last_known_at: state.last_known_at.clone(),
                target: plan.role(role).policy.target,
                adoption: state.adoption().cloned(),
                troubles: troubles(state, world, &self.key(role), now),
                refusals: state.refusals(plan.role(role), now),
            });
        }
        Some(PoolReport::Running(reports))
    }

    /// Counts and measures what was decided last for a role.
    pub(super) fn measure(&mut self, role: Role, metrics: &Metrics, now: Moment) {
        let state = &self.roles[index(role)];
        if let (Some(explanation), Some((lag, _))) = (&state.explanation, state.lag()) {
            let of_role = &mut self.metrics[index(role)];
            of_role
                .get_or_insert_with(|| metrics.role(&self.id, role))
                .decided(explanation, lag, state.lag_age(now));
        }
    }

    /// Counts a number of workers that was written.
    pub(super) fn wrote_replicas(&mut self, role: Role, from: u32, to: u32) {
        if from == to {
            return;
        }
        self.telling.scaled[index(role)] = Some(Scaled { from, to });
        if let Some(metrics) = &self.metrics[index(role)] {
            metrics.wrote_replicas(from, to);
        }
    }

    /// Notes that a role's offsets were initialised.
    pub(super) fn adopted(&mut self, role: Role) {
        self.telling.adopted[index(role)] = true;
    }

    /// Tells people what they would ask about a role.
    pub(super) fn tell_of_role(&mut self, role: Role, world: &World, events: &EventWriter, now: Moment) {
        let about = self.reference();
        let troubles = troubles(&self.roles[index(role)], world, &self.key(role), now);
        let state = &self.roles[index(role)];
        let (Some(explanation), Some((_, flags))) = (&state.explanation, state.lag()) else {
            return;
        };
        let adopted = std::mem::take(&mut self.telling.adopted[index(role)]);
        let facts = RoleFacts {
            role,
            explanation,
            flags,
            scaled: self.telling.scaled[index(role)].take(),
            adopted: state.adoption().filter(|_| adopted),
            troubles: &troubles,
        };
        for text in self.telling.roles[index(role)].role(&facts, now) {
            events.say(about.clone(), text);
        }
    }

    /// Tells people what keeps the whole pool from working.
    pub(super) fn tell(&mut self, fact: PoolFact<'_>, events: &EventWriter, now: Moment) {
        if let Some(text) = self.telling.pool.pool(fact, now) {
            events.say(self.reference(), text);
        }
    }

    fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(SeparationPool::api_version(&()).into_owned()),
            kind: Some(SeparationPool::kind(&()).into_owned()),
            name: Some(self.id.name.clone()),
            namespace: Some(self.id.namespace.clone()),
            uid: Some(self.uid.to_string()),
            ..ObjectReference::default()
        }
    }

    /// Whether something that failed is to be tried again.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        self.status.retry.is_due(now) || self.roles.iter().any(|role| role.retry.is_due(now))
    }
}

/// What a person must look at, each kind once.
fn troubles(state: &RoleState, world: &World, key: &RoleKey, now: Moment) -> Vec<Trouble> {
    let pods = world.pods(key).filter_map(|(_, pod)| pod.trouble.as_ref());
    let deployment = world
        .deployment(key)
        .and_then(|deployment| deployment.trouble.as_ref());
    let mut each: BTreeMap<&str, &Trouble> = BTreeMap::new();
    let ours = [
        state.contest.trouble(),
        state.rollout.trouble(now),
        state.stuck.clone(),
    ];
    let ours = state.trouble.iter().chain(ours.iter().flatten());
    for trouble in ours.chain(deployment).chain(pods) {
        each.entry(&trouble.reason).or_insert(trouble);
    }
    each.into_values().cloned().collect()
}

pub(super) fn of_role(status: &SeparationPoolStatus, role: Role) -> Option<&RoleStatus> {
    match role {
        Role::Processor => status.processor.as_ref(),
        Role::Uploader => status.uploader.as_ref(),
    }
}

fn index(role: Role) -> usize {
    match role {
        Role::Processor => 0,
        Role::Uploader => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_this_process_never_wrote_is_not_recent() {
        let now = Moment::from_millis(200);
        let mut status = StatusState::default();
        assert_eq!(status.since_write(now), Duration::MAX);
        status.written_at = Some(Moment::from_millis(50));
        assert_eq!(status.since_write(now), Duration::from_millis(150));
    }
}
