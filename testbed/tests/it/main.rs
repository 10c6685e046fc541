//! The testbed's own promises.

mod brokers;
mod leftovers;
mod objects;
