//! Settings in the spec of a pod: variables, and where it stages songs and stems.

use k8s_openapi::api::core::v1::PodSpec;
use separation_contract::environment::{OUTPUT_DIR, S3_STAGING, TEMP_DIR};

use crate::names::WORK_VOLUME;
use crate::plan::{SharedVolume, Staging};

/// The staging storage of a pod; `None` if it has none that the operator writes.
pub(super) fn staging(pod: &PodSpec) -> Option<Staging> {
    if let Some(address) = variable(pod, S3_STAGING) {
        let (bucket, prefix) = address.strip_prefix("s3://")?.split_once('/')?;
        return Some(Staging::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        });
    }
    let mut claims = pod
        .volumes
        .iter()
        .flatten()
        .filter(|volume| volume.name == WORK_VOLUME);
    let claim = claims.next()?.persistent_volume_claim.as_ref()?;
    let directory = |name| Some(variable(pod, name)?.rsplit_once('/')?.1.to_owned());
    Some(Staging::SharedVolume(SharedVolume {
        claim_name: claim.claim_name.clone(),
        input_directory: directory(TEMP_DIR)?,
        output_directory: directory(OUTPUT_DIR)?,
    }))
}

/// The value of an environment variable.
pub(super) fn variable<'a>(pod: &'a PodSpec, name: &str) -> Option<&'a str> {
    let mut environment = pod
        .containers
        .iter()
        .flat_map(|container| container.env.iter().flatten());
    environment
        .find(|variable| variable.name == name)?
        .value
        .as_deref()
}
