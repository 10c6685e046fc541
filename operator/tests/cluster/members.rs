//! Real members of a pool's group, set as its workers are, and pods that are said to be ready.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::{ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList};
use separation_contract::kafka::{Assignor, OffsetReset, Timings, connection, one_message_consumer};
use separation_testbed::{Kafka, eventually};
use serde_json::json;

use crate::rig::SOON;
use crate::subject::PoolUnderTest;

/// One wait for messages.
const POLL: Duration = Duration::from_millis(20);

/// As a worker's, but for shorter sessions.
const TIMINGS: Timings = Timings {
    max_poll_interval: Duration::from_secs(60),
    session_timeout: Duration::from_secs(6),
    heartbeat_interval: Duration::from_millis(500),
};

/// What a member does with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tasks {
    /// It takes none until it is told to.
    Wait,
    /// It commits each at once.
    Commit,
    /// It takes them and commits none until it is told to.
    Hold,
}

/// A running member of a group. It leaves when this is dropped.
pub(crate) struct Member {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    ends: AtomicBool,
    seen: Mutex<Seen>,
}

struct Seen {
    tasks: Tasks,
    owned: Vec<i32>,
    taken: Vec<String>,
    held: Vec<(i32, i64)>,
}

/// Pauses what comes while tasks are not taken.
struct Context(Arc<Shared>);

impl Member {
    /// Joins the processors' group of a pool, by a pod's name.
    pub(crate) fn of(pool: &PoolUnderTest<'_>, pod: &str, tasks: Tasks) -> Self {
        Self::with(pool, pod, tasks, Assignor::CooperativeSticky)
    }

    /// The same with an assignor.
    pub(crate) fn with(pool: &PoolUnderTest<'_>, pod: &str, tasks: Tasks, assignor: Assignor) -> Self {
        let shared = Arc::new(Shared {
            ends: AtomicBool::new(false),
            seen: Mutex::new(Seen {
                tasks,
                owned: Vec::new(),
                taken: Vec::new(),
                held: Vec::new(),
            }),
        });
        let consumer: BaseConsumer<Context> =
            config(pool.kafka, &pool.group(), &pool.client_id(pod), assignor)
                .create_with_context(Context(Arc::clone(&shared)))
                .expect("a consumer");
        consumer.subscribe(&[&pool.tasks()]).expect("subscribed");
        let (of_thread, topic) = (Arc::clone(&shared), pool.tasks());
        let thread = std::thread::spawn(move || of_thread.run(&consumer, &topic));
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Does something else with messages from now on; what is held is committed, unless it is to be held.
    pub(crate) fn now(&self, tasks: Tasks) {
        self.shared.seen().tasks = tasks;
    }

    /// What it took, sorted.
    pub(crate) fn taken(&self) -> Vec<String> {
        let mut taken = self.shared.seen().taken.clone();
        taken.sort();
        taken
    }

    /// The partitions that it owns.
    pub(crate) fn owned(&self) -> Vec<i32> {
        self.shared.seen().owned.clone()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that panicked failed its test already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, consumer: &BaseConsumer<Context>, topic: &str) {
        let mut waits = true;
        while !self.ends.load(Ordering::Relaxed) {
            let message = consumer.poll(POLL);
            let assigned = consumer.assignment().unwrap_or_default();
            let mut seen = self.seen();
            seen.owned = assigned.elements().iter().map(|one| one.partition()).collect();
            seen.owned.sort_unstable();
            if waits && seen.tasks != Tasks::Wait {
                waits = consumer.resume(&assigned).is_err();
            }
            if let Some(Ok(message)) = message {
                let value = message.payload().unwrap_or_default();
                seen.taken.push(String::from_utf8_lossy(value).into_owned());
                seen.held.push((message.partition(), message.offset() + 1));
            }
            if seen.tasks == Tasks::Commit && !seen.held.is_empty() {
                let mut list = TopicPartitionList::new();
                for (partition, next) in &seen.held {
                    let added = list.add_partition_offset(topic, *partition, Offset::Offset(*next));
                    added.expect("an offset");
                }
                // Refused while partitions are shared out: then the next time.
                if consumer.commit(&list, CommitMode::Sync).is_ok() {
                    seen.held.clear();
                }
            }
        }
    }
}

impl ClientContext for Context {}

impl ConsumerContext for Context {
    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        if self.0.seen().tasks == Tasks::Wait
            && let Ok(assigned) = consumer.assignment()
        {
            // What is not owned any more need not be paused.
            let _ = consumer.pause(&assigned);
        }
    }
}

fn config(kafka: &Kafka, group: &str, client_id: &str, assignor: Assignor) -> ClientConfig {
    let mut config = ClientConfig::new();
    let consumer = one_message_consumer(group, &TIMINGS, assignor, OffsetReset::Earliest);
    for (name, value) in connection(&kafka.bootstrap(), client_id)
        .into_iter()
        .chain(consumer)
    {
        config.set(name, value);
    }
    config.set("topic.metadata.refresh.interval.ms", "1000");
    config.set("log_level", "2");
    config
}

/// All that a worker of the pool takes, once it has `count` messages and nothing waits any more.
pub(crate) async fn work_off(pool: &PoolUnderTest<'_>, count: usize) -> Vec<String> {
    let worker = Member::of(pool, &format!("{}-reader", pool.deployment_name()), Tasks::Commit);
    eventually(&format!("{count} messages taken"), SOON, async || {
        let taken = worker.taken().len();
        anyhow::ensure!(taken >= count, "{taken} were taken");
        let waiting = pool.kafka.total_lag(&pool.group(), &pool.tasks()).await?;
        anyhow::ensure!(waiting == 0, "{waiting} wait");
        anyhow::Ok(true)
    })
    .await;
    worker.taken()
}

/// Waits for so many pods of the processors and says that they are ready; gives their names.
pub(crate) async fn ready_pods(pool: &PoolUnderTest<'_>, count: usize) -> Vec<String> {
    let names = eventually(&format!("{count} pods"), SOON, async || {
        let names = pool.pod_names().await;
        (names.len() == count).then_some(names)
    })
    .await;
    let ready = json!({"status": {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }});
    for name in &names {
        pool.pods()
            .patch_status(name, &PatchParams::default(), &Patch::Merge(&ready))
            .await
            .expect("a pod");
    }
    names
}
