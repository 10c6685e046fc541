//! Real parts for tests: Kafka brokers, an S3 server, an HTTP receiver, a TCP proxy, songs, and the processes under test.
//!
//! Every server is a real one on loopback ports, with its data in a temporary folder. Whatever is started here ends
//! with the process that started it, also when that is killed: see [`Process`]. Nothing here knows how separation
//! works, and nothing here belongs into a program that is shipped.

mod background;
mod eventually;
mod folder;
mod kafka;
mod parts;
mod ports;
mod process;
mod s3;

pub use eventually::{Answer, eventually};
pub use folder::Folder;
pub use kafka::{Group, Kafka, KafkaOptions, Member, PartitionLag, Record, Security};
pub use parts::Parts;
pub use process::Process;
pub use s3::{Object, S3Server};
