//! What became of tasks and pods, read where it cannot be made up: Kafka, S3, the receiver, the pods' logs and ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Context, Result};
use separation_contract::names;
use separation_testbed::{Pod, PodHistory, Record};

use crate::Pool;
use crate::pool::is_processor;

/// What a processor says of each song that it has separated.
const SEPARATED: &str = "Separated";
/// How Kubernetes says that a pod is not ready.
const NOT_READY: &str = "Readiness probe failed";
/// The field in which lines name a task.
const TASK: &str = "task_uuid";

/// All that can be held against a pool after its work. Empty lists are what one hopes for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Tasks without stems, manifest, result or webhook, and what is missing.
    pub lost: Vec<String>,
    /// Tasks that were separated more than once.
    pub separated_again: Vec<String>,
    /// Tasks with several results, or webhooks of several ids.
    pub told_twice: Vec<String>,
    /// Pods that did not end by themselves and well, with how they ended.
    pub ended_badly: Vec<String>,
    /// Warnings of the pool's events, but for those of every pod that starts and ends: that it is not ready.
    pub warnings: Vec<String>,
    /// Messages nobody could deal with.
    pub dead_letters: usize,
    /// Messages that still wait.
    pub waiting: i64,
}

impl Outcome {
    /// Reads it, when all tasks were told and all pods are gone.
    ///
    /// # Errors
    /// When a server does not answer.
    pub async fn read(pool: &Pool<'_>, tasks: &BTreeSet<String>, pods: &PodHistory) -> Result<Self> {
        let cluster = &pool.system.cluster;
        let mut outcome = Self::default();
        let results = cluster.kafka.consume_all(&pool.result_topic()).await?;
        let separated = separations(pool)?;
        for task in tasks {
            let missing = missing(pool, task, &results).await?;
            if !missing.is_empty() {
                outcome.lost.push(format!("{task}: no {}", missing.join(", ")));
            }
            let times = separated.get(task).copied().unwrap_or_default();
            if times == 0 {
                outcome.lost.push(format!("{task}: no separation in any log"));
            }
            if times > 1 {
                outcome.separated_again.push(format!("{task}: {times} times"));
            }
            let ids: BTreeSet<_> = pool.webhooks().into_iter().filter(|(of, _)| of == task).collect();
            if ids.len() > 1 || results_of(task, &results) > 1 {
                outcome.told_twice.push(task.clone());
            }
        }
        outcome.ended_badly = pods.all().iter().filter_map(bad_end).collect();
        let events = cluster.events(&pool.namespace).await?;
        let warnings = events
            .into_iter()
            .filter(|event| event.is_warning && !event.message.starts_with(NOT_READY));
        outcome.warnings = warnings
            .map(|event| format!("{}: {}: {}", event.object, event.reason, event.message))
            .collect();
        for topic in [pool.task_topic(), pool.result_topic()] {
            let dead_letters = names::dead_letter_topic(&topic);
            outcome.dead_letters += cluster.kafka.consume_all(&dead_letters).await?.len();
        }
        let groups = [
            (pool.processor_group(), pool.task_topic()),
            (pool.uploader_group(), pool.result_topic()),
        ];
        for (group, topic) in groups {
            outcome.waiting += cluster.kafka.total_lag(&group, &topic).await?;
        }
        Ok(outcome)
    }
}

/// What of a finished task is not there.
async fn missing(pool: &Pool<'_>, task: &str, results: &[Record]) -> Result<Vec<String>> {
    let s3 = &pool.system.cluster.s3;
    let mut missing = Vec::new();
    for name in ["_vocals.wav", "_instrumental.wav", ".json"] {
        let key = format!("{task}{name}");
        let stored = s3.get(&pool.bucket(), &key).await?;
        if stored.is_none_or(|object| object.is_empty()) {
            missing.push(key);
        }
    }
    if results_of(task, results) == 0 {
        missing.push("result".to_owned());
    }
    if pool.webhooks().iter().all(|(told, _)| told != task) {
        missing.push("webhook".to_owned());
    }
    Ok(missing)
}

fn results_of(task: &str, results: &[Record]) -> usize {
    results.iter().filter(|result| result.key_text() == task).count()
}

/// How often each task was separated, as the logs of all processors say, also of those that are gone.
fn separations(pool: &Pool<'_>) -> Result<BTreeMap<String, usize>> {
    let mut times = BTreeMap::new();
    for log in pool.logs()? {
        // A worker has one task at a time: the one that it named last.
        let mut running = None;
        for line in &log.lines {
            if line.contains(SEPARATED) {
                let task = running.clone();
                *times
                    .entry(task.context("a song of no task was separated")?)
                    .or_default() += 1;
            }
            running = task_of(line).or(running);
        }
    }
    Ok(times)
}

fn task_of(line: &str) -> Option<String> {
    let (_, rest) = line.split_once(TASK)?;
    let is_of_task = |character: &char| character.is_ascii_hexdigit() || *character == '-';
    let named = rest.chars().skip_while(|it| !is_of_task(it));
    Some(named.take_while(is_of_task).collect())
}

/// How a pod ended, where it was not by itself and with success, or more than once.
fn bad_end(pod: &Pod) -> Option<String> {
    let ended = pod.ended();
    let is_well = ended.as_ref().is_some_and(|ended| ended.exit_code == 0) && pod.restarts() == 0;
    (!is_well).then(|| {
        format!(
            "{} ({}, {} restarts): {ended:?}",
            pod.name(),
            pod.phase(),
            pod.restarts()
        )
    })
}

/// The most processors that were there at once.
pub fn most_processors(pods: &PodHistory) -> usize {
    // Each is there from when it was seen first until it was seen last.
    let mut changes: Vec<(Instant, isize)> = Vec::new();
    for pod in pods.all().iter().filter(|pod| is_processor(pod)) {
        let states = pods.states(pod);
        let (Some(first), Some(last)) = (states.first(), states.last()) else {
            continue;
        };
        changes.push((first.0, 1));
        changes.push((last.0, -1));
    }
    changes.sort_unstable();
    let there = changes.iter().scan(0_isize, |there, (_, change)| {
        *there += change;
        Some(*there)
    });
    there.max().unwrap_or_default().unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_read_from_lines_of_both_formats() {
        let task = "8fe50a0c-1f0a-4be1-9e0b-6b1b60ba2ed4";
        let plain = format!("2026-01-01 INFO Stems stored task_uuid={task} size=1");
        let json = format!(r#"{{"message":"Stems stored","task_uuid":"{task}","size":1}}"#);
        for line in [plain, json] {
            assert_eq!(task_of(&line).unwrap(), task);
        }
        assert_eq!(task_of("2026-01-01 INFO Separated frames=1"), None);
    }
}
