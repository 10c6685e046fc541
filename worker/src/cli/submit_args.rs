//! The arguments of `submit` and their validation.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use secrecy::SecretString;
use separation_contract::environment as env;
use separation_contract::names;
use url::Url;

use super::submit_client::ApiClient;
use super::submit_song::{Song, check_names, collect};
use crate::audio::remove_abandoned;
use crate::settings::{KafkaArguments, KafkaSettings};

const EXAMPLES: &str = "\
Examples:
  separation-worker submit song.mp3 --output stems
  separation-worker submit album/ --api https://songs.example.com --json | jq .vocals
  separation-worker submit https://example.com/song.mp3 --hook-url https://example.com/hook --no-wait
  separation-worker submit --direct /shared/songs/song.mp3 --bootstrap-servers kafka:9092

Exit codes: 0 all songs done (with --no-wait or --direct: queued), 1 some failed, 2 invalid arguments and nothing
posted, 130 ended by Ctrl-C; tasks that were posted continue.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SubmitArguments {
    /// Songs: files, directories of songs, or http(s) links
    #[arg(required = true, value_name = "SONG")]
    songs: Vec<String>,
    /// Address of the API
    #[arg(long, default_value = "http://127.0.0.1:8000", value_name = "URL")]
    api: Url,
    /// Username for HTTP Basic authentication
    #[arg(long, env = env::BASIC_AUTH_USERNAME, default_value = "admin", value_name = "NAME")]
    username: String,
    /// Password for HTTP Basic authentication; set it in the environment rather than on the command line
    #[arg(long, env = env::BASIC_AUTH_PASSWORD, hide_env_values = true, value_name = "PASSWORD")]
    password: Option<SecretString>,
    /// Webhook that is called when a task is done or failed; required for links
    #[arg(long, value_name = "URL")]
    hook_url: Option<Url>,
    /// Exit after posting, without waiting for stems
    #[arg(long)]
    no_wait: bool,
    /// Directory for NAME_vocals.wav and NAME_instrumental.wav; created if missing, existing stems are replaced
    #[arg(long, short, value_name = "DIR", conflicts_with_all = ["no_wait", "direct"])]
    output: Option<PathBuf>,
    /// Stop waiting after this many seconds [default: no limit]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Print one JSON object for each song
    #[arg(long)]
    json: bool,
    /// Queue files on the shared volume directly in Kafka, without the API and without waiting; the path must be the
    /// same for the processors
    #[arg(long)]
    direct: bool,
    /// Topic of tasks, with --direct
    #[arg(long, env = env::KAFKA_TASK_TOPIC, default_value = names::TASK_TOPIC, value_name = "TOPIC")]
    task_topic: String,
    #[command(flatten)]
    kafka: KafkaArguments,
}

/// Validated arguments.
pub(super) struct SubmitPlan {
    pub(super) songs: Vec<Song>,
    pub(super) target: Target,
    pub(super) hook_url: Option<String>,
    pub(super) wait: bool,
    pub(super) output: Option<PathBuf>,
    pub(super) timeout: Option<Duration>,
    pub(super) json: bool,
}

/// Destination of songs.
pub(super) enum Target {
    Api(ApiClient),
    /// The task topic, without the API.
    Kafka {
        settings: Box<KafkaSettings>,
        topic: String,
    },
}

impl SubmitArguments {
    pub(super) fn plan(&self) -> Result<SubmitPlan> {
        let mut songs = Vec::new();
        for text in &self.songs {
            collect(text, &mut songs)?;
        }
        let links = songs.iter().any(|song| song.file.is_none());
        if self.direct {
            ensure!(
                !links,
                "--direct accepts only files on the shared volume; fix: post links to the API"
            );
            for song in &mut songs {
                let path = fs::canonicalize(&song.address)
                    .with_context(|| format!("cannot read {}", song.address))?;
                let path = path.to_str().context("paths of songs must be valid UTF-8")?;
                song.address = path.to_owned();
            }
        }
        ensure!(
            !links || self.hook_url.is_some(),
            "links need a webhook; fix: set --hook-url"
        );
        if let Some(output) = &self.output {
            check_names(&songs)?;
            fs::create_dir_all(output)
                .with_context(|| format!("cannot create --output {}", output.display()))?;
            remove_abandoned(output);
        }
        let target = if self.direct {
            Target::Kafka {
                settings: Box::new(self.kafka.settings()?),
                topic: self.task_topic.clone(),
            }
        } else {
            let password = self.password.clone();
            Target::Api(ApiClient::new(&self.api, &self.username, password)?)
        };
        Ok(SubmitPlan {
            songs,
            target,
            hook_url: self.hook_url.as_ref().map(Url::to_string),
            wait: !self.no_wait,
            output: self.output.clone(),
            timeout: self.timeout.map(Duration::from_secs),
            json: self.json,
        })
    }
}
