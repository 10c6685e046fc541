//! `separation-operator check`: of the operator, which `helm test` runs, and of pools.

use std::fs;
use std::process::{Command, Output};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::api::rbac::v1::Role;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use separation_contract::names::dead_letter_topic;
use separation_testbed::{Kafka, KafkaOptions, Process, Release, TempDirectory, eventually};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::adoption::condition_message;
use crate::manifests::system;
use crate::members::{Member, Tasks};
use crate::rig::{Rig, SOON};
use crate::secrets::write_secret;
use crate::subject::{OperatorProcess, PoolUnderTest};

/// The command of a check with a token; its kubeconfig is in `directory`.
fn command(rig: &Rig, token: &str, arguments: &[&str], directory: &TempDirectory) -> Command {
    let kubeconfig = directory.path().join("kubeconfig");
    fs::write(&kubeconfig, rig.plane.kubeconfig(token)).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_separation-operator"));
    command
        .arg("check")
        .args(["--lease-namespace", &system(&rig.namespace)])
        .args(["--watch-namespaces", &rig.namespace])
        .args(arguments)
        .env("KUBECONFIG", kubeconfig);
    command
}

/// Runs the check with a token.
async fn check(rig: &Rig, token: &str, arguments: &[&str]) -> Output {
    let directory = TempDirectory::new().expect("a directory");
    let mut command = command(rig, token, arguments, &directory);
    let output = spawn_blocking(move || command.output()).await.expect("no panic");
    drop(directory);
    output.expect("it runs")
}

fn text_of(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The exit code and the findings of a check by a user with all rights.
async fn findings(rig: &Rig, arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let arguments = [&["--json"][..], arguments].concat();
    let output = check(rig, rig.plane.admin_token(), &arguments).await;
    let text = text_of(&output);
    let lines = text.lines();
    let lines =
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {text}")));
    (output.status.code(), lines.collect())
}

/// The finding of this check and result about a pool or the operator.
#[track_caller]
fn one<'f>(findings: &'f [Value], check: &str, result: &str) -> &'f Value {
    let mut found = findings.iter();
    let found = found.find(|finding| finding["check"] == check && finding["result"] == result);
    found.unwrap_or_else(|| panic!("no {check} with {result} in {findings:#?}"))
}

fn contains(finding: &Value, field: &str, part: &str) -> bool {
    finding[field].as_str().is_some_and(|text| text.contains(part))
}

#[tokio::test]
async fn check_names_the_leader_and_its_rights_with_the_operators_permissions() {
    let rig = Rig::new().await;
    let operator = OperatorProcess::start_briefly_leading(&rig);
    let arguments = &["--operator-only", "--wait-seconds=30"];
    let found = check(&rig, &rig.operator_token, arguments).await;
    let text = text_of(&found);
    assert!(found.status.success(), "{text}");
    assert!(
        text.contains("separation-operator_") && text.contains(" leads\n"),
        "{text}"
    );
    for expected in [
        format!("pools of {} can be read", rig.namespace),
        format!("has the needed rights in namespace {}", rig.namespace),
    ] {
        assert!(text.contains(&expected), "{text}");
    }
    operator.end().await;
}

#[tokio::test]
async fn check_fails_without_a_leader_or_readable_pools() {
    let rig = Rig::new().await;
    let arguments = &["--operator-only", "--wait-seconds=1"];
    let no_leader = check(&rig, &rig.operator_token, arguments).await;
    let text = text_of(&no_leader);
    assert_eq!(no_leader.status.code(), Some(1), "{text}");
    for part in ["no operator leads", "look at the operator's pods"] {
        assert!(text.contains(part), "{text}");
    }
    let operator = OperatorProcess::start_briefly_leading(&rig);
    operator.until_it_leads().await;
    operator.process.kill_9().await.expect("it runs");
    let arguments = &["--operator-only", "--wait-seconds=2"];
    let dead = check(&rig, &rig.operator_token, arguments).await;
    assert!(
        text_of(&dead).contains("has not renewed the lease for 2 s"),
        "{}",
        text_of(&dead)
    );
    let elsewhere = check(&rig, &rig.operator_token, &["--namespace=kube-system"]).await;
    let text = text_of(&elsewhere);
    assert_eq!(elsewhere.status.code(), Some(2), "{text}");
    assert!(
        text.contains("namespace kube-system") && text.contains("cannot list"),
        "{text}"
    );
}

#[tokio::test]
async fn rights_that_the_operator_lacks_are_named() {
    let rig = Rig::new().await;
    let roles: Api<Role> = Api::namespaced(rig.admin.clone(), &rig.namespace);
    let without_secrets =
        json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]});
    let params = PatchParams::default();
    let patched = roles
        .patch("separation-operator", &params, &Patch::Merge(without_secrets))
        .await;
    patched.expect("a role");
    let pool = PoolUnderTest::new(&rig, 1).await;
    pool.apply(&json!({})).await;
    // The authorizer has a cache.
    let rights = eventually("lacking rights", SOON, async || {
        let (_, found) = findings(&rig, &["--wait-seconds=1"]).await;
        let mut found = found.into_iter();
        found.find(|finding| finding["check"] == "rights" && finding["result"] == "problem")
    });
    let rights = rights.await;
    for part in ["patch pods", "get secrets", "create deployments"] {
        assert!(contains(&rights, "message", part), "{rights}");
    }
    assert!(!contains(&rights, "message", "list pods"), "{rights}");
}

#[tokio::test]
async fn a_pool_that_works_has_only_findings_that_are_ok() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 2).await;
    for topic in [pool.tasks(), pool.results()] {
        let dead_letters = dead_letter_topic(&topic);
        pool.kafka.create_topic(&dead_letters, 1).await.expect("a topic");
    }
    pool.apply(&json!({
        "processor": {"scaling": {"maxReplicas": 2}},
        "uploader": {"scaling": {"maxReplicas": 1}},
    }))
    .await;
    let operator = OperatorProcess::start_briefly_leading(&rig);
    pool.until_adopted().await;
    pool.until_status("known lag", SOON, |status| {
        condition_message(status, "LagKnown", "True").is_some()
            && condition_message(status, "DependenciesAvailable", "False").is_none()
    })
    .await;
    let (code, found) = findings(&rig, &[]).await;
    let others: Vec<_> = found.iter().filter(|finding| finding["result"] != "ok").collect();
    assert_eq!((code, others), (Some(0), vec![]));
    for check in [
        "leader", "rights", "pools", "crd", "spec", "status", "kafka", "topics",
    ] {
        one(&found, check, "ok");
    }
    let object = format!("SeparationPool {}/vocals", rig.namespace);
    assert!(
        found.iter().any(|finding| finding["object"] == object),
        "{found:#?}"
    );
    operator.end().await;
}

#[tokio::test]
async fn a_missing_secret_and_a_wrong_password_are_problems_with_fixes() {
    let options = KafkaOptions {
        secure: true,
        ..KafkaOptions::default()
    };
    let kafka = Kafka::start(options).await.expect("Kafka");
    let rig = Rig::new().await;
    let pool = PoolUnderTest::on(&rig, &kafka, "vocals", 1).await;
    pool.apply(&json!({"kafka": {
        "bootstrapServers": kafka.bootstrap_sasl_plaintext(),
        "sasl": {"usernameSecretRef": {"name": "kafka-user"}, "passwordSecretRef": {"name": "kafka-user"}},
    }}))
    .await;
    let arguments = &["--wait-seconds=1"];
    let (code, found) = findings(&rig, arguments).await;
    assert_eq!(code, Some(1));
    let secret = one(&found, "secrets", "problem");
    assert!(
        contains(secret, "message", "Secret kafka-user does not exist"),
        "{secret}"
    );
    let fix = "kubectl create secret generic kafka-user --namespace";
    assert!(contains(secret, "fix", fix), "{secret}");
    one(&found, "kafka", "warning");
    let status = one(&found, "status", "problem");
    assert!(
        contains(status, "message", "no operator has reconciled"),
        "{status}"
    );

    let user = kafka.security().username();
    write_secret(&rig, user, "wrong").await;
    let (_, found) = findings(&rig, arguments).await;
    one(&found, "secrets", "ok");
    let refused = one(&found, "kafka", "problem");
    assert!(
        contains(refused, "message", "rejected authentication"),
        "{refused}"
    );
    assert!(
        contains(refused, "fix", "check username and password"),
        "{refused}"
    );

    write_secret(&rig, user, kafka.security().password()).await;
    let (_, found) = findings(&rig, arguments).await;
    one(&found, "kafka", "ok");
    one(&found, "topics", "warning");
}

#[tokio::test]
async fn a_missing_topic_and_a_foreign_member_are_problems() {
    let rig = Rig::new().await;
    let kafka = Kafka::shared().await.expect("Kafka");
    let missing = PoolUnderTest::without_tasks(&rig, kafka, "missing").await;
    missing.apply(&json!({})).await;
    let shared = PoolUnderTest::named(&rig, "shared", 1).await;
    shared.apply(&json!({})).await;
    let member = Member::of(&shared, "another-program", Tasks::Wait);
    eventually("a member with a partition", SOON, async || {
        !member.owned().is_empty()
    })
    .await;
    let arguments = &["--wait-seconds=1", "--pool=missing,shared,absent"];
    let (code, found) = findings(&rig, arguments).await;
    assert_eq!(code, Some(1));
    let topic = found.iter().find(|finding| {
        finding["result"] == "problem" && contains(finding, "message", &format!("topic {}:", missing.tasks()))
    });
    let fix = topic.expect("the missing topic")["fix"]
        .as_str()
        .unwrap_or_default();
    assert!(fix.contains("create it"), "{fix}");
    let foreign = one(&found, "members", "problem");
    assert_eq!(
        foreign["object"],
        format!("SeparationPool {}/shared", rig.namespace)
    );
    assert!(contains(foreign, "message", "another-program"), "{foreign}");
    let absent = one(&found, "pool", "problem");
    assert_eq!(absent["object"], "SeparationPool absent");
}

#[tokio::test]
async fn brokers_that_only_pods_reach_are_a_problem_unless_pods_check_them() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 1).await;
    pool.apply(&json!({"kafka": {"bootstrapServers": "127.0.0.1:1"}}))
        .await;
    let (_, found) = findings(&rig, &["--wait-seconds=1"]).await;
    let unreachable = one(&found, "kafka", "problem");
    assert!(contains(unreachable, "fix", "--in-cluster"), "{unreachable}");
    // No Deployment exists, so there is no pod template for the Jobs.
    let (code, found) = findings(&rig, &["--wait-seconds=1", "--in-cluster"]).await;
    one(&found, "kafka", "warning");
    let job = one(&found, "job", "problem");
    assert!(contains(job, "message", "Deployment vocals-processor"), "{job}");
    assert_eq!(code, Some(1));
}

#[tokio::test]
async fn a_job_that_does_not_end_is_deleted_at_its_limit_and_after_ctrl_c() {
    let rig = Rig::new().await;
    let pool = PoolUnderTest::new(&rig, 1).await;
    pool.apply(&json!({})).await;
    let operator = OperatorProcess::start_briefly_leading(&rig);
    pool.deployment().await;
    let jobs: Api<Job> = Api::namespaced(rig.admin.clone(), &rig.namespace);
    let exist = async || anyhow::Ok(!jobs.list(&ListParams::default()).await?.items.is_empty());

    // This cluster has no node.
    let (code, found) = findings(&rig, &["--in-cluster", "--job-seconds=1"]).await;
    assert_eq!(code, Some(1));
    let late = one(&found, "job", "problem");
    assert!(contains(late, "message", "after 1 s"), "{late}");
    assert!(!exist().await.expect("Jobs"));

    let directory = TempDirectory::new().expect("a directory");
    let log = directory.path().join("check.log");
    let command = command(&rig, rig.plane.admin_token(), &["--in-cluster"], &directory);
    let interrupted = Process::start("check", &command, &log, &log).expect("a process");
    eventually("Job", SOON, async || exist().await).await;
    interrupted.sigint().expect("it runs");
    assert_eq!(interrupted.wait_exit(SOON).await.expect("it ends"), 130);
    assert!(!exist().await.expect("Jobs"));
    operator.end().await;
}

#[test]
fn helm_test_has_the_operators_permissions_and_settings() {
    let values = json!({"watchNamespaces": ["media"]});
    let objects = Release::default().render(&values).expect("a chart");
    let one = |kind: &str, name: &str| {
        let mut objects = objects.iter();
        let found = objects.find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.expect("the chart has it")
    };
    let pod = |spec: &Value| -> PodSpec { serde_json::from_value(spec.clone()).expect("a pod") };
    let test = one("Pod", "separation-operator-test");
    assert_eq!(test["metadata"]["annotations"]["helm.sh/hook"], "test");
    let operator = pod(&one("Deployment", "separation-operator")["spec"]["template"]["spec"]);
    let pod = pod(&test["spec"]);
    assert_eq!(pod.service_account_name, operator.service_account_name);
    let (tests, runs) = (&pod.containers[0], &operator.containers[0]);
    assert_eq!(tests.image, runs.image);
    for variable in tests.env.iter().flatten() {
        assert!(
            runs.env.iter().flatten().any(|other| other == variable),
            "{variable:?}"
        );
    }
    let mut check = Command::new(env!("CARGO_BIN_EXE_separation-operator"));
    check.args(tests.args.iter().flatten()).arg("--help");
    let output = check.output().expect("it runs");
    let help = text_of(&output);
    assert!(output.status.success(), "{help}");
    for variable in tests.env.iter().flatten() {
        assert!(
            help.contains(&variable.name),
            "{} is not in\n{help}",
            variable.name
        );
    }
}
