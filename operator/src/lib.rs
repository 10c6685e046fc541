//! Scales separation workers by Kafka consumer lag.
//!
//! Modules; each imports only from those above it. Data flows `crd -> plan`, then in a loop
//! `observe -> decide -> apply -> status`, driven by `reconcile`.
//!
//! | module | contains | must not |
//! |---|---|---|
//! | [`names`] | labels, annotations, and a marker in values that nest too deeply | import another module of this crate |
//! | [`decide`] | how many workers, and why: a pure function | import Kafka, Kubernetes or a clock |
//! | [`clock`] | the time that decisions take as an argument | be read by a decision |
//! | [`crd`] | the custom resource as users write it, and its schema | decide, or do I/O |
//! | [`plan`] | validates a custom resource into a plan that later code does not check again | guess intent |
//! | [`settings`] | the operator's own settings | let other modules read the environment |
//! | [`metrics`] | Prometheus metrics with bounded labels | be read by a decision |
//! | [`observe`] | readings of Kafka and the Kubernetes cluster | read unknown as zero |
//! | [`apply`] | the objects to write to the cluster, as values | choose replicas, or call the API server |
//! | [`status`] | a pool's status and conditions, and when to write them | decide replicas |
//! | [`health`] | the HTTP endpoint for probes and metrics | depend on Kafka or on leadership |
//! | [`lease`] | leader election, and the fence before every write | compare with another process's clock |
//! | [`api`] | the Kubernetes API client: counts failures, bounds responses | change a request |
//! | [`watch`] | a small cache of watched objects | decide |
//! | [`events`] | Kubernetes events, and how often each is written | repeat an event within its interval |
//! | [`reconcile`] | the controller: joins all of the above | hold rules that a pure function could hold |

pub mod api;
pub mod apply;
pub mod clock;
pub mod crd;
pub mod decide;
pub mod events;
pub mod health;
pub mod lease;
pub mod metrics;
pub mod names;
pub mod observe;
pub mod plan;
pub mod reconcile;
pub mod settings;
pub mod status;
pub mod watch;
