//! Workers that join, leave and freeze: no running task is interrupted, none is lost, and none is processed twice.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use separation_contract::environment as env;
use separation_testbed::{Worker, eventually};

use crate::rig::{Rig, STEP_TIMEOUT, held_at, separations};

const COOPERATIVE: &str = "cooperative-sticky";
const RANGE: &str = "range";

/// Log lines for revoked partitions that a worker releases immediately, and for those that it retains during its task.
const RELEASED: &str = "Partitions revoked";
const RETAINED: &str = "Revoked partitions retained";

/// Two heartbeats of a second, and a start of a debug build on a busy machine.
const JOINING: Duration = Duration::from_secs(20);

fn count_logs(worker: &Worker, message: &str) -> usize {
    let messages = worker.messages().unwrap();
    messages.iter().filter(|line| line.starts_with(message)).count()
}

/// The partitions of each member, once `members` members share all `partitions`.
async fn assignments(rig: &Rig, members: usize, partitions: usize) -> Vec<Vec<i32>> {
    let group = &rig.site.processor_group;
    eventually("a stable group", STEP_TIMEOUT, async || {
        let group = rig.kafka.group(group).await?;
        let shares: Vec<Vec<i32>> = group
            .members
            .iter()
            .map(|member| member.partitions.iter().map(|(_, number)| *number).collect())
            .collect();
        let all: BTreeSet<_> = shares.iter().flatten().collect();
        let is_stable = group.state == "Stable"
            && shares.len() == members
            && all.len() == partitions
            && shares.iter().map(Vec::len).sum::<usize>() == partitions;
        anyhow::Ok(is_stable.then_some(shares))
    })
    .await
}

/// A worker processes a task of partition `busy` while another joins. Returns whether `busy` was revoked.
async fn joins_beside_a_task_on(busy: i32) -> bool {
    let rig = Rig::new(12).await;
    let hold = rig.hold();
    let first = held_at(rig.processor(), "separated", &hold).start().unwrap();
    let mut tasks = BTreeSet::from([rig.submit_to(busy, 0).await]);
    first.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    for partition in 0..12 {
        tasks.insert(
            rig.submit_to(partition, 1 + partition.unsigned_abs() as u64)
                .await,
        );
    }
    let second = rig.processor().start().unwrap();
    second
        .wait_for_log("Processor started", STEP_TIMEOUT)
        .await
        .unwrap();
    let held = eventually("partitions revoked", STEP_TIMEOUT, async || {
        match (count_logs(&first, RETAINED), count_logs(&first, RELEASED)) {
            (0, 0) => None,
            (held, _) => Some(held > 0),
        }
    })
    .await;
    if held {
        // The second worker must receive nothing while the task runs.
        assert!(
            second
                .wait_for_log("Received task", Duration::from_secs(3))
                .await
                .is_err(),
            "the partition of a running task was reassigned"
        );
    } else {
        second.wait_for_log("Received task", JOINING).await.unwrap();
        assert_eq!(count_logs(&first, "Separated"), 1, "the task is still running");
    }
    std::fs::remove_file(&hold).unwrap();
    second.wait_for_log("Received task", JOINING).await.unwrap();
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
    assert_eq!(separations([&first, &second]), tasks.len());
    held
}

#[tokio::test]
async fn a_joining_worker_starts_immediately_on_idle_partitions_and_otherwise_after_the_task() {
    let seen = [joins_beside_a_task_on(0).await, joins_beside_a_task_on(11).await];
    assert!(
        seen.contains(&true) && seen.contains(&false),
        "{seen:?}: one case is missing"
    );
}

#[tokio::test]
async fn a_worker_continues_with_its_next_tasks_while_a_joining_worker_waits_for_another() {
    let rig = Rig::new(12).await;
    let holds = ["first", "second", "third"].map(|name| rig.hold_of(name));
    let start = |hold: &Path| held_at(rig.processor(), "separated", hold).start().unwrap();
    let workers = [start(&holds[0]), start(&holds[1]), start(&holds[2])];
    let mut tasks = BTreeSet::new();
    for share in assignments(&rig, 3, 12).await {
        tasks.insert(rig.submit_to(*share.last().unwrap(), 1).await);
    }
    for worker in &workers {
        worker.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    }
    for partition in 0..12 {
        for _ in 0..2 {
            tasks.insert(rig.submit_to(partition, 2).await);
        }
    }
    // Partitions have already moved if the workers did not all join together.
    let revocations = || -> usize {
        let count = |worker| count_logs(worker, RETAINED) + count_logs(worker, RELEASED);
        workers.iter().map(count).sum()
    };
    let before = revocations();
    let joiner = rig.processor().start().unwrap();
    joiner
        .wait_for_log("Processor started", STEP_TIMEOUT)
        .await
        .unwrap();
    // Partitions of at least one worker are revoked during its task.
    eventually("partitions revoked", STEP_TIMEOUT, async || {
        revocations() > before
    })
    .await;
    // One worker after the other finishes its task, and then has at least three partitions with two tasks each.
    for (worker, hold) in workers.iter().zip(&holds) {
        std::fs::remove_file(hold).unwrap();
        worker
            .wait_for_logs("Separated", 1 + 2 * 3, STEP_TIMEOUT)
            .await
            .unwrap();
    }
    // The workers may have finished before the joiner had its partitions.
    assignments(&rig, 4, 12).await;
    for partition in 0..12 {
        tasks.insert(rig.submit_to(partition, 3).await);
    }
    joiner.wait_for_log("Received task", JOINING).await.unwrap();
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
    assert_eq!(separations(workers.iter().chain([&joiner])), tasks.len());
}

async fn from_one_to_twelve(assignor: &str) {
    let rig = Rig::new(12).await;
    let hold = rig.hold();
    let start = || {
        held_at(rig.processor(), "separated", &hold)
            .env("KAFKA_ASSIGNOR", assignor)
            .start()
            .unwrap()
    };
    let mut workers = vec![start()];
    let mut tasks = BTreeSet::new();
    for partition in 0..12 {
        for _ in 0..2 {
            tasks.insert(rig.submit_to(partition, 1).await);
        }
    }
    workers[0].wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    workers.extend((1..12).map(|_| start()));
    for worker in &workers {
        worker
            .wait_for_log("Processor started", STEP_TIMEOUT)
            .await
            .unwrap();
    }
    std::fs::remove_file(&hold).unwrap();
    let shares = assignments(&rig, 12, 12).await;
    assert!(shares.iter().all(|share| share.len() == 1), "{shares:?}");
    for partition in 0..12 {
        tasks.insert(rig.submit_to(partition, 2).await);
    }
    for worker in &workers {
        worker.wait_for_log("Received task", STEP_TIMEOUT).await.unwrap();
    }
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
    assert_eq!(separations(&workers), tasks.len());
}

#[tokio::test]
async fn eleven_workers_that_join_one_get_one_partition_each() {
    from_one_to_twelve(COOPERATIVE).await;
}

#[tokio::test]
async fn eleven_workers_that_join_one_get_one_partition_each_under_range() {
    from_one_to_twelve(RANGE).await;
}

/// Every second a worker joins and another leaves, for `seconds`, while tasks are posted.
async fn storm(assignor: &str, seconds: usize) {
    let rig = Rig::new(12).await;
    let start = || rig.processor().env("KAFKA_ASSIGNOR", assignor).start().unwrap();
    let mut workers = vec![start(), start()];
    let mut tasks = BTreeSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    for second in 0..seconds {
        tick.tick().await;
        for number in 0..4 {
            tasks.insert(rig.submit(number).await);
        }
        workers.push(start());
        // The oldest of the running workers shuts down gracefully, whatever it is doing: signals are handled from the
        // first log line on.
        let leaver = &workers[second];
        leaver.wait_for_log("Settings", STEP_TIMEOUT).await.unwrap();
        leaver.sigterm().unwrap();
    }
    rig.tasks_committed().await;
    for worker in &workers[..seconds] {
        assert_eq!(worker.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
    }
    rig.check_results(&tasks).await;
    assert_eq!(separations(&workers), tasks.len());
}

#[tokio::test]
async fn workers_that_join_and_leave_every_second_lose_and_repeat_nothing() {
    storm(COOPERATIVE, 60).await;
}

#[tokio::test]
async fn workers_that_join_and_leave_every_second_lose_and_repeat_nothing_under_range() {
    storm(RANGE, 20).await;
}

/// A worker freezes at `point`, another worker processes its task, and the first one continues.
async fn resumes_after_freeze(point: &str, assignor: &str) {
    let rig = Rig::new(1).await;
    let hold = rig.hold();
    // A commit of progress is due when the worker continues: it must not undo the successor's.
    let options = |options: separation_testbed::WorkerOptions| {
        let options = options.env(env::PROGRESS_SECONDS, "1");
        options.env("KAFKA_ASSIGNOR", assignor)
    };
    let frozen_worker = options(held_at(rig.processor(), point, &hold)).start().unwrap();
    let task = rig.submit(1).await;
    frozen_worker.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    frozen_worker.sigstop().unwrap();
    let frozen = Instant::now();
    let successor = options(rig.processor()).start().unwrap();
    successor
        .wait_for_log("Offset committed successfully", STEP_TIMEOUT)
        .await
        .unwrap();
    // The session timeout of 6 s, 5 s for the rebalance, and the start of a debug build on a busy machine.
    let stalled = frozen.elapsed();
    assert!(stalled < Duration::from_secs(11) + JOINING, "{stalled:?}");
    let manifest = rig.site.stems.join(&task).join("manifest.json");
    let published = std::fs::read(&manifest).unwrap();
    let lag = rig
        .kafka
        .lag(&rig.site.processor_group, &rig.site.task_topic)
        .await
        .unwrap();
    std::fs::remove_file(&hold).unwrap();
    frozen_worker.sigcont().unwrap();
    frozen_worker
        .wait_for_log("The message's partition is no longer assigned", STEP_TIMEOUT)
        .await
        .unwrap();
    let mut tasks = BTreeSet::from([task]);
    rig.check_results(&tasks).await;
    assert_eq!(
        std::fs::read(&manifest).unwrap(),
        published,
        "the stale manifest was published"
    );
    let after = rig
        .kafka
        .lag(&rig.site.processor_group, &rig.site.task_topic)
        .await
        .unwrap();
    assert_eq!(after, lag, "the stale work was committed");
    assert_eq!(count_logs(&frozen_worker, "Offset committed"), 0);
    // The first worker processes messages again.
    successor.sigterm().unwrap();
    assert_eq!(successor.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
    tasks.insert(rig.submit(2).await);
    frozen_worker
        .wait_for_log("Offset committed successfully", STEP_TIMEOUT)
        .await
        .unwrap();
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
    assert_eq!(std::fs::read(&manifest).unwrap(), published);
}

#[tokio::test]
async fn a_worker_frozen_before_its_stems_were_stored_publishes_no_manifest() {
    resumes_after_freeze("separated", COOPERATIVE).await;
}

#[tokio::test]
async fn a_worker_frozen_before_its_manifest_was_published_publishes_none() {
    resumes_after_freeze("stored", COOPERATIVE).await;
}

#[tokio::test]
async fn a_worker_frozen_before_its_result_was_published_publishes_none() {
    resumes_after_freeze("worked", COOPERATIVE).await;
}

#[tokio::test]
async fn a_frozen_worker_publishes_no_manifest_under_range() {
    resumes_after_freeze("stored", RANGE).await;
}

#[tokio::test]
async fn a_worker_frozen_between_two_tasks_publishes_nothing_of_the_second() {
    let rig = Rig::new(1).await;
    let hold = rig.hold();
    let tasks = rig.submit_many(2).await;
    let frozen_worker = held_at(rig.processor(), "committed", &hold).start().unwrap();
    // The next message has been fetched by then.
    frozen_worker.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    frozen_worker.sigstop().unwrap();
    let successor = rig.processor().start().unwrap();
    successor
        .wait_for_log("Offset committed successfully", STEP_TIMEOUT)
        .await
        .unwrap();
    std::fs::remove_file(&hold).unwrap();
    frozen_worker.sigcont().unwrap();
    frozen_worker
        .wait_for_log("Partitions lost", STEP_TIMEOUT)
        .await
        .unwrap();
    successor.sigterm().unwrap();
    // It has partitions again, so it has dropped all messages fetched before.
    frozen_worker
        .wait_for_logs("Partitions assigned", 2, STEP_TIMEOUT)
        .await
        .unwrap();
    let third = rig.submit(3).await;
    rig.tasks_committed().await;
    let mut all = tasks;
    all.insert(third);
    rig.check_results(&all).await;
}
