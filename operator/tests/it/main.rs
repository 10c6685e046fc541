//! Integration tests of the operator with real Kafka, Helm and image definitions.

mod alerts;
mod chart;
mod guides;
mod images;
mod kafka_access;
mod kafka_authentication;
mod kafka_consumer_protocol;
mod kafka_faults;
mod kafka_lag;
mod kafka_offsets;
mod kafka_queue;
mod kafka_responses;
mod kafka_versions;
mod manifests;
mod reading;
mod scripted;
mod scripted_cluster;
