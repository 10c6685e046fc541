//! `separation-worker submit`, with the API and directly with Kafka.

use std::fs;
use std::process::{Output, Stdio};

use rdkafka::Message as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::mocking::MockCluster;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::SONG;
use super::bench::{Bench, PASSWORD, Songs, eventually};

fn submit(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_separation-worker"));
    command
        .arg("submit")
        .args(arguments)
        .env_clear()
        .env("BASIC_AUTH_PASSWORD", PASSWORD)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

#[track_caller]
fn reports(output: &Output, code: i32) -> Vec<Value> {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn directory_of_songs() -> TempDir {
    let directory = TempDir::new().unwrap();
    for (name, content) in [
        ("a.mp3", SONG),
        ("b.flac", b"another song"),
        ("cover.jpg", b"no song"),
    ] {
        fs::write(directory.path().join(name), content).unwrap();
    }
    directory
}

/// Finishes the task of each posted song: those with the content `failing` fail.
async fn end_tasks(api: &Bench, songs: &Songs, count: usize, failing: &[u8]) {
    eventually("all are posted", || api.tasks().len() == count).await;
    for (task, _) in api.tasks() {
        let id = task.task_uuid.as_str();
        let fails = api.files.inputs.lock().unwrap()[id] == failing;
        let mut manifest = json!({"version": 1, "task_uuid": id, "webhook": "none", "finished_at": 1});
        if fails {
            manifest["status"] = "failed".into();
            manifest["error_message"] = "not audio".into();
        } else {
            manifest["status"] = "success".into();
            manifest["vocals"] = songs.at("/song.mp3").into();
            manifest["instrumental"] = songs.at("/song.mp3?2").into();
        }
        api.files.publish_manifest(id, manifest);
    }
}

#[tokio::test]
async fn a_directory_of_songs_is_posted_followed_and_its_stems_are_downloaded() {
    let (api, songs) = (Bench::guarded(&[]).await, Songs::start(b"a stem").await);
    let (directory, stems) = (directory_of_songs(), TempDir::new().unwrap());
    let (directory, output) = (directory.path().to_str().unwrap(), stems.path().join("new"));
    let arguments = [
        directory,
        "--api",
        &api.url,
        "--json",
        "--output",
        output.to_str().unwrap(),
    ];
    let (done, ()) = tokio::join!(submit(&arguments).output(), end_tasks(&api, &songs, 2, b""));
    let mut reports = reports(&done.unwrap(), 0);
    assert_eq!(reports.len(), 2);
    // Reports are printed in the order in which tasks finish.
    reports.sort_by_key(|report| report["input"].to_string());
    for (report, name) in reports.iter().zip(["a", "b"]) {
        assert_eq!(report["status"], "done", "{report}");
        let outputs = report["outputs"].as_array().unwrap();
        assert_eq!(
            outputs[0],
            output.join(format!("{name}_vocals.wav")).to_str().unwrap()
        );
        for path in outputs {
            assert_eq!(fs::read(path.as_str().unwrap()).unwrap(), b"a stem");
        }
    }
    assert_eq!(fs::read_dir(&output).unwrap().count(), 4);
    let kept = api.files.inputs.lock().unwrap();
    let mut kept: Vec<&[u8]> = kept.values().map(Vec::as_slice).collect();
    kept.sort_unstable();
    assert_eq!(kept, [SONG, b"another song"]);
}

#[tokio::test]
async fn a_failed_song_is_reported_and_the_others_continue() {
    let (api, songs) = (Bench::guarded(&[]).await, Songs::start(b"a stem").await);
    let directory = directory_of_songs();
    let arguments = [directory.path().to_str().unwrap(), "--api", &api.url, "--json"];
    let (done, ()) = tokio::join!(submit(&arguments).output(), end_tasks(&api, &songs, 2, SONG));
    let reports = reports(&done.unwrap(), 1);
    let of = |name: &str| {
        reports
            .iter()
            .find(|report| report["input"].as_str().unwrap().ends_with(name))
            .unwrap()
    };
    assert_eq!(
        (&of("a.mp3")["status"], &of("a.mp3")["error"]),
        (&json!("failed"), &json!("not audio"))
    );
    assert_eq!(of("b.flac")["status"], "done");
    assert_eq!(of("b.flac")["vocals"], songs.at("/song.mp3"));
}

#[tokio::test]
async fn a_link_is_queued_without_waiting() {
    let (api, songs) = (Bench::guarded(&[]).await, Songs::start(SONG).await);
    let (link, hook) = (songs.at("/song.mp3"), "https://example.com/hook");
    let arguments = [
        link.as_str(),
        "--api",
        &api.url,
        "--hook-url",
        hook,
        "--no-wait",
        "--json",
    ];
    let reports = reports(&submit(&arguments).output().await.unwrap(), 0);
    assert_eq!(reports[0]["status"], "queued");
    let (task, _) = api.tasks().pop().unwrap();
    assert_eq!(reports[0]["task_uuid"], task.task_uuid.as_str());
    assert_eq!(task.hook_url.as_deref(), Some(hook));
    let missing = songs.at("/missing");
    let arguments = [missing.as_str(), "--api", &api.url, "--hook-url", hook, "--json"];
    let failed = submit(&arguments).output().await.unwrap();
    let error = "Failed to fetch audio: localhost answered 404";
    assert_eq!(self::reports(&failed, 1)[0]["error"], error);
}

#[tokio::test]
async fn songs_that_cannot_be_posted_are_reported_before_any_is_posted() {
    let api = Bench::guarded(&[]).await;
    let directory = directory_of_songs();
    let song = directory.path().join("a.mp3");
    let song = song.to_str().unwrap();
    for arguments in [
        &["/nothing/here.mp3"] as &[&str],
        &["https://example.com/a.mp3"],
        &[song, song, "--output", "stems"],
        &[song, "https://example.com/a.mp3", "--direct"],
        &[song, "--no-wait", "--output", "stems"],
        &[],
    ] {
        let refused = submit(&[&["--api", &api.url], arguments].concat())
            .output()
            .await
            .unwrap();
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
    }
    assert!(api.tasks().is_empty());
}

#[tokio::test]
async fn a_file_of_the_shared_directory_is_queued_directly_in_kafka() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("uvr_tasks", 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let directory = directory_of_songs();
    let arguments = [
        directory.path().to_str().unwrap(),
        "--direct",
        "--bootstrap-servers",
        &brokers,
        "--json",
    ];
    let reports = reports(&submit(&arguments).output().await.unwrap(), 0);
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .set("group.id", "test")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&["uvr_tasks"]).unwrap();
    for (report, name) in reports.iter().zip(["a.mp3", "b.flac"]) {
        let message = consumer.recv();
        let message = tokio::time::timeout(std::time::Duration::from_secs(30), message)
            .await
            .unwrap()
            .unwrap();
        let task: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        assert_eq!(task["task_uuid"], report["task_uuid"]);
        let path = fs::canonicalize(directory.path().join(name)).unwrap();
        assert_eq!(task["audio_path"], path.to_str().unwrap());
    }
}
