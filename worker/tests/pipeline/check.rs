//! `separation-worker check` with real brokers and a real object store.

use std::process::Command;

use separation_contract::check::{CheckResult, Finding};
use separation_contract::environment as env;

use crate::rig::{MODELS, Rig, WORKER};

/// Exit code and findings of the check of a role, with the settings of a site and changed ones.
async fn check(rig: &Rig, role: &str, changes: &[(&str, &str)]) -> (i32, Vec<Finding>) {
    let mut command = Command::new(WORKER);
    command
        .args(["check", role])
        .envs(rig.site.environment())
        .env(env::MODEL_FILE_DIR, MODELS)
        .env(env::MODEL_NAME, "identity_tiny.onnx")
        .env(env::S3_STAGING, format!("s3://{}/staging", rig.site.bucket))
        .envs(changes.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let findings = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")));
    (output.status.code().unwrap(), findings.collect())
}

/// The checks with another result than ok.
fn not_ok(findings: &[Finding]) -> Vec<(&str, CheckResult)> {
    let others = findings
        .iter()
        .filter(|finding| finding.result != CheckResult::Ok);
    others.map(|finding| (&*finding.check, finding.result)).collect()
}

#[tokio::test]
async fn check_reports_ok_for_both_roles_and_leaves_nothing() {
    let rig = Rig::new(2).await;
    for (role, more) in [("processor", Some("model")), ("uploader", None)] {
        let (code, findings) = check(&rig, role, &[]).await;
        assert_eq!((code, not_ok(&findings)), (0, vec![]), "{findings:?}");
        for expected in ["kafka", "topics", "rights", "store", "scratch"]
            .into_iter()
            .chain(more)
        {
            assert!(
                findings.iter().any(|finding| finding.check == expected),
                "{role}: no {expected} in {findings:?}"
            );
        }
    }
    let left = rig.s3.list(&rig.site.bucket, "").await.unwrap();
    assert_eq!(left, []);
}

#[tokio::test]
async fn check_writes_to_the_shared_directories_without_staging_in_a_bucket() {
    let rig = Rig::new(1).await;
    let mut command = Command::new(WORKER);
    command.args(["check", "uploader"]).envs(rig.site.environment());
    let output = command.output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    for directory in [&rig.site.songs, &rig.site.stems] {
        let written = format!("{}: files can be written", directory.display());
        assert!(printed.contains(&written), "{printed}");
    }
}

#[tokio::test]
async fn a_store_that_refuses_a_missing_topic_and_a_missing_model_are_reported_together_with_fixes() {
    let rig = Rig::new(1).await;
    let changes = [
        (env::AWS_SECRET_ACCESS_KEY, "wrong"),
        (env::KAFKA_TASK_TOPIC, "no_such_topic"),
        (env::MODEL_NAME, "absent"),
    ];
    let (code, findings) = check(&rig, "processor", &changes).await;
    assert_eq!(code, 1);
    let found = |check: &str, result: CheckResult| {
        let mut found = findings.iter();
        let found = found.find(|finding| finding.check == check && finding.result == result);
        found.unwrap_or_else(|| panic!("no {check} in {findings:?}"))
    };
    let topic = found("topics", CheckResult::Problem);
    assert!(topic.message.contains("topic no_such_topic"), "{topic:?}");
    let store = found("store", CheckResult::Problem);
    let fix = store.fix.as_deref().unwrap_or_default();
    assert!(fix.contains("valid S3 credentials"), "{store:?}");
    let model = found("model", CheckResult::Problem);
    assert!(
        model.message.contains("absent") && model.fix.is_some(),
        "{model:?}"
    );
    assert!(!findings.iter().any(|finding| finding.check == "gpu"));
}

#[tokio::test]
async fn a_missing_gpu_is_reported_as_gpu_and_not_as_model() {
    let rig = Rig::new(1).await;
    // As in a pod whose image has no library with CUDA.
    let changes = [(env::PROVIDER, "cuda"), ("ORT_DYLIB_PATH", "/no/such/library.so")];
    let (code, findings) = check(&rig, "processor", &changes).await;
    assert_eq!(
        (code, not_ok(&findings)),
        (1, vec![("gpu", CheckResult::Problem)])
    );
}

#[tokio::test]
async fn invalid_settings_of_a_role_exit_with_2_and_name_the_variable() {
    let mut command = Command::new(WORKER);
    command
        .args(["check", "uploader"])
        .env_remove(env::S3_BUCKET_NAME);
    let output = command.output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains(env::S3_BUCKET_NAME), "{error}");
}
