//! The HTTP API v1: tasks with API keys, idempotency, progress, cancel, erase and private stems.
//!
//! [`request`] and [`view`] decide without I/O; [`tasks`], [`stems`], [`uploads`] and [`session`] are the handlers, which
//! the API's router names; [`creating`] accepts tasks. [`background`] runs [`queueing`], which has songs fetched and
//! publishes tasks, [`deliveries`] of webhooks, and the search for [`overdue`] tasks. Every error is a [`problem`]. There is
//! no database: tasks are objects of `task_store`.

mod attempt_slots;
mod audio_check;
pub(super) mod background;
mod claims;
mod creating;
pub(super) mod deliveries;
mod ending;
pub(super) mod fetching;
mod fields;
mod identity;
mod intake;
mod jobs;
pub(super) mod openapi;
pub(super) mod overdue;
mod paths;
pub(super) mod problem;
pub(super) mod queueing;
mod receiving;
mod refusals;
mod request;
mod schemas;
pub(super) mod session;
mod settings;
mod snapshot;
pub(super) mod state;
pub(super) mod stems;
pub(super) mod tasks;
mod unread;
pub(super) mod uploads;
mod view;

pub use deliveries::{Clock, Deliverer};
pub use settings::V1Settings;
