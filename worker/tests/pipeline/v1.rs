//! Tasks of the HTTP API v1 in the processor: their format, their limits, their progress, and their cancellation.

use std::fs::File;
use std::time::{Duration, Instant};

use axum::http::Method;
use separation_contract::environment as env;
use separation_contract::message::TaskId;
use separation_contract::offset_metadata::OffsetMetadata;
use separation_testbed::{eventually, song, task_message, tiny_song};
use separation_worker::audio::{self, SourceOptions, WavSamples};
use separation_worker::task_store::{EndState, StoredOutcome, VERSION};
use serde_json::{Value, json};

use crate::fault_proxy::{Fault, FaultProxy};
use crate::rig::{Rig, STEP_TIMEOUT, held_at, separations};

/// Within which a running task stops after it was canceled.
const STOP_LIMIT: Duration = Duration::from_secs(10);

const COMMITTED: &str = "Offset committed successfully";

fn output(format: &str, bit_depth: Option<u8>) -> Value {
    let output = json!({ "format": format, "bit_depth": bit_depth, "stems": ["vocals", "instrumental"] });
    json!({ "client": "acme", "output": output })
}

/// Posts a song as a task of the API.
async fn submit(rig: &Rig, song: &[u8], v1: &Value) -> String {
    let (task, path) = rig.site.put_song(song).unwrap();
    publish(rig, &task, &path.display().to_string(), v1).await;
    task
}

async fn publish(rig: &Rig, task: &str, audio_path: &str, v1: &Value) {
    let mut message = task_message(task, audio_path, "");
    message["v1"] = v1.clone();
    rig.kafka
        .publish(&rig.site.task_topic, task, message.to_string(), &[])
        .await
        .unwrap();
}

/// Cancels a task as the API does.
async fn cancel(rig: &Rig, task: &str) {
    let tasks = rig.task_store().await;
    let canceled = StoredOutcome {
        version: VERSION,
        id: TaskId::parse(task).unwrap(),
        state: EndState::Cancelled,
        finished_at: 1_763_683_200,
        started_at: None,
        stems: Vec::new(),
        error: None,
    };
    tasks.create_outcome(&canceled).await.unwrap();
}

/// Waits until the committed progress of the running task is at least `percent`.
pub(crate) async fn progress_reaches(rig: &Rig, percent: u8) {
    eventually("the progress committed", STEP_TIMEOUT, async || {
        let (group, topic) = (&rig.site.processor_group, &rig.site.task_topic);
        let lag = rig.kafka.lag(group, topic).await?;
        let record = OffsetMetadata::parse(&lag[0].metadata);
        anyhow::ensure!(record.percent >= Some(percent), "{record:?}");
        anyhow::Ok(true)
    })
    .await;
}

/// The only result of the site.
async fn only_result(rig: &Rig) -> Value {
    let results = rig.kafka.consume_all(&rig.site.result_topic).await.unwrap();
    assert_eq!(results.len(), 1, "{results:?}");
    results[0].json()
}

/// Waits until nothing of any task is staged.
async fn nothing_staged(rig: &Rig) {
    eventually("nothing staged", STEP_TIMEOUT, async || {
        let entries = |directory| std::fs::read_dir(directory).unwrap().count();
        entries(&rig.site.songs) == 0 && entries(&rig.site.stems) == 0
    })
    .await;
}

#[tokio::test]
async fn stems_have_the_requested_format_and_the_result_names_it() {
    let rig = Rig::new(1).await;
    let v1 = output("flac", Some(24));
    let task = submit(&rig, &tiny_song(1), &v1).await;
    let _processor = rig.processor().start().unwrap();
    rig.tasks_committed().await;
    let result = only_result(&rig).await;
    assert_eq!(
        (&result["success"], &result["v1"]),
        (&true.into(), &v1),
        "{result}"
    );
    assert_eq!(result["task_uuid"], task.as_str());
    for stem in ["vocals_path", "instrumental_path"] {
        let path = result[stem].as_str().unwrap();
        let stem = audio::open(path.as_ref(), &SourceOptions::default()).unwrap();
        let info = stem.info();
        assert_eq!((&*info.format, info.depth), ("flac", Some(WavSamples::Int24)));
    }
}

#[tokio::test]
async fn only_a_task_of_the_api_has_a_maximum_length() {
    let rig = Rig::new(1).await;
    let long = song(2.5, 1);
    let dropped_in = rig.site.submit(&long, "").await.unwrap();
    let too_long = submit(&rig, &long, &output("wav", Some(16))).await;
    let _processor = rig.processor().env(env::MAX_INPUT_SECONDS, "2").start().unwrap();
    rig.tasks_committed().await;
    let results = rig.kafka.consume_all(&rig.site.result_topic).await.unwrap();
    assert_eq!(results.len(), 2);
    for result in results.iter().map(|result| result.json()) {
        let failed = result["task_uuid"] == too_long.as_str();
        assert!(failed || result["task_uuid"] == dropped_in.as_str());
        assert_eq!(result["success"], !failed, "{result}");
        if failed {
            assert_eq!(result["error_code"], "input_too_long", "{result}");
        }
    }
}

/// Frames of silence at 32 kbit/s, then some at 320: 298 s, estimated as 390 s from the first megabyte.
fn mp3_with_a_wrong_estimate() -> Vec<u8> {
    let frame = |header: [u8; 4], bytes: usize| [&header[..], &vec![0; bytes - 4]].concat();
    let low = frame([0xff, 0xfb, 0x10, 0xc0], 104);
    let high = frame([0xff, 0xfb, 0xe0, 0xc0], 1_044);
    [low.repeat(11_000), high.repeat(400)].concat()
}

#[tokio::test]
async fn an_estimated_length_is_not_too_long() {
    let rig = Rig::new(1).await;
    submit(&rig, &mp3_with_a_wrong_estimate(), &output("flac", None)).await;
    let processor = rig.processor().env(env::MAX_INPUT_SECONDS, "350");
    let _processor = processor.start().unwrap();
    rig.tasks_committed().await;
    let result = only_result(&rig).await;
    assert_eq!(result["success"], true, "{result}");
}

#[tokio::test]
async fn a_task_canceled_while_queued_is_never_separated() {
    let rig = Rig::new(1).await;
    let canceled = submit(&rig, &tiny_song(1), &output("wav", Some(16))).await;
    let next = submit(&rig, &tiny_song(2), &output("wav", Some(16))).await;
    cancel(&rig, &canceled).await;
    let processor = rig.processor().start().unwrap();
    rig.tasks_committed().await;
    rig.check_results(&[next].into()).await;
    assert_eq!(separations([&processor]), 1);
    eventually("the songs deleted", STEP_TIMEOUT, async || {
        std::fs::read_dir(&rig.site.songs).unwrap().count() == 0
    })
    .await;
}

#[tokio::test]
async fn a_task_canceled_while_running_stops_and_its_partition_continues() {
    let rig = Rig::new(1).await;
    let hold = rig.hold();
    let processor = held_at(rig.processor(), "staged_in", &hold).start().unwrap();
    let canceled = submit(&rig, &tiny_song(1), &output("wav", Some(16))).await;
    processor.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    let next = submit(&rig, &tiny_song(2), &output("wav", Some(16))).await;
    cancel(&rig, &canceled).await;
    let canceled_at = Instant::now();
    processor.wait_for_log(COMMITTED, STEP_TIMEOUT).await.unwrap();
    let stopped = canceled_at.elapsed();
    assert!(stopped < STOP_LIMIT, "{stopped:?}");
    std::fs::remove_file(&hold).unwrap();
    rig.tasks_committed().await;
    rig.check_results(&[next].into()).await;
}

/// Posts almost four hours of silence, which a test model separates in minutes: a file without blocks on the disk.
pub(crate) async fn submit_hours(rig: &Rig) -> String {
    let data_bytes = 14_000 * 44_100 * 4_u32;
    let mut header = song(0.0, 1);
    header[4..8].copy_from_slice(&(data_bytes + 36).to_le_bytes());
    header[40..44].copy_from_slice(&data_bytes.to_le_bytes());
    let (task, path) = rig.site.put_song(&header).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(u64::from(data_bytes) + header.len() as u64).unwrap();
    publish(rig, &task, &path.display().to_string(), &output("flac", None)).await;
    task
}

#[tokio::test]
async fn a_task_canceled_while_its_model_runs_makes_room_for_the_next() {
    let rig = Rig::new(1).await;
    let canceled = submit_hours(&rig).await;
    let next = submit(&rig, &tiny_song(2), &output("wav", Some(16))).await;
    let processor = rig.processor().env(env::PROGRESS_SECONDS, "1");
    let processor = processor.start().unwrap();
    progress_reaches(&rig, 1).await;
    cancel(&rig, &canceled).await;
    processor.wait_for_log("Separated", STOP_LIMIT).await.unwrap();
    rig.tasks_committed().await;
    rig.check_results(&[next].into()).await;
}

#[tokio::test]
async fn a_task_canceled_while_its_stems_cannot_be_stored_stops() {
    let rig = Rig::new(1).await;
    let proxy = FaultProxy::start(rig.s3.address(), |request| {
        let is_stem = request.method == Method::PUT && request.path.ends_with("_vocals.wav");
        is_stem.then_some(Fault::Status(503))
    })
    .await;
    let processor = rig.staged_in_s3(rig.processor());
    let processor = processor.env(env::S3_ENDPOINT_URL, proxy.endpoint());
    let processor = processor.start().unwrap();
    let canceled = submit(&rig, &tiny_song(1), &output("wav", Some(16))).await;
    processor.wait_for_log("On hold", STEP_TIMEOUT).await.unwrap();
    cancel(&rig, &canceled).await;
    processor.wait_for_log(COMMITTED, STOP_LIMIT).await.unwrap();
    let results = rig.kafka.consume_all(&rig.site.result_topic).await.unwrap();
    assert_eq!(results, []);
}

#[tokio::test]
async fn a_task_canceled_after_its_separation_publishes_nothing() {
    let rig = Rig::new(1).await;
    let hold = rig.hold();
    let processor = held_at(rig.processor(), "separated", &hold).start().unwrap();
    let canceled = submit(&rig, &tiny_song(1), &output("wav", Some(16))).await;
    processor.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    cancel(&rig, &canceled).await;
    std::fs::remove_file(&hold).unwrap();
    rig.tasks_committed().await;
    let results = rig.kafka.consume_all(&rig.site.result_topic).await.unwrap();
    assert_eq!(results, []);
    nothing_staged(&rig).await;
}

#[tokio::test]
async fn a_task_that_needs_a_missing_ffmpeg_is_held_until_it_is_canceled() {
    let rig = Rig::new(1).await;
    let processor = rig.processor().env("PATH", rig.directory.path()).start().unwrap();
    let task = submit(&rig, &tiny_song(1), &output("mp3", None)).await;
    let on_hold = "On hold: a dependency refuses or fails; the message is kept and the step is retried";
    processor.wait_for_log(on_hold, STEP_TIMEOUT).await.unwrap();
    let lag = rig
        .kafka
        .lag(&rig.site.processor_group, &rig.site.task_topic)
        .await
        .unwrap();
    assert_eq!(lag[0].lag, 1, "{lag:?}");
    cancel(&rig, &task).await;
    rig.tasks_committed().await;
    let results = rig.kafka.consume_all(&rig.site.result_topic).await.unwrap();
    assert_eq!(results, []);
    nothing_staged(&rig).await;
}

#[tokio::test]
async fn progress_is_committed_with_the_offset() {
    let rig = Rig::new(1).await;
    let hold = rig.hold();
    let processor = rig.processor().env(env::PROGRESS_SECONDS, "1");
    let _processor = held_at(processor, "separated", &hold).start().unwrap();
    rig.submit(1).await;
    progress_reaches(&rig, 100).await;
    std::fs::remove_file(&hold).unwrap();
    rig.tasks_committed().await;
}
