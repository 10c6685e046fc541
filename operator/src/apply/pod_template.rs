//! `podTemplate`: merged over our pod template, and validated.
//!
//! Lists whose items have names (containers, variables, volumes, mounts, ports) are merged by name, as `kubectl apply`
//! does; other lists and node selectors are replaced. A volume of ours with the same name is replaced completely. The
//! merged template is validated, not the one that users write: it must satisfy the cluster's pod security rules, and keep the
//! fields that decisions depend on.

use k8s_openapi::DeepMerge as _;
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, EnvVar, PodSecurityContext, PodSpec, PodTemplateSpec, SeccompProfile,
    SecurityContext, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::layout::CONTAINER;
use super::pod_fields::{self, ParsedFields, worker};
use crate::crd::PodFields;
use crate::names::{DELETION_COST, OWN_PREFIX};
use crate::plan::{Problem, Problems};
use crate::settings::{Allowance, WorkerSettings};

const GIVES_ACCOUNT: &str = "would give workers permissions in the cluster";

const DERIVED: &str = "is derived from the pool";

const DERIVED_FIX: &str = "remove it, and change the field of the pool";

const GIVES_TOKEN: &str = "would give workers a token for the API server";

const IS_ROOT_GROUP: &str = "would run workers in group 0";

/// A part of a pod that the CRD has no schema for.
struct Part {
    /// In messages.
    name: &'static str,
    /// In `kubectl explain`.
    path: &'static str,
}

const POD_TEMPLATE: Part = Part {
    name: "pod template",
    path: "pod.spec",
};

const AFFINITY: Part = Part {
    name: "affinity",
    path: "pod.spec.affinity",
};

const VALUE_SOURCE: Part = Part {
    name: "source of a variable",
    path: "pod.spec.containers.env.valueFrom",
};

/// Merges the typed fields of the role's pods over `base`, then its `podTemplate`.
///
/// `component` is the property of the pool that has the fields.
pub(super) fn merged(
    component: &str,
    fields: &PodFields,
    base: &PodTemplateSpec,
    settings: &WorkerSettings,
) -> Result<PodTemplateSpec, Problems> {
    let mut checks = TemplateChecks {
        root: format!("spec.{component}"),
        settings,
        problems: Vec::new(),
    };
    checks.typed_fields(base, fields);
    let parsed = checks.parse_fields(fields);
    let mut merged = pod_fields::with(base.clone(), fields, parsed);
    if !fields.pod_template.is_empty() {
        checks.root.push_str(".podTemplate");
        let written = Value::Object(fields.pod_template.0.clone());
        let Some(template) = checks.parse("", &POD_TEMPLATE, &written) else {
            return Err(Problems(checks.problems));
        };
        let ours = merged.clone();
        remove_replaced_volumes(&mut merged, &template);
        merged.merge_from(template);
        checks.owned(&ours, &merged);
        if let (Some(ours), Some(pod)) = (&ours.spec, &merged.spec) {
            checks.pod(ours, pod);
        }
    }
    if checks.problems.is_empty() {
        Ok(merged)
    } else {
        Err(Problems(checks.problems))
    }
}

/// Removes our volumes that the template replaces: a merged volume would have two sources.
fn remove_replaced_volumes(base: &mut PodTemplateSpec, template: &PodTemplateSpec) {
    let replaced = template.spec.as_ref().and_then(|pod| pod.volumes.as_ref());
    let ours = base.spec.as_mut().and_then(|pod| pod.volumes.as_mut());
    if let (Some(ours), Some(replaced)) = (ours, replaced) {
        ours.retain(|volume| !replaced.iter().any(|other| other.name == volume.name));
    }
}

struct TemplateChecks<'a> {
    root: String,
    settings: &'a WorkerSettings,
    problems: Vec<Problem>,
}

impl TemplateChecks<'_> {
    fn refuse(&mut self, field: &str, problem: impl Into<String>, fix: impl Into<String>) {
        let separator = if field.is_empty() { "" } else { "." };
        self.problems.push(Problem {
            field: format!("{}{separator}{field}", self.root),
            problem: problem.into(),
            fix: fix.into(),
        });
    }

    /// Refuses a setting that the operator's settings do not allow.
    fn require(&mut self, allowance: Allowance, is_used: bool, field: &str, problem: &str) {
        if is_used && !self.settings.allowed.contains(&allowance) {
            let name = clap::ValueEnum::to_possible_value(&allowance);
            let name = name.as_ref().map_or("", |value| value.get_name());
            let fix = format!("remove it, or start the operator with --allow-in-pod-template {name}");
            self.refuse(field, problem, fix);
        }
    }

    /// Refuses a service account that the operator does not allow, and variables that are derived from the pool.
    fn typed_fields(&mut self, base: &PodTemplateSpec, fields: &PodFields) {
        let named = fields.service_account_name.is_some();
        self.require(
            Allowance::ServiceAccount,
            named,
            "serviceAccountName",
            GIVES_ACCOUNT,
        );
        let ours = base
            .spec
            .as_ref()
            .and_then(worker)
            .and_then(|worker| worker.env.as_ref());
        for variable in &fields.env {
            if ours.is_some_and(|ours| ours.iter().any(|own| own.name == variable.name)) {
                let field = format!("env[{}]", variable.name);
                self.refuse(&field, DERIVED, DERIVED_FIX);
            }
        }
    }

    /// The typed fields without a schema, as far as they are valid.
    fn parse_fields(&mut self, fields: &PodFields) -> ParsedFields {
        let affinity = fields.affinity.as_ref();
        let affinity = affinity.and_then(|written| self.parse("affinity", &AFFINITY, written));
        let env = fields.env.iter().map(|variable| {
            let source = variable.value_from.as_ref();
            let field = format!("env[{}].valueFrom", variable.name);
            EnvVar {
                name: variable.name.clone(),
                value: variable.value.clone(),
                value_from: source.and_then(|written| self.parse(&field, &VALUE_SOURCE, written)),
            }
        });
        let env = env.collect();
        ParsedFields { affinity, env }
    }

    /// Parses a value without a schema; none after a problem.
    fn parse<T>(&mut self, field: &str, part: &Part, written: &Value) -> Option<T>
    where
        T: DeserializeOwned + Serialize,
    {
        let fix = format!("compare it with kubectl explain {}", part.path);
        let parsed: T = match serde_json::from_value(written.clone()) {
            Ok(parsed) => parsed,
            Err(error) => {
                self.refuse(field, format!("is not a valid {}: {error}", part.name), fix);
                return None;
            }
        };
        let read = serde_json::to_value(&parsed).unwrap_or_default();
        let mut unknown = Vec::new();
        unknown_fields(field, written, &read, &mut unknown);
        for field in unknown {
            self.refuse(&field, "is not a known field", fix.as_str());
        }
        self.problems.is_empty().then_some(parsed)
    }

    /// Refuses changes of fields that decisions, draining and deletion depend on.
    fn owned(&mut self, base: &PodTemplateSpec, merged: &PodTemplateSpec) {
        if let (Some(ours), Some(theirs)) = (&base.metadata, &merged.metadata) {
            self.metadata(ours, theirs);
        }
        let (Some(ours), Some(pod)) = (&base.spec, &merged.spec) else {
            return;
        };
        if pod.termination_grace_period_seconds < ours.termination_grace_period_seconds {
            self.refuse(
                "spec.terminationGracePeriodSeconds",
                "is too short for a running task to finish",
                "remove it, and change drainSeconds (of processors) or consumer.maxPollIntervalMs",
            );
        }
        if pod
            .restart_policy
            .as_ref()
            .is_some_and(|policy| policy != "Always")
        {
            let problem = "must be Always in a Deployment";
            self.refuse("spec.restartPolicy", problem, "remove it");
        }
        if let (Some(ours), Some(worker)) = (worker(ours), worker(pod)) {
            self.worker(ours, worker);
        }
    }

    /// Allows only additional labels and annotations: the operator's own select pods, protect them from eviction and
    /// order their deletion, and finalizers would keep pods in Terminating.
    fn metadata(&mut self, ours: &ObjectMeta, merged: &ObjectMeta) {
        let maps = [
            ("labels", &ours.labels, &merged.labels),
            ("annotations", &ours.annotations, &merged.annotations),
        ];
        for (field, ours, merged) in maps {
            for (name, value) in merged.iter().flatten() {
                let before = ours.as_ref().and_then(|ours| ours.get(name));
                let is_owned = before.is_some() || is_owned(name);
                if is_owned && before != Some(value) {
                    let field = format!("metadata.{field}.{name}");
                    self.refuse(&field, "is set by the operator", "remove it");
                }
            }
        }
        let rest = ObjectMeta {
            labels: None,
            annotations: None,
            ..merged.clone()
        };
        if rest != ObjectMeta::default() {
            let problem = "may only have labels and annotations";
            self.refuse("metadata", problem, "remove the other fields");
        }
    }

    fn worker(&mut self, ours: &Container, worker: &Container) {
        let same = [
            ("command", worker.command == ours.command),
            ("args", worker.args == ours.args),
            ("lifecycle", worker.lifecycle == ours.lifecycle),
        ];
        for (field, _) in same.iter().filter(|(_, same)| !same) {
            let field = format!("spec.containers[{CONTAINER}].{field}");
            let problem = "is set by the operator to start and drain workers";
            self.refuse(&field, problem, "remove it");
        }
        let theirs = worker.env.iter().flatten();
        for variable in ours.env.iter().flatten() {
            let differs = |other: &EnvVar| other.name == variable.name && other != variable;
            if theirs.clone().any(differs) {
                let field = format!("spec.containers[{CONTAINER}].env[{}]", variable.name);
                self.refuse(&field, DERIVED, DERIVED_FIX);
            }
        }
    }

    /// Refuses settings that pod security rules would refuse, and those that would give a worker a token.
    fn pod(&mut self, ours: &PodSpec, pod: &PodSpec) {
        self.service_account(ours, pod);
        self.host_namespaces(pod);
        let ours = ours.volumes.as_deref().unwrap_or_default();
        for volume in pod
            .volumes
            .iter()
            .flatten()
            .filter(|volume| !ours.contains(volume))
        {
            self.volume(volume);
        }
        if let Some(context) = &pod.security_context {
            self.pod_security_context(context);
        }
        if pod.ephemeral_containers.iter().flatten().next().is_some() {
            let problem = "cannot be part of a template";
            self.refuse("spec.ephemeralContainers", problem, "remove it");
        }
        for container in &pod.containers {
            self.container("containers", container);
        }
        for container in pod.init_containers.iter().flatten() {
            self.container("initContainers", container);
        }
    }

    fn service_account(&mut self, ours: &PodSpec, pod: &PodSpec) {
        let other = pod.service_account_name != ours.service_account_name;
        let token = pod.automount_service_account_token != Some(false);
        let field = "spec.serviceAccountName";
        self.require(Allowance::ServiceAccount, other, field, GIVES_ACCOUNT);
        let field = "spec.automountServiceAccountToken";
        self.require(Allowance::ServiceAccount, token, field, GIVES_TOKEN);
        if pod.service_account.is_some() {
            let problem = "is deprecated, and spec.serviceAccountName overrides it";
            self.refuse(
                "spec.serviceAccount",
                problem,
                "remove it, and set serviceAccountName beside podTemplate",
            );
        }
    }

    fn host_namespaces(&mut self, pod: &PodSpec) {
        for (field, shared) in [
            ("spec.hostNetwork", pod.host_network),
            ("spec.hostPID", pod.host_pid),
            ("spec.hostIPC", pod.host_ipc),
        ] {
            let problem = "would share a namespace of the node";
            self.require(Allowance::HostNamespaces, shared == Some(true), field, problem);
        }
    }

    fn pod_security_context(&mut self, context: &PodSecurityContext) {
        let field = "spec.securityContext";
        self.user(field, context.run_as_user, context.run_as_non_root);
        let groups = context.supplemental_groups.iter().flatten().copied();
        let mut groups = groups.chain(context.run_as_group).chain(context.fs_group);
        let root_group = groups.any(|group| group == 0);
        self.require(Allowance::Root, root_group, field, IS_ROOT_GROUP);
        let unconfined = is_unconfined(
            context.seccomp_profile.as_ref(),
            context.app_armor_profile.as_ref(),
        ) || context.se_linux_options.is_some()
            || context.sysctls.iter().flatten().next().is_some();
        let problem = "would weaken the kernel's isolation of the pod";
        self.require(Allowance::Privileged, unconfined, field, problem);
    }

    fn volume(&mut self, volume: &Volume) {
        let field = format!("spec.volumes[{}]", volume.name);
        let (mounts, problem) = (volume.host_path.is_some(), "would mount files of the node");
        self.require(Allowance::HostPath, mounts, &field, problem);
        let sources = volume.projected.iter().flat_map(|projected| &projected.sources);
        let mut sources = sources.flatten();
        let token = sources.any(|source| source.service_account_token.is_some());
        self.require(Allowance::ServiceAccount, token, &field, GIVES_TOKEN);
    }

    fn container(&mut self, list: &str, container: &Container) {
        let field = format!("spec.{list}[{}]", container.name);
        let mut ports = container.ports.iter().flatten();
        let host_port = ports.any(|port| port.host_port.is_some_and(|port| port != 0));
        let problem = "would listen on a port of the node";
        self.require(Allowance::HostNamespaces, host_port, &field, problem);
        if let Some(context) = &container.security_context {
            let field = format!("{field}.securityContext");
            self.user(&field, context.run_as_user, context.run_as_non_root);
            self.require(
                Allowance::Root,
                context.run_as_group == Some(0),
                &field,
                IS_ROOT_GROUP,
            );
            let problem = "would give the container privileges on its node";
            self.require(Allowance::Privileged, gains_privileges(context), &field, problem);
        }
    }

    fn user(&mut self, field: &str, user: Option<i64>, non_root: Option<bool>) {
        let root = user == Some(0) || non_root == Some(false);
        self.require(Allowance::Root, root, field, "would run workers as user 0");
    }
}

fn gains_privileges(context: &SecurityContext) -> bool {
    let added = context
        .capabilities
        .as_ref()
        .map(|capabilities| &capabilities.add);
    context.privileged == Some(true)
        || context.allow_privilege_escalation == Some(true)
        || added.is_some_and(|added| added.iter().flatten().next().is_some())
        || context
            .proc_mount
            .as_ref()
            .is_some_and(|mount| mount != "Default")
        || context.se_linux_options.is_some()
        || is_unconfined(
            context.seccomp_profile.as_ref(),
            context.app_armor_profile.as_ref(),
        )
}

fn is_unconfined(seccomp: Option<&SeccompProfile>, app_armor: Option<&AppArmorProfile>) -> bool {
    let seccomp = seccomp.is_some_and(|profile| profile.type_ == "Unconfined");
    seccomp || app_armor.is_some_and(|profile| profile.type_ == "Unconfined")
}

/// Whether a label or annotation belongs to the operator, even if the template does not have it.
fn is_owned(name: &str) -> bool {
    name == DELETION_COST || name.starts_with(OWN_PREFIX)
}

/// Collects fields that were written and not parsed: a pod template does not have them.
fn unknown_fields(path: &str, written: &Value, read: &Value, found: &mut Vec<String>) {
    match (written, read) {
        (Value::Object(written), read) => {
            for (name, value) in written {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                match read.get(name) {
                    Some(read) => unknown_fields(&path, value, read, found),
                    // An empty value is the same as a missing field.
                    None if is_empty(value) => {}
                    None => found.push(path),
                }
            }
        }
        (Value::Array(written), Value::Array(read)) => {
            for (number, (written, read)) in written.iter().zip(read).enumerate() {
                unknown_fields(&format!("{path}[{number}]"), written, read, found);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        _ => false,
    }
}
