//! Workers whose environment names a proxy: the object store is behind it, the addresses of clients are not.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use separation_contract::environment as env;
use separation_testbed::{Reply, WorkerOptions, eventually, tiny_song};
use separation_worker::model::sha256_of_file;
use serde_json::json;

use crate::fault_proxy::FaultProxy;
use crate::rig::{MODELS, Rig, STEP_TIMEOUT, WORKER, http};

#[tokio::test]
async fn the_store_is_reached_through_the_proxy_and_addresses_of_clients_directly() {
    let rig = Rig::new(1).await;
    let bucket = &rig.site.bucket;
    let song = Reply::Content("audio/wav".to_owned(), tiny_song(1).into());
    rig.hooks.script("/song.wav", [song]);
    let model = Path::new(MODELS).join("identity_tiny.onnx");
    for (key, file) in [
        ("models/a.onnx", model.clone()),
        ("models/a.json", model.with_extension("json")),
    ] {
        rig.s3
            .put(bucket, key, std::fs::read(file).unwrap())
            .await
            .unwrap();
    }
    // It forwards everything to the object store, which has neither the link's song nor a webhook receiver.
    let proxied = Arc::new(Mutex::new(BTreeSet::new()));
    let paths = Arc::clone(&proxied);
    let proxy = FaultProxy::start(rig.s3.address(), move |request| {
        paths.lock().unwrap().insert(request.path.to_owned());
        None
    })
    .await;
    let start = |options: WorkerOptions| {
        options
            .env("HTTP_PROXY", proxy.endpoint())
            .env("NO_PROXY", "")
            .env(env::S3_ENDPOINT_URL, "http://s3.example")
            .start()
            .unwrap()
    };
    let processor = rig
        .processor()
        .env(env::MODEL_URI, format!("s3://{bucket}/models/a.onnx"))
        .env(env::MODEL_SHA256, sha256_of_file(&model).unwrap())
        .env(env::MODEL_CACHE_DIR, rig.directory.path().join("cache"));
    let _processor = start(processor);
    let _uploader = start(rig.uploader());
    let api = rig.site.worker(WORKER, "api").env(env::API_HOST, "127.0.0.1");
    let api = start(api.env(env::API_PORT, "0"));
    let address = api.address("API listens", STEP_TIMEOUT).await.unwrap();
    let posted = http()
        .post(format!("http://{address}/v1/tasks"))
        .header("idempotency-key", "a")
        .json(&json!({"input": {"url": rig.hooks.url("/song.wav")}}));
    assert_eq!(posted.send().await.unwrap().status(), 201);
    let tasks = [rig.submit(2).await].into();
    rig.wait_for_webhooks(&tasks).await;
    eventually("the song of the link fetched", STEP_TIMEOUT, async || {
        rig.hooks.requests_to("/song.wav").len() == 1
    })
    .await;
    rig.wait_until_committed().await;
    rig.check_done(&tasks).await;
    let proxied = proxied.lock().unwrap();
    assert!(
        proxied.contains(&format!("/{bucket}/models/a.onnx")),
        "{proxied:?}"
    );
    for of_a_client in ["/song.wav", "/hook"] {
        assert!(!proxied.contains(of_a_client), "{proxied:?}");
    }
}
