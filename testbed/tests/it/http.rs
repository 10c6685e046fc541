//! The webhook receiver.

use std::time::Duration;

use bytes::Bytes;
use separation_testbed::{Receiver, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends a raw request and returns everything up to the end of the connection.
async fn send(receiver: &Receiver, request: &str) -> String {
    let mut stream = TcpStream::connect(receiver.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    // A body that is cut off ends in an error.
    let _ = stream.read_to_end(&mut response).await;
    String::from_utf8(response).unwrap()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn requests_are_recorded_and_get_the_scripted_responses() {
    let receiver = Receiver::start().await.unwrap();
    receiver.script(
        "/hook",
        [
            Reply::Status(500),
            Reply::Redirect("/else".into()),
            Reply::Status(204),
        ],
    );
    let post = "POST /hook HTTP/1.1\r\nhost: x\r\nwebhook-id: 7\r\ncontent-length: 8\r\nconnection: close\r\n\r\n{\"a\": 1}";
    for expected in ["HTTP/1.1 500", "HTTP/1.1 302", "HTTP/1.1 204", "HTTP/1.1 204"] {
        let response = send(&receiver, post).await;
        assert!(response.starts_with(expected), "{response}");
    }
    let requests = receiver
        .wait_for(|requests| requests.len() == 4, TIMEOUT)
        .await
        .unwrap();
    assert_eq!(
        (requests[0].method.as_str(), requests[0].path.as_str()),
        ("POST", "/hook")
    );
    assert_eq!(
        (requests[0].header("webhook-id"), &requests[0].json()["a"]),
        (Some("7"), &1.into())
    );
    assert!(
        send(&receiver, &get("/other?x=1"))
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert_eq!(receiver.requests_to("/other?x=1").len(), 1);
    let missing = receiver
        .wait_for(|requests| requests.len() == 9, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(missing.to_string().contains("/hook"), "{missing}");
}

#[tokio::test]
async fn songs_can_be_served_and_responses_can_hang_and_break_off() {
    let receiver = Receiver::start().await.unwrap();
    receiver.script(
        "/song.wav",
        [Reply::Content("audio/wav".into(), Bytes::from_static(b"RIFF"))],
    );
    let song = send(&receiver, &get("/song.wav")).await;
    assert!(
        song.contains("content-type: audio/wav") && song.ends_with("RIFF"),
        "{song}"
    );
    receiver.script("/half", [Reply::BrokenOff(Bytes::from_static(b"half"))]);
    let half = send(&receiver, &get("/half")).await;
    // A complete chunked body would end in an empty chunk.
    assert!(half.contains("half") && !half.ends_with("0\r\n\r\n"), "{half}");
    receiver.script(
        "/late",
        [Reply::After(
            Duration::from_millis(200),
            Box::new(Reply::Status(200)),
        )],
    );
    let start = std::time::Instant::now();
    assert!(send(&receiver, &get("/late")).await.starts_with("HTTP/1.1 200"));
    assert!(start.elapsed() >= Duration::from_millis(200));
    receiver.script("/never", [Reply::Hang]);
    let never = tokio::time::timeout(Duration::from_millis(200), send(&receiver, &get("/never"))).await;
    assert!(never.is_err() && receiver.requests_to("/never").len() == 1);
}
