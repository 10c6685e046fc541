//! Tests of the page in Chromium, with the real API, processor and uploader on real brokers and a real object store.
//!
//! Each test starts a service and runs a script of this directory with Node.js, which drives the browser. Needs the
//! feature `fault-injection`, with which the processor is held while the script looks at the page.

#![cfg(feature = "fault-injection")]
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use separation_contract::environment as env;
use separation_testbed::{
    Components, Kafka, S3Server, Site, TempDirectory, Worker, WorkerOptions, song, tiny_song,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

/// Timeout of the start of a process, generous for a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Timeout of a script; the longest takes a minute. Its steps have shorter ones with better errors.
const SCRIPT_LIMIT: Duration = Duration::from_secs(300);

/// The program under test.
const WORKER: &str = env!("CARGO_BIN_EXE_separation-worker");

/// Directory of the test models.
const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models");

/// Directory of the scripts.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page");

const CHROMIUM: &str = "/usr/bin/chromium";

/// Set to any value, the screenshots of the documentation are written.
const SCREENSHOTS: &str = "SEPARATION_SCREENSHOTS";

/// One browser at a time: on a busy machine sound stutters.
static BROWSER: Mutex<()> = Mutex::const_new(());

/// The API key of the client `acme`.
const KEY: &str = "sk_of-the-tests-of-the-page";

/// A service with one partition.
struct Service {
    site: Site<'static>,
    api: Worker,
    url: String,
    /// Files of the test.
    directory: TempDirectory,
}

impl Service {
    /// A service whose API has the client `acme`; nothing processes its tasks.
    async fn start() -> Self {
        let kafka = Kafka::shared().await.unwrap();
        let s3 = S3Server::shared().await.unwrap();
        let site = Site::new(kafka, s3, 1).await.unwrap();
        let keys = json!([{"name": "acme", "sha256": sha256(KEY)}]).to_string();
        let (api, url) = start_api(api(&site).env(env::API_KEYS, keys)).await;
        Self {
            site,
            api,
            url,
            directory: TempDirectory::new().unwrap(),
        }
    }

    /// Starts a processor, held at `point` while the file `hold` exists, and an uploader.
    fn start_workers(&self, point: &str, hold: &Path) -> [Worker; 2] {
        std::fs::write(hold, "").unwrap();
        let processor = self
            .site
            .worker(WORKER, "processor")
            .env("MODEL_FILE_DIR", MODELS)
            .env("MODEL_NAME", "identity_tiny.onnx")
            .env("THREADS", "1")
            .env(env::PROGRESS_SECONDS, "1")
            .env("SEPARATION_HOLD", point)
            .env("SEPARATION_HOLD_WHILE", hold);
        let uploader = self.site.worker(WORKER, "uploader");
        [processor, uploader].map(|worker| worker.start().unwrap())
    }

    /// Writes a file of the test.
    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.directory.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Runs a script with these arguments besides those that all scripts have.
    async fn run(&self, script: &str, mut arguments: Value) {
        let screenshots = std::env::var_os(SCREENSHOTS)
            .map(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images"));
        let common = json!({
            "packages": Components::browser_packages().unwrap(),
            "chromium": CHROMIUM,
            "url": self.url,
            "key": KEY,
            "screenshots": screenshots,
        });
        let common = common.as_object().unwrap().clone();
        arguments.as_object_mut().unwrap().extend(common);
        let _turn = BROWSER.lock().await;
        let path = format!("{SCRIPTS}/{script}");
        let node = WorkerOptions::new("node", &path).arg(arguments.to_string());
        // Chromium's profile and downloads.
        let node = node.env("TMPDIR", self.directory.path()).start().unwrap();
        let ended = node.wait_exit(SCRIPT_LIMIT).await.unwrap();
        let output = node.output().unwrap();
        assert_eq!(
            ended,
            0,
            "{script}\n{output}{}{}",
            node.log_end(),
            self.api.log_end()
        );
    }
}

fn api(site: &Site<'_>) -> WorkerOptions {
    let api = site.worker(WORKER, "api");
    api.env(env::API_HOST, "127.0.0.1").env(env::API_PORT, "0")
}

/// Starts an API and returns its URL.
async fn start_api(options: WorkerOptions) -> (Worker, String) {
    let api = options.start().unwrap();
    let address = api.address("API listens", START_LIMIT).await.unwrap();
    (api, format!("http://{address}"))
}

/// Five minutes: the same ten seconds again and again, which are quickly made.
fn long_song() -> Vec<u8> {
    /// Bytes before the samples in a WAV file of the testbed.
    const HEADER: usize = 44;
    let part = song(10.0, 1);
    let (header, samples) = part.split_at(HEADER);
    let mut long = header.to_vec();
    long.extend(samples.repeat(30));
    let bytes = u32::try_from(long.len() - HEADER).unwrap();
    // The sizes of the file and of its samples.
    long[4..8].copy_from_slice(&(bytes + 36).to_le_bytes());
    long[40..HEADER].copy_from_slice(&bytes.to_le_bytes());
    long
}

/// Lower-case hexadecimal digits.
fn sha256(content: impl AsRef<[u8]>) -> String {
    let hash = Sha256::digest(content);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn only_the_right_key_signs_in() {
    let service = Service::start().await;
    let (_open, url) = start_api(api(&service.site)).await;
    service.run("sign_in.mjs", json!({"without_keys": url})).await;
}

#[tokio::test]
async fn a_song_is_uploaded_followed_and_played_in_sync() {
    let service = Service::start().await;
    let hold = service.directory.join("hold");
    let _workers = service.start_workers("separated", &hold);
    let song = service.file("five minutes.wav", &long_song());
    service.run("play.mjs", json!({"song": song, "hold": hold})).await;
}

#[tokio::test]
async fn songs_that_are_canceled_refused_or_fail_are_shown() {
    let service = Service::start().await;
    let hold = service.directory.join("hold");
    let _workers = service.start_workers("attempt_recorded", &hold);
    let songs: Vec<PathBuf> = (0..3)
        .map(|number| service.file(&format!("song {number}.wav"), &tiny_song(number)))
        .collect();
    // Larger than what the API reads before it refuses.
    let no_audio = b"These are notes, and no audio.\n".repeat(300_000);
    let no_audio = service.file("notes.mp3", &no_audio);
    let arguments = json!({
        "songs": songs,
        "no_audio": no_audio,
        "hold": hold,
        "inputs": service.site.songs,
    });
    service.run("ends.mjs", arguments).await;
}

#[test]
fn the_vendored_library_is_the_published_file() {
    let vendor = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/page/vendor");
    let read =
        |path: PathBuf| std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let pin: Value = serde_json::from_slice(&read(vendor.join("wavesurfer.json"))).unwrap();
    let vendored = read(vendor.join("wavesurfer.esm.js"));
    assert_eq!(pin["sha256"], sha256(&vendored));

    let text = |field: &str| pin[field].as_str().unwrap();
    let package = Components::browser_packages().unwrap().join(text("package"));
    let published: Value = serde_json::from_slice(&read(package.join("package.json"))).unwrap();
    for field in ["version", "license"] {
        assert_eq!(pin[field], published[field], "{field}");
    }
    assert!(
        vendored == read(package.join(text("file"))),
        "another file than in the package"
    );
}
