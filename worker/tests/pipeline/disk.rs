//! A disk that is full: the task says so, nothing half is visible, and the next small song is served.

use std::path::{Path, PathBuf};

use separation_contract::environment as env;
use separation_testbed::{Worker, WorkerOptions, eventually, song, tiny_song};
use serde_json::Value;

use crate::rig::{MODELS, PATIENCE, Rig, WORKER};

/// A processor to which the folder that `variable` names is a disk of one MiB, of its own.
fn on_a_small_disk(rig: &Rig, variable: &str) -> WorkerOptions {
    let script = format!("mount -t tmpfs -o size=1m none \"${variable}\" && exec \"$0\" \"$@\"");
    WorkerOptions::new("unshare", "--mount")
        .envs(rig.site.environment())
        .env(env::MODEL_FILE_DIR, MODELS)
        .env(env::MODEL_NAME, "identity_tiny.onnx")
        .env("THREADS", "1")
        .env(env::TASK_TIMEOUT_SECONDS, "4")
        .args(["--map-root-user", "sh", "-c", &script, WORKER, "processor"])
}

/// A path as the worker sees it, with its disk.
fn seen_by(worker: &Worker, path: &Path) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", worker.pid()));
    root.join(path.strip_prefix("/").unwrap())
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

/// The result of a task.
async fn result(rig: &Rig, task: &str) -> Value {
    eventually("a result", PATIENCE, async || {
        let results = rig.kafka.consume_all(&rig.site.result_topic).await?;
        let found = results.iter().find(|result| result.key_text() == task);
        anyhow::Ok(found.map(separation_testbed::Record::json))
    })
    .await
}

/// A song whose stems need more than the disk has, then one that fits.
async fn check(variable: &str, folder: impl Fn(&Rig) -> &Path) {
    let rig = Rig::new(1).await;
    let hook = rig.hooks.url("/hook");
    let large = rig.site.submit(&song(10.0, 1), &hook).await.unwrap();
    let small = rig.site.submit(&tiny_song(2), &hook).await.unwrap();
    let worker = on_a_small_disk(&rig, variable).start().unwrap();
    let failed = result(&rig, &large).await;
    assert_eq!(failed["success"], false, "{failed}");
    let said = failed["error_message"].as_str().unwrap();
    assert!(said.contains("No space left on device"), "{said}");
    let done = result(&rig, &small).await;
    assert_eq!(done["success"], true, "{done}");
    worker
        .wait_for_logs("Offset committed", 2, PATIENCE)
        .await
        .unwrap();
    let left = files(&seen_by(&worker, folder(&rig)));
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
async fn a_full_scratch_disk_fails_the_song_and_not_the_worker() {
    check(env::SCRATCH_DIR, |rig| &rig.site.scratch).await;
}

#[tokio::test]
async fn a_full_disk_of_stems_fails_the_song_and_not_the_worker() {
    check(env::OUTPUT_DIR, |rig| &rig.site.stems).await;
}
