//! Kafka, as used by tests.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use separation_testbed::{Kafka, KafkaOptions, eventually};

const TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_record_comes_back_with_key_value_and_headers() {
    let kafka = Kafka::shared().await.unwrap();
    kafka.create_topic("records", 3).await.unwrap();
    let (partition, offset) = kafka
        .publish(
            "records",
            "a key",
            "a value",
            &[("reason", "none"), ("reason", "this")],
        )
        .await
        .unwrap();
    kafka.publish_to("records", 2, "b", "{\"a\": 1}").await.unwrap();
    let records = kafka.consume_all("records").await.unwrap();
    assert_eq!(records.len(), 2);
    let record = records
        .iter()
        .find(|record| record.key_text() == "a key")
        .unwrap();
    assert_eq!((record.partition, record.offset), (partition, offset));
    assert_eq!(
        (record.text(), record.header("reason")),
        ("a value".into(), Some("this".into()))
    );
    let other = records.iter().find(|record| record.key_text() == "b").unwrap();
    assert_eq!((other.partition, &other.json()["a"]), (2, &1.into()));
}

#[tokio::test]
async fn a_groups_members_commits_and_lag_can_be_read() {
    let kafka = Kafka::shared().await.unwrap();
    kafka.create_topic("lagging", 2).await.unwrap();
    for _ in 0..3 {
        kafka.publish_to("lagging", 1, "k", "v").await.unwrap();
    }
    assert_eq!(kafka.total_lag("laggards", "lagging").await.unwrap(), 3);
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("group.id", "laggards")
        .set("client.id", "member-1")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&["lagging"]).unwrap();
    let message = consumer.recv().await.unwrap();
    let mut offsets = rdkafka::TopicPartitionList::new();
    let mut partition = offsets.add_partition("lagging", 1);
    partition.set_offset(rdkafka::Offset::Offset(1)).unwrap();
    partition.set_metadata("attempt 1");
    consumer.commit(&offsets, CommitMode::Sync).unwrap();
    drop(message);
    let lag = kafka.lag("laggards", "lagging").await.unwrap();
    assert_eq!((lag[0].committed, lag[0].lag), (None, 0));
    assert_eq!((lag[1].committed, lag[1].end, lag[1].lag), (Some(1), 3, 2));
    assert_eq!(lag[1].metadata, "attempt 1");
    let group = kafka.group("laggards").await.unwrap();
    assert_eq!(
        (group.state.as_str(), group.assignor.as_str()),
        ("Stable", "range")
    );
    assert_eq!(group.members[0].client_id, "member-1");
    assert_eq!(
        group.members[0].partitions,
        [("lagging".to_owned(), 0), ("lagging".to_owned(), 1)]
    );
    kafka.commit("laggards", "lagging", &[0, 0]).await.unwrap_err();
    drop(consumer);
    eventually("empty group", TIMEOUT, async || {
        anyhow::Ok(kafka.group("laggards").await?.members.is_empty())
    })
    .await;
    kafka.commit("laggards", "lagging", &[0, 3]).await.unwrap();
    assert_eq!(kafka.total_lag("laggards", "lagging").await.unwrap(), 0);
}

#[tokio::test]
async fn topics_grow_and_can_be_recreated() {
    let kafka = Kafka::shared().await.unwrap();
    kafka.create_topic("growing", 1).await.unwrap();
    kafka.publish("growing", "k", "v", &[]).await.unwrap();
    kafka.add_partitions("growing", 4).await.unwrap();
    kafka.publish_to("growing", 3, "k", "v").await.unwrap();
    assert_eq!(kafka.consume_all("growing").await.unwrap().len(), 2);
    kafka.delete_topic("growing").await.unwrap();
    assert!(kafka.consume_all("growing").await.is_err());
    kafka.create_topic("growing", 1).await.unwrap();
    assert_eq!(kafka.consume_all("growing").await.unwrap(), []);
    let refused = kafka.create_topic("growing", 1).await.unwrap_err();
    assert!(
        refused.to_string().contains("cannot create topic growing"),
        "{refused:#}"
    );
}

#[tokio::test]
async fn three_brokers_keep_serving_when_a_leader_is_killed() {
    let kafka = Kafka::start(KafkaOptions {
        brokers: 3,
        ..KafkaOptions::default()
    })
    .await
    .unwrap();
    kafka.create_topic("replicated", 1).await.unwrap();
    kafka.publish("replicated", "1", "one", &[]).await.unwrap();
    let leader = kafka.leader("replicated", 0).await.unwrap().unwrap();
    kafka.kill_broker(leader).await.unwrap();
    eventually("other leader", TIMEOUT, async || {
        let now = kafka.leader("replicated", 0).await?;
        anyhow::Ok(now.is_some_and(|now| now != leader))
    })
    .await;
    kafka.publish("replicated", "2", "two", &[]).await.unwrap();
    kafka.start_broker(leader).await.unwrap();
    kafka.stop_broker(leader).await.unwrap();
    kafka.start_broker(leader).await.unwrap();
    assert_eq!(kafka.consume_all("replicated").await.unwrap().len(), 2);
    assert!(kafka.start_broker(leader).await.is_err());
}

#[tokio::test]
async fn clients_authenticate_with_tls_certificates_and_passwords() {
    let kafka = Kafka::start(KafkaOptions {
        secure: true,
        ..KafkaOptions::default()
    })
    .await
    .unwrap();
    let security = kafka.security();
    let reaches = async |servers: String, settings: &[(&str, &str)]| {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", servers).set("log_level", "0");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        let consumer: StreamConsumer = config.create().unwrap();
        tokio::task::spawn_blocking(move || consumer.fetch_metadata(None, Duration::from_secs(8)).is_ok())
            .await
            .unwrap()
    };
    let ca = security.ca().to_str().unwrap();
    let certificate = security.client_certificate().to_str().unwrap();
    let key = security.client_key().to_str().unwrap();
    let tls = ("ssl.ca.location", ca);
    let ssl = ("security.protocol", "ssl");
    let with_certificate = [
        ssl,
        tls,
        ("ssl.certificate.location", certificate),
        ("ssl.key.location", key),
    ];
    assert!(reaches(kafka.bootstrap_ssl(), &with_certificate).await);
    let credentials = [
        ("sasl.username", security.username()),
        ("sasl.password", security.password()),
    ];
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let sasl = ("sasl.mechanism", mechanism);
        let over_tls = [
            ("security.protocol", "sasl_ssl"),
            tls,
            sasl,
            credentials[0],
            credentials[1],
        ];
        assert!(
            reaches(kafka.bootstrap_sasl_ssl(), &over_tls).await,
            "{mechanism}"
        );
        let plain = [
            ("security.protocol", "sasl_plaintext"),
            sasl,
            credentials[0],
            credentials[1],
        ];
        assert!(
            reaches(kafka.bootstrap_sasl_plaintext(), &plain).await,
            "{mechanism}"
        );
    }
    let wrong = [
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        credentials[0],
        ("sasl.password", "wrong"),
    ];
    assert!(!reaches(kafka.bootstrap_sasl_plaintext(), &wrong).await);
    assert!(
        !reaches(kafka.bootstrap_ssl(), &[ssl, tls]).await,
        "without a certificate"
    );
}
