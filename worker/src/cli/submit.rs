//! `separation-worker submit`: posts songs, follows their tasks, downloads their stems.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use separation_contract::message::{Task, TaskId};
use serde::Serialize;
use uuid::Uuid;

use super::failure::Failure;
use super::printing::{json_out, line_err, line_out};
use super::stem_files;
use super::submit_args::{SubmitArguments, SubmitPlan, Target};
use super::submit_client::{ApiClient, ReportedStage, StatusResponse};
use super::submit_progress::SubmitProgress;
use super::submit_song::Song;
use crate::clock::unix_time;
use crate::kafka::{Header, Producer, start_tokens};
use crate::telemetry::TraceContext;

/// Polling interval of a task.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Consecutive failed status requests after which a song counts as failed: two minutes, enough to replace an API.
const MAX_FAILURES: u32 = 120;

/// Time limit for flushing published tasks.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// The report of one song.
#[derive(Debug, Default, Serialize)]
struct SubmitReport {
    input: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_uuid: Option<TaskId>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vocals: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instrumental: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<String>,
}

/// A posted song whose task has not ended.
struct Running {
    song: Song,
    task_uuid: TaskId,
    failures: u32,
}

pub(super) fn run(arguments: &SubmitArguments) -> Result<(), Failure> {
    let plan = arguments.plan().map_err(Failure::Usage)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let submitted = runtime.block_on(async {
        tokio::select! {
            submitted = submit(plan) => submitted,
            _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
        }
    });
    runtime.shutdown_background();
    submitted
}

async fn submit(plan: SubmitPlan) -> Result<(), Failure> {
    let mut reporter = Reporter {
        json: plan.json,
        failed: false,
    };
    match &plan.target {
        Target::Kafka { settings, topic } => {
            start_tokens(settings)
                .await
                .context("cannot authenticate at Kafka")?;
            let producer = Producer::new(settings).context("cannot create a Kafka client")?;
            for song in &plan.songs {
                let report = publish(&producer, topic, song, plan.hook_url.as_deref()).await;
                reporter.print(&report)?;
            }
            let flushed = producer.close(FLUSH_LIMIT).await;
            flushed.context("Kafka did not confirm all tasks")?;
        }
        Target::Api(api) => submit_to_api(&plan, api, &mut reporter).await?,
    }
    if reporter.failed {
        Err(Failure::Reported)
    } else {
        Ok(())
    }
}

async fn submit_to_api(plan: &SubmitPlan, api: &ApiClient, reporter: &mut Reporter) -> Result<(), Failure> {
    let mut progress = SubmitProgress::start(plan.songs.len());
    let mut running = Vec::new();
    api.wait_until_started().await;
    for song in &plan.songs {
        progress.update(&song.name, "posting");
        let report = match api.post(song, plan.hook_url.as_deref()).await {
            Ok(task_uuid) if plan.wait => {
                progress.update(&song.name, &format!("queued as {task_uuid}"));
                running.push(Running {
                    song: song.clone(),
                    task_uuid,
                    failures: 0,
                });
                continue;
            }
            Ok(task_uuid) => SubmitReport {
                status: "queued",
                task_uuid: Some(task_uuid),
                ..SubmitReport::for_song(song)
            },
            Err(error) => SubmitReport::failed(song, None, format!("{error:#}")),
        };
        progress.finish_one(|| reporter.print(&report))?;
    }
    let deadline = plan
        .timeout
        .and_then(|timeout| Instant::now().checked_add(timeout));
    let mut interval = tokio::time::interval(POLL_INTERVAL);
    while !running.is_empty() {
        interval.tick().await;
        let timed_out = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let mut unfinished = Vec::with_capacity(running.len());
        for mut task in running {
            match poll(plan, api, &mut task, &mut progress, timed_out).await {
                None => unfinished.push(task),
                Some(report) => {
                    progress.finish_one(|| reporter.print(&report))?;
                }
            }
        }
        running = unfinished;
    }
    progress.finish();
    Ok(())
}

/// Reads the status of a task; returns a report once it has ended.
async fn poll(
    plan: &SubmitPlan,
    api: &ApiClient,
    task: &mut Running,
    progress: &mut SubmitProgress,
    timed_out: bool,
) -> Option<SubmitReport> {
    let failed = |error: String| Some(SubmitReport::failed(&task.song, Some(&task.task_uuid), error));
    let response = match api.poll(&task.task_uuid).await {
        Ok(response) => response,
        Err(error) if task.failures >= MAX_FAILURES => return failed(format!("{error:#}")),
        Err(_) => {
            task.failures += 1;
            return None;
        }
    };
    task.failures = 0;
    progress.update(&task.song.name, &response.status_text());
    match response.status {
        ReportedStage::Done => Some(done(plan, api, task, response).await),
        ReportedStage::Failed => failed(response.error_message.unwrap_or_else(|| "unknown error".into())),
        ReportedStage::Other if timed_out => failed("--timeout exceeded; the task continues".into()),
        ReportedStage::Other => None,
    }
}

async fn done(plan: &SubmitPlan, api: &ApiClient, task: &Running, response: StatusResponse) -> SubmitReport {
    let report = SubmitReport {
        status: "done",
        task_uuid: Some(task.task_uuid.clone()),
        vocals: response.vocals,
        instrumental: response.instrumental,
        ..SubmitReport::for_song(&task.song)
    };
    let Some(output) = &plan.output else {
        return report;
    };
    match fetch_stems(api, &task.song, &report, output).await {
        Ok(outputs) => SubmitReport { outputs, ..report },
        Err(error) => SubmitReport {
            status: "failed",
            error: Some(format!("{error:#}")),
            ..report
        },
    }
}

async fn fetch_stems(
    api: &ApiClient,
    song: &Song,
    report: &SubmitReport,
    output: &Path,
) -> anyhow::Result<Vec<String>> {
    let mut outputs = Vec::new();
    for (stem, link) in [("vocals", &report.vocals), ("instrumental", &report.instrumental)] {
        let path = output.join(stem_files::name(OsStr::new(&song.stem), &format!("_{stem}.wav")));
        let link = link
            .as_ref()
            .with_context(|| format!("the status has no link to the {stem}"))?;
        let fetched = api.fetch(link, &path).await;
        fetched.with_context(|| format!("cannot download the {stem}"))?;
        outputs.push(path.display().to_string());
    }
    Ok(outputs)
}

async fn publish(producer: &Producer, topic: &str, song: &Song, hook_url: Option<&str>) -> SubmitReport {
    let id = Uuid::new_v4().to_string();
    let task_uuid = TaskId::parse(&id).expect("a UUID is a valid task id");
    let hook_url = hook_url.map(str::to_owned);
    let task = Task::new(
        task_uuid.clone(),
        song.address.clone(),
        hook_url,
        unix_time().as_secs(),
    );
    let headers = [Header {
        name: TraceContext::HEADER,
        value: TraceContext::start().to_string(),
    }];
    let value = task.to_json();
    let published = producer.publish(topic, Some(id.as_bytes()), value.as_bytes(), &headers);
    match published.await {
        Ok(_) => SubmitReport {
            status: "queued",
            task_uuid: Some(task_uuid),
            ..SubmitReport::for_song(song)
        },
        Err(error) => SubmitReport::failed(song, Some(&task_uuid), crate::work::chain(&error)),
    }
}

impl SubmitReport {
    fn for_song(song: &Song) -> Self {
        Self {
            input: song.address.clone(),
            ..Self::default()
        }
    }

    fn failed(song: &Song, task_uuid: Option<&TaskId>, error: String) -> Self {
        Self {
            status: "failed",
            error: Some(error),
            task_uuid: task_uuid.cloned(),
            ..Self::for_song(song)
        }
    }
}

/// Prints reports and records whether one is a failure.
struct Reporter {
    json: bool,
    failed: bool,
}

impl Reporter {
    fn print(&mut self, report: &SubmitReport) -> Result<(), Failure> {
        self.failed |= report.error.is_some();
        Ok(self.write(report).context("cannot write the report")?)
    }

    fn write(&self, report: &SubmitReport) -> io::Result<()> {
        if self.json {
            return json_out(report);
        }
        if let Some(error) = &report.error {
            line_err(&format!("{}: {error}", report.input));
            return Ok(());
        }
        let links = [&report.vocals, &report.instrumental].into_iter().flatten();
        let results: Vec<&String> = if report.outputs.is_empty() {
            links.collect()
        } else {
            report.outputs.iter().collect()
        };
        for result in results {
            line_out(result)?;
        }
        let id = report
            .task_uuid
            .as_ref()
            .map(|id| format!(" as {id}"))
            .unwrap_or_default();
        line_out(&format!("{}: {}{id}", report.input, report.status))
    }
}
