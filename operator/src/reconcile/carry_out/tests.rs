//! Writes against an API server that follows a script.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Mutex;

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use tower::service_fn;

use super::*;
use crate::apply::{Rollout, owner_reference};
use crate::crd::from_yaml;
use crate::names::MANIFEST_HASH;
use crate::plan::{PoolId, PoolPlan, Role};
use crate::reconcile::pool::Variant;
use crate::settings::WorkerSettings;

/// What is answered next to a method.
type Answers = Vec<(Method, StatusCode, Value)>;

struct Script {
    hands: Hands,
    left: Arc<Mutex<VecDeque<(Method, StatusCode, Value)>>>,
    bodies: Arc<Mutex<Vec<Value>>>,
}

impl Script {
    fn new(answers: Answers) -> Self {
        let left = Arc::new(Mutex::new(VecDeque::from(answers)));
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let (script, asked) = (Arc::clone(&left), Arc::clone(&bodies));
        let service = service_fn(move |request: Request<Body>| {
            let (script, asked) = (Arc::clone(&script), Arc::clone(&asked));
            async move {
                let method = request.method().clone();
                let body = request.into_body().collect_bytes().await?;
                if !body.is_empty() {
                    let body = serde_json::from_slice(&body).expect("JSON");
                    asked.lock().expect("nobody panics").push(body);
                }
                let next = script.lock().expect("nobody panics").pop_front();
                let (expected, code, answer) = next.expect("it is in the script");
                assert_eq!(method, expected);
                let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
                *response.status_mut() = code;
                Ok::<_, tower::BoxError>(response)
            }
        });
        let client = Client::new(service, "default");
        Self {
            hands: Hands::new(client, Leadership::alone("one")),
            left,
            bodies,
        }
    }

    async fn deploy(&self, known: Option<&str>) -> Result<Deployed, Failure> {
        let done = self.hands.deploy(&key(), &manifest(), 3, known).await;
        assert!(self.left.lock().expect("nobody panics").is_empty());
        done
    }
}

fn manifest() -> Manifest {
    let pool = json!({
        "apiVersion": "separation.dev/v1alpha1", "kind": "SeparationPool",
        "metadata": {"name": "vocals", "namespace": "media", "uid": "pool-uid"},
        "spec": {"kafka": {"bootstrapServers": "kafka:9092"}, "storage": {"s3": {"bucket": "b"}, "work": {"s3Prefix": "s/"}}},
    });
    let pool = from_yaml(&pool.to_string()).expect("a pool");
    Manifest {
        plan: Arc::new(PoolPlan::of(&pool).expect("a plan")),
        role: Role::Processor,
        owner: owner_reference(&pool),
        settings: Arc::new(WorkerSettings {
            image: "worker:test".into(),
            allowed: BTreeSet::new(),
        }),
        variant: Variant {
            rollout: Rollout::Rolling,
            secrets_hash: None,
        },
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
    let owner = json!({"apiVersion": "separation.dev/v1alpha1", "kind": "SeparationPool", "name": "vocals",
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

fn answered(method: Method, value: Value) -> (Method, StatusCode, Value) {
    (method, StatusCode::OK, value)
}

#[tokio::test]
async fn a_write_that_rested_on_an_old_version_gives_what_is_there_so_that_it_is_decided_again() {
    let script = Script::new(vec![
        refused(Method::PATCH, StatusCode::CONFLICT),
        answered(Method::GET, deployment("9", &ours())),
    ]);
    let Ok(Deployed::Found(seen)) = script.deploy(Some("8")).await else {
        panic!("it was found")
    };
    assert_eq!((&*seen.resource_version, seen.replicas), ("9", 3));
    let bodies = script.bodies.lock().expect("nobody panics");
    assert_eq!(bodies[0]["metadata"]["resourceVersion"], "8");
}

#[tokio::test]
async fn a_deployment_that_was_deleted_meanwhile_is_known_to_be_gone() {
    let script = Script::new(vec![
        refused(Method::PATCH, StatusCode::CONFLICT),
        refused(Method::GET, StatusCode::NOT_FOUND),
    ]);
    let found = script.deploy(Some("8")).await;
    assert!(matches!(found, Ok(Deployed::Gone)), "{found:?}");
}

#[tokio::test]
async fn what_only_a_person_can_change_is_told_and_waited_out_and_what_may_pass_is_tried_again() {
    for (code, pause, told) in [
        (StatusCode::FORBIDDEN, Pause::Longest, Some("Forbidden")),
        (StatusCode::UNPROCESSABLE_ENTITY, Pause::Longest, Some("Refused")),
        (StatusCode::BAD_REQUEST, Pause::Longest, Some("Refused")),
        (StatusCode::TOO_MANY_REQUESTS, Pause::Growing, None),
        (StatusCode::INTERNAL_SERVER_ERROR, Pause::Growing, None),
        (StatusCode::SERVICE_UNAVAILABLE, Pause::Growing, None),
    ] {
        let script = Script::new(vec![refused(Method::PATCH, code)]);
        let failure = script.deploy(Some("8")).await.expect_err("it is refused");
        let reason = failure.trouble.as_ref().map(|trouble| &*trouble.reason);
        assert_eq!((failure.pause, reason), (pause, told), "{code}");
        assert_eq!(failure.error, "in its words");
    }
}

#[tokio::test]
async fn a_deployment_of_that_name_is_taken_over_only_where_it_is_ours() {
    let script = Script::new(vec![answered(Method::GET, deployment("7", &ours()))]);
    let found = script.deploy(None).await;
    assert!(matches!(found, Ok(Deployed::Found(_))), "{found:?}");

    let script = Script::new(vec![answered(Method::GET, foreign())]);
    let failure = script.deploy(None).await.expect_err("it is not ours");
    let trouble = failure.trouble.expect("a person must know");
    assert_eq!((&*trouble.reason, failure.pause), ("NameTaken", Pause::Longest));
    assert!(trouble.message.ends_with("fix: delete or rename it"));

    // One without labels is ours where the pool owns it; it keeps its workers.
    let script = Script::new(vec![
        answered(Method::GET, deployment("7", &json!({}))),
        answered(Method::PATCH, deployment("8", &ours())),
    ]);
    let written = script.deploy(None).await;
    assert!(matches!(written, Ok(Deployed::Written(_))), "{written:?}");
    let bodies = script.bodies.lock().expect("nobody panics");
    assert_eq!(bodies[0]["metadata"]["resourceVersion"], "7");
    assert_eq!(bodies[0]["spec"]["replicas"], 3);
}

#[tokio::test]
async fn pods_that_do_not_exist_are_named_and_the_others_are_annotated_up_to_a_failure() {
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"}, "spec": {"containers": []}});
    let script = Script::new(vec![
        refused(Method::PATCH, StatusCode::NOT_FOUND),
        answered(Method::PATCH, pod),
        refused(Method::PATCH, StatusCode::INTERNAL_SERVER_ERROR),
    ]);
    let pods = ["a", "b", "c", "d"].map(PodName::from);
    let done = script.hands.annotate(&key(), &pods, Marked::Yes).await;
    let names: Vec<_> = done.pods.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["b"]);
    assert_eq!(done.gone, ["a".into()]);
    assert!(done.failure.is_some());
    let bodies = script.bodies.lock().expect("nobody panics");
    assert_eq!(bodies[0]["metadata"]["annotations"][DELETION_COST], MARKED_COST);
    assert_eq!(bodies.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn no_request_waits_for_an_answer_for_ever() {
    let silent =
        service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, tower::BoxError>>());
    let hands = Hands::new(Client::new(silent, "default"), Leadership::alone("one"));
    let begun = tokio::time::Instant::now();
    let pods = ["a", "b", "c"].map(PodName::from);
    let annotated = hands.annotate(&key(), &pods, Marked::No).await;
    assert!(annotated.failure.is_some());
    assert_eq!(begun.elapsed(), LONGEST_REQUESTS, "all pods together");
    assert!(hands.deploy(&key(), &manifest(), 3, Some("7")).await.is_err());
    assert!(hands.deploy(&key(), &manifest(), 3, None).await.is_err());
    let status = SeparationPoolStatus::default();
    assert!(hands.say(&key().pool, "uid", &status).await.is_err());
    assert!(hands.secret("media", "kafka").await.is_err());
    assert_eq!(begun.elapsed(), 5 * LONGEST_REQUESTS);
}

#[test]
fn a_commit_ends_with_the_lease() {
    let now = Instant::now();
    let lasts = |lease: Option<Duration>| {
        let deadline = commit_deadline(lease.map(|left| now + left), now)?;
        Some(deadline.at() - now)
    };
    assert_eq!(lasts(Some(2 * COMMIT_DEADLINE)), Some(COMMIT_DEADLINE));
    assert_eq!(lasts(Some(COMMIT_DEADLINE / 2)), Some(COMMIT_DEADLINE / 2));
    assert_eq!(lasts(Some(Duration::ZERO)), None);
    assert_eq!(lasts(None), None);
}
