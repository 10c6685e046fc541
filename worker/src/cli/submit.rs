//! `separation-worker submit`: posts songs, follows them, fetches their stems.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use separation_contract::message::{Task, TaskId};
use serde::Serialize;
use uuid::Uuid;

use super::Failure;
use super::printing::{json_out, line_err, line_out};
use super::stem_files;
use super::submit_args::{Plan, Song, SubmitArguments, Target};
use super::submit_client::{ApiClient, Seen, Stage};
use super::submit_progress::SubmitProgress;
use crate::clock::unix_time;
use crate::kafka::{Header, Producer};
use crate::telemetry::TraceContext;

/// Time between two looks at a task.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Looks in a row that may fail before a song is given up: two minutes, in which an API can be replaced.
const MOST_FAILURES: u32 = 120;

/// How long brokers may take with what was published.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// What became of one song.
#[derive(Debug, Default, Serialize)]
struct SongReport {
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

/// A song that was posted and is not over.
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
        .context("cannot start a runtime")
        .map_err(Failure::Work)?;
    let submitted = runtime.block_on(async {
        tokio::select! {
            submitted = submit(plan) => submitted,
            _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
        }
    });
    runtime.shutdown_background();
    submitted
}

async fn submit(plan: Plan) -> Result<(), Failure> {
    let mut reporter = Reporter {
        json: plan.json,
        failed: false,
    };
    match &plan.target {
        Target::Kafka { settings, topic } => {
            let producer = Producer::new(settings)
                .context("cannot make a Kafka client")
                .map_err(Failure::Work)?;
            for song in &plan.songs {
                let report = publish(&producer, topic, song, plan.hook_url.as_deref()).await;
                reporter.print(&report)?;
            }
            let flushed = producer.close(FLUSH_LIMIT).await;
            flushed
                .context("not everything reached Kafka")
                .map_err(Failure::Work)?;
        }
        Target::Api(api) => submit_to_api(&plan, api, &mut reporter).await?,
    }
    if reporter.failed {
        Err(Failure::Reported)
    } else {
        Ok(())
    }
}

async fn submit_to_api(plan: &Plan, api: &ApiClient, reporter: &mut Reporter) -> Result<(), Failure> {
    let mut progress = SubmitProgress::start(plan.songs.len());
    let mut running = Vec::new();
    api.wait_until_there().await;
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
            Ok(task_uuid) => SongReport {
                status: "queued",
                task_uuid: Some(task_uuid),
                ..SongReport::of(song)
            },
            Err(error) => SongReport::failed(song, None, format!("{error:#}")),
        };
        progress.over(|| reporter.print(&report))?;
    }
    let deadline = plan
        .timeout
        .and_then(|timeout| Instant::now().checked_add(timeout));
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    while !running.is_empty() {
        interval.tick().await;
        let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let mut still = Vec::with_capacity(running.len());
        for mut task in running {
            match look(plan, api, &mut task, &mut progress, late).await {
                None => still.push(task),
                Some(report) => {
                    progress.over(|| reporter.print(&report))?;
                }
            }
        }
        running = still;
    }
    progress.finish();
    Ok(())
}

/// Looks at a task; gives a report when it is over.
async fn look(
    plan: &Plan,
    api: &ApiClient,
    task: &mut Running,
    progress: &mut SubmitProgress,
    late: bool,
) -> Option<SongReport> {
    let failed = |error: String| Some(SongReport::failed(&task.song, Some(&task.task_uuid), error));
    let seen = match api.look(&task.task_uuid).await {
        Ok(seen) => seen,
        Err(error) if task.failures >= MOST_FAILURES => return failed(format!("{error:#}")),
        Err(_) => {
            task.failures += 1;
            return None;
        }
    };
    task.failures = 0;
    progress.update(&task.song.name, &seen.words());
    match seen.status {
        Stage::Done => Some(done(plan, api, task, seen).await),
        Stage::Failed => failed(seen.error_message.unwrap_or_else(|| "unknown error".into())),
        Stage::Other if late => failed("not done in time; it goes on without being followed".into()),
        Stage::Other => None,
    }
}

async fn done(plan: &Plan, api: &ApiClient, task: &Running, seen: Seen) -> SongReport {
    let report = SongReport {
        status: "done",
        task_uuid: Some(task.task_uuid.clone()),
        vocals: seen.vocals,
        instrumental: seen.instrumental,
        ..SongReport::of(&task.song)
    };
    let Some(output) = &plan.output else {
        return report;
    };
    match fetch_stems(api, &task.song, &report, output).await {
        Ok(outputs) => SongReport { outputs, ..report },
        Err(error) => SongReport {
            status: "failed",
            error: Some(format!("{error:#}")),
            ..report
        },
    }
}

async fn fetch_stems(
    api: &ApiClient,
    song: &Song,
    report: &SongReport,
    output: &Path,
) -> anyhow::Result<Vec<String>> {
    let mut outputs = Vec::new();
    for (stem, link) in [("vocals", &report.vocals), ("instrumental", &report.instrumental)] {
        let path = output.join(stem_files::name(OsStr::new(&song.stem), &format!("_{stem}.wav")));
        let link = link
            .as_ref()
            .with_context(|| format!("there is no link to the {stem}"))?;
        let fetched = api.fetch(link, &path).await;
        fetched.with_context(|| format!("cannot fetch the {stem}"))?;
        outputs.push(path.display().to_string());
    }
    Ok(outputs)
}

async fn publish(producer: &Producer, topic: &str, song: &Song, hook_url: Option<&str>) -> SongReport {
    let id = Uuid::new_v4().to_string();
    let task_uuid = TaskId::parse(&id).expect("a UUID is a task's name");
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
        Ok(_) => SongReport {
            status: "queued",
            task_uuid: Some(task_uuid),
            ..SongReport::of(song)
        },
        Err(error) => SongReport::failed(song, Some(&task_uuid), crate::work::chain(&error)),
    }
}

impl SongReport {
    fn of(song: &Song) -> Self {
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
            ..Self::of(song)
        }
    }
}

/// Prints reports, and knows whether one was of a failure.
struct Reporter {
    json: bool,
    failed: bool,
}

impl Reporter {
    fn print(&mut self, report: &SongReport) -> Result<(), Failure> {
        self.failed |= report.error.is_some();
        self.write(report)
            .context("cannot write the report")
            .map_err(Failure::Work)
    }

    fn write(&self, report: &SongReport) -> io::Result<()> {
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
