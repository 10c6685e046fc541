//! Uploads to one API process: lost tasks, peak memory, and the time of reading a task meanwhile and alone.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use reqwest::multipart::{Form, Part};
use reqwest::{Client, RequestBuilder, StatusCode, header};
use separation_contract::environment as env;
use separation_testbed::{Record, Site, Worker, song};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::memory::status_bytes;
use crate::{Bench, progress};

/// Length of each song: 5.0 MB.
const SONG_SECONDS: f32 = 28.35;

/// Reads of a task without other requests.
const READS_ALONE: usize = 1_000;

/// Pause between two reads.
const READ_PAUSE: Duration = Duration::from_millis(10);

/// Time limit of each step.
const LIMIT: Duration = Duration::from_secs(60);

/// Time limit of one upload, with its retries.
const UPLOAD_LIMIT: Duration = Duration::from_secs(600);

/// Pause after a request without a response, or whose first attempt is still being processed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

const USERNAME: &str = "bench";
const PASSWORD: &str = "a password of the benchmark";

/// A client of the API.
#[derive(Clone)]
struct ApiClient {
    http: Client,
    address: SocketAddr,
    song: Bytes,
    /// Requests that were refused because the API was busy, and repeated.
    refused: Arc<AtomicUsize>,
}

pub(crate) async fn measure(bench: &Bench, uploads: usize, at_once: usize) -> Result<Value> {
    let site = bench.site(12).await?;
    let api = start(bench, &site)?;
    let reader = ApiClient::new(&api).await?;
    let task = reader.upload(0).await?;
    progress("reading a task alone");
    let mut alone = Vec::with_capacity(READS_ALONE);
    for _ in 0..READS_ALONE {
        alone.push(reader.read(&task).await?);
    }
    let meanwhile = Arc::new(Mutex::new(Vec::new()));
    let reader = tokio::spawn(read_until_aborted(reader, task.clone(), Arc::clone(&meanwhile)));
    progress(&format!("{uploads} uploads, {at_once} at a time"));
    let begin = Instant::now();
    let other_machines = other_machines()?;
    let client = ApiClient::new(&api).await?;
    let uploaded = other_machines
        .spawn(upload_all(client.clone(), uploads, at_once))
        .await;
    other_machines.shutdown_background();
    let mut tasks = uploaded.context("the clients failed")??;
    let seconds = begin.elapsed().as_secs_f64();
    anyhow::ensure!(!reader.is_finished(), "a read failed: {:?}", reader.await);
    reader.abort();
    tasks.insert(task);
    let meanwhile = std::mem::take(&mut *meanwhile.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(json!({
        "uploads": uploads,
        "at_once": at_once,
        "bytes": client.song.len(),
        "seconds": seconds,
        "refused": client.refused.load(Ordering::Relaxed),
        "lost": lost(bench, &site, &tasks, client.song.len() as u64).await?,
        "peak_bytes": status_bytes(&api, "VmHWM")?,
        "reads": meanwhile.len(),
        "read_ms_alone": percentile(alone, 99)?,
        "read_ms_meanwhile": percentile(meanwhile, 99)?,
    }))
}

/// An API with the default limits, which stages songs in the bucket.
fn start(bench: &Bench, site: &Site<'_>) -> Result<Worker> {
    site.worker(&bench.worker.display().to_string(), "api")
        .env(env::API_HOST, "127.0.0.1")
        .env(env::API_PORT, "0")
        .env(env::BASIC_AUTH_USERNAME, USERNAME)
        .env(env::BASIC_AUTH_PASSWORD, PASSWORD)
        .env(env::S3_STAGING, format!("s3://{}/staging", site.bucket))
        .start()
}

/// A runtime for the clients that upload: they stand for other machines, so that their threads leave the cores to the API
/// and its servers.
fn other_machines() -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let lowest_priority = || {
        // Of this thread only; without it the figures are worse.
        let _ = rustix::process::nice(19);
    };
    Ok(builder.enable_all().on_thread_start(lowest_priority).build()?)
}

/// Uploads songs and returns the IDs of their tasks.
async fn upload_all(client: ApiClient, uploads: usize, at_once: usize) -> Result<BTreeSet<String>> {
    let next = Arc::new(AtomicUsize::new(1));
    let mut clients = JoinSet::new();
    for _ in 0..at_once {
        let (client, next) = (client.clone(), Arc::clone(&next));
        clients.spawn(async move {
            let mut tasks = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number > uploads {
                    return anyhow::Ok(tasks);
                }
                tasks.push(client.upload(number).await?);
                if number % 100 == 0 {
                    progress(&format!("{number} uploads"));
                }
            }
        });
    }
    let mut tasks = BTreeSet::new();
    while let Some(uploaded) = clients.join_next().await {
        tasks.extend(uploaded.context("a client failed")??);
    }
    anyhow::ensure!(
        tasks.len() == uploads,
        "{} tasks for {uploads} uploads",
        tasks.len()
    );
    Ok(tasks)
}

/// Reads a task again and again; returns only if a read fails.
async fn read_until_aborted(client: ApiClient, task: String, times: Arc<Mutex<Vec<f64>>>) -> Result<()> {
    let mut interval = tokio::time::interval(READ_PAUSE);
    loop {
        interval.tick().await;
        let time = client.read(&task).await?;
        times.lock().unwrap_or_else(PoisonError::into_inner).push(time);
    }
}

impl ApiClient {
    async fn new(api: &Worker) -> Result<Self> {
        // Fails only if it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self {
            http: Client::builder().no_proxy().timeout(LIMIT).build()?,
            address: api.address("API listens", LIMIT).await?,
            song: song(SONG_SECONDS, 1).into(),
            refused: Arc::default(),
        })
    }

    fn authenticated(&self, request: RequestBuilder) -> RequestBuilder {
        request.basic_auth(USERNAME, Some(PASSWORD))
    }

    /// Uploads a song until it is accepted, and returns the task's ID.
    async fn upload(&self, number: usize) -> Result<String> {
        let deadline = Instant::now() + UPLOAD_LIMIT;
        loop {
            // A refused request whose body was not sent to its end may break the connection before its response is read.
            let (pause, reason) = match self.try_upload(number).await {
                Ok(Ok(task)) => return Ok(task),
                Ok(Err(pause)) => (pause, None),
                Err(error) => (RETRY_PAUSE, Some(error)),
            };
            if Instant::now() > deadline {
                bail!("upload {number} was not accepted within {UPLOAD_LIMIT:?}; last error: {reason:?}");
            }
            self.refused.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause).await;
        }
    }

    /// Uploads a song; if the API is busy, the pause that it requests.
    async fn try_upload(&self, number: usize) -> Result<Result<String, Duration>> {
        let file = Part::stream_with_length(self.song.clone(), self.song.len() as u64).file_name("song.wav");
        let form = Form::new().part("task", Part::text("{}")).part("file", file);
        let request = self.http.post(format!("http://{}/v1/tasks", self.address));
        let request = self
            .authenticated(request)
            .header("idempotency-key", format!("upload-{number}"));
        let response = request.multipart(form).send().await?;
        match response.status() {
            StatusCode::CREATED => {
                let task: Value = response.json().await?;
                let id = task["id"].as_str().context("a task has no id")?;
                Ok(Ok(id.to_owned()))
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                let pause = response.headers().get(header::RETRY_AFTER);
                let seconds = pause.and_then(|pause| pause.to_str().ok()?.parse().ok());
                Ok(Err(Duration::from_secs(
                    seconds.context("503 without Retry-After")?,
                )))
            }
            StatusCode::CONFLICT => Ok(Err(RETRY_PAUSE)),
            status => bail!("the API answered {status}: {}", response.text().await?),
        }
    }

    /// Reads a task and returns the milliseconds that it took.
    async fn read(&self, task: &str) -> Result<f64> {
        let begin = Instant::now();
        let request = self.http.get(format!("http://{}/v1/tasks/{task}", self.address));
        let response = self.authenticated(request).send().await?.error_for_status()?;
        response.bytes().await?;
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }
}

/// The tasks that are not queued, or whose song or record is not complete.
async fn lost(bench: &Bench, site: &Site<'_>, tasks: &BTreeSet<String>, bytes: u64) -> Result<Vec<String>> {
    let queued = bench.kafka.consume_all(&site.task_topic).await?;
    let queued: BTreeSet<String> = queued.iter().map(Record::key_text).collect();
    let names = async |prefix: &str| -> Result<BTreeSet<String>> {
        let objects = bench.s3.list(&site.bucket, prefix).await?.into_iter();
        let complete = objects.filter(|object| object.size == bytes || object.key.ends_with(".json"));
        let names = complete.filter_map(|object| Some(object.key.rsplit('/').next()?.to_owned()));
        Ok(names.collect())
    };
    let songs = names("staging/inputs/").await?;
    let records = names("v1/tasks/").await?;
    let is_lost = |task: &&String| {
        !(queued.contains(*task)
            && songs.contains(&format!("{task}_input.wav"))
            && records.contains(&format!("{task}.json")))
    };
    Ok(tasks.iter().filter(is_lost).cloned().collect())
}

/// The smallest value that this percentage of the values does not exceed.
fn percentile(mut values: Vec<f64>, percent: usize) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * percent).div_ceil(100).saturating_sub(1);
    values.get(rank).copied().context("there are no values")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_few_exceed() {
        let values = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(values, 99).unwrap(), 198.0);
        assert_eq!(percentile(vec![7.0], 99).unwrap(), 7.0);
        assert!(percentile(Vec::new(), 99).is_err());
    }
}
