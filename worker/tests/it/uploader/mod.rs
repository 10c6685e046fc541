//! What the uploader promises, with a real object store and a real receiver.

mod bench;

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use separation_contract::message::TaskResult;
use separation_worker::error::ErrorClass;
use separation_worker::work::{Finished, Refusal, Role as _};
use serde_json::json;

use bench::{Bench, SECRET, claim, claim_for};

use crate::storage::place::{Place, task};

const DONE: Finished = Finished {
    publish: None,
    success: true,
};

/// Checks a promise for stems in shared folders and in the object store.
async fn on_both(promise: impl AsyncFn(&Bench)) {
    promise(&Bench::new(Place::folders().await).await).await;
    promise(&Bench::new(Place::objects().await).await).await;
}

#[tokio::test]
async fn a_success_ends_with_both_stems_a_manifest_a_webhook_and_empty_staging() {
    on_both(async |bench| {
        let message = bench.staged("t1").await;
        assert_eq!(bench.uploader.recognise(&message).await.unwrap(), None);
        let finished = bench.uploader.work(&message, &claim()).await.unwrap();
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
            })
        );
        let rung = bench.receiver.rung();
        assert_eq!(rung.len(), 1);
        assert_eq!(
            rung[0].told(),
            json!({
                "task_uuid": "t1", "status": "success",
                "vocals": links["vocals"], "instrumental": links["instrumental"],
            })
        );

        assert_eq!(bench.uploader.recognise(&message).await.unwrap(), Some(DONE));
        bench.uploader.clean_up(&message, &finished).await;
        assert_eq!(bench.place.everything().await, Vec::<String>::new());
        bench.uploader.work(&message, &claim()).await.unwrap();
        assert_eq!(bench.receiver.rung().len(), 1, "a repeated message does nothing");
    })
    .await;
}

#[tokio::test]
async fn webhooks_are_signed_and_carry_the_trace() {
    let bench = Bench::new(Place::folders().await).await;
    let claim = claim();
    bench.uploader.work(&bench.failure("t1"), &claim).await.unwrap();
    let rung = &bench.receiver.rung()[0];
    assert_eq!(rung.header("webhook-id"), "t1");
    assert_eq!(rung.header("content-type"), "application/json");
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("t1.{}.", rung.header("webhook-timestamp")).as_bytes());
    mac.update(&rung.body);
    let expected = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    assert_eq!(rung.header("webhook-signature"), format!("v1,{expected}"));
    assert_eq!(rung.header("traceparent")[3..35], claim.trace.trace_id());
}

#[tokio::test]
async fn a_failure_is_told_and_its_stems_are_left_alone() {
    let bench = Bench::new(Place::folders().await).await;
    bench.place.show("t1", "of a try that succeeded").await;
    let message = bench.failure("t1");
    let finished = bench.uploader.work(&message, &claim()).await.unwrap();
    bench.uploader.clean_up(&message, &finished).await;
    assert_eq!(
        bench.manifest("t1").await.unwrap(),
        json!({"version": 1, "task_uuid": "t1", "status": "failed", "error_message": "not audio", "webhook": "delivered"})
    );
    let told = json!({"task_uuid": "t1", "status": "failed", "error_message": "not audio"});
    assert_eq!(bench.receiver.rung()[0].told(), told);
    assert_eq!(bench.place.everything().await.len(), 3);

    let message = bench.staged("t1").await;
    assert_eq!(bench.uploader.recognise(&message).await.unwrap(), None);
    bench.uploader.work(&message, &claim()).await.unwrap();
    assert_eq!(bench.manifest("t1").await.unwrap()["status"], "success");
    let late = bench.uploader.recognise(&bench.failure("t1")).await.unwrap();
    assert_eq!(late, Some(DONE), "a late failure takes nothing back");
}

#[tokio::test]
async fn the_caller_hears_of_each_message_that_fails_once() {
    let bench = Bench::new(Place::folders().await).await;
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
        bench.uploader.work(&failure(message), &claim()).await.unwrap();
        assert_eq!(bench.receiver.rung().len(), webhooks, "{message}");
    }
}

#[tokio::test]
async fn a_worker_that_lost_its_message_shows_nothing_more() {
    on_both(async |bench| {
        // In their order, what is asked before: vocals, instrumental, manifest, webhook, manifest.
        let visible = ["t_vocals.wav", "t_instrumental.wav", "t.json"];
        for questions in 0..5 {
            let name = format!("t{questions}");
            let message = bench.staged(&name).await;
            let lost = bench
                .uploader
                .work(&message, &claim_for(questions))
                .await
                .unwrap_err();
            assert_eq!(lost.class(), ErrorClass::Interrupted);
            let mut expected: Vec<String> = visible
                .iter()
                .take(questions)
                .map(|key| key.replacen('t', &name, 1))
                .collect();
            expected.sort();
            let mut keys = bench.keys().await;
            keys.retain(|key| key.starts_with(&name));
            keys.sort();
            assert_eq!(keys, expected);
        }
        let rung = bench.receiver.rung();
        assert_eq!(
            rung.iter()
                .map(|rung| rung.header("webhook-id"))
                .collect::<Vec<_>>(),
            ["t4"]
        );

        // What the lost one finished is not done again: its stems are not even there any more.
        for (name, webhooks) in [("t3", 2), ("t4", 3)] {
            bench.place.staging.remove(&task(name)).await.unwrap();
            let message = bench.success(name, "/gone", "/gone");
            bench.uploader.work(&message, &claim()).await.unwrap();
            assert_eq!(bench.webhook(name).await.as_deref(), Some("delivered"));
            assert_eq!(bench.receiver.rung().len(), webhooks);
        }
        let last = &bench.receiver.rung()[2];
        assert_eq!(
            (last.header("webhook-id"), &last.body),
            ("t4", &rung[0].body),
            "rung again, it says the same"
        );
    })
    .await;
}

#[tokio::test]
async fn a_receiver_is_tried_three_times_and_then_given_up() {
    let (patient, hopeless) = tokio::join!(async { Bench::new(Place::folders().await).await }, async {
        Bench::new(Place::folders().await).await
    });
    patient.receiver.answer(&[500, 404]);
    hopeless.receiver.answer(&[500, 503, 429]);
    let work = async |bench: &Bench| bench.uploader.work(&bench.failure("t1"), &claim()).await.unwrap();
    assert_eq!(tokio::join!(work(&patient), work(&hopeless)), (DONE, DONE));
    assert_eq!(patient.webhook("t1").await.as_deref(), Some("delivered"));
    assert_eq!(hopeless.webhook("t1").await.as_deref(), Some("failed"));
    for bench in [&patient, &hopeless] {
        let rung = bench.receiver.rung();
        assert_eq!(
            rung.iter()
                .map(|rung| rung.header("webhook-id"))
                .collect::<Vec<_>>(),
            ["t1"; 3]
        );
        let repeated = bench.uploader.recognise(&bench.failure("t1")).await.unwrap();
        assert_eq!(repeated, Some(DONE));
    }
}

#[tokio::test]
async fn a_caller_that_may_not_be_called_or_is_nobody_ends_the_task_at_once() {
    let bench = Bench::new(Place::folders().await).await;
    for (name, hook_url, state) in [
        ("private", Some("http://10.1.2.3/hook"), "failed"),
        ("metadata", Some("http://169.254.169.254/latest"), "failed"),
        ("nonsense", Some("not an address"), "failed"),
        ("nobody", None, "none"),
    ] {
        let message = TaskResult {
            hook_url: hook_url.map(str::to_owned),
            ..bench.staged(name).await
        };
        assert_eq!(bench.uploader.work(&message, &claim()).await.unwrap(), DONE);
        assert_eq!(bench.webhook(name).await.as_deref(), Some(state), "{name}");
    }
    assert!(bench.receiver.rung().is_empty());
}

#[tokio::test]
async fn stems_that_are_gone_fail_for_good_unless_they_are_where_they_belong() {
    on_both(async |bench| {
        let message = bench.staged("t1").await;
        bench.place.staging.remove(&task("t1")).await.unwrap();
        let error = bench.uploader.work(&message, &claim()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Permanent);
        assert!(error.message().contains("t1_vocals.wav"), "{error}");
        assert_eq!(bench.keys().await, Vec::<String>::new());

        // As another make of uploader leaves them: without a manifest.
        bench.put_object("t1_vocals.wav", "vocals").await;
        bench.put_object("t1_instrumental.wav", "instrumental").await;
        bench.uploader.work(&message, &claim()).await.unwrap();
        assert_eq!(bench.webhook("t1").await.as_deref(), Some("delivered"));
    })
    .await;
}

#[tokio::test]
async fn stems_outside_their_folder_are_not_uploaded() {
    let bench = Bench::new(Place::folders().await).await;
    std::fs::write(bench.place.path("secret"), "secret").unwrap();
    let secret = bench.place.path("secret").display().to_string();
    for path in [secret.as_str(), "/etc/passwd", "s3://elsewhere/object"] {
        let error = bench
            .uploader
            .work(&bench.success("t1", path, path), &claim())
            .await
            .unwrap_err();
        assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
    }
    assert_eq!(bench.keys().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_refused_result_is_told_as_a_failure_and_keeps_its_stems() {
    let bench = Bench::new(Place::folders().await).await;
    let message = bench.staged("t1").await;
    let name = task("t1");
    let refusal = Refusal {
        task_uuid: &name,
        hook_url: Some(&bench.receiver.url),
        reason: "the task ended its worker 3 times",
        message: "results/0@1",
    };
    let finished = bench.uploader.refuse(refusal, &claim()).await.unwrap();
    assert!(!finished.success);
    bench.uploader.clean_up(&message, &finished).await;
    assert_eq!(bench.place.everything().await.len(), 3);
    assert_eq!(
        bench.manifest("t1").await.unwrap()["error_message"],
        refusal.reason
    );
    assert_eq!(bench.receiver.rung()[0].told()["status"], "failed");
    bench.uploader.refuse(refusal, &claim()).await.unwrap();
    assert_eq!(bench.receiver.rung().len(), 1, "told once");

    // Refused after its stems were shown: the caller gets them.
    let message = bench.staged("t2").await;
    bench.uploader.work(&message, &claim_for(3)).await.unwrap_err();
    let name = task("t2");
    let refusal = Refusal {
        task_uuid: &name,
        ..refusal
    };
    let finished = bench.uploader.refuse(refusal, &claim()).await.unwrap();
    assert!(finished.success);
    assert_eq!(bench.receiver.rung()[1].told()["status"], "success");
}
