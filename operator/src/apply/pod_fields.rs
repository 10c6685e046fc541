//! The typed fields of a role's pods, merged over our pod template.

use std::collections::BTreeMap;

use k8s_openapi::DeepMerge as _;
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::layout::CONTAINER;
use crate::crd::PodFields;

/// Requests or limits.
type Amounts = Option<BTreeMap<String, Quantity>>;

/// `base` with the fields that `fields` has.
pub(super) fn with(mut base: PodTemplateSpec, fields: &PodFields) -> PodTemplateSpec {
    if let (Some(requested), Some(ours)) = (&fields.resources, worker_mut(&mut base)) {
        drop_replaced_requests(ours, requested);
    }
    let list = |items: &[_]| (!items.is_empty()).then(|| items.to_vec());
    base.merge_from(PodTemplateSpec {
        metadata: None,
        spec: Some(PodSpec {
            node_selector: (!fields.node_selector.is_empty()).then(|| fields.node_selector.clone()),
            tolerations: list(&fields.tolerations),
            affinity: fields.affinity.clone(),
            service_account_name: fields.service_account_name.clone(),
            image_pull_secrets: (!fields.image_pull_secrets.is_empty())
                .then(|| fields.image_pull_secrets.clone()),
            priority_class_name: fields.priority_class_name.clone(),
            containers: vec![Container {
                name: CONTAINER.into(),
                resources: fields.resources.clone(),
                env: (!fields.env.is_empty()).then(|| fields.env.clone()),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
    });
    base
}

/// Cores of the worker's container, rounded up: its limit, else its request.
pub(super) fn cores(template: &PodTemplateSpec) -> Option<u32> {
    let resources = worker(template.spec.as_ref()?)?.resources.as_ref()?;
    let of = |amounts: &Amounts| amounts.as_ref()?.get("cpu").cloned();
    let Quantity(amount) = of(&resources.limits).or_else(|| of(&resources.requests))?;
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

/// Removes our requests of resources that the pool requests or limits: a limit below our request would be refused.
pub(super) fn drop_replaced_requests(ours: &mut Container, requested: &ResourceRequirements) {
    let requests = ours
        .resources
        .as_mut()
        .and_then(|resources| resources.requests.as_mut());
    if let Some(requests) = requests {
        requests.retain(|name, _| {
            let has = |amounts: &Amounts| amounts.as_ref().is_some_and(|amounts| amounts.contains_key(name));
            !has(&requested.requests) && !has(&requested.limits)
        });
    }
}
