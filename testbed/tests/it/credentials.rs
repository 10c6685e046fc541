//! Tokens and temporary credentials, as used by tests.

use std::error::Error;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::Credentials;
use rdkafka::client::OAuthToken;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::{ClientConfig, ClientContext};
use separation_testbed::{AssumedRole, Kafka, KafkaOptions, S3Server, Sts, TokenServer, eventually};
use serde_json::Value;

const MINUTE: Duration = Duration::from_secs(60);

struct WithToken(String);

impl ClientContext for WithToken {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let expires = SystemTime::now().duration_since(UNIX_EPOCH)? + MINUTE;
        Ok(OAuthToken {
            token: self.0.clone(),
            principal_name: "separation".to_owned(),
            lifetime_ms: i64::try_from(expires.as_millis())?,
        })
    }
}

impl ConsumerContext for WithToken {}

/// Whether a broker accepts a token.
async fn is_accepted(kafka: &Kafka, token: String) -> bool {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka.bootstrap_sasl_ssl())
        .set("ssl.ca.location", kafka.security().ca().to_str().unwrap())
        .set("security.protocol", "sasl_ssl")
        .set("sasl.mechanism", "OAUTHBEARER")
        .set("log_level", "0");
    let consumer: BaseConsumer<WithToken> = config.create_with_context(WithToken(token)).unwrap();
    let reached = tokio::task::spawn_blocking(move || {
        // Serves the callback that gives librdkafka the token.
        consumer.poll(Duration::from_millis(100));
        consumer.fetch_metadata(None, Duration::from_secs(4)).is_ok()
    });
    reached.await.unwrap()
}

fn http(ca_pem: &str) -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ca = reqwest::Certificate::from_pem(ca_pem.as_bytes()).unwrap();
    let builder = reqwest::Client::builder().tls_certs_only([ca]).no_proxy();
    builder.build().unwrap()
}

/// Status and body of a request for a token.
async fn request_token(tokens: &TokenServer, secret: &str) -> (u16, Value) {
    let request = http(tokens.ca_pem())
        .post(tokens.token_endpoint())
        .basic_auth(tokens.client_id(), Some(secret))
        .body("grant_type=client_credentials&scope=kafka");
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn a_broker_accepts_the_token_servers_tokens_until_it_drops_their_key() {
    let tokens = TokenServer::start().await.unwrap();
    let kafka = Kafka::start(KafkaOptions {
        secure: true,
        oauth: Some(tokens.for_kafka()),
        ..KafkaOptions::default()
    })
    .await
    .unwrap();
    let (status, refused) = request_token(&tokens, "wrong").await;
    assert_eq!((status, &refused["error"]), (401, &"invalid_client".into()));
    let (status, issued) = request_token(&tokens, &tokens.client_secret()).await;
    assert_eq!((status, &issued["expires_in"]), (200, &3600.into()));
    let requests: Vec<_> = tokens.requests().iter().map(|one| one.is_accepted).collect();
    assert_eq!(requests, [false, true]);
    let token = issued["access_token"].as_str().unwrap().to_owned();
    assert!(is_accepted(&kafka, token.clone()).await);
    let other = tokens.issue("separation", "another-server", MINUTE).unwrap();
    assert!(!is_accepted(&kafka, other).await);

    tokens.rotate_keys().unwrap();
    kafka.set_jwks(&tokens.jwks()).unwrap();
    assert!(is_accepted(&kafka, token.clone()).await);
    tokens.rotate_keys().unwrap();
    kafka.set_jwks(&tokens.jwks()).unwrap();
    assert!(!is_accepted(&kafka, token).await);
    let new = tokens.issue("separation", TokenServer::AUDIENCE, MINUTE).unwrap();
    assert!(is_accepted(&kafka, new).await);
}

/// The text of an element of an XML document.
fn element<'x>(xml: &'x str, name: &str) -> &'x str {
    let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap();
    rest.split_once('<').unwrap().0
}

fn client(s3: &S3Server, response: &str) -> Client {
    let credentials = Credentials::new(
        element(response, "AccessKeyId"),
        element(response, "SecretAccessKey"),
        Some(element(response, "SessionToken").to_owned()),
        None,
        "tests",
    );
    let config = s3.client().config().to_builder();
    Client::from_conf(config.credentials_provider(credentials).build())
}

#[tokio::test]
async fn s3_accepts_the_credentials_of_an_assumed_role_until_they_expire() {
    const ROLE: &str = "arn:aws:iam::123456789012:role/stems";
    let tokens = TokenServer::start().await.unwrap();
    let sts = Sts::start().await.unwrap();
    let s3 = S3Server::start_trusting(Ipv4Addr::LOCALHOST, &sts).await.unwrap();
    s3.create_bucket("sessions").await.unwrap();
    let assume = async || {
        let token = tokens.issue("worker", "sts.amazonaws.com", MINUTE).unwrap();
        let form = format!(
            "Action=AssumeRoleWithWebIdentity&RoleArn={ROLE}&RoleSessionName=one&WebIdentityToken={token}"
        );
        let request = http(tokens.ca_pem()).post(sts.endpoint()).body(form);
        request.send().await.unwrap().text().await.unwrap()
    };
    let untrusted = assume().await;
    assert_eq!(element(&untrusted, "Code"), "InvalidIdentityToken");
    sts.set_jwks(&tokens.jwks()).unwrap();
    sts.set_lifetime(Duration::from_secs(3));
    let session = client(&s3, &assume().await);
    let assumed = AssumedRole {
        role_arn: ROLE.to_owned(),
        session_name: "one".to_owned(),
        subject: "worker".to_owned(),
    };
    assert_eq!(sts.assumed(), [assumed]);
    let put = session
        .put_object()
        .bucket("sessions")
        .key("a b")
        .body("sound".to_owned().into_bytes().into());
    put.send().await.unwrap();
    assert_eq!(s3.get("sessions", "a b").await.unwrap().unwrap(), "sound");
    eventually("the refusal of an expired session", MINUTE, async || {
        let listed = session.list_objects_v2().bucket("sessions").send().await;
        listed.is_err_and(|error| format!("{error:?}").contains("InvalidToken"))
    })
    .await;
}
