//! Uploads of v1: the client sends its song to the object store and then creates the task.

use reqwest::{Method, header};
use separation_testbed::{song, tiny_song};
use serde_json::{Value, json};

use super::bench::Answer;
use super::v1_bench::{V1Bench, accepted, check_problem};

/// A new upload: its ID, and its URL.
async fn new_upload(api: &V1Bench) -> (String, String) {
    let upload = Answer::of(api.request(Method::POST, "/v1/uploads")).await;
    assert_eq!(upload.status, 201, "{upload:?}");
    assert_eq!(upload.json["upload"]["method"], "PUT");
    assert_eq!(upload.json["upload"]["headers"], json!({}));
    assert!(upload.json["expires_at"].as_str().unwrap().ends_with('Z'));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&upload.json["id"]), text(&upload.json["upload"]["url"]))
}

async fn send(api: &V1Bench, url: &str, song: Vec<u8>) {
    let sent = api.api.http.put(url).body(song).send().await.unwrap();
    assert_eq!(sent.status(), 200);
}

async fn create(api: &V1Bench, id: &str) -> Answer {
    Answer::of(api.post_json(&json!({"input": {"upload_id": id}}))).await
}

#[tokio::test]
async fn an_upload_becomes_the_task_with_its_id() {
    let api = V1Bench::with_public_endpoint().await;
    let (id, url) = new_upload(&api).await;
    let early = create(&api, &id).await;
    check_problem(&early, 400, "invalid_request");
    assert_eq!(early.json["errors"][0]["pointer"], "/input/upload_id");
    let song = song(3.0, 1);
    send(&api, &url, song.clone()).await;
    let created = create(&api, &id).await;
    assert_eq!(accepted(&created), id);
    api.wait_until_queued(&id).await;
    assert!(api.api.files.inputs.lock().unwrap()[&id] == song);
    assert_eq!(
        api.objects_of(&id).await,
        [format!("v1/tasks/acme/{id}.json")],
        "the upload is removed"
    );

    let again = create(&api, &id).await;
    assert_eq!(accepted(&again), id);
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let other = json!({"input": {"upload_id": id}, "metadata": {"order": "2"}});
    check_problem(
        &Answer::of(api.post_json(&other)).await,
        422,
        "idempotency_key_reused",
    );
    assert_eq!(api.queued().len(), 1);

    let erased = api.request(Method::DELETE, &format!("/v1/tasks/{id}"));
    assert_eq!(Answer::of(erased).await.status, 204);
    send(&api, &url, tiny_song(2)).await;
    check_problem(&create(&api, &id).await, 400, "invalid_request");
}

#[tokio::test]
async fn only_a_song_in_ones_own_upload_is_accepted() {
    let api = V1Bench::with_public_endpoint().await;
    let (id, url) = new_upload(&api).await;
    send(&api, &url, tiny_song(1)).await;
    let other = api.request_of("other", Method::POST, "/v1/tasks");
    let other = other.json(&json!({"input": {"upload_id": id}}));
    check_problem(&Answer::of(other).await, 400, "invalid_request");

    let (empty, url) = new_upload(&api).await;
    send(&api, &url, Vec::new()).await;
    check_problem(&create(&api, &empty).await, 422, "input_not_audio");
    let (text, url) = new_upload(&api).await;
    send(&api, &url, b"<!doctype html><html>".to_vec()).await;
    let text = accepted(&create(&api, &text).await);
    let failed = api.wait_for_state(&text, "failed").await;
    assert_eq!(failed["error"]["code"], "input_unreadable");
}

#[tokio::test]
async fn the_task_of_an_upload_has_no_idempotency_key() {
    let api = V1Bench::with_public_endpoint().await;
    let (id, url) = new_upload(&api).await;
    send(&api, &url, tiny_song(1)).await;
    let task = json!({"input": {"upload_id": id}});
    let refused = Answer::of(api.post_json(&task).header("idempotency-key", "a")).await;
    check_problem(&refused, 400, "invalid_request");
    let detail = refused.json["detail"].as_str().unwrap();
    assert!(detail.contains("omit the Idempotency-Key"), "{detail}");
}

#[tokio::test]
async fn uploads_need_an_object_store_that_clients_reach() {
    let api = V1Bench::start(&[]).await;
    let refused = Answer::of(api.request(Method::POST, "/v1/uploads")).await;
    check_problem(&refused, 404, "not_found");
    assert!(!refused.headers.contains_key(header::RETRY_AFTER), "{refused:?}");
    let detail = refused.json["detail"].as_str().unwrap();
    assert!(detail.contains("S3_PUBLIC_ENDPOINT"), "{detail}");
}

#[tokio::test]
async fn a_client_has_at_most_100_uploads_without_a_task() {
    let api = V1Bench::with_public_endpoint().await;
    for number in 0..99 {
        let key = format!("v1/uploads/acme/{number}");
        api.server.put(&api.bucket, &key, "song").await.unwrap();
    }
    let (_, url) = new_upload(&api).await;
    send(&api, &url, tiny_song(1)).await;
    let refused = Answer::of(api.request(Method::POST, "/v1/uploads")).await;
    check_problem(&refused, 429, "too_many_requests");
    assert!(refused.headers.contains_key(header::RETRY_AFTER), "{refused:?}");
    let other = api.request_of("other", Method::POST, "/v1/uploads");
    assert_eq!(Answer::of(other).await.status, 201);
}
