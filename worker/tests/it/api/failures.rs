//! Failed requests return the reason, and leave nothing behind.

use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::{Method, header};
use separation_worker::error::ErrorClass;
use serde_json::json;

use super::SONG;
use super::bench::{Answer, Bench, Form, Songs, eventually};

/// Waits until no file of any song is left, and checks that no task is queued.
async fn check_nothing_left(api: &Bench) {
    eventually("all files are removed", || api.files.is_empty()).await;
    assert!(api.tasks().is_empty());
}

#[tokio::test]
async fn an_invalid_request_is_refused_before_any_song_is_fetched() {
    let (api, songs) = (Bench::guarded(&[]).await, Songs::start(SONG).await);
    let audio = songs.at("/song.mp3");
    let missing = |field: &str| format!("Missing required field: {field}");
    let invalid = |field: &str| format!("Invalid field: {field} must be an http:// or https:// address");
    for (body, error) in [
        ("".to_owned(), "The body is not a JSON object".to_owned()),
        ("[1]".to_owned(), "The body is not a JSON object".to_owned()),
        ("{}".to_owned(), missing("audio")),
        (json!({"audio": audio}).to_string(), missing("hook_url")),
        (
            json!({"audio": "file:///etc/passwd", "hook_url": "http://a"}).to_string(),
            invalid("audio"),
        ),
        (
            json!({"audio": audio, "hook_url": "mailto:a@b"}).to_string(),
            invalid("hook_url"),
        ),
    ] {
        let request = api
            .request(Method::POST, "/generate")
            .header(header::CONTENT_TYPE, "application/json");
        let answer = Answer::of(request.body(body)).await;
        assert_eq!((answer.status, answer.json), (400, json!({"error": error})));
    }
    let form = api
        .request(Method::POST, "/generate")
        .header(header::CONTENT_TYPE, "text/plain");
    let answer = Answer::of(form.body("{}")).await;
    assert_eq!(
        (answer.status, answer.json),
        (400, json!({"error": "Content-Type must be application/json"}))
    );
    let inside = json!({"audio": audio, "hook_url": "http://169.254.169.254/"});
    let answer = Answer::of(api.request(Method::POST, "/generate").json(&inside)).await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.json["details"].as_str().unwrap().contains("link-local"),
        "{answer:?}"
    );
    let large = json!({"audio": audio, "hook_url": "x".repeat(70_000)});
    assert_eq!(
        Answer::of(api.request(Method::POST, "/generate").json(&large))
            .await
            .status,
        400
    );
    assert_eq!(songs.requests.load(Ordering::SeqCst), 0);
    check_nothing_left(&api).await;
}

#[tokio::test]
async fn a_song_that_cannot_be_fetched_gets_the_reason() {
    let options = ["--max-input-bytes", "10", "--input-idle-seconds", "1"];
    let (api, songs) = (Bench::guarded(&options).await, Songs::start(SONG).await);
    for (audio, details) in [
        (songs.at("/missing"), "localhost answered 404"),
        (
            songs.at("/song.mp3"),
            "the response from localhost is larger than 10 bytes",
        ),
        (songs.at("/hang"), "no data from localhost for 1 s"),
        (songs.at("/stuck"), "no data from localhost for 1 s"),
        (
            songs.at("/inside"),
            "calling 169.254.169.254 is refused: it is a link-local address",
        ),
        (
            songs.at("/song.mp3").replace("localhost", "127.0.0.1"),
            "127.0.0.1 is refused: it is a loopback",
        ),
        (
            "http://name.invalid/song.mp3".to_owned(),
            "cannot resolve name.invalid",
        ),
    ] {
        let answer = api.generate(&audio).await;
        assert_eq!(
            (answer.status, &answer.json["error"]),
            (400, &json!("Failed to fetch audio")),
            "{audio}"
        );
        let found = answer.json["details"].as_str().unwrap();
        assert!(found.contains(details), "{audio}: {found}");
    }
    let empty = api.generate(&songs.at("/empty")).await;
    assert_eq!(
        (empty.status, empty.json),
        (400, json!({"error": "The audio is empty"}))
    );
    check_nothing_left(&api).await;
}

#[tokio::test]
async fn without_kafka_no_song_is_fetched() {
    let (api, songs) = (Bench::guarded(&[]).await, Songs::start(SONG).await);
    *api.queue.unreachable.lock().unwrap() = true;
    let answers = [
        api.generate(&songs.at("/song.mp3")).await,
        api.upload(Form::default().field("audio", SONG)).await,
    ];
    for answer in answers {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.headers.contains_key(header::RETRY_AFTER));
    }
    assert_eq!(songs.requests.load(Ordering::SeqCst), 0);
    check_nothing_left(&api).await;
}

#[tokio::test]
async fn a_song_whose_task_is_not_queued_is_removed() {
    let (api, songs) = (Bench::guarded(&[]).await, Songs::start(SONG).await);
    for (class, status) in [(ErrorClass::Transient, 503), (ErrorClass::Permanent, 500)] {
        *api.queue.refuses.lock().unwrap() = Some(class);
        assert_eq!(api.generate(&songs.at("/song.mp3")).await.status, status);
        assert_eq!(
            api.upload(Form::default().field("audio", SONG)).await.status,
            status
        );
        check_nothing_left(&api).await;
    }
}

#[tokio::test]
async fn a_song_whose_task_may_be_queued_is_kept_and_its_task_uuid_returned() {
    let (api, songs) = (Bench::guarded(&[]).await, Songs::start(SONG).await);
    *api.queue.answer_lost.lock().unwrap() = true;
    let answers = [
        api.generate(&songs.at("/song.mp3")).await,
        api.upload(Form::default().field("audio", SONG)).await,
    ];
    // All removals are finished when the API has ended.
    api.stop.cancel();
    api.ended.await.unwrap();
    for answer in answers {
        assert_eq!(answer.status, 503, "{answer:?}");
        let task = answer.json["task_uuid"].as_str().expect("the task's id");
        assert!(api.files.inputs.lock().unwrap().contains_key(task));
        assert!(
            api.files.records.lock().unwrap().contains_key(task),
            "its record is kept"
        );
    }
}

#[tokio::test]
async fn a_song_that_cannot_be_stored_is_not_queued() {
    let api = Bench::guarded(&[]).await;
    for (class, status) in [(ErrorClass::Transient, 503), (ErrorClass::Permanent, 500)] {
        *api.files.fails.lock().unwrap() = Some(class);
        assert_eq!(
            api.upload(Form::default().field("audio", SONG)).await.status,
            status
        );
        assert_eq!(api.get("/tasks/abc").await.status, 503);
        check_nothing_left(&api).await;
    }
}

#[tokio::test]
async fn an_invalid_form_leaves_no_song() {
    let api = Bench::guarded(&["--max-input-bytes", "100000"]).await;
    let song = || Form::default().field("audio", SONG);
    let large = vec![b'x'; 100_001];
    for (form, status, error) in [
        (Form::default(), 400, "Missing required field: audio"),
        (
            Form::default().field("hook_url", b"http://a.example"),
            400,
            "Missing required field: audio",
        ),
        (Form::default().field("audio", b""), 400, "The audio is empty"),
        (song().field("audio", SONG), 400, "A field is present twice"),
        (
            song().field("hook_url", b"").field("hook_url", b""),
            400,
            "A field is present twice",
        ),
        (song().field("other", b"x"), 400, "Unknown field in the form"),
        (
            song().field("hook_url", b"gopher://x"),
            400,
            "Invalid field: hook_url must be an http:// or https:// address",
        ),
        (
            song().field("hook_url", b"http://10.0.0.1"),
            400,
            "Invalid field: hook_url cannot be called",
        ),
        (
            song().field("hook_url", &vec![b'x'; 300_000]),
            400,
            "The form cannot be read",
        ),
        (
            Form::default().field("audio", &large),
            413,
            "The audio is too large",
        ),
    ] {
        let answer = api.upload(form).await;
        assert_eq!(
            (answer.status, &answer.json["error"]),
            (status, &json!(error)),
            "{answer:?}"
        );
        check_nothing_left(&api).await;
    }
    let no_form = api.request(Method::POST, "/tasks").body("song");
    assert_eq!(Answer::of(no_form).await.status, 400);
    let unfinished = api
        .request(Method::POST, "/tasks")
        .header(header::CONTENT_TYPE, Form::content_type())
        .body(song().unfinished());
    assert_eq!(Answer::of(unfinished).await.status, 400);
    check_nothing_left(&api).await;
}

#[tokio::test]
async fn a_stalled_upload_times_out() {
    let api = Bench::guarded(&["--input-idle-seconds", "1"]).await;
    let begin = futures_util::stream::iter([Ok::<_, std::io::Error>(
        Form::default().field("audio", SONG).unfinished(),
    )]);
    let stalled = futures_util::StreamExt::chain(begin, futures_util::stream::pending());
    let request = api
        .request(Method::POST, "/tasks")
        .header(header::CONTENT_TYPE, Form::content_type())
        .body(reqwest::Body::wrap_stream(stalled));
    let answer = Answer::of(request).await;
    assert_eq!(
        (answer.status, answer.json),
        (408, json!({"error": "The upload is too slow"}))
    );
    check_nothing_left(&api).await;
}

#[tokio::test]
async fn a_client_that_disconnects_leaves_no_song() {
    let (api, songs) = (
        Bench::guarded(&["--max-concurrent-inputs", "1"]).await,
        Songs::start(SONG).await,
    );
    let body = json!({"audio": songs.at("/stuck"), "hook_url": "https://example.com/hook"});
    let request = api
        .request(Method::POST, "/generate")
        .json(&body)
        .timeout(Duration::from_millis(300));
    assert!(request.send().await.is_err_and(|error| error.is_timeout()));
    // Its slot is free again.
    let mut tries = tokio::time::interval(Duration::from_millis(20));
    let next = async {
        while api.upload(Form::default().field("audio", SONG)).await.status != 200 {
            tries.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), next).await.unwrap();
    assert_eq!(api.files.inputs.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn songs_above_the_concurrency_limit_get_retry_after() {
    let (api, songs) = (
        Bench::guarded(&["--max-concurrent-inputs", "1"]).await,
        Songs::start(SONG).await,
    );
    let body = json!({"audio": songs.at("/stuck"), "hook_url": "https://example.com/hook"});
    let held = tokio::spawn(api.request(Method::POST, "/generate").json(&body).send());
    let mut tries = tokio::time::interval(Duration::from_millis(20));
    let refused = async {
        loop {
            let answer = api.generate(&songs.at("/song.mp3")).await;
            if answer.status != 200 {
                break answer;
            }
            tries.tick().await;
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(10), refused)
        .await
        .unwrap();
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.headers[header::RETRY_AFTER], "5");
    held.abort();
}
