//! Tests of the testbed itself.

#![allow(clippy::unwrap_used, reason = "an error fails the test")]

mod brokers;
mod control_planes;
mod credentials;
mod http;
mod leftovers;
mod objects;
mod proxies;
mod uvr5;
mod workers;
