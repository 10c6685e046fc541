//! The operation `AssumeRoleWithWebIdentity` of AWS's STS, and an S3 server's source of the sessions that it issued.
//!
//! versitygw has the operation itself, but fetches an issuer's public keys from no private address.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

use crate::{TempDirectory, background, jwt};

const AUDIENCE: &str = "sts.amazonaws.com";
const LIFETIME: Duration = Duration::from_secs(3600);
/// versitygw takes an access key with this prefix for one of a session.
const ACCESS_KEY_PREFIX: &str = "ASIA";
/// A header of every response to versitygw: the version of the protocol.
const PROTOCOL: (&str, &str) = ("x-vgw-private-protocol", "1");

/// A running server; it ends when this is dropped.
///
/// It issues temporary credentials, with a session token and an expiry, for the S3 servers that were started with it:
/// see [`crate::S3Server::start_trusting`]. They have all rights there.
#[derive(Debug)]
pub struct Sts {
    address: SocketAddr,
    socket: PathBuf,
    shared: Arc<Shared>,
    serving: [JoinHandle<()>; 2],
    _directory: TempDirectory,
}

/// A role that a token was exchanged for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssumedRole {
    /// The requested role.
    pub role_arn: String,
    /// The name that the client chose.
    pub session_name: String,
    /// The token's subject.
    pub subject: String,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<ServerState>,
}

#[derive(Debug)]
struct ServerState {
    jwks: Value,
    lifetime: Duration,
    /// By access key.
    sessions: HashMap<String, Session>,
    assumed: Vec<AssumedRole>,
}

#[derive(Debug)]
struct Session {
    role_arn: String,
    secret_key: String,
    token: String,
    expires: SystemTime,
}

impl Sts {
    /// Starts one on a free port of loopback; it trusts no issuer until [`Self::set_jwks`].
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
        let directory = TempDirectory::new()?;
        let socket = directory.join("sts.socket");
        let path = socket.clone();
        let (listener, private) = background::run(async move {
            let listener = TcpListener::bind((address, 0))
                .await
                .with_context(|| format!("cannot listen on {address}"))?;
            let private =
                UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
            Ok((listener, private))
        })
        .await?;
        let address = listener.local_addr().context("a listener has no address")?;
        let shared = Arc::new(Shared {
            state: Mutex::new(ServerState {
                jwks: json!({"keys": []}),
                lifetime: LIFETIME,
                sessions: HashMap::new(),
                assumed: Vec::new(),
            }),
        });
        let public = Router::new()
            .route("/", post(assume_role))
            .with_state(Arc::clone(&shared));
        let of_gateway = Router::new()
            .route("/private/version", post(version))
            .route("/private/derive-signing-key", post(derive_signing_key))
            .route("/private/evaluate-policy", post(evaluate_policy))
            .with_state(Arc::clone(&shared));
        // Both return only with their task, when the server is dropped.
        let serving = [
            background::start(async move {
                let _ = axum::serve(listener, public).await;
            }),
            background::start(async move {
                let _ = axum::serve(private, of_gateway).await;
            }),
        ];
        Ok(Self {
            address,
            socket,
            shared,
            serving,
            _directory: directory,
        })
    }

    /// Its URL, for `AWS_ENDPOINT_URL_STS`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Trusts the tokens that these keys (JWKS) sign for the audience `sts.amazonaws.com`, and no others.
    ///
    /// # Errors
    /// If it is not JSON.
    pub fn set_jwks(&self, jwks: &str) -> Result<()> {
        self.shared.state().jwks = serde_json::from_str(jwks).context("the JWKS is not JSON")?;
        Ok(())
    }

    /// Changes the lifetime of credentials issued from now on; at first it is an hour.
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.shared.state().lifetime = lifetime;
    }

    /// All roles that were assumed so far.
    pub fn assumed(&self) -> Vec<AssumedRole> {
        self.shared.state().assumed.clone()
    }

    /// The socket at which a gateway asks for the sessions.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Sts {
    fn drop(&mut self) {
        for serving in &self.serving {
            serving.abort();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, ServerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerState {
    /// The response to the fields of a request.
    fn assume(&mut self, form: &HashMap<String, String>) -> Result<String> {
        let field = |name: &str| {
            form.get(name)
                .with_context(|| format!("the request lacks {name}"))
        };
        let action = field("Action")?;
        ensure!(action == "AssumeRoleWithWebIdentity", "the action is {action}");
        let claims = jwt::verify(field("WebIdentityToken")?, &self.jwks, AUDIENCE)?;
        let assumed = AssumedRole {
            role_arn: field("RoleArn")?.clone(),
            session_name: field("RoleSessionName")?.clone(),
            subject: claims["sub"].as_str().unwrap_or_default().to_owned(),
        };
        let random = || uuid::Uuid::new_v4().simple().to_string();
        let access_key = format!("{ACCESS_KEY_PREFIX}{}", random()[..16].to_uppercase());
        let session = Session {
            role_arn: assumed.role_arn.clone(),
            secret_key: random(),
            // Real ones also have characters that a URL escapes.
            token: format!("{}/+{}==", random(), random()),
            expires: SystemTime::now() + self.lifetime,
        };
        let response = issued(&assumed, &access_key, &session)?;
        self.sessions.insert(access_key, session);
        self.assumed.push(assumed);
        Ok(response)
    }

    /// The session of a gateway's request: that of its access key and session token, unless expired.
    fn session(&self, request: &GatewayRequest) -> Result<&Session, Refusal> {
        let session = self.sessions.get(&request.access_key_id).ok_or(Refusal {
            code: "NoSuchIdentity",
            text: "no session has this access key",
        })?;
        let is_valid = session.token == request.session_token && SystemTime::now() < session.expires;
        is_valid.then_some(session).ok_or(Refusal {
            code: "InvalidToken",
            text: "the session token is wrong or has expired",
        })
    }
}

async fn assume_role(State(shared): State<Arc<Shared>>, body: String) -> Response {
    let form = url::form_urlencoded::parse(body.as_bytes())
        .into_owned()
        .collect();
    match shared.state().assume(&form) {
        Ok(response) => response.into_response(),
        Err(error) => {
            let text = format!(
                "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code>\
                 <Message>{error:#}</Message></Error></ErrorResponse>"
            );
            (StatusCode::BAD_REQUEST, text).into_response()
        }
    }
}

fn issued(assumed: &AssumedRole, access_key: &str, session: &Session) -> Result<String> {
    let expires = DateTime::from(session.expires).fmt(DateTimeFormat::DateTime)?;
    let AssumedRole {
        role_arn,
        session_name,
        subject,
    } = assumed;
    Ok(format!(
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult>\
         <SubjectFromWebIdentityToken>{subject}</SubjectFromWebIdentityToken><Audience>{AUDIENCE}</Audience>\
         <AssumedRoleUser><Arn>{role_arn}/{session_name}</Arn>\
         <AssumedRoleId>{access_key}:{session_name}</AssumedRoleId></AssumedRoleUser>\
         <Credentials><AccessKeyId>{access_key}</AccessKeyId>\
         <SecretAccessKey>{}</SecretAccessKey><SessionToken>{}</SessionToken>\
         <Expiration>{expires}</Expiration></Credentials>\
         </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
        session.secret_key, session.token
    ))
}

/// A request of versitygw. It signs them; only it can reach the socket.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GatewayRequest {
    access_key_id: String,
    session_token: String,
    /// For a signing key.
    date: String,
    region: String,
    service: String,
    /// For permissions.
    actions: Vec<String>,
    resources: Vec<String>,
}

/// The reason why a gateway must refuse its client; it knows these codes.
#[derive(Debug)]
struct Refusal {
    code: &'static str,
    text: &'static str,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = Json(json!({"code": self.code, "error": self.text}));
        (StatusCode::FORBIDDEN, [PROTOCOL], body).into_response()
    }
}

async fn version() -> Response {
    ([PROTOCOL], Json(json!({"protocol": 1, "minClient": 1}))).into_response()
}

async fn derive_signing_key(
    State(shared): State<Arc<Shared>>,
    Json(request): Json<GatewayRequest>,
) -> Response {
    let state = shared.state();
    let session = match state.session(&request) {
        Ok(session) => session,
        Err(refusal) => return refusal.into_response(),
    };
    let mut key = format!("AWS4{}", session.secret_key).into_bytes();
    for part in [
        &*request.date,
        &*request.region,
        &*request.service,
        "aws4_request",
    ] {
        let signed = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes());
        key = signed.as_ref().to_vec();
    }
    let body = json!({
        "derivedKey": BASE64_STANDARD.encode(key),
        "principalArn": session.role_arn,
        "roleArn": session.role_arn,
    });
    ([PROTOCOL], Json(body)).into_response()
}

async fn evaluate_policy(State(shared): State<Arc<Shared>>, Json(request): Json<GatewayRequest>) -> Response {
    if let Err(refusal) = shared.state().session(&request) {
        return refusal.into_response();
    }
    let allowed = vec![vec!["allow"; request.actions.len()]; request.resources.len()];
    ([PROTOCOL], Json(json!({"decisions": allowed}))).into_response()
}
