//! The typed fields of a role's pods, merged over our pod template.

use k8s_openapi::DeepMerge as _;
use k8s_openapi::api::core::v1::{Affinity, Container, EnvVar, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::layout::CONTAINER;
use crate::crd::PodFields;

/// The fields that have no schema in the CRD.
pub(super) struct ParsedFields {
    pub(super) affinity: Option<Affinity>,
    pub(super) env: Vec<EnvVar>,
}

/// `base` with the fields that `fields` has; those without a schema are taken from the parsed ones.
pub(super) fn with(
    mut base: PodTemplateSpec,
    fields: &PodFields,
    ParsedFields { affinity, env }: ParsedFields,
) -> PodTemplateSpec {
    let list = |items: &[_]| (!items.is_empty()).then(|| items.to_vec());
    base.merge_from(PodTemplateSpec {
        metadata: None,
        spec: Some(PodSpec {
            node_selector: (!fields.node_selector.is_empty()).then(|| fields.node_selector.clone()),
            tolerations: list(&fields.tolerations),
            affinity,
            service_account_name: fields.service_account_name.clone(),
            image_pull_secrets: (!fields.image_pull_secrets.is_empty())
                .then(|| fields.image_pull_secrets.clone()),
            priority_class_name: fields.priority_class_name.clone(),
            containers: vec![Container {
                name: CONTAINER.into(),
                resources: fields.resources.clone(),
                env: (!env.is_empty()).then_some(env),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
    });
    base
}

/// Cores that the pool gives the worker's container, rounded up: its limit, else its request.
pub(super) fn cores(template: &PodTemplateSpec) -> Option<u32> {
    let resources = worker(template.spec.as_ref()?)?.resources.as_ref()?;
    let mut given = [&resources.limits, &resources.requests].into_iter().flatten();
    let Quantity(amount) = given.find_map(|amounts| amounts.get("cpu"))?;
    let cores: f64 = match amount.strip_suffix('m') {
        Some(millis) => millis.parse::<f64>().ok()? / 1_000.0,
        None => amount.parse().ok()?,
    };
    // Saturates; the worker accepts at most 256 threads.
    Some((cores.ceil() as u32).clamp(1, 256))
}

/// The worker's container.
pub(super) fn worker(pod: &PodSpec) -> Option<&Container> {
    pod.containers.iter().find(|container| is_worker(container))
}

/// The worker's container, to be changed.
pub(super) fn worker_mut(template: &mut PodTemplateSpec) -> Option<&mut Container> {
    let containers = &mut template.spec.as_mut()?.containers;
    containers.iter_mut().find(|container| is_worker(container))
}

fn is_worker(container: &Container) -> bool {
    container.name == CONTAINER
}

/// Requests of a worker's container.
pub(super) struct DefaultRequests {
    pub(super) cpu: &'static str,
    pub(super) memory: &'static str,
}

/// Adds requests of resources that the pool neither requests nor limits: a limit below a request would be refused.
pub(super) fn add_default_requests(template: &mut PodTemplateSpec, defaults: &DefaultRequests) {
    let Some(worker) = worker_mut(template) else {
        return;
    };
    let resources = worker.resources.get_or_insert_default();
    for (name, amount) in [("cpu", defaults.cpu), ("memory", defaults.memory)] {
        let limits = resources.limits.as_ref();
        if !limits.is_some_and(|limits| limits.contains_key(name)) {
            let requests = resources.requests.get_or_insert_default();
            let request = requests.entry(name.to_owned());
            request.or_insert_with(|| Quantity(amount.to_owned()));
        }
    }
}
