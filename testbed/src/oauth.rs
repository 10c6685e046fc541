//! An OAuth token endpoint with the client credentials grant, over HTTPS, and the public keys of its tokens.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::certificates::{Authority, Purpose};
use crate::https::TlsListener;
use crate::jwt::{SigningKey, seconds};
use crate::{KafkaOauth, TempDirectory, background};

const CLIENT_ID: &str = "separation";
const CLIENT_SECRET: &str = "separation-oauth-secret";
const LIFETIME: Duration = Duration::from_secs(3600);

/// A running server; it ends when this is dropped.
///
/// It accepts one client, whose id becomes the subject of its tokens.
#[derive(Debug)]
pub struct TokenServer {
    address: SocketAddr,
    ca_pem: String,
    ca_file: PathBuf,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
    _directory: TempDirectory,
}

/// A request for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OauthRequest {
    /// The client id that it authenticated with.
    pub client_id: String,
    /// The scope that it asked for.
    pub scope: Option<String>,
    /// Whether it received a token.
    pub is_accepted: bool,
}

#[derive(Debug)]
struct Shared {
    issuer: String,
    state: Mutex<ServerState>,
}

#[derive(Debug)]
struct ServerState {
    client_secret: String,
    lifetime: Duration,
    /// The fields `error` and `error_description` of every response.
    refusal: Option<(String, String)>,
    /// The first one signs; the second is that before the last rotation.
    keys: Vec<SigningKey>,
    requests: Vec<OauthRequest>,
}

impl TokenServer {
    /// The audience of its tokens.
    pub const AUDIENCE: &str = "kafka";

    /// Starts one on a free port of loopback.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start() -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST).await
    }

    /// The same on a free port of another address of this machine, such as [`crate::Node::host_address`].
    ///
    /// # Errors
    /// If the address is not local, or has no free port.
    pub async fn start_at(address: Ipv4Addr) -> Result<Self> {
        let authority = Authority::make()?;
        let certificate = authority.certificate(
            "token-server",
            &["localhost", "127.0.0.1", &address.to_string()],
            Purpose::Server,
        )?;
        let directory = TempDirectory::new()?;
        let ca_file = directory.join("ca.pem");
        std::fs::write(&ca_file, authority.pem()).context("cannot write a CA certificate")?;
        let listener = background::run(async move {
            TcpListener::bind((address, 0))
                .await
                .with_context(|| format!("cannot listen on {address}"))
        })
        .await?;
        let listener = TlsListener::new(listener, &certificate)?;
        let address = axum::serve::Listener::local_addr(&listener)?;
        let shared = Arc::new(Shared {
            issuer: format!("https://{address}"),
            state: Mutex::new(ServerState {
                client_secret: CLIENT_SECRET.to_owned(),
                lifetime: LIFETIME,
                refusal: None,
                keys: vec![SigningKey::generate()?],
                requests: Vec::new(),
            }),
        });
        let router = Router::new()
            .route("/token", post(token))
            .route("/jwks", get(jwks))
            .with_state(Arc::clone(&shared));
        let serving = background::start(async move {
            // Returns only with the task, when the server is dropped.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            address,
            ca_pem: authority.pem(),
            ca_file,
            shared,
            serving,
            _directory: directory,
        })
    }

    /// Its listen address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// URL of the token endpoint, for `KAFKA_OAUTH_TOKEN_ENDPOINT`.
    pub fn token_endpoint(&self) -> String {
        format!("{}/token", self.shared.issuer)
    }

    /// URL of its public keys.
    pub fn jwks_url(&self) -> String {
        format!("{}/jwks", self.shared.issuer)
    }

    /// The claim `iss` of its tokens.
    pub fn issuer(&self) -> &str {
        &self.shared.issuer
    }

    /// The authority's certificate (PEM), which signs the server's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// File with [`Self::ca_pem`], for `KAFKA_OAUTH_CA_LOCATION`.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// For brokers that accept its tokens: see [`crate::KafkaOptions::oauth`].
    pub fn for_kafka(&self) -> KafkaOauth {
        KafkaOauth {
            issuer: self.shared.issuer.clone(),
            audience: Self::AUDIENCE.to_owned(),
            jwks: self.jwks(),
        }
    }

    /// The id of its client.
    pub fn client_id(&self) -> &'static str {
        CLIENT_ID
    }

    /// The client's current secret.
    pub fn client_secret(&self) -> String {
        self.shared.state().client_secret.clone()
    }

    /// Changes the client's secret: the old one is refused with `invalid_client` from now on.
    pub fn set_client_secret(&self, secret: &str) {
        secret.clone_into(&mut self.shared.state().client_secret);
    }

    /// Changes the lifetime of tokens issued from now on; at first it is an hour.
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.shared.state().lifetime = lifetime;
    }

    /// Refuses every request with these OAuth fields, until [`Self::accept`].
    pub fn refuse_with(&self, error: &str, description: &str) {
        self.shared.state().refusal = Some((error.to_owned(), description.to_owned()));
    }

    /// Ends [`Self::refuse_with`].
    pub fn accept(&self) {
        self.shared.state().refusal = None;
    }

    /// Signs with a new key from now on. The public keys are the new and the previous one.
    ///
    /// # Errors
    /// If no key can be generated.
    pub fn rotate_keys(&self) -> Result<()> {
        let key = SigningKey::generate()?;
        let mut state = self.shared.state();
        state.keys.truncate(1);
        state.keys.insert(0, key);
        Ok(())
    }

    /// Its public keys (JWKS), for [`crate::Kafka::set_jwks`].
    pub fn jwks(&self) -> String {
        self.shared.jwks()
    }

    /// A token that no client requested.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn issue(&self, subject: &str, audience: &str, lifetime: Duration) -> Result<String> {
        self.shared
            .state()
            .issue(&self.shared.issuer, subject, audience, lifetime)
    }

    /// All requests for tokens so far.
    pub fn requests(&self) -> Vec<OauthRequest> {
        self.shared.state().requests.clone()
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, ServerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jwks(&self) -> String {
        let keys: Vec<_> = self.state().keys.iter().map(SigningKey::public_key).collect();
        json!({"keys": keys}).to_string()
    }
}

impl ServerState {
    fn issue(&self, issuer: &str, subject: &str, audience: &str, lifetime: Duration) -> Result<String> {
        let now = SystemTime::now();
        self.keys[0].sign(&json!({
            "iss": issuer,
            "sub": subject,
            "aud": audience,
            "iat": seconds(now),
            "exp": seconds(now + lifetime),
        }))
    }
}

async fn jwks(State(shared): State<Arc<Shared>>) -> String {
    shared.jwks()
}

/// RFC 6749, section 4.4: the client authenticates by Basic authentication or by fields of the form.
async fn token(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: String) -> Response {
    let form = fields(&body);
    let field = |name: &str| {
        form.iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    };
    let by_form = || Some((field("client_id")?, field("client_secret")?));
    let (client_id, secret) = basic(&headers).or_else(by_form).unwrap_or_default();
    let mut state = shared.state();
    let refusal = match &state.refusal {
        Some(refusal) => Some((StatusCode::BAD_REQUEST, refusal.clone())),
        None if field("grant_type").as_deref() != Some("client_credentials") => {
            let text = "the grant type is not client_credentials";
            Some((
                StatusCode::BAD_REQUEST,
                ("unsupported_grant_type".to_owned(), text.to_owned()),
            ))
        }
        None if client_id != CLIENT_ID || secret != state.client_secret => {
            let text = "the client id or the client secret is wrong";
            Some((
                StatusCode::UNAUTHORIZED,
                ("invalid_client".to_owned(), text.to_owned()),
            ))
        }
        None => None,
    };
    state.requests.push(OauthRequest {
        client_id: client_id.clone(),
        scope: field("scope"),
        is_accepted: refusal.is_none(),
    });
    if let Some((status, (error, description))) = refusal {
        let body = json!({"error": error, "error_description": description});
        return (status, Json(body)).into_response();
    }
    match state.issue(&shared.issuer, &client_id, TokenServer::AUDIENCE, state.lifetime) {
        Ok(token) => Json(issued(&token, state.lifetime)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response(),
    }
}

fn issued(token: &str, lifetime: Duration) -> Value {
    json!({"access_token": token, "token_type": "Bearer", "expires_in": lifetime.as_secs()})
}

/// Client id and secret of the header `Authorization`.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let decoded = BASE64_STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (id, secret) = text.split_once(':')?;
    // Both are encoded as in a form (RFC 6749, section 2.3.1).
    Some((decoded_field(id), decoded_field(secret)))
}

fn fields(form: &str) -> Vec<(String, String)> {
    let pairs = url::form_urlencoded::parse(form.as_bytes());
    pairs
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

fn decoded_field(text: &str) -> String {
    fields(text)
        .into_iter()
        .next()
        .map(|(name, _)| name)
        .unwrap_or_default()
}
