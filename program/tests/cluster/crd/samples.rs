//! A real API server accepts the sample pools.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::rig::{Rig, post};

/// The samples for a cluster, by file name.
pub(super) fn samples() -> Vec<(String, Value)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/samples");
    let files = fs::read_dir(directory).expect("samples");
    let mut samples: Vec<_> = files
        .map(|file| {
            let path = file.expect("an entry").path();
            let text = fs::read_to_string(&path).expect("text");
            let name = path.file_name().expect("a name").to_string_lossy();
            let pool: Value = serde_saphyr::from_str(&text).expect("YAML");
            (name.into_owned(), pool)
        })
        // Without Kafka it is only for `separation-operator local`.
        .filter(|(_, pool)| !pool["spec"]["kafka"].is_null())
        .collect();
    samples.sort_by(|one, other| one.0.cmp(&other.0));
    assert!(!samples.is_empty());
    samples
}

#[tokio::test]
async fn every_sample_is_accepted_as_it_is() {
    let rig = Rig::new().await;
    for (_, mut pool) in samples() {
        pool["metadata"]["namespace"] = rig.namespace.as_str().into();
        let strictly = format!("{}?dryRun=All&fieldValidation=Strict", rig.pools());
        post(strictly, &pool).accepted(&rig.admin).await;
    }
}
