//! Results of tasks of the HTTP API v1.

use std::collections::BTreeMap;
use std::path::Path;

use separation_contract::api_task::{ApiTask, AudioFormat, FailureCode, Output, StemKind};
use separation_contract::message::{Outcome, TaskId, TaskResult};
use separation_worker::audio::{
    FlacSamples, Mp3Bitrate, OutputFormat, SourceOptions, StereoBlock, StereoSource as _, WavSamples, create,
    open_bytes,
};
use separation_worker::error::ErrorClass;
use separation_worker::storage::{AttemptId, Staging};
use separation_worker::task_store::{
    EndState, InputSource, StoredInput, StoredOutcome, StoredStem, StoredTask, TaskStore, VERSION,
};
use separation_worker::telemetry::TraceContext;
use separation_worker::work::{FailureReport, Role as _};
use serde_json::Value;

use super::bench::{Bench, context, context_confirmed, context_with};
use super::{DONE, on_both};
use crate::storage::staging_area::{StagingArea, task};

pub(super) const CLIENT: &str = "acme";

/// Later than any webhook that a test schedules.
const LATER: u64 = 4_000_000_000;

pub(super) fn output(format: AudioFormat, stems: &[StemKind]) -> Output {
    Output {
        format,
        stems: stems.to_vec(),
        ..Output::default()
    }
}

/// Stores the record of a task with a webhook, as the API does before it queues the task.
pub(super) async fn accept(bench: &Bench, name: &str, output: &Output) {
    let record = StoredTask {
        version: VERSION,
        id: task(name),
        client: CLIENT.into(),
        fingerprint: "f".into(),
        created_at: 1,
        input: StoredInput {
            source: InputSource::File,
            file_name: None,
            duration_seconds: None,
        },
        output: output.clone(),
        webhook_url: Some("https://hooks.example/done".into()),
        metadata: BTreeMap::new(),
        traceparent: TraceContext::start().to_string(),
    };
    bench.tasks.create_task(&record).await.unwrap();
    bench.tasks.put_open(CLIENT, &task(name)).await.unwrap();
}

/// The result as our processor publishes it for a task of v1.
fn of_v1(message: TaskResult, output: &Output) -> TaskResult {
    TaskResult {
        hook_url: None,
        task_message: Some("tasks/0@1".into()),
        started_at: Some(7),
        v1: Some(ApiTask {
            client: CLIENT.into(),
            output: output.clone(),
        }),
        ..message
    }
}

/// Accepts a task, stages its stems and returns its result.
async fn staged(bench: &Bench, name: &str, output: &Output) -> TaskResult {
    accept(bench, name, output).await;
    of_v1(bench.staged(name).await, output)
}

pub(super) async fn outcome(bench: &Bench, name: &str) -> Option<StoredOutcome> {
    bench.tasks.outcome(&task(name)).await.unwrap()
}

async fn state(bench: &Bench, name: &str) -> Option<EndState> {
    outcome(bench, name).await.map(|outcome| outcome.state)
}

/// Object keys of a task below the area of v1.
async fn keys_of(bench: &Bench, name: &str) -> Vec<String> {
    let keys = bench.keys().await;
    let below = keys.iter().filter_map(|key| key.strip_prefix("v1/"));
    let mut keys: Vec<String> = below
        .filter(|key| key.contains(name))
        .map(str::to_owned)
        .collect();
    keys.sort();
    keys
}

/// Ends a task as the API does when its client cancels or erases it.
async fn end(tasks: &TaskStore, staging: &Staging, id: &TaskId, state: EndState) {
    if state == EndState::Erased {
        tasks.erase(CLIENT, id, 2).await.unwrap();
        return staging.remove(id).await.unwrap();
    }
    let outcome = StoredOutcome {
        version: VERSION,
        id: id.clone(),
        state,
        finished_at: 2,
        started_at: None,
        stems: Vec::new(),
        error: None,
    };
    tasks.create_outcome(&outcome).await.unwrap();
}

#[tokio::test]
async fn a_v1_task_ends_with_the_requested_stems_in_its_area_and_nothing_public() {
    on_both(async |bench| {
        let output = output(AudioFormat::Flac, &[StemKind::Instrumental]);
        let message = staged(bench, "t1", &output).await;
        assert_eq!(bench.uploader.find_completed(&message).await.unwrap(), None);
        let finished = bench.uploader.work(&message, &context()).await.unwrap();
        assert_eq!(finished, DONE);

        let outcome = outcome(bench, "t1").await.unwrap();
        assert_eq!(
            (outcome.state, outcome.started_at),
            (EndState::Succeeded, Some(7))
        );
        let instrumental = StoredStem {
            name: StemKind::Instrumental,
            file: "instrumental.flac".into(),
            content_type: "audio/flac".into(),
            size_bytes: "instrumental 1".len() as u64,
        };
        assert_eq!(outcome.stems, [instrumental]);
        let stem = "v1/stems/t1/instrumental.flac";
        assert_eq!(bench.object(stem).await.as_deref(), Some("instrumental 1"));
        assert_eq!(bench.content_type(stem).await.as_deref(), Some("audio/flac"));
        let deliveries = bench.tasks.due_deliveries(LATER, 10).await.unwrap();
        let [(due, delivery)] = &deliveries[..] else {
            panic!("{deliveries:?}");
        };
        assert_eq!(
            (&*delivery.url, delivery.attempts),
            ("https://hooks.example/done", 0)
        );
        let expected = [
            format!("deliveries/{due:010}-t1.json"),
            "outcomes/t1.json".to_owned(),
            "stems/t1/instrumental.flac".to_owned(),
            "tasks/acme/t1.json".to_owned(),
        ];
        assert_eq!(keys_of(bench, "t1").await, expected);
        assert_eq!(
            bench.keys().await.len(),
            expected.len(),
            "nothing outside the area"
        );
        assert!(bench.receiver.webhooks().is_empty());

        assert_eq!(bench.uploader.find_completed(&message).await.unwrap(), Some(DONE));
        bench.uploader.clean_up(&message, &finished).await;
        assert_eq!(bench.area.all_files().await, Vec::<String>::new());
        bench.uploader.work(&message, &context()).await.unwrap();
        assert_eq!(
            keys_of(bench, "t1").await,
            expected,
            "a repeated message does nothing"
        );
    })
    .await;
}

/// A song of 6.3 s: a tone at half of full scale, then silence.
fn tone_then_silence() -> StereoBlock {
    let frames = 277_777;
    let tone = |n: usize| 0.5 * (std::f32::consts::TAU * 441.0 * (n as f32 / 44_100.0).fract()).sin();
    let left: Vec<f32> = (0..frames)
        .map(|n| if n < frames / 2 { tone(n) } else { 0.0 })
        .collect();
    StereoBlock {
        right: left.clone(),
        left,
    }
}

fn write_song(path: &Path, format: OutputFormat, song: &StereoBlock) {
    let mut sink = create(path, format).unwrap();
    sink.write(song).unwrap();
    sink.finish().unwrap().publish().unwrap();
}

/// Length of a file in seconds, its sample rate and channels.
fn read_song(bytes: Vec<u8>) -> (f64, u32, usize) {
    let mut source = open_bytes(bytes, &SourceOptions::default()).unwrap();
    let mut block = StereoBlock::default();
    loop {
        source.read(&mut block).unwrap();
        if block.is_empty() {
            let seconds = source.report().frames as f64 / 44_100.0;
            return (seconds, source.info().rate_hz, source.info().channels);
        }
    }
}

async fn check_previews(bench: &Bench, format: AudioFormat, encoding: OutputFormat) {
    let name = format!("t-{}", format.extension());
    let output = output(format, &StemKind::ALL);
    accept(bench, &name, &output).await;
    let [vocals, instrumental] = StemKind::ALL.map(|stem| bench.area.scratch.path().join(stem.as_str()));
    let song = tone_then_silence();
    let short = StereoBlock {
        left: song.left[..100_000].to_vec(),
        right: song.right[..100_000].to_vec(),
    };
    write_song(&vocals, encoding, &song);
    write_song(&instrumental, encoding, &short);
    let stored = bench
        .area
        .store_files(&name, AttemptId::new(), &vocals, &instrumental)
        .await
        .unwrap();
    bench.area.staging.publish_manifest(&stored).await.unwrap();
    let manifest = stored.manifest();
    let message = bench.success(&name, &manifest.vocals.path, &manifest.instrumental.path);
    let message = of_v1(message, &output);
    bench.uploader.work(&message, &context()).await.unwrap();

    let object = |file: &str| format!("v1/stems/{name}/{file}");
    let peaks: Value = serde_json::from_slice(&bench.bytes(&object("peaks.json")).await.unwrap()).unwrap();
    for (stem, seconds) in [
        ("vocals", 277_777.0 / 44_100.0),
        ("instrumental", 100_000.0 / 44_100.0),
    ] {
        let file = object(&format!("{stem}.{}", format.extension()));
        let (stem_seconds, ..) = read_song(bench.bytes(&file).await.unwrap());
        assert!((stem_seconds - seconds).abs() < 0.05, "{file}: {stem_seconds} s");
        let preview = object(&format!("preview_{stem}.flac"));
        assert_eq!(bench.content_type(&preview).await.as_deref(), Some("audio/flac"));
        let (preview_seconds, rate_hz, channels) = read_song(bench.bytes(&preview).await.unwrap());
        assert!(
            (preview_seconds - stem_seconds).abs() < 0.05,
            "{preview}: {preview_seconds} s"
        );
        assert_eq!((rate_hz, channels), (22_050, 1));
        let drawn: Vec<f64> = peaks["peaks"][stem]
            .as_array()
            .unwrap()
            .iter()
            .map(|peak| peak.as_f64().unwrap())
            .collect();
        assert_eq!(drawn.len(), 1_000);
        assert!(
            drawn[10..480].iter().all(|peak| (0.45..0.55).contains(peak)),
            "{drawn:?}"
        );
        let is_silent = drawn[520..].iter().all(|peak| *peak < 0.05);
        assert_eq!(is_silent, stem == "vocals", "{stem}: {drawn:?}");
    }
    let duration = peaks["duration_seconds"].as_f64().unwrap();
    assert!((duration - 277_777.0 / 44_100.0).abs() < 0.05, "{duration}");
    assert_eq!(outcome(bench, &name).await.unwrap().stems.len(), 2);
}

#[tokio::test]
async fn previews_have_the_length_of_their_stems_and_peaks_their_outline() {
    on_both(async |bench| {
        check_previews(bench, AudioFormat::Wav, OutputFormat::Wav(WavSamples::Int16)).await;
        check_previews(bench, AudioFormat::Flac, OutputFormat::Flac(FlacSamples::Int24)).await;
        check_previews(bench, AudioFormat::Mp3, OutputFormat::Mp3(Mp3Bitrate::Variable)).await;
    })
    .await;
}

#[tokio::test]
async fn a_task_that_is_canceled_or_erased_meanwhile_keeps_no_stems() {
    let bench = Bench::new(StagingArea::objects().await).await;
    let output = Output::default();
    // The ownership is confirmed before each of: vocals, instrumental, webhook, outcome.
    for (confirmation, ended) in (0..4).flat_map(|number| {
        let states = [EndState::Cancelled, EndState::Erased];
        states.map(|state| (number, state))
    }) {
        let name = format!("t{confirmation}-{}", ended == EndState::Erased);
        let message = staged(&bench, &name, &output).await;
        let (tasks, staging, id) = (bench.tasks.clone(), bench.area.staging.clone(), task(&name));
        let context = context_with(move |earlier| {
            let (tasks, staging, id) = (tasks.clone(), staging.clone(), id.clone());
            async move {
                if earlier == confirmation {
                    end(&tasks, &staging, &id, ended).await;
                }
                true
            }
        });
        let finished = bench.uploader.work(&message, &context).await.unwrap();
        assert_eq!(finished, DONE);
        bench.uploader.clean_up(&message, &finished).await;
        assert_eq!(state(&bench, &name).await, Some(ended));
        assert_eq!(bench.area.all_files().await, Vec::<String>::new());
        let mut keys = keys_of(&bench, &name).await;
        let expected = match ended {
            EndState::Erased => [format!("erased/acme/{name}"), format!("outcomes/{name}.json")],
            _ => {
                // The webhook reports whatever the outcome is.
                keys.retain(|key| !key.starts_with("deliveries/"));
                [format!("outcomes/{name}.json"), format!("tasks/acme/{name}.json")]
            }
        };
        assert_eq!(keys, expected, "{name}");
    }
}

#[tokio::test]
async fn a_result_of_a_task_that_ended_before_stores_nothing() {
    let bench = Bench::new(StagingArea::directories().await).await;
    let output = Output::default();
    for ended in [EndState::Cancelled, EndState::Erased] {
        let name = format!("{ended:?}");
        let message = staged(&bench, &name, &output).await;
        end(&bench.tasks, &bench.area.staging, &task(&name), ended).await;
        let mut expected = keys_of(&bench, &name).await;
        expected.retain(|key| !key.starts_with("open/"));
        assert_eq!(bench.uploader.find_completed(&message).await.unwrap(), None);
        let finished = bench.uploader.work(&message, &context()).await.unwrap();
        bench.uploader.clean_up(&message, &finished).await;
        assert_eq!(keys_of(&bench, &name).await, expected);
        assert_eq!(bench.area.all_files().await, Vec::<String>::new());
    }
    // Erased so long ago that its tombstone is removed.
    let message = of_v1(bench.staged("t1").await, &output);
    let finished = bench.uploader.work(&message, &context()).await.unwrap();
    bench.uploader.clean_up(&message, &finished).await;
    assert_eq!(keys_of(&bench, "t1").await, Vec::<String>::new());
    assert_eq!(bench.area.all_files().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_worker_that_lost_a_v1_task_leaves_it_to_the_next_which_ends_it() {
    on_both(async |bench| {
        let output = Output::default();
        for confirmations in 0..4 {
            let name = format!("t{confirmations}");
            let message = staged(bench, &name, &output).await;
            let lost = bench
                .uploader
                .work(&message, &context_confirmed(confirmations))
                .await
                .unwrap_err();
            assert_eq!(lost.class(), ErrorClass::Interrupted);
            let stems = keys_of(bench, &name).await;
            let stems = stems.iter().filter(|key| key.starts_with("stems/")).count();
            assert_eq!(stems, confirmations.min(2));
            assert_eq!(outcome(bench, &name).await, None);
            assert_eq!(bench.tasks.count_open(CLIENT, 10).await.unwrap(), 1);

            assert_eq!(bench.uploader.work(&message, &context()).await.unwrap(), DONE);
            assert_eq!(state(bench, &name).await, Some(EndState::Succeeded));
            assert_eq!(bench.tasks.count_open(CLIENT, 10).await.unwrap(), 0);
            for stem in ["vocals", "instrumental"] {
                let object = bench.object(&format!("v1/stems/{name}/{stem}.wav")).await;
                assert_eq!(object, Some(format!("{stem} 1")));
            }
            let deliveries = bench.tasks.due_deliveries(LATER, 100).await.unwrap();
            assert!(deliveries.iter().any(|(_, delivery)| delivery.id == task(&name)));
        }
    })
    .await;
}

#[tokio::test]
async fn a_task_whose_outcome_was_stored_by_a_killed_worker_is_closed_by_the_next() {
    let bench = Bench::new(StagingArea::directories().await).await;
    let message = staged(&bench, "t1", &Output::default()).await;
    bench.uploader.work(&message, &context()).await.unwrap();
    // As if the worker was killed before it closed the task.
    bench.tasks.put_open(CLIENT, &task("t1")).await.unwrap();
    assert_eq!(bench.uploader.find_completed(&message).await.unwrap(), Some(DONE));
    assert_eq!(bench.tasks.count_open(CLIENT, 10).await.unwrap(), 0);
}

#[tokio::test]
async fn a_failure_ends_its_task_with_the_code_of_the_reason() {
    let bench = Bench::new(StagingArea::directories().await).await;
    let output = Output::default();
    for (name, code, expected) in [
        (
            "t1",
            Some(FailureCode::InputUnreadable),
            FailureCode::InputUnreadable,
        ),
        ("t2", None, FailureCode::Internal),
    ] {
        accept(&bench, name, &output).await;
        let mut message = of_v1(bench.failure(name), &output);
        if let Outcome::Failure { error_code, .. } = &mut message.outcome {
            *error_code = code;
        }
        let finished = bench.uploader.work(&message, &context()).await.unwrap();
        assert!(!finished.success);
        let outcome = outcome(&bench, name).await.unwrap();
        assert_eq!((outcome.state, outcome.started_at), (EndState::Failed, Some(7)));
        let error = outcome.error.unwrap();
        assert_eq!((error.code, &*error.message), (expected, "not audio"));
        assert_eq!(bench.tasks.count_open(CLIENT, 10).await.unwrap(), 0);
    }
    let deliveries = bench.tasks.due_deliveries(LATER, 10).await.unwrap();
    assert_eq!(deliveries.len(), 2);
    assert!(bench.receiver.webhooks().is_empty());

    // The first outcome decides.
    let late = of_v1(bench.staged("t1").await, &output);
    assert!(!bench.uploader.work(&late, &context()).await.unwrap().success);
    assert_eq!(state(&bench, "t1").await, Some(EndState::Failed));
    assert_eq!(
        keys_of(&bench, "t1")
            .await
            .iter()
            .filter(|key| key.starts_with("stems/"))
            .count(),
        0
    );
}

#[tokio::test]
async fn a_refused_v1_result_fails_its_task_unless_that_has_succeeded() {
    let bench = Bench::new(StagingArea::directories().await).await;
    let output = Output::default();
    for (name, confirmations, expected) in [("t1", 1, EndState::Failed), ("t2", 4, EndState::Succeeded)] {
        let message = staged(&bench, name, &output).await;
        let worked = bench
            .uploader
            .work(&message, &context_confirmed(confirmations))
            .await;
        assert_eq!(worked.is_ok(), expected == EndState::Succeeded);
        let id = task(name);
        let failure = FailureReport {
            task_uuid: &id,
            hook_url: None,
            v1: message.v1.as_ref(),
            reason: "the task crashed its worker 3 times",
            code: FailureCode::WorkerCrashed,
            message: "results/0@1",
        };
        for _ in 0..2 {
            let finished = bench.uploader.report_failure(failure, &context()).await.unwrap();
            assert_eq!(finished.success, expected == EndState::Succeeded);
            bench.uploader.clean_up(&message, &finished).await;
        }
        let outcome = outcome(&bench, name).await.unwrap();
        assert_eq!(outcome.state, expected);
        let code = outcome.error.map(|error| error.code);
        let stems = keys_of(&bench, name).await;
        let stems = stems.iter().filter(|key| key.starts_with("stems/")).count();
        match expected {
            EndState::Failed => assert_eq!((code, stems), (Some(FailureCode::WorkerCrashed), 0)),
            _ => assert_eq!((code, stems), (None, 2)),
        }
        // Without its staged stems, a refused result could not be replayed.
        let kept = bench.area.all_files().await.len();
        assert_eq!(kept, 3, "those of t1");
    }
}
