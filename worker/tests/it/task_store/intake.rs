//! Claims, open tasks, and tasks that are not queued yet.

use futures_util::{StreamExt as _, stream};
use separation_worker::task_store::{Incoming, IncomingCursor};

use super::{Bench, HOUR, now};
use crate::storage::staging_area::task as id;

#[tokio::test]
async fn a_claim_has_one_holder_until_the_end_of_its_minute() {
    let store = Bench::new().await.store;
    let claims = async |holder, now| store.claim("sweep", holder, now).await.unwrap();
    assert!(claims("a", 600).await);
    assert!(!claims("b", 601).await);
    assert!(claims("a", 659).await, "its holder holds it");
    assert!(store.claim("other", "b", 659).await.unwrap());
    assert!(claims("b", 660).await);

    assert!(store.renew("sweep", "b", 700).await.unwrap());
    assert!(!claims("a", 720).await);
    assert!(claims("b", 720).await);
    assert!(
        !store.renew("sweep", "a", 700).await.unwrap(),
        "another replica holds it"
    );
}

#[tokio::test]
async fn a_claim_ends_when_its_holder_releases_it() {
    let store = Bench::new().await.store;
    assert!(store.claim("key", "a", 645).await.unwrap());
    assert!(store.renew("key", "a", 645).await.unwrap());
    store.release("key", "b", 650).await.unwrap();
    assert!(!store.claim("key", "b", 650).await.unwrap(), "it is not b's");
    store.release("key", "a", 650).await.unwrap();
    assert!(store.claim("key", "b", 650).await.unwrap());
    assert!(store.claim("key", "b", 660).await.unwrap());
}

#[tokio::test]
async fn open_tasks_are_counted_for_each_client() {
    let store = Bench::new().await.store;
    for (client, name) in [("a", "t1"), ("a", "t2"), ("a-b", "t1"), ("a/b", "t1")] {
        store.put_open(client, &id(name)).await.unwrap();
    }
    assert_eq!(store.count_open("a", 10).await.unwrap(), 2);
    assert_eq!(store.count_open("a", 1).await.unwrap(), 1);
    for _ in 0..2 {
        store.close_open("a", &id("t1")).await.unwrap();
    }
    assert_eq!(store.count_open("a", 10).await.unwrap(), 1);
    assert_eq!(store.count_open("a/b", 10).await.unwrap(), 1);
    assert_eq!(store.count_open("none", 10).await.unwrap(), 0);
}

#[tokio::test]
async fn tasks_that_are_not_queued_are_listed_until_their_marks_are_deleted() {
    let bench = Bench::new().await;
    let store = &bench.store;
    // Of the area of a pool whose prefix of stems is `incoming/`, and others that are no marks.
    for other in ["v1/incoming/tasks/t9", "v1/incoming/a/b/t9", "v1/incoming/acme/-"] {
        bench.put(other, "").await;
    }
    let marks = [
        ("Ann Ä", "t2", true),
        ("acme", "t1", false),
        ("tasks", "t3", false),
    ];
    let marks = marks.map(|(client, name, is_staged)| Incoming {
        id: id(name),
        client: client.to_owned(),
        is_staged,
        accepted_at: 0,
    });
    for mark in &marks {
        store.put_incoming(mark).await.unwrap();
    }
    let listed = async || {
        let listed = store.incoming(&mut IncomingCursor::default()).await.unwrap();
        assert!(listed.iter().all(|mark| mark.accepted_at.abs_diff(now()) < HOUR));
        let marks = listed.into_iter().map(|mark| Incoming {
            accepted_at: 0,
            ..mark
        });
        let mut marks: Vec<Incoming> = marks.collect();
        marks.sort_by(|a, b| a.client.cmp(&b.client));
        marks
    };
    assert_eq!(listed().await, marks);
    assert!(store.is_incoming(&marks[0]).await.unwrap());
    store.delete_incoming(&marks[0]).await.unwrap();
    assert!(!store.is_incoming(&marks[0]).await.unwrap());
    assert_eq!(listed().await, marks[1..]);
}

#[tokio::test]
async fn a_list_of_more_than_1000_tasks_is_read_in_turns() {
    let bench = Bench::new().await;
    let put = |index: usize| {
        let key = format!("v1/incoming/acme/{index}");
        let bench = &bench;
        async move { bench.put(&key, "").await }
    };
    stream::iter(0..1_001)
        .map(put)
        .buffer_unordered(8)
        .collect::<Vec<()>>()
        .await;
    let mut cursor = IncomingCursor::default();
    for expected in [1_000, 1, 1_000] {
        let page = bench.store.incoming(&mut cursor).await.unwrap();
        assert_eq!(page.len(), expected);
    }
}
