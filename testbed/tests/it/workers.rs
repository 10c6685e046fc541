//! The wrapper of a worker's process, tested with a shell that logs like a worker.

use std::time::Duration;

use separation_testbed::{Kafka, S3Server, Site, WorkerOptions, task_message, tiny_song};

const TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_workers_log_is_read_while_it_runs() {
    let script = r#"
        trap 'echo "{\"level\":\"INFO\",\"message\":\"Received SIGTERM\"}" >&2; exit 0' TERM
        echo "not JSON" >&2
        echo "{\"level\":\"INFO\",\"message\":\"Listens\",\"address\":\"127.0.0.1:80\",\"format\":\"$LOG_FORMAT\"}" >&2
        echo printed
        while :; do sleep 0.1; done
    "#;
    let worker = WorkerOptions::new("sh", "-c").arg(script).start().unwrap();
    let line = worker.wait_for_log("Listens", TIMEOUT).await.unwrap();
    assert_eq!(
        (line.level.as_str(), &line.fields["format"]),
        ("INFO", &"json".into())
    );
    assert_eq!(
        worker.address("Listens", TIMEOUT).await.unwrap(),
        ([127, 0, 0, 1], 80).into()
    );
    assert!(
        worker
            .wait_for_log("Nothing", Duration::from_millis(100))
            .await
            .is_err()
    );
    worker.sigterm().unwrap();
    assert_eq!(worker.wait_exit(TIMEOUT).await.unwrap(), 0);
    assert_eq!(
        worker.messages().unwrap(),
        ["not JSON", "Listens", "Received SIGTERM"]
    );
    assert_eq!(worker.output().unwrap(), "printed\n");
    let ended = worker
        .wait_for_log("Nothing", TIMEOUT)
        .await
        .unwrap_err()
        .to_string();
    assert!(ended.starts_with("the worker ended with 0"), "{ended}");
}

#[tokio::test]
async fn a_site_is_prepared_and_passed_to_the_worker() {
    let (kafka, s3) = (Kafka::shared().await.unwrap(), S3Server::shared().await.unwrap());
    let site = Site::new(kafka, s3, 2).await.unwrap();
    let task = site
        .submit(&tiny_song(1), "http://127.0.0.1:9/hook")
        .await
        .unwrap();
    let records = kafka.consume_all(&site.task_topic).await.unwrap();
    let path = site.songs.join(format!("{task}_input.wav"));
    assert_eq!(records[0].key_text(), task);
    assert_eq!(
        records[0].json(),
        task_message(&task, path.to_str().unwrap(), "http://127.0.0.1:9/hook")
    );
    assert_eq!(
        kafka
            .total_lag(&site.processor_group, &site.task_topic)
            .await
            .unwrap(),
        1
    );
    assert!(path.is_file() && s3.list(&site.bucket, "").await.unwrap().is_empty());
    let worker = site
        .worker("sh", "-c")
        .env("SETTLE_MS", "7")
        .arg("echo $KAFKA_TASK_TOPIC $SETTLE_MS")
        .start()
        .unwrap();
    worker.wait_exit(TIMEOUT).await.unwrap();
    assert_eq!(worker.output().unwrap(), format!("{} 7\n", site.task_topic));
}
