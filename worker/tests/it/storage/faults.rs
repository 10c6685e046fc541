//! A store that fails: the class of each error decides about retries.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use futures_util::{StreamExt as _, stream};
use separation_worker::error::ErrorClass;
use separation_worker::settings::{ObjectAddress, S3Credentials, S3Settings};
use separation_worker::storage::{AttemptId, S3, Staging, StemFiles, StorageError, TimeLimits};
use tokio::net::TcpListener;
use tokio::sync::Barrier;

use super::staging_area::{SOON, identity, provenance, settings, task};

/// A store that gives the same response to every request.
async fn store(answer: impl Fn() -> Response<Body> + Send + Sync + 'static) -> S3 {
    scripted(move |_| answer()).await
}

/// A store whose response depends on the path of the request.
pub(crate) async fn scripted(answer: impl Fn(&str) -> Response<Body> + Send + Sync + 'static) -> S3 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    let router = Router::new().fallback(move |uri: Uri| {
        let answer = Arc::clone(&answer);
        async move { answer(uri.path()) }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    client(address).await
}

/// An error response in S3's format.
pub(crate) fn error(status: u16, code: &str) -> Response<Body> {
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>scripted error</Message></Error>");
    let status = StatusCode::from_u16(status).unwrap();
    Response::builder().status(status).body(Body::from(body)).unwrap()
}

pub(super) async fn client(address: SocketAddr) -> S3 {
    let settings = S3Settings {
        endpoint: Some(format!("http://{address}").parse().unwrap()),
        credentials: Some(S3Credentials {
            access_key: "key".into(),
            secret_key: "secret".into(),
            session_token: Some("a temporary token".into()),
        }),
        region: None,
        bucket: None,
        stems_prefix: String::new(),
        public_domain: None,
        public_endpoint: None,
        path_style: true,
    };
    let second = Duration::from_secs(1);
    let times = TimeLimits {
        connect: second,
        request: second,
        server_side: second,
        stall: second,
    };
    S3::connect_within(&settings, times).await
}

fn object() -> ObjectAddress {
    "s3://bucket/object".parse().unwrap()
}

/// The errors of reading, looking up, writing and listing.
async fn failures(s3: &S3) -> [StorageError; 4] {
    [
        s3.read_small(&object(), 100).await.unwrap_err(),
        s3.head(&object()).await.unwrap_err(),
        s3.write_small(&object(), "x", None).await.unwrap_err(),
        s3.list(&object(), 10).await.unwrap_err(),
    ]
}

async fn check(status: u16, code: &'static str, class: ErrorClass) {
    let s3 = store(move || error(status, code)).await;
    for error in failures(&s3).await {
        assert_eq!(error.class(), class, "{error}");
        let text = error.to_string();
        assert!(
            text.contains("s3://bucket/object") && text.contains(&status.to_string()),
            "{text}"
        );
    }
}

#[tokio::test]
async fn requests_carry_the_session_token() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(async |headers: HeaderMap| {
        match headers
            .get("x-amz-security-token")
            .is_some_and(|token| token == "a temporary token")
        {
            true => StatusCode::OK,
            false => StatusCode::FORBIDDEN,
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    client(address)
        .await
        .write_small(&object(), "x", None)
        .await
        .unwrap();
}

/// A store that responds to an upload only while two are in progress.
#[tokio::test]
async fn both_stems_are_uploaded_at_the_same_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let two = Arc::new(Barrier::new(2));
    let router = Router::new().fallback(async move |request: Request| {
        if request.method() == Method::PUT {
            two.wait().await;
        }
        StatusCode::OK
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), Some("s3://bucket/staging/"), &[]);
    let staging = Staging::open(&settings, Some(client(address).await))
        .await
        .unwrap();
    let stem = directory.path().join("stem.wav");
    std::fs::write(&stem, "stem").unwrap();
    let stems = StemFiles {
        vocals: &stem,
        instrumental: &stem,
    };
    let stored = staging
        .store(
            &task("t1"),
            AttemptId::new(),
            stems,
            &identity(),
            ("model", &provenance()),
        )
        .await
        .unwrap();
    assert_eq!(stored.manifest().task_uuid, task("t1"));
}

#[tokio::test]
async fn errors_of_the_store_do_not_fail_the_object() {
    for (status, code) in [
        (500, "InternalError"),
        (503, "SlowDown"),
        (429, "TooManyRequests"),
        (403, "AccessDenied"),
        (403, "SignatureDoesNotMatch"),
        (404, "NoSuchBucket"),
        (301, "PermanentRedirect"),
        (501, "NotImplemented"),
    ] {
        check(status, code, ErrorClass::Dependency).await;
    }
}

#[tokio::test]
async fn a_404_from_another_server_does_not_mean_that_an_object_is_missing() {
    let s3 = store(|| {
        let page = Body::from("<html>404 page not found</html>");
        Response::builder().status(404).body(page).unwrap()
    })
    .await;
    for error in failures(&s3).await {
        assert!(!error.is_missing(), "{error}");
        let dependency = error.dependency().expect("a dependency");
        assert_eq!(dependency.name, "s3:404", "{error}");
    }
}

#[tokio::test]
async fn an_unreachable_store_is_a_failed_dependency() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for error in failures(&client(address).await).await {
        assert_eq!(error.class(), ErrorClass::Dependency, "{error}");
    }
}

#[tokio::test]
async fn a_truncated_object_is_an_error() {
    let s3 = store(|| {
        let pieces = [Ok("half"), Err(std::io::Error::other("cut"))];
        Response::builder()
            .header("content-length", "100")
            .body(Body::from_stream(stream::iter(pieces)))
            .unwrap()
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    for error in [
        s3.read_small(&object(), 1_000).await.unwrap_err(),
        s3.download(&object(), &directory.path().join("file"), 1_000)
            .await
            .unwrap_err(),
    ] {
        // The connection may break before the response is read.
        let expected_classes = [ErrorClass::Transient, ErrorClass::Dependency];
        assert!(expected_classes.contains(&error.class()), "{error}");
    }
}

#[tokio::test]
async fn requests_to_a_store_that_does_not_respond_time_out() {
    // The kernel accepts connections for a listener, but no process reads them.
    let unresponsive = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let s3 = client(unresponsive.local_addr().unwrap()).await;
    for error in tokio::time::timeout(SOON, failures(&s3)).await.expect("in time") {
        assert_eq!(error.class(), ErrorClass::Dependency, "{error}");
    }
}

#[tokio::test]
async fn a_stalled_object_times_out() {
    let s3 = store(|| {
        let pieces = stream::iter([Ok::<_, std::io::Error>("half")]).chain(stream::pending());
        let response = Response::builder().header("content-length", "100");
        response.body(Body::from_stream(pieces)).unwrap()
    })
    .await;
    let object = object();
    let read = s3.read_small(&object, 1_000);
    let error = tokio::time::timeout(SOON, read)
        .await
        .expect("in time")
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
}
