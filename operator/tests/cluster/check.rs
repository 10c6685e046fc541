//! `separation-operator check`, which `helm test` runs.

use std::fs;
use std::process::{Command, Output};

use separation_testbed::TempDirectory;
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
