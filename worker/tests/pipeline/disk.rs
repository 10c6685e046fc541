//! Disks that are too small for a song, or full of other files: nothing incomplete is visible, and no song fails
//! because of other files.

use std::path::{Path, PathBuf};

use separation_contract::environment as env;
use separation_testbed::{Worker, WorkerOptions, eventually, song, tiny_song};
use serde_json::Value;

use crate::rig::{MODELS, Rig, STEP_TIMEOUT, WORKER};

/// A processor for which the directory in `variable` is a separate disk of one MiB.
/// `prepare` is a command that gets it as `$0`.
fn on_a_small_disk(rig: &Rig, variable: &str, prepare: &str) -> WorkerOptions {
    let script = format!(
        "mount -t tmpfs -o size=1m none \"${variable}\" && sh -c '{prepare}' \"${variable}\" && exec \"$0\" \"$@\""
    );
    WorkerOptions::new("unshare", "--mount")
        .envs(rig.site.environment())
        .env(env::MODEL_FILE_DIR, MODELS)
        .env(env::MODEL_NAME, "identity_tiny.onnx")
        .env("THREADS", "1")
        .env(env::TASK_TIMEOUT_SECONDS, "4")
        .args(["--map-root-user", "sh", "-c", &script, WORKER, "processor"])
}

/// A path in the worker's mount namespace.
fn seen_by(worker: &Worker, path: &Path) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", worker.pid()));
    root.join(path.strip_prefix("/").unwrap())
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

/// The result of a task.
async fn result(rig: &Rig, task: &str) -> Value {
    eventually("a result", STEP_TIMEOUT, async || {
        let results = rig.kafka.consume_all(&rig.site.result_topic).await?;
        let found = results.iter().find(|result| result.key_text() == task);
        anyhow::Ok(found.map(separation_testbed::Record::json))
    })
    .await
}

/// A song whose stems need more space than the disk has, then one that fits.
async fn check(variable: &str, directory: impl Fn(&Rig) -> &Path) {
    let rig = Rig::new(1).await;
    let hook = rig.hooks.url("/hook");
    let large = rig.site.submit(&song(10.0, 1), &hook).await.unwrap();
    let small = rig.site.submit(&tiny_song(2), &hook).await.unwrap();
    let worker = on_a_small_disk(&rig, variable, "true").start().unwrap();
    let failed = result(&rig, &large).await;
    assert_eq!(failed["success"], false, "{failed}");
    let message = failed["error_message"].as_str().unwrap();
    assert!(message.contains("No space left on device"), "{message}");
    let done = result(&rig, &small).await;
    assert_eq!(done["success"], true, "{done}");
    worker
        .wait_for_logs("Offset committed", 2, STEP_TIMEOUT)
        .await
        .unwrap();
    let left = files(&seen_by(&worker, directory(&rig)));
    let of_large = left.iter().filter(|path| {
        let name = path.display().to_string();
        name.contains(&large) || name.ends_with(".part")
    });
    assert_eq!(of_large.count(), 0, "{left:?}");
    for stem in ["vocals_path", "instrumental_path"] {
        let path = seen_by(&worker, Path::new(done[stem].as_str().unwrap()));
        assert_eq!(&std::fs::read(path).unwrap()[..4], b"RIFF");
    }
}

#[tokio::test]
async fn a_scratch_disk_that_is_too_small_for_a_song_fails_the_song_and_not_the_worker() {
    check(env::SCRATCH_DIR, |rig| &rig.site.scratch).await;
}

/// Songs stay queued while other files fill a disk, and are processed when there is space again.
async fn check_full(variable: &str, directory: impl Fn(&Rig) -> &Path, dependency: &str) {
    let rig = Rig::new(1).await;
    let filler = directory(&rig).join("filler");
    let tasks = rig.submit_many(2).await;
    let worker = on_a_small_disk(&rig, variable, "head -c 1030000 /dev/zero > \"$0/filler\"");
    let worker = worker.start().unwrap();
    let held = worker.wait_for_log("On hold", STEP_TIMEOUT).await.unwrap();
    assert_eq!(held.fields["dependency"], dependency, "{held:?}");
    assert!(
        rig.kafka
            .consume_all(&rig.site.result_topic)
            .await
            .unwrap()
            .is_empty()
    );
    std::fs::remove_file(seen_by(&worker, &filler)).unwrap();
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;
}

#[tokio::test]
async fn songs_stay_queued_while_a_scratch_disk_is_full() {
    check_full(env::SCRATCH_DIR, |rig| &rig.site.scratch, "scratch:ENOSPC").await;
}

#[tokio::test]
async fn songs_stay_queued_while_the_disk_of_stems_is_full() {
    check_full(env::OUTPUT_DIR, |rig| &rig.site.stems, "volume:ENOSPC").await;
}
