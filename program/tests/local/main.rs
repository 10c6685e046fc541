//! `separation-operator local` as a user runs it: with its embedded Kafka and S3, and with real ones.

#![allow(clippy::unwrap_used, reason = "a failed test reports its location")]

mod documents;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use separation_testbed::{
    Kafka, KafkaOptions, S3Server, TempDirectory, Worker, WorkerOptions, eventually, song, tiny_song,
};
use serde_json::Value;

const OPERATOR: &str = env!("CARGO_BIN_EXE_separation-operator");
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/samples/local.yaml");

/// Longer than any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A directory for one pool.
struct Place {
    directory: TempDirectory,
}

impl Place {
    fn new() -> Self {
        let worker = Path::new(OPERATOR).with_file_name("separation-worker");
        assert!(
            worker.is_file(),
            "{} is missing; fix: cargo build -p separation-worker",
            worker.display()
        );
        Self {
            directory: TempDirectory::new().unwrap(),
        }
    }

    fn song(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.directory.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// The sample with the built-in model, which is fast and installed everywhere.
    fn pool(&self) -> PathBuf {
        let sample = fs::read_to_string(SAMPLE).unwrap();
        let pool = sample.replace("  processor:\n", "  processor:\n    model: {name: builtin}\n");
        assert_ne!(pool, sample);
        self.song("local.yaml", pool.as_bytes())
    }

    fn local(&self, pool: impl AsRef<Path>) -> WorkerOptions {
        WorkerOptions::new(OPERATOR, "local")
            .arg("--file")
            .arg(pool.as_ref())
            .args(["--port", "0", "--json", "--data"])
            .arg(self.directory.join("data"))
            .arg("--output")
            .arg(self.directory.join("stems"))
    }

    /// A place whose workers keep their task running until the file is removed.
    fn holding(&self) -> (Worker, PathBuf) {
        let hold = self.song("hold", b"");
        let local = self
            .local(self.pool())
            .env("SEPARATION_HOLD", "separated")
            .env("SEPARATION_HOLD_WHILE", &hold);
        (local.start().unwrap(), hold)
    }

    /// The log of a worker.
    fn log(&self, worker: &str) -> String {
        fs::read_to_string(self.directory.join(format!("data/logs/{worker}.log"))).unwrap_or_default()
    }

    /// All processors that were started.
    fn processors(&self) -> Vec<String> {
        let logs = fs::read_dir(self.directory.join("data/logs")).unwrap();
        let names = logs.map(|log| log.unwrap().file_name().into_string().unwrap());
        let names = names.filter_map(|name| name.strip_suffix(".log").map(str::to_owned));
        names.filter(|name| name.contains("-processor-")).collect()
    }

    /// Running processes of this place.
    fn processes(&self) -> Vec<String> {
        let marker = self.directory.join("data").display().to_string();
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let path = entry.ok()?.path();
            let environment = fs::read(path.join("environ")).ok()?;
            let command = fs::read(path.join("cmdline")).ok()?;
            let is_worker = String::from_utf8_lossy(&command).contains("separation-worker");
            (is_worker && String::from_utf8_lossy(&environment).contains(&marker))
                .then(|| path.display().to_string())
        });
        processes.collect()
    }
}

fn reports(local: &Worker) -> Vec<Value> {
    let output = local.output().unwrap();
    output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// URL of the API.
async fn api(local: &Worker) -> String {
    let line = local.wait_for_log("post songs to ", PATIENCE).await.unwrap();
    line.message.trim_start_matches("post songs to ").to_owned()
}

fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Posts a song and returns its task.
async fn post(api: &str, bytes: Vec<u8>) -> String {
    let form = reqwest::multipart::Form::new().part(
        "audio",
        reqwest::multipart::Part::bytes(bytes).file_name("song.wav"),
    );
    let response = http()
        .post(format!("{api}/tasks"))
        .multipart(form)
        .send()
        .await
        .unwrap();
    let response: Value = response.error_for_status().unwrap().json().await.unwrap();
    response["task_uuid"].as_str().unwrap().to_owned()
}

async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    eventually(what, PATIENCE, async || condition()).await;
}

#[tokio::test]
async fn one_command_separates_songs_into_stems() {
    let place = Place::new();
    let songs = [
        place.song("one.wav", &song(3.0, 1)),
        place.song("two.wav", &song(2.0, 2)),
    ];
    let local = place
        .local(place.pool())
        .arg("--input")
        .args(songs)
        .start()
        .unwrap();
    assert_eq!(local.wait_exit(PATIENCE).await.unwrap(), 0, "{}", local.log_end());
    let mut reports = reports(&local);
    reports.sort_by_key(|report| report["input"].to_string());
    for (report, (name, seconds)) in reports.iter().zip([("one", 3_usize), ("two", 2)]) {
        assert_eq!(report["status"], "done");
        for stem in ["vocals", "instrumental"] {
            let path = place.directory.join(format!("stems/{name}_{stem}.wav"));
            assert_eq!(report["outputs"][stem], path.display().to_string());
            // Stereo at 44.1 kHz, at least 16 bits.
            assert!(fs::metadata(&path).unwrap().len() > 44_100 * 4 * seconds as u64);
        }
    }
    assert_eq!(reports.len(), 2);
    let messages = local.messages().unwrap();
    let scaled = messages
        .iter()
        .any(|line| line.starts_with("processor: lag ") && !line.contains("desired 0"));
    assert!(scaled, "{messages:?}");
    assert!(place.processes().is_empty());
}

#[tokio::test]
async fn an_invalid_song_fails_and_the_others_do_not() {
    let place = Place::new();
    let songs = [
        place.song("bad.wav", b"no audio"),
        place.song("good.wav", &tiny_song(1)),
    ];
    let local = place
        .local(place.pool())
        .arg("--input")
        .args(songs)
        .start()
        .unwrap();
    assert_eq!(local.wait_exit(PATIENCE).await.unwrap(), 1);
    let reports = reports(&local);
    let status = |name: &str| {
        let of_song = |report: &&Value| report["input"].as_str().unwrap().ends_with(name);
        reports.iter().find(of_song).unwrap()["status"].clone()
    };
    assert_eq!(
        (status("bad.wav"), status("good.wav")),
        ("failed".into(), "done".into())
    );
    let why = reports
        .iter()
        .find_map(|report| report["error"].as_str())
        .unwrap();
    assert!(why.starts_with("the song is not audio"), "{why}");
}

#[tokio::test]
async fn workers_follow_the_backlog_and_ctrl_c_lets_the_running_task_finish() {
    let place = Place::new();
    let (local, hold) = place.holding();
    let api = api(&local).await;
    assert!(place.processors().is_empty(), "the lag is 0");
    let task = post(&api, tiny_song(1)).await;
    let worker = "vocals-processor-1";
    wait_for("the task to run", || place.log(worker).contains("Held")).await;
    local.sigint().unwrap();
    local
        .wait_for_log("stopping: workers finish their tasks", PATIENCE)
        .await
        .unwrap();
    wait_for("the worker to be notified", || {
        place
            .log(worker)
            .contains("Finishing the running task before the shutdown")
    })
    .await;
    fs::remove_file(&hold).unwrap();
    assert_eq!(local.wait_exit(PATIENCE).await.unwrap(), 0);
    let log = place.log(worker);
    assert!(log.contains("Processor shutdown complete"), "{log}");
    // Its staged stems were uploaded before the end.
    assert!(log.contains(&task), "{log}");
    assert!(place.log("vocals-uploader-1").contains("Stems uploaded"));
    assert!(place.processes().is_empty());
}

#[tokio::test]
async fn a_second_ctrl_c_ends_the_command_immediately() {
    let place = Place::new();
    let (local, _hold) = place.holding();
    let api = api(&local).await;
    post(&api, tiny_song(1)).await;
    wait_for("the task to run", || {
        place.log("vocals-processor-1").contains("Held")
    })
    .await;
    local.sigint().unwrap();
    local
        .wait_for_log("stopping: workers finish their tasks", PATIENCE)
        .await
        .unwrap();
    local.sigint().unwrap();
    local.wait_exit(Duration::from_secs(20)).await.unwrap();
    assert!(place.processes().is_empty());
}

#[tokio::test]
async fn workers_do_not_outlive_a_killed_command() {
    let place = Place::new();
    let local = place.local(place.pool()).start().unwrap();
    let api = api(&local).await;
    post(&api, tiny_song(1)).await;
    wait_for("a worker", || !place.processors().is_empty()).await;
    local.kill_9().await.unwrap();
    wait_for("the workers' end", || place.processes().is_empty()).await;
}

#[tokio::test]
async fn clients_on_other_machines_need_the_printed_password() {
    let place = Place::new();
    let local = place.local(place.pool()).args(["--host", "0.0.0.0"]);
    let local = local.start().unwrap();
    let api = api(&local).await;
    assert!(api.starts_with("http://127.0.0.1:"), "{api}");
    let line = local
        .wait_for_log("clients of the API: ", PATIENCE)
        .await
        .unwrap();
    let (_, password) = line.message.split_once("user admin, password ").unwrap();
    let (password, _) = password.split_once(' ').unwrap();
    let status = async |password: Option<&str>| {
        let request = http().get(format!("{api}/v1/session"));
        let request = match password {
            Some(password) => request.basic_auth("admin", Some(password)),
            None => request,
        };
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(status(None).await, 401);
    assert_eq!(status(Some("trial")).await, 401);
    assert_eq!(status(Some(password)).await, 200);

    let (_, port) = api.rsplit_once(':').unwrap();
    let healthcheck = async || {
        let check = WorkerOptions::new(OPERATOR, "local").args(["--healthcheck", "--port", port]);
        check.start().unwrap().wait_exit(PATIENCE).await.unwrap()
    };
    assert_eq!(healthcheck().await, 0);
    local.sigterm().unwrap();
    assert_eq!(local.wait_exit(PATIENCE).await.unwrap(), 0);
    assert_eq!(healthcheck().await, 1);
}

#[tokio::test]
async fn invalid_arguments_are_refused_with_a_fix() {
    let place = Place::new();
    let pool = |text: &str| place.song("pool.yaml", text.as_bytes());
    let check = async |options: WorkerOptions, expected: &str| {
        let local = options.start().unwrap();
        assert_eq!(local.wait_exit(PATIENCE).await.unwrap(), 1);
        let messages = local.messages().unwrap().join("\n");
        assert!(messages.contains(expected), "{expected} is not in {messages}");
    };
    check(place.local("/no/pool.yaml"), "cannot read /no/pool.yaml").await;
    check(
        place.local(place.pool()).args(["--worker", "/no/worker"]),
        "--worker: no such file: /no/worker",
    )
    .await;
    check(
        place.local(place.pool()).args(["--input", "/no/song.mp3"]),
        "no such file: /no/song.mp3",
    )
    .await;
    let header = "apiVersion: separation.dev/v1beta1\nkind: SeparationPool\nmetadata: {name: a}\nspec:";
    let secret = pool(&format!(
        "{header} {{processor: {{model: {{name: builtin}}}}, \
         storage: {{s3: {{credentialsSecretRef: {{name: keys}}}}, stems: {{bucket: stems}}}}}}"
    ));
    check(
        place.local(secret),
        "no Secret keys with the key AWS_ACCESS_KEY_ID; fix: add it to the file",
    )
    .await;
    let bounds = pool(&format!(
        "{header} {{processor: {{scaling: {{minReplicas: 3, maxReplicas: 2}}}}}}"
    ));
    check(
        place.local(bounds),
        "spec.processor.scaling.minReplicas: 3 is above maxReplicas, 2; fix:",
    )
    .await;
    let with_model = |path: &str| {
        pool(&format!(
            "{header} {{processor: {{model: {{path: {path}}}, scaling: {{minReplicas: 1}}}}}}"
        ))
    };
    check(
        place.local(with_model("/no/model.onnx")),
        "spec.processor.model.path: no such file: /no/model.onnx; fix:",
    )
    .await;
    let empty = place.directory.join("empty");
    check(
        place.local(SAMPLE).env("SEPARATION_CACHE_DIR", &empty),
        "spec.processor.model: model spleeter is not installed",
    )
    .await;
    let song = place.song("song.onnx", &tiny_song(1));
    check(
        place.local(with_model(&song.display().to_string())),
        "processor workers keep ending at start: a-processor-3 ended",
    )
    .await;
}

#[tokio::test]
async fn a_pool_that_names_kafka_and_s3_uses_them() {
    let place = Place::new();
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    let s3 = S3Server::shared().await.unwrap();
    let bucket = format!("stems-{}", uuid::Uuid::new_v4().simple());
    s3.create_bucket(&bucket).await.unwrap();
    for topic in ["uvr_tasks", "uvr_results"] {
        kafka.create_topic(topic, 2).await.unwrap();
    }
    let pool = format!(
        "apiVersion: separation.dev/v1beta1
kind: SeparationPool
metadata: {{name: vocals}}
spec:
  kafka: {{bootstrapServers: '{}'}}
  storage:
    s3: {{endpoint: '{}', credentialsSecretRef: {{name: s3}}}}
    stems: {{bucket: {bucket}}}
    staging: {{persistentVolumeClaim: {{claimName: work}}}}
  processor:
    model: {{name: builtin}}
    consumer: {{sessionTimeoutMs: 6000, heartbeatIntervalMs: 1000}}
    scaling: {{lagCheckPeriodSeconds: 1, scaleDown: {{stabilizationWindowSeconds: 1}}, maxReplicas: 2}}
  uploader: {{scaling: {{lagCheckPeriodSeconds: 1, maxReplicas: 1}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: s3}}
stringData: {{AWS_ACCESS_KEY_ID: {}, AWS_SECRET_ACCESS_KEY: {}}}
",
        kafka.bootstrap(),
        s3.endpoint(),
        s3.access_key(),
        s3.secret_key()
    );
    let local = place
        .local(place.song("pool.yaml", pool.as_bytes()))
        .args(["--store-url", "http://localhost:9000"])
        .start()
        .unwrap();
    let warning = "warning: --store-url has no effect: the pool names its own object store";
    local.wait_for_log(warning, PATIENCE).await.unwrap();
    let api = api(&local).await;
    let task = post(&api, tiny_song(7)).await;
    eventually("the stems", PATIENCE, async || {
        let objects = s3.list(&bucket, "").await.unwrap();
        objects
            .iter()
            .any(|object| object.key.contains(&task) && object.key.ends_with(".json"))
    })
    .await;
    local
        .wait_for_log(
            "processor: lag 0, desired 0, busy 0, draining 0 (BacklogCovered",
            PATIENCE,
        )
        .await
        .unwrap();
    local.sigterm().unwrap();
    assert_eq!(local.wait_exit(PATIENCE).await.unwrap(), 0);
    assert!(place.processes().is_empty());
}
