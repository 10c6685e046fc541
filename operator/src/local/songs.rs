//! Songs that this process was given: posted to the real API, followed until their webhooks come, and their stems fetched.

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
use super::webhooks::{Notice, Outcome, Webhooks};

/// Time between two looks at a song.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How long one answer about a song may take.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// How often a song is posted that the API has no room for, and the wait between: five minutes.
const MOST_TRIES: u32 = 300;
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The longest silence while a stem is fetched.
const SILENCE: Duration = Duration::from_secs(60);

/// Songs to be separated.
#[derive(Debug)]
pub(super) struct Songs {
    /// Files by the names that their stems get.
    files: BTreeMap<String, PathBuf>,
    output: PathBuf,
}

/// What became of a song.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SongReport {
    /// The file.
    pub input: PathBuf,
    /// `done` or `failed`.
    pub status: &'static str,
    /// Its task, if it was posted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_uuid: Option<String>,
    /// Files of its stems, by the stem's name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<&'static str, PathBuf>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Where songs are posted.
pub(super) struct Api {
    pub(super) http: Client,
    /// `http://127.0.0.1:8000`.
    pub(super) url: String,
}

impl Songs {
    /// Checks the files before anything is started.
    ///
    /// # Errors
    /// When files are missing, or two would have stems of one name.
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

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.files.len()
    }

    /// Separates all of them; `report` gets each as it is over.
    ///
    /// # Errors
    /// When stems cannot be written anywhere.
    pub(super) async fn separate(
        self,
        api: Arc<Api>,
        mut webhooks: Webhooks,
        display: Arc<Display>,
        mut report: impl FnMut(SongReport),
    ) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.output)
            .with_context(|| format!("--output: cannot make {}", self.output.display()))?;
        let mut running: HashMap<String, (String, PathBuf)> = HashMap::new();
        for (name, file) in &self.files {
            display.song(name, "posting");
            match api.post(file, &webhooks.url).await {
                Ok(task) => {
                    running.insert(task, (name.clone(), file.clone()));
                }
                Err(error) => {
                    display.song_over(name);
                    report(SongReport::failed(file, None, &error));
                }
            }
        }
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !running.is_empty() {
            tokio::select! {
                notice = webhooks.notices.recv() => {
                    let notice = notice.context("the receiver of webhooks ended")?;
                    // The same webhook may come twice.
                    let Some((name, file)) = running.remove(&notice.task_uuid) else { continue };
                    display.song(&name, "fetching its stems");
                    let over = self.over(&api, &name, &file, notice).await;
                    display.song_over(&name);
                    report(over);
                }
                _ = looks.tick() => {
                    for (task, (name, _)) in &running {
                        if let Some(words) = api.look(task).await {
                            display.song(name, &words);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn over(&self, api: &Api, name: &str, file: &Path, notice: Notice) -> SongReport {
        let task = Some(notice.task_uuid);
        let links = match notice.outcome {
            Outcome::Failed { error_message } => {
                return SongReport::failed(file, task, &anyhow!(error_message));
            }
            Outcome::Success { vocals, instrumental } => [("vocals", vocals), ("instrumental", instrumental)],
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

impl Api {
    /// Posts a song, again while the API has no room; gives its task.
    async fn post(&self, file: &Path, hook_url: &str) -> anyhow::Result<String> {
        for _ in 0..MOST_TRIES {
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
                tokio::time::sleep(TRY_AGAIN).await;
                continue;
            }
            let answer = read(response).await?;
            let task = answer["task_uuid"].as_str().context("the API named no task")?;
            return Ok(task.to_owned());
        }
        bail!("the API had no room for it")
    }

    /// How far a song is, in words; nothing where that is not known now.
    async fn look(&self, task: &str) -> Option<String> {
        let asked = self
            .http
            .get(format!("{}/tasks/{task}", self.url))
            .timeout(LOOK_WITHIN)
            .send();
        let answer = read(asked.await.ok()?).await.ok()?;
        let status = answer["status"].as_str()?;
        Some(match answer["position"].as_u64() {
            Some(before) if before > 0 => format!("{status}, {before} before it"),
            _ => status.to_owned(),
        })
    }

    /// Writes what lies at a link to a file, which appears when it is whole.
    async fn fetch(&self, link: &str, path: &Path) -> anyhow::Result<()> {
        let response = tokio::time::timeout(SILENCE, self.http.get(link).send())
            .await
            .context("no answer")??;
        ensure!(
            response.status() != StatusCode::FORBIDDEN,
            "the answer is 403; fix: let everybody who has a link read the bucket, by a policy"
        );
        let response = response.error_for_status()?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let part = tempfile::Builder::new()
            // As other files are made; temporary ones are their owner's alone.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .with_context(|| format!("cannot write to {}", folder.display()))?;
        let mut file = tokio::fs::File::from_std(part.reopen().context("cannot write")?);
        let mut pieces = response.bytes_stream();
        while let Some(piece) = tokio::time::timeout(SILENCE, pieces.try_next())
            .await
            .context("nothing came for a minute")??
        {
            file.write_all(&piece).await.context("cannot write")?;
        }
        file.sync_all().await.context("cannot write")?;
        part.persist(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }
}

/// The JSON of an answer of success; else what the API says is wrong.
async fn read(response: Response) -> anyhow::Result<Value> {
    let status = response.status();
    let answer: Value = response.json().await.unwrap_or_default();
    if status.is_success() {
        return Ok(answer);
    }
    let error = answer["error"].as_str();
    let error = error.map_or_else(|| format!("the API answers {}", status.as_u16()), str::to_owned);
    Err(match answer["details"].as_str() {
        Some(details) => anyhow!("{error}: {details}"),
        None => anyhow!(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_checked_before_anything_is_started() {
        let folder = tempfile::tempdir().unwrap();
        let song = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            path
        };
        let (wav, mp3, other) = (song("a.wav"), song("a.mp3"), song("b.wav"));
        let refused = Songs::new(
            &["/no/one.wav".into(), wav.clone(), "/no/two".into()],
            folder.path(),
        );
        assert_eq!(
            refused.unwrap_err().to_string(),
            "no such file: /no/one.wav, /no/two"
        );
        let refused = Songs::new(&[wav.clone(), mp3], folder.path())
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("would both become a_vocals.wav; fix: rename one"),
            "{refused}"
        );
        assert_eq!(Songs::new(&[wav, other], folder.path()).unwrap().count(), 2);
    }
}
