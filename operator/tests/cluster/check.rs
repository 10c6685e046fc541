//! `separation-operator check`: what `helm test` asks.

use std::fs;
use std::process::{Command, Output};

use separation_testbed::Folder;
use tokio::task::spawn_blocking;

use crate::manifests::system;
use crate::rig::Rig;
use crate::subject::OperatorProcess;

/// Asks with a token.
async fn check(rig: &Rig, token: &str, arguments: &'static [&'static str]) -> Output {
    let folder = Folder::new().expect("a folder");
    let kubeconfig = folder.path().join("kubeconfig");
    fs::write(&kubeconfig, rig.plane.kubeconfig(token)).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_separation-operator"));
    command
        .arg("check")
        .args(["--lease-namespace", &system(&rig.namespace)])
        .args(["--watch-namespaces", &rig.namespace])
        .args(arguments)
        .env("KUBECONFIG", kubeconfig);
    let output = spawn_blocking(move || command.output()).await.expect("no panic");
    drop(folder);
    output.expect("it runs")
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test]
async fn it_says_who_leads_with_no_more_rights_than_the_operator_has() {
    let rig = Rig::new().await;
    let operator = OperatorProcess::start_briefly_leading(&rig);
    let found = check(&rig, &rig.operator_token, &["--wait-seconds=30"]).await;
    let said = said(&found);
    assert!(found.status.success(), "{said}");
    assert!(
        said.contains("separation-operator_") && said.contains(" leads\n"),
        "{said}"
    );
    assert!(
        said.contains(&format!("pools of {} can be read", rig.namespace)),
        "{said}"
    );
    operator.end().await;
}

#[tokio::test]
async fn it_fails_where_nobody_leads_or_pools_cannot_be_read() {
    let rig = Rig::new().await;
    let nobody = check(&rig, &rig.operator_token, &["--wait-seconds=1"]).await;
    let text = said(&nobody);
    assert_eq!(nobody.status.code(), Some(1), "{text}");
    for part in ["no operator leads", "look at the operator's pods"] {
        assert!(text.contains(part), "{text}");
    }
    let operator = OperatorProcess::start_briefly_leading(&rig);
    operator.until_it_leads().await;
    operator.process.kill_9().await.expect("it runs");
    let dead = check(&rig, &rig.operator_token, &["--wait-seconds=2"]).await;
    assert!(
        said(&dead).contains("has not renewed it for 2 s"),
        "{}",
        said(&dead)
    );
    let operator = OperatorProcess::start_briefly_leading(&rig);
    let elsewhere = check(
        &rig,
        &rig.operator_token,
        &["--wait-seconds=30", "--watch-namespaces=kube-system"],
    )
    .await;
    let text = said(&elsewhere);
    assert_eq!(elsewhere.status.code(), Some(1), "{text}");
    assert!(
        text.contains("namespace kube-system") && text.contains("cannot list"),
        "{text}"
    );
    operator.end().await;
}
