//! Tasks that are left behind: by interrupted requests, and by workers.

use std::collections::BTreeMap;
use std::time::Duration;

use separation_contract::api_task::Output;
use separation_testbed::{eventually, tiny_song};
use separation_worker::task_store::{EndState, Incoming, InputSource, StoredInput, StoredTask, VERSION};

use super::bench::Songs;
use super::v1_bench::{LIMIT, V1Store, outcome, task_id};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A task of the client `acme`, whose song was in the request.
fn record(id: &str) -> StoredTask {
    StoredTask {
        version: VERSION,
        id: task_id(id),
        client: "acme".to_owned(),
        fingerprint: String::new(),
        created_at: 1_763_683_200,
        input: StoredInput {
            source: InputSource::File,
            file_name: None,
            duration_seconds: None,
        },
        output: Output::default(),
        webhook_url: None,
        metadata: BTreeMap::new(),
        traceparent: String::new(),
    }
}

#[tokio::test]
async fn what_an_interrupted_request_left_is_removed_after_an_hour() {
    let prepared = V1Store::new().await;
    let store = &prepared.store;
    for (id, age) in [("old", HOUR * 2), ("young", HOUR / 2)] {
        let task = record(id);
        store.put_open("acme", &task.id).await.unwrap();
        store.put_incoming(&Incoming::of(&task)).await.unwrap();
        prepared.set_age(&format!("v1/incoming/acme/{id}.staged"), age);
    }
    let api = prepared.start(&[]).await;
    eventually("the old mark removed", LIMIT, async || {
        api.incoming().await.len() == 1
    })
    .await;
    assert_eq!(api.incoming().await[0].id, task_id("young"));
    assert_eq!(api.objects_of("old").await, Vec::<String>::new());
    assert_eq!(api.store.count_open("acme", 10).await.unwrap(), 1);
    assert_eq!(api.queued(), []);
}

#[tokio::test]
async fn a_mark_of_an_interrupted_form_does_not_replace_the_fetch_of_a_link() {
    let prepared = V1Store::new().await;
    let songs = Songs::start(tiny_song(1).leak()).await;
    let form = record("a");
    let link = StoredTask {
        input: StoredInput {
            source: InputSource::Url(songs.at("/song.mp3")),
            ..form.input.clone()
        },
        ..form.clone()
    };
    for task in [&form, &link] {
        prepared.store.put_incoming(&Incoming::of(task)).await.unwrap();
    }
    prepared.store.create_task(&link).await.unwrap();
    let api = prepared.start(&[]).await;
    api.wait_until_queued("a").await;
    assert_eq!(api.queued().len(), 1);
    assert_eq!(api.api.files.inputs.lock().unwrap()["a"], tiny_song(1));
}

#[tokio::test]
async fn an_old_task_fails_once_no_worker_can_process_it() {
    let prepared = V1Store::new().await;
    let store = &prepared.store;
    for (id, age) in [("gone", 25), ("incoming", 25), ("ended", 25), ("young", 23)] {
        let task = record(id);
        store.create_task(&task).await.unwrap();
        store.put_open("acme", &task.id).await.unwrap();
        prepared.set_age(&format!("v1/tasks/acme/{id}.json"), HOUR * age);
    }
    let incoming = Incoming::of(&record("incoming"));
    store.put_incoming(&incoming).await.unwrap();
    let ended = outcome(&task_id("ended"), EndState::Cancelled, 1);
    store.create_outcome(&ended).await.unwrap();

    let api = prepared.start(&[]).await;
    let failed = api.wait_for_state("gone", "failed").await;
    assert_eq!(failed["error"]["code"], "not_processed", "{failed}");
    api.wait_until_queued("incoming").await;
    for id in ["incoming", "young"] {
        assert_eq!(api.store.outcome(&task_id(id)).await.unwrap(), None, "{id}");
    }
    assert_eq!(api.store.outcome(&ended.id).await.unwrap(), Some(ended));
    assert_eq!(api.store.count_open("acme", 10).await.unwrap(), 3);
}
