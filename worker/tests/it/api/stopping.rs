//! Graceful shutdown of the API: running requests finish, no new ones are accepted, the producer is closed last.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Method, header};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::SONG;
use super::bench::{Answer, Bench, Form, eventually};

#[tokio::test]
async fn a_running_upload_is_finished_and_no_other_is_accepted() {
    let api = Bench::guarded(&[]).await;
    let (continue_upload, remaining) = oneshot::channel();
    let form = Form::default().field("audio", SONG).unfinished();
    let end = b"------tests-boundary--\r\n".to_vec();
    let body = futures_util::stream::iter([Ok::<_, std::io::Error>(form)]).chain(futures_util::stream::once(
        async {
            remaining.await.unwrap();
            Ok(end)
        },
    ));
    let request = api
        .request(Method::POST, "/tasks")
        .header(header::CONTENT_TYPE, Form::content_type())
        .body(reqwest::Body::wrap_stream(body));
    let running = tokio::spawn(Answer::of(request));
    eventually("the song arrives", || api.is_receiving()).await;

    api.stop.cancel();
    let address = api.url.strip_prefix("http://").unwrap().to_owned();
    let mut tries = tokio::time::interval(Duration::from_millis(5));
    let closed = async {
        while TcpStream::connect(&address).await.is_ok() {
            tries.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed)
        .await
        .unwrap();
    assert!(!*api.queue.closed.lock().unwrap());
    continue_upload.send(()).unwrap();
    assert_eq!(running.await.unwrap().status, 200);
    tokio::time::timeout(Duration::from_secs(10), api.ended)
        .await
        .unwrap()
        .unwrap();
    assert!(*api.queue.closed.lock().unwrap());
    assert_eq!(api.queue.tasks.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_idle_connection_does_not_delay_the_shutdown() {
    let api = Bench::guarded(&[]).await;
    assert_eq!(api.get("/tasks/abc").await.status, 404);
    let idle = TcpStream::connect(api.url.strip_prefix("http://").unwrap())
        .await
        .unwrap();
    api.stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), api.ended)
        .await
        .unwrap()
        .unwrap();
    drop(idle);
}
