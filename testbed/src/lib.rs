//! Real servers for tests: Kafka brokers, a Kubernetes control plane, an S3 server, an HTTP receiver, a TCP
//! proxy, an OAuth token endpoint, a server with the API of AWS's STS, and Prometheus; also songs, the rendered chart, its
//! alerts and dashboard, generated files, and the processes under test.
//!
//! Servers listen on loopback ports, or at addresses that the pods of a [`Node`] reach, and keep their data
//! in a temporary directory. Every process started here ends with the process that started it, even if that
//! is killed: see [`Process`]. This crate is independent of `separation` and is never part of a shipped
//! program.

mod background;
mod certificates;
mod chart;
#[cfg(test)]
mod chart_values;
mod cluster;
mod components;
mod custom_resource;
mod documents;
mod eventually;
mod generated;
mod guides;
mod https;
mod jwt;
mod kafka;
mod kubernetes;
mod monitoring;
mod node;
mod oauth;
mod ports;
mod process;
mod program;
mod prometheus;
mod proxy;
mod receiver;
mod reference;
mod s3;
mod service;
mod site;
mod song;
mod sts;
mod temp_directory;
mod uvr5;
mod worker;

pub use chart::{Release, chart_with_crd};
pub use cluster::{Cluster, ClusterOptions, ContainerExit, Event, NameServer, Pod, PodHistory};
pub use components::{Components, no_node};
pub use custom_resource::custom_resource_reference;
pub use documents::{code_blocks, documented_commands, readme_block, shell_blocks};
pub use eventually::{Condition, eventually};
pub use generated::check_generated;
pub use guides::{GuideBlock, Mark, guide, guides};
pub use kafka::{AUTHORIZER, Group, Kafka, KafkaOauth, KafkaOptions, Member, PartitionLag, Record, Security};
pub use kubernetes::{ApiRequest, ControlPlane, ControlPlaneOptions, Server};
pub use monitoring::{AlertRule, MetricsOf, Monitoring, PanelQuery, documented_metrics, metrics_in};
pub use node::{ContainerLog, Machine, MachineNetwork, Node};
pub use oauth::{OauthRequest, TokenServer};
pub use process::Process;
pub use prometheus::{Alert, Prometheus, Series};
pub use proxy::{Replacement, TcpProxy};
pub use receiver::{Receiver, Reply, Request};
pub use reference::reference;
pub use s3::{Object, S3Server};
pub use site::{Site, task_message};
pub use song::{song, tiny_song};
pub use sts::{AssumedRole, Sts};
pub use temp_directory::TempDirectory;
pub use uvr5::Uvr5Program;
pub use worker::{LogLine, Worker, WorkerOptions};
