//! Tasks of the HTTP API v1 in a real object store.

mod intake;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use separation_contract::api_task::Output;
use separation_testbed::S3Server;
use separation_worker::settings::S3Settings;
use separation_worker::storage::{S3, StemSource, StorageError};
use separation_worker::task_store::{
    Created, Delivery, DeliveryState, EndState, Incoming, InputSource, Removed, Retention, StoredFile,
    StoredInput, StoredOutcome, StoredTask, TaskStore, VERSION, WebhookReport,
};
use tokio::net::TcpListener;

use crate::storage::staging_area::{new_bucket, s3_settings, task as id};

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

struct Bench {
    store: TaskStore,
    server: &'static S3Server,
    bucket: String,
}

impl Bench {
    /// A store in a bucket of its own, without a public endpoint.
    async fn new() -> Self {
        Self::with(None).await
    }

    async fn with(public_endpoint: Option<&str>) -> Self {
        let bucket = new_bucket().await;
        let settings = S3Settings {
            public_endpoint: public_endpoint.map(|url| url.parse().unwrap()),
            ..s3_settings(&bucket).await
        };
        Self {
            store: TaskStore::new(S3::connect(&settings).await, &settings).unwrap(),
            server: S3Server::shared().await.unwrap(),
            bucket,
        }
    }

    /// Stores a task in each place that a task can have.
    async fn fill(&self, name: &str) {
        let (store, id) = (&self.store, id(name));
        let task = record("acme", name, "a");
        store.put_incoming(&Incoming::of(&task)).await.unwrap();
        store.create_task(&task).await.unwrap();
        store.put_open("acme", &id).await.unwrap();
        self.put(&format!("v1/uploads/acme/{name}"), "song").await;
        for file in ["vocals.wav", "peaks.json"] {
            let content = Bytes::from_static(b"RIFF");
            store.put_file(&id, file, "audio/wav", content).await.unwrap();
        }
        for due in [3, 2_000_000_000] {
            store.schedule_delivery(due, &delivery(name)).await.unwrap();
        }
        let report = WebhookReport {
            state: DeliveryState::Pending,
            attempts: 1,
            last_attempt_at: Some(3),
            status: Some(503),
        };
        store.put_webhook_report(&id, &report).await.unwrap();
        store
            .create_outcome(&outcome(name, EndState::Failed, 2))
            .await
            .unwrap();
    }

    async fn put(&self, key: &str, content: impl Into<Bytes>) {
        self.server.put(&self.bucket, key, content).await.unwrap();
    }

    async fn keys(&self) -> Vec<String> {
        let objects = self.server.list(&self.bucket, "").await.unwrap();
        objects.into_iter().map(|object| object.key).collect()
    }
}

fn record(client: &str, name: &str, fingerprint: &str) -> StoredTask {
    StoredTask {
        version: VERSION,
        id: id(name),
        client: client.to_owned(),
        fingerprint: fingerprint.to_owned(),
        created_at: 1,
        input: StoredInput {
            source: InputSource::Url("https://songs.example/a.mp3".into()),
            file_name: None,
            duration_seconds: Some(180.5),
        },
        output: Output::default(),
        webhook_url: Some("https://receiver.example/".into()),
        metadata: BTreeMap::from([("order".to_owned(), "7".to_owned())]),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
    }
}

fn outcome(name: &str, state: EndState, finished_at: u64) -> StoredOutcome {
    StoredOutcome {
        version: VERSION,
        id: id(name),
        state,
        finished_at,
        started_at: None,
        stems: Vec::new(),
        error: None,
    }
}

fn delivery(name: &str) -> Delivery {
    Delivery {
        id: id(name),
        client: "acme".into(),
        url: "https://receiver.example/".into(),
        attempts: 0,
        scheduled_at: 1,
    }
}

/// A task store whose S3 server answers all requests as `answer` does; it gets the number of the request, from 0.
async fn scripted(answer: fn(usize) -> Response<Body>) -> TaskStore {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let router = Router::new().fallback(move || {
        let request = requests.fetch_add(1, Ordering::Relaxed);
        async move { answer(request) }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    let settings = S3Settings {
        endpoint: Some(endpoint.parse().unwrap()),
        ..s3_settings("bucket").await
    };
    TaskStore::new(S3::connect(&settings).await, &settings).unwrap()
}

fn success() -> Response<Body> {
    let response = Response::builder().header(header::ETAG, "\"1\"");
    response.body(Body::empty()).unwrap()
}

fn refusal(status: StatusCode, code: &str) -> Response<Body> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    Response::builder().status(status).body(Body::from(body)).unwrap()
}

#[tokio::test]
async fn of_simultaneous_outcomes_exactly_one_is_stored() {
    let store = Bench::new().await.store;
    let creates: Vec<_> = (0..20)
        .map(|finished_at| {
            let store = store.clone();
            tokio::spawn(async move {
                let outcome = outcome("t1", EndState::Cancelled, finished_at);
                (store.create_outcome(&outcome).await.unwrap(), outcome)
            })
        })
        .collect();
    let mut first = Vec::new();
    for create in creates {
        let (created, outcome) = create.await.unwrap();
        if created == Created::New {
            first.push(outcome);
        }
    }
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!(store.outcome(&id("t1")).await.unwrap().as_ref(), first.first());

    let repeated = store.create_outcome(&first[0]).await.unwrap();
    assert_eq!(repeated, Created::New, "as if its first response was lost");
    let late = outcome("t1", EndState::Succeeded, 99);
    assert_eq!(store.create_outcome(&late).await.unwrap(), Created::Exists);
    assert_eq!(store.outcome(&id("t2")).await.unwrap(), None);
}

#[tokio::test]
async fn a_record_belongs_to_one_client_and_is_never_replaced() {
    let store = Bench::new().await.store;
    for client in ["acme", "Ann Ä/../acme", "tasks", ""] {
        assert_eq!(store.task(client, &id("t1")).await.unwrap(), None, "{client}");
        let task = record(client, "t1", "a");
        assert_eq!(store.create_task(&task).await.unwrap(), Created::New, "{client}");
        assert_eq!(store.create_task(&task).await.unwrap(), Created::New, "repeated");
        let other = record(client, "t1", "b");
        assert_eq!(store.create_task(&other).await.unwrap(), Created::Exists);
        assert_eq!(store.task(client, &id("t1")).await.unwrap(), Some(task));
    }
}

#[tokio::test]
async fn an_object_of_a_later_version_is_an_error() {
    let bench = Bench::new().await;
    let json = r#"{"version": 2, "id": "t1", "state": "failed", "finished_at": 1}"#;
    bench.put("v1/outcomes/t1.json", json).await;
    let error = bench.store.outcome(&id("t1")).await.unwrap_err();
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[tokio::test]
async fn a_store_without_conditional_writes_is_recognized() {
    let real = Bench::new().await.store;
    for _ in 0..2 {
        assert!(real.has_conditional_writes().await.unwrap());
    }
    let ignores = scripted(|_| success()).await;
    assert!(!ignores.has_conditional_writes().await.unwrap());
    let refuses = scripted(|_| refusal(StatusCode::NOT_IMPLEMENTED, "NotImplemented")).await;
    assert!(!refuses.has_conditional_writes().await.unwrap());
    let fails = scripted(|_| refusal(StatusCode::SERVICE_UNAVAILABLE, "SlowDown")).await;
    fails.has_conditional_writes().await.unwrap_err();
}

#[tokio::test]
async fn a_create_that_conflicts_with_another_is_retried() {
    let store = scripted(|request| match request {
        0 | 1 => refusal(StatusCode::CONFLICT, "ConditionalRequestConflict"),
        _ => success(),
    })
    .await;
    let created = store.create_outcome(&outcome("t1", EndState::Failed, 1)).await;
    assert_eq!(created.unwrap(), Created::New);
}

#[tokio::test]
async fn a_read_over_a_broken_connection_is_repeated_once() {
    let broken = |request: usize| match request {
        0 | 2 | 3 => {
            let end = Err(std::io::Error::other("the connection breaks"));
            let body = Body::from_stream(stream::iter([Ok(Bytes::from_static(b"{")), end]));
            Response::builder().body(body).unwrap()
        }
        _ => refusal(StatusCode::NOT_FOUND, "NoSuchKey"),
    };
    let store = scripted(broken).await;
    assert_eq!(store.outcome(&id("t1")).await.unwrap(), None);
    let error = store.outcome(&id("t1")).await.unwrap_err();
    assert!(!error.is_missing(), "{error}");
}

#[tokio::test]
async fn an_erasure_leaves_only_the_tombstone() {
    let bench = Bench::new().await;
    bench.fill("t1").await;
    let before = bench.keys().await;
    bench.fill("t2").await;
    let other = bench.keys().await.into_iter().filter(|key| !before.contains(key));
    let mut expected: Vec<String> = other.collect();
    // The replica that fetches the song deletes the mark, last.
    expected.extend(["v1/erased/acme/t1", "v1/incoming/acme/t1", "v1/outcomes/t1.json"].map(String::from));
    expected.sort();

    for _ in 0..2 {
        bench.store.erase("acme", &id("t1"), 9).await.unwrap();
        assert_eq!(bench.keys().await, expected);
    }
    let tombstone = bench.store.outcome(&id("t1")).await.unwrap();
    assert_eq!(tombstone, Some(outcome("t1", EndState::Erased, 9)));
    let late = outcome("t1", EndState::Succeeded, 10);
    let created = bench.store.create_outcome(&late).await.unwrap();
    assert_eq!(created, Created::Exists);
}

#[tokio::test]
async fn an_interrupted_erasure_is_finished_by_the_sweep() {
    let bench = Bench::new().await;
    bench.fill("t1").await;
    bench.put("v1/erased/acme/t1", "unfinished").await;
    let tombstone = serde_json::to_vec(&outcome("t1", EndState::Erased, 9)).unwrap();
    bench.put("v1/outcomes/t1.json", tombstone).await;
    let retention = Retention { stems: None };
    bench.store.remove_old(now() + 2 * HOUR, retention).await.unwrap();
    let left = ["v1/erased/acme/t1", "v1/incoming/acme/t1", "v1/outcomes/t1.json"];
    assert_eq!(bench.keys().await, left);
    bench.store.remove_old(now() + 9 * DAY, retention).await.unwrap();
    assert_eq!(bench.keys().await, ["v1/incoming/acme/t1"]);
}

async fn open(store: &TaskStore, file: &str, range: Option<&str>) -> StoredFile {
    store.open_file(&id("t1"), file, range).await.unwrap().unwrap()
}

async fn content(file: StoredFile) -> Vec<u8> {
    let body = file.body.try_collect::<Vec<Bytes>>().await.unwrap();
    body.concat()
}

#[tokio::test]
async fn a_file_is_read_completely_or_in_part() {
    let store = Bench::new().await.store;
    let song = Bytes::from_static(b"0123456789");
    store
        .put_file(&id("t1"), "vocals.flac", "audio/flac", song)
        .await
        .unwrap();
    for (range, position, expected) in [
        (None, None, "0123456789"),
        (Some("bytes=2-4"), Some("bytes 2-4/10"), "234"),
        (Some("bytes=8-99"), Some("bytes 8-9/10"), "89"),
        (Some("bytes=-3"), Some("bytes 7-9/10"), "789"),
        (Some("bytes=0-1,4-5"), None, "0123456789"),
        (Some("seconds=1-2"), None, "0123456789"),
    ] {
        let file = open(&store, "vocals.flac", range).await;
        assert_eq!(file.content_range.as_deref(), position, "{range:?}");
        assert_eq!(file.length_bytes, expected.len() as u64, "{range:?}");
        assert_eq!(file.content_type, "audio/flac");
        assert_eq!(content(file).await, expected.as_bytes(), "{range:?}");
    }
    let behind = store.open_file(&id("t1"), "vocals.flac", Some("bytes=10-")).await;
    assert!(behind.err().unwrap().is_unsatisfiable_range());
    let none = store.open_file(&id("t1"), "vocals.wav", Some("bytes=0-")).await;
    assert!(none.unwrap().is_none());
}

#[tokio::test]
async fn a_stem_is_copied_from_staging_and_appears_when_it_is_published() {
    let bench = Bench::new().await;
    bench.put("staging/t1/vocals.wav", "RIFF").await;
    let staged = StemSource::Object {
        address: format!("s3://{}/staging/t1/vocals.wav", bench.bucket)
            .parse()
            .unwrap(),
        size: 4,
    };
    let prepared = bench
        .store
        .prepare_stem(&id("t1"), "vocals.flac", "audio/flac", &staged)
        .await
        .unwrap();
    let before = bench.store.open_file(&id("t1"), "vocals.flac", None).await;
    assert!(before.unwrap().is_none());
    prepared.publish().await.unwrap();
    let file = open(&bench.store, "vocals.flac", None).await;
    assert_eq!(file.content_type, "audio/flac");
    assert_eq!(content(file).await, b"RIFF");
    bench.store.remove_stems(&id("t1")).await.unwrap();
    assert_eq!(bench.keys().await, ["staging/t1/vocals.wav"]);
}

#[tokio::test]
async fn links_let_a_client_without_credentials_upload_and_download() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let server = S3Server::shared().await.unwrap();
    // Another host than that of the worker's own requests.
    let public = format!("http://localhost:{}", server.address().port());
    let bench = Bench::with(Some(&public)).await;
    let (store, id, valid) = (&bench.store, &id("t1"), Duration::from_secs(60));

    let upload = store.presigned_upload("Ann Ä", id, valid).await.unwrap().unwrap();
    assert_eq!(store.upload_size("Ann Ä", id).await.unwrap(), None);
    let request = http.put(upload.url).header(header::CONTENT_TYPE, "audio/mpeg");
    let response = request.body("a song").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(store.upload_size("Ann Ä", id).await.unwrap(), Some(6));
    let song = store.open_upload("Ann Ä", id, 6).await.unwrap();
    assert_eq!(
        song.try_collect::<Vec<Bytes>>().await.unwrap().concat(),
        b"a song"
    );
    let too_large = store.open_upload("Ann Ä", id, 5).await.err().unwrap();
    assert!(matches!(too_large, StorageError::TooLarge { .. }), "{too_large}");
    store.delete_upload("Ann Ä", id).await.unwrap();
    let missing = store.open_upload("Ann Ä", id, 6).await.err().unwrap();
    assert!(missing.is_missing(), "{missing}");

    let stem = Bytes::from_static(b"RIFF");
    store.put_file(id, "vocals.wav", "audio/wav", stem).await.unwrap();
    let link = store.presigned_file(id, "vocals.wav", "My song.wav", valid);
    let link = link.await.unwrap().unwrap();
    let mut unsigned = link.clone();
    unsigned.set_query(None);
    let response = http.get(link).send().await.unwrap();
    let disposition = response.headers()[header::CONTENT_DISPOSITION].to_str().unwrap();
    assert!(
        disposition.starts_with("attachment; filename=\"My song.wav\""),
        "{disposition}"
    );
    assert_eq!(response.bytes().await.unwrap(), "RIFF");
    let response = http.get(unsigned).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn there_are_no_links_without_a_public_endpoint() {
    let store = Bench::new().await.store;
    let valid = Duration::from_secs(60);
    let file = store
        .presigned_file(&id("t1"), "vocals.wav", "a.wav", valid)
        .await;
    assert_eq!(file.unwrap(), None);
    let upload = store.presigned_upload("acme", &id("t1"), valid).await;
    assert_eq!(upload.unwrap(), None);
}

#[tokio::test]
async fn due_deliveries_are_listed_in_the_order_of_their_times() {
    let store = Bench::new().await.store;
    // 7 and 1,200 have no common factor, so that these are all times from 0 to 1,199, out of order.
    let times = (0..1_200_u64).map(|index| index * 7 % 1_200);
    stream::iter(times)
        .map(|due| {
            let store = &store;
            let delivery = delivery(&format!("t{due}"));
            async move { store.schedule_delivery(due, &delivery).await.unwrap() }
        })
        .buffer_unordered(8)
        .collect::<Vec<()>>()
        .await;
    let due = store.due_deliveries(1_099, 5_000).await.unwrap();
    let expected = (0..1_100_u64).map(|due| (due, delivery(&format!("t{due}"))));
    assert_eq!(due, expected.collect::<Vec<_>>());
    let first = store.due_deliveries(1_099, 3).await.unwrap();
    assert_eq!(first, due[..3]);
    store.remove_delivery(0, &id("t0")).await.unwrap();
    let first = store.due_deliveries(1_099, 1).await.unwrap();
    assert_eq!(first, due[1..2]);
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn the_sweep_removes_exactly_what_is_old() {
    const STEMS: u64 = 7 * DAY + HOUR;
    const RECORDS: u64 = STEMS + 30 * DAY;
    let (bench, now) = (Bench::new().await, now());
    let ended = |name, age| serde_json::to_string(&outcome(name, EndState::Failed, now - age)).unwrap();
    let tombstone = |name| serde_json::to_string(&outcome(name, EndState::Erased, 1)).unwrap();
    let task = |name| serde_json::to_string(&record("acme", name, "a")).unwrap();
    let text = String::new;
    // Object key, content, age in seconds; whether it stays without and with a retention of stems.
    let objects = [
        ("stems/t1/vocals.wav", text(), STEMS + 60, true, false),
        ("stems/t2/vocals.wav", text(), STEMS - 60, true, true),
        // Of the area of a pool whose prefix of stems is `stems/`.
        (
            "stems/outcomes/t1.json",
            ended("t1", RECORDS),
            RECORDS * 2,
            true,
            true,
        ),
        ("stems/tasks/acme/t1.json", task("t1"), RECORDS * 2, true, true),
        ("tasks/acme/t1.json", task("t1"), RECORDS + 60, true, false),
        ("outcomes/t1.json", ended("t1", RECORDS + 60), 0, true, false),
        ("webhooks/t1.json", text(), 0, true, false),
        ("tasks/acme/t2.json", task("t2"), RECORDS + 60, true, true),
        (
            "outcomes/t2.json",
            ended("t2", RECORDS - 60),
            RECORDS * 2,
            true,
            true,
        ),
        ("tasks/acme/t3.json", task("t3"), RECORDS - 60, true, true),
        ("tasks/acme/t4.json", task("t4"), RECORDS + 60, true, false),
        ("claims/0000000001/sweep", text(), HOUR + 60, false, false),
        ("claims/0000000002/sweep", text(), HOUR - 60, true, true),
        ("uploads/acme/t1", text(), 2 * DAY + 60, false, false),
        ("uploads/acme/t2", text(), 2 * DAY - 60, true, true),
        (
            "deliveries/0000000001-t1.json",
            text(),
            8 * DAY + 60,
            false,
            false,
        ),
        ("deliveries/0000000001-t2.json", text(), 8 * DAY - 60, true, true),
        ("open/acme/t2", text(), HOUR + 60, false, false),
        ("open/acme/t1", text(), HOUR - 60, true, true),
        ("open/acme/t3", text(), HOUR + 60, true, true),
        ("open/acme/t9", text(), HOUR + 60, false, false),
        ("erased/acme/t5", text(), 8 * DAY + 60, false, false),
        ("outcomes/t5.json", tombstone("t5"), 8 * DAY + 60, false, false),
        ("stems/t5/vocals.wav", text(), 0, false, false),
        ("erased/acme/t6", text(), 8 * DAY - 60, true, true),
        ("outcomes/t6.json", tombstone("t6"), 8 * DAY - 60, true, true),
    ];
    for (key, content, age, ..) in &objects {
        let key = format!("v1/{key}");
        bench.put(&key, content.clone()).await;
        let written = SystemTime::now() - Duration::from_secs(*age);
        bench.server.set_modified(&bench.bucket, &key, written).unwrap();
    }
    for (stems, counts) in [(None, (0, 0, 6)), (Some(Duration::from_secs(7 * DAY)), (1, 2, 0))] {
        let removed = bench.store.remove_old(now, Retention { stems }).await.unwrap();
        let (stem_count, records, leftovers) = counts;
        let expected = Removed {
            stems: stem_count,
            records,
            leftovers,
        };
        assert_eq!(removed, expected, "{stems:?}");
        let stays = objects.iter().filter(|(.., without, with)| match stems {
            None => *without,
            Some(_) => *with,
        });
        let mut stays: Vec<String> = stays.map(|(key, ..)| format!("v1/{key}")).collect();
        stays.sort();
        assert_eq!(bench.keys().await, stays, "{stems:?}");
    }
}
