//! The scaling policy of `separation-operator local` while the tasks of a trace arrive: real brokers, a real object store,
//! the API, and worker processes, each of which has its task for the time in the trace.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use reqwest::multipart::{Form, Part};
use reqwest::{Client, StatusCode};
use separation_contract::environment as env;
use separation_testbed::{LogLine, Site, Worker, WorkerOptions, eventually, tiny_song};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::timed_songs::TimedSongs;
use crate::{Bench, progress};

/// Time limit of each step, and of the last tasks and the scale-down after them.
const LIMIT: Duration = Duration::from_secs(300);

/// Pause before a song is posted again that the API had no place for.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// `SETTLE_MS` of the workers: after its first assignment, a worker takes no task for so long.
const SETTLE: Duration = Duration::from_millis(100);

/// Log messages of a processor.
const JOINING: &str = "Processor started";
const ASSIGNED: &str = "Partitions assigned";
const RECEIVED: &str = "Received task";
const COMMITTED: &str = "Offset committed successfully";

#[derive(Debug, Args)]
pub(crate) struct PolicyArguments {
    /// Operator binary to benchmark
    #[arg(long)]
    operator: PathBuf,
    /// SeparationPool; its Kafka, storage, topics and model are replaced
    #[arg(long)]
    pool: PathBuf,
    /// Arriving tasks: CSV with the header `arrival_seconds,task_seconds`
    #[arg(long)]
    trace: PathBuf,
    /// Partitions of the task topic
    #[arg(long)]
    partitions: i32,
    /// Time between two readings of lag, in seconds
    #[arg(long)]
    lag_check_seconds: String,
}

/// A task of the trace.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Arrival {
    at: Duration,
    task: Duration,
}

/// What the logs of all processors contain; times in seconds.
#[derive(Debug, Default, PartialEq)]
struct Processors {
    /// Lifetimes, from the first to the last line.
    lifetimes: Vec<f64>,
    /// From the first line to joining the group, and [`SETTLE`].
    start_ups: Vec<f64>,
    /// From joining the group to the first assigned partitions.
    joins: Vec<f64>,
    /// First start and commit of each task, in seconds since 1970.
    tasks: BTreeMap<String, [Option<f64>; 2]>,
}

pub(crate) async fn measure(bench: &Bench, arguments: &PolicyArguments) -> Result<Value> {
    let path = &arguments.trace;
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let arrivals = parse_trace(&text)?;
    let site = bench.site(arguments.partitions).await?;
    let songs = Arc::new(TimedSongs::start(bench.s3.endpoint()).await?);
    let data = site.directory().subdirectory("local")?;
    let local = start(bench, &site, &songs, arguments, &data)?;
    let line = local.wait_for_log("post songs to ", LIMIT).await?;
    let api = line.message.trim_start_matches("post songs to ");
    // Offsets are initialized: no later message is skipped.
    local.wait_for_log("processor: lag 0", LIMIT).await?;
    progress(&format!("posting {} songs", arrivals.len()));
    post_all(api, &songs, &arrivals).await?;
    bench.tasks_committed(&site, LIMIT).await;
    eventually("the scale-down to zero", LIMIT, async || {
        let lines = local.messages()?;
        let status = lines.iter().rfind(|line| line.starts_with("processor: "));
        let is_zero = |line: &String| line.contains("desired 0, busy 0, draining 0 ");
        anyhow::Ok(status.is_some_and(is_zero))
    })
    .await;
    local.sigterm()?;
    ensure!(local.wait_exit(LIMIT).await? == 0, "{}", local.log_end());
    figures(&site, &read_logs(&data.join("logs"))?).await
}

fn parse_trace(text: &str) -> Result<Vec<Arrival>> {
    let lines = text.lines().skip(1);
    let arrivals = lines.map(|line| {
        let (at, task) = line.split_once(',')?;
        let time = |seconds: &str| Duration::try_from_secs_f64(seconds.parse().ok()?).ok();
        Some(Arrival {
            at: time(at)?,
            task: time(task)?,
        })
    });
    let arrivals: Option<_> = arrivals.collect();
    arrivals.context("a line of the trace is not `arrival_seconds,task_seconds`")
}

/// Starts the pool with the servers of the benchmark.
fn start(
    bench: &Bench,
    site: &Site<'_>,
    songs: &TimedSongs,
    arguments: &PolicyArguments,
    data: &Path,
) -> Result<Worker> {
    let text = fs::read_to_string(&arguments.pool)
        .with_context(|| format!("cannot read {}", arguments.pool.display()))?;
    let mut pool: Value = serde_saphyr::from_str(&text).context("the pool is not valid YAML")?;
    let spec = &mut pool["spec"];
    spec["kafka"] = json!({"bootstrapServers": site.kafka.bootstrap()});
    spec["storage"] = json!({
        "s3": {
            "endpoint": songs.endpoint,
            "region": site.s3.region(),
            "credentialsSecretRef": {"name": "s3"},
        },
        "stems": {"bucket": site.bucket},
        "staging": {"s3": {}},
    });
    spec["processor"]["topic"] = json!(site.task_topic);
    spec["processor"]["consumerGroup"] = json!(site.processor_group);
    spec["processor"]["model"] = json!({"path": bench.models.join("identity_tiny.onnx")});
    spec["uploader"]["topic"] = json!(site.result_topic);
    spec["uploader"]["consumerGroup"] = json!(site.uploader_group);
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s3"},
        "stringData": {"AWS_ACCESS_KEY_ID": site.s3.access_key(), "AWS_SECRET_ACCESS_KEY": site.s3.secret_key()},
    });
    let mut local = WorkerOptions::new(&arguments.operator.display().to_string(), "local")
        .args(["--port", "0", "--lag-check-seconds", &arguments.lag_check_seconds])
        .arg("--worker")
        .arg(&bench.worker)
        .arg("--data")
        .arg(data)
        // Workers inherit it.
        .env(env::SETTLE_MS, SETTLE.as_millis().to_string());
    for (name, object) in [("pool.yaml", &pool), ("secret.yaml", &secret)] {
        let file = site.directory().join(name);
        // JSON is also YAML.
        fs::write(&file, object.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
        local = local.arg("--file").arg(file);
    }
    local.start()
}

/// Posts a song for each task when it arrives.
async fn post_all(api: &str, songs: &Arc<TimedSongs>, arrivals: &[Arrival]) -> Result<()> {
    let http = Client::builder().no_proxy().timeout(LIMIT).build()?;
    let begin = Instant::now();
    let mut posts = JoinSet::new();
    for (number, arrival) in (0_u64..).zip(arrivals) {
        tokio::time::sleep_until(begin + arrival.at).await;
        let (http, songs, url) = (http.clone(), Arc::clone(songs), format!("{api}/v1/tasks"));
        let time = arrival.task;
        posts.spawn(async move {
            let task = post(&http, &url, tiny_song(number)).await?;
            songs.set(&task, time);
            anyhow::Ok(())
        });
        if number % 100 == 99 {
            progress(&format!("{} songs", number + 1));
        }
    }
    while let Some(posted) = posts.join_next().await {
        posted.context("a client failed")??;
    }
    Ok(())
}

/// Posts a song until it is accepted, and returns its task's id.
async fn post(http: &Client, url: &str, song: Vec<u8>) -> Result<String> {
    loop {
        let file = Part::bytes(song.clone()).file_name("song.wav");
        let form = Form::new().part("task", Part::text("{}")).part("file", file);
        let response = http.post(url).multipart(form).send().await?;
        match response.status() {
            StatusCode::CREATED => {
                let task: Value = response.json().await?;
                return Ok(task["id"].as_str().context("a task has no id")?.to_owned());
            }
            // More songs arrive than the API accepts simultaneously.
            StatusCode::SERVICE_UNAVAILABLE => tokio::time::sleep(RETRY_PAUSE).await,
            status => bail!("the API answered {status}: {}", response.text().await?),
        }
    }
}

fn read_logs(directory: &Path) -> Result<Processors> {
    let mut processors = Processors::default();
    let files = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for file in files {
        let path = file?.path();
        if !path.display().to_string().contains("-processor-") {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        processors.add(&text);
    }
    Ok(processors)
}

impl Processors {
    /// Adds the log of one processor. Lines of libraries have no time and are skipped.
    fn add(&mut self, text: &str) {
        let lines = text.lines().map(LogLine::read);
        let lines: Vec<_> = lines
            .filter_map(|line| Some((unix_seconds(line.time().ok()?), line)))
            .collect();
        let (Some((first, _)), Some((last, _))) = (lines.first(), lines.last()) else {
            return;
        };
        self.lifetimes.push(last - first);
        let time_of = |message: &str| {
            let found = lines.iter().find(|(_, line)| line.message == message);
            found.map(|(time, _)| *time)
        };
        // A worker that was no longer needed may have been stopped before either.
        if let (Some(joining), Some(assigned)) = (time_of(JOINING), time_of(ASSIGNED)) {
            self.start_ups.push(joining - first + SETTLE.as_secs_f64());
            self.joins.push(assigned - joining);
        }
        for (time, line) in &lines {
            let index = match line.message.as_str() {
                RECEIVED => 0,
                COMMITTED => 1,
                _ => continue,
            };
            let task = line.fields["task_uuid"].as_str().unwrap_or_default();
            let times = self.tasks.entry(task.to_owned()).or_default();
            let earlier = times[index].unwrap_or(f64::INFINITY);
            times[index] = Some(time.min(earlier));
        }
    }
}

fn unix_seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// The result: each task's arrival in seconds since the first one, with its time on a worker and its wait.
async fn figures(site: &Site<'_>, processors: &Processors) -> Result<Value> {
    let mut tasks = Vec::new();
    for message in site.kafka.consume_all(&site.task_topic).await? {
        let task = message.key_text();
        let millis = message.timestamp_ms.context("a message has no timestamp")?;
        let arrived = millis as f64 / 1e3;
        let Some([Some(received), Some(committed)]) = processors.tasks.get(&task) else {
            bail!("the processors' logs have no start and commit of task {task}");
        };
        tasks.push([arrived, committed - received, received - arrived]);
    }
    tasks.sort_by(|one, other| one[0].total_cmp(&other[0]));
    let first = tasks.first().map_or(0.0, |task| task[0]);
    for task in &mut tasks {
        task[0] -= first;
    }
    Ok(json!({
        "tasks": tasks,
        "worker_hours": processors.lifetimes.iter().sum::<f64>() / 3600.0,
        "starts": processors.lifetimes.len(),
        "start_up_seconds": processors.start_ups,
        "join_seconds": processors.joins,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_parsed_and_an_invalid_line_refused() {
        let arrivals = parse_trace("arrival_seconds,task_seconds\n0,2.5\n0.1,1\n").unwrap();
        let arrival = |at, task| Arrival {
            at: Duration::from_millis(at),
            task: Duration::from_millis(task),
        };
        assert_eq!(arrivals, [arrival(0, 2_500), arrival(100, 1_000)]);
        assert!(parse_trace("arrival_seconds,task_seconds\n0,-1\n").is_err());
        assert!(parse_trace("arrival_seconds,task_seconds\n12\n").is_err());
    }

    #[test]
    fn a_log_gives_the_times_of_its_worker_and_its_tasks() {
        let line = |second: u32, message: &str| {
            format!(
                "{{\"timestamp\":\"1970-01-01T00:00:{second:02}.000000Z\",\"message\":\"{message}\",\"task_uuid\":\"t\"}}\n"
            )
        };
        let mut processors = Processors::default();
        let complete = [
            (1, "Settings"),
            (3, JOINING),
            (4, ASSIGNED),
            (6, RECEIVED),
            (9, COMMITTED),
            (20, "Processor shutdown complete"),
        ];
        let text: String = complete.map(|(second, message)| line(second, message)).concat();
        processors.add(&text);
        // Stopped before it joined the group.
        processors.add(&(line(30, "Settings") + "a line of a library\n" + &line(31, "Stopped")));
        let expected = Processors {
            lifetimes: vec![19.0, 1.0],
            start_ups: vec![2.0 + SETTLE.as_secs_f64()],
            joins: vec![1.0],
            tasks: [("t".to_owned(), [Some(6.0), Some(9.0)])].into(),
        };
        assert_eq!(processors, expected);
    }
}
