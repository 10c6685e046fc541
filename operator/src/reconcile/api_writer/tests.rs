//! Writes against a scripted API server.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Mutex;

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use tower::service_fn;

use super::*;
use crate::apply::owner_reference;
use crate::crd::from_yaml;
use crate::names::MANIFEST_HASH;
use crate::plan::{PoolId, PoolPlan, Role};
use crate::settings::WorkerSettings;

/// The next expected method and its response.
type Responses = Vec<(Method, StatusCode, Value)>;

struct Script {
    writer: ApiWriter,
    remaining: Arc<Mutex<VecDeque<(Method, StatusCode, Value)>>>,
    bodies: Arc<Mutex<Vec<Value>>>,
}

impl Script {
    fn new(responses: Responses) -> Self {
        let remaining = Arc::new(Mutex::new(VecDeque::from(responses)));
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let (script, requests) = (Arc::clone(&remaining), Arc::clone(&bodies));
        let service = service_fn(move |request: Request<Body>| {
            let (script, requests) = (Arc::clone(&script), Arc::clone(&requests));
            async move {
                let method = request.method().clone();
                let body = request.into_body().collect_bytes().await?;
                if !body.is_empty() {
                    let body = serde_json::from_slice(&body).expect("JSON");
                    requests.lock().expect("no thread panics").push(body);
                }
                let next = script.lock().expect("no thread panics").pop_front();
                let (expected, code, response) = next.expect("it is in the script");
                assert_eq!(method, expected);
                let mut response = Response::new(Body::from(response.to_string().into_bytes()));
                *response.status_mut() = code;
                Ok::<_, tower::BoxError>(response)
            }
        });
        let client = Client::new(service, "default");
        Self {
            writer: ApiWriter::new(client, Leadership::always("one")),
            remaining,
            bodies,
        }
    }

    async fn deploy(&self, known: Option<&str>) -> Result<DeployOutcome, Failure> {
        let done = self.writer.deploy(&key(), &manifest(), 3, known).await;
        assert!(self.remaining.lock().expect("no thread panics").is_empty());
        done
    }
}

fn manifest() -> Manifest {
    let pool = json!({
        "apiVersion": "separation.dev/v1beta1", "kind": "SeparationPool",
        "metadata": {"name": "vocals", "namespace": "media", "uid": "pool-uid"},
        "spec": {"kafka": {"bootstrapServers": "kafka:9092"}, "storage": {"stems": {"bucket": "bucket"}, "staging": {"s3": {}}}},
    });
    let pool = from_yaml(&pool.to_string()).expect("a pool");
    let settings = WorkerSettings {
        model: crate::plan::Model("builtin".into()),
        image: "worker:test".into(),
        allowed: BTreeSet::new(),
    };
    let plan = PoolPlan::from_pool(&pool).expect("a plan");
    Manifest {
        owner: owner_reference(&pool).map(Arc::new),
        ..Manifest::new(Arc::new(plan), Role::Processor, Arc::new(settings))
    }
}

fn key() -> RoleKey {
    RoleKey {
        pool: Arc::new(PoolId {
            namespace: "media".into(),
            name: "vocals".into(),
        }),
        role: Role::Processor,
    }
}

/// A Deployment of the pool with three replicas.
fn deployment(version: &str, labels: &Value) -> Value {
    let owner = json!({"apiVersion": "separation.dev/v1beta1", "kind": "SeparationPool", "name": "vocals",
                       "uid": "pool-uid", "controller": true});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "vocals-processor", "namespace": "media", "resourceVersion": version, "labels": labels,
                     "annotations": {MANIFEST_HASH: "hash"}, "ownerReferences": [owner]},
        "spec": {"replicas": 3, "selector": {}, "template": {}},
    })
}

fn ours() -> Value {
    json!({POOL_LABEL: "vocals", ROLE_LABEL: "processor"})
}

fn foreign() -> Value {
    let mut foreign = deployment("7", &json!({}));
    foreign["metadata"]["ownerReferences"] = json!([]);
    foreign
}

fn refusal(code: StatusCode, message: &str) -> (StatusCode, Value) {
    let reason = if code == StatusCode::NOT_FOUND {
        "NotFound"
    } else {
        ""
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "code": code.as_u16(), "reason": reason, "message": message});
    (code, status)
}

fn refused(method: Method, code: StatusCode) -> (Method, StatusCode, Value) {
    let (code, status) = refusal(code, "in its words");
    (method, code, status)
}

fn ok_response(method: Method, value: Value) -> (Method, StatusCode, Value) {
    (method, StatusCode::OK, value)
}

#[tokio::test]
async fn a_write_based_on_an_old_version_returns_the_current_deployment() {
    let script = Script::new(vec![
        refused(Method::PATCH, StatusCode::CONFLICT),
        ok_response(Method::GET, deployment("9", &ours())),
    ]);
    let Ok(DeployOutcome::OtherVersion(seen)) = script.deploy(Some("8")).await else {
        panic!("it was found")
    };
    assert_eq!((&*seen.resource_version, seen.replicas), ("9", 3));
    let bodies = script.bodies.lock().expect("no thread panics");
    assert_eq!(bodies[0]["metadata"]["resourceVersion"], "8");
}

#[tokio::test]
async fn a_deployment_that_was_deleted_meanwhile_is_reported_as_gone() {
    let script = Script::new(vec![
        refused(Method::PATCH, StatusCode::CONFLICT),
        refused(Method::GET, StatusCode::NOT_FOUND),
    ]);
    let found = script.deploy(Some("8")).await;
    assert!(matches!(found, Ok(DeployOutcome::Deleted)), "{found:?}");
}

#[tokio::test]
async fn errors_that_need_a_user_are_reported_with_the_longest_pause_and_transient_errors_are_retried() {
    for (code, pause, expected) in [
        (StatusCode::FORBIDDEN, Pause::Longest, Some("Forbidden")),
        (StatusCode::UNPROCESSABLE_ENTITY, Pause::Longest, Some("Refused")),
        (StatusCode::BAD_REQUEST, Pause::Longest, Some("Refused")),
        (StatusCode::TOO_MANY_REQUESTS, Pause::Growing, None),
        (StatusCode::INTERNAL_SERVER_ERROR, Pause::Growing, None),
        (StatusCode::SERVICE_UNAVAILABLE, Pause::Growing, None),
    ] {
        let script = Script::new(vec![refused(Method::PATCH, code)]);
        let failure = script.deploy(Some("8")).await.expect_err("it is refused");
        let reason = failure.problem.as_ref().map(|problem| &*problem.reason);
        assert_eq!((failure.pause, reason), (pause, expected), "{code}");
        assert_eq!(failure.error, "in its words");
    }
}

#[tokio::test]
async fn an_existing_deployment_is_adopted_only_if_it_belongs_to_the_pool() {
    let script = Script::new(vec![ok_response(Method::GET, deployment("7", &ours()))]);
    let found = script.deploy(None).await;
    assert!(matches!(found, Ok(DeployOutcome::OtherVersion(_))), "{found:?}");

    let script = Script::new(vec![ok_response(Method::GET, foreign())]);
    let failure = script.deploy(None).await.expect_err("it is not ours");
    let problem = failure.problem.expect("a reported problem");
    assert_eq!((&*problem.reason, failure.pause), ("NameTaken", Pause::Longest));
    assert!(problem.message.ends_with("fix: delete or rename it"));

    // One without labels belongs to the pool if the pool owns it; it keeps its replicas.
    let script = Script::new(vec![
        ok_response(Method::GET, deployment("7", &json!({}))),
        ok_response(Method::PATCH, deployment("8", &ours())),
    ]);
    let written = script.deploy(None).await;
    assert!(matches!(written, Ok(DeployOutcome::Written(_))), "{written:?}");
    let bodies = script.bodies.lock().expect("no thread panics");
    assert_eq!(bodies[0]["metadata"]["resourceVersion"], "7");
    assert_eq!(bodies[0]["spec"]["replicas"], 3);
}

#[tokio::test]
async fn pods_that_do_not_exist_are_named_and_the_others_are_annotated_up_to_a_failure() {
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"}, "spec": {"containers": []}});
    let script = Script::new(vec![
        refused(Method::PATCH, StatusCode::NOT_FOUND),
        ok_response(Method::PATCH, pod),
        refused(Method::PATCH, StatusCode::INTERNAL_SERVER_ERROR),
    ]);
    let pods = ["a", "b", "c", "d"].map(PodName::from);
    let done = script
        .writer
        .annotate(&key(), &pods, CostAnnotation::Present)
        .await;
    let names: Vec<_> = done.pods.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["b"]);
    assert_eq!(done.deleted, ["a".into()]);
    assert!(done.failure.is_some());
    let bodies = script.bodies.lock().expect("no thread panics");
    assert_eq!(
        bodies[0]["metadata"]["annotations"][DELETION_COST],
        CANDIDATE_COST
    );
    assert_eq!(bodies.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn every_request_has_a_timeout() {
    let stalled =
        service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, tower::BoxError>>());
    let writer = ApiWriter::new(Client::new(stalled, "default"), Leadership::always("one"));
    let started = tokio::time::Instant::now();
    let pods = ["a", "b", "c"].map(PodName::from);
    let annotated = writer.annotate(&key(), &pods, CostAnnotation::Absent).await;
    assert!(annotated.failure.is_some());
    assert_eq!(started.elapsed(), JOB_TIMEOUT, "all pods together");
    assert!(writer.deploy(&key(), &manifest(), 3, Some("7")).await.is_err());
    assert!(writer.deploy(&key(), &manifest(), 3, None).await.is_err());
    let status = SeparationPoolStatus::default();
    assert!(writer.update_status(&key().pool, "uid", &status).await.is_err());
    assert!(writer.secret("media", "kafka").await.is_err());
    assert_eq!(started.elapsed(), 5 * JOB_TIMEOUT);
}

#[test]
fn a_commit_ends_with_the_lease() {
    let now = Instant::now();
    let lasts = |lease: Option<Duration>| {
        let deadline = commit_deadline(lease.map(|remaining| now + remaining), now)?;
        Some(deadline.at() - now)
    };
    assert_eq!(lasts(Some(2 * COMMIT_TIMEOUT)), Some(COMMIT_TIMEOUT));
    assert_eq!(lasts(Some(COMMIT_TIMEOUT / 2)), Some(COMMIT_TIMEOUT / 2));
    assert_eq!(lasts(Some(Duration::ZERO)), None);
    assert_eq!(lasts(None), None);
}
