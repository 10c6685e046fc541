//! Real parts for tests: Kafka brokers, a Kubernetes control plane, an S3 server, an HTTP receiver, a TCP proxy, songs,
//! the rendered chart, and the processes under test.
//!
//! Every server is a real one on loopback ports, or where the pods of a [`Node`] reach it, with its data in a temporary
//! folder. Whatever is started here ends with the process that started it, also when that is killed: see [`Process`].
//! Nothing here knows how separation works, and nothing here belongs into a program that is shipped.

mod background;
mod certificates;
mod chart;
mod cluster;
mod eventually;
mod folder;
mod kafka;
mod kubernetes;
mod node;
mod parts;
mod peer;
mod ports;
mod process;
mod program;
mod proxy;
mod readme;
mod receiver;
mod s3;
mod service;
mod site;
mod song;
mod worker;

pub use chart::{Release, chart_with_definition};
pub use cluster::{Cluster, ClusterOptions, Ended, Event, Pod, PodHistory};
pub use eventually::{Answer, eventually};
pub use folder::Folder;
pub use kafka::{AUTHORIZER, Group, Kafka, KafkaOptions, Member, PartitionLag, Record, Security};
pub use kubernetes::{ApiRequest, ControlPlane, ControlPlaneOptions, Server};
pub use node::{ContainerLog, Machine, Node, Place};
pub use parts::{Parts, no_node};
pub use peer::Peer;
pub use process::Process;
pub use proxy::{Replacement, TcpProxy};
pub use readme::{readme_block, readme_blocks, shell_blocks};
pub use receiver::{Receiver, Reply, Request};
pub use s3::{Object, S3Server};
pub use site::{Site, task_message};
pub use song::{song, tiny_song};
pub use worker::{LogLine, Worker, WorkerOptions};
