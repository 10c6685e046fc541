//! The controller: joins readings, decisions and writes.
//!
//! One task holds all state and sends no request itself: watch events, readings of Kafka and results of writes arrive
//! as events, and work is started as jobs. It is level-triggered: it acts on the current state, not on the event that
//! woke it, so lost or repeated events change nothing. While another replica leads, it only follows the watches.
//!
//! `event_loop` batches events; `leader` holds the state; `pass` reconciles one pool in the steps validate, observe, decide,
//! apply, report; `jobs` runs the writes, which `api_writer` sends; `outcome` applies their results. `identity` decides with
//! whose credentials `clusters` reads Kafka, and `account_tokens` requests tokens of service accounts for that.

mod account_tokens;
mod api;
mod api_objects;
mod api_state;
mod api_writer;
mod clusters;
mod conflicts;
mod event_loop;
mod group_offsets;
mod identity;
mod jobs;
mod leader;
mod learning;
mod operator;
mod outcome;
mod pass;
mod pool;
mod retry;
mod role;
mod rollout;
mod secrets;
mod staging;

pub use conflicts::{WorkerIds, foreign_members};
pub use event_loop::{WATCHED_KINDS, WatchEnded};
pub use operator::Operator;
