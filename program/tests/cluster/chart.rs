//! A real API server accepts the objects of the Helm chart.

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind, TypeMeta};
use separation_testbed::Release;
use serde_json::json;

use crate::rig::Rig;

#[tokio::test]
async fn every_object_is_accepted_as_it_is() {
    let rig = Rig::new().await;
    let release = Release {
        namespace: rig.namespace.clone(),
        ..Release::default()
    };
    let values = json!({
        "rbac": {"aggregate": true},
        "networkPolicy": {"enabled": true},
        "identity": {
            "audiences": ["kafka"],
            "serviceAccounts": [{"namespace": rig.namespace, "name": "vocals"}],
        },
    });
    let listed = json!({"watchNamespaces": [rig.namespace]});
    for values in [json!({}), values, listed] {
        let objects = release.render(&values).expect("a chart");
        assert!(objects.len() > 7);
        for object in objects {
            let types: TypeMeta = serde_json::from_value(object.clone()).expect("a kind");
            let kind = ApiResource::from_gvk(&GroupVersionKind::try_from(&types).expect("a kind"));
            let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
                Some(namespace) => Api::namespaced_with(rig.admin.clone(), namespace, &kind),
                None => Api::all_with(rig.admin.clone(), &kind),
            };
            let name = object["metadata"]["name"].as_str().expect("a name");
            let strictly = PatchParams::apply("tests").force().validation_strict();
            // Pods are refused without their service account; all other objects are applied as a dry run.
            let strictly = match types.kind.as_str() {
                "ServiceAccount" => strictly,
                _ => strictly.dry_run(),
            };
            let accepted = api.patch(name, &strictly, &Patch::Apply(&object)).await;
            assert!(accepted.is_ok(), "{} {name}: {accepted:?}", types.kind);
        }
    }
}
