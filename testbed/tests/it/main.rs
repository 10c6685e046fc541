//! The testbed's own promises.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod brokers;
mod control_planes;
mod http;
mod leftovers;
mod objects;
mod peers;
mod proxies;
mod workers;
