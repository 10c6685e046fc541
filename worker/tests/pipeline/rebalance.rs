//! Workers that join, leave and freeze: nobody who works is stopped, nothing is lost, nothing is done twice.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use separation_testbed::{Worker, eventually};

use crate::rig::{PATIENCE, Rig, held_at, separations};

const COOPERATIVE: &str = "cooperative-sticky";
const RANGE: &str = "range";

/// What a worker says of partitions that it gives back at once, and of those that wait for its task.
const GIVEN_UP: &str = "Partitions given up";
const HELD_BACK: &str = "Partitions asked back";

/// Two heartbeats of a second, and a start of a debug build on a busy machine.
const JOINING: Duration = Duration::from_secs(20);

fn said(worker: &Worker, message: &str) -> usize {
    let messages = worker.messages().unwrap();
    messages.iter().filter(|said| said.starts_with(message)).count()
}

/// The numbers of partitions that each member has, once so many members have them all.
async fn shares(rig: &Rig, members: usize, partitions: usize) -> Vec<Vec<i32>> {
    let group = &rig.site.processor_group;
    eventually("a settled group", PATIENCE, async || {
        let group = rig.kafka.group(group).await?;
        let shares: Vec<Vec<i32>> = group
            .members
            .iter()
            .map(|member| member.partitions.iter().map(|(_, number)| *number).collect())
            .collect();
        let all: BTreeSet<_> = shares.iter().flatten().collect();
        let settled = group.state == "Stable"
            && shares.len() == members
            && all.len() == partitions
            && shares.iter().map(Vec::len).sum::<usize>() == partitions;
        anyhow::Ok(settled.then_some(shares))
    })
    .await
}

/// One worker is mid-task on `busy` when another joins. Says whether the share of the second held that task.
async fn joins_beside_a_task_on(busy: i32) -> bool {
    let rig = Rig::new(12).await;
    let hold = rig.hold();
    let first = held_at(rig.processor(), "separated", &hold).start().unwrap();
    let mut tasks = BTreeSet::from([rig.submit_to(busy, 0).await]);
    first.wait_for_log("Held", PATIENCE).await.unwrap();
    for partition in 0..12 {
        tasks.insert(
            rig.submit_to(partition, 1 + partition.unsigned_abs() as u64)
                .await,
        );
    }
    let second = rig.processor().start().unwrap();
    second.wait_for_log("Processor started", PATIENCE).await.unwrap();
    let held = eventually("partitions asked back", PATIENCE, async || {
        match (said(&first, HELD_BACK), said(&first, GIVEN_UP)) {
            (0, 0) => None,
            (held, _) => Some(held > 0),
        }
    })
    .await;
    if held {
        // Another wait, of which nothing may come as long as the task runs.
        assert!(
            second
                .wait_for_log("Received task", Duration::from_secs(3))
                .await
                .is_err(),
            "a share was handed out that holds a running task"
        );
    } else {
        second.wait_for_log("Received task", JOINING).await.unwrap();
        assert_eq!(said(&first, "Separated"), 1, "the task still runs");
    }
    std::fs::remove_file(&hold).unwrap();
    second.wait_for_log("Received task", JOINING).await.unwrap();
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
    assert_eq!(separations([&first, &second]), tasks.len());
    held
}

#[tokio::test]
async fn a_joiner_starts_at_once_on_free_partitions_and_otherwise_when_the_task_ends() {
    let seen = [joins_beside_a_task_on(0).await, joins_beside_a_task_on(11).await];
    assert!(
        seen.contains(&true) && seen.contains(&false),
        "{seen:?}: one case is missing"
    );
}

#[tokio::test]
async fn a_worker_goes_on_with_its_next_tasks_while_a_joiner_waits_for_another() {
    let rig = Rig::new(12).await;
    let holds = ["first", "second", "third"].map(|name| rig.hold_of(name));
    let start = |hold: &Path| held_at(rig.processor(), "separated", hold).start().unwrap();
    let workers = [start(&holds[0]), start(&holds[1]), start(&holds[2])];
    let mut tasks = BTreeSet::new();
    for share in shares(&rig, 3, 12).await {
        tasks.insert(rig.submit_to(*share.last().unwrap(), 1).await);
    }
    for worker in &workers {
        worker.wait_for_log("Held", PATIENCE).await.unwrap();
    }
    for partition in 0..12 {
        for _ in 0..2 {
            tasks.insert(rig.submit_to(partition, 2).await);
        }
    }
    // Partitions were moved already if the workers did not all join at once.
    let asked = || -> usize {
        let asked = |worker| said(worker, HELD_BACK) + said(worker, GIVEN_UP);
        workers.iter().map(asked).sum()
    };
    let before = asked();
    let joiner = rig.processor().start().unwrap();
    joiner.wait_for_log("Processor started", PATIENCE).await.unwrap();
    // Somebody is asked for partitions, mid-task.
    eventually("partitions asked back", PATIENCE, async || asked() > before).await;
    // One worker after the other ends its task, and then has at least three partitions with two tasks each.
    for (worker, hold) in workers.iter().zip(&holds) {
        std::fs::remove_file(hold).unwrap();
        worker
            .wait_for_logs("Separated", 1 + 2 * 3, PATIENCE)
            .await
            .unwrap();
    }
    // The workers may have been done before the joiner had its share.
    shares(&rig, 4, 12).await;
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
    workers[0].wait_for_log("Held", PATIENCE).await.unwrap();
    workers.extend((1..12).map(|_| start()));
    for worker in &workers {
        worker.wait_for_log("Processor started", PATIENCE).await.unwrap();
    }
    std::fs::remove_file(&hold).unwrap();
    let shares = shares(&rig, 12, 12).await;
    assert!(shares.iter().all(|share| share.len() == 1), "{shares:?}");
    for partition in 0..12 {
        tasks.insert(rig.submit_to(partition, 2).await);
    }
    for worker in &workers {
        worker.wait_for_log("Received task", PATIENCE).await.unwrap();
    }
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
    assert_eq!(separations(&workers), tasks.len());
}

#[tokio::test]
async fn eleven_workers_that_join_one_get_their_share() {
    from_one_to_twelve(COOPERATIVE).await;
}

#[tokio::test]
async fn eleven_workers_that_join_one_get_their_share_under_range() {
    from_one_to_twelve(RANGE).await;
}

/// Every second a worker joins and another leaves, for `seconds`, while tasks come and go.
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
        // The third of those that run at a time leaves in order, with whatever it is doing: signals are caught from the
        // first line that is logged on.
        let leaver = &workers[second];
        leaver.wait_for_log("Settings", PATIENCE).await.unwrap();
        leaver.sigterm().unwrap();
    }
    rig.tasks_committed().await;
    for worker in &workers[..seconds] {
        assert_eq!(worker.wait_exit(PATIENCE).await.unwrap(), 0);
    }
    rig.check_results(&tasks).await;
    assert_eq!(separations(&workers), tasks.len());
}

#[tokio::test]
async fn workers_that_come_and_go_all_the_time_lose_and_repeat_nothing() {
    storm(COOPERATIVE, 60).await;
}

#[tokio::test]
async fn workers_that_come_and_go_all_the_time_lose_and_repeat_nothing_under_range() {
    storm(RANGE, 20).await;
}

/// A worker freezes at `place`, another takes over and finishes, the first thaws.
async fn thaws(place: &str, assignor: &str) {
    let rig = Rig::new(1).await;
    let hold = rig.hold();
    let options = |options: separation_testbed::WorkerOptions| options.env("KAFKA_ASSIGNOR", assignor);
    let zombie = options(held_at(rig.processor(), place, &hold)).start().unwrap();
    let task = rig.submit(1).await;
    zombie.wait_for_log("Held", PATIENCE).await.unwrap();
    zombie.sigstop().unwrap();
    let frozen = Instant::now();
    let heir = options(rig.processor()).start().unwrap();
    heir.wait_for_log("Offset committed successfully", PATIENCE)
        .await
        .unwrap();
    // The session of 6 s and 5 s more, and the start of a debug build on a busy machine.
    let stalled = frozen.elapsed();
    assert!(stalled < Duration::from_secs(11) + JOINING, "{stalled:?}");
    let manifest = rig.site.stems.join(&task).join("manifest.json");
    let shown = std::fs::read(&manifest).unwrap();
    let lag = rig
        .kafka
        .lag(&rig.site.processor_group, &rig.site.task_topic)
        .await
        .unwrap();
    std::fs::remove_file(&hold).unwrap();
    zombie.sigcont().unwrap();
    zombie
        .wait_for_log("The message went to another worker", PATIENCE)
        .await
        .unwrap();
    let mut tasks = BTreeSet::from([task]);
    rig.check_results(&tasks).await;
    assert_eq!(
        std::fs::read(&manifest).unwrap(),
        shown,
        "the stale work was shown"
    );
    let after = rig
        .kafka
        .lag(&rig.site.processor_group, &rig.site.task_topic)
        .await
        .unwrap();
    assert_eq!(after, lag, "the stale work was committed");
    assert_eq!(said(&zombie, "Offset committed"), 0);
    // It serves again.
    heir.sigterm().unwrap();
    assert_eq!(heir.wait_exit(PATIENCE).await.unwrap(), 0);
    tasks.insert(rig.submit(2).await);
    zombie
        .wait_for_log("Offset committed successfully", PATIENCE)
        .await
        .unwrap();
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
    assert_eq!(std::fs::read(&manifest).unwrap(), shown);
}

#[tokio::test]
async fn a_worker_that_was_frozen_before_its_stems_were_stored_shows_nothing() {
    thaws("separated", COOPERATIVE).await;
}

#[tokio::test]
async fn a_worker_that_was_frozen_before_its_stems_were_shown_shows_nothing() {
    thaws("stored", COOPERATIVE).await;
}

#[tokio::test]
async fn a_worker_that_was_frozen_before_its_result_was_published_publishes_nothing() {
    thaws("worked", COOPERATIVE).await;
}

#[tokio::test]
async fn a_worker_that_was_frozen_shows_nothing_under_range() {
    thaws("stored", RANGE).await;
}

#[tokio::test]
async fn a_worker_that_was_frozen_between_two_tasks_publishes_nothing_of_the_second() {
    let rig = Rig::new(1).await;
    let hold = rig.hold();
    let tasks = rig.submit_many(2).await;
    let zombie = held_at(rig.processor(), "committed", &hold).start().unwrap();
    // The next message is fetched by then.
    zombie.wait_for_log("Held", PATIENCE).await.unwrap();
    zombie.sigstop().unwrap();
    let heir = rig.processor().start().unwrap();
    heir.wait_for_log("Offset committed successfully", PATIENCE)
        .await
        .unwrap();
    std::fs::remove_file(&hold).unwrap();
    zombie.sigcont().unwrap();
    zombie.wait_for_log("Partitions lost", PATIENCE).await.unwrap();
    heir.sigterm().unwrap();
    // It serves again, so all that it had fetched before is behind it.
    zombie
        .wait_for_logs("Partitions assigned", 2, PATIENCE)
        .await
        .unwrap();
    let third = rig.submit(3).await;
    rig.tasks_committed().await;
    let mut all = tasks;
    all.insert(third);
    rig.check_results(&all).await;
}
