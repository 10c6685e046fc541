//! The arguments of `submit`, and what they mean together.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use secrecy::SecretString;
use separation_contract::environment as env;
use separation_contract::names;
use url::Url;

use super::submit_client::ApiClient;
use crate::audio::remove_abandoned;
use crate::settings::{KafkaArguments, KafkaSettings};

const EXAMPLES: &str = "\
Examples:
  separation-worker submit song.mp3 --output stems
  separation-worker submit album/ --api https://songs.example.com --json | jq .vocals
  separation-worker submit https://example.com/song.mp3 --hook-url https://example.com/hook --no-wait
  separation-worker submit --direct /shared/songs/song.mp3 --bootstrap-servers kafka:9092

Exit codes: 0 all songs done (with --no-wait or --direct: queued), 1 some failed, 2 nothing was posted because the
arguments cannot be met, 130 ended by Ctrl-C; songs that were posted go on.";

/// What a song's name ends with. In folders only such files are taken; a file that is named is taken as it is.
const ENDINGS: [&str; 18] = [
    "aac", "aif", "aiff", "alac", "caf", "flac", "m4a", "m4b", "mka", "mkv", "mov", "mp3", "mp4", "oga",
    "ogg", "opus", "wav", "webm",
];

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SubmitArguments {
    /// Songs: files, folders of songs, or http(s) links
    #[arg(required = true, value_name = "SONG")]
    songs: Vec<String>,
    /// Where the API is
    #[arg(long, default_value = "http://127.0.0.1:8000", value_name = "URL")]
    api: Url,
    /// Name to log in with
    #[arg(long, env = env::BASIC_AUTH_USERNAME, default_value = "admin", value_name = "NAME")]
    username: String,
    /// Password to log in with; better given in the environment
    #[arg(long, env = env::BASIC_AUTH_PASSWORD, hide_env_values = true, value_name = "PASSWORD")]
    password: Option<SecretString>,
    /// Who is told when stems are there; links need one
    #[arg(long, value_name = "URL")]
    hook_url: Option<Url>,
    /// Do not wait for stems
    #[arg(long)]
    no_wait: bool,
    /// Where NAME_vocals.wav and NAME_instrumental.wav go; made if missing, existing stems are replaced
    #[arg(long, short, value_name = "DIR", conflicts_with_all = ["no_wait", "direct"])]
    output: Option<PathBuf>,
    /// Give up waiting after this many seconds [default: wait as long as it takes]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Print one JSON object for each song
    #[arg(long)]
    json: bool,
    /// Queue files of the shared folder in Kafka, without the API and without waiting; the processors must see them
    /// under the same path
    #[arg(long)]
    direct: bool,
    /// Topic of tasks, with --direct
    #[arg(long, env = env::KAFKA_TASK_TOPIC, default_value = names::TASK_TOPIC, value_name = "TOPIC")]
    task_topic: String,
    #[command(flatten)]
    kafka: KafkaArguments,
}

/// What is to be done.
pub(super) struct Plan {
    pub(super) songs: Vec<Song>,
    pub(super) target: Target,
    pub(super) hook_url: Option<String>,
    pub(super) wait: bool,
    pub(super) output: Option<PathBuf>,
    pub(super) timeout: Option<Duration>,
    pub(super) json: bool,
}

/// Where songs are posted to.
pub(super) enum Target {
    /// The API.
    Api(ApiClient),
    /// Kafka itself.
    Kafka {
        /// How it is reached.
        settings: Box<KafkaSettings>,
        /// Topic of tasks.
        topic: String,
    },
}

/// A song to post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Song {
    /// The path or link as it is posted and reported.
    pub(super) address: String,
    /// The file, if it is none of a link.
    pub(super) file: Option<PathBuf>,
    /// What people call it.
    pub(super) name: String,
    /// What the names of its stems begin with.
    pub(super) stem: String,
}

impl SubmitArguments {
    pub(super) fn plan(&self) -> Result<Plan> {
        let mut songs = Vec::new();
        for text in &self.songs {
            collect(text, &mut songs)?;
        }
        let links = songs.iter().any(|song| song.file.is_none());
        if self.direct {
            ensure!(
                !links,
                "--direct takes files of the shared folder; post links to the API"
            );
            for song in &mut songs {
                let path = fs::canonicalize(&song.address)
                    .with_context(|| format!("cannot read {}", song.address))?;
                let path = path.to_str().context("the paths of songs must be UTF-8")?;
                song.address = path.to_owned();
            }
        }
        ensure!(
            !links || self.hook_url.is_some(),
            "links are fetched by the API, which asks for a webhook: give --hook-url"
        );
        if let Some(output) = &self.output {
            check_names(&songs)?;
            fs::create_dir_all(output)
                .with_context(|| format!("cannot make --output {}", output.display()))?;
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
        Ok(Plan {
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

/// The songs that one argument names.
fn collect(text: &str, songs: &mut Vec<Song>) -> Result<()> {
    if text.starts_with("http://") || text.starts_with("https://") {
        songs.push(link(text)?);
        return Ok(());
    }
    let path = Path::new(text);
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {text}"))?;
    if !metadata.is_dir() {
        songs.push(file(path)?);
        return Ok(());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("cannot read {text}"))? {
        let path = entry.with_context(|| format!("cannot read {text}"))?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if path.is_file() && ending.is_some_and(|ending| ENDINGS.contains(&&*ending.to_ascii_lowercase())) {
            found.push(path);
        }
    }
    if found.is_empty() {
        bail!("there are no songs in {text}");
    }
    found.sort();
    for path in found {
        songs.push(file(&path)?);
    }
    Ok(())
}

fn file(path: &Path) -> Result<Song> {
    let part = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    Ok(Song {
        address: path.display().to_string(),
        file: Some(path.to_owned()),
        name: part(path.file_name()).with_context(|| format!("{} is no file", path.display()))?,
        stem: part(path.file_stem()).with_context(|| format!("{} is no file", path.display()))?,
    })
}

fn link(text: &str) -> Result<Song> {
    let url = Url::parse(text).with_context(|| format!("cannot read the link {text}"))?;
    let last = url.path_segments().and_then(|mut segments| segments.next_back());
    let last = last
        .filter(|last| !last.is_empty())
        .or(url.host_str())
        .unwrap_or("song");
    let stem = Path::new(last)
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or(last);
    Ok(Song {
        address: text.to_owned(),
        file: None,
        name: last.to_owned(),
        // It becomes part of a file's name here.
        stem: stem.replace(|c: char| !c.is_alphanumeric() && !"-_. ".contains(c), "_"),
    })
}

fn check_names(songs: &[Song]) -> Result<()> {
    let mut owners: HashMap<&str, &str> = HashMap::new();
    for song in songs {
        if let Some(other) = owners.insert(&song.stem, &song.address) {
            let (stem, address) = (&song.stem, &song.address);
            bail!(
                "{other} and {address} would both be fetched to {stem}_vocals.wav; submit them into two folders"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_give_their_songs_in_order_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["b.mp3", "a.FLAC", "cover.jpg", "notes.txt"] {
            fs::write(folder.path().join(name), "x").expect("a file");
        }
        let mut songs = Vec::new();
        collect(folder.path().to_str().expect("UTF-8"), &mut songs).expect("songs");
        let stems: Vec<_> = songs.iter().map(|song| song.stem.as_str()).collect();
        assert_eq!(stems, ["a", "b"]);
        check_names(&songs).expect("two names");
        songs.push(songs[0].clone());
        assert!(check_names(&songs).is_err());
        let empty = tempfile::tempdir().expect("a folder");
        assert!(collect(empty.path().to_str().expect("UTF-8"), &mut songs).is_err());
    }

    #[test]
    fn a_link_gives_a_name_that_is_one_part_of_a_path() {
        for (text, stem) in [
            ("https://example.com/a/song.mp3?x=1", "song"),
            ("https://example.com/", "example"),
            (
                "https://example.com/..%2F..%2Fetc",
                "..%2F..%2Fetc".replace('%', "_").as_str(),
            ),
        ] {
            let song = link(text).expect("a link");
            assert!(!song.stem.contains('/'), "{}", song.stem);
            if !text.contains('%') {
                assert_eq!(song.stem, stem);
            }
        }
    }
}
