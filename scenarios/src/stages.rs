//! The time from a message at zero pods to the start of its task, by stage.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use separation_testbed::{ContainerLog, LogLine, PodHistory, eventually};

use crate::pool::is_processor;
use crate::{Pool, STEP_TIMEOUT};

/// The stages, in order. Each ends where the next one begins: with the operator's decision, the pod's creation, its
/// assignment to a node, the start of its container, the worker's first log line, its loaded model, its first assigned
/// partitions, and the start of the task.
pub const STAGES: [&str; 8] = [
    "decision",
    "write",
    "scheduler",
    "kubelet",
    "process",
    "model",
    "group join",
    "first fetch",
];

/// Log message of the operator right before it writes replicas.
const DECIDED: &str = "Writing Deployment";
/// Log messages of a processor.
const MODEL_LOADED: &str = "Model loaded";
const ASSIGNED: &str = "Partitions assigned";
const RECEIVED: &str = "Received task";

/// Publishes a task while the pool has no pods. Returns its id, and the time of each of the [`STAGES`] until it starts.
///
/// # Errors
/// If a server does not respond, or a stage left no trace.
pub async fn start_by_stage(
    pool: &Pool<'_>,
    pods: &PodHistory,
    number: u64,
) -> Result<(String, [Duration; STAGES.len()])> {
    let task = pool.submit(1.0, number).await?;
    let worker = eventually("the task's start", STEP_TIMEOUT, async || {
        let is_received = |log: &ContainerLog| time_of(log, |line| is_start_of(line, &task)).is_ok();
        anyhow::Ok(pool.logs()?.into_iter().find(is_received))
    })
    .await;
    let published = published(pool, &task).await?;
    let [created, bound] = pod_times(pods, &worker.pod)?;
    let first_line = worker
        .lines
        .iter()
        .find_map(|line| LogLine::read(line).time().ok());
    let times = [
        published,
        decided(pool, published)?,
        created,
        bound,
        worker
            .created
            .context("the file system records no creation times")?,
        first_line.context("the worker's log has no times")?,
        time_of(&worker, |line| line.message == MODEL_LOADED)?,
        time_of(&worker, |line| line.message == ASSIGNED)?,
        time_of(&worker, |line| is_start_of(line, &task))?,
    ];
    Ok((task, stages(&times)))
}

/// The times between consecutive moments. A watch reports a change some milliseconds late, so that two moments may seem to
/// be in the wrong order; then the time between them is 0.
fn stages(moments: &[SystemTime; STAGES.len() + 1]) -> [Duration; STAGES.len()] {
    std::array::from_fn(|stage| {
        moments[stage + 1]
            .duration_since(moments[stage])
            .unwrap_or_default()
    })
}

fn is_start_of(line: &LogLine, task: &str) -> bool {
    line.message == RECEIVED && line.fields["task_uuid"] == task
}

/// The time of the first line that is wanted.
fn time_of(log: &ContainerLog, is_wanted: impl Fn(&LogLine) -> bool) -> Result<SystemTime> {
    let line = log.lines.iter().map(|line| LogLine::read(line)).find(is_wanted);
    line.with_context(|| format!("a line is missing in the log of {}", log.pod))?
        .time()
}

/// The creation time of the task's message.
async fn published(pool: &Pool<'_>, task: &str) -> Result<SystemTime> {
    let records = pool.system.cluster.kafka.consume_all(&pool.task_topic()).await?;
    let record = records.iter().find(|record| record.key_text() == task);
    let millis = record.and_then(|record| record.timestamp_ms);
    let millis = millis.with_context(|| format!("the message of {task} has no timestamp"))?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_millis(millis.try_into()?))
}

/// When the operator decided to start a processor, after `published`.
fn decided(pool: &Pool<'_>, published: SystemTime) -> Result<SystemTime> {
    let system = pool.system;
    for log in system.cluster.node.container_logs()? {
        if log.namespace != system.release.namespace {
            continue;
        }
        let lines = log.lines.iter().map(|line| LogLine::read(line));
        let mut decisions =
            lines.filter(|line| line.message == DECIDED && line.fields["role"] == "processor");
        let time = decisions.find_map(|line| line.time().ok().filter(|time| *time >= published));
        if let Some(time) = time {
            return Ok(time);
        }
    }
    bail!("the operator logged no decision")
}

/// When a pod was created and assigned to a node, as a watch reported it.
fn pod_times(pods: &PodHistory, name: &str) -> Result<[SystemTime; 2]> {
    let existing = pods.all();
    let pod = existing
        .iter()
        .find(|pod| is_processor(pod) && pod.name() == name);
    let states = pods.states(pod.with_context(|| format!("no watch reported {name}"))?);
    let created = states.first();
    let bound = states
        .iter()
        .find(|(_, pod)| pod.object()["spec"]["nodeName"].is_string());
    let (created, bound) = created
        .zip(bound)
        .with_context(|| format!("{name} was never assigned to a node"))?;
    Ok([created.0, bound.0].map(system_time))
}

fn system_time(at: Instant) -> SystemTime {
    SystemTime::now() - at.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_the_times_between_moments_and_never_negative() {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let moments = [0, 5, 3, 10, 20, 40, 40, 100, 101].map(at);
        let expected = [5, 0, 7, 10, 20, 0, 60, 1].map(Duration::from_millis);
        assert_eq!(stages(&moments), expected);
    }
}
