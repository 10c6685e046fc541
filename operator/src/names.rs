//! Names that the operator shares with the cluster: field manager, labels, annotations, Kafka client ids.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// Name of the shared volume in a worker's pod.
pub const WORK_VOLUME: &str = "work";

/// The field manager of the operator's server-side applies.
pub const FIELD_MANAGER: &str = "separation-operator";

/// The reason of a problem: a topic does not exist, and the operator cannot create it.
pub const TOPIC_MISSING: &str = "TopicMissing";

/// Prefix of the labels and annotations that only the operator sets.
pub const OWN_PREFIX: &str = "separation.dev/";

/// Label of every object that belongs to a pool; its value is the pool's name.
pub const POOL_LABEL: &str = "separation.dev/pool";

/// Label of a pool's objects; its value is the role.
pub const ROLE_LABEL: &str = "separation.dev/role";

/// The value of [`ROLE_LABEL`] of the HTTP API, and the worker's subcommand.
pub const API_COMPONENT: &str = "api";

/// Label by which Kubernetes distinguishes the pods of a Deployment's ReplicaSets.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Deletion-cost annotation: Kubernetes deletes pods with lower values first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The deletion cost of a scale-down candidate. Pods without the annotation count as 0.
pub const CANDIDATE_COST: &str = "-1000";

/// Annotation of the operator's Deployments: a hash of the manifest without `replicas`.
pub const MANIFEST_HASH: &str = "separation.dev/manifest-hash";

/// Annotation of the workers' pods: a hash of the Secrets' contents that they were started with.
pub const SECRETS_HASH: &str = "separation.dev/secrets-hash";

/// Environment variable of a worker's pod: the pod's name.
pub const POD_NAME: &str = "POD_NAME";

/// Separates a pod's name, which cannot contain it, from the tag of its pool in a Kafka client id.
const BEFORE_TAG: char = '@';

/// The tag of a pool in its workers' Kafka client ids. A pool of the same name in another Kubernetes cluster has
/// another uid, so the tag distinguishes their workers in a shared consumer group.
pub fn pool_tag(pool_uid: &str) -> String {
    hex(&Sha256::digest(pool_uid)[..4])
}

/// The Kafka client id of a worker.
pub fn client_id(pod: &str, pool_tag: &str) -> String {
    format!("{pod}{BEFORE_TAG}{pool_tag}")
}

/// Splits a client id into the pod's name and the pool's tag. Ids of other clients and of older versions have no tag.
pub fn pod_and_tag(client_id: &str) -> (&str, Option<&str>) {
    match client_id.split_once(BEFORE_TAG) {
        Some((pod, tag)) => (pod, Some(tag)),
        None => (client_id, None),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Levels of a response that are decoded. A pod and its managed fields have fewer than 30, a list or a watch adds two.
pub const MAX_DEPTH: usize = 64;

/// Replaces a value below [`MAX_DEPTH`] levels.
pub const TOO_DEEP: &str = "separation.dev/nested-too-deeply";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_split_into_pod_and_tag() {
        let tag = pool_tag("2b7c3a52-8f0e-4f6b-9a39-5d5b0a8f1c11");
        assert_eq!(tag.len(), 8);
        assert_ne!(tag, pool_tag("another"));
        let id = client_id("vocals-processor-5c7-x2x", &tag);
        assert_eq!(pod_and_tag(&id), ("vocals-processor-5c7-x2x", Some(&*tag)));
        assert_eq!(pod_and_tag("rdkafka"), ("rdkafka", None));
    }
}
