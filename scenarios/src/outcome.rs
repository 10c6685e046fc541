//! Results of tasks and pods, read from Kafka, S3, the webhook receiver, the pods' logs and their exit codes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Context, Result};
use separation_contract::names;
use separation_testbed::{Pod, PodHistory, Record};

use crate::Pool;
use crate::pool::is_processor;

/// The processor's log message for each separated song.
const SEPARATED: &str = "Separated";
/// The event message of a pod that is not ready.
const NOT_READY: &str = "Readiness probe failed";
/// The log field with the task's id.
const TASK: &str = "task_uuid";

/// Defects of a pool after its work. All lists are empty if everything worked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Tasks without stems, manifest, result or webhook, and what is missing.
    pub lost: Vec<String>,
    /// Tasks that were separated more than once.
    pub repeated: Vec<String>,
    /// Tasks with several results, or webhooks with several ids.
    pub duplicate_results: Vec<String>,
    /// Pods that did not exit by themselves with code 0, and how they ended.
    pub failed_pods: Vec<String>,
    /// Warning events of the pool, except the readiness warnings of every pod that starts or stops.
    pub warnings: Vec<String>,
    /// Messages on the dead-letter topics.
    pub dead_letters: usize,
    /// Consumer lag that is left.
    pub lag: i64,
}

impl Outcome {
    /// Reads the results once all webhooks are delivered and all pods are gone.
    ///
    /// # Errors
    /// If a server does not respond.
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
                outcome.repeated.push(format!("{task}: {times} times"));
            }
            let ids: BTreeSet<_> = pool
                .webhooks()
                .into_iter()
                .filter(|(delivered, _)| delivered == task)
                .collect();
            if ids.len() > 1 || results_of(task, &results) > 1 {
                outcome.duplicate_results.push(task.clone());
            }
        }
        outcome.failed_pods = pods.all().iter().filter_map(unexpected_exit).collect();
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
            outcome.lag += cluster.kafka.total_lag(&group, &topic).await?;
        }
        Ok(outcome)
    }
}

/// Missing artifacts of a finished task.
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
    if pool.webhooks().iter().all(|(delivered, _)| delivered != task) {
        missing.push("webhook".to_owned());
    }
    Ok(missing)
}

fn results_of(task: &str, results: &[Record]) -> usize {
    results.iter().filter(|result| result.key_text() == task).count()
}

/// Separations per task, by the logs of all processors, including those of deleted pods.
fn separations(pool: &Pool<'_>) -> Result<BTreeMap<String, usize>> {
    let mut times = BTreeMap::new();
    for log in pool.logs()? {
        // A worker runs one task at a time: the one it logged last.
        let mut running = None;
        for line in &log.lines {
            if line.contains(SEPARATED) {
                let task = running.clone();
                *times
                    .entry(task.context("a song was separated outside a task")?)
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
    let named = rest.chars().skip_while(|character| !is_of_task(character));
    Some(named.take_while(is_of_task).collect())
}

/// How a pod ended, if it restarted or did not exit by itself with code 0.
fn unexpected_exit(pod: &Pod) -> Option<String> {
    let exit = pod.container_exit();
    let is_clean = exit.as_ref().is_some_and(|exit| exit.exit_code == 0) && pod.restarts() == 0;
    (!is_clean).then(|| {
        format!(
            "{} ({}, {} restarts): {exit:?}",
            pod.name(),
            pod.phase(),
            pod.restarts()
        )
    })
}

/// The most processors at one time.
pub fn max_processors(pods: &PodHistory) -> usize {
    // Each one counts from its first to its last observation.
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
    let running_pods = changes.iter().scan(0_isize, |running_pods, (_, change)| {
        *running_pods += change;
        Some(*running_pods)
    });
    running_pods.max().unwrap_or_default().unsigned_abs()
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
