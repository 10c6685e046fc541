//! Names that the operator and the cluster share: labels, annotations, who we are.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// Who writes: the name under which the API server keeps what is ours.
pub const FIELD_MANAGER: &str = "separation-operator";

/// Prefix of the labels and annotations that only the operator sets.
pub const OWN_PREFIX: &str = "separation.dev/";

/// Label of everything that belongs to a pool.
pub const POOL_LABEL: &str = "separation.dev/pool";

/// Label of a role.
pub const ROLE_LABEL: &str = "separation.dev/role";

/// Label by which Kubernetes tells the pods of a Deployment's ReplicaSets apart.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Annotation that Kubernetes compares when it chooses pods to delete; lower goes first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The cost of a pod that goes first. Pods without the annotation count as 0.
pub const MARKED_COST: &str = "-1000";

/// Annotation of our Deployments: what the manifest was made of, replicas aside.
pub const MANIFEST_HASH: &str = "separation.dev/manifest-hash";

/// Annotation of our pods: a hash of the Secrets' contents that they were started with.
pub const SECRETS_HASH: &str = "separation.dev/secrets-hash";

/// Variable of a worker's pod: the pod's name.
pub const POD_NAME: &str = "POD_NAME";

/// Stands between a pod's name, which cannot contain it, and the tag of its pool in a Kafka client id.
const BEFORE_TAG: char = '@';

/// The tag of a pool in its workers' Kafka client ids: a pool of the same name in another Kubernetes cluster has another
/// uid, so that their workers are told apart in a shared consumer group.
pub fn pool_tag(pool_uid: &str) -> String {
    hex(&Sha256::digest(pool_uid)[..4])
}

/// The Kafka client id of a worker.
pub fn client_id(pod: &str, pool_tag: &str) -> String {
    format!("{pod}{BEFORE_TAG}{pool_tag}")
}

/// The pod's name and the pool's tag of a client id; without a tag where it is not one of ours, or of a version before.
pub fn pod_and_tag(client_id: &str) -> (&str, Option<&str>) {
    match client_id.split_once(BEFORE_TAG) {
        Some((pod, tag)) => (pod, Some(tag)),
        None => (client_id, None),
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_taken_apart_as_it_is_made() {
        let tag = pool_tag("2b7c3a52-8f0e-4f6b-9a39-5d5b0a8f1c11");
        assert_eq!(tag.len(), 8);
        assert_ne!(tag, pool_tag("another"));
        let id = client_id("vocals-processor-5c7-x2x", &tag);
        assert_eq!(pod_and_tag(&id), ("vocals-processor-5c7-x2x", Some(&*tag)));
        assert_eq!(pod_and_tag("rdkafka"), ("rdkafka", None));
    }
}
