//! Brokers with TLS and SASL.

use std::time::Duration;

use separation_testbed::{Kafka, KafkaOptions, Worker, WorkerOptions};

use crate::rig::{Rig, STEP_TIMEOUT};

/// A worker with SASL settings.
pub(crate) fn with_credentials(
    options: WorkerOptions,
    mechanism: &str,
    password: &str,
    kafka: &Kafka,
) -> WorkerOptions {
    options
        .env("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap_sasl_ssl())
        .env("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
        .env("KAFKA_SSL_CA_LOCATION", kafka.security().ca())
        .env("KAFKA_SASL_MECHANISM", mechanism)
        .env("KAFKA_SASL_USERNAME", kafka.security().username())
        .env("KAFKA_SASL_PASSWORD", password)
}

async fn check_processes_a_task(rig: &Rig, options: WorkerOptions) -> Worker {
    let worker = options.start().unwrap();
    let task = rig.submit(1).await;
    let done = worker
        .wait_for_log("Offset committed successfully", STEP_TIMEOUT)
        .await
        .unwrap();
    assert_eq!(done.fields["task_uuid"], task, "{done:?}");
    worker.sigterm().unwrap();
    assert_eq!(worker.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
    worker
}

#[tokio::test]
async fn workers_use_tls_and_sasl_and_report_refused_credentials() {
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
    check_processes_a_task(&rig, ssl).await;
    for mechanism in ["SCRAM-SHA-512", "PLAIN"] {
        let options = with_credentials(rig.processor(), mechanism, security.password(), kafka);
        let worker = check_processes_a_task(&rig, options).await;
        let log = format!("{:?}", worker.log().unwrap());
        assert!(!log.contains(security.password()), "the password is in the log");
    }
    let wrong = with_credentials(rig.processor(), "SCRAM-SHA-512", "not-the-password", kafka)
        .start()
        .unwrap();
    let refused = wrong
        .wait_for_log("Kafka refuses this worker", STEP_TIMEOUT)
        .await
        .unwrap();
    assert_eq!(refused.level, "ERROR");
    assert!(
        refused.fields.to_string().contains("uthentication"),
        "{refused:?}"
    );
    // It keeps trying, since the password may be corrected on the brokers.
    assert!(wrong.wait_exit(Duration::from_secs(3)).await.is_err());
    let messages = wrong.messages().unwrap();
    let count = messages.iter().filter(|line| line.starts_with("Kafka")).count();
    assert!(count <= 8, "{messages:?}");
    kafka.kill_broker(0).await.unwrap();
}
