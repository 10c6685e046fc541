//! Calls to real servers on this machine. Its addresses are private, so each test allows those that it calls.

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::error::ErrorClass;

const LIMITS: DownloadLimits = DownloadLimits {
    max_bytes: 1_000,
    total: Duration::from_secs(20),
    idle: Duration::from_secs(10),
};

/// Redirects to the value of `?to=`.
async fn redirect(Path(status): Path<u16>, uri: Uri) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    let to = uri
        .query()
        .and_then(|query| query.strip_prefix("to="))
        .expect("a target");
    (status, [(header::LOCATION, to.to_owned())]).into_response()
}

/// One piece, then no more data and no end.
async fn stuck_body() -> Response {
    let begin = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"begin"))]);
    Body::from_stream(begin.chain(futures_util::stream::pending())).into_response()
}

/// `bytes` bytes, without `Content-Length`.
async fn endless(Path(bytes): Path<usize>) -> Response {
    let pieces = std::iter::repeat_n(Ok::<_, std::convert::Infallible>(Bytes::from_static(b"x")), bytes);
    Body::from_stream(futures_util::stream::iter(pieces)).into_response()
}

async fn echo(headers: HeaderMap, body: Bytes) -> Response {
    let id = headers.get("webhook-id").map(|id| id.as_bytes().to_vec());
    assert_eq!(id.as_deref(), Some(b"task-1".as_slice()));
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(&body[..], b"{}");
    StatusCode::ACCEPTED.into_response()
}

/// Returns the request's `Authorization`, or `none`.
async fn authorization(headers: HeaderMap) -> String {
    let authorization = headers.get(header::AUTHORIZATION);
    authorization.map_or_else(|| "none".into(), |value| value.to_str().expect("text").to_owned())
}

/// Ten bytes with an `ETag`; continues where `Range` starts if `If-Range` has that tag.
async fn resumable(headers: HeaderMap) -> Response {
    let content = "0123456789";
    let text = |name| headers.get(name).map(|value| value.to_str().expect("text"));
    let range = text(header::RANGE).and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
    let etag = (header::ETAG, "\"v1\"".to_owned());
    match range.filter(|_| text(header::IF_RANGE) == Some("\"v1\"")) {
        Some(first) => {
            let rest = &content[first.parse::<usize>().expect("a number")..];
            let range = (header::CONTENT_RANGE, format!("bytes {first}-9/10"));
            (StatusCode::PARTIAL_CONTENT, [etag, range], rest).into_response()
        }
        None => ([etag], content).into_response(),
    }
}

/// A part with this `ETag` and `Content-Range`, whatever is requested.
async fn part(Path((etag, range, total)): Path<(String, String, String)>) -> Response {
    let headers = [
        (header::ETAG, format!("\"{etag}\"")),
        (header::CONTENT_RANGE, format!("bytes {range}/{total}")),
    ];
    (StatusCode::PARTIAL_CONTENT, headers, "456789").into_response()
}

async fn serve() -> SocketAddr {
    let app = Router::new()
        .route("/song", get(|| async { "song" }))
        .route("/who", get(authorization))
        .route("/resumable", get(resumable))
        .route("/part/{etag}/{range}/{total}", get(part))
        .route(
            "/status/{status}",
            any(|Path(status): Path<u16>| async move { StatusCode::from_u16(status).expect("a status") }),
        )
        .route("/redirect/{status}", any(redirect))
        .route(
            "/loop",
            get(|| async { (StatusCode::FOUND, [(header::LOCATION, "/loop")]) }),
        )
        .route("/nowhere", get(|| async { StatusCode::FOUND }))
        .route("/stuck", get(stuck_body))
        .route("/hang", any(pending::<StatusCode>))
        .route("/bytes/{bytes}", get(endless))
        .route("/echo", post(echo));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn client(allowed: &[&str]) -> Client {
    let allowed: Vec<_> = allowed
        .iter()
        .map(|text| text.parse().expect("allowed"))
        .collect();
    Client::new(&allowed)
}

async fn fetch(client: &Client, url: &str, limits: DownloadLimits) -> Result<Vec<u8>, OutboundError> {
    let pieces = client.get(url, limits).await?.into_stream();
    pieces
        .try_fold(Vec::new(), |mut all, piece| async move {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await
}

async fn post_to(client: &Client, url: &str) -> Result<u16, OutboundError> {
    let headers = [("webhook-id", "task-1".to_owned())];
    client
        .post_json(url, &headers, b"{}".to_vec(), Duration::from_secs(20))
        .await
}

#[track_caller]
fn check_refused<T: std::fmt::Debug>(result: Result<T, OutboundError>, expected: Rule) {
    let error = result.expect_err("refused");
    assert!(error.to_string().contains("OUTBOUND_ALLOW"), "{error}");
    match error {
        OutboundError::Refused { rule, .. } => assert_eq!(rule, expected),
        other => panic!("refused for another reason: {other:?}"),
    }
}

#[tokio::test]
async fn allowed_addresses_are_fetched_and_posted_to() {
    let server = serve().await;
    let client = client(&["127.0.0.0/8"]);
    let song = fetch(&client, &format!("http://{server}/song"), LIMITS).await;
    assert_eq!(song.expect("a song"), b"song");
    let posted = post_to(&client, &format!("http://{server}/echo")).await;
    assert_eq!(posted.expect("an answer"), 202);
    let refusing = post_to(&client, &format!("http://{server}/status/500")).await;
    assert_eq!(refusing.expect("an answer"), 500);
}

#[tokio::test]
async fn private_addresses_are_refused_in_every_spelling() {
    let port = serve().await.port();
    let client = client(&[]);
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "127.0.0.1.",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "%31%32%37.0.0.1",
        "user:password@127.0.0.1",
    ] {
        let url = format!("http://{host}:{port}/song");
        check_refused(client.get(&url, LIMITS).await, Rule::Loopback);
        check_refused(post_to(&client, &url).await, Rule::Loopback);
    }
    let metadata = "http://169.254.169.254/latest/meta-data/";
    check_refused(client.get(metadata, LIMITS).await, Rule::LinkLocal);
}

#[tokio::test]
async fn a_host_name_is_checked_by_its_resolved_addresses() {
    let port = serve().await.port();
    let url = format!("http://localhost:{port}/song");
    check_refused(client(&["10.0.0.0/8"]).get(&url, LIMITS).await, Rule::Loopback);
    for allowed in ["localhost", "127.0.0.1"] {
        let song = fetch(&client(&[allowed]), &url, LIMITS).await;
        assert_eq!(song.expect("allowed"), b"song");
    }
}

#[tokio::test]
async fn only_http_addresses_with_a_host_are_called() {
    for url in [
        "ftp://example.com/x",
        "file:///etc/passwd",
        "song.wav",
        "http://",
        "data:,x",
    ] {
        let error = client(&[]).get(url, LIMITS).await.expect_err("no address");
        assert!(matches!(error, OutboundError::Url(_)), "{url}: {error:?}");
        assert_eq!(error.class(), ErrorClass::Permanent);
    }
}

#[tokio::test]
async fn an_encrypted_client_calls_http_only_at_hosts_that_are_named() {
    let port = serve().await.port();
    let client = client(&["localhost", "10.0.0.0/8"]).encrypted();
    let song = fetch(&client, &format!("http://localhost:{port}/song"), LIMITS).await;
    assert_eq!(song.expect("a song"), b"song");
    for url in [
        "http://songs.example/song".to_owned(),
        format!("http://localhost:{port}/redirect/302?to=http://songs.example/song"),
    ] {
        let error = client.get(&url, LIMITS).await.expect_err("not encrypted");
        assert!(
            matches!(error, OutboundError::Unencrypted { .. }),
            "{url}: {error:?}"
        );
        assert_eq!(error.class(), ErrorClass::Permanent);
    }
}

#[tokio::test]
async fn redirects_are_followed_within_limits() {
    let server = serve().await;
    let client = client(&["127.0.0.1"]);
    for status in [301, 302, 303, 307, 308] {
        let url = format!("http://{server}/redirect/{status}?to=/redirect/302?to=/song");
        assert_eq!(fetch(&client, &url, LIMITS).await.expect("redirected"), b"song");
    }
    let error = client.get(&format!("http://{server}/loop"), LIMITS).await;
    let error = error.expect_err("no end");
    assert!(
        matches!(error, OutboundError::TooManyRedirects { .. }),
        "{error:?}"
    );
    let error = client.get(&format!("http://{server}/nowhere"), LIMITS).await;
    let error = error.expect_err("no target");
    assert!(
        matches!(error, OutboundError::Redirect { status: 302, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_redirect_to_a_private_address_is_refused() {
    let port = serve().await.port();
    // The name is allowed, the address behind it is not.
    let client = client(&["localhost"]);
    for target in [
        format!("http://127.0.0.1:{port}/song"),
        format!("http://[::ffff:127.0.0.1]:{port}/song"),
        format!("//127.1:{port}/song"),
    ] {
        let url = format!("http://localhost:{port}/redirect/302?to={target}");
        check_refused(client.get(&url, LIMITS).await, Rule::Loopback);
        let url = format!("http://localhost:{port}/redirect/307?to={target}");
        check_refused(post_to(&client, &url).await, Rule::Loopback);
    }
    let url = format!("http://localhost:{port}/redirect/302?to=http://169.254.169.254/");
    check_refused(client.get(&url, LIMITS).await, Rule::LinkLocal);
    let url = format!("http://localhost:{port}/redirect/302?to=file:///etc/passwd");
    let error = client.get(&url, LIMITS).await.expect_err("not http");
    assert!(matches!(error, OutboundError::Url(_)), "{error:?}");
}

#[tokio::test]
async fn a_post_is_redirected_only_as_a_post() {
    let server = serve().await;
    let client = client(&["127.0.0.1"]);
    for status in [307, 308] {
        let url = format!("http://{server}/redirect/{status}?to=/echo");
        assert_eq!(post_to(&client, &url).await.expect("redirected"), 202);
    }
    for status in [301, 302, 303] {
        let url = format!("http://{server}/redirect/{status}?to=/song");
        let error = post_to(&client, &url).await.expect_err("would become a GET");
        assert!(error.to_string().contains("307 or 308"), "{error}");
        assert_eq!(error.class(), ErrorClass::Permanent);
    }
}

#[tokio::test]
async fn a_single_post_follows_no_redirect_and_checks_its_address() {
    let server = serve().await;
    let client = client(&["127.0.0.1"]);
    let once = async |url: String| {
        client
            .post_json_once(&url, &[], b"{}".to_vec(), Duration::from_secs(20))
            .await
    };
    for status in [302, 307] {
        let response = once(format!("http://{server}/redirect/{status}?to=/nowhere")).await;
        assert_eq!(response.expect("an answer").status, status);
    }
    check_refused(once("http://10.0.0.1/hook".to_owned()).await, Rule::Private);
}

#[tokio::test]
async fn a_password_is_sent_only_to_its_host_and_is_in_no_error() {
    let port = serve().await.port();
    let client = client(&["localhost", "127.0.0.1"]);
    let own = format!("http://user:secret@localhost:{port}/redirect/302?to=/who");
    let own = fetch(&client, &own, LIMITS).await.expect("an answer");
    assert!(own.starts_with(b"Basic "), "{}", String::from_utf8_lossy(&own));
    let other = format!("http://user:secret@localhost:{port}/redirect/302?to=http://127.0.0.1:{port}/who");
    assert_eq!(fetch(&client, &other, LIMITS).await.expect("an answer"), b"none");

    // A port on which no process listens any more.
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = closed.local_addr().expect("bound");
    drop(closed);
    for url in [
        format!("http://user:secret@{address}/?token=secret"),
        format!("http://user:secret@localhost:{port}/status/404?token=secret"),
        format!("http://user:secret@[::1]:{port}/?token=secret"),
    ] {
        let error = client.get(&url, LIMITS).await.expect_err("no answer");
        let all = format!("{} {error:?}", crate::work::chain(&error));
        assert!(!all.contains("secret"), "{all}");
    }
}

#[tokio::test]
async fn sizes_are_limited_with_and_without_a_content_length() {
    let server = serve().await;
    let client = client(&["127.0.0.1"]);
    let exact = fetch(&client, &format!("http://{server}/bytes/1000"), LIMITS).await;
    assert_eq!(exact.expect("fits").len(), 1_000);
    let limits = DownloadLimits {
        max_bytes: 3,
        ..LIMITS
    };
    for path in ["song", "bytes/1001"] {
        let error = fetch(&client, &format!("http://{server}/{path}"), limits).await;
        let error = error.expect_err("too large");
        assert!(
            matches!(error, OutboundError::TooLarge { limit_bytes: 3, .. }),
            "{error:?}"
        );
        assert_eq!(error.class(), ErrorClass::Permanent);
    }
}

#[tokio::test]
async fn an_interrupted_download_continues_unless_the_content_has_changed() {
    let server = serve().await;
    let client = client(&["127.0.0.1"]);
    let url = format!("http://{server}/redirect/302?to=/resumable");
    let first = client.get(&url, LIMITS).await.expect("an answer");
    assert_eq!((first.offset(), first.total_bytes()), (0, Some(10)));
    let stored = ResumeFrom {
        offset: 4,
        validator: first.validator().expect("an ETag"),
    };
    let changed = ResumeFrom {
        validator: "\"v0\"".to_owned(),
        ..stored.clone()
    };
    for (from, offset, expected) in [(&stored, 4, "456789"), (&changed, 0, "0123456789")] {
        let download = client
            .get_from(&url, Some(from), LIMITS)
            .await
            .expect("an answer");
        assert_eq!((download.offset(), download.total_bytes()), (offset, Some(10)));
        let rest: Vec<Bytes> = download.into_stream().try_collect().await.expect("complete");
        assert_eq!(rest.concat(), expected.as_bytes());
    }
    let small = DownloadLimits {
        max_bytes: 9,
        ..LIMITS
    };
    let error = client.get_from(&url, Some(&stored), small).await;
    assert!(matches!(error, Err(OutboundError::TooLarge { .. })), "{error:?}");
}

#[tokio::test]
async fn only_the_rest_of_the_same_content_continues_a_download() {
    let server = serve().await;
    let client = client(&["127.0.0.1"]);
    let stored = ResumeFrom {
        offset: 4,
        validator: "\"v1\"".to_owned(),
    };
    for (part, continues) in [
        ("v1/4-9/10", true),
        ("v1/4-9/*", true),
        ("v2/4-9/10", false),
        ("v1/4-8/10", false),
        ("v1/3-9/10", false),
    ] {
        let url = format!("http://{server}/part/{part}");
        let opened = client.get_from(&url, Some(&stored), LIMITS).await;
        match opened {
            Ok(download) => assert_eq!((download.offset(), continues), (4, true), "{part}"),
            Err(OutboundError::Part { .. }) => assert!(!continues, "{part}"),
            Err(error) => panic!("{part}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn requests_to_servers_that_hang_time_out() {
    let server = serve().await;
    let client = client(&["127.0.0.1"]);
    let short = Duration::from_millis(50);
    let idle = DownloadLimits {
        idle: short,
        ..LIMITS
    };
    let short_total = DownloadLimits {
        total: short,
        ..LIMITS
    };
    for path in ["hang", "stuck"] {
        let url = format!("http://{server}/{path}");
        let error = fetch(&client, &url, idle).await.expect_err("silent");
        assert!(matches!(error, OutboundError::IdleTimeout { .. }), "{error:?}");
        assert_eq!(error.class(), ErrorClass::Transient);
        let error = fetch(&client, &url, short_total).await.expect_err("slow");
        assert!(matches!(error, OutboundError::Timeout { .. }), "{error:?}");
    }
    let url = format!("http://{server}/hang");
    let error = client.post_json(&url, &[], Vec::new(), short).await;
    assert!(matches!(error, Err(OutboundError::Timeout { .. })), "{error:?}");
}

#[tokio::test]
async fn the_status_decides_whether_a_request_is_retried() {
    let server = serve().await;
    let client = client(&["127.0.0.1"]);
    for (status, class) in [
        (404, ErrorClass::Permanent),
        (403, ErrorClass::Permanent),
        (429, ErrorClass::Transient),
        (503, ErrorClass::Transient),
    ] {
        let error = client
            .get(&format!("http://{server}/status/{status}"), LIMITS)
            .await;
        assert_eq!(error.expect_err("no success").class(), class, "{status}");
    }
}
