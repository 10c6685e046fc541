//! Callers that fail, are silent, or lead elsewhere: they are told as far as possible, and never hold up the rest.

use std::collections::BTreeSet;

use separation_contract::environment as env;
use separation_testbed::{Receiver, Reply, eventually, tiny_song};

use crate::rig::{PATIENCE, Rig};

/// Waits until a task's manifest says what became of its webhook.
async fn told(rig: &Rig, task: &str) -> String {
    eventually("the webhook's end written down", PATIENCE, async || {
        let manifest = rig.manifest(task).await?;
        let state = manifest["webhook"].as_str()?.to_owned();
        (state != "pending").then_some(state)
    })
    .await
}

#[tokio::test]
async fn a_receiver_that_fails_at_first_is_told_again_with_the_same_id() {
    let rig = Rig::new(1).await;
    let _processor = rig.processor().start().unwrap();
    let _uploader = rig.uploader().start().unwrap();
    rig.hooks
        .script("/hook", [Reply::Status(500), Reply::Status(200)]);
    let tasks: BTreeSet<_> = [rig.submit(1).await].into();
    for task in &tasks {
        assert_eq!(told(&rig, task).await, "delivered");
        let rung = rig.webhooks(task);
        assert_eq!(rung.len(), 2);
        assert_eq!(rung[0], rung[1], "the same id and the same words");
    }
    rig.run_dry().await;
    rig.check_done(&tasks).await;
}

#[tokio::test]
async fn a_receiver_that_hangs_is_told_again() {
    let rig = Rig::new(1).await;
    let _processor = rig.processor().start().unwrap();
    let _uploader = rig.uploader().start().unwrap();
    rig.hooks.script("/hook", [Reply::Hang, Reply::Status(200)]);
    let task = rig.submit(1).await;
    assert_eq!(told(&rig, &task).await, "delivered");
    let [first, second] = [0, 1].map(|number| rig.hooks.requests_to("/hook")[number].at);
    let waited = (second - first).as_secs();
    assert!((30..40).contains(&waited), "{waited} s");
    rig.run_dry().await;
}

#[tokio::test]
async fn a_receiver_that_fails_for_good_or_leads_to_a_forbidden_place_is_given_up_and_the_next_is_told() {
    let rig = Rig::new(1).await;
    let port = rig.hooks.address().port();
    let _processor = rig.processor().start().unwrap();
    // The receiver may be called by its name, and not by its address.
    let uploader = rig.uploader().env(env::OUTBOUND_ALLOW, "localhost");
    let uploader = uploader.start().unwrap();
    let private = Receiver::start().await.unwrap();
    rig.hooks.script("/gone", [Reply::Status(410)]);
    rig.hooks
        .script("/moved", [Reply::Redirect(private.url("/private"))]);
    rig.hooks
        .script("/posted-on", [Reply::PostOn(private.url("/private"))]);
    rig.hooks.script(
        "/allowed",
        [Reply::PostOn(format!("http://localhost:{port}/arrived"))],
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
        assert_eq!(told(&rig, &task).await, "failed", "{hook}");
        let path = hook.strip_prefix(&at("")).unwrap_or("/none");
        assert_eq!(rig.hooks.requests_to(path).len(), calls, "{hook}");
        let stored = rig.s3.get(&rig.site.bucket, &format!("{task}_vocals.wav")).await;
        assert!(stored.unwrap().is_some(), "the stems are there all the same");
    }
    let task = submit(at("/allowed")).await;
    assert_eq!(told(&rig, &task).await, "delivered");
    assert_eq!(rig.hooks.requests_to("/arrived").len(), 1);
    rig.run_dry().await;
    assert_eq!(private.requests().len(), 0, "nobody was led there");
    assert_eq!(uploader.exit_code(), None);
}
