//! `kill -9` of the API between any two steps of the HTTP API v1: no accepted task and no webhook is lost, and one
//! Idempotency-Key has one task.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::{join, join_all};
use futures_util::{StreamExt as _, stream};
use reqwest::multipart;
use separation_contract::api_task::Output;
use separation_contract::environment as env;
use separation_contract::message::TaskId;
use separation_testbed::{Record, Reply, Worker, WorkerOptions, eventually, tiny_song};
use separation_worker::task_store::{
    Delivery, DeliveryState, EndState, IncomingCursor, InputSource, StoredInput, StoredOutcome, StoredTask,
    VERSION,
};
use serde_json::{Value, json};

use crate::rig::{Rig, STEP_TIMEOUT, WORKER, http, killed_at};

/// A replica takes up the work of a killed one once its claim has ended, after 80 s at most.
const CLAIM_LIMIT: Duration = Duration::from_secs(180);

/// Fault points of a task in their order.
const POINTS: [&str; 6] = [
    "incoming_stored",
    "record_created",
    "incoming_claimed",
    "input_staged",
    "task_published",
    "position_stored",
];

const KEYS: usize = 200;
const KILLS: usize = 8;

/// How a client sends its song.
#[derive(Debug, Clone, Copy)]
enum Song {
    Link,
    Form,
}

fn api(rig: &Rig) -> WorkerOptions {
    let api = rig.site.worker(WORKER, "api");
    api.env(env::API_HOST, "127.0.0.1").env(env::API_PORT, "0")
}

async fn address(api: &Worker) -> SocketAddr {
    api.address("API listens", STEP_TIMEOUT).await.unwrap()
}

async fn until_killed(api: &Worker) {
    let code = api.wait_exit(STEP_TIMEOUT).await.unwrap();
    assert_eq!(code, 128 + 9, "{:?}", api.messages());
}

/// Posts a task, and returns its ID if it is accepted.
async fn post(rig: &Rig, api: SocketAddr, song: Song, key: &str) -> anyhow::Result<String> {
    let request = http()
        .post(format!("http://{api}/v1/tasks"))
        .header("idempotency-key", key);
    let request = match song {
        Song::Link => request.json(&json!({"input": {"url": rig.hooks.url("/song.wav")}})),
        Song::Form => {
            let file = multipart::Part::bytes(tiny_song(1)).file_name("song.wav");
            request.multipart(multipart::Form::new().text("task", "{}").part("file", file))
        }
    };
    let response = request.send().await?;
    let status = response.status().as_u16();
    let body: Value = response.json().await?;
    anyhow::ensure!(status == 201, "{status}: {body}");
    Ok(body["id"].as_str().unwrap().to_owned())
}

/// A site whose receiver also serves a song.
async fn rig() -> Rig {
    let rig = Rig::new(1).await;
    let song = Reply::Content("audio/wav".to_owned(), tiny_song(1).into());
    rig.hooks.script("/song.wav", [song]);
    rig
}

/// Waits until all accepted tasks are queued, and returns the keys of all messages.
async fn queued(rig: &Rig) -> Vec<String> {
    let tasks = rig.task_store().await;
    eventually("no accepted task that is not queued", CLAIM_LIMIT, async || {
        anyhow::Ok(tasks.incoming(&mut IncomingCursor::default()).await?.is_empty())
    })
    .await;
    let messages = rig.kafka.consume_all(&rig.site.task_topic).await.unwrap();
    messages.iter().map(Record::key_text).collect()
}

async fn kill_while_a_task_is_accepted(song: Song, point: &'static str) {
    let rig = rig().await;
    let mark = rig.directory.path().join("mark");
    let killed = killed_at(api(&rig), point, &mark).start().unwrap();
    let first = post(&rig, address(&killed).await, song, "a").await;
    until_killed(&killed).await;
    let next = api(&rig).start().unwrap();
    let next = (address(&next).await, next);
    // A client that got no response sends its request again.
    let id = eventually("the task accepted", CLAIM_LIMIT, async || {
        post(&rig, next.0, song, "a").await.map(Some)
    })
    .await;
    if let Ok(first) = first {
        assert_eq!(first, id, "{song:?} killed at {point}");
    }
    let messages = queued(&rig).await;
    let published_again = usize::from(point == "task_published");
    assert_eq!(
        messages,
        vec![id; 1 + published_again],
        "{song:?} killed at {point}"
    );
    if let (Song::Link, "task_published" | "position_stored") = (song, point) {
        let requests = rig.hooks.requests_to("/song.wav").len();
        assert_eq!(requests, 1, "the link is fetched once; killed at {point}");
    }
}

#[tokio::test]
async fn an_api_killed_between_any_two_steps_loses_no_accepted_task() {
    let links = POINTS.map(|point| kill_while_a_task_is_accepted(Song::Link, point));
    join_all(links).await;
    let forms = POINTS.into_iter().chain(["song_received"]);
    join_all(forms.map(|point| kill_while_a_task_is_accepted(Song::Form, point))).await;
}

/// Two replicas, whose addresses change when they are restarted.
struct Replicas {
    workers: Vec<Worker>,
    addresses: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Replicas {
    async fn start(rig: &Rig) -> Self {
        let workers = vec![api(rig).start().unwrap(), api(rig).start().unwrap()];
        let addresses = join_all(workers.iter().map(address)).await;
        Self {
            workers,
            addresses: Arc::new(Mutex::new(addresses)),
        }
    }

    async fn kill_and_restart(&mut self, rig: &Rig, index: usize) {
        self.workers[index].kill_9().await.unwrap();
        let worker = api(rig).start().unwrap();
        let started = address(&worker).await;
        self.workers[index] = worker;
        self.addresses.lock().unwrap()[index] = started;
    }
}

#[tokio::test]
async fn one_idempotency_key_has_one_task_whichever_replica_is_killed() {
    let rig = rig().await;
    let mut replicas = Replicas::start(&rig).await;
    let addresses = Arc::clone(&replicas.addresses);
    let posted = |key: usize, replica: usize| {
        let (rig, addresses) = (&rig, Arc::clone(&addresses));
        async move {
            let key = key.to_string();
            eventually("the task accepted", CLAIM_LIMIT, async || {
                let address = addresses.lock().unwrap()[replica];
                post(rig, address, Song::Link, &key).await.map(Some)
            })
            .await
        }
    };
    let posting = stream::iter(0..KEYS).map(|key| {
        let both = join(posted(key, 0), posted(key, 1));
        async move {
            let (first, second) = both.await;
            assert_eq!(first, second, "key {key}");
            first
        }
    });
    let posting = posting.buffer_unordered(8).collect::<BTreeSet<String>>();
    let killing = async {
        for kill in 0..KILLS {
            replicas.kill_and_restart(&rig, kill % 2).await;
        }
    };
    let (ids, ()) = tokio::join!(posting, killing);
    assert_eq!(ids.len(), KEYS);
    let messages = BTreeSet::from_iter(queued(&rig).await);
    assert_eq!(messages, ids);
}

/// Stores a task that ended and whose webhook is due.
pub(crate) async fn schedule_webhook(rig: &Rig) -> TaskId {
    let tasks = rig.task_store().await;
    let id = TaskId::parse(&uuid::Uuid::new_v4().to_string()).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    // The client of an API without authentication.
    let client = "local".to_owned();
    let task = StoredTask {
        version: VERSION,
        id: id.clone(),
        client: client.clone(),
        fingerprint: String::new(),
        created_at: now,
        input: StoredInput {
            source: InputSource::File,
            file_name: None,
            duration_seconds: None,
        },
        output: Output::default(),
        webhook_url: Some(rig.hooks.url("/hook")),
        metadata: BTreeMap::new(),
        traceparent: String::new(),
    };
    tasks.create_task(&task).await.unwrap();
    let outcome = StoredOutcome {
        version: VERSION,
        id: id.clone(),
        state: EndState::Cancelled,
        finished_at: now,
        started_at: None,
        stems: Vec::new(),
        error: None,
    };
    tasks.create_outcome(&outcome).await.unwrap();
    let delivery = Delivery {
        id: id.clone(),
        client,
        url: rig.hooks.url("/hook"),
        attempts: 0,
        scheduled_at: now,
    };
    tasks.schedule_delivery(now, &delivery).await.unwrap();
    id
}

async fn kill_while_a_webhook_is_delivered(point: &'static str, first_status: u16) {
    let rig = rig().await;
    rig.hooks
        .script("/hook", [Reply::Status(first_status), Reply::Status(200)]);
    let id = schedule_webhook(&rig).await;
    let mark = rig.directory.path().join("mark");
    let killed = killed_at(api(&rig), point, &mark).start().unwrap();
    until_killed(&killed).await;
    let _next = api(&rig).start().unwrap();
    let tasks = rig.task_store().await;
    eventually("the webhook delivered", CLAIM_LIMIT, async || {
        let report = tasks.webhook_report(&id).await?;
        let is_delivered = report.is_some_and(|report| report.state == DeliveryState::Delivered);
        anyhow::Ok(is_delivered && tasks.due_deliveries(u64::MAX, 10).await?.is_empty())
    })
    .await;
    let requests = rig.hooks.requests_to("/hook");
    let ids: BTreeSet<&str> = requests
        .iter()
        .filter_map(|request| request.header("webhook-id"))
        .collect();
    assert_eq!(ids.len(), 1, "killed at {point}: {ids:?}");
    // Only an attempt whose report was not stored is repeated.
    let expected = match (point, first_status) {
        ("delivery_attempted", _) | (_, 503) => 2,
        _ => 1,
    };
    assert_eq!(requests.len(), expected, "killed at {point}");
}

#[tokio::test]
async fn an_api_killed_between_any_two_steps_of_a_delivery_loses_no_webhook() {
    let cases = [
        ("delivery_claimed", 200),
        ("delivery_attempted", 200),
        ("delivery_reported", 200),
    ];
    let cases = cases.map(|(point, status)| kill_while_a_webhook_is_delivered(point, status));
    join_all(cases).await;
    // The next attempt is stored, and maybe the one before it too.
    kill_while_a_webhook_is_delivered("delivery_rescheduled", 503).await;
}
