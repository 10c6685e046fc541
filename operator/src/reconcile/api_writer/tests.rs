//! Writes against a scripted API server.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Mutex;

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use tower::service_fn;

use super::*;
use crate::apply::{ApiObjects, api_objects, owner_reference};
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
    /// The queries of the requests with these bodies.
    queries: Arc<Mutex<Vec<String>>>,
}

impl Script {
    fn new(responses: Responses) -> Self {
        let remaining = Arc::new(Mutex::new(VecDeque::from(responses)));
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let queries = Arc::new(Mutex::new(Vec::new()));
        let (script, requests) = (Arc::clone(&remaining), Arc::clone(&bodies));
        let queried = Arc::clone(&queries);
        let service = service_fn(move |request: Request<Body>| {
            let (script, requests) = (Arc::clone(&script), Arc::clone(&requests));
            let queried = Arc::clone(&queried);
            async move {
                let method = request.method().clone();
                let query = request.uri().query().unwrap_or_default().to_owned();
                let body = request.into_body().collect_bytes().await?;
                if !body.is_empty() {
                    let body = serde_json::from_slice(&body).expect("JSON");
                    requests.lock().expect("no thread panics").push(body);
                    queried.lock().expect("no thread panics").push(query);
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
            queries,
        }
    }

    async fn deploy(&self, known: Option<&str>) -> Result<DeployOutcome, Failure> {
        let done = self.writer.deploy(&key(), &manifest(), 3, known).await;
        assert!(self.remaining.lock().expect("no thread panics").is_empty());
        done
    }
}

fn pool() -> SeparationPool {
    let pool = json!({
        "apiVersion": "separation.dev/v1beta1", "kind": "SeparationPool",
        "metadata": {"name": "vocals", "namespace": "media", "uid": "pool-uid"},
        "spec": {"kafka": {"bootstrapServers": "kafka:9092"}, "storage": {"stems": {"bucket": "bucket"}, "staging": {"s3": {}}},
                 "api": {"basicAuthSecretRef": {"name": "api"}}},
    });
    from_yaml(&pool.to_string()).expect("a pool")
}

fn settings() -> WorkerSettings {
    WorkerSettings {
        model: crate::plan::Model::named("builtin"),
        image: "worker:test".into(),
        image_pull_secrets: Vec::new(),
        allowed: BTreeSet::new(),
        audiences: BTreeSet::new(),
    }
}

fn manifest() -> Manifest {
    let pool = pool();
    let plan = PoolPlan::from_pool(&pool).expect("a plan");
    Manifest {
        owner: owner_reference(&pool).map(Arc::new),
        ..Manifest::new(Arc::new(plan), Role::Processor, Arc::new(settings()))
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

/// The result of applying an API with so many pods and without a service account of its own, and the queries and
/// metadata of its writes.
async fn apply_api(replicas: u32, responses: Responses) -> (Result<(), Failure>, Vec<(String, Value)>) {
    let pool = pool();
    let mut plan = PoolPlan::from_pool(&pool).expect("a plan");
    plan.api.as_mut().expect("an API").replicas = replicas;
    let api = plan.api.as_ref().expect("an API");
    let objects = api_objects(&plan, api, owner_reference(&pool).as_ref(), &settings(), None);
    let objects = ApiObjects {
        account: None,
        ..objects.expect("objects")
    };
    let script = Script::new(responses);
    let applied = script.writer.apply_api(&plan.id, "pool-uid", &objects).await;
    assert!(script.remaining.lock().expect("no thread panics").is_empty());
    let queries = script.queries.lock().expect("no thread panics").clone();
    let bodies = script.bodies.lock().expect("no thread panics").clone();
    let metadata = bodies.into_iter().map(|body| body["metadata"].clone());
    (applied.map(|_| ()), queries.into_iter().zip(metadata).collect())
}

#[tokio::test]
async fn an_object_of_the_api_is_written_over_what_was_read_and_another_clients_is_not() {
    let service = |metadata: &Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata});
    let mut ours = deployment("7", &json!({}));
    ours["metadata"]["uid"] = json!("deployment-uid");
    let responses = vec![
        refused(Method::GET, StatusCode::NOT_FOUND),
        ok_response(Method::PATCH, service(&json!({}))),
        ok_response(Method::GET, ours.clone()),
        ok_response(Method::PATCH, ours.clone()),
    ];
    let (applied, writes) = apply_api(2, responses).await;
    assert!(applied.is_ok(), "{applied:?}");
    let [(created_with, created), (changed_with, changed)] = &writes[..] else {
        panic!("{writes:?}")
    };
    assert!(!created_with.contains("force"), "{created_with}");
    assert_eq!(
        (&created["uid"], &created["resourceVersion"]),
        (&Value::Null, &Value::Null)
    );
    assert!(changed_with.contains("force=true"), "{changed_with}");
    assert_eq!(
        (&changed["uid"], &changed["resourceVersion"]),
        (&json!("deployment-uid"), &json!("7"))
    );

    // It has no owner and other labels.
    let theirs = service(&json!({"name": "vocals-api", "namespace": "media", "uid": "service-uid"}));
    let (applied, writes) = apply_api(2, vec![ok_response(Method::GET, theirs)]).await;
    let problem = applied.expect_err("it is not ours").problem.expect("a problem");
    assert_eq!(&*problem.reason, "NameTaken");
    assert!(problem.message.ends_with("fix: delete or rename it"));
    assert!(writes.is_empty(), "{writes:?}");
    // The operator wrote it for a former pool of the name, which was deleted with --cascade=orphan.
    let orphan = json!({
        "name": "vocals-api", "namespace": "media", "uid": "service-uid", "labels": {POOL_LABEL: "vocals"},
        "managedFields": [{"manager": FIELD_MANAGER, "operation": "Apply", "fieldsType": "FieldsV1",
                           "fieldsV1": {"f:spec": {}}}],
    });
    let responses = vec![
        ok_response(Method::GET, service(&orphan)),
        ok_response(Method::PATCH, service(&orphan)),
        ok_response(Method::GET, ours.clone()),
        ok_response(Method::PATCH, ours),
    ];
    let (applied, writes) = apply_api(2, responses).await;
    assert!(applied.is_ok(), "{applied:?}");
    let owner = &writes[0].1["ownerReferences"][0];
    assert_eq!(owner["uid"], "pool-uid");
}

#[tokio::test]
async fn pods_of_the_api_end_also_if_its_service_cannot_be_written() {
    let mut ours = deployment("7", &json!({}));
    ours["metadata"]["uid"] = json!("deployment-uid");
    let responses = vec![
        ok_response(Method::GET, ours.clone()),
        ok_response(Method::PATCH, ours),
        refused(Method::GET, StatusCode::FORBIDDEN),
    ];
    let (applied, writes) = apply_api(0, responses).await;
    assert!(applied.is_err());
    assert_eq!(writes[0].1["uid"], "deployment-uid");
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
fn the_command_creates_a_topic_and_its_dead_letter_topic() {
    let manifest = manifest();
    let topic = NewTopic::new("kafka:9092", manifest.plan.role(Role::Processor), 8);
    assert_eq!(
        topic.command,
        "kafka-topics.sh --bootstrap-server kafka:9092 --create --topic uvr_tasks --partitions 8 && kafka-topics.sh \
         --bootstrap-server kafka:9092 --create --topic uvr_tasks_dead_letters --partitions 1"
    );
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
