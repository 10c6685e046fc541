//! A worker without keys for the object store: it exchanges a token for temporary credentials, again and again.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use separation_contract::environment as env;
use separation_testbed::{Kafka, S3Server, Sts, TokenServer, WorkerOptions};
use tokio::time::{Instant, sleep};

use crate::rig::{Rig, WORKER};

/// Of temporary credentials. The AWS SDK renews them 5 s to 10 s before they expire.
const LIFETIME: Duration = Duration::from_secs(12);

const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

const KEYS: [&str; 2] = [env::AWS_ACCESS_KEY_ID, env::AWS_SECRET_ACCESS_KEY];

#[tokio::test]
async fn stems_are_stored_with_temporary_credentials_before_and_after_they_expire() {
    let (tokens, sts) = tokio::join!(TokenServer::start(), Sts::start());
    let (tokens, sts) = (tokens.unwrap(), sts.unwrap());
    sts.set_jwks(&tokens.jwks()).unwrap();
    sts.set_lifetime(LIFETIME);
    let s3 = S3Server::start_trusting(Ipv4Addr::LOCALHOST, &sts).await.unwrap();
    let kafka = Kafka::shared().await.unwrap();
    let rig = Rig::with(kafka, Box::leak(Box::new(s3)), 1).await;
    let token = rig.directory.join("token");
    let issued = tokens.issue("vocals", "sts.amazonaws.com", TOKEN_LIFETIME);
    std::fs::write(&token, issued.unwrap()).unwrap();
    let environment = rig.site.environment().into_iter();
    let _uploader = WorkerOptions::new(WORKER, "uploader")
        .envs(environment.filter(|(name, _)| !KEYS.contains(&name.as_str())))
        .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/stems")
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", token)
        .env("AWS_ENDPOINT_URL_STS", sts.endpoint())
        .start()
        .unwrap();
    let _processor = rig.processor().start().unwrap();
    let mut tasks = BTreeSet::new();
    let begun = Instant::now();
    while begun.elapsed() < 2 * LIFETIME {
        tasks.insert(rig.submit(1).await);
        rig.wait_for_webhooks(&tasks).await;
        sleep(LIFETIME / 4).await;
    }
    rig.wait_until_committed().await;
    rig.check_done(&tasks).await;
    assert!(sts.assumed().len() > 1, "{:?}", sts.assumed());
}
