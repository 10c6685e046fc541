//! Tiny tasks while processors and uploaders are killed at random, every other one soon after it was asked to stop: is
//! anything lost or given up, is finished work done again?

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use separation_contract::names::dead_letter_topic;
use separation_testbed::{Receiver, Site, Worker, tiny_song};
use serde_json::{Value, json};

use crate::{Bench, progress};

/// Processors, then uploaders.
const FLEET: [&str; 6] = [
    "processor",
    "processor",
    "processor",
    "processor",
    "uploader",
    "uploader",
];

/// Partitions of each topic.
const PARTITIONS: i32 = 12;

/// The longest time from SIGTERM to SIGKILL, in milliseconds: that of a few tasks; a drain takes about as long.
const LONGEST_GRACE_MS: u64 = 100;

/// The whole run gives up after this.
const LIMIT: Duration = Duration::from_secs(1_500);

/// Workers that ran, and their logs.
struct Fleet<'b> {
    bench: &'b Bench,
    site: &'b Site<'b>,
    running: Vec<Worker>,
    /// Logs of those that were killed: task and message.
    seen: Vec<(String, String)>,
}

pub(crate) async fn measure(bench: &Bench, tasks: usize, kills: usize, seed: u64) -> Result<Value> {
    let site = bench.site(PARTITIONS).await?;
    let hooks = Receiver::start().await?;
    progress(&format!("publishing {tasks} tasks"));
    let mut names = BTreeSet::new();
    for number in 0..tasks {
        names.insert(
            site.submit(&tiny_song(number as u64), &hooks.url("/hook"))
                .await?,
        );
    }
    let mut fleet = Fleet {
        bench,
        site: &site,
        running: Vec::new(),
        seen: Vec::new(),
    };
    for role in FLEET {
        fleet.running.push(bench.role(&site, role).start()?);
    }
    let mut random = Random(seed);
    let begin = Instant::now();
    let mut killed = 0;
    loop {
        anyhow::ensure!(begin.elapsed() < LIMIT, "not done after {LIMIT:?}");
        let waiting = waiting(&site, bench).await?;
        if killed < kills {
            let grace = (killed % 2 == 1).then(|| Duration::from_millis(random.below(LONGEST_GRACE_MS)));
            let slot = random.below(FLEET.len() as u64) as usize;
            killed += usize::from(fleet.kill(slot, grace).await?);
            if killed % 10 == 0 {
                progress(&format!("{killed} killed, {waiting} messages wait"));
            }
        } else if waiting == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(300 + random.below(1_500))).await;
    }
    let seconds = begin.elapsed().as_secs_f64();
    for worker in std::mem::take(&mut fleet.running) {
        fleet.read(&worker)?;
        worker.sigterm()?;
        worker.wait_exit(Duration::from_secs(30)).await?;
    }
    let mut dead_letters = 0;
    for topic in [&site.task_topic, &site.result_topic] {
        let letters = bench.kafka.consume_all(&dead_letter_topic(topic)).await?;
        dead_letters += letters.len();
    }
    let told = told(&hooks)?;
    let mut lost = Vec::new();
    for task in &names {
        let manifest = bench.s3.get(&site.bucket, &format!("{task}.json")).await?;
        let manifest: Value = manifest
            .as_deref()
            .map_or(Ok(Value::Null), serde_json::from_slice)?;
        let mut whole = manifest["status"] == "success" && manifest["webhook"] == "delivered";
        for stem in ["vocals", "instrumental"] {
            whole &= bench
                .s3
                .get(&site.bucket, &format!("{task}_{stem}.wav"))
                .await?
                .is_some();
        }
        if !whole || told.get(task).is_none_or(|ids| ids.len() != 1) {
            lost.push(task.clone());
        }
    }
    let times = |message: &str| {
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        for (task, _) in fleet.seen.iter().filter(|(_, seen)| seen == message) {
            *times.entry(task).or_default() += 1;
        }
        times.values().filter(|&&count| count > 1).count()
    };
    Ok(json!({
        "tasks": tasks,
        "kills": killed,
        "seconds": seconds,
        "lost": lost,
        "dead_letters": dead_letters,
        "stems_stored_twice": times("Stems stored"),
        "uploaded_twice": times("Stems uploaded"),
        "tasks_with_several_webhook_ids": told.values().filter(|ids| ids.len() > 1).count(),
        "webhooks": hooks.requests_to("/hook").len(),
    }))
}

impl Fleet<'_> {
    /// Replaces a worker and kills it, so long after it was asked to stop if it was. Gives whether it still ran then.
    async fn kill(&mut self, slot: usize, grace: Option<Duration>) -> Result<bool> {
        let fresh = self.bench.role(self.site, FLEET[slot]).start()?;
        let worker = std::mem::replace(&mut self.running[slot], fresh);
        if let Some(grace) = grace {
            worker.sigterm()?;
            tokio::time::sleep(grace).await;
        }
        let killed = worker.kill_9().await.is_ok();
        self.read(&worker)?;
        Ok(killed)
    }

    fn read(&mut self, worker: &Worker) -> Result<()> {
        for line in worker.log()? {
            if let Some(task) = line.fields["task_uuid"].as_str() {
                self.seen.push((task.to_owned(), line.message));
            }
        }
        Ok(())
    }
}

async fn waiting(site: &Site<'_>, bench: &Bench) -> Result<i64> {
    let tasks = bench
        .kafka
        .total_lag(&site.processor_group, &site.task_topic)
        .await?;
    let results = bench
        .kafka
        .total_lag(&site.uploader_group, &site.result_topic)
        .await?;
    Ok(tasks + results)
}

/// The webhook ids that each task was told with.
fn told(hooks: &Receiver) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for request in hooks.requests_to("/hook") {
        let body: Value = serde_json::from_slice(&request.body)?;
        let task = body["task_uuid"].as_str().context("a webhook names its task")?;
        let id = request.header("webhook-id").context("a webhook has an id")?;
        told.entry(task.to_owned()).or_default().insert(id.to_owned());
    }
    Ok(told)
}

/// Numbers that look random and are the same for the same seed (a linear congruential generator).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
