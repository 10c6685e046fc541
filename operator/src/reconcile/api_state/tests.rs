//! The steps of a pool's API, and its reports.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::*;
use crate::crd::from_yaml;
use crate::decide::{CostAnnotation, Pod, PodState};
use crate::names::{FIELD_MANAGER, MANIFEST_HASH};

const UID: &str = "uid";
const NOW: Moment = Moment::from_millis(1_000);

fn plan() -> PoolPlan {
    plan_with("basicAuthSecretRef: {name: api}")
}

/// The plan of a pool whose API has these credentials.
fn plan_with(credentials: &str) -> PoolPlan {
    let yaml = format!(
        "
apiVersion: separation.dev/v1beta1
kind: SeparationPool
metadata: {{name: vocals, namespace: media}}
spec:
  kafka: {{bootstrapServers: 'k:1'}}
  storage: {{stems: {{bucket: stems}}, staging: {{s3: {{}}}}}}
  api: {{{credentials}, replicas: 2}}
"
    );
    PoolPlan::from_pool(&from_yaml(&yaml).unwrap()).unwrap()
}

fn without_api() -> PoolPlan {
    PoolPlan { api: None, ..plan() }
}

/// The objects of an API.
#[derive(Clone)]
struct Objects {
    deployment: ApiSnapshot,
    service: ApiObject,
    account: ApiObject,
}

impl Objects {
    /// As the operator wrote them for the pool with this uid, with a completed rollout; one of two pods is ready.
    fn of_pool(uid: &str) -> Self {
        Self::of_controller("SeparationPool", uid)
    }

    /// The same, with this controller.
    fn of_controller(kind: &str, uid: &str) -> Self {
        let fields = json!({"f:spec": {"f:replicas": {}}});
        Self::new(&json!({
            "generation": 1,
            "annotations": {MANIFEST_HASH: "hash"},
            "ownerReferences": [{"apiVersion": "separation.dev/v1beta1", "kind": kind,
                                 "name": "vocals", "uid": uid, "controller": true}],
            "managedFields": [{"manager": FIELD_MANAGER, "operation": "Apply", "fieldsType": "FieldsV1",
                               "fieldsV1": fields}],
        }))
    }

    fn new(metadata: &Value) -> Self {
        let deployment = json!({
            "metadata": metadata,
            "spec": {"selector": {}, "template": {}},
            "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 1,
                       "conditions": [{"type": "Progressing", "status": "True",
                                       "reason": "NewReplicaSetAvailable"}]},
        });
        let object = ApiObject::from_metadata(&serde_json::from_value(metadata.clone()).unwrap());
        Self {
            deployment: ApiSnapshot::from_deployment(&serde_json::from_value(deployment).unwrap()),
            service: object.clone(),
            account: object,
        }
    }

    fn known(&self) -> KnownApi<'_> {
        KnownApi {
            deployment: Some(&self.deployment),
            service: Some(&self.service),
            account: Some(&self.account),
        }
    }
}

/// The state after the API was planned.
fn planned() -> ApiState {
    ApiState {
        planned: Some(PlannedApi {
            replicas: 2,
            staging: plan().storage.staging,
            secrets_hash: None,
            manifest_hash: "hash".to_owned(),
        }),
        ..ApiState::default()
    }
}

#[track_caller]
fn check(plan: &PoolPlan, known: KnownApi<'_>, expected: Option<ApiStep>) {
    assert_eq!(planned().next(plan, known, UID, NOW), expected);
}

#[test]
fn objects_as_planned_are_not_written_also_after_a_restart() {
    let objects = Objects::of_pool(UID);
    let mut state = planned();
    assert_eq!(state.next(&plan(), objects.known(), UID, NOW), None);
    state.succeeded(Some(objects.known()));
    assert_eq!(state.next(&plan(), objects.known(), UID, NOW), None);
    // Another version of the operator planned them differently.
    let mut other = objects.clone();
    other.deployment.deployment.manifest_hash = Some("another".into());
    check(&plan(), other.known(), Some(ApiStep::Apply));
    // Another field manager changed one while no operator ran.
    let mut edited = objects;
    edited.service.is_edited = true;
    check(&plan(), edited.known(), Some(ApiStep::Apply));
}

#[test]
fn each_missing_object_is_restored() {
    let objects = Objects::of_pool(UID);
    let known = objects.known();
    let apply = Some(ApiStep::Apply);
    check(&plan(), KnownApi::default(), apply);
    check(
        &plan(),
        KnownApi {
            deployment: None,
            ..known
        },
        apply,
    );
    check(
        &plan(),
        KnownApi {
            service: None,
            ..known
        },
        apply,
    );
    let without_account = KnownApi {
        account: None,
        ..known
    };
    check(&plan(), without_account, apply);
    let mut names_an_account = plan();
    names_an_account.api.as_mut().unwrap().pod.service_account_name = Some("cloud".to_owned());
    check(&names_an_account, without_account, None);
}

#[test]
fn nothing_is_written_before_the_api_is_planned_and_while_a_step_is_in_progress() {
    let mut state = ApiState::default();
    assert_eq!(state.next(&plan(), KnownApi::default(), UID, NOW), None);
    let mut state = planned();
    assert_eq!(
        state.next(&plan(), KnownApi::default(), UID, NOW),
        Some(ApiStep::Apply)
    );
    assert_eq!(state.next(&plan(), KnownApi::default(), UID, NOW), None);
}

#[test]
fn without_an_api_each_remaining_object_of_the_pool_is_deleted() {
    let objects = Objects::of_pool(UID);
    let delete = Some(ApiStep::Delete);
    let none = KnownApi::default();
    let KnownApi {
        deployment,
        service,
        account,
    } = objects.known();
    check(&without_api(), KnownApi { deployment, ..none }, delete);
    check(&without_api(), KnownApi { service, ..none }, delete);
    check(&without_api(), KnownApi { account, ..none }, delete);
    check(&without_api(), none, None);
}

#[test]
fn objects_of_a_former_pool_of_the_name_are_taken_over_or_deleted_and_others_are_not() {
    let of_former = Objects::of_pool("former");
    check(&plan(), of_former.known(), Some(ApiStep::Apply));
    check(&without_api(), of_former.known(), Some(ApiStep::Delete));
    // Another client's objects with the name and the labels of the API.
    let foreign = Objects::new(&json!({}));
    check(&without_api(), foreign.known(), None);
    // The operator wrote them, and another controller owns them since.
    let controlled = Objects::of_controller("Rollout", "other");
    check(&without_api(), controlled.known(), None);
}

#[test]
fn an_error_of_a_removed_api_ends_when_nothing_is_left_of_it() {
    let mut state = planned();
    let taken = WorkloadProblem::new("NameTaken", None);
    state.failed(Some(taken), Pause::None, NOW);
    assert_eq!(state.problems().len(), 1);
    assert_eq!(state.next(&without_api(), KnownApi::default(), UID, NOW), None);
    assert!(state.problems().is_empty());
}

#[test]
fn an_error_ends_and_is_not_retried_once_the_objects_are_as_planned() {
    let objects = Objects::of_pool(UID);
    for (plan, known) in [(plan(), objects.known()), (without_api(), KnownApi::default())] {
        let mut state = planned();
        state.failed(Some(WorkloadProblem::new("Forbidden", None)), Pause::Longest, NOW);
        let later = NOW + Duration::from_secs(30);
        assert!(state.retry.is_due(later));
        assert_eq!(state.next(&plan, known, UID, later), None);
        assert!(state.problems().is_empty() && !state.retry.is_due(later));
    }
}

#[test]
fn pods_that_are_never_ready_and_pods_that_do_not_end_are_problems() {
    let mut deployment = Objects::of_pool(UID).deployment;
    let none = Workload::default();
    let mut state = planned();
    let mut unready_after = |plan: &PoolPlan, ready: u32, seconds: u64| {
        deployment.ready = ready;
        let now = NOW + Duration::from_secs(seconds);
        state.record_pods(plan, Some(&deployment), &none, now);
        state.unready_problem(now).is_some()
    };
    assert!(!unready_after(&plan(), 0, 0));
    assert!(!unready_after(&plan(), 0, 899));
    assert!(unready_after(&plan(), 0, 900));
    assert!(!unready_after(&plan(), 1, 901));
    assert!(!unready_after(&plan(), 0, 902), "since now");
    // It is stopped.
    let mut stopped = plan();
    stopped.api.as_mut().unwrap().replicas = 0;
    assert!(!unready_after(&stopped, 0, 9_999));

    let overdue = Pod {
        name: "vocals-api-5c7-x2x".into(),
        state: PodState::Overdue,
        cost_annotation: CostAnnotation::Absent,
        replica_set: "vocals-api-5c7".into(),
        created: None,
    };
    let pods = Workload {
        pods: vec![overdue],
        ..Workload::default()
    };
    state.record_pods(&plan(), None, &pods, NOW);
    assert_eq!(&*state.problems()[0].reason, "PodsStuckTerminating");
}

#[test]
fn repeated_edits_by_another_field_manager_are_reverted_with_growing_pauses_and_reported() {
    let objects = Objects::of_pool(UID);
    let mut edited = objects.clone();
    edited.service.our_fields = Some(1);
    let mut state = planned();
    state.succeeded(Some(objects.known()));
    let mut reverts = |now: Moment| {
        let step = state.next(&plan(), edited.known(), UID, now);
        if step == Some(ApiStep::Apply) {
            state.succeeded(Some(objects.known()));
        }
        let problems = state.problems();
        (
            step.is_some(),
            problems.first().map(|problem| problem.reason.to_string()),
        )
    };
    assert_eq!(reverts(NOW), (true, None));
    assert_eq!(reverts(NOW), (true, None));
    assert_eq!(reverts(NOW), (false, None));
    let reported = Some("FieldManagerConflict".to_owned());
    assert_eq!(reverts(NOW + Duration::from_millis(500)), (true, reported));
}

#[test]
fn a_report_has_a_rollout_until_its_pods_were_available_and_the_problems() {
    let objects = Objects::of_pool(UID);
    let state = planned();
    let report = |known: Option<&ApiSnapshot>| {
        let report = state.report(&plan(), known, Vec::new());
        let status = report.status.expect("an API");
        (status.ready, status.desired, report.is_rolling_out)
    };
    assert_eq!(report(None), (0, 2, true));
    assert_eq!(report(Some(&objects.deployment)), (1, 2, false), "a pod restarts");
    let mut other = objects.deployment.clone();
    other.deployment.manifest_hash = Some("another".into());
    assert_eq!(report(Some(&other)), (1, 2, true));
    // Kubernetes reports a complete rollout of a template that was written without replicas.
    let mut unready = objects.deployment.clone();
    unready.ready = 0;
    assert!(unready.is_rolled_out);
    assert_eq!(report(Some(&unready)), (0, 2, true));
    let mut started = objects.deployment;
    started.is_rolled_out = false;
    assert_eq!(report(Some(&started)), (1, 2, true));
    // An API that cannot be deleted.
    let forbidden = vec![WorkloadProblem::new("Forbidden", None)];
    let report = state.report(&without_api(), Some(&started), forbidden.clone());
    assert_eq!((report.status, report.problems), (None, forbidden));
}

#[test]
fn a_missing_secret_is_reported_with_the_command_that_creates_it() {
    let plan = plan();
    let mut secrets = SecretCache::new(Duration::from_secs(60));
    secrets.register(&plan);
    let mut problem_after = |read: Result<Option<&[&str]>, &str>| {
        let secret = read.map(|keys| {
            keys.map(|keys| {
                let value = || ByteString(b"text".to_vec());
                let data: BTreeMap<_, _> = keys.iter().map(|key| ((*key).to_owned(), value())).collect();
                Secret {
                    data: Some(data),
                    ..Secret::default()
                }
            })
        });
        secrets.read(&secret_name("api"), secret.map_err(str::to_owned), NOW);
        let problem = secret_problems(&secrets, &plan).pop()?;
        let expected = match read {
            Ok(_) => "SecretMissing",
            Err(_) => "SecretUnreadable",
        };
        assert_eq!(&*problem.reason, expected);
        Some(problem.message.to_string())
    };
    let command = "fix: kubectl create secret generic api --namespace media";
    assert_eq!(
        problem_after(Err("forbidden")).unwrap(),
        "Secret media/api could not be read: forbidden; fix: if that is forbidden, allow the operator's service account \
         to get Secrets in namespace media"
    );
    assert_eq!(
        problem_after(Ok(None)).unwrap(),
        format!(
            "Secret media/api does not exist or lacks username, password, so the API's pods cannot start; \
             {command} --from-literal=username=VALUE --from-literal=password=VALUE"
        )
    );
    let message = problem_after(Ok(Some(&["username"]))).unwrap();
    assert!(
        message.ends_with(&format!("{command} --from-literal=password=VALUE")),
        "{message}"
    );
    assert_eq!(problem_after(Ok(Some(&["username", "password"]))), None);
}

fn secret_name(name: &str) -> SecretName {
    SecretName {
        namespace: "media".to_owned(),
        name: name.to_owned(),
    }
}

#[test]
fn api_keys_and_password_that_are_missing_are_reported_once_for_each_secret() {
    let problems = |credentials: &str, names: &[&str]| {
        let plan = plan_with(credentials);
        let mut secrets = SecretCache::new(Duration::from_secs(60));
        secrets.register(&plan);
        for name in names {
            secrets.read(&secret_name(name), Ok(None), NOW);
        }
        let problems = secret_problems(&secrets, &plan);
        let messages = problems.into_iter().map(|problem| problem.message.to_string());
        messages
            .map(|message| message.split_once("fix: ").unwrap().1.to_owned())
            .collect::<Vec<_>>()
    };
    let create = "kubectl create secret generic";
    assert_eq!(
        problems(
            "keysSecretRef: {name: keys}, basicAuthSecretRef: {name: api}",
            &["keys", "api"]
        ),
        [
            format!(
                "{create} api --namespace media --from-literal=username=VALUE --from-literal=password=VALUE"
            ),
            format!("{create} keys --namespace media --from-file=keys.json=FILE"),
        ]
    );
    assert_eq!(
        problems(
            "keysSecretRef: {name: api, key: clients}, basicAuthSecretRef: {name: api}",
            &["api"]
        ),
        [format!(
            "{create} api --namespace media --from-file=clients=FILE --from-literal=username=VALUE \
             --from-literal=password=VALUE"
        )]
    );
}

#[test]
fn a_signing_secret_that_is_missing_is_reported_if_the_api_signs_with_it() {
    let problems = |credentials: &str| {
        let mut plan = plan_with(credentials);
        plan.outbound.signing_secrets = vec![SecretKey {
            secret: "signing".to_owned(),
            key: "secret".to_owned(),
        }];
        let mut secrets = SecretCache::new(Duration::from_secs(60));
        secrets.register(&plan);
        secrets.read(&secret_name("signing"), Ok(None), NOW);
        secret_problems(&secrets, &plan)
    };
    let reported = problems("basicAuthSecretRef: {name: api}");
    let [problem] = &*reported else {
        panic!("one problem, not {reported:?}");
    };
    let fix = "fix: kubectl create secret generic signing --namespace media --from-literal=secret=VALUE";
    assert!(problem.message.ends_with(fix), "{problem:?}");
    assert_eq!(
        problems("keysSecretRef: {name: api}"),
        [],
        "each API key has its own"
    );
}

#[test]
fn api_keys_that_do_not_fit_into_an_environment_variable_are_reported() {
    let plan = plan_with("keysSecretRef: {name: keys}");
    let mut secrets = SecretCache::new(Duration::from_secs(60));
    secrets.register(&plan);
    let mut problems_of = |bytes: usize| {
        let keys = ByteString(vec![b'x'; bytes]);
        let secret = Secret {
            data: Some(BTreeMap::from([("keys.json".to_owned(), keys)])),
            ..Secret::default()
        };
        secrets.read(&secret_name("keys"), Ok(Some(secret)), NOW);
        secret_problems(&secrets, &plan)
    };
    assert_eq!(problems_of(MAX_API_KEYS_KIB * 1024), []);
    let problems = problems_of(MAX_API_KEYS_KIB * 1024 + 1);
    assert_eq!(&*problems[0].reason, "SecretTooLarge");
    let message = &problems[0].message;
    assert!(
        message.contains("Secret media/keys has 102401 bytes in keys.json"),
        "{message}"
    );
}
