//! The code of docs/api.md, run as a reader pastes it: curl, Python and JavaScript in a clean environment, each with its own
//! API key, against real processes of every role.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use reqwest::StatusCode;
use separation_contract::environment as env;
use separation_testbed::{Reply, TempDirectory, Worker, WorkerOptions, code_blocks, eventually, tiny_song};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::rig::{Rig, STEP_TIMEOUT, WORKER, http};

const PAGE: &str = include_str!("../../../docs/api.md");

/// Heading of the blocks that receive webhooks: programs of their own, and the variable that they need.
const RECEIVER: &str = "A receiver";

/// Longer than the page takes to cancel a task, so that the song of that task arrives too late.
const SLOW_SONG: Duration = Duration::from_secs(20);

/// Of the six tasks that the page posts, one is deleted; one is posted twice.
const KEPT_TASKS: usize = 5;

/// A language of the page.
#[derive(Debug, Clone, Copy)]
struct Language {
    /// In the first line of a block; also the name of the client.
    fence: &'static str,
    /// Interpreter, and extension of file names; none for the shell.
    program: Option<(&'static str, &'static str)>,
}

const LANGUAGES: [Language; 3] = [
    Language {
        fence: "sh",
        program: None,
    },
    Language {
        fence: "python",
        program: Some(("python3", "py")),
    },
    Language {
        fence: "js",
        program: Some(("node", "mjs")),
    },
];

/// The part of the page that a block belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Client,
    Receiver,
}

/// A reader who pastes the blocks of one language.
struct Reader {
    language: Language,
    /// Output of `keys create`.
    key: Value,
    /// Of the receiver of webhooks.
    port: u16,
    directory: TempDirectory,
    /// URL of the API.
    api: String,
    /// URL of the server with songs, which also receives the webhook of the shell's reader.
    files: String,
}

fn create_key(name: &str) -> Value {
    let mut creating = Command::new(WORKER);
    creating.args(["keys", "create", name, "--webhook-secret", "--json"]);
    let created = creating.env_clear().output().unwrap();
    assert!(created.status.success(), "{created:?}");
    serde_json::from_slice(&created.stdout).unwrap()
}

/// The blocks of a part of the page, one after the other.
fn blocks(fence: &str, part: Part) -> String {
    let blocks = code_blocks(PAGE, fence).into_iter();
    blocks
        .filter(|(heading, _)| (*heading == RECEIVER) == (part == Part::Receiver))
        .map(|(_, block)| block)
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

async fn start_api(rig: &Rig, keys: &[Value]) -> Worker {
    let entries: Value = keys.iter().map(|key| key["entry"].clone()).collect();
    let api = rig.staged_in_s3(rig.site.worker(WORKER, "api"));
    api.env(env::API_PORT, "0")
        .env(env::API_HOST, "127.0.0.1")
        .env(env::API_KEYS, entries.to_string())
        .env(env::S3_PUBLIC_ENDPOINT, rig.s3.endpoint())
        .start()
        .unwrap()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

impl Reader {
    fn new(language: Language, key: Value, api: SocketAddr, rig: &Rig) -> Self {
        let directory = TempDirectory::new().unwrap();
        fs::write(directory.join("song.wav"), tiny_song(1)).unwrap();
        Self {
            language,
            key,
            port: free_port(),
            directory,
            api: format!("http://{api}"),
            files: rig.hooks.url(""),
        }
    }

    /// The text with this reader's values in place of those of the page.
    fn filled_in(&self, mut pasted: String) -> String {
        let hook = match self.language.program {
            None => format!("{}/hook", self.files),
            Some(_) => format!("http://127.0.0.1:{}/hook", self.port),
        };
        let port = self.port.to_string();
        for (written, real) in [
            // First, because another value may contain it.
            ("8080", &*port),
            ("https://songs.example", &*self.api),
            ("https://files.example", &*self.files),
            ("https://your.example/hook", &*hook),
            ("sk_…", text(&self.key["key"])),
            ("whsec_…", text(&self.key["webhook_secret"])),
        ] {
            assert!(PAGE.contains(written), "{written} is not in docs/api.md");
            pasted = pasted.replace(written, real);
        }
        pasted
    }

    /// Starts a part of the page.
    fn start(&self, part: Part) -> Worker {
        let commands = match self.language.program {
            None => blocks("sh", part),
            Some((interpreter, extension)) => {
                let file = format!("{part:?}.{extension}");
                let program = self.filled_in(blocks(self.language.fence, part));
                fs::write(self.directory.join(&file), program).unwrap();
                let variables = match part {
                    Part::Client => code_blocks(PAGE, "sh").remove(0).1,
                    Part::Receiver => blocks("sh", part),
                };
                format!("{variables}exec {interpreter} {file}\n")
            }
        };
        let directory = self.directory.path();
        let commands = self.filled_in(commands);
        let commands = format!("set -o pipefail\ncd {}\n{commands}", directory.display());
        let path = std::env::var("PATH").unwrap();
        WorkerOptions::pasted(&commands, &path, directory)
            .start()
            .unwrap()
    }

    /// Starts the receiver of webhooks, and checks that it refuses a request of another sender.
    async fn start_receiver(&self) -> Worker {
        let receiver = self.start(Part::Receiver);
        eventually("the receiver listens", STEP_TIMEOUT, async || {
            assert_eq!(receiver.exit_code(), None, "{}", receiver.log_end());
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.is_ok()
        })
        .await;
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let forged = http()
            .post(format!("http://127.0.0.1:{}/hook", self.port))
            .header("webhook-id", "evt_0")
            .header("webhook-timestamp", now.to_string())
            .header(
                "webhook-signature",
                "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
            )
            .body(r#"{"type": "task.succeeded", "data": {"id": "forged"}}"#);
        let response = forged.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        receiver
    }

    /// Runs the page's client and checks its results.
    async fn check(&self, rig: &Rig) {
        let fence = self.language.fence;
        let receiver = match self.language.program {
            None => None,
            Some(_) => Some(self.start_receiver().await),
        };
        let client = self.start(Part::Client);
        let code = client.wait_exit(2 * STEP_TIMEOUT).await.unwrap();
        let printed = client.output().unwrap();
        assert_eq!(code, 0, "{fence}: {printed}{}", client.log_end());
        for text in ["succeeded", "cancelled", "invalid_request", "/output/format"] {
            assert!(printed.contains(text), "{fence}: {text} is not in {printed}");
        }
        for stem in ["vocals", "instrumental"] {
            let stem = fs::read(self.directory.join(format!("{stem}.flac"))).unwrap();
            assert!(
                stem.starts_with(b"fLaC"),
                "{fence}: {:?}",
                &stem[..stem.len().min(100)]
            );
        }
        let records = format!("v1/tasks/{fence}/");
        let records = rig.s3.list(&rig.site.bucket, &records).await.unwrap();
        assert_eq!(records.len(), KEPT_TASKS, "{fence}: {records:?}");
        self.check_webhook(rig, receiver.as_ref(), &printed).await;
    }

    /// Checks that the webhook of a printed task arrives once, and that a receiver verifies it; the shell's reader has none.
    async fn check_webhook(&self, rig: &Rig, receiver: Option<&Worker>, printed: &str) {
        eventually("one webhook", 2 * STEP_TIMEOUT, async || {
            let received: Vec<String> = match receiver {
                Some(receiver) => receiver.output()?.lines().map(str::to_owned).collect(),
                None => {
                    let requests = rig.hooks.requests_to("/hook");
                    let webhooks = requests.iter().map(|request| request.json());
                    webhooks
                        .map(|webhook| format!("{} {}", text(&webhook["type"]), text(&webhook["data"]["id"])))
                        .collect()
                }
            };
            let [line] = &*received else {
                anyhow::bail!("{received:?}");
            };
            let id = line.strip_prefix("task.succeeded ");
            anyhow::ensure!(id.is_some_and(|id| printed.contains(id)), "{line}");
            anyhow::Ok(true)
        })
        .await;
    }
}

#[test]
fn every_step_is_shown_in_every_language() {
    let headings = |fence: &str| {
        let blocks = code_blocks(PAGE, fence).into_iter();
        blocks.map(|(heading, _)| heading).collect::<Vec<_>>()
    };
    let shell = headings("sh");
    assert!(shell.len() > 10, "{shell:?}");
    assert_eq!(headings("python"), shell);
    assert_eq!(headings("js"), shell);
}

#[tokio::test]
async fn the_documented_code_posts_follows_downloads_cancels_deletes_and_verifies_webhooks() {
    let rig = Rig::new(2).await;
    let song = Reply::Content("audio/wav".to_owned(), Bytes::from(tiny_song(2)));
    rig.hooks.script("/song.wav", [song.clone()]);
    rig.hooks
        .script("/concert.wav", [Reply::After(SLOW_SONG, Box::new(song))]);
    let keys: Vec<Value> = LANGUAGES
        .iter()
        .map(|language| create_key(language.fence))
        .collect();
    let api = start_api(&rig, &keys).await;
    let address = api.address("API listens", STEP_TIMEOUT).await.unwrap();
    let _processor = rig.staged_in_s3(rig.processor()).start().unwrap();
    let _uploader = rig.staged_in_s3(rig.uploader()).start().unwrap();
    for (language, key) in LANGUAGES.into_iter().zip(keys) {
        Reader::new(language, key, address, &rig).check(&rig).await;
    }
    rig.no_dead_letters().await;
}
