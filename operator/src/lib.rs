//! Scales separation workers by Kafka consumer lag.
//!
//! Rooms; each imports only from those above it. Data flows `crd -> plan`, then round and round
//! `observe -> decide -> apply -> status`, joined in `reconcile`.
//!
//! | room | does | must never |
//! |---|---|---|
//! | [`names`] | labels and annotations | know what they are for |
//! | [`decide`] | how many workers, and why: a plain function | know Kafka, Kubernetes or a clock |
//! | [`clock`] | time as decisions count it | be asked by a decision |
//! | [`crd`] | the resource as people write it, and its schema | decide or read anything |
//! | [`plan`] | checks a resource and makes what no later code doubts | guess what was meant |
//! | [`settings`] | the operator's own settings | be the second place that reads the environment |
//! | [`kafka`] | a small Kafka client: offsets, groups, descriptions | consume, produce, or wait beyond a deadline |
//! | [`observe`] | what is seen in Kafka and the cluster | read what is unknown as zero |
//! | [`apply`] | what is written to the cluster, as values | decide how many, or talk to a cluster |
//! | [`status`] | what is said about a pool, and when | decide anything |
//! | [`metrics`] | what Prometheus is told, with bounded labels | be asked by a decision |
//! | [`health`] | what probes and Prometheus are answered | depend on Kafka or on who leads |
//! | [`lease`] | which replica leads, and the fence before every write | read another's clock |
//! | [`api`] | the client of the Kubernetes API, its failures counted and its answers bounded | change a request |
//! | [`watch`] | what the API server tells, kept small | decide anything |
//! | [`reconcile`] | where all of this is joined | hold rules that a plain function could hold |
//! | [`events`] | what people are told as it happens, and how often | say the same again and again |
//! | [`simulate`] | a made-up pool under the real decisions | have rules of its own |
//! | [`local`] | the same pool on one machine, with processes in place of pods | have rules of its own |
//! | [`cli`] | arguments, reports, exit codes | be used by another room |

pub mod api;
pub mod apply;
pub mod cli;
pub mod clock;
pub mod crd;
pub mod decide;
pub mod events;
pub mod health;
pub mod kafka;
pub mod lease;
#[cfg(feature = "local")]
pub mod local;
pub mod metrics;
pub mod names;
pub mod observe;
pub mod plan;
pub mod reconcile;
pub mod settings;
pub mod simulate;
pub mod status;
pub mod watch;
