//! An input that cannot be read: whose fault that is decides whether its task fails or waits.

use separation_worker::error::ErrorClass;
use separation_worker::settings::{DeleteInput, StagingSettings};
use separation_worker::storage::{Staging, StorageError};

use super::faults::{error, scripted};

/// Status and code of the answers for an input in the worker's own bucket, one in a foreign bucket, and any other object
/// in the worker's own.
struct Answers {
    own: (u16, &'static str),
    foreign: (u16, &'static str),
    other: (u16, &'static str),
}

const MISSING: (u16, &str) = (404, "NoSuchKey");

/// How looking up an input fails: the own one, and the foreign one.
async fn check(answers: Answers, own: &str, foreign: &str) {
    let s3 = scripted(move |path| {
        let (status, code) = match path {
            "/own/staging/inputs/t1_input.wav" => answers.own,
            "/foreign/song.wav" => answers.foreign,
            _ => answers.other,
        };
        error(status, code)
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let settings = StagingSettings {
        temp_dir: folder.path().join("temp"),
        output_dir: folder.path().join("output"),
        s3_staging: Some("s3://own/staging/".parse().unwrap()),
        input_buckets: vec!["own".into(), "foreign".into()],
        delete_input: DeleteInput::Never,
    };
    let staging = Staging::open(&settings, Some(s3)).await.unwrap();
    let found = async |path: &str| match staging.input(path).await {
        Ok(Some(_)) => "there",
        Ok(None) => "missing",
        Err(StorageError::Refused { .. }) => "refused",
        Err(error) => match error.class() {
            ErrorClass::Dependency => "held",
            ErrorClass::Transient => "tried again",
            _ => "failed",
        },
    };
    assert_eq!(found("s3://own/staging/inputs/t1_input.wav").await, own);
    assert_eq!(found("s3://foreign/song.wav").await, foreign);
}

#[tokio::test]
async fn an_input_that_is_missing_is_the_tasks_fault() {
    let answers = Answers {
        own: MISSING,
        foreign: MISSING,
        other: MISSING,
    };
    check(answers, "missing", "missing").await;
}

#[tokio::test]
async fn an_input_that_is_refused_while_others_are_read_is_the_tasks_fault() {
    let answers = Answers {
        own: (403, "AccessDenied"),
        foreign: (403, "AccessDenied"),
        other: MISSING,
    };
    check(answers, "refused", "refused").await;
    let answers = Answers {
        own: MISSING,
        foreign: (404, "NoSuchBucket"),
        other: MISSING,
    };
    check(answers, "missing", "refused").await;
}

#[tokio::test]
async fn an_input_that_fails_while_others_are_read_is_not_tried_without_end() {
    let answers = Answers {
        own: (500, "InternalError"),
        foreign: (500, "InternalError"),
        other: MISSING,
    };
    check(answers, "tried again", "tried again").await;
}

#[tokio::test]
async fn a_store_that_refuses_everything_is_no_fault_of_a_task() {
    for refusal in [
        (403, "SignatureDoesNotMatch"),
        (403, "AccessDenied"),
        (403, "RequestTimeTooSkewed"),
        (404, "NoSuchBucket"),
        (301, "PermanentRedirect"),
        (503, "SlowDown"),
    ] {
        let answers = Answers {
            own: refusal,
            foreign: refusal,
            other: refusal,
        };
        check(answers, "held", "held").await;
    }
}
