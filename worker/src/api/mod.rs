//! The HTTP API: accepts songs as links or files, queues their tasks, reports their status.
//!
//! A song is staged before its task is queued, and removed if the task is certainly not queued. Songs are streamed,
//! never held in memory. There is no database: the status is read from the queue, the staging and the bucket of
//! finished stems. Must never call an address that `outbound` has not checked.

mod access_log;
mod api_keys;
mod app;
mod arguments;
mod clients;
mod docs;
mod handlers;
mod intake;
mod kafka_queue;
mod openapi;
mod origin;
mod page;
mod problem;
mod requests;
mod role;
mod router;
mod session_token;
mod slots;
mod staged_files;
mod status;
mod traits;
mod upload;
mod v1;

pub use app::App;
pub use arguments::{ApiArguments, ApiSettings};
pub use clients::{Client, Clients, parse_basic};
pub use kafka_queue::KafkaQueue;
pub use openapi::document;
pub use requests::{GenerateRequest, MAX_JSON_BYTES, RequestError, parse_address, parse_generate};
pub use role::{ApiPlan, run, serve_until};
pub use staged_files::StagedFiles;
pub use traits::{QueueError, QueueProgress, TaskFiles, TaskQueue};
pub use v1::{Clock, Deliverer, V1Settings};
