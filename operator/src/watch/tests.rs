//! Watches against a scripted API server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use kube::client::{Body, ClientBuilder};
use serde_json::json;
use tokio::time::timeout;
use tower::util::MapResponseLayer;
use tower::{BoxError, service_fn};

use super::*;
use crate::api::bound_nesting;

/// Requests that the server received.
#[derive(Debug, Default)]
struct PoolRequests {
    pool_lists: AtomicUsize,
    pool_watches: AtomicUsize,
}

fn pool(name: &str, overrides: &str) -> String {
    let pool = json!({
        "apiVersion": "separation.dev/v1beta1",
        "kind": "SeparationPool",
        "metadata": {"name": name, "namespace": "media", "uid": name, "resourceVersion": "5", "generation": 1},
        "spec": {
            "kafka": {"bootstrapServers": "kafka:9092"},
            "storage": {"stems": {"bucket": "stems"}, "staging": {"s3": {}}},
            "processor": {"podTemplate": "OVERRIDES"},
        },
    });
    pool.to_string().replace("\"OVERRIDES\"", overrides)
}

fn nested(levels: usize) -> String {
    format!("{}{}{}", r#"{"a":"#.repeat(levels), 1, "}".repeat(levels))
}

fn list(items: &[String]) -> String {
    format!(
        r#"{{"kind":"List","apiVersion":"v1","metadata":{{"resourceVersion":"7"}},"items":[{}]}}"#,
        items.join(",")
    )
}

/// A client of an API server with these pools, whose first watch of pools fails with 410 Gone.
fn client(pools: &[String], requests: &Arc<PoolRequests>) -> Client {
    let pools = list(pools);
    let requests = Arc::clone(requests);
    let service = service_fn(move |request: Request<Body>| {
        let (requests, pools) = (Arc::clone(&requests), pools.clone());
        async move {
            let is_watch = request
                .uri()
                .query()
                .is_some_and(|query| query.contains("watch="));
            let is_pools = request.uri().path().ends_with("/separationpools");
            let body = match (is_pools, is_watch) {
                (true, false) => {
                    requests.pool_lists.fetch_add(1, Ordering::Relaxed);
                    pools
                }
                (true, true) if requests.pool_watches.fetch_add(1, Ordering::Relaxed) == 0 => {
                    let gone = json!({"type": "ERROR", "object": {
                        "kind": "Status", "apiVersion": "v1", "status": "Failure",
                        "reason": "Expired", "code": 410, "message": "too old resource version"}});
                    format!("{gone}\n")
                }
                (false, false) => list(&[]),
                (_, true) => std::future::pending().await,
            };
            Ok::<_, BoxError>(Response::new(Body::from(body.into_bytes())))
        }
    });
    ClientBuilder::new(service, "default")
        .with_layer(&MapResponseLayer::new(bound_nesting))
        .build()
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_nests_too_deeply_does_not_affect_other_pools_even_after_a_watch_expired() {
    let requests = Arc::new(PoolRequests::default());
    let pools = [
        pool("deep", &nested(130)),
        pool("deeper", &nested(5_000)),
        pool("well", "{}"),
    ];
    let (sender, mut events) = mpsc::channel(64);
    let watching = tokio::spawn(follow(client(&pools, &requests), None, sender, Metrics::new()));
    let mut listed = 0;
    let mut plans = std::collections::BTreeMap::new();
    while listed < 2 {
        let (_, event) = timeout(Duration::from_secs(60), events.recv())
            .await
            .expect("an event")
            .expect("the watch continues");
        match event {
            WatchEvent::Pool(Change::Listed(id, pool)) => {
                plans.insert(id.name.clone(), pool.plan);
            }
            WatchEvent::Pool(Change::ListedAll) => {
                listed += 1;
                assert_eq!(plans.len(), 3);
                assert!(std::mem::take(&mut plans).remove("well").expect("listed").is_ok());
            }
            _ => {}
        }
        if let Some(Err(problems)) = plans.get("deeper") {
            let text = problems.to_string();
            assert!(text.starts_with("spec.processor.podTemplate.a.a"), "{text}");
        }
    }
    assert_eq!(requests.pool_lists.load(Ordering::Relaxed), 2);
    watching.abort();
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_panics_ends_the_operator() {
    let service = service_fn(|request: Request<Body>| async move {
        assert!(!request.uri().path().ends_with("/pods"), "a bug");
        std::future::pending::<Result<Response<Body>, BoxError>>().await
    });
    let client = ClientBuilder::new(service, "default").build();
    let metrics = Metrics::new();
    let (events, _task) = crate::events::event_writer(client.clone(), "operator-1", &metrics);
    let operator = crate::reconcile::Operator {
        client,
        leadership: crate::lease::Leadership::always("operator-1"),
        scopes: vec![None],
        workers: crate::settings::WorkerSettings {
            model: crate::plan::Model::named("builtin"),
            image: "worker".into(),
            image_pull_secrets: Vec::new(),
            allowed: std::collections::BTreeSet::new(),
            audiences: std::collections::BTreeSet::new(),
        },
        last_writes: Duration::from_secs(1),
        keep_offsets_after: Duration::from_secs(60),
        refresh: crate::settings::Refresh {
            secrets: Duration::from_secs(60),
            offsets: Duration::from_secs(30),
        },
        identity: crate::settings::IdentitySettings::default(),
        events,
        metrics,
        heartbeat: crate::health::Heartbeat::default(),
        readiness: crate::health::Readiness::requires(&[]),
    };
    let ended = timeout(Duration::from_secs(60), operator.run(std::future::pending())).await;
    let ended = ended.expect("it ends").expect_err("a watch panicked").to_string();
    assert!(ended.contains("panicked"), "{ended}");
}
