//! Credentials that are rotated, again and again, while messages arrive: the operator continues, and replaces the pods
//! that were started with the old ones.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use separation_testbed::{AUTHORIZER, Kafka, KafkaOptions, TokenServer, eventually};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::rig::{Rig, SOON};
use crate::secrets::secrets_hash;
use crate::subject::{OperatorProcess, PoolUnderTest};

/// Number of rotations in each test; five are enough for each run of the tests.
const ROTATIONS: &str = "SEPARATION_TEST_ROTATIONS";

const PARTITIONS: i32 = 6;

/// Session lifetime at the brokers, after which a client authenticates again: shorter than [`READINGS`] readings, of
/// which there is one a second.
const SESSION_MS: &str = "1000";
const READINGS: f64 = 2.0;

/// Shorter than the time between two rotations, so that the operator also renews its token in between.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3);

/// Everything, in the arguments that change access control lists.
const ALL: [&str; 6] = ["--operation", "All", "--topic", "*", "--group", "*"];

fn rotations() -> i32 {
    std::env::var(ROTATIONS).map_or(5, |rotations| rotations.parse().expect("a number"))
}

struct Servers {
    kafka: Kafka,
    tokens: TokenServer,
}

/// The servers of these tests, each of which rotates other credentials.
async fn servers() -> &'static Servers {
    static STARTED: OnceCell<Servers> = OnceCell::const_new();
    STARTED.get_or_init(start_servers).await
}

async fn start_servers() -> Servers {
    let tokens = TokenServer::start().await.expect("a token server");
    tokens.set_lifetime(TOKEN_LIFETIME);
    let mut settings = AUTHORIZER.to_vec();
    settings.push(("connections.max.reauth.ms", SESSION_MS));
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let kafka = Kafka::start(KafkaOptions {
        secure: true,
        oauth: Some(tokens.for_kafka()),
        settings: settings.into_iter().map(owned).collect(),
        ..KafkaOptions::default()
    })
    .await
    .expect("Kafka");
    let mut principals: Vec<String> = (0..=rotations()).map(principal).collect();
    principals.extend(["User:worker".to_owned(), "User:separation".to_owned()]);
    let principals = principals.iter().flat_map(|user| ["--allow-principal", user]);
    let arguments: Vec<&str> = ["--add"].into_iter().chain(principals).chain(ALL).collect();
    kafka.change_acls(&arguments).await.expect("access control lists");
    Servers { kafka, tokens }
}

/// The user of the client certificate after this many rotations.
fn principal(rotation: i32) -> String {
    format!("User:CN={}", common_name(rotation))
}

fn common_name(rotation: i32) -> String {
    format!("rotation-{rotation}")
}

async fn write_secret(rig: &Rig, name: &str, data: &Value) {
    let secrets: Api<Secret> = Api::namespaced(rig.admin.clone(), &rig.namespace);
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
    let params = PatchParams::apply("a-person").force();
    let written = secrets.patch(name, &params, &Patch::Apply(secret)).await;
    written.expect("a secret");
}

fn pem(file: &Path) -> Value {
    json!({"ca.crt": std::fs::read_to_string(file).expect("a file")})
}

/// A pool whose operator has read its lag once.
struct Rotated<'a> {
    pool: PoolUnderTest<'a>,
    operator: OperatorProcess,
    messages: i32,
}

impl<'a> Rotated<'a> {
    async fn start(rig: &'a Rig, kafka: &'a Kafka, connection: Value) -> Self {
        let pool = PoolUnderTest::on(rig, kafka, "vocals", PARTITIONS).await;
        pool.apply(&json!({"kafka": connection})).await;
        let arguments = ["--secret-refresh-seconds", "1"];
        let operator = OperatorProcess::start_in(rig, &arguments, &[("NO_PROXY", "127.0.0.1")]);
        pool.until_adopted().await;
        let mut rotated = Self {
            pool,
            operator,
            messages: 0,
        };
        rotated.check_next_message().await;
        rotated
    }

    /// Waits until the operator has read Kafka after the last rotation, and checks that it finds another message.
    async fn check_next_message(&mut self) {
        self.operator.until_read_again(READINGS).await;
        self.pool.publish(self.messages % PARTITIONS, "{}").await;
        self.messages += 1;
        let expected = Some(i64::from(self.messages));
        self.pool
            .until_status("lag", SOON, |status| {
                let lag = status.processor.as_ref().and_then(|role| role.lag.as_ref());
                lag.and_then(|lag| lag.messages) == expected
            })
            .await;
    }

    async fn hash(&self) -> Option<String> {
        secrets_hash(&self.pool.deployment().await)
    }

    /// Waits until the pods are replaced by ones with another Secret.
    async fn until_pods_are_replaced(&self, before: &Option<String>) {
        eventually("replaced pods", SOON, async || {
            let now = self.hash().await;
            now.is_some() && now != *before
        })
        .await;
    }

    fn check_log(&self, secrets: &[String]) {
        let log = self.operator.log();
        for secret in secrets {
            assert!(!log.contains(secret.as_str()), "{secret} is in the log");
        }
    }
}

#[tokio::test]
async fn a_scram_password_is_rotated_without_a_manual_step() {
    let (Servers { kafka, .. }, rig) = tokio::join!(servers(), Rig::new());
    let user = kafka.security().username();
    write_secret(
        &rig,
        "kafka-user",
        &json!({"password": kafka.security().password()}),
    )
    .await;
    let sasl = json!({"username": user, "passwordSecretRef": {"name": "kafka-user"}});
    let connection = json!({"bootstrapServers": kafka.bootstrap_sasl_plaintext(), "sasl": sasl});
    let mut rotated = Rotated::start(&rig, kafka, connection).await;
    let mut passwords = Vec::new();
    for rotation in 0..rotations() {
        let before = rotated.hash().await;
        let password = format!("rotated-password-{rotation}");
        kafka.set_password(&password).await.expect("a new password");
        write_secret(&rig, "kafka-user", &json!({"password": password})).await;
        rotated.until_pods_are_replaced(&before).await;
        rotated.check_next_message().await;
        passwords.push(password);
    }
    rotated.check_log(&passwords);
}

#[tokio::test]
async fn a_client_certificate_is_rotated_without_a_manual_step() {
    let (Servers { kafka, .. }, rig) = tokio::join!(servers(), Rig::new());
    let certificate = |rotation| {
        let issued = kafka.security().client_certificate_of(&common_name(rotation));
        let (certificate, key) = issued.expect("a certificate");
        json!({"tls.crt": certificate, "tls.key": key})
    };
    write_secret(&rig, "kafka-ca", &pem(kafka.security().ca())).await;
    write_secret(&rig, "kafka-client", &certificate(0)).await;
    let tls = json!({
        "trustedCertificateSecretRefs": [{"name": "kafka-ca"}],
        "clientCertificateSecretRef": {"name": "kafka-client"},
    });
    let connection = json!({"bootstrapServers": kafka.bootstrap_ssl(), "tls": tls});
    let mut rotated = Rotated::start(&rig, kafka, connection).await;
    for rotation in 0..rotations() {
        let before = rotated.hash().await;
        write_secret(&rig, "kafka-client", &certificate(rotation + 1)).await;
        // The old certificate is no longer of use.
        let old = principal(rotation);
        let revoked = ["--remove", "--force", "--allow-principal", &old];
        let revoked = [&revoked[..], &ALL].concat();
        kafka.change_acls(&revoked).await.expect("access control lists");
        rotated.until_pods_are_replaced(&before).await;
        rotated.check_next_message().await;
    }
}

/// A pool with tokens from the token server, and its operator.
async fn with_tokens<'a>(rig: &'a Rig, servers: &'a Servers) -> Rotated<'a> {
    let Servers { kafka, tokens } = servers;
    write_secret(rig, "kafka-ca", &pem(kafka.security().ca())).await;
    write_secret(rig, "oauth-ca", &pem(tokens.ca_file())).await;
    write_secret(rig, "oauth", &json!({"clientSecret": tokens.client_secret()})).await;
    let oauth = json!({
        "tokenEndpoint": tokens.token_endpoint(),
        "clientID": tokens.client_id(),
        "clientSecretRef": {"name": "oauth"},
        "trustedCertificateSecretRefs": [{"name": "oauth-ca"}],
    });
    let connection = json!({
        "bootstrapServers": kafka.bootstrap_sasl_ssl(),
        "tls": {"trustedCertificateSecretRefs": [{"name": "kafka-ca"}]},
        "sasl": {"mechanism": "OAUTHBEARER", "oauth": oauth},
    });
    Rotated::start(rig, kafka, connection).await
}

/// Waits until the operator has received this many tokens since `before`.
async fn until_tokens(tokens: &TokenServer, before: usize, count: usize) {
    eventually("token", SOON, async || issued(tokens) >= before + count).await;
}

fn issued(tokens: &TokenServer) -> usize {
    let requests = tokens.requests().into_iter();
    requests.filter(|request| request.is_accepted).count()
}

#[tokio::test]
async fn client_secrets_and_signing_keys_of_tokens_are_rotated_without_a_manual_step() {
    let (servers, rig) = tokio::join!(servers(), Rig::new());
    let Servers { kafka, tokens } = servers;
    let mut rotated = with_tokens(&rig, servers).await;
    let mut secrets = Vec::new();
    for rotation in 0..rotations() {
        let before = rotated.hash().await;
        let secret = format!("rotated-client-secret-{rotation}");
        tokens.set_client_secret(&secret);
        let issued_before = issued(tokens);
        write_secret(&rig, "oauth", &json!({"clientSecret": secret})).await;
        secrets.push(secret);
        rotated.until_pods_are_replaced(&before).await;
        until_tokens(tokens, issued_before, 1).await;

        tokens.rotate_keys().expect("a key");
        kafka.set_jwks(&tokens.jwks()).expect("public keys");
        until_tokens(tokens, issued(tokens), 1).await;
        rotated.check_next_message().await;
    }
    rotated.check_log(&secrets);
}
