//! Tasks of v1: one per Idempotency-Key, visible to their client only, canceled and erased completely.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use reqwest::{Method, header};
use separation_testbed::{eventually, song, tiny_song};
use separation_worker::api::QueueProgress;
use separation_worker::task_store::{Delivery, EndState};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::bench::{Answer, Bench, Form, Songs, basic};
use super::v1_bench::{LIMIT, SMALL, V1Bench, accepted, check_problem, endless, outcome, task_id};

const KEY: &str = "idempotency-key";

#[track_caller]
fn replayed(answer: &Answer) -> bool {
    accepted(answer);
    answer
        .headers
        .get("idempotency-replayed")
        .is_some_and(|value| value == "true")
}

#[tokio::test]
async fn requests_with_one_idempotency_key_create_one_task() {
    let api = V1Bench::start(&[]).await;
    let songs = Songs::start(tiny_song(1).leak()).await;
    let task = |order: &str| json!({"input": {"url": songs.at("/song.mp3")}, "metadata": {"order": order}});
    let post = |key: &'static str, order: &str| Answer::of(api.post_json(&task(order)).header(KEY, key));

    let simultaneous = join_all((0..20).map(|_| post("a", "1"))).await;
    let ids: BTreeSet<String> = simultaneous.iter().map(accepted).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let new = simultaneous.iter().filter(|answer| !replayed(answer));
    assert_eq!(new.count(), 1, "one request created it");
    let id = ids.first().unwrap();
    api.wait_until_queued(id).await;
    assert_eq!(api.queued().len(), 1);

    let again = post("a", "1").await;
    assert!(replayed(&again));
    assert_eq!(&accepted(&again), id);
    check_problem(&post("a", "2").await, 422, "idempotency_key_reused");
    let other_key = accepted(&post("b", "1").await);
    let other_client = api
        .request_of("other", Method::POST, "/v1/tasks")
        .json(&task("1"));
    let other_client = accepted(&Answer::of(other_client.header(KEY, "a")).await);
    let all = BTreeSet::from([id.clone(), other_key, other_client]);
    assert_eq!(all.len(), 3);
    for invalid in ["", "a b", &"a".repeat(256)] {
        let refused = api.post_json(&task("1")).header(KEY, invalid);
        check_problem(&Answer::of(refused).await, 400, "invalid_request");
    }
}

#[tokio::test]
async fn a_repeated_form_creates_no_second_task_and_leaves_the_first_song() {
    let api = V1Bench::start(&[]).await;
    let post = |song: &[u8]| Answer::of(api.post_form(&json!({}), song).header(KEY, "a"));
    let first = post(&tiny_song(1)).await;
    assert!(!replayed(&first));
    let id = accepted(&first);
    api.wait_until_queued(&id).await;
    let again = post(&tiny_song(1)).await;
    assert!(replayed(&again));
    assert_eq!(accepted(&again), id);
    check_problem(&post(&tiny_song(2)).await, 422, "idempotency_key_reused");
    assert_eq!(api.queued().len(), 1);
    assert_eq!(api.api.files.inputs.lock().unwrap()[&id], tiny_song(1));
}

#[tokio::test]
async fn a_form_whose_key_is_in_use_is_refused_until_the_other_form_has_arrived() {
    let api = V1Bench::start(&[]).await;
    let song = song(3.0, 1);
    let form = Form::default().field("task", b"{}").field("file", &song);
    let (continue_upload, remaining) = oneshot::channel::<()>();
    let begin = futures_util::stream::iter([Ok::<_, std::io::Error>(form.unfinished())]);
    let body = futures_util::StreamExt::chain(
        begin,
        futures_util::stream::once(async {
            remaining.await.unwrap();
            Ok(b"------tests-boundary--\r\n".to_vec())
        }),
    );
    let request = api
        .request(Method::POST, "/v1/tasks")
        .header(KEY, "a")
        .header(header::CONTENT_TYPE, Form::content_type())
        .body(reqwest::Body::wrap_stream(body));
    let running = tokio::spawn(Answer::of(request));
    eventually("the song arrives", LIMIT, async || api.api.is_receiving()).await;
    let refused = Answer::of(api.post_form(&json!({}), &song).header(KEY, "a")).await;
    check_problem(&refused, 409, "idempotency_in_progress");
    assert!(refused.headers.contains_key(header::RETRY_AFTER), "{refused:?}");
    let link = json!({"input": {"url": "http://localhost:1/song.mp3"}});
    let post_link = || Answer::of(api.post_json(&link).header(KEY, "a"));
    check_problem(&post_link().await, 409, "idempotency_in_progress");
    continue_upload.send(()).unwrap();
    let id = accepted(&running.await.unwrap());
    let again = Answer::of(api.post_form(&json!({}), &song).header(KEY, "a")).await;
    assert!(replayed(&again));
    assert_eq!(accepted(&again), id);
    check_problem(&post_link().await, 422, "idempotency_key_reused");
}

#[tokio::test]
async fn a_key_is_free_again_when_a_request_with_it_was_aborted_or_refused() {
    let api = V1Bench::start(&[]).await;
    let form = Form::default().field("task", b"{}").field("file", &song(3.0, 1));
    let request = api
        .request(Method::POST, "/v1/tasks")
        .header(KEY, "a")
        .header(header::CONTENT_TYPE, Form::content_type())
        .body(endless(form));
    let sending = tokio::spawn(Answer::of(request));
    eventually("the song arrives", LIMIT, async || api.api.is_receiving()).await;
    sending.abort();
    eventually("no claim on the key", LIMIT, async || {
        !api.claims().await.iter().any(|name| name.starts_with("key-"))
    })
    .await;
    let post = |song: &[u8]| Answer::of(api.post_form(&json!({}), song).header(KEY, "a"));
    check_problem(&post(b"%PDF-1.7 no song").await, 422, "input_not_audio");
    assert!(!replayed(&post(&tiny_song(1)).await));
}

#[tokio::test]
async fn a_task_is_followed_from_its_link_to_its_stems() {
    let api = V1Bench::start(&[
        "--stems-retention-days",
        "7",
        "--public-url",
        "https://api.example/base/",
    ])
    .await;
    let answer = Answer::of(api.post_form(&json!({}), &tiny_song(1))).await;
    let id = answer.json["id"].as_str().unwrap().to_owned();
    let link = format!("https://api.example/base/v1/tasks/{id}");
    assert_eq!(answer.headers[header::LOCATION], link.as_str());
    api.wait_until_queued(&id).await;
    let path = format!("/v1/tasks/{id}");
    let task = async || api.get(&path).await.json;
    *api.api.queue.progress.lock().unwrap() = Some(QueueProgress {
        committed: Some(0),
        begun: true,
        start: Some(1_763_683_200),
        percent: Some(40),
    });
    let running = task().await;
    assert_eq!(
        (&running["state"], &running["stage"]),
        (&json!("running"), &json!("separating"))
    );
    assert_eq!(running["progress"]["percent"], 40);
    assert_eq!(running["started_at"], "2025-11-21T00:00:00Z");
    *api.api.files.separated.lock().unwrap() = true;
    assert_eq!(task().await["stage"], "uploading");

    api.succeed(&id, 4_000_000_000).await;
    let done = api.get(&path).await;
    assert_eq!(done.json["state"], "succeeded");
    assert_eq!(done.json["stems"][0]["url"], format!("{link}/stems/vocals"));
    assert_eq!(done.json["expires_at"], "2096-10-09T07:06:40Z");
    let unchanged = api
        .request(Method::GET, &path)
        .header(header::IF_NONE_MATCH, &done.headers[header::ETAG]);
    assert_eq!(Answer::of(unchanged).await.status, 304);
}

#[tokio::test]
async fn a_task_is_canceled_once_and_not_after_its_end() {
    let api = V1Bench::start(&[]).await;
    let post = async || {
        let id = accepted(&Answer::of(api.post_form(&json!({}), &tiny_song(1))).await);
        api.wait_until_queued(&id).await;
        id
    };
    let cancel = |id: &str| Answer::of(api.request(Method::POST, &format!("/v1/tasks/{id}/cancel")));
    let id = post().await;
    for _ in 0..2 {
        let canceled = cancel(&id).await;
        assert_eq!(
            (canceled.status, &canceled.json["state"]),
            (200, &json!("cancelled"))
        );
    }
    let stored = api.store.outcome(&task_id(&id)).await.unwrap().unwrap();
    assert_eq!(stored.state, EndState::Cancelled);

    for state in [EndState::Succeeded, EndState::Failed] {
        let id = post().await;
        api.store
            .create_outcome(&outcome(&task_id(&id), state, 1))
            .await
            .unwrap();
        check_problem(&cancel(&id).await, 409, "task_already_finished");
    }
    check_problem(
        &cancel("0b6f1ac8-52a1-4b0c-9d4c-1a4a2a0ad1cf").await,
        404,
        "not_found",
    );
}

#[tokio::test]
async fn a_task_that_is_canceled_while_its_link_is_fetched_is_never_queued() {
    let mut api = V1Bench::start(&[]).await;
    let songs = Songs::start(tiny_song(1).leak()).await;
    let id = accepted(&api.post_link(&songs.at("/stuck")).await);
    let canceled = Answer::of(api.request(Method::POST, &format!("/v1/tasks/{id}/cancel"))).await;
    assert_eq!(canceled.status, 200, "{canceled:?}");
    // Its replica ends; another one finds the mark, and the outcome.
    api.api.stop.cancel();
    tokio::time::timeout(LIMIT, &mut api.api.ended)
        .await
        .unwrap()
        .unwrap();
    let other = Bench::start_with(&[], Some(api.store.clone())).await;
    api.wait_for_no_mark().await;
    assert!(other.tasks().is_empty());
}

#[tokio::test]
async fn a_fetch_stops_when_its_task_is_canceled_or_erased() {
    let api = V1Bench::start(&[]).await;
    let songs = Songs::start(tiny_song(1).leak()).await;
    let canceled = accepted(&api.post_link(&songs.at("/stuck")).await);
    let erased = accepted(&api.post_link(&songs.at("/stuck")).await);
    eventually("both links fetched", LIMIT, async || {
        let claims = api.claims().await;
        [&canceled, &erased]
            .iter()
            .all(|id| claims.contains(&format!("incoming-{id}")))
    })
    .await;
    let cancel = api.request(Method::POST, &format!("/v1/tasks/{canceled}/cancel"));
    assert_eq!(Answer::of(cancel).await.status, 200);
    let erase = api.request(Method::DELETE, &format!("/v1/tasks/{erased}"));
    assert_eq!(Answer::of(erase).await.status, 204);
    api.wait_for_no_mark().await;
    assert!(api.api.files.is_empty());
    assert_eq!(api.queued(), []);
    let left = api.objects_of(&erased).await;
    let expected = [
        format!("v1/erased/acme/{erased}"),
        format!("v1/outcomes/{erased}.json"),
    ];
    assert_eq!(left, expected);
}

#[tokio::test]
async fn nothing_but_a_tombstone_is_left_of_an_erased_task() {
    let api = V1Bench::start(&[]).await;
    let task = json!({"webhook_url": "http://localhost:1/hook"});
    let post = || Answer::of(api.post_form(&task, &tiny_song(1)).header(KEY, "a"));
    let id = accepted(&post().await);
    api.wait_until_queued(&id).await;
    api.succeed(&id, 1).await;
    let delivery = Delivery {
        id: task_id(&id),
        client: "acme".to_owned(),
        url: "http://localhost:1/hook".to_owned(),
        attempts: 3,
        scheduled_at: 1,
    };
    api.store
        .schedule_delivery(4_000_000_000, &delivery)
        .await
        .unwrap();
    let path = format!("/v1/tasks/{id}");
    let erase = || Answer::of(api.request(Method::DELETE, &path));
    assert_eq!(erase().await.status, 204);
    for (method, path) in [
        (Method::GET, path.clone()),
        (Method::DELETE, path.clone()),
        (Method::POST, format!("{path}/cancel")),
        (Method::GET, format!("{path}/stems/vocals")),
    ] {
        check_problem(&Answer::of(api.request(method, &path)).await, 404, "not_found");
    }
    let left = api.objects_of(&id).await;
    let expected = [format!("v1/erased/acme/{id}"), format!("v1/outcomes/{id}.json")];
    assert_eq!(left, expected);
    assert!(api.api.files.is_empty());

    let second = accepted(&post().await);
    assert_ne!(second, id, "the key names a new task");
    assert!(replayed(&post().await));
}

#[tokio::test]
async fn a_task_belongs_to_its_client() {
    let api = V1Bench::start(&[]).await;
    let id = accepted(&Answer::of(api.post_form(&json!({}), &tiny_song(1))).await);
    api.wait_until_queued(&id).await;
    api.succeed(&id, 4_000_000_000).await;
    let routes = |id: &str| {
        [
            (Method::GET, format!("/v1/tasks/{id}")),
            (Method::POST, format!("/v1/tasks/{id}/cancel")),
            (Method::DELETE, format!("/v1/tasks/{id}")),
            (Method::GET, format!("/v1/tasks/{id}/stems/vocals")),
            (Method::GET, format!("/v1/tasks/{id}/peaks")),
            (Method::GET, format!("/v1/tasks/{id}/previews/vocals")),
        ]
    };
    for (method, path) in routes(&id) {
        let answer = Answer::of(api.request_of("other", method, &path)).await;
        check_problem(&answer, 404, "not_found");
    }
    for malformed in ["..%2F..%2Fa", "%FF", "a%20b"] {
        for (method, path) in routes(malformed) {
            let answer = Answer::of(api.request(method, &path)).await;
            check_problem(&answer, 404, "not_found");
        }
    }
    assert_eq!(
        api.get(&format!("/v1/tasks/{id}")).await.json["state"],
        "succeeded"
    );
}

#[tokio::test]
async fn the_drop_in_api_does_not_show_tasks_of_v1() {
    let api = V1Bench::start(&[]).await;
    let id = accepted(&Answer::of(api.post_form(&json!({}), &tiny_song(1))).await);
    api.wait_until_queued(&id).await;
    for separated in [false, true] {
        *api.api.files.separated.lock().unwrap() = separated;
        let shown = api.get(&format!("/tasks/{id}")).await;
        assert_eq!((shown.status, &shown.json), (404, &json!({"error": "Not found"})));
    }
}

#[tokio::test]
async fn a_client_has_as_many_open_tasks_as_allowed() {
    let api = V1Bench::start(&[]).await;
    let post = |key: &str| {
        let form = Form::default().field("task", b"{}").field("file", &tiny_song(1));
        let request = api.request_of(SMALL, Method::POST, "/v1/tasks").header(KEY, key);
        Answer::of(form.into_request(request))
    };
    let first = accepted(&post("1").await);
    accepted(&post("2").await);
    let refused = post("3").await;
    check_problem(&refused, 429, "too_many_requests");
    assert!(refused.headers.contains_key(header::RETRY_AFTER), "{refused:?}");
    assert!(replayed(&post("1").await), "a repeated request needs no room");
    let cancel = api.request_of(SMALL, Method::POST, &format!("/v1/tasks/{first}/cancel"));
    assert_eq!(Answer::of(cancel).await.status, 200);
    accepted(&post("3").await);
    let others = api.post_form(&json!({}), &tiny_song(1));
    accepted(&Answer::of(others).await);
}

#[tokio::test]
async fn simultaneous_requests_do_not_exceed_the_limit_and_refused_ones_are_not_open() {
    let api = V1Bench::start(&[]).await;
    let post = |song: &[u8]| {
        let form = Form::default().field("task", b"{}").field("file", song);
        Answer::of(form.into_request(api.request_of(SMALL, Method::POST, "/v1/tasks")))
    };
    check_problem(&post(b"%PDF-1.7 no song").await, 422, "input_not_audio");
    let open = async || api.store.count_open(SMALL, 10).await.unwrap();
    assert_eq!(open().await, 0);
    let song = tiny_song(1);
    let answers = join_all((0..10).map(|_| post(&song))).await;
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
    assert!(accepted.len() <= 2, "{accepted:?}");
    for answer in refused {
        check_problem(answer, 429, "too_many_requests");
    }
    assert_eq!(open().await, accepted.len());
}

#[tokio::test]
async fn without_a_bucket_v1_is_unavailable() {
    let api = Bench::guarded(&[]).await;
    for (method, path) in [
        (Method::POST, "/v1/tasks"),
        (Method::GET, "/v1/tasks/abc"),
        (Method::POST, "/v1/uploads"),
        (Method::GET, "/v1/tasks/abc/stems/vocals"),
    ] {
        let answer = Answer::of(api.request(method, path)).await;
        check_problem(&answer, 503, "unavailable");
        let detail: &Value = &answer.json["detail"];
        assert!(detail.as_str().unwrap().contains("S3_BUCKET_NAME"), "{detail}");
    }
    let session = api.http.get(format!("{}/v1/session", api.url));
    let session = session.header(header::AUTHORIZATION, basic("admin", super::PASSWORD));
    assert_eq!(Answer::of(session).await.status, 200);
}
