//! Commits of a group member on an in-process broker that withholds its responses.

use std::time::{Duration, Instant};

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use separation_contract::offset_metadata::OffsetMetadata;
use separation_worker::kafka::{Consumer, Polled, Position};
use separation_worker::telemetry::Metrics;

use crate::service::Rig;

/// How long the broker withholds each response.
const WITHHELD: Duration = Duration::from_secs(1);

/// Timeout of the first message, which the group's first rebalance of 3 s precedes.
const DEADLINE: Duration = Duration::from_secs(20);

/// Begins the processing of the first message.
async fn begin(consumer: &Consumer) -> Position {
    consumer.open();
    let polled = async {
        loop {
            match consumer.poll().await {
                Polled::Message(message) => return message.position,
                Polled::EndOfPartition(_) => {}
                ended => panic!("{ended:?}"),
            }
        }
    };
    let position = tokio::time::timeout(DEADLINE, polled).await.expect("a message");
    assert!(consumer.begin(position.partition).is_some());
    position
}

/// librdkafka repeats a commit after some errors: one whose caller was dropped would then undo a later one.
#[tokio::test]
async fn a_commit_whose_caller_was_dropped_never_undoes_the_next() {
    let rig = Rig::new(&[]);
    rig.publish_task("a").await;
    let (kafka, settings) = rig.settings();
    let consumer = Consumer::join(&kafka, &settings, Metrics::new()).unwrap();
    let position = begin(&consumer).await;
    rig.broker.broker_round_trip_time(-1, WITHHELD).unwrap();
    rig.broker.request_errors(
        RDKafkaApiKey::OffsetCommit,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS],
    );
    let progress = OffsetMetadata::parse("attempt=1;start=9;percent=40");
    let withheld = tokio::time::timeout(WITHHELD / 5, consumer.commit_once(position, &progress));
    assert!(withheld.await.is_err(), "its response is withheld");
    consumer
        .commit(position.next(), &OffsetMetadata::default())
        .await
        .unwrap();
    rig.broker.broker_round_trip_time(-1, Duration::ZERO).unwrap();
    let committed_at = Instant::now();
    while committed_at.elapsed() < WITHHELD {
        assert_eq!(rig.committed(), (Some(1), OffsetMetadata::default()));
    }
    consumer.leave().await;
}
