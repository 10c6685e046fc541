//! Names and labels of a pool's Deployments and pods.

use std::collections::BTreeMap;

use crate::names::{FIELD_MANAGER, POOL_LABEL, ROLE_LABEL};
use crate::plan::{PoolId, PoolPlan, Role};

/// Name of a role's Deployment.
pub fn deployment_name(pool: &PoolId, role: Role) -> String {
    format!("{}-{role}", pool.name)
}

/// Selector labels of a role's pods. They never change: the API server refuses a change.
pub fn selector(plan: &PoolPlan, role: Role) -> BTreeMap<String, String> {
    component_selector(&plan.id, role.name())
}

/// Selector labels of the pods of a pool's role or API.
pub(super) fn component_selector(pool: &PoolId, component: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (POOL_LABEL.to_owned(), pool.name.clone()),
        (ROLE_LABEL.to_owned(), component.to_owned()),
    ])
}

pub(super) fn labels(plan: &PoolPlan, role: Role) -> BTreeMap<String, String> {
    component_labels(&plan.id, role.name())
}

/// Labels of the objects of a pool's role or API.
pub(super) fn component_labels(pool: &PoolId, component: &str) -> BTreeMap<String, String> {
    let mut labels = component_selector(pool, component);
    labels.extend([
        (
            "app.kubernetes.io/name".to_owned(),
            "separation-worker".to_owned(),
        ),
        ("app.kubernetes.io/instance".to_owned(), pool.name.clone()),
        ("app.kubernetes.io/component".to_owned(), component.to_owned()),
        (
            "app.kubernetes.io/managed-by".to_owned(),
            FIELD_MANAGER.to_owned(),
        ),
    ]);
    labels
}
