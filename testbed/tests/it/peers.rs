//! The existing system's side.

use std::time::Duration;

use separation_testbed::{Kafka, Peer, S3Server, Site, tiny_song};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_existing_systems_programs_talk_to_each_other() {
    let (kafka, s3) = (Kafka::shared().await.unwrap(), S3Server::shared().await.unwrap());
    let site = Site::new(kafka, s3, 2).await.unwrap();
    let (task, song) = site.put_song(&tiny_song(1)).unwrap();
    let producer = site
        .peer(Peer::Producer)
        .unwrap()
        .env("HOOK_URL", "http://x/hook")
        .arg(&song)
        .start()
        .unwrap();
    assert_eq!(
        producer.wait_exit(SOON).await.unwrap(),
        0,
        "{}",
        producer.log_end()
    );
    assert_eq!(producer.output().unwrap().trim(), task);
    let processor = site.peer(Peer::Processor).unwrap().start().unwrap();
    let uploader = site
        .peer(Peer::Uploader)
        .unwrap()
        .env("PEER_COUNT", "1")
        .start()
        .unwrap();
    assert_eq!(
        uploader.wait_exit(SOON).await.unwrap(),
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
        .wait_for_log(&format!("[{task}] Offset committed"), SOON)
        .await
        .unwrap();
    assert!(!song.exists());
    assert_eq!(
        kafka.group(&site.processor_group).await.unwrap().assignor,
        "range"
    );
    processor.sigterm().unwrap();
    assert_eq!(processor.wait_exit(SOON).await.unwrap(), 0);
    assert_eq!(
        kafka
            .total_lag(&site.processor_group, &site.task_topic)
            .await
            .unwrap(),
        0
    );
}
