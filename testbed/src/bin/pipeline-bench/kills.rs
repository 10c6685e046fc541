//! Small tasks while random processors and uploaders are killed, every other one shortly after SIGTERM.
//! Counts lost tasks, dead letters and repeated work.

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

/// The longest time from SIGTERM to SIGKILL, in milliseconds: a few tasks; a drain takes about as long.
const MAX_GRACE_MS: u64 = 100;

/// Time limit of the complete run.
const LIMIT: Duration = Duration::from_secs(1_500);

/// Running workers and their logs.
struct Fleet<'b> {
    bench: &'b Bench,
    site: &'b Site<'b>,
    running: Vec<Worker>,
    /// Log lines of killed workers: task and message.
    log_lines: Vec<(String, String)>,
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
        log_lines: Vec::new(),
    };
    for role in FLEET {
        fleet.running.push(bench.role(&site, role).start()?);
    }
    let mut random = Random(seed);
    let begin = Instant::now();
    let mut killed = 0;
    loop {
        anyhow::ensure!(begin.elapsed() < LIMIT, "not done after {LIMIT:?}");
        let lag = total_lag(&site, bench).await?;
        if killed < kills {
            let grace = (killed % 2 == 1).then(|| Duration::from_millis(random.below(MAX_GRACE_MS)));
            let slot = random.below(FLEET.len() as u64) as usize;
            killed += usize::from(fleet.kill(slot, grace).await?);
            if killed % 10 == 0 {
                progress(&format!("{killed} killed, lag {lag}"));
            }
        } else if lag == 0 {
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
    let webhook_ids = webhook_ids(&hooks)?;
    let mut lost = Vec::new();
    for task in &names {
        let manifest = bench.s3.get(&site.bucket, &format!("{task}.json")).await?;
        let manifest: Value = manifest
            .as_deref()
            .map_or(Ok(Value::Null), serde_json::from_slice)?;
        let mut is_complete = manifest["status"] == "success" && manifest["webhook"] == "delivered";
        for stem in ["vocals", "instrumental"] {
            is_complete &= bench
                .s3
                .get(&site.bucket, &format!("{task}_{stem}.wav"))
                .await?
                .is_some();
        }
        if !is_complete || webhook_ids.get(task).is_none_or(|ids| ids.len() != 1) {
            lost.push(task.clone());
        }
    }
    let times = |message: &str| {
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        for (task, _) in fleet.log_lines.iter().filter(|(_, logged)| logged == message) {
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
        "tasks_with_several_webhook_ids": webhook_ids.values().filter(|ids| ids.len() > 1).count(),
        "webhooks": hooks.requests_to("/hook").len(),
    }))
}

impl Fleet<'_> {
    /// Replaces a worker and kills it, after this grace period if one is given. Returns whether it was still
    /// running then.
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
                self.log_lines.push((task.to_owned(), line.message));
            }
        }
        Ok(())
    }
}

async fn total_lag(site: &Site<'_>, bench: &Bench) -> Result<i64> {
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

/// The webhook ids received for each task.
fn webhook_ids(hooks: &Receiver) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut webhook_ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for request in hooks.requests_to("/hook") {
        let body: Value = serde_json::from_slice(&request.body)?;
        let task = body["task_uuid"].as_str().context("a webhook names its task")?;
        let id = request.header("webhook-id").context("a webhook has an id")?;
        webhook_ids
            .entry(task.to_owned())
            .or_default()
            .insert(id.to_owned());
    }
    Ok(webhook_ids)
}

/// Pseudo-random numbers, the same for the same seed (a linear congruential generator).
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
