//! The operator against real parts.

mod kafka_lag;
