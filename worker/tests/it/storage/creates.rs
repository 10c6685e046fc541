//! A store that refuses conditional writes: tasks of the HTTP API v1 still end once, and uploaders still sweep.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Response, Uri, header};
use separation_worker::settings::S3Settings;
use separation_worker::storage::S3;
use separation_worker::task_store::{Created, EndState, StoredOutcome, TaskStore, VERSION};
use tokio::net::TcpListener;

use super::faults::error;
use super::staging_area::{s3_settings, task};

/// The tasks in a store that answers conditional writes with NotImplemented.
async fn without_conditional_writes() -> TaskStore {
    let objects: Arc<Mutex<HashMap<String, Bytes>>> = Arc::default();
    let router = Router::new().fallback(
        move |method: Method, uri: Uri, headers: HeaderMap, content: Bytes| async move {
            if headers.contains_key(header::IF_NONE_MATCH) {
                return error(501, "NotImplemented");
            }
            let mut objects = objects.lock().unwrap();
            let key = uri.path().to_owned();
            if method == Method::PUT {
                objects.insert(key.clone(), content);
            }
            match objects.get(&key) {
                Some(object) => Response::builder()
                    .header(header::ETAG, "\"1\"")
                    .body(Body::from(object.clone()))
                    .unwrap(),
                None => error(404, "NoSuchKey"),
            }
        },
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let settings = S3Settings {
        endpoint: Some(endpoint.parse().unwrap()),
        ..s3_settings("bucket").await
    };
    TaskStore::new(S3::connect(&settings).await, &settings).unwrap()
}

fn outcome(state: EndState) -> StoredOutcome {
    StoredOutcome {
        version: VERSION,
        id: task("t1"),
        state,
        finished_at: 1,
        started_at: None,
        stems: Vec::new(),
        error: None,
    }
}

#[tokio::test]
async fn a_store_that_refuses_conditional_writes_still_has_one_outcome_and_one_holder_of_a_claim() {
    let store = without_conditional_writes().await;
    assert!(!store.has_conditional_writes().await.unwrap());

    let (first, second) = (outcome(EndState::Succeeded), outcome(EndState::Cancelled));
    assert_eq!(store.create_outcome(&first).await.unwrap(), Created::New);
    assert_eq!(store.create_outcome(&second).await.unwrap(), Created::Exists);
    assert_eq!(store.outcome(&task("t1")).await.unwrap(), Some(first));

    assert!(store.claim("sweep", "a", 600).await.unwrap());
    assert!(!store.claim("sweep", "b", 600).await.unwrap());
    assert!(store.claim("sweep", "a", 600).await.unwrap());
}
