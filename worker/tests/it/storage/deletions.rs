//! Sweeps of a store that refuses to delete one object.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Query;
use axum::http::{Method, Response, StatusCode, Uri};
use separation_worker::storage::{Finals, S3, Staging};
use tokio::net::TcpListener;

use super::faults::{client, error};
use super::staging_area::{s3_settings, settings};

/// A time long after that of every object, in Unix seconds.
const NOW: u64 = 1_763_683_200;

/// The answer to a listing of these object keys.
fn listing(keys: &[&str]) -> Response<Body> {
    let entries = keys.iter().map(|key| {
        format!("<Contents><Key>{key}</Key><LastModified>2020-01-01T00:00:00.000Z</LastModified><Size>1</Size></Contents>")
    });
    let entries: String = entries.collect();
    let body = format!(
        "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
    );
    Response::new(Body::from(body))
}

/// A store with these objects, which refuses to delete the first one; and the paths of the others that it deleted.
async fn refusing_the_first(keys: &'static [&'static str]) -> (S3, Arc<Mutex<Vec<String>>>) {
    let deleted: Arc<Mutex<Vec<String>>> = Arc::default();
    let recorded = Arc::clone(&deleted);
    let router = Router::new().fallback(
        move |method: Method, uri: Uri, Query(query): Query<HashMap<String, String>>| async move {
            let path = uri.path().to_owned();
            if query.contains_key("list-type") {
                return listing(keys);
            }
            if method != Method::DELETE {
                return error(404, "NoSuchKey");
            }
            if path.ends_with(keys[0]) {
                return error(403, "AccessDenied");
            }
            recorded.lock().unwrap().push(path);
            let response = Response::builder().status(StatusCode::NO_CONTENT);
            response.body(Body::empty()).unwrap()
        },
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (client(address).await, deleted)
}

#[tokio::test]
async fn a_stem_that_cannot_be_deleted_keeps_no_other_one() {
    let keys: &[&str] = &[
        "0f3c1f6e-0000-4000-8000-000000000001_vocals.wav",
        "0f3c1f6e-0000-4000-8000-000000000002_vocals.wav",
    ];
    let (s3, deleted) = refusing_the_first(keys).await;
    let finals = Finals::new(s3, &s3_settings("bucket").await).unwrap();
    assert_eq!(finals.remove_old(NOW, Duration::ZERO).await.unwrap(), 1);
    assert_eq!(*deleted.lock().unwrap(), [format!("/bucket/{}", keys[1])]);
}

#[tokio::test]
async fn a_song_that_cannot_be_deleted_keeps_no_other_one() {
    let keys: &[&str] = &["staging/inputs/t1_input.wav", "staging/inputs/t2_input.wav"];
    let (s3, deleted) = refusing_the_first(keys).await;
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), Some("s3://bucket/staging/"), &[]);
    let staging = Staging::open(&settings, Some(s3)).await.unwrap();
    assert_eq!(staging.remove_inputs_before(NOW).await.unwrap(), 1);
    assert_eq!(*deleted.lock().unwrap(), [format!("/bucket/{}", keys[1])]);
}
