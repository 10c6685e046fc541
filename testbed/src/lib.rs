//! Real parts for tests: Kafka brokers, a Kubernetes control plane, an S3 server, an HTTP receiver, a TCP proxy, songs,
//! the rendered chart, and the processes under test.
//!
//! Every server is a real one on loopback ports, with its data in a temporary folder. Whatever is started here ends
//! with the process that started it, also when that is killed: see [`Process`]. Nothing here knows how separation
//! works, and nothing here belongs into a program that is shipped.

mod background;
mod certificates;
mod chart;
mod eventually;
mod folder;
mod kafka;
mod kubernetes;
mod parts;
mod peer;
mod ports;
mod process;
mod proxy;
mod receiver;
mod s3;
mod site;
mod song;
mod worker;

pub use chart::Release;
pub use eventually::{Answer, eventually};
pub use folder::Folder;
pub use kafka::{Group, Kafka, KafkaOptions, Member, PartitionLag, Record, Security};
pub use kubernetes::{ApiRequest, ControlPlane, ControlPlaneOptions, Server};
pub use parts::Parts;
pub use peer::Peer;
pub use process::Process;
pub use proxy::TcpProxy;
pub use receiver::{Receiver, Reply, Request};
pub use s3::{Object, S3Server};
pub use site::{Site, task_message};
pub use song::{song, tiny_song};
pub use worker::{LogLine, Worker, WorkerOptions};
