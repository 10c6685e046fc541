//! The table of states, and the JSON of tasks.

use serde_json::{Value, json};

use super::super::super::status::TaskRecord;
use super::super::super::traits::QueueProgress;
use super::*;
use crate::kafka::Position;
use crate::task_store::{StoredInput, VERSION};

/// 2025-11-21T00:00:00Z.
const ACCEPTED: u64 = 1_763_683_200;
const STARTED: u64 = ACCEPTED + 10;
const NOW: u64 = STARTED + 100;
const ID: &str = "0b6f1ac8-52a1-4b0c-9d4c-1a4a2a0ad1cf";

const FILE: InputSource = InputSource::File;

fn link() -> InputSource {
    InputSource::Url("https://example.com/song.mp3".to_owned())
}

fn task(source: InputSource) -> StoredTask {
    StoredTask {
        version: VERSION,
        id: TaskId::parse(ID).expect("an id"),
        client: "acme".to_owned(),
        fingerprint: "0".repeat(64),
        created_at: ACCEPTED,
        input: StoredInput {
            source,
            file_name: None,
            duration_seconds: None,
        },
        output: Output::default(),
        webhook_url: None,
        metadata: BTreeMap::new(),
        traceparent: String::new(),
    }
}

fn outcome(state: EndState) -> StoredOutcome {
    StoredOutcome {
        version: VERSION,
        id: TaskId::parse(ID).expect("an id"),
        state,
        finished_at: NOW,
        started_at: Some(STARTED),
        stems: Vec::new(),
        error: None,
    }
}

/// A task at offset 10 whose processors have committed `committed`.
fn queued(committed: i64, begun: bool, percent: Option<u8>) -> TaskEvidence {
    let position = Position {
        partition: 3,
        offset: 10,
    };
    TaskEvidence {
        record: Some(TaskRecord::new(ACCEPTED, Some(position))),
        progress: Some(QueueProgress {
            committed: Some(committed),
            begun,
            start: begun.then_some(STARTED),
            percent,
        }),
        ..TaskEvidence::default()
    }
}

fn context(now: u64) -> ViewContext<'static> {
    ViewContext {
        now,
        stems_retention: None,
        public_url: None,
    }
}

fn view(
    task: &StoredTask,
    outcome: Option<&StoredOutcome>,
    evidence: &TaskEvidence,
    context: ViewContext<'_>,
) -> Option<Value> {
    let sources = TaskSources {
        task,
        outcome,
        webhook: None,
        evidence,
    };
    let view = TaskView::new(sources, context)?;
    Some(serde_json::from_slice(&view.to_json()).expect("JSON"))
}

/// Checks the fields that depend on the row of the table; all others must be absent.
#[track_caller]
#[allow(clippy::needless_pass_by_value, reason = "called with literals")]
fn check(source: InputSource, evidence: TaskEvidence, expected: Value) {
    let mut view = view(&task(source), None, &evidence, context(NOW)).expect("not erased");
    let fields = view.as_object_mut().expect("an object");
    for always in ["id", "created_at", "input", "output", "metadata"] {
        assert!(fields.remove(always).is_some(), "{always}");
    }
    assert_eq!(view, expected, "{evidence:?}");
}

#[test]
fn a_task_that_is_not_queued_yet_is_being_fetched_if_its_song_was_not_in_the_request() {
    let unplaced = || TaskEvidence {
        record: Some(TaskRecord::new(ACCEPTED, None)),
        ..TaskEvidence::default()
    };
    for source in [link(), InputSource::Upload] {
        let fetching = json!({"state": "queued", "stage": "fetching"});
        check(source.clone(), TaskEvidence::default(), fetching.clone());
        check(source, unplaced(), fetching);
    }
    check(FILE, TaskEvidence::default(), json!({"state": "queued"}));
    check(FILE, unplaced(), json!({"state": "queued"}));
}

#[test]
fn a_queued_task_has_the_number_of_tasks_before_it() {
    check(
        link(),
        queued(4, true, None),
        json!({"state": "queued", "queue_position": 6}),
    );
    check(
        link(),
        queued(10, false, None),
        json!({"state": "queued", "queue_position": 0}),
    );
    // The percentage is that of the task at the committed offset.
    check(
        link(),
        queued(9, true, Some(40)),
        json!({"state": "queued", "queue_position": 1}),
    );
}

#[test]
fn a_task_is_queued_while_the_committed_offset_is_unknown() {
    let mut unreadable = queued(0, false, None);
    unreadable.progress = None;
    check(FILE, unreadable, json!({"state": "queued"}));
    let mut never_committed = queued(0, false, None);
    never_committed.progress = Some(QueueProgress::default());
    check(link(), never_committed, json!({"state": "queued"}));
}

#[test]
fn a_running_task_is_fetched_then_separated_then_uploaded() {
    let started_at = "2025-11-21T00:00:10Z";
    check(
        FILE,
        queued(10, true, None),
        json!({"state": "running", "stage": "fetching", "started_at": started_at}),
    );
    let separating = |progress: Value| json!({"state": "running", "stage": "separating", "started_at": started_at, "progress": progress});
    for (percent, progress) in [
        (0, json!({"percent": 0})),
        (1, json!({"percent": 1})),
        (2, json!({"percent": 2, "eta_seconds": 4900})),
        (50, json!({"percent": 50, "eta_seconds": 100})),
        (100, json!({"percent": 100, "eta_seconds": 0})),
        (255, json!({"percent": 100, "eta_seconds": 0})),
    ] {
        check(link(), queued(10, true, Some(percent)), separating(progress));
    }
    let uploading = json!({"state": "running", "stage": "uploading"});
    check(link(), queued(11, true, Some(40)), uploading.clone());
    let separated = |evidence| TaskEvidence {
        separated: true,
        ..evidence
    };
    check(link(), separated(queued(10, true, Some(99))), uploading.clone());
    check(link(), separated(TaskEvidence::default()), uploading);
}

#[test]
fn without_a_start_time_no_remaining_time_is_estimated() {
    let mut evidence = queued(10, true, Some(50));
    let progress = evidence.progress.as_mut().expect("readable");
    progress.start = None;
    check(
        FILE,
        evidence,
        json!({"state": "running", "stage": "separating", "progress": {"percent": 50}}),
    );
}

#[test]
fn an_outcome_takes_precedence_over_the_queue() {
    let running = queued(10, true, Some(40));
    for (state, expected) in [
        (EndState::Succeeded, "succeeded"),
        (EndState::Failed, "failed"),
        (EndState::Cancelled, "cancelled"),
    ] {
        let view = view(&task(FILE), Some(&outcome(state)), &running, context(NOW)).expect("not erased");
        assert_eq!(view["state"], expected);
        assert_eq!(view["finished_at"], "2025-11-21T00:01:50Z");
        for absent in ["stage", "progress", "queue_position", "expires_at"] {
            assert_eq!(view[absent], Value::Null, "{absent}");
        }
    }
    let erased = outcome(EndState::Erased);
    assert_eq!(view(&task(FILE), Some(&erased), &running, context(NOW)), None);
}

/// A task with every field of a request, and its outcome.
fn complete() -> (StoredTask, StoredOutcome) {
    let task = StoredTask {
        input: StoredInput {
            source: link(),
            file_name: Some("song.mp3".to_owned()),
            duration_seconds: Some(243.5),
        },
        output: Output {
            stems: vec![StemKind::Vocals],
            ..Output::default()
        },
        webhook_url: Some("https://example.com/hook".to_owned()),
        metadata: [("order".to_owned(), "4711".to_owned())].into(),
        ..task(link())
    };
    let stem = StoredStem {
        name: StemKind::Vocals,
        file: "vocals.wav".to_owned(),
        content_type: "audio/wav".to_owned(),
        size_bytes: 42,
    };
    let outcome = StoredOutcome {
        stems: vec![stem],
        ..outcome(EndState::Succeeded)
    };
    (task, outcome)
}

#[test]
fn a_finished_task_has_its_links_and_its_webhook() {
    let (task, outcome) = complete();
    let report = WebhookReport {
        state: DeliveryState::Delivered,
        attempts: 2,
        last_attempt_at: Some(NOW + 5),
        status: Some(204),
    };
    let public_url = Url::parse("https://separation.example/").expect("a URL");
    let sources = TaskSources {
        task: &task,
        outcome: Some(&outcome),
        webhook: Some(&report),
        evidence: &TaskEvidence::default(),
    };
    let context = ViewContext {
        now: NOW + 60,
        stems_retention: Some(Duration::from_secs(24 * 3600)),
        public_url: Some(&public_url),
    };
    let view = TaskView::new(sources, context).expect("not erased");
    let expected = json!({
        "id": ID,
        "state": "succeeded",
        "created_at": "2025-11-21T00:00:00Z",
        "started_at": "2025-11-21T00:00:10Z",
        "finished_at": "2025-11-21T00:01:50Z",
        "expires_at": "2025-11-22T00:01:50Z",
        "input": {"file_name": "song.mp3", "duration_seconds": 243.5},
        "output": {"format": "wav", "bit_depth": 16, "stems": ["vocals"]},
        "stems": [{
            "name": "vocals",
            "url": format!("https://separation.example/v1/tasks/{ID}/stems/vocals"),
            "content_type": "audio/wav",
            "size_bytes": 42
        }],
        "webhook": {"state": "delivered", "attempts": 2, "last_attempt_at": "2025-11-21T00:01:55Z"},
        "metadata": {"order": "4711"}
    });
    assert_eq!(serde_json::to_value(&view).expect("JSON"), expected);
}

#[test]
fn links_are_removed_when_the_stems_expire() {
    let (task, outcome) = complete();
    let at = |now| ViewContext {
        stems_retention: Some(Duration::from_secs(60)),
        ..context(now)
    };
    let shown = |now| view(&task, Some(&outcome), &TaskEvidence::default(), at(now)).expect("not erased");
    let before = shown(NOW + 59);
    assert_eq!(before["stems"][0]["url"], format!("/v1/tasks/{ID}/stems/vocals"));
    let after = shown(NOW + 60);
    assert_eq!(after["state"], "succeeded");
    assert_eq!(after["stems"], Value::Null);
    assert_eq!(after["expires_at"], before["expires_at"]);
    assert!(at(NOW + 59).has_stems(&outcome) && !at(NOW + 60).has_stems(&outcome));
    assert!(context(u64::MAX).has_stems(&outcome));
}

#[test]
fn a_failed_task_has_its_reason_and_a_webhook_that_is_pending() {
    let (task, outcome) = complete();
    let outcome = StoredOutcome {
        state: EndState::Failed,
        stems: Vec::new(),
        error: Some(StoredError {
            code: FailureCode::InputUnreadable,
            message: "cannot read /shared/temp/song.wav: not audio".to_owned(),
        }),
        ..outcome
    };
    let view = view(&task, Some(&outcome), &TaskEvidence::default(), context(NOW)).expect("not erased");
    assert_eq!(
        view["error"],
        json!({"code": "input_unreadable", "message": "the file is not audio, or is damaged"})
    );
    assert_eq!(view["webhook"], json!({"state": "pending", "attempts": 0}));
}

#[test]
fn an_unchanged_task_is_not_sent_again() {
    let response = |committed, if_none_match: &[&'static str]| {
        let sources = TaskSources {
            task: &task(FILE),
            outcome: None,
            webhook: None,
            evidence: &queued(committed, true, None),
        };
        let view = TaskView::new(sources, context(NOW)).expect("not erased");
        let mut request = HeaderMap::new();
        for value in if_none_match {
            request.append(header::IF_NONE_MATCH, HeaderValue::from_static(value));
        }
        view.response_if_changed(&request)
    };
    let first = response(4, &[]);
    assert_eq!(first.status(), StatusCode::OK);
    let etag = first.headers()[header::ETAG].to_str().expect("ASCII").to_owned();
    assert_eq!(etag.len(), 34);
    assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");

    let etag: &'static str = etag.leak();
    let weak: &'static str = format!("W/{etag}").leak();
    let list: &'static str = format!("\"a\", {etag}").leak();
    let matching: [&[&'static str]; 5] = [&[etag], &[weak], &[list], &["*"], &["\"a\"", etag]];
    for matching in matching {
        let response = response(4, matching);
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{matching:?}");
        assert_eq!(response.headers()[header::ETAG], etag);
    }
    for other in ["\"a\"", "a", "", &etag[1..33]] {
        assert_eq!(response(4, &[other]).status(), StatusCode::OK, "{other}");
    }
    let changed = response(5, &[etag]);
    assert_eq!(changed.status(), StatusCode::OK, "the task moved up in the queue");
}
