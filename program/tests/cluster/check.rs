//! `separation-operator check`, which `helm test` runs.

use std::fs;
use std::process::{Command, Output};

use k8s_openapi::api::core::v1::PodSpec;
use separation_testbed::{Release, TempDirectory};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::manifests::system;
use crate::rig::Rig;
use crate::subject::OperatorProcess;

/// Runs the check with a token.
async fn check(rig: &Rig, token: &str, arguments: &'static [&'static str]) -> Output {
    let directory = TempDirectory::new().expect("a directory");
    let kubeconfig = directory.path().join("kubeconfig");
    fs::write(&kubeconfig, rig.plane.kubeconfig(token)).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_separation-operator"));
    command
        .arg("check")
        .args(["--lease-namespace", &system(&rig.namespace)])
        .args(["--watch-namespaces", &rig.namespace])
        .args(arguments)
        .env("KUBECONFIG", kubeconfig);
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

#[tokio::test]
async fn check_names_the_leader_with_the_operators_permissions() {
    let rig = Rig::new().await;
    let operator = OperatorProcess::start_briefly_leading(&rig);
    let found = check(&rig, &rig.operator_token, &["--wait-seconds=30"]).await;
    let text = text_of(&found);
    assert!(found.status.success(), "{text}");
    assert!(
        text.contains("separation-operator_") && text.contains(" leads\n"),
        "{text}"
    );
    assert!(
        text.contains(&format!("pools of {} can be read", rig.namespace)),
        "{text}"
    );
    operator.end().await;
}

#[tokio::test]
async fn check_fails_without_a_leader_or_readable_pools() {
    let rig = Rig::new().await;
    let no_leader = check(&rig, &rig.operator_token, &["--wait-seconds=1"]).await;
    let text = text_of(&no_leader);
    assert_eq!(no_leader.status.code(), Some(1), "{text}");
    for part in ["no operator leads", "look at the operator's pods"] {
        assert!(text.contains(part), "{text}");
    }
    let operator = OperatorProcess::start_briefly_leading(&rig);
    operator.until_it_leads().await;
    operator.process.kill_9().await.expect("it runs");
    let dead = check(&rig, &rig.operator_token, &["--wait-seconds=2"]).await;
    assert!(
        text_of(&dead).contains("has not renewed the lease for 2 s"),
        "{}",
        text_of(&dead)
    );
    let operator = OperatorProcess::start_briefly_leading(&rig);
    let elsewhere = check(
        &rig,
        &rig.operator_token,
        &["--wait-seconds=30", "--watch-namespaces=kube-system"],
    )
    .await;
    let text = text_of(&elsewhere);
    assert_eq!(elsewhere.status.code(), Some(1), "{text}");
    assert!(
        text.contains("namespace kube-system") && text.contains("cannot list"),
        "{text}"
    );
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
