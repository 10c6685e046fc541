//! Applies the manifests in `deploy/operator` for a test: the operator of every test has exactly the permissions that
//! they grant.

use std::fs;
use std::path::Path;

use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind, TypeMeta};
use separation_testbed::ApiRequest;
use serde_json::{Value, json};

use crate::rig::Rig;

/// Name of the operator's service account.
const ACCOUNT: &str = "separation-operator";

/// Namespace of the operator that manages a namespace.
pub(crate) fn system(namespace: &str) -> String {
    format!("{namespace}-system")
}

/// Grants an operator the permissions for the pools of one namespace.
pub(crate) async fn install_for_one(admin: &Client, namespace: &str) {
    for file in ["namespace.yaml", "lease-role.yaml", "one-namespace/rbac.yaml"] {
        install(admin, file, namespace).await;
    }
}

/// Grants an operator the permissions for all pools.
pub(crate) async fn install_for_all(admin: &Client, namespace: &str) {
    for file in ["namespace.yaml", "lease-role.yaml", "cluster-role.yaml"] {
        install(admin, file, namespace).await;
    }
}

/// Applies one file, with the namespaces of the test.
pub(crate) async fn install(admin: &Client, file: &str, namespace: &str) {
    for object in objects(file, namespace) {
        apply(admin, &object).await;
    }
}

/// Grants another service account the same permissions and returns its token.
pub(crate) async fn second_account(rig: &Rig, name: &str) -> String {
    let system = system(&rig.namespace);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
                         "metadata": {"name": name, "namespace": system}});
    apply(&rig.admin, &account).await;
    for file in ["lease-role.yaml", "one-namespace/rbac.yaml"] {
        let objects = objects(file, &rig.namespace).into_iter();
        for mut binding in objects.filter(|object| object["kind"] == "RoleBinding") {
            binding["metadata"]["name"] = json!(name);
            binding["subjects"][0]["name"] = json!(name);
            apply(&rig.admin, &binding).await;
        }
    }
    rig.plane.token_for(&system, name).await.expect("a token")
}

/// The operator's user, as the audit log names it.
pub(crate) fn user(namespace: &str) -> String {
    user_named(namespace, ACCOUNT)
}

/// A user of the operator's namespace.
pub(crate) fn user_named(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{}:{account}", system(namespace))
}

/// Writes of a user, except of the lease.
pub(crate) fn writes_of(rig: &Rig, user: &str) -> Vec<ApiRequest> {
    let requests = rig.plane.requests().expect("an audit log").into_iter();
    requests
        .filter(|request| request.user == user && request.writes() && request.resource != "leases")
        .collect()
}

/// Writes of the test's operator, except of the lease.
pub(crate) fn writes(rig: &Rig) -> Vec<ApiRequest> {
    writes_of(rig, &user(&rig.namespace))
}

/// The objects of a file.
pub(crate) fn objects(file: &str, namespace: &str) -> Vec<Value> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/operator");
    let text = fs::read_to_string(directory.join(file)).expect("a manifest");
    let text = text
        .replace("namespace: media", &format!("namespace: {namespace}"))
        .replace("separation-system", &system(namespace));
    serde_saphyr::from_multiple(&text).expect("YAML")
}

/// Applies an object as a user would.
pub(crate) async fn apply(admin: &Client, object: &Value) {
    let types: TypeMeta = serde_json::from_value(object.clone()).expect("a kind");
    let kind = ApiResource::from_gvk(&GroupVersionKind::try_from(&types).expect("a kind"));
    let objects: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(admin.clone(), namespace, &kind),
        None => Api::all_with(admin.clone(), &kind),
    };
    let name = object["metadata"]["name"].as_str().expect("a name");
    let params = PatchParams::apply("tests").force().validation_strict();
    objects
        .patch(name, &params, &Patch::Apply(object))
        .await
        .unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// The token of the operator's service account.
pub(crate) async fn token(plane: &separation_testbed::ControlPlane, namespace: &str) -> String {
    let system = system(namespace);
    plane.token_for(&system, ACCOUNT).await.expect("a token")
}
