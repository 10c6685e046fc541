//! Sessions of the page: an API key is exchanged for a cookie that scripts cannot read. No replica stores a session.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use url::Url;
use utoipa::ToSchema;

use super::super::app::App;
use super::super::clients::{Client, SECURE_SESSION_COOKIE, SESSION_COOKIE};
use super::super::session_token::SESSION_SECONDS;
use super::fields::{Errors, Fields, parse_json};
use super::problem::Problem;
use super::request::read_json;
use crate::clock::unix_time;

/// A session
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
pub(in crate::api) struct SessionView {
    /// Name of the client
    #[schema(example = "acme")]
    client: String,
}

/// `POST /v1/session`: starts a session for the client with the API key in the body.
pub(in crate::api) async fn sign_in(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let json = read_json(&parts.headers, body, app.settings.input.idle).await?;
    let key = key(&json)?;
    let session = app.settings.clients.sign_in(&key, unix_time().as_secs());
    let token = session.ok_or_else(|| Problem::unauthenticated("the API key is not valid"))?;
    let cookie = match is_encrypted(&parts.headers, app.settings.v1.public_url.as_ref()) {
        true => secure_cookie(&token, SESSION_SECONDS),
        false => cookie(&token, SESSION_SECONDS),
    };
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// `GET /v1/session`: the client of the request.
pub(in crate::api) async fn read(Extension(client): Extension<Arc<Client>>) -> Json<SessionView> {
    Json(SessionView {
        client: client.name.clone(),
    })
}

/// `DELETE /v1/session`: ends the session of the browser.
pub(in crate::api) async fn sign_out(State(app): State<App>, headers: HeaderMap) -> Response {
    let is_encrypted = is_encrypted(&headers, app.settings.v1.public_url.as_ref());
    // Of an encrypted connection after one without encryption, the browser has both.
    let cookies = [(header::SET_COOKIE, cookie("", 0))].into_iter();
    let secure = is_encrypted.then(|| (header::SET_COOKIE, secure_cookie("", 0)));
    let cookies: Vec<_> = cookies.chain(secure).collect();
    (StatusCode::NO_CONTENT, AppendHeaders(cookies)).into_response()
}

fn key(json: &[u8]) -> Result<String, Problem> {
    let value = parse_json(json)?;
    let mut errors = Errors::default();
    let key = Fields::new(&value, String::new(), &["key"], &mut errors)
        .and_then(|fields| fields.required_text("key", &mut errors))
        .map(str::to_owned);
    errors.finish(key)
}

/// Whether clients reach the API by https: the request arrived by it at the proxy before the API, or `public_url` has it.
fn is_encrypted(request: &HeaderMap, public_url: Option<&Url>) -> bool {
    let protocol = request.get("x-forwarded-proto");
    let protocol = protocol.and_then(|protocol| protocol.to_str().ok()?.split(',').next());
    protocol.is_some_and(|protocol| protocol.trim().eq_ignore_ascii_case("https"))
        || public_url.is_some_and(|url| url.scheme() == "https")
}

fn cookie(token: &str, max_age_seconds: u64) -> String {
    format!("{SESSION_COOKIE}={token}; Max-Age={max_age_seconds}; Path=/; HttpOnly; SameSite=Strict")
}

/// The cookie of an encrypted connection. The prefix of its name demands `Secure`, `Path=/` and no `Domain`.
fn secure_cookie(token: &str, max_age_seconds: u64) -> String {
    let attributes = "Path=/; HttpOnly; SameSite=Strict; Secure";
    format!("{SECURE_SESSION_COOKIE}={token}; Max-Age={max_age_seconds}; {attributes}")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_connection_is_encrypted_if_the_request_at_the_proxy_or_the_public_url_has_https() {
        let is_encrypted_by = |protocol: Option<&'static str>, public_url: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(protocol) = protocol {
                headers.insert("x-forwarded-proto", HeaderValue::from_static(protocol));
            }
            let public_url: Option<Url> = public_url.map(|url| url.parse().expect("a URL"));
            is_encrypted(&headers, public_url.as_ref())
        };
        for (protocol, expected) in [
            ("http", false),
            ("https", true),
            ("HTTPS, http", true),
            ("http, https", false),
        ] {
            assert_eq!(is_encrypted_by(Some(protocol), None), expected, "{protocol}");
        }
        assert!(!is_encrypted_by(None, None));
        assert!(!is_encrypted_by(None, Some("http://songs.example")));
        assert!(is_encrypted_by(None, Some("https://songs.example")));
    }

    #[test]
    fn only_a_body_with_a_key_is_accepted() {
        assert_eq!(key(br#"{"key": "sk_1"}"#).expect("a key"), "sk_1");
        for (json, pointer) in [
            ("{}", "/key"),
            (r#"{"key": 1}"#, "/key"),
            (r#"{"key": "sk_1", "x~/": 1}"#, "/x~0~1"),
            ("[]", ""),
        ] {
            let problem = key(json.as_bytes()).expect_err(json);
            assert_eq!(problem.pointers(), [pointer], "{json}");
        }
    }
}
