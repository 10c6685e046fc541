//! The HTTP API: takes songs as links or files, queues their tasks, tells what became of them.
//!
//! A song is kept before its task is queued, and a task that is certainly not queued leaves no song behind. Holds no song in memory,
//! keeps no database: what it tells it reads from the queue and from what lies beside songs and stems. Must never call
//! an address that `outbound` has not checked.

mod access;
mod app;
mod arguments;
mod borders;
mod handlers;
mod intake;
mod kafka_queue;
mod openapi;
mod page;
mod problem;
mod requests;
mod role;
mod staged_files;
mod status;
mod upload;

pub use access::{Access, parse_basic};
pub use app::App;
pub use arguments::{ApiArguments, ApiSettings};
pub use borders::{QueueError, QueueProgress, TaskFiles, TaskQueue};
pub use kafka_queue::KafkaQueue;
pub use openapi::document;
pub use requests::{GenerateRequest, MAX_JSON_BYTES, RequestError, parse_address, parse_generate};
pub use role::{ApiPlan, run, serve_until};
pub use staged_files::StagedFiles;
