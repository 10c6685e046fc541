//! Webhook receivers that fail, hang or redirect: webhooks are delivered if possible and never delay other tasks.

use std::collections::BTreeSet;

use separation_contract::environment as env;
use separation_testbed::{Receiver, Reply, eventually, tiny_song};

use crate::rig::{Rig, STEP_TIMEOUT};

/// Waits until a task's manifest records the outcome of its webhook.
async fn webhook_state(rig: &Rig, task: &str) -> String {
    eventually("the webhook's outcome recorded", STEP_TIMEOUT, async || {
        let manifest = rig.manifest(task).await?;
        let state = manifest["webhook"].as_str()?.to_owned();
        (state != "pending").then_some(state)
    })
    .await
}

#[tokio::test]
async fn a_webhook_that_fails_at_first_is_retried_with_the_same_id() {
    let rig = Rig::new(1).await;
    let _processor = rig.processor().start().unwrap();
    let _uploader = rig.uploader().start().unwrap();
    rig.hooks
        .script("/hook", [Reply::Status(500), Reply::Status(200)]);
    let tasks: BTreeSet<_> = [rig.submit(1).await].into();
    for task in &tasks {
        assert_eq!(webhook_state(&rig, task).await, "delivered");
        let deliveries = rig.webhooks(task);
        assert_eq!(deliveries.len(), 2);
        assert_eq!(deliveries[0], deliveries[1], "the same id and the same body");
    }
    rig.wait_until_committed().await;
    rig.check_done(&tasks).await;
}

#[tokio::test]
async fn a_webhook_whose_receiver_hangs_is_retried() {
    let rig = Rig::new(1).await;
    let _processor = rig.processor().start().unwrap();
    let _uploader = rig.uploader().start().unwrap();
    rig.hooks.script("/hook", [Reply::Hang, Reply::Status(200)]);
    let task = rig.submit(1).await;
    assert_eq!(webhook_state(&rig, &task).await, "delivered");
    let [first, second] = [0, 1].map(|number| rig.hooks.requests_to("/hook")[number].at);
    let waited = (second - first).as_secs();
    assert!((30..40).contains(&waited), "{waited} s");
    rig.wait_until_committed().await;
}

#[tokio::test]
async fn a_webhook_that_fails_permanently_or_is_forbidden_is_recorded_as_failed_and_the_next_is_delivered() {
    let rig = Rig::new(1).await;
    let port = rig.hooks.address().port();
    let _processor = rig.processor().start().unwrap();
    // The receiver may be called by its host name, but not by its address.
    let uploader = rig.uploader().env(env::OUTBOUND_ALLOW, "localhost");
    let uploader = uploader.start().unwrap();
    let private = Receiver::start().await.unwrap();
    rig.hooks.script("/gone", [Reply::Status(410)]);
    rig.hooks
        .script("/moved", [Reply::Redirect(private.url("/private"))]);
    rig.hooks
        .script("/posted-on", [Reply::RedirectPost(private.url("/private"))]);
    rig.hooks.script(
        "/allowed",
        [Reply::RedirectPost(format!("http://localhost:{port}/arrived"))],
    );
    let at = |path: &str| format!("http://localhost:{port}{path}");
    let mut seed = 0;
    let mut submit = async |hook: String| {
        seed += 1;
        rig.site.submit(&tiny_song(seed), &hook).await.unwrap()
    };
    for (hook, calls) in [
        (at("/gone"), 3),
        (at("/moved"), 1),
        (at("/posted-on"), 1),
        (private.url("/private"), 0),
        ("http://169.254.169.254/latest/meta-data".to_owned(), 0),
        ("ftp://localhost/".to_owned(), 0),
        ("no address".to_owned(), 0),
    ] {
        let task = submit(hook.clone()).await;
        assert_eq!(webhook_state(&rig, &task).await, "failed", "{hook}");
        let path = hook.strip_prefix(&at("")).unwrap_or("/none");
        assert_eq!(rig.hooks.requests_to(path).len(), calls, "{hook}");
        let stored = rig.s3.get(&rig.site.bucket, &format!("{task}_vocals.wav")).await;
        assert!(stored.unwrap().is_some(), "the stems are stored anyway");
    }
    let task = submit(at("/allowed")).await;
    assert_eq!(webhook_state(&rig, &task).await, "delivered");
    assert_eq!(rig.hooks.requests_to("/arrived").len(), 1);
    rig.wait_until_committed().await;
    assert_eq!(private.requests().len(), 0, "no redirect was followed to it");
    assert_eq!(uploader.exit_code(), None);
}
