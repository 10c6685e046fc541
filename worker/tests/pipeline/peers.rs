//! Beside programs of the existing system: its producer, its consumer of results, and its processor in one group with
//! ours.

use std::collections::BTreeSet;

use separation_contract::environment as env;
use separation_testbed::{Peer, eventually, song, tiny_song};
use serde_json::Value;

use crate::rig::{PATIENCE, Rig};

#[tokio::test]
async fn tasks_of_the_existing_producer_are_done() {
    let rig = Rig::new(2).await;
    let mut tasks = BTreeSet::new();
    let mut producer = rig.site.peer(Peer::Producer).unwrap();
    for seed in 0..3 {
        let (task, path) = rig.site.put_song(&tiny_song(seed)).unwrap();
        tasks.insert(task);
        producer = producer.arg(path);
    }
    let _processor = rig.processor().start().unwrap();
    let _uploader = rig.uploader().start().unwrap();
    let producer = producer.env("HOOK_URL", rig.hooks.url("/hook")).start().unwrap();
    assert_eq!(producer.wait_exit(PATIENCE).await.unwrap(), 0);
    rig.all_told(&tasks).await;
    rig.run_dry().await;
    rig.check_done(&tasks).await;
}

#[tokio::test]
async fn our_results_are_read_by_the_existing_uploader() {
    let rig = Rig::new(2).await;
    let good = rig.submit(1).await;
    let bad = rig
        .site
        .submit(b"no song", &rig.hooks.url("/hook"))
        .await
        .unwrap();
    let _processor = rig.processor().start().unwrap();
    let uploader = rig.site.peer(Peer::Uploader).unwrap();
    let uploader = uploader.env("PEER_COUNT", "2").start().unwrap();
    assert_eq!(uploader.wait_exit(PATIENCE).await.unwrap(), 0);
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
    rig.run_dry().await;
}

#[tokio::test]
async fn a_processor_of_another_make_and_ours_share_a_group_and_lose_nothing() {
    let rig = Rig::new(4).await;
    let _uploader = rig.uploader().start().unwrap();
    let peer = rig.site.peer(Peer::Processor).unwrap();
    let peer = peer.env("PEER_SECONDS", "0.1").start().unwrap();
    let start = || rig.processor().env(env::KAFKA_ASSIGNOR, "range").start().unwrap();
    let mut tasks = rig.submit_many(6).await;
    peer.wait_for_log("Received task", PATIENCE).await.unwrap();
    // It joins while the other works, and both have partitions then.
    let ours = start();
    let group = &rig.site.processor_group;
    eventually("both members with partitions", PATIENCE, async || {
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
    ours.wait_for_log("Separated", PATIENCE).await.unwrap();
    // It leaves while tasks wait, and another of ours comes.
    peer.sigterm().unwrap();
    let _another = start();
    tasks.insert(
        rig.site
            .submit(&song(0.2, 99), &rig.hooks.url("/hook"))
            .await
            .unwrap(),
    );
    rig.all_told(&tasks).await;
    rig.run_dry().await;
    rig.check_done(&tasks).await;
    let peers = peer.messages().unwrap();
    assert!(peers.iter().any(|message| message.contains("Offset committed")));
}
