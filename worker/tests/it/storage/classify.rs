//! An input that cannot be read: the task fails if the input is at fault, and is on hold if the store is.

use separation_worker::error::ErrorClass;
use separation_worker::storage::{Staging, StorageError};

use super::faults::{error, scripted};
use super::staging_area::settings;

/// Status and error code of the responses for an input in the worker's own bucket, an input in a foreign bucket, and
/// any other object in the own bucket.
struct Responses {
    own: (u16, &'static str),
    foreign: (u16, &'static str),
    other: (u16, &'static str),
}

const MISSING: (u16, &str) = (404, "NoSuchKey");

/// Checks the outcomes of looking up the input in the own bucket and the one in the foreign bucket.
async fn check(answers: Responses, own: &str, foreign: &str) {
    let s3 = scripted(move |path| {
        let (status, code) = match path {
            "/own/staging/inputs/t1_input.wav" => answers.own,
            "/foreign/song.wav" => answers.foreign,
            _ => answers.other,
        };
        error(status, code)
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), Some("s3://own/staging/"), &["own", "foreign"]);
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
async fn a_missing_input_fails_the_task() {
    let answers = Responses {
        own: MISSING,
        foreign: MISSING,
        other: MISSING,
    };
    check(answers, "missing", "missing").await;
}

#[tokio::test]
async fn an_input_that_is_refused_while_others_are_read_fails_the_task() {
    let answers = Responses {
        own: (403, "AccessDenied"),
        foreign: (403, "AccessDenied"),
        other: MISSING,
    };
    check(answers, "refused", "refused").await;
    let answers = Responses {
        own: MISSING,
        foreign: (404, "NoSuchBucket"),
        other: MISSING,
    };
    check(answers, "missing", "refused").await;
}

#[tokio::test]
async fn an_input_that_fails_while_others_are_read_is_retried_within_limits() {
    let answers = Responses {
        own: (500, "InternalError"),
        foreign: (500, "InternalError"),
        other: MISSING,
    };
    check(answers, "tried again", "tried again").await;
}

#[tokio::test]
async fn a_store_that_refuses_everything_puts_the_task_on_hold() {
    for refusal in [
        (403, "SignatureDoesNotMatch"),
        (403, "AccessDenied"),
        (403, "RequestTimeTooSkewed"),
        (404, "NoSuchBucket"),
        (301, "PermanentRedirect"),
        (503, "SlowDown"),
    ] {
        let answers = Responses {
            own: refusal,
            foreign: refusal,
            other: refusal,
        };
        check(answers, "held", "held").await;
    }
}
