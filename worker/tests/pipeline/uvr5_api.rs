//! Compatibility with uvr5-api: its producer, its consumer of results, and its processor in one group with ours.

use std::collections::BTreeSet;

use separation_contract::environment as env;
use separation_testbed::{Uvr5Program, eventually, song, tiny_song};
use serde_json::Value;

use crate::rig::{Rig, STEP_TIMEOUT};

#[tokio::test]
async fn tasks_of_uvr5_apis_producer_are_completed() {
    let rig = Rig::new(2).await;
    let mut tasks = BTreeSet::new();
    let mut producer = rig.site.uvr5_program(Uvr5Program::Producer).unwrap();
    for seed in 0..3 {
        let (task, path) = rig.site.put_song(&tiny_song(seed)).unwrap();
        tasks.insert(task);
        producer = producer.arg(path);
    }
    let _processor = rig.processor().start().unwrap();
    let _uploader = rig.uploader().start().unwrap();
    let producer = producer.env("HOOK_URL", rig.hooks.url("/hook")).start().unwrap();
    assert_eq!(producer.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
    rig.wait_for_webhooks(&tasks).await;
    rig.wait_until_committed().await;
    rig.check_done(&tasks).await;
}

#[tokio::test]
async fn our_results_are_read_by_uvr5_apis_uploader() {
    let rig = Rig::new(2).await;
    let good = rig.submit(1).await;
    let bad = rig
        .site
        .submit(b"no song", &rig.hooks.url("/hook"))
        .await
        .unwrap();
    let _processor = rig.processor().start().unwrap();
    let uploader = rig.site.uvr5_program(Uvr5Program::Uploader).unwrap();
    let uploader = uploader.env("PEER_COUNT", "2").start().unwrap();
    assert_eq!(uploader.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
    let output = uploader.output().unwrap();
    let read: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let result = |task: &str| {
        let found = read.iter().find(|line| line["key"] == task);
        &found.unwrap_or_else(|| panic!("no result of {task}: {output}"))["value"]
    };
    let success = result(&good);
    assert_eq!(
        (&success["task_uuid"], &success["success"]),
        (&good.as_str().into(), &true.into())
    );
    assert_eq!(success["hook_url"], rig.hooks.url("/hook"));
    for stem in ["vocals_path", "instrumental_path"] {
        let path = success[stem].as_str().unwrap();
        assert_eq!(&std::fs::read(path).unwrap()[..4], b"RIFF");
    }
    let failure = result(&bad);
    assert_eq!(failure["success"], false);
    assert!(!failure["error_message"].as_str().unwrap().is_empty());
    rig.wait_until_committed().await;
}

#[tokio::test]
async fn a_uvr5_api_processor_and_ours_share_a_group_and_lose_nothing() {
    let rig = Rig::new(4).await;
    let _uploader = rig.uploader().start().unwrap();
    let peer = rig.site.uvr5_program(Uvr5Program::Processor).unwrap();
    let peer = peer.env("PEER_SECONDS", "0.1").start().unwrap();
    let start = || rig.processor().env(env::KAFKA_ASSIGNOR, "range").start().unwrap();
    let mut tasks = rig.submit_many(6).await;
    peer.wait_for_log("Received task", STEP_TIMEOUT).await.unwrap();
    // Ours joins while the other one works, and then both have partitions.
    let ours = start();
    let group = &rig.site.processor_group;
    eventually("both members with partitions", STEP_TIMEOUT, async || {
        let group = rig.kafka.group(group).await?;
        let working = group
            .members
            .iter()
            .filter(|member| !member.partitions.is_empty());
        anyhow::Ok(working.count() == 2)
    })
    .await;
    for seed in 10..22 {
        tasks.insert(rig.submit(seed).await);
    }
    ours.wait_for_log("Separated", STEP_TIMEOUT).await.unwrap();
    // The other one leaves while tasks are queued, and another worker of ours joins.
    peer.sigterm().unwrap();
    let _another = start();
    tasks.insert(
        rig.site
            .submit(&song(0.2, 99), &rig.hooks.url("/hook"))
            .await
            .unwrap(),
    );
    rig.wait_for_webhooks(&tasks).await;
    rig.wait_until_committed().await;
    rig.check_done(&tasks).await;
    let messages = peer.messages().unwrap();
    assert!(
        messages
            .iter()
            .any(|message| message.contains("Offset committed"))
    );
}
