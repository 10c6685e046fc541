//! Messages of uvr5-api, our own, and malformed ones.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api_task::{AudioFormat, Output, StemKind};

fn task(json: &Value) -> Result<Task, Malformed> {
    Task::parse(Some(json.to_string().as_bytes()))
}

#[test]
fn a_task_of_uvr5_api_is_parsed() {
    let read = task(&json!({
        "task_uuid": "0b6f1ac8-52a1-4b0c-9d4c-1a4a2a0ad1cf",
        "audio_path": "/app/temp/0b6f_input.wav",
        "hook_url": "https://example.com/hook",
        "timestamp": 1_763_683_200,
    }));
    let read = read.expect("a message of uvr5-api");
    assert_eq!(read.task_uuid.as_str(), "0b6f1ac8-52a1-4b0c-9d4c-1a4a2a0ad1cf");
    assert_eq!(read.hook_url.as_deref(), Some("https://example.com/hook"));
    assert_eq!(read.retry_count, 0);
    assert_eq!(read.timestamp(), Some(1_763_683_200.0));
}

#[test]
fn a_requeued_message_keeps_unknown_fields_and_counts_retries() {
    let value = br#"{"task_uuid": "a", "audio_path": "/x", "hook_url": "http://h", "tenant": {"id": 7}}"#;
    let (first, once) = requeue_value(value).expect("an object");
    let (second, twice) = requeue_value(once.as_bytes()).expect("an object");
    assert_eq!((first, second), (1, 2));
    let read: Value = serde_json::from_str(&twice).expect("we write JSON");
    assert_eq!(read["tenant"]["id"], 7);
    let task = Task::parse(Some(twice.as_bytes())).expect("still a task");
    assert_eq!(task.retry_count, 2);
    assert_eq!(requeue_value(b"[]"), None);
}

fn api_task() -> ApiTask {
    ApiTask {
        client: "acme".into(),
        output: Output {
            format: AudioFormat::Flac,
            bit_depth: Some(24),
            stems: vec![StemKind::Vocals],
        },
    }
}

#[test]
fn a_task_of_the_api_keeps_its_client_and_output_when_it_is_requeued() {
    let id = TaskId::parse("abc").expect("a name");
    let posted = Task::new(id, "/x".into(), None, 9).with_v1(api_task());
    let (_, requeued) = requeue_value(posted.to_json().as_bytes()).expect("an object");
    let read = Task::parse(Some(requeued.as_bytes())).expect("a task");
    assert_eq!((read.retry_count, read.v1), (1, Some(api_task())));
}

#[test]
fn a_result_keeps_its_error_code_and_output_when_it_is_requeued() {
    let id = TaskId::parse("abc").expect("a name");
    let failure = TaskResult {
        v1: Some(api_task()),
        ..TaskResult::failure(id, None, "no").with_error_code(FailureCode::InputTooLong)
    };
    let (_, requeued) = requeue_value(failure.to_json().as_bytes()).expect("an object");
    assert_eq!(TaskResult::parse(Some(requeued.as_bytes())), Ok(failure));
}

#[test]
fn an_output_that_cannot_be_parsed_counts_as_absent() {
    for v1 in [
        json!("flac"),
        json!(null),
        json!({"client": "a", "output": {"format": "opus", "stems": []}}),
    ] {
        let read = task(&json!({"task_uuid": "a", "audio_path": "/x", "v1": v1})).expect("a task");
        assert_eq!(read.v1, None);
    }
}

#[test]
fn an_unknown_error_code_is_internal_and_one_of_another_type_counts_as_absent() {
    for (written, expected) in [
        (json!("of a later version"), Some(FailureCode::Internal)),
        (json!("timed_out"), Some(FailureCode::TimedOut)),
        (json!(7), None),
    ] {
        let result =
            json!({"task_uuid": "a", "success": false, "error_message": "no", "error_code": written});
        let read = TaskResult::parse(Some(result.to_string().as_bytes())).expect("a result");
        let error_message = "no".into();
        assert_eq!(
            read.outcome,
            Outcome::Failure {
                error_message,
                error_code: expected
            }
        );
    }
}

#[test]
fn results_are_parsed_as_they_are_written() {
    let id = TaskId::parse("abc").expect("a name");
    let success = TaskResult {
        task_uuid: id.clone(),
        hook_url: Some("http://h".into()),
        outcome: Outcome::Success {
            vocals_path: "/o/abc_vocals.wav".into(),
            instrumental_path: "s3://b/abc_instrumental.wav".into(),
        },
        task_message: Some("uvr_tasks/3@17".into()),
        started_at: Some(1_763_683_200),
        v1: Some(api_task()),
    };
    let failure = TaskResult::failure(id, None, "no such file");
    let with_code = failure.clone().with_error_code(FailureCode::InputMissing);
    for result in [success, failure, with_code] {
        assert_eq!(TaskResult::parse(Some(result.to_json().as_bytes())), Ok(result));
    }
}

#[test]
fn an_error_text_is_cut_between_characters() {
    let id = TaskId::parse("abc").expect("a name");
    let result = TaskResult::failure(id, None, &"é".repeat(5_000));
    let Outcome::Failure { error_message, .. } = result.outcome else {
        panic!("a failure stays one");
    };
    assert_eq!(error_message.len(), 2_000);
}

#[test]
fn task_ids_that_could_form_another_path_are_refused() {
    let long = "a".repeat(129);
    for name in [
        "",
        "../etc",
        "a/b",
        "..",
        ".hidden",
        "-rf",
        "a\0",
        "a b",
        "ä",
        long.as_str(),
    ] {
        assert!(TaskId::parse(name).is_err(), "{name:?}");
    }
    assert!(TaskId::parse("A-1_b.c").is_ok());
}

#[track_caller]
fn check_malformed(value: &[u8], expected: &str, task_known: bool) {
    let refused = Task::parse(Some(value)).expect_err("no task");
    assert!(refused.error.to_string().contains(expected), "{}", refused.error);
    assert_eq!(refused.known.is_some(), task_known);
}

#[test]
fn a_malformed_task_gives_the_reason() {
    check_malformed(b"", "empty", false);
    check_malformed(b"{", "not JSON", false);
    check_malformed(b"\xff\xfe", "not JSON", false);
    check_malformed(b"[1]", "not a JSON object", false);
    check_malformed(&vec![b' '; 10_000_000], "10000000 bytes", false);
    check_malformed(br#"{"audio_path": "/x"}"#, "`task_uuid` is missing", false);
    check_malformed(br#"{"task_uuid": 7}"#, "`task_uuid` is not a string", false);
    check_malformed(
        br#"{"task_uuid": "../x", "audio_path": "/x"}"#,
        "may only have letters",
        false,
    );
    check_malformed(
        br#"{"task_uuid": "a", "hook_url": "http://h"}"#,
        "`audio_path` is missing",
        true,
    );
    check_malformed(
        br#"{"task_uuid": "a", "audio_path": 1}"#,
        "`audio_path` is not a string",
        true,
    );
    check_malformed(
        br#"{"task_uuid": "a", "audio_path": "/x", "hook_url": []}"#,
        "`hook_url` is not",
        true,
    );
    check_malformed(
        br#"{"task_uuid": "a", "audio_path": "/x", "retry_count": -1}"#,
        "`retry_count`",
        true,
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_the_parsers(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Task::parse(Some(&bytes));
        let _ = TaskResult::parse(Some(&bytes));
    }

    #[test]
    fn a_valid_task_id_is_one_path_component(text in "\\PC{0,140}") {
        if let Ok(id) = TaskId::parse(&text) {
            let path = std::path::Path::new(id.as_str());
            prop_assert_eq!(path.components().count(), 1);
            prop_assert!(matches!(path.components().next(), Some(std::path::Component::Normal(_))));
        }
    }
}
