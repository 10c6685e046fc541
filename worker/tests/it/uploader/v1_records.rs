//! Results without the field `v1`, and uploaders without all that v1 needs.

use separation_contract::api_task::{ApiTask, AudioFormat, Output, StemKind};
use separation_contract::message::TaskResult;
use separation_worker::task_store::{EndState, TaskStore};
use separation_worker::work::Role as _;
use serde_json::json;

use super::bench::{Bench, context};
use super::v1::{CLIENT, accept, outcome, output};
use super::{DONE, on_both};
use crate::storage::faults::{error, scripted};
use crate::storage::staging_area::{StagingArea, s3_settings, task};

/// Accepts a task and stores its record in the staging, as the API does before it queues the task.
async fn record(bench: &Bench, name: &str, output: &Output) {
    accept(bench, name, output).await;
    let v1 = ApiTask {
        client: CLIENT.into(),
        output: output.clone(),
    };
    let record = json!({"version": 1, "timestamp": 1, "v1": v1}).to_string();
    let staging = &bench.area.staging;
    staging.put_record(&task(name), record.as_bytes()).await.unwrap();
}

/// The result of a task whose processor ignored the field.
async fn staged(bench: &Bench, name: &str, task_message: Option<&str>) -> TaskResult {
    TaskResult {
        hook_url: None,
        task_message: task_message.map(str::to_owned),
        ..bench.staged(name).await
    }
}

#[tokio::test]
async fn a_result_without_its_field_is_recognized_by_the_record_and_then_by_the_outcome() {
    on_both(async |bench| {
        let output = output(AudioFormat::Flac, &[StemKind::Vocals]);
        // Of another implementation, and of an earlier version of ours.
        for (name, task_message) in [("t1", None), ("t2", Some("tasks/0@1"))] {
            record(bench, name, &output).await;
            let message = staged(bench, name, task_message).await;
            let finished = bench.uploader.work(&message, &context()).await.unwrap();
            bench.uploader.clean_up(&message, &finished).await;
            let stems = outcome(bench, name).await.unwrap().stems;
            // Both write WAV.
            assert_eq!(stems.len(), 1);
            assert_eq!(
                (&*stems[0].file, &*stems[0].content_type),
                ("vocals.wav", "audio/wav")
            );
            let before = bench.keys().await;
            assert!(before.iter().all(|key| key.starts_with("v1/")), "{before:?}");

            // The task is repeated after its record is deleted.
            let repeated = staged(bench, name, task_message).await;
            assert_eq!(
                bench.uploader.find_completed(&repeated).await.unwrap(),
                Some(DONE)
            );
            bench.uploader.work(&repeated, &context()).await.unwrap();
            bench.uploader.clean_up(&repeated, &DONE).await;
            assert_eq!(bench.keys().await, before);
            assert_eq!(bench.area.all_files().await, Vec::<String>::new());
        }
        assert!(bench.receiver.webhooks().is_empty());
    })
    .await;
}

/// A malformed task may lack the field that its API wrote.
#[tokio::test]
async fn a_failure_without_its_field_ends_the_task_that_was_recorded() {
    let bench = Bench::new(StagingArea::directories().await).await;
    record(&bench, "t1", &Output::default()).await;
    let message = TaskResult {
        hook_url: None,
        task_message: Some("tasks/0@1".into()),
        ..bench.failure("t1")
    };
    bench.uploader.work(&message, &context()).await.unwrap();
    let outcome = outcome(&bench, "t1").await.unwrap();
    assert_eq!(outcome.state, EndState::Failed);
    assert_eq!(outcome.error.unwrap().message, "not audio");
    assert_eq!(bench.manifest("t1").await, None);
}

#[tokio::test]
async fn a_task_without_a_record_is_not_held_by_credentials_that_do_not_include_v1() {
    let bench = Bench::new(StagingArea::directories().await).await;
    let s3 = scripted(|_| error(403, "AccessDenied")).await;
    let settings = s3_settings("bucket").await;
    let uploader = bench.uploader_with(TaskStore::new(s3, &settings).unwrap());
    let message = staged(&bench, "t1", None).await;
    assert_eq!(uploader.work(&message, &context()).await.unwrap(), DONE);
    assert_eq!(bench.object("t1_vocals.wav").await.as_deref(), Some("vocals 1"));
}
