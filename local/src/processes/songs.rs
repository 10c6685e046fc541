//! The songs of the command line: posts them to the API, waits for their webhooks, and fetches their stems.

use std::collections::{BTreeMap, HashMap};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use futures_util::TryStreamExt as _;
use reqwest::multipart::{Form, Part};
use reqwest::{Client, Response, StatusCode};
use serde::Serialize;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{MissedTickBehavior, interval};

use super::display::Display;
use super::webhooks::{TaskOutcome, WebhookPayload, Webhooks};

/// Interval at which a song's status is polled.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);

/// Timeout of a status request.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// The most attempts to post a song while the API answers 503, and the wait between them: five minutes in all.
const MAX_ATTEMPTS: u32 = 300;
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The longest time without data while a stem is fetched.
const DOWNLOAD_STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Songs to separate.
#[derive(Debug)]
pub(super) struct Songs {
    /// Files by the names of their stems.
    files: BTreeMap<String, PathBuf>,
    output: PathBuf,
}

/// The result of a song.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SongReport {
    /// The song's file.
    pub input: PathBuf,
    /// `done` or `failed`.
    pub status: &'static str,
    /// Its task's UUID, if it was posted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_uuid: Option<String>,
    /// Files of its stems, by the stem's name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<&'static str, PathBuf>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A client of the API.
pub(super) struct ApiClient {
    pub(super) http: Client,
    /// The base URL, such as `http://127.0.0.1:8000`.
    pub(super) url: String,
}

impl Songs {
    /// Checks the files before anything is started.
    ///
    /// # Errors
    /// When files are missing, or two would have stems of the same name.
    pub(super) fn new(inputs: &[PathBuf], output: &Path) -> anyhow::Result<Self> {
        let missing: Vec<_> = inputs.iter().filter(|input| !input.is_file()).collect();
        ensure!(
            missing.is_empty(),
            "no such file: {}",
            missing
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
                .join(", ")
        );
        let mut files = BTreeMap::new();
        for input in inputs {
            let name = input.file_stem().unwrap_or(input.as_os_str());
            let name = name.to_string_lossy().into_owned();
            if let Some(other) = files.insert(name.clone(), input.clone()) {
                bail!(
                    "{} and {} would both become {name}_vocals.wav; fix: rename one, or separate them one after the other",
                    other.display(),
                    input.display()
                );
            }
        }
        Ok(Self {
            files,
            output: output.to_owned(),
        })
    }

    pub(super) fn count(&self) -> usize {
        self.files.len()
    }

    /// Separates all songs; `report` is called for each when it ends.
    ///
    /// # Errors
    /// When the output directory cannot be created, or the webhook receiver ended.
    pub(super) async fn separate(
        self,
        api: Arc<ApiClient>,
        mut webhooks: Webhooks,
        display: Arc<Display>,
        mut report: impl FnMut(SongReport),
    ) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.output)
            .with_context(|| format!("--output: cannot create {}", self.output.display()))?;
        let mut running: HashMap<String, (String, PathBuf)> = HashMap::new();
        for (name, file) in &self.files {
            display.show_song(name, "posting");
            match api.post(file, &webhooks.url).await {
                Ok(task) => {
                    running.insert(task, (name.clone(), file.clone()));
                }
                Err(error) => {
                    display.finish_song(name);
                    report(SongReport::failed(file, None, &error));
                }
            }
        }
        let mut status_polls = interval(STATUS_INTERVAL);
        status_polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !running.is_empty() {
            tokio::select! {
                payload = webhooks.payloads.recv() => {
                    let payload = payload.context("the webhook receiver ended")?;
                    // A webhook may be delivered twice.
                    let Some((name, file)) = running.remove(&payload.task_uuid) else { continue };
                    display.show_song(&name, "fetching its stems");
                    let song_report = self.fetch_stems(&api, &name, &file, payload).await;
                    display.finish_song(&name);
                    report(song_report);
                }
                _ = status_polls.tick() => {
                    for (task, (name, _)) in &running {
                        if let Some(text) = api.status_text(task).await {
                            display.show_song(name, &text);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn fetch_stems(
        &self,
        api: &ApiClient,
        name: &str,
        file: &Path,
        payload: WebhookPayload,
    ) -> SongReport {
        let task = Some(payload.task_uuid);
        let links = match payload.outcome {
            TaskOutcome::Failed { error_message } => {
                return SongReport::failed(file, task, &anyhow!(error_message));
            }
            TaskOutcome::Success { vocals, instrumental } => {
                [("vocals", vocals), ("instrumental", instrumental)]
            }
        };
        let mut outputs = BTreeMap::new();
        for (stem, link) in links {
            let path = self.output.join(format!("{name}_{stem}.wav"));
            let fetched = api.fetch(&link, &path).await;
            if let Err(error) = fetched.with_context(|| format!("cannot fetch the {stem} from {link}")) {
                return SongReport::failed(file, task, &error);
            }
            outputs.insert(stem, path);
        }
        SongReport {
            input: file.to_owned(),
            status: "done",
            task_uuid: task,
            outputs,
            error: None,
        }
    }
}

impl SongReport {
    fn failed(file: &Path, task_uuid: Option<String>, error: &anyhow::Error) -> Self {
        Self {
            input: file.to_owned(),
            status: "failed",
            task_uuid,
            outputs: BTreeMap::new(),
            error: Some(format!("{error:#}")),
        }
    }
}

impl ApiClient {
    /// Posts a song, retrying while the API answers 503; returns its task's UUID.
    async fn post(&self, file: &Path, hook_url: &str) -> anyhow::Result<String> {
        for _ in 0..MAX_ATTEMPTS {
            let audio = Part::file(file)
                .await
                .with_context(|| format!("cannot read {}", file.display()))?;
            let form = Form::new()
                .text("hook_url", hook_url.to_owned())
                .part("audio", audio);
            let posted = self
                .http
                .post(format!("{}/tasks", self.url))
                .multipart(form)
                .send();
            let response = posted.await.context("cannot reach the API")?;
            if response.status().as_u16() == 503 {
                tokio::time::sleep(RETRY_DELAY).await;
                continue;
            }
            let body = read(response).await?;
            let task = body["task_uuid"]
                .as_str()
                .context("the API's response has no task_uuid")?;
            return Ok(task.to_owned());
        }
        bail!("the API had no capacity for it for five minutes")
    }

    /// A song's progress as text; `None` if it is unknown now.
    async fn status_text(&self, task: &str) -> Option<String> {
        let sent = self
            .http
            .get(format!("{}/tasks/{task}", self.url))
            .timeout(STATUS_TIMEOUT)
            .send();
        let body = read(sent.await.ok()?).await.ok()?;
        let status = body["status"].as_str()?;
        Some(match body["position"].as_u64() {
            Some(before) if before > 0 => format!("{status}, {before} ahead of it"),
            _ => status.to_owned(),
        })
    }

    /// Downloads a link to a file, which appears once it is complete.
    async fn fetch(&self, link: &str, path: &Path) -> anyhow::Result<()> {
        let response = tokio::time::timeout(DOWNLOAD_STALL_TIMEOUT, self.http.get(link).send())
            .await
            .context("no response")??;
        ensure!(
            response.status() != StatusCode::FORBIDDEN,
            "the response is 403; fix: make the bucket publicly readable with a bucket policy"
        );
        let response = response.error_for_status()?;
        let directory = path.parent().unwrap_or(Path::new("."));
        let part = tempfile::Builder::new()
            // The mode of ordinary files; temporary files are readable by their owner only.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory)
            .with_context(|| format!("cannot write to {}", directory.display()))?;
        let mut file = tokio::fs::File::from_std(part.reopen().context("cannot write")?);
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = tokio::time::timeout(DOWNLOAD_STALL_TIMEOUT, chunks.try_next())
            .await
            .context("no data for a minute")??
        {
            file.write_all(&chunk).await.context("cannot write")?;
        }
        file.sync_all().await.context("cannot write")?;
        part.persist(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }
}

/// The JSON of a successful response; otherwise the API's error.
async fn read(response: Response) -> anyhow::Result<Value> {
    let status = response.status();
    let body: Value = response.json().await.unwrap_or_default();
    if status.is_success() {
        return Ok(body);
    }
    let error = body["error"].as_str();
    let error = error.map_or_else(
        || format!("the API answered with status {}", status.as_u16()),
        str::to_owned,
    );
    Err(match body["details"].as_str() {
        Some(details) => anyhow!("{error}: {details}"),
        None => anyhow!(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_checked_before_anything_is_started() {
        let directory = tempfile::tempdir().unwrap();
        let song = |name: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, "").unwrap();
            path
        };
        let (wav, mp3, other) = (song("a.wav"), song("a.mp3"), song("b.wav"));
        let refused = Songs::new(
            &["/no/one.wav".into(), wav.clone(), "/no/two".into()],
            directory.path(),
        );
        assert_eq!(
            refused.unwrap_err().to_string(),
            "no such file: /no/one.wav, /no/two"
        );
        let refused = Songs::new(&[wav.clone(), mp3], directory.path())
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("would both become a_vocals.wav; fix: rename one"),
            "{refused}"
        );
        assert_eq!(Songs::new(&[wav, other], directory.path()).unwrap().count(), 2);
    }
}
