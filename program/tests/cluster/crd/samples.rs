//! A real API server accepts the sample pools.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::rig::{Rig, post};

#[tokio::test]
async fn every_sample_is_accepted_as_it_is() {
    let rig = Rig::new().await;
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/samples");
    let mut tried = 0;
    for entry in fs::read_dir(samples).expect("samples") {
        let path = entry.expect("an entry").path();
        let mut pool: Value =
            serde_saphyr::from_str(&fs::read_to_string(&path).expect("text")).expect("YAML");
        // It is only for `separation-operator local`.
        if pool["spec"]["kafka"].is_null() {
            continue;
        }
        pool["metadata"]["namespace"] = rig.namespace.as_str().into();
        let strictly = format!("{}?dryRun=All&fieldValidation=Strict", rig.pools());
        post(strictly, &pool).accepted(&rig.admin).await;
        tried += 1;
    }
    assert!(tried > 0);
}
