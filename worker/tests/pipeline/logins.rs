//! Brokers with TLS and logins.

use std::time::Duration;

use separation_testbed::{Kafka, KafkaOptions, Worker, WorkerOptions};

use crate::rig::{PATIENCE, Rig};

/// A worker told how to log in.
pub(crate) fn login(options: WorkerOptions, mechanism: &str, password: &str, kafka: &Kafka) -> WorkerOptions {
    options
        .env("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap_sasl_ssl())
        .env("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
        .env("KAFKA_SSL_CA_LOCATION", kafka.security().ca())
        .env("KAFKA_SASL_MECHANISM", mechanism)
        .env("KAFKA_SASL_USERNAME", kafka.security().username())
        .env("KAFKA_SASL_PASSWORD", password)
}

async fn serves(rig: &Rig, options: WorkerOptions) -> Worker {
    let worker = options.start().unwrap();
    let task = rig.submit(1).await;
    let done = worker
        .wait_for_log("Offset committed successfully", PATIENCE)
        .await
        .unwrap();
    assert_eq!(done.fields["task_uuid"], task, "{done:?}");
    worker.sigterm().unwrap();
    assert_eq!(worker.wait_exit(PATIENCE).await.unwrap(), 0);
    worker
}

#[tokio::test]
async fn workers_use_tls_and_log_in_and_say_when_they_may_not() {
    let options = KafkaOptions {
        secure: true,
        ..KafkaOptions::default()
    };
    let kafka: &'static Kafka = Box::leak(Box::new(Kafka::start(options).await.unwrap()));
    let rig = Rig::on(kafka, 1).await;
    let security = kafka.security();
    let ssl = rig
        .processor()
        .env("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap_ssl())
        .env("KAFKA_SSL_CA_LOCATION", security.ca())
        .env("KAFKA_SSL_CERTIFICATE_LOCATION", security.client_certificate())
        .env("KAFKA_SSL_KEY_LOCATION", security.client_key());
    serves(&rig, ssl).await;
    for mechanism in ["SCRAM-SHA-512", "PLAIN"] {
        let options = login(rig.processor(), mechanism, security.password(), kafka);
        let worker = serves(&rig, options).await;
        let log = format!("{:?}", worker.log().unwrap());
        assert!(!log.contains(security.password()), "the password is in the log");
    }
    let wrong = login(rig.processor(), "SCRAM-SHA-512", "not-the-password", kafka)
        .start()
        .unwrap();
    let refused = wrong
        .wait_for_log("Kafka refuses this worker", PATIENCE)
        .await
        .unwrap();
    assert_eq!(refused.level, "ERROR");
    assert!(
        refused.fields.to_string().contains("uthentication"),
        "{refused:?}"
    );
    // It waits for the password to be set right on the other side.
    assert!(wrong.wait_exit(Duration::from_secs(3)).await.is_err());
    let said = wrong.messages().unwrap();
    let count = said.iter().filter(|line| line.starts_with("Kafka")).count();
    assert!(count <= 8, "{said:?}");
    kafka.kill_broker(0).await.unwrap();
}
