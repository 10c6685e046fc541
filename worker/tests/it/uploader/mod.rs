//! Tests of the uploader with a real object store and a real webhook receiver.

mod bench;
mod sweep;
mod v1;
mod v1_records;

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use separation_contract::api_task::FailureCode;
use separation_contract::message::TaskResult;
use separation_worker::error::ErrorClass;
use separation_worker::work::{FailureReport, Finished, Role as _};
use serde_json::json;

use bench::{Bench, PREVIOUS_SECRET, SECRET, context, context_confirmed};

use crate::storage::staging_area::{StagingArea, task};

const DONE: Finished = Finished {
    publish: None,
    success: true,
};

/// Runs a test with stems in shared directories and in the object store.
async fn on_both(promise: impl AsyncFn(&Bench)) {
    promise(&Bench::new(StagingArea::directories().await).await).await;
    promise(&Bench::new(StagingArea::objects().await).await).await;
}

#[tokio::test]
async fn a_success_ends_with_both_stems_a_manifest_a_webhook_and_empty_staging() {
    on_both(async |bench| {
        let message = bench.staged("t1").await;
        assert_eq!(bench.uploader.find_completed(&message).await.unwrap(), None);
        let finished = bench.uploader.work(&message, &context()).await.unwrap();
        assert_eq!(finished, DONE);

        assert_eq!(bench.object("t1_vocals.wav").await.as_deref(), Some("vocals 1"));
        assert_eq!(
            bench.object("t1_instrumental.wav").await.as_deref(),
            Some("instrumental 1")
        );
        assert_eq!(
            bench.content_type("t1_vocals.wav").await.as_deref(),
            Some("audio/wav")
        );
        let links = json!({
            "vocals": "https://cdn.example/t1_vocals.wav",
            "instrumental": "https://cdn.example/t1_instrumental.wav",
        });
        assert_eq!(
            bench.manifest("t1").await.unwrap(),
            json!({
                "version": 1, "task_uuid": "t1", "status": "success", "webhook": "delivered",
                "vocals": links["vocals"], "instrumental": links["instrumental"],
                "provenance": {"sha256": "ab", "license": "MIT"},
            })
        );
        let webhooks = bench.receiver.webhooks();
        assert_eq!(webhooks.len(), 1);
        assert_eq!(
            webhooks[0].body_without_timestamp(),
            json!({
                "task_uuid": "t1", "status": "success",
                "vocals": links["vocals"], "instrumental": links["instrumental"],
            })
        );

        assert_eq!(bench.uploader.find_completed(&message).await.unwrap(), Some(DONE));
        bench.uploader.clean_up(&message, &finished).await;
        assert_eq!(bench.area.all_files().await, Vec::<String>::new());
        bench.uploader.work(&message, &context()).await.unwrap();
        assert_eq!(
            bench.receiver.webhooks().len(),
            1,
            "a repeated message does nothing"
        );
    })
    .await;
}

#[tokio::test]
async fn a_prefix_of_stems_is_in_their_keys_and_links() {
    let bench = Bench::with_prefix(StagingArea::objects().await, "finals/").await;
    let message = bench.staged("t1").await;
    bench.uploader.work(&message, &context()).await.unwrap();
    assert_eq!(
        bench.object("finals/t1_vocals.wav").await.as_deref(),
        Some("vocals 1")
    );
    assert_eq!(bench.object("t1_vocals.wav").await, None);
    let manifest = bench.object("finals/t1.json").await.unwrap();
    assert!(
        manifest.contains("https://cdn.example/finals/t1_vocals.wav"),
        "{manifest}"
    );
    assert_eq!(bench.uploader.find_completed(&message).await.unwrap(), Some(DONE));
}

#[tokio::test]
async fn webhooks_are_signed_with_both_secrets_and_carry_the_trace() {
    let bench = Bench::new(StagingArea::directories().await).await;
    let context = context();
    bench.uploader.work(&bench.failure("t1"), &context).await.unwrap();
    let webhook = &bench.receiver.webhooks()[0];
    assert_eq!(webhook.header("webhook-id"), "t1");
    assert_eq!(webhook.header("content-type"), "application/json");
    let expected = [SECRET, PREVIOUS_SECRET].map(|secret| {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("t1.{}.", webhook.header("webhook-timestamp")).as_bytes());
        mac.update(&webhook.body);
        let signature = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
        format!("v1,{signature}")
    });
    assert_eq!(webhook.header("webhook-signature"), expected.join(" "));
    assert_eq!(webhook.header("traceparent")[3..35], context.trace.trace_id());
}

#[tokio::test]
async fn a_failure_calls_its_webhook_and_keeps_staged_stems() {
    let bench = Bench::new(StagingArea::directories().await).await;
    bench.area.publish("t1", "of a successful attempt").await;
    let message = bench.failure("t1");
    let finished = bench.uploader.work(&message, &context()).await.unwrap();
    bench.uploader.clean_up(&message, &finished).await;
    assert_eq!(
        bench.manifest("t1").await.unwrap(),
        json!({"version": 1, "task_uuid": "t1", "status": "failed", "error_message": "not audio", "webhook": "delivered"})
    );
    let body_without_timestamp = json!({"task_uuid": "t1", "status": "failed", "error_message": "not audio"});
    assert_eq!(
        bench.receiver.webhooks()[0].body_without_timestamp(),
        body_without_timestamp
    );
    assert_eq!(bench.area.all_files().await.len(), 3);

    let message = bench.staged("t1").await;
    assert_eq!(bench.uploader.find_completed(&message).await.unwrap(), None);
    bench.uploader.work(&message, &context()).await.unwrap();
    assert_eq!(bench.manifest("t1").await.unwrap()["status"], "success");
    let late = bench.uploader.find_completed(&bench.failure("t1")).await.unwrap();
    assert_eq!(late, Some(DONE), "a late failure changes nothing");
}

#[tokio::test]
async fn each_failed_message_calls_its_webhook_once() {
    let bench = Bench::new(StagingArea::directories().await).await;
    let failure = |message: &str| TaskResult {
        task_message: Some(message.to_owned()),
        ..bench.failure("t1")
    };
    for (message, webhooks) in [
        ("tasks/0@1", 1),
        ("tasks/0@1", 1),
        // The task was posted again.
        ("tasks/0@2", 2),
        ("tasks/0@2", 2),
    ] {
        bench.uploader.work(&failure(message), &context()).await.unwrap();
        assert_eq!(bench.receiver.webhooks().len(), webhooks, "{message}");
    }
}

#[tokio::test]
async fn a_worker_that_lost_its_message_publishes_nothing_more() {
    on_both(async |bench| {
        // The ownership is confirmed before each of: vocals, instrumental, manifest, webhook, manifest.
        let visible = ["t_vocals.wav", "t_instrumental.wav", "t.json"];
        for confirmations in 0..5 {
            let name = format!("t{confirmations}");
            let message = bench.staged(&name).await;
            let lost = bench
                .uploader
                .work(&message, &context_confirmed(confirmations))
                .await
                .unwrap_err();
            assert_eq!(lost.class(), ErrorClass::Interrupted);
            let mut expected: Vec<String> = visible
                .iter()
                .take(confirmations)
                .map(|key| key.replacen('t', &name, 1))
                .collect();
            expected.sort();
            let mut keys = bench.keys().await;
            keys.retain(|key| key.starts_with(&name));
            keys.sort();
            assert_eq!(keys, expected);
        }
        let webhooks = bench.receiver.webhooks();
        assert_eq!(
            webhooks
                .iter()
                .map(|webhook| webhook.header("webhook-id"))
                .collect::<Vec<_>>(),
            ["t4"]
        );

        // Work that the lost attempt finished is not repeated: its stems no longer exist.
        for (name, webhooks) in [("t3", 2), ("t4", 3)] {
            bench.area.staging.remove(&task(name)).await.unwrap();
            let message = bench.success(name, "/gone", "/gone");
            bench.uploader.work(&message, &context()).await.unwrap();
            assert_eq!(bench.webhook(name).await.as_deref(), Some("delivered"));
            assert_eq!(bench.receiver.webhooks().len(), webhooks);
        }
        let last = &bench.receiver.webhooks()[2];
        assert_eq!(
            (last.header("webhook-id"), &last.body),
            ("t4", &webhooks[0].body),
            "the repeated webhook has the same body"
        );
    })
    .await;
}

#[tokio::test]
async fn a_webhook_is_sent_at_most_three_times() {
    let (recovering, failing) = tokio::join!(
        async { Bench::new(StagingArea::directories().await).await },
        async { Bench::new(StagingArea::directories().await).await }
    );
    recovering.receiver.respond_with(&[500, 404]);
    failing.receiver.respond_with(&[500, 503, 429]);
    let work = async |bench: &Bench| {
        bench
            .uploader
            .work(&bench.failure("t1"), &context())
            .await
            .unwrap()
    };
    assert_eq!(tokio::join!(work(&recovering), work(&failing)), (DONE, DONE));
    assert_eq!(recovering.webhook("t1").await.as_deref(), Some("delivered"));
    assert_eq!(failing.webhook("t1").await.as_deref(), Some("failed"));
    for bench in [&recovering, &failing] {
        let webhooks = bench.receiver.webhooks();
        assert_eq!(
            webhooks
                .iter()
                .map(|webhook| webhook.header("webhook-id"))
                .collect::<Vec<_>>(),
            ["t1"; 3]
        );
        let repeated = bench.uploader.find_completed(&bench.failure("t1")).await.unwrap();
        assert_eq!(repeated, Some(DONE));
    }
}

#[tokio::test]
async fn a_forbidden_or_missing_webhook_ends_the_task_immediately() {
    let bench = Bench::new(StagingArea::directories().await).await;
    for (name, hook_url, state) in [
        ("private", Some("http://10.1.2.3/hook"), "failed"),
        ("metadata", Some("http://169.254.169.254/latest"), "failed"),
        ("nonsense", Some("not an address"), "failed"),
        ("no-webhook", None, "none"),
    ] {
        let message = TaskResult {
            hook_url: hook_url.map(str::to_owned),
            ..bench.staged(name).await
        };
        assert_eq!(bench.uploader.work(&message, &context()).await.unwrap(), DONE);
        assert_eq!(bench.webhook(name).await.as_deref(), Some(state), "{name}");
    }
    assert!(bench.receiver.webhooks().is_empty());
}

#[tokio::test]
async fn missing_stems_fail_permanently_unless_they_are_under_their_final_object_keys() {
    on_both(async |bench| {
        let message = bench.staged("t1").await;
        bench.area.staging.remove(&task("t1")).await.unwrap();
        let error = bench.uploader.work(&message, &context()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Permanent);
        assert!(error.message().contains("t1_vocals.wav"), "{error}");
        assert_eq!(bench.keys().await, Vec::<String>::new());

        // As the uploader of another implementation leaves them: without a manifest.
        bench.put_object("t1_vocals.wav", "vocals").await;
        bench.put_object("t1_instrumental.wav", "instrumental").await;
        bench.uploader.work(&message, &context()).await.unwrap();
        assert_eq!(bench.webhook("t1").await.as_deref(), Some("delivered"));
    })
    .await;
}

#[tokio::test]
async fn stems_outside_their_directory_are_not_uploaded() {
    let bench = Bench::new(StagingArea::directories().await).await;
    std::fs::write(bench.area.path("secret"), "secret").unwrap();
    let secret = bench.area.path("secret").display().to_string();
    for path in [secret.as_str(), "/etc/passwd", "s3://elsewhere/object"] {
        let error = bench
            .uploader
            .work(&bench.success("t1", path, path), &context())
            .await
            .unwrap_err();
        assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
    }
    assert_eq!(bench.keys().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_refused_result_is_reported_as_a_failure_and_keeps_its_stems() {
    let bench = Bench::new(StagingArea::directories().await).await;
    let message = bench.staged("t1").await;
    let name = task("t1");
    let failure = FailureReport {
        task_uuid: &name,
        hook_url: Some(&bench.receiver.url),
        reason: "the task crashed its worker 3 times",
        v1: None,
        code: FailureCode::Internal,
        message: "results/0@1",
    };
    let finished = bench.uploader.report_failure(failure, &context()).await.unwrap();
    assert!(!finished.success);
    bench.uploader.clean_up(&message, &finished).await;
    assert_eq!(bench.area.all_files().await.len(), 3);
    assert_eq!(
        bench.manifest("t1").await.unwrap()["error_message"],
        failure.reason
    );
    assert_eq!(
        bench.receiver.webhooks()[0].body_without_timestamp()["status"],
        "failed"
    );
    bench.uploader.report_failure(failure, &context()).await.unwrap();
    assert_eq!(bench.receiver.webhooks().len(), 1, "reported once");

    // Refused after its manifest was published: the webhook reports the success.
    let message = bench.staged("t2").await;
    bench
        .uploader
        .work(&message, &context_confirmed(3))
        .await
        .unwrap_err();
    let name = task("t2");
    let failure = FailureReport {
        task_uuid: &name,
        ..failure
    };
    let finished = bench.uploader.report_failure(failure, &context()).await.unwrap();
    assert!(finished.success);
    assert_eq!(
        bench.receiver.webhooks()[1].body_without_timestamp()["status"],
        "success"
    );
}
