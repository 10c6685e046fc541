//! Names that the operator and the cluster share: labels, annotations, who we are.

/// Who writes: the name under which the API server keeps what is ours.
pub const FIELD_MANAGER: &str = "separation-operator";

/// Prefix of the labels and annotations that only the operator sets.
pub const OWN_PREFIX: &str = "separation.dev/";

/// Label of everything that belongs to a pool.
pub const POOL_LABEL: &str = "separation.dev/pool";

/// Label of a role.
pub const ROLE_LABEL: &str = "separation.dev/role";

/// Annotation that Kubernetes compares when it chooses pods to delete; lower goes first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The cost of a pod that goes first. Pods without the annotation count as 0.
pub const MARKED_COST: &str = "-1000";

/// Annotation of our Deployments: what the manifest was made of, replicas aside.
pub const MANIFEST_HASH: &str = "separation.dev/manifest-hash";

/// Annotation of our pods: a hash of the Secrets' contents that they were started with.
pub const SECRETS_HASH: &str = "separation.dev/secrets-hash";
