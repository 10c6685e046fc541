//! Real servers for tests: Kafka brokers, a Kubernetes control plane, an S3 server, an HTTP receiver, a TCP
//! proxy, an OAuth token endpoint and a server with the API of AWS's STS; also songs, the rendered chart, generated
//! files, and the processes under test.
//!
//! Servers listen on loopback ports, or at addresses that the pods of a [`Node`] reach, and keep their data
//! in a temporary directory. Every process started here ends with the process that started it, even if that
//! is killed: see [`Process`]. This crate is independent of `separation` and is never part of a shipped
//! program.

mod background;
mod certificates;
mod chart;
mod cluster;
mod components;
mod custom_resource;
mod eventually;
mod generated;
mod guides;
mod https;
mod jwt;
mod kafka;
mod kubernetes;
mod node;
mod oauth;
mod ports;
mod process;
mod program;
mod proxy;
mod readme;
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
pub use cluster::{Cluster, ClusterOptions, ContainerExit, Event, Pod, PodHistory};
pub use components::{Components, no_node};
pub use custom_resource::custom_resource_reference;
pub use eventually::{Condition, eventually};
pub use generated::check_generated;
pub use guides::{GuideBlock, Mark, guide, guides};
pub use kafka::{AUTHORIZER, Group, Kafka, KafkaOauth, KafkaOptions, Member, PartitionLag, Record, Security};
pub use kubernetes::{ApiRequest, ControlPlane, ControlPlaneOptions, Server};
pub use node::{ContainerLog, Machine, MachineNetwork, Node};
pub use oauth::{OauthRequest, TokenServer};
pub use process::Process;
pub use proxy::{Replacement, TcpProxy};
pub use readme::{code_blocks, readme_block, readme_blocks, shell_blocks};
pub use receiver::{Receiver, Reply, Request};
pub use reference::reference;
pub use s3::{Object, S3Server};
pub use site::{Site, task_message};
pub use song::{song, tiny_song};
pub use sts::{AssumedRole, Sts};
pub use temp_directory::TempDirectory;
pub use uvr5::Uvr5Program;
pub use worker::{LogLine, Worker, WorkerOptions};
