//! The sweep of old files.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use separation_contract::api_task::{ApiTask, Output};
use separation_contract::message::TaskId;
use separation_testbed::S3Server;
use separation_worker::settings::RetentionSettings;
use separation_worker::storage::{FinalManifest, WebhookState};
use separation_worker::uploader::Sweep;
use separation_worker::work::Role as _;

use super::bench::{Bench, context};
use super::on_both;
use crate::storage::staging_area::{StagingArea, task};

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

/// A task with an ID as the API assigns it.
const ASSIGNED: &str = "0f3c1f6e-0000-4000-8000-000000000001";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn sweep(bench: &Bench, retention: Option<Duration>) -> Sweep {
    sweep_of("uploaders", bench, retention)
}

/// The sweep of a process in this consumer group.
fn sweep_of(group: &str, bench: &Bench, retention: Option<Duration>) -> Sweep {
    let retention = RetentionSettings {
        stems: retention,
        inputs: retention,
    };
    Sweep::new(
        bench.area.staging.clone(),
        bench.finals.clone(),
        bench.tasks.clone(),
        retention,
        group,
    )
}

async fn put_manifest(bench: &Bench, id: &TaskId) {
    let manifest = FinalManifest::success(id, &bench.finals, None, WebhookState::None, 1);
    bench.finals.write_manifest(&manifest).await.unwrap();
}

/// Object keys of finished stems, sorted; the area of v1 has its own.
async fn finals(bench: &Bench) -> Vec<String> {
    let mut keys = bench.keys().await;
    keys.retain(|key| !key.starts_with("v1/"));
    keys.sort();
    keys
}

#[tokio::test]
async fn only_old_stems_and_songs_with_names_of_tasks_are_deleted() {
    on_both(async |bench| {
        // Of the API, of a task with another ID, and of another implementation, without a manifest.
        let implementation = "0f3c1f6e-0000-4000-8000-000000000002";
        for name in [ASSIGNED, "t1", implementation] {
            bench.put_object(&format!("{name}_vocals.wav"), "v").await;
            bench.put_object(&format!("{name}_instrumental.wav"), "i").await;
        }
        for name in [ASSIGNED, "t1"] {
            put_manifest(bench, &task(name)).await;
        }
        let mut others = [
            "config.json".to_owned(),
            "song_vocals.wav".to_owned(),
            format!("{ASSIGNED}_drums.wav"),
            format!("{ASSIGNED}_vocals.mp3"),
            format!("elsewhere/{ASSIGNED}_vocals.wav"),
        ];
        for other in &others {
            bench.put_object(other, "{}").await;
        }
        let song = bench.area.put("t1", "song").await;
        // Of a task that has not ended.
        let queued = bench.area.put("t3", "song").await;
        bench.area.staging.put_record(&task("t3"), b"{}").await.unwrap();
        let staged = bench.area.publish("t2", "1").await;

        let before = finals(bench).await;
        let retention = Some(Duration::from_secs(DAY));
        assert!(sweep(bench, retention).sweep_in_turn(now()).await);
        assert!(sweep(bench, None).sweep_in_turn(now() + 400 * DAY).await);
        assert_eq!(finals(bench).await, before, "none is old, or none expires");
        assert!(bench.area.read(&song).await.is_some());

        assert!(sweep(bench, retention).sweep_in_turn(now() + 2 * DAY).await);
        let manifests = [format!("{ASSIGNED}.json"), "t1.json".to_owned()];
        let mut left = [&others[..], &manifests[..]].concat();
        left.sort();
        assert_eq!(finals(bench).await, left, "a repeated result finds its manifest");
        assert_eq!(bench.area.read(&song).await, None);
        assert!(bench.area.read(&queued).await.is_some());

        bench.area.staging.delete_record(&task("t3")).await.unwrap();
        assert!(sweep(bench, retention).sweep_in_turn(now() + 9 * DAY).await);
        others.sort();
        assert_eq!(finals(bench).await, others);
        assert_eq!(bench.area.read(&queued).await, None);
        assert!(
            bench.area.read(&staged.vocals.path).await.is_some(),
            "staged stems stay"
        );
    })
    .await;
}

#[tokio::test]
async fn stems_below_a_prefix_are_deleted_and_those_beside_it_stay() {
    let bench = Bench::with_prefix(StagingArea::directories().await, "finals/").await;
    let vocals = format!("{ASSIGNED}_vocals.wav");
    for directory in ["", "finals/", "finals/older/"] {
        bench.put_object(&format!("{directory}{vocals}"), "v").await;
    }
    let retention = Some(Duration::from_secs(DAY));
    assert!(sweep(&bench, retention).sweep_in_turn(now() + 2 * DAY).await);
    assert_eq!(
        finals(&bench).await,
        [vocals.clone(), format!("finals/older/{vocals}")]
    );
}

/// Without an assigned ID, they are recognized by their manifest.
#[tokio::test]
async fn stems_of_a_task_that_was_posted_again_stay_until_they_are_old_themselves() {
    let bench = Bench::new(StagingArea::directories().await).await;
    let keys = ["t1_instrumental.wav", "t1_vocals.wav"];
    for key in keys {
        bench.put_object(key, "stem").await;
    }
    put_manifest(&bench, &task("t1")).await;
    let server = S3Server::shared().await.unwrap();
    let earlier = SystemTime::now() - Duration::from_secs(20 * DAY);
    for key in [keys[0], "t1.json"] {
        server.set_modified(&bench.bucket, key, earlier).unwrap();
    }
    let retention = Some(Duration::from_secs(DAY));
    assert!(sweep(&bench, retention).sweep_in_turn(now()).await);
    assert_eq!(finals(&bench).await, ["t1.json", keys[0], keys[1]]);
    server.set_modified(&bench.bucket, keys[1], earlier).unwrap();
    assert!(sweep(&bench, retention).sweep_in_turn(now() + HOUR).await);
    assert_eq!(finals(&bench).await, Vec::<String>::new());
}

#[tokio::test]
async fn pools_that_share_a_bucket_all_sweep() {
    let bench = Bench::new(StagingArea::directories().await).await;
    let retention = Some(Duration::from_secs(DAY));
    let time = now();
    for (group, retention) in [("a", None), ("a", retention), ("b", None)] {
        for expected in [true, false] {
            let swept = sweep_of(group, &bench, retention).sweep_in_turn(time).await;
            assert_eq!(swept, expected, "{group} {retention:?}");
        }
    }
}

#[tokio::test]
async fn one_uploader_sweeps_in_an_hour() {
    let bench = Bench::new(StagingArea::directories().await).await;
    let uploaders = [(); 3].map(|()| sweep(&bench, None));
    let hour = now() / HOUR * HOUR;
    for (time, uploader, expected) in [
        (hour, 0, true),
        (hour, 1, false),
        (hour + HOUR - 1, 2, false),
        (hour + HOUR, 1, true),
        (hour + HOUR + 1, 0, false),
        (hour + HOUR + 60, 2, false),
    ] {
        let swept = uploaders[uploader].sweep_in_turn(time).await;
        assert_eq!(swept, expected, "uploader {uploader} at {time}");
    }
}

#[tokio::test]
async fn old_stems_of_v1_are_deleted_and_their_outcome_stays_to_say_so() {
    let bench = Bench::new(StagingArea::directories().await).await;
    let output = Output::default();
    super::v1::accept(&bench, "t1", &output).await;
    let mut message = bench.staged("t1").await;
    message.v1 = Some(ApiTask {
        client: super::v1::CLIENT.into(),
        output,
    });
    bench.uploader.work(&message, &context()).await.unwrap();
    let stem = "v1/stems/t1/vocals.wav";
    assert!(bench.object(stem).await.is_some());
    let retention = Some(Duration::from_secs(DAY));
    assert!(sweep(&bench, retention).sweep_in_turn(now() + 2 * DAY).await);
    assert_eq!(bench.object(stem).await, None);
    assert!(bench.tasks.outcome(&task("t1")).await.unwrap().is_some());
    assert!(sweep(&bench, retention).sweep_in_turn(now() + 33 * DAY).await);
    assert_eq!(bench.tasks.outcome(&task("t1")).await.unwrap(), None);
}
