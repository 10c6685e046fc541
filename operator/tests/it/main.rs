//! The operator against real parts.

mod chart;
mod images;
mod kafka_answers;
mod kafka_faults;
mod kafka_lag;
mod kafka_login;
mod kafka_offsets;
mod manifests;
mod reading;
mod scripted;
