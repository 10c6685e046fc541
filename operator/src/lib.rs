//! Scales separation workers by Kafka consumer lag.
//!
//! Rooms; each imports only from those above it. Data flows `crd -> plan`, then round and round
//! `observe -> decide -> apply -> status`.
//!
//! | room | does | must never |
//! |---|---|---|
//! | [`names`] | labels and annotations | know what they are for |
//! | [`decide`] | how many workers, and why: a plain function | know Kafka, Kubernetes or a clock |
//! | [`crd`] | the resource as people write it, and its schema | decide or read anything |
//! | [`plan`] | checks a resource and makes what no later code doubts | guess what was meant |
//! | [`apply`] | what is written to the cluster, as values | decide how many |
//! | [`observe`] | what is seen in Kafka and the cluster | read what is unknown as zero |
//! | [`settings`] | the operator's own settings | be the second place that reads the environment |
//! | [`lease`] | which replica leads, and the fence before every write | read another's clock |
//! | [`apply`] | what is written to the cluster, as values | decide how many, or talk to a cluster |
//! | [`metrics`] | what is counted and measured | have labels without bounds |
//! | [`health`] | tells probes and Prometheus how the process is | ask Kafka or the API server |
//! | [`status`] | what is said about a pool, and when | decide anything |
//! | [`events`] | what people are told as it happens, and how often | say the same again and again |
//! | [`simulate`] | a made-up pool under the real decisions | have rules of its own |
//! | [`cli`] | arguments, reports, exit codes | be used by another room |

pub mod apply;
pub mod cli;
pub mod crd;
pub mod decide;
pub mod events;
pub mod health;
pub mod lease;
pub mod metrics;
pub mod names;
pub mod observe;
pub mod plan;
pub mod settings;
pub mod simulate;
pub mod status;
