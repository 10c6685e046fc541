//! Tokens from the token endpoint of an OAuth 2 authorization server, by client credentials (RFC 6749, section 4.4).
//!
//! A user who can write a pool chooses the endpoint. So errors contain nothing of a response except its status and the
//! fields `error` and `error_description`, and are equal for all hosts that cannot be reached.

use std::error::Error;
use std::time::{Duration, SystemTime};
use std::{fmt, io};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, redirect};
use rustls::RootCertStore;
use serde::Deserialize;
use tokio::sync::OnceCell;
use url::{Url, form_urlencoded};

use super::token::{FetchToken, Token};
use crate::error::{causes, excerpt};
use crate::settings::ClientCredentials;
use crate::{ReadError, ReadErrorKind, tls};

/// The largest response that is read.
const MAX_RESPONSE_BYTES: usize = 65_536;

/// The most of an `error` or `error_description` that an error contains.
const MAX_FIELD_BYTES: usize = 200;

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for a request and its response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A token endpoint, and the credentials for it.
pub(super) struct TokenEndpoint {
    url: Url,
    credentials: ClientCredentials,
    /// `None` means the system trust store, which is read for the first request.
    roots: Option<RootCertStore>,
    http: OnceCell<Client>,
}

/// A response of the endpoint, successful (RFC 6749, section 5.1) or not (5.2).
#[derive(Deserialize)]
struct TokenResponse {
    access_token: Option<String>,
    expires_in: Option<Seconds>,
    error: Option<String>,
    error_description: Option<String>,
}

/// Checks the URL of a token endpoint: `https` with a host, and without user name, password and fragment.
///
/// # Errors
/// When it is not valid. The URL is not repeated: it may contain a password.
pub fn check_token_endpoint(url: &str) -> Result<Url, ReadError> {
    let is_valid = |url: &Url| {
        let has_user = !url.username().is_empty() || url.password().is_some();
        url.scheme() == "https" && url.has_host() && !has_user && url.fragment().is_none()
    };
    // The parser ignores white space.
    let has_space = url.contains(char::is_whitespace);
    let url = Url::parse(url).ok().filter(|url| !has_space && is_valid(url));
    url.ok_or_else(|| {
        ReadError::new(
            "the URL of the OAuth token endpoint is not valid; fix: write https://HOST/PATH, without user name, \
             password and fragment",
        )
    })
}

/// Some servers send seconds as a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

impl Seconds {
    fn duration(&self) -> Option<Duration> {
        let seconds = match self {
            Self::Number(seconds) => *seconds,
            Self::Text(seconds) => seconds.parse().ok()?,
        };
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// Without the URL's query and the proxy's credentials.
impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenEndpoint")
            .field(&self.url.authority())
            .finish()
    }
}

impl TokenEndpoint {
    /// Checks the URL and the certificates; nothing is sent before the first fetch.
    ///
    /// # Errors
    /// When the URL or a CA certificate is not valid.
    pub(super) fn new(credentials: &ClientCredentials) -> Result<Self, ReadError> {
        let ca = credentials.ca.as_ref();
        let roots = ca.map(|ca| tls::root_store("the CA certificate of the token endpoint", ca.expose()));
        Ok(Self {
            url: check_token_endpoint(&credentials.endpoint)?,
            credentials: credentials.clone(),
            roots: roots.transpose()?,
            http: OnceCell::new(),
        })
    }

    async fn client(&self) -> Result<Client, ReadError> {
        let tls = tls::client_config(self.roots.as_ref()).await?;
        Client::builder()
            .tls_backend_preconfigured(tls.with_no_client_auth())
            .https_only(true)
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            // The next token is fetched long after the server closed an idle connection.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("separation/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ReadError::new(format!("cannot set up HTTPS: {}", causes(&error))))
    }

    fn request(&self, http: &Client) -> Result<reqwest::Request, ReadError> {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.append_pair("grant_type", "client_credentials");
        if let Some(scope) = &self.credentials.scope {
            body.append_pair("scope", scope);
        }
        let request = http
            .post(self.url.clone())
            .header(AUTHORIZATION, self.authorization())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(body.finish())
            .build();
        request.map_err(|error| ReadError::new(format!("cannot request a token: {}", causes(&error))))
    }

    /// The value of `Authorization`: client ID and secret are encoded before they are joined (RFC 6749, section 2.3.1).
    fn authorization(&self) -> HeaderValue {
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let client_id = encoded(self.credentials.client_id.expose());
        let client_secret = encoded(self.credentials.client_secret.expose());
        let value = format!("Basic {}", BASE64.encode(format!("{client_id}:{client_secret}")));
        let mut value = HeaderValue::try_from(value).expect("Base64 is valid in a header");
        value.set_sensitive(true);
        value
    }

    async fn send(&self) -> Result<(u16, Vec<u8>), ReadError> {
        let http = self.http.get_or_try_init(|| self.client()).await?;
        let mut response = http
            .execute(self.request(http)?)
            .await
            .map_err(|error| self.no_response(error))?;
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| self.no_response(error))? {
            self.append(&mut body, &part)?;
        }
        Ok((response.status().as_u16(), body))
    }

    /// Appends a part of a response.
    fn append(&self, body: &mut Vec<u8>, part: &[u8]) -> Result<(), ReadError> {
        if body.len() + part.len() > MAX_RESPONSE_BYTES {
            return Err(ReadError::malformed(format!(
                "{} responded with more than {MAX_RESPONSE_BYTES} bytes; fix: use the URL of a token endpoint",
                self.url.authority()
            )));
        }
        body.extend_from_slice(part);
        Ok(())
    }

    /// Reads a response to a request that was sent at `requested`.
    fn read(&self, status: u16, body: &[u8], requested: SystemTime) -> Result<Token, ReadError> {
        let response: TokenResponse =
            serde_json::from_slice(body).map_err(|_| self.no_token_response(status))?;
        if let Some(error) = &response.error {
            return Err(self.refused(status, error, response.error_description.as_deref()));
        }
        let Some(text) = response.access_token.filter(|_| status == 200) else {
            return Err(self.no_token_response(status));
        };
        let jwt = Token::from_jwt(text.clone().into()).ok();
        let lifetime = response.expires_in.as_ref().and_then(Seconds::duration);
        let expires = lifetime.and_then(|lifetime| requested.checked_add(lifetime));
        let expires = expires
            .into_iter()
            .chain(jwt.as_ref().map(|jwt| jwt.expires))
            .min();
        let expires = expires.ok_or_else(|| {
            ReadError::malformed(format!(
                "the token endpoint {} does not report when its token expires; fix: let it send `expires_in`",
                self.url.authority()
            ))
        })?;
        let principal = jwt
            .map(|jwt| jwt.principal)
            .filter(|principal| !principal.is_empty());
        Ok(Token {
            text: text.into(),
            principal: principal.unwrap_or_else(|| self.credentials.client_id.expose().to_owned()),
            expires,
        })
    }

    fn refused(&self, status: u16, error: &str, description: Option<&str>) -> ReadError {
        let mut reason = excerpt(error, MAX_FIELD_BYTES);
        if let Some(description) = description {
            reason = format!("{reason} ({})", excerpt(description, MAX_FIELD_BYTES));
        }
        let endpoint = self.url.authority();
        if is_temporary(status) || error == "temporarily_unavailable" {
            return ReadError::unreachable(format!("the token endpoint {endpoint} failed: {reason}"));
        }
        ReadError::unauthorized(format!(
            "the token endpoint {endpoint} refused: {reason}; fix: check client ID, client secret and scope"
        ))
    }

    fn no_token_response(&self, status: u16) -> ReadError {
        let kind = if is_temporary(status) {
            ReadErrorKind::Unreachable
        } else {
            ReadErrorKind::Malformed
        };
        let why = format!(
            "{} responded with HTTP status {status} and without a token; fix: use the URL of a token endpoint",
            self.url.authority()
        );
        ReadError::with_kind(why, kind)
    }

    fn no_response(&self, error: reqwest::Error) -> ReadError {
        let endpoint = self.url.authority();
        if let Some(error) = certificate_error(&error) {
            return ReadError::unauthorized(format!(
                "the certificate of the token endpoint {endpoint} was refused: {error}; fix: name its CA certificate, \
                 and a host name that it contains"
            ));
        }
        let cause = causes(&error.without_url());
        // The operator's log levels are documented for its own targets.
        tracing::debug!(target: "separation_operator::kafka", endpoint, %cause, "No token endpoint answers");
        ReadError::unreachable(format!(
            "no token endpoint answers at {endpoint}; fix: check the address and HTTPS_PROXY; the debug log has the \
             cause"
        ))
    }
}

#[async_trait]
impl FetchToken for TokenEndpoint {
    async fn fetch(&self) -> Result<Token, ReadError> {
        let requested = SystemTime::now();
        let (status, body) = self.send().await?;
        self.read(status, &body, requested)
    }
}

/// Whether a retry may succeed: the server failed, or limits the rate of requests.
fn is_temporary(status: u16) -> bool {
    status >= 500 || matches!(status, 408 | 429)
}

/// Why a certificate was refused, if that is the cause. `io::Error` hides the error that it wraps from `source`.
fn certificate_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::CertificateError> {
    if let Some(rustls::Error::InvalidCertificate(why)) = error.downcast_ref() {
        return Some(why);
    }
    let wrapped = error.downcast_ref().and_then(io::Error::get_ref);
    let wrapped = wrapped.map(|wrapped| wrapped as &(dyn Error + 'static));
    certificate_error(wrapped.or_else(|| error.source())?)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    /// `{"sub": "vocals", "exp": 1715949296}`.
    const JWT: &str = "e30.eyJzdWIiOiAidm9jYWxzIiwgImV4cCI6IDE3MTU5NDkyOTZ9.c2ln";

    fn credentials(endpoint: &str) -> ClientCredentials {
        ClientCredentials {
            endpoint: endpoint.to_owned(),
            client_id: "media:vocals".to_owned().into(),
            client_secret: "a secret".to_owned().into(),
            scope: Some("kafka read".to_owned()),
            ca: None,
        }
    }

    fn endpoint() -> TokenEndpoint {
        without_trust_store("https://id.example/token?realm=media")
    }

    /// The machine that runs the tests may have none.
    fn without_trust_store(url: &str) -> TokenEndpoint {
        let mut endpoint = TokenEndpoint::new(&credentials(url)).unwrap();
        endpoint.roots = Some(RootCertStore::empty());
        endpoint
    }

    fn read(status: u16, body: &str) -> Result<Token, ReadError> {
        endpoint().read(status, body.as_bytes(), UNIX_EPOCH)
    }

    #[test]
    fn a_token_lives_as_long_as_the_response_or_the_jwt_states() {
        let opaque = read(
            200,
            r#"{"access_token": "opaque", "token_type": "Bearer", "expires_in": 300}"#,
        )
        .unwrap();
        assert_eq!(
            (opaque.text.expose(), opaque.principal.as_str(), opaque.expires),
            ("opaque", "media:vocals", UNIX_EPOCH + Duration::from_secs(300))
        );
        for (expires_in, expires) in [
            (r#", "expires_in": 300"#, 300),
            (r#", "expires_in": "300""#, 300),
            (r#", "expires_in": 9999999999"#, 1_715_949_296),
            ("", 1_715_949_296),
        ] {
            let jwt = read(200, &format!(r#"{{"access_token": "{JWT}"{expires_in}}}"#)).unwrap();
            assert_eq!(jwt.principal, "vocals");
            assert_eq!(
                jwt.expires,
                UNIX_EPOCH + Duration::from_secs(expires),
                "{expires_in}"
            );
        }
    }

    #[test]
    fn errors_contain_the_fields_of_oauth_and_nothing_else_of_a_response() {
        let no_token = "id.example responded with HTTP status";
        let long = format!(
            r#"{{"error": "invalid_scope", "error_description": "{}"}}"#,
            "x".repeat(1_000)
        );
        for (status, body, kind, expected) in [
            (
                401,
                r#"{"error": "invalid_client", "error_description": "wrong\nsecret", "trace": "internal"}"#,
                ReadErrorKind::Unauthorized,
                "the token endpoint id.example refused: invalid_client (wrong secret); fix: check client ID, client \
                 secret and scope",
            ),
            (
                400,
                long.as_str(),
                ReadErrorKind::Unauthorized,
                "invalid_scope (xxx",
            ),
            (
                503,
                r#"{"error": "temporarily_unavailable"}"#,
                ReadErrorKind::Unreachable,
                "the token endpoint id.example failed: temporarily_unavailable",
            ),
            (
                400,
                r#"{"error": "temporarily_unavailable"}"#,
                ReadErrorKind::Unreachable,
                "the token endpoint id.example failed: temporarily_unavailable",
            ),
            (
                429,
                r#"{"error": "invalid_request"}"#,
                ReadErrorKind::Unreachable,
                "the token endpoint id.example failed: invalid_request",
            ),
            (408, "", ReadErrorKind::Unreachable, no_token),
            (200, "<html>internal</html>", ReadErrorKind::Malformed, no_token),
            (302, "", ReadErrorKind::Malformed, no_token),
            (502, "internal", ReadErrorKind::Unreachable, no_token),
            (200, "{}", ReadErrorKind::Malformed, no_token),
            (
                201,
                r#"{"access_token": "opaque", "expires_in": 300}"#,
                ReadErrorKind::Malformed,
                no_token,
            ),
            (
                200,
                r#"{"access_token": "opaque"}"#,
                ReadErrorKind::Malformed,
                "does not report when its token expires",
            ),
        ] {
            let error = read(status, body).unwrap_err();
            let why = error.to_string();
            assert!(
                why.contains(expected) && error.kind == kind,
                "{status} {body}: {error:?}"
            );
            assert!(!why.contains("internal") && !why.contains("opaque"), "{why}");
            assert!(why.len() < 400, "{why}");
        }
    }

    #[test]
    fn a_response_that_is_too_large_is_refused() {
        let mut body = Vec::new();
        assert_eq!(endpoint().append(&mut body, &[0; MAX_RESPONSE_BYTES]), Ok(()));
        let error = endpoint().append(&mut body, &[0]).unwrap_err();
        assert!(
            error.to_string().contains("more than 65536 bytes; fix: "),
            "{error}"
        );
    }

    #[tokio::test]
    async fn the_request_authenticates_with_encoded_credentials_and_names_the_scope() {
        let endpoint = endpoint();
        let request = endpoint.request(&endpoint.client().await.unwrap()).unwrap();
        assert_eq!(request.url().as_str(), "https://id.example/token?realm=media");
        let body = request.body().and_then(reqwest::Body::as_bytes).unwrap();
        assert_eq!(body, b"grant_type=client_credentials&scope=kafka+read");
        let authorization = &request.headers()[AUTHORIZATION];
        // "media%3Avocals:a+secret".
        assert_eq!(authorization, "Basic bWVkaWElM0F2b2NhbHM6YStzZWNyZXQ=");
        assert!(authorization.is_sensitive());
    }

    #[test]
    fn only_https_urls_without_credentials_and_fragment_are_accepted() {
        assert!(check_token_endpoint("https://id.example/token?realm=media").is_ok());
        for url in [
            "http://id.example/token",
            "https://user:password@id.example/token",
            "https://id.example/token#password",
            "https://id.example/to ken",
            "https://",
            "id.example",
            "",
        ] {
            let error = TokenEndpoint::new(&credentials(url)).unwrap_err().to_string();
            assert!(error.contains("fix: write https://HOST/PATH"), "{url}: {error}");
            assert!(!error.contains("id.example"), "{error}");
        }
    }

    #[tokio::test]
    async fn an_unreachable_endpoint_is_reported_without_the_cause() {
        let endpoint = without_trust_store("https://127.0.0.1:1/token");
        let error = endpoint.fetch().await.unwrap_err();
        assert_eq!(error.kind, ReadErrorKind::Unreachable);
        assert!(
            error
                .to_string()
                .starts_with("no token endpoint answers at 127.0.0.1:1; fix: "),
            "{error}"
        );
    }
}
