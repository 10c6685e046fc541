//! The API client of `submit`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use futures_util::{StreamExt as _, TryStreamExt as _};
use reqwest::header::RETRY_AFTER;
use reqwest::multipart::{Form, Part};
use reqwest::{Body, RequestBuilder, Response};
use secrecy::{ExposeSecret as _, SecretString};
use separation_contract::message::TaskId;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;
use tokio_util::io::ReaderStream;
use url::Url;

use super::submit_song::Song;
use crate::audio::part_file;

/// Time limit of one status request.
const POLL_LIMIT: Duration = Duration::from_secs(10);

/// Maximum number of requests for one song while the API answers 503.
const MAX_TRIES: u32 = 20;

/// Maximum pause before a song is posted again.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Time to wait for an API that is starting.
const START_LIMIT: Duration = Duration::from_secs(5);

/// Polling interval of the API's start.
const START_PAUSE: Duration = Duration::from_millis(100);

/// Maximum time without data while a stem is downloaded.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

pub(super) struct ApiClient {
    http: reqwest::Client,
    api: String,
    username: String,
    password: Option<SecretString>,
}

/// The stages that `submit` distinguishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ReportedStage {
    Done,
    Failed,
    #[serde(other)]
    Other,
}

/// The status of a task, from the API.
#[derive(Debug)]
pub(super) struct StatusResponse {
    pub(super) status: ReportedStage,
    pub(super) vocals: Option<String>,
    pub(super) instrumental: Option<String>,
    pub(super) error_message: Option<String>,
    stage_name: String,
    position: Option<u64>,
}

impl StatusResponse {
    fn read(answer: &Value) -> Option<Self> {
        let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            status: ReportedStage::deserialize(answer.get("status")?).ok()?,
            stage_name: text("status")?,
            vocals: text("vocals"),
            instrumental: text("instrumental"),
            error_message: text("error_message"),
            position: answer.get("position").and_then(Value::as_u64),
        })
    }

    /// The status as text.
    pub(super) fn status_text(&self) -> String {
        match self.position {
            _ if self.stage_name == "unknown" => {
                "unknown: failed, to be retried, or skipped because it was posted before the first worker started".into()
            }
            Some(position) if position > 0 => format!("{}, {position} before it", self.stage_name),
            _ => self.stage_name.clone(),
        }
    }
}

impl ApiClient {
    pub(super) fn new(api: &Url, username: &str, password: Option<SecretString>) -> Result<Self> {
        if !matches!(api.scheme(), "http" | "https") {
            bail!("--api must start with http:// or https://");
        }
        crate::outbound::install_tls();
        let http = reqwest::Client::builder().no_proxy().build();
        Ok(Self {
            http: http.context("cannot create an HTTP client")?,
            api: api.as_str().trim_end_matches('/').to_owned(),
            username: username.to_owned(),
            password,
        })
    }

    /// Waits up to [`START_LIMIT`] for an API that was started together with this command.
    pub(super) async fn wait_until_started(&self) {
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            match self.http.get(&self.api).timeout(START_LIMIT).send().await {
                Err(error) if error.is_connect() => tokio::time::sleep(START_PAUSE).await,
                // Any response will do: posting reports errors.
                _ => return,
            }
        }
    }

    /// Posts a song; retries while the API answers 503.
    pub(super) async fn post(&self, song: &Song, hook_url: Option<&str>) -> Result<TaskId> {
        let mut tries = 0;
        loop {
            tries += 1;
            let request = match &song.file {
                Some(file) => self.form(file, &song.name, hook_url).await?,
                None => {
                    let body = serde_json::json!({"audio": song.address, "hook_url": hook_url});
                    self.http.post(format!("{}/generate", self.api)).json(&body)
                }
            };
            let response = self.send(request).await?;
            if response.status().as_u16() != 503 || tries >= MAX_TRIES {
                let answer = read(response).await?;
                let id = answer.get("task_uuid").and_then(Value::as_str);
                return id
                    .and_then(|id| TaskId::parse(id).ok())
                    .context("the API's response has no task_uuid");
            }
            let pause = response
                .headers()
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.parse().ok());
            tokio::time::sleep(Duration::from_secs(pause.unwrap_or(5)).min(MAX_PAUSE)).await;
        }
    }

    /// A multipart form with the song's file, which is streamed.
    async fn form(&self, file: &Path, name: &str, hook_url: Option<&str>) -> Result<RequestBuilder> {
        let song = tokio::fs::File::open(file)
            .await
            .with_context(|| format!("cannot read {}", file.display()))?;
        let song = Part::stream(Body::wrap_stream(ReaderStream::new(song)));
        let mut form = Form::new();
        if let Some(hook_url) = hook_url {
            form = form.text("hook_url", hook_url.to_owned());
        }
        let form = form.part("audio", song.file_name(name.to_owned()));
        Ok(self.http.post(format!("{}/tasks", self.api)).multipart(form))
    }

    pub(super) async fn poll(&self, task: &TaskId) -> Result<StatusResponse> {
        let request = self
            .http
            .get(format!("{}/tasks/{task}", self.api))
            .timeout(POLL_LIMIT);
        let answer = read(self.send(request).await?).await?;
        StatusResponse::read(&answer).context("malformed response from the API")
    }

    /// Downloads `link` to `path`, which appears only once complete.
    pub(super) async fn fetch(&self, link: &str, path: &Path) -> Result<()> {
        let response = tokio::time::timeout(IDLE_LIMIT, self.http.get(link).send())
            .await
            .context("no response")?
            .map_err(reqwest::Error::without_url)?;
        match response.status().as_u16() {
            200..=299 => {}
            403 => {
                bail!("the link answered 403; fix: make the bucket publicly readable, with a bucket policy")
            }
            status => bail!("the link answered {status}"),
        }
        let directory = path.parent().unwrap_or(Path::new("."));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (file, part) = part_file(directory, &name)
            .with_context(|| format!("cannot write to {}", directory.display()))?;
        let mut file = tokio::fs::File::from_std(file);
        let mut pieces = response.bytes_stream().map_err(reqwest::Error::without_url);
        while let Some(piece) = tokio::time::timeout(IDLE_LIMIT, pieces.next())
            .await
            .context("no data for 60 s")?
        {
            file.write_all(&piece?).await.context("cannot write")?;
        }
        file.sync_all().await.context("cannot write")?;
        part.persist(path)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let request = match &self.password {
            Some(password) => request.basic_auth(&self.username, Some(password.expose_secret())),
            None => request,
        };
        let sent = request.send().await.map_err(reqwest::Error::without_url);
        sent.with_context(|| format!("cannot reach the API at {}", self.api))
    }
}

/// The JSON of a success; the API's error message otherwise.
async fn read(response: Response) -> Result<Value> {
    let status = response.status();
    let answer: Option<Value> = response.json().await.ok();
    if status.is_success() {
        return answer.context("malformed response from the API");
    }
    let text = |name: &str| answer.as_ref()?.get(name)?.as_str().map(str::to_owned);
    let error = text("error").unwrap_or_else(|| format!("the API answered {}", status.as_u16()));
    Err(match text("details") {
        Some(details) => anyhow!("{error}: {details}"),
        None => anyhow!(error),
    })
}
