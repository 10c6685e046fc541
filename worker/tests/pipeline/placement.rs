//! The HTTP API publishes each task to a partition of a processor that can begin it soon.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::multipart;
use separation_contract::environment as env;
use separation_testbed::{AUTHORIZER, Record, Worker, WorkerOptions, eventually, tiny_song};
use serde_json::Value;

use crate::refusals::{authenticates, brokers};
use crate::rig::{Rig, STEP_TIMEOUT, WORKER, admin, ask, held_at, http};

const PARTITIONS: i32 = 12;

/// After this time, the API reads the group again.
const READING_AGE: Duration = Duration::from_secs(1);

/// Further attempts if a reading of the group takes longer than the API waits for it, on a busy machine.
const ATTEMPTS: usize = 5;

/// A running API.
pub(crate) struct Api {
    pub(crate) worker: Worker,
    address: SocketAddr,
    admin: SocketAddr,
}

pub(crate) fn api(rig: &Rig) -> WorkerOptions {
    let api = rig.site.worker(WORKER, "api");
    api.env(env::API_HOST, "127.0.0.1").env(env::API_PORT, "0")
}

impl Api {
    pub(crate) async fn start(options: WorkerOptions) -> Self {
        let worker = options.start().unwrap();
        Self {
            address: worker.address("API listens", STEP_TIMEOUT).await.unwrap(),
            admin: admin(&worker).await,
            worker,
        }
    }

    /// Posts a song, and returns its task.
    pub(crate) async fn post(&self) -> String {
        let form = multipart::Form::new().part("audio", multipart::Part::bytes(tiny_song(1)));
        let posted = http()
            .post(format!("http://{}/tasks", self.address))
            .multipart(form)
            .send();
        let answer: Value = posted.await.unwrap().json().await.unwrap();
        let task = answer["task_uuid"].as_str();
        task.unwrap_or_else(|| panic!("not queued: {answer}")).to_owned()
    }

    /// Posts a song, and returns its task and how its partition was chosen. No other song may be posted meanwhile.
    async fn post_alone(&self) -> (String, String) {
        let before = self.placements().await;
        let task = self.post().await;
        let after = self.placements().await;
        let changed = after
            .into_iter()
            .find(|(how, count)| before.get(how) != Some(count));
        (task, changed.expect("a placement").0)
    }

    /// Number of placements, by how the partition was chosen.
    async fn placements(&self) -> BTreeMap<String, u64> {
        let (_, text) = ask(self.admin, "/metrics").await.unwrap();
        let samples = text.lines().filter_map(|line| {
            let sample = line.strip_prefix("separation_placements_total{how=\"")?;
            let (how, count) = sample.split_once("\"} ")?;
            Some((how.to_owned(), count.parse().unwrap()))
        });
        samples.collect()
    }
}

fn named(rig: &Rig, name: &str) -> WorkerOptions {
    rig.processor().env(env::KAFKA_CLIENT_ID, name)
}

/// The partitions of each processor, once `count` of them share all.
async fn members(rig: &Rig, count: usize) -> BTreeMap<String, BTreeSet<i32>> {
    eventually("a stable group", STEP_TIMEOUT, async || {
        let group = rig.kafka.group(&rig.site.processor_group).await?;
        let members: BTreeMap<String, BTreeSet<i32>> = group
            .members
            .iter()
            .map(|member| {
                let partitions = member.partitions.iter().map(|(_, number)| *number);
                (member.client_id.clone(), partitions.collect())
            })
            .collect();
        let assigned: usize = members.values().map(BTreeSet::len).sum();
        let is_stable = group.state == "Stable" && members.len() == count && assigned == PARTITIONS as usize;
        anyhow::Ok(is_stable.then_some(members))
    })
    .await
}

/// The partition of each task.
async fn partitions(rig: &Rig) -> BTreeMap<String, i32> {
    let messages = rig.kafka.consume_all(&rig.site.task_topic).await.unwrap();
    let placed = |message: &Record| (message.key_text(), message.partition);
    messages.iter().map(placed).collect()
}

#[tokio::test]
async fn no_task_is_placed_on_a_busy_processor_while_another_is_idle() {
    let rig = Rig::new(PARTITIONS).await;
    let api = Api::start(api(&rig)).await;
    let hold = rig.hold();
    let busy = held_at(named(&rig, "busy"), "separated", &hold).start().unwrap();
    let _idle = ["second", "third"].map(|name| named(&rig, name).start().unwrap());
    let of_busy = members(&rig, 3).await.remove("busy").unwrap();
    rig.submit_to(*of_busy.first().unwrap(), 2).await;
    busy.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    let (group, topic) = (&rig.site.processor_group, &rig.site.task_topic);
    let (mut on_idle, mut others) = (Vec::new(), Vec::new());
    while on_idle.len() < 10 && others.len() < ATTEMPTS {
        eventually("the other processors idle", STEP_TIMEOUT, async || {
            let lag = rig.kafka.lag(group, topic).await?;
            let mut of_others = lag.iter().filter(|read| !of_busy.contains(&read.partition));
            anyhow::Ok(of_others.all(|read| read.lag == 0))
        })
        .await;
        tokio::time::sleep(READING_AGE).await;
        match api.post_alone().await {
            (task, how) if how == "idle" => on_idle.push(task),
            other => others.push(other),
        }
    }
    assert_eq!(on_idle.len(), 10, "{others:?}");
    let partitions = partitions(&rig).await;
    for task in on_idle {
        assert!(
            !of_busy.contains(&partitions[&task]),
            "{partitions:?}, busy: {of_busy:?}"
        );
    }
}

#[tokio::test]
async fn three_simultaneous_tasks_are_placed_on_three_idle_processors() {
    let rig = Rig::new(PARTITIONS).await;
    let api = Api::start(api(&rig)).await;
    let hold = rig.directory.path().join("hold");
    let processor = |name| held_at(named(&rig, name), "separated", &hold).start().unwrap();
    let _processors = ["first", "second", "third"].map(processor);
    let members = members(&rig, 3).await;
    for _ in 0..ATTEMPTS {
        // Each processes one task at most.
        std::fs::write(&hold, "").unwrap();
        let before = api.placements().await;
        let tasks = join_all([api.post(), api.post(), api.post()]).await;
        let after = api.placements().await;
        let idle = |placements: &BTreeMap<String, u64>| placements.get("idle").copied().unwrap_or(0);
        if idle(&after) == idle(&before) + 3 {
            let partitions = partitions(&rig).await;
            let owner = |task: &String| {
                let mut owners = members.iter();
                owners.find(|(_, assigned)| assigned.contains(&partitions[task]))
            };
            let owners: BTreeSet<&String> = tasks.iter().filter_map(owner).map(|(name, _)| name).collect();
            assert_eq!(owners.len(), 3, "{owners:?}");
            return;
        }
        std::fs::remove_file(&hold).unwrap();
        rig.tasks_committed().await;
        // The reading from before these tasks is in use until then.
        tokio::time::sleep(READING_AGE * 2).await;
    }
    panic!(
        "never three tasks on idle processors: {:?}",
        api.placements().await
    );
}

#[tokio::test]
async fn without_processors_each_task_is_placed_on_another_partition() {
    let rig = Rig::new(PARTITIONS).await;
    let api = Api::start(api(&rig)).await;
    let (mut in_turn, mut others) = (Vec::new(), Vec::new());
    while in_turn.len() < 4 && others.len() < ATTEMPTS {
        match api.post_alone().await {
            (task, how) if how == "round_robin" => in_turn.push(task),
            other => others.push(other),
        }
    }
    assert_eq!(in_turn.len(), 4, "{others:?}");
    let partitions = partitions(&rig).await;
    let used: BTreeSet<i32> = in_turn.iter().map(|task| partitions[task]).collect();
    assert_eq!(used.len(), 4, "{partitions:?}");
}

#[tokio::test]
async fn an_api_that_may_not_describe_the_group_uses_the_hash_of_the_message_key() {
    let kafka = brokers(&AUTHORIZER).await;
    let rig = Rig::on(kafka, PARTITIONS).await;
    let (user, topic) = (
        format!("User:{}", kafka.security().username()),
        &rig.site.task_topic,
    );
    let writing = [
        "--add",
        "--allow-principal",
        &user,
        "--operation",
        "Write",
        "--topic",
        topic,
    ];
    kafka.change_acls(&writing).await.unwrap();
    let api = Api::start(authenticates(&rig, api(&rig), kafka.security().password())).await;
    let mut tasks = Vec::new();
    for _ in 0..3 {
        let (task, how) = api.post_alone().await;
        assert_eq!(how, "hashed");
        tasks.push(task);
    }
    let warning = api
        .worker
        .wait_for_log("Cannot read the consumer group", STEP_TIMEOUT);
    warning.await.unwrap();
    let placed = partitions(&rig).await;
    for task in tasks {
        let (hashed, _) = kafka.publish(topic, &task, "", &[]).await.unwrap();
        assert_eq!(placed[&task], hashed);
    }
    kafka.kill_broker(0).await.unwrap();
}
