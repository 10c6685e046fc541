//! uvr5-api's programs.

use std::time::Duration;

use separation_testbed::{Kafka, S3Server, Site, Uvr5Program, tiny_song};

const TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_programs_of_uvr5_api_process_a_task_together() {
    let (kafka, s3) = (Kafka::shared().await.unwrap(), S3Server::shared().await.unwrap());
    let site = Site::new(kafka, s3, 2).await.unwrap();
    let (task, song) = site.put_song(&tiny_song(1)).unwrap();
    let producer = site
        .uvr5_program(Uvr5Program::Producer)
        .unwrap()
        .env("HOOK_URL", "http://x/hook")
        .arg(&song)
        .start()
        .unwrap();
    assert_eq!(
        producer.wait_exit(TIMEOUT).await.unwrap(),
        0,
        "{}",
        producer.log_end()
    );
    assert_eq!(producer.output().unwrap().trim(), task);
    let processor = site
        .uvr5_program(Uvr5Program::Processor)
        .unwrap()
        .start()
        .unwrap();
    let uploader = site
        .uvr5_program(Uvr5Program::Uploader)
        .unwrap()
        .env("PEER_COUNT", "1")
        .start()
        .unwrap();
    assert_eq!(
        uploader.wait_exit(TIMEOUT).await.unwrap(),
        0,
        "{}",
        uploader.log_end()
    );
    let line: serde_json::Value = serde_json::from_str(&uploader.output().unwrap()).unwrap();
    assert_eq!(
        (&line["key"], &line["value"]["success"]),
        (&task.as_str().into(), &true.into())
    );
    let vocals = line["value"]["vocals_path"].as_str().unwrap();
    assert_eq!(std::fs::read(vocals).unwrap(), tiny_song(1));
    processor
        .wait_for_log(&format!("[{task}] Offset committed"), TIMEOUT)
        .await
        .unwrap();
    assert!(!song.exists());
    assert_eq!(
        kafka.group(&site.processor_group).await.unwrap().assignor,
        "range"
    );
    processor.sigterm().unwrap();
    assert_eq!(processor.wait_exit(TIMEOUT).await.unwrap(), 0);
    assert_eq!(
        kafka
            .total_lag(&site.processor_group, &site.task_topic)
            .await
            .unwrap(),
        0
    );
}
