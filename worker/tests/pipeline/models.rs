//! A processor whose model is at an address, while the server fails or is slow.

use std::convert::Infallible;
use std::future::ready;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use separation_contract::environment as env;
use separation_worker::model::sha256_of_file;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::rig::{MODELS, Rig, STEP_TIMEOUT, admin, ask};

/// A server that answers 503 until it `is_up`, and then sends the end of a model only when it is notified.
#[derive(Debug, Default)]
struct Server {
    is_up: AtomicBool,
    sends_end: Notify,
}

impl Server {
    fn send(self: Arc<Self>, model: &Bytes) -> Response {
        if !self.is_up.load(Ordering::Relaxed) {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let (begin, end) = (model.slice(..100), model.slice(100..));
        let end = async move {
            self.sends_end.notified().await;
            Ok::<_, Infallible>(end)
        };
        Body::from_stream(stream::iter([Ok(begin)]).chain(stream::once(end))).into_response()
    }
}

#[tokio::test]
async fn a_hold_ends_when_the_server_begins_to_send_the_model() {
    let rig = Rig::new(1).await;
    let file = Path::new(MODELS).join("identity_tiny.onnx");
    let model = Bytes::from(std::fs::read(&file).unwrap());
    let sidecar = std::fs::read(file.with_extension("json")).unwrap();
    let server = Arc::new(Server::default());
    let shared = Arc::clone(&server);
    let app = Router::new()
        .route("/a.onnx", get(move || ready(Arc::clone(&shared).send(&model))))
        .route("/a.json", get(move || ready(sidecar.clone())));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });

    let processor = rig
        .processor()
        .env(env::MODEL_URI, format!("http://{address}/a.onnx"))
        .env(env::MODEL_SHA256, sha256_of_file(&file).unwrap())
        .env(env::MODEL_CACHE_DIR, rig.directory.path().join("cache"));
    let processor = processor.start().unwrap();
    let held = processor.wait_for_log("On hold", STEP_TIMEOUT).await.unwrap();
    assert_eq!(held.fields["dependency"], "model:unreachable", "{held:?}");
    server.is_up.store(true, Ordering::Relaxed);
    processor
        .wait_for_log("No longer on hold", STEP_TIMEOUT)
        .await
        .unwrap();
    let (_, status) = ask(admin(&processor).await, "/status").await.unwrap();
    assert!(
        status.contains("starting") && !status.contains("model:unreachable"),
        "{status}"
    );
    server.sends_end.notify_one();
    processor
        .wait_for_log("Model loaded", STEP_TIMEOUT)
        .await
        .unwrap();
}
