//! Real members of a pool's group, configured like its workers, and pods that a test reports as ready.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::{ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList};
use separation_contract::kafka::{Assignor, OffsetReset, Timings, connection, one_message_consumer};
use separation_contract::offset_metadata::OffsetMetadata;
use separation_testbed::{Kafka, eventually};
use serde_json::json;

use crate::rig::SOON;
use crate::subject::PoolUnderTest;

/// Timeout of one poll.
const POLL: Duration = Duration::from_millis(20);

/// The time that members report of each task.
pub(crate) const TASK_TIME: Duration = Duration::from_secs(7);

/// Session timeout, shorter than a worker's.
const TIMINGS: Timings = Timings {
    max_poll_interval: Duration::from_secs(60),
    session_timeout: Duration::from_secs(6),
    heartbeat_interval: Duration::from_millis(500),
};

/// How a member handles messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tasks {
    /// Consumes none until this changes.
    Wait,
    /// Commits each immediately.
    Commit,
    /// Consumes them and commits none until this changes.
    Hold,
}

/// A running member of a group. It leaves when this is dropped.
pub(crate) struct Member {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    ends: AtomicBool,
    state: Mutex<MemberState>,
}

struct MemberState {
    tasks: Tasks,
    owned: Vec<i32>,
    taken: Vec<String>,
    held: Vec<(i32, i64)>,
}

/// Pauses newly assigned partitions while tasks are not consumed.
struct Context(Arc<Shared>);

impl Member {
    /// Joins the processors' group of a pool with a pod's name.
    pub(crate) fn of(pool: &PoolUnderTest<'_>, pod: &str, tasks: Tasks) -> Self {
        Self::with(pool, pod, tasks, Assignor::CooperativeSticky)
    }

    /// As [`Self::of`], with an assignor.
    pub(crate) fn with(pool: &PoolUnderTest<'_>, pod: &str, tasks: Tasks, assignor: Assignor) -> Self {
        let config = config(pool.kafka, &pool.group(), &pool.client_id(pod), assignor);
        Self::start(pool, &config, tasks)
    }

    /// Joins the processors' group of a pool with the consumer protocol (KIP-848), which no worker uses.
    pub(crate) fn of_consumer_protocol(pool: &PoolUnderTest<'_>, client_id: &str, tasks: Tasks) -> Self {
        let mut config = config(pool.kafka, &pool.group(), client_id, Assignor::CooperativeSticky);
        // The broker decides these.
        for name in [
            "partition.assignment.strategy",
            "session.timeout.ms",
            "heartbeat.interval.ms",
        ] {
            config.remove(name);
        }
        config.set("group.protocol", "consumer");
        Self::start(pool, &config, tasks)
    }

    fn start(pool: &PoolUnderTest<'_>, config: &ClientConfig, tasks: Tasks) -> Self {
        let shared = Arc::new(Shared {
            ends: AtomicBool::new(false),
            state: Mutex::new(MemberState {
                tasks,
                owned: Vec::new(),
                taken: Vec::new(),
                held: Vec::new(),
            }),
        });
        let consumer: BaseConsumer<Context> = config
            .create_with_context(Context(Arc::clone(&shared)))
            .expect("a consumer");
        consumer.subscribe(&[&pool.tasks()]).expect("subscribed");
        let (for_thread, topic) = (Arc::clone(&shared), pool.tasks());
        let thread = std::thread::spawn(move || for_thread.run(&consumer, &topic));
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Changes how it handles messages; held messages are committed, unless they are still to be held.
    pub(crate) fn now(&self, tasks: Tasks) {
        self.shared.state().tasks = tasks;
    }

    /// The messages that it consumed, sorted.
    pub(crate) fn taken(&self) -> Vec<String> {
        let mut taken = self.shared.state().taken.clone();
        taken.sort();
        taken
    }

    /// The partitions that it owns.
    pub(crate) fn owned(&self) -> Vec<i32> {
        self.shared.state().owned.clone()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has already failed its test.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, MemberState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, consumer: &BaseConsumer<Context>, topic: &str) {
        let mut paused = true;
        while !self.ends.load(Ordering::Relaxed) {
            let message = consumer.poll(POLL);
            let assigned = consumer.assignment().unwrap_or_default();
            let mut state = self.state();
            state.owned = assigned.elements().iter().map(|one| one.partition()).collect();
            state.owned.sort_unstable();
            if paused && state.tasks != Tasks::Wait {
                paused = consumer.resume(&assigned).is_err();
            }
            if let Some(Ok(message)) = message {
                let value = message.payload().unwrap_or_default();
                state.taken.push(String::from_utf8_lossy(value).into_owned());
                state.held.push((message.partition(), message.offset() + 1));
            }
            if state.tasks == Tasks::Commit && !state.held.is_empty() {
                let mut list = TopicPartitionList::new();
                for (partition, next) in &state.held {
                    let added = list.add_partition_offset(topic, *partition, Offset::Offset(*next));
                    added.expect("an offset");
                    let mut added = list.find_partition(topic, *partition).expect("it was added");
                    added.set_metadata(OffsetMetadata::last(Some(TASK_TIME)).to_string());
                }
                // Refused during a rebalance: the next poll retries it.
                if consumer.commit(&list, CommitMode::Sync).is_ok() {
                    state.held.clear();
                }
            }
        }
    }
}

impl ClientContext for Context {}

impl ConsumerContext for Context {
    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        if self.0.state().tasks == Tasks::Wait
            && let Ok(assigned) = consumer.assignment()
        {
            // Partitions that are no longer owned need not be paused.
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

/// All messages that a worker of the pool consumes, once it has `count` and the lag is 0.
pub(crate) async fn consume_backlog(pool: &PoolUnderTest<'_>, count: usize) -> Vec<String> {
    let worker = Member::of(pool, &format!("{}-reader", pool.deployment_name()), Tasks::Commit);
    eventually(&format!("{count} messages taken"), SOON, async || {
        let taken = worker.taken().len();
        anyhow::ensure!(taken >= count, "{taken} were taken");
        let lag = pool.kafka.total_lag(&pool.group(), &pool.tasks()).await?;
        anyhow::ensure!(lag == 0, "{lag} wait");
        anyhow::Ok(true)
    })
    .await;
    worker.taken()
}

/// A member for each pod, with `partitions` partitions and an uncommitted message of each.
pub(crate) async fn busy_members<'n>(
    pool: &PoolUnderTest<'_>,
    pods: &'n [String],
    partitions: usize,
) -> BTreeMap<&'n str, Member> {
    let members: BTreeMap<&str, Member> = pods
        .iter()
        .map(|pod| (pod.as_str(), Member::of(pool, pod, Tasks::Wait)))
        .collect();
    eventually("partitions for each", SOON, async || {
        members.values().all(|member| member.owned().len() == partitions)
    })
    .await;
    for member in members.values() {
        member.now(Tasks::Hold);
    }
    eventually("a task of each partition", SOON, async || {
        members.values().all(|member| member.taken().len() == partitions)
    })
    .await;
    members
}

/// Waits for `count` processor pods, reports them as ready, and returns their names.
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
