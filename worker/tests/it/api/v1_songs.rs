//! From an accepted song to the queue: links and forms, and what is refused before or after that.

use std::sync::atomic::Ordering;

use reqwest::{Method, header};
use separation_testbed::{eventually, song, tiny_song};
use separation_worker::error::ErrorClass;
use serde_json::{Value, json};

use super::bench::{Answer, Form, Songs};
use super::v1_bench::{LIMIT, V1Bench, accepted, check_problem, endless};

fn leak(song: Vec<u8>) -> &'static [u8] {
    song.leak()
}

#[tokio::test]
async fn a_link_is_accepted_before_it_is_fetched() {
    let api = V1Bench::start(&[]).await;
    let songs = Songs::start(leak(tiny_song(1))).await;
    let task = json!({
        "input": {"url": songs.at("/song.mp3?token=1")},
        "output": {"format": "flac", "bit_depth": 24, "stems": ["vocals"]},
        "metadata": {"order": "4711"},
        "webhook_url": "http://localhost:1/hook",
    });
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = Answer::of(api.post_json(&task).header("traceparent", trace)).await;
    let id = accepted(&answer);
    assert_eq!(answer.json["state"], "queued");
    assert_eq!(answer.json["input"], json!({"file_name": "song.mp3"}));
    assert_eq!(answer.json["output"], task["output"]);
    assert_eq!(answer.json["metadata"], task["metadata"]);
    assert_eq!(answer.json["webhook"], json!({"state": "pending", "attempts": 0}));
    assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);

    let queued = api.wait_until_queued(&id).await;
    assert_eq!(queued.audio_path, format!("/songs/{id}_input.wav"));
    assert_eq!(
        queued.hook_url, None,
        "only replicas of the API send webhooks of v1"
    );
    let v1 = serde_json::to_value(queued.v1.unwrap()).unwrap();
    assert_eq!(v1, json!({"client": "acme", "output": task["output"]}));
    assert_eq!(api.api.files.inputs.lock().unwrap()[&id], tiny_song(1));
    let (_, published) = api.api.tasks().pop().unwrap();
    assert_eq!(published.trace_id(), "0af7651916cd43dd8448eb211c80319c");
    let record = api.api.files.records.lock().unwrap()[&id].clone();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(
        (&record["offset"], &record["v1"]["client"]),
        (&json!(0), &json!("acme"))
    );
}

#[tokio::test]
async fn a_link_that_hangs_does_not_delay_the_response_or_other_links() {
    let api = V1Bench::start(&["--max-concurrent-inputs", "4"]).await;
    let songs = Songs::start(leak(tiny_song(1))).await;
    let hanging = accepted(&api.post_link(&songs.at("/hang")).await);
    let id = accepted(&api.post_link(&songs.at("/song.mp3")).await);
    eventually("the other link queued", LIMIT, async || {
        api.queued().iter().any(|task| task.task_uuid.as_str() == id)
    })
    .await;
    let waiting = api.get(&format!("/v1/tasks/{hanging}")).await.json;
    assert_eq!(
        (&waiting["state"], &waiting["stage"]),
        (&json!("queued"), &json!("fetching"))
    );
}

#[tokio::test]
async fn a_link_that_cannot_be_a_song_ends_its_task() {
    let options = ["--max-input-seconds", "1", "--max-input-bytes", "200000"];
    let api = V1Bench::start(&options).await;
    let long = Songs::start(leak(song(1.05, 1))).await;
    let large = Songs::start(leak(song(1.2, 1))).await;
    let text = Songs::start(b"<!doctype html><html>no song</html>").await;
    for (link, code) in [
        (text.at("/missing"), "input_fetch_failed"),
        (text.at("/inside"), "input_fetch_failed"),
        (text.at("/empty"), "input_unreadable"),
        (text.at("/song.mp3"), "input_unreadable"),
        (long.at("/song.mp3"), "input_too_long"),
        (large.at("/song.mp3"), "input_fetch_failed"),
    ] {
        let id = accepted(&api.post_link(&link).await);
        let failed = api.wait_for_state(&id, "failed").await;
        assert_eq!(failed["error"]["code"], code, "{failed}");
        let message = failed["error"]["message"].as_str().unwrap();
        assert!(!message.contains("/song.mp3"), "{message}");
    }
    assert_eq!(api.queued(), []);
    // Removed last.
    api.wait_for_no_mark().await;
    assert!(api.api.files.is_empty());
}

#[tokio::test]
async fn an_address_that_may_not_be_called_is_refused() {
    let api = V1Bench::start(&[]).await;
    let inside = "http://169.254.169.254/latest/meta-data/";
    let answer = Answer::of(api.post_json(&json!({"input": {"url": inside}, "webhook_url": inside}))).await;
    check_problem(&answer, 403, "url_not_allowed");
    let pointers: Vec<&str> = answer.json["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    assert_eq!(pointers, ["/input/url", "/webhook_url"]);
    assert_eq!(api.incoming().await, []);
}

#[tokio::test]
async fn a_task_is_queued_once_the_brokers_accept_it_and_its_link_is_fetched_once() {
    let api = V1Bench::start(&[]).await;
    let songs = Songs::start(leak(tiny_song(1))).await;
    *api.api.queue.refuses.lock().unwrap() = Some(ErrorClass::Transient);
    let linked = accepted(&api.post_link(&songs.at("/song.mp3")).await);
    let sent = accepted(&Answer::of(api.post_form(&json!({}), &tiny_song(2))).await);
    eventually("the songs staged", LIMIT, async || {
        api.api.files.records.lock().unwrap().len() == 2
    })
    .await;
    assert_eq!(api.queued(), []);
    assert_eq!(
        api.get(&format!("/v1/tasks/{linked}")).await.json["state"],
        "queued"
    );
    *api.api.queue.refuses.lock().unwrap() = None;
    for id in [linked, sent] {
        api.wait_until_queued(&id).await;
    }
    assert_eq!(songs.requests.load(Ordering::SeqCst), 1);
}

/// In two partitions, two workers could separate it simultaneously.
#[tokio::test]
async fn a_task_that_may_be_queued_is_published_again_to_the_same_partition() {
    let api = V1Bench::start(&[]).await;
    let partitions = || api.api.queue.partitions.lock().unwrap().clone();
    *api.api.queue.answer_lost.lock().unwrap() = true;
    accepted(&Answer::of(api.post_form(&json!({}), &tiny_song(1))).await);
    eventually("the task published", LIMIT, async || !partitions().is_empty()).await;
    *api.api.queue.answer_lost.lock().unwrap() = false;
    api.wait_for_no_mark().await;
    let published = partitions();
    assert!(published.len() >= 2, "{published:?}");
    assert!(
        published.iter().all(|partition| *partition == Some(0)),
        "{published:?}"
    );
    accepted(&Answer::of(api.post_form(&json!({}), &tiny_song(2))).await);
    api.wait_for_no_mark().await;
    assert_eq!(partitions().last(), Some(&Some(1)), "the next task is placed");
}

#[tokio::test]
async fn a_task_whose_partition_is_missing_is_never_published_to_it_again() {
    let api = V1Bench::start(&[]).await;
    let queue = &api.api.queue;
    let partitions = || queue.partitions.lock().unwrap().clone();
    *queue.lacks_partitions.lock().unwrap() = true;
    *queue.answer_lost.lock().unwrap() = true;
    accepted(&Answer::of(api.post_form(&json!({}), &tiny_song(1))).await);
    eventually("the task published", LIMIT, async || partitions().len() >= 2).await;
    *queue.lacks_partitions.lock().unwrap() = false;
    *queue.answer_lost.lock().unwrap() = false;
    api.wait_for_no_mark().await;
    let published = partitions();
    assert!(published.len() >= 3, "{published:?}");
    assert_eq!(published[0], Some(0));
    assert!(published[1..].iter().all(Option::is_none), "{published:?}");
}

#[tokio::test]
async fn a_form_becomes_a_task() {
    let api = V1Bench::start(&[]).await;
    let song = song(1.5, 1);
    let answer = Answer::of(api.post_form(&json!({"output": {"format": "flac"}}), &song)).await;
    let id = accepted(&answer);
    assert_eq!(
        answer.json["input"],
        json!({"file_name": "song.mp3", "duration_seconds": 1.5})
    );
    let task = api.wait_until_queued(&id).await;
    assert_eq!(task.v1.unwrap().output.bit_depth, Some(16));
    assert!(api.api.files.inputs.lock().unwrap()[&id] == song);
}

#[tokio::test]
async fn nothing_is_left_of_a_form_that_is_refused() {
    let options = ["--max-input-seconds", "2", "--max-input-bytes", "500000"];
    let api = V1Bench::start(&options).await;
    let (task, good) = (b"{}".as_slice(), tiny_song(1));
    let form = Form::default;
    for (form, status, code) in [
        (
            form().field("file", &good).field("task", task),
            400,
            "invalid_request",
        ),
        (form().field("task", task), 400, "invalid_request"),
        (
            form().field("task", b"{\"input\": {}}").field("file", &good),
            400,
            "invalid_request",
        ),
        (
            form().field("task", task).field("song", &good),
            400,
            "invalid_request",
        ),
        (
            form()
                .field("task", task)
                .field("file", &good)
                .field("file", &good),
            400,
            "invalid_request",
        ),
        (
            form().field("task", task).field("file", b""),
            422,
            "input_not_audio",
        ),
        (
            form().field("task", task).field("file", b"%PDF-1.7 no song"),
            422,
            "input_not_audio",
        ),
        (
            form().field("task", task).field("file", &song(2.1, 1)),
            413,
            "input_too_large",
        ),
        (
            form().field("task", task).field("file", &song(1.9, 1).repeat(2)),
            413,
            "input_too_large",
        ),
    ] {
        let request = form.into_request(api.request(Method::POST, "/v1/tasks"));
        check_problem(&Answer::of(request).await, status, code);
    }
    let unknown = api.request(Method::POST, "/v1/tasks").body("{}");
    let unknown = unknown.header(header::CONTENT_TYPE, "text/plain");
    check_problem(&Answer::of(unknown).await, 415, "unsupported_content_type");
    eventually("nothing staged", LIMIT, async || api.api.files.is_empty()).await;
    assert_eq!(api.queued(), []);
    assert_eq!(api.incoming().await, []);
}

#[tokio::test]
async fn a_form_whose_client_disconnects_leaves_nothing() {
    let api = V1Bench::start(&[]).await;
    let form = Form::default().field("task", b"{}").field("file", &song(3.0, 1));
    let request = api
        .request(Method::POST, "/v1/tasks")
        .header(header::CONTENT_TYPE, Form::content_type())
        .body(endless(form));
    let sending = tokio::spawn(Answer::of(request));
    eventually("the song arrives", LIMIT, async || api.api.is_receiving()).await;
    sending.abort();
    eventually("nothing staged", LIMIT, async || api.api.files.is_empty()).await;
    assert_eq!(api.incoming().await, []);
}

#[tokio::test]
async fn a_form_is_received_while_as_many_links_as_allowed_hang() {
    let api = V1Bench::start(&["--max-concurrent-inputs", "1"]).await;
    let songs = Songs::start(leak(tiny_song(1))).await;
    accepted(&api.post_link(&songs.at("/hang")).await);
    let id = accepted(&Answer::of(api.post_form(&json!({}), &tiny_song(2))).await);
    eventually("the form's task queued", LIMIT, async || {
        api.queued().iter().any(|task| task.task_uuid.as_str() == id)
    })
    .await;
}

#[tokio::test]
async fn links_of_one_client_that_hang_do_not_hold_up_those_of_another() {
    let api = V1Bench::start(&["--max-concurrent-inputs", "2"]).await;
    let songs = Songs::start(leak(tiny_song(1))).await;
    for _ in 0..3 {
        accepted(&api.post_link(&songs.at("/hang")).await);
    }
    let link = json!({"input": {"url": songs.at("/song.mp3")}});
    let post = api.request_of("other", Method::POST, "/v1/tasks").json(&link);
    let id = accepted(&Answer::of(post).await);
    eventually("the other client's link queued", LIMIT, async || {
        api.queued().iter().any(|task| task.task_uuid.as_str() == id)
    })
    .await;
}

#[tokio::test]
async fn forms_of_one_client_leave_half_of_the_slots_to_others() {
    let api = V1Bench::start(&["--max-concurrent-inputs", "2"]).await;
    let form = || Form::default().field("task", b"{}").field("file", &song(3.0, 1));
    let request = api
        .request(Method::POST, "/v1/tasks")
        .header(header::CONTENT_TYPE, Form::content_type())
        .body(endless(form()));
    let _sending = tokio::spawn(Answer::of(request));
    eventually("the song arrives", LIMIT, async || api.api.is_receiving()).await;
    let post = |client| Answer::of(form().into_request(api.request_of(client, Method::POST, "/v1/tasks")));
    check_problem(&post("acme").await, 503, "unavailable");
    accepted(&post("other").await);
}

#[tokio::test]
async fn a_shutdown_waits_for_no_link() {
    let mut api = V1Bench::start(&[]).await;
    let songs = Songs::start(leak(tiny_song(1))).await;
    let id = accepted(&api.post_link(&songs.at("/stuck")).await);
    api.api.stop.cancel();
    tokio::time::timeout(LIMIT, &mut api.api.ended)
        .await
        .unwrap()
        .unwrap();
    let left = api.incoming().await;
    assert_eq!(left.len(), 1, "another replica takes it up");
    assert_eq!(left[0].id.as_str(), id);
    assert!(api.api.files.is_empty());
    let claim = format!("incoming-{id}");
    let claims = api.claims().await;
    assert!(!claims.contains(&claim), "that replica need not wait: {claims:?}");
}
