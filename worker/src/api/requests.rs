//! Parses request bodies, which are untrusted.

use serde_json::Value;
use url::Url;

/// Maximum size of a JSON body: it holds two addresses of a few hundred bytes each.
pub const MAX_JSON_BYTES: usize = 64 * 1024;

/// Maximum length of an address; the Kafka message that carries it may have 64 KiB.
pub(super) const MAX_URL_BYTES: usize = 8 * 1024;

/// Body of `POST /generate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerateRequest {
    /// URL of the song.
    pub audio: String,
    /// URL of the webhook.
    pub hook_url: String,
}

/// Why a request is invalid; each text is the response's `error`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Another content type than the one in the field.
    #[error("Content-Type must be {0}")]
    ContentType(&'static str),
    /// Not a JSON object.
    #[error("The body is not a JSON object")]
    NotAnObject,
    /// Larger than this many bytes.
    #[error("The body is larger than {0} bytes")]
    TooLarge(usize),
    /// The named field is absent, null or empty.
    #[error("Missing required field: {0}")]
    Missing(&'static str),
    /// The named field is not an http(s) URL.
    #[error("Invalid field: {0} must be an http:// or https:// address")]
    InvalidUrl(&'static str),
}

/// Reads the body of `POST /generate`.
///
/// # Errors
/// The first error found.
pub fn parse_generate(content_type: Option<&[u8]>, body: &[u8]) -> Result<GenerateRequest, RequestError> {
    if !is_type(content_type, "application/json") {
        return Err(RequestError::ContentType("application/json"));
    }
    if body.len() > MAX_JSON_BYTES {
        return Err(RequestError::TooLarge(MAX_JSON_BYTES));
    }
    let json: Value = serde_json::from_slice(body).map_err(|_| RequestError::NotAnObject)?;
    let Value::Object(fields) = json else {
        return Err(RequestError::NotAnObject);
    };
    let address = |name: &'static str| match fields.get(name) {
        None | Some(Value::Null) => Err(RequestError::Missing(name)),
        Some(Value::String(text)) => parse_address(name, text),
        Some(_) => Err(RequestError::InvalidUrl(name)),
    };
    Ok(GenerateRequest {
        audio: address("audio")?,
        hook_url: address("hook_url")?,
    })
}

/// Parses the field `name` as an http(s) URL.
///
/// # Errors
/// When it is empty or not such a URL.
pub fn parse_address(name: &'static str, text: &str) -> Result<String, RequestError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(RequestError::Missing(name));
    }
    let url = Url::parse(text).ok().filter(|url| {
        text.len() <= MAX_URL_BYTES && matches!(url.scheme(), "http" | "https") && url.has_host()
    });
    url.map(|_| text.to_owned()).ok_or(RequestError::InvalidUrl(name))
}

/// Whether a `Content-Type` is `expected`; parameters are ignored.
pub(super) fn is_type(content_type: Option<&[u8]>, expected: &str) -> bool {
    let essence = content_type.and_then(|bytes| bytes.split(|&byte| byte == b';').next());
    essence.is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(expected.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: Option<&[u8]> = Some(b"application/json");

    #[test]
    fn a_request_of_uvr5_api_is_parsed() {
        let body =
            br#"{"audio": " https://example.com/a.mp3 ", "hook_url": "http://example.com/hook", "x": 1}"#;
        for content_type in ["application/json", "Application/JSON; charset=utf-8"] {
            let request = parse_generate(Some(content_type.as_bytes()), body).expect("complete");
            assert_eq!(request.audio, "https://example.com/a.mp3");
            assert_eq!(request.hook_url, "http://example.com/hook");
        }
    }

    #[track_caller]
    fn check(body: &str, expected: RequestError) {
        assert_eq!(parse_generate(JSON, body.as_bytes()), Err(expected), "{body}");
    }

    #[test]
    fn an_invalid_request_gives_the_reason() {
        check("", RequestError::NotAnObject);
        check("[]", RequestError::NotAnObject);
        check("{}", RequestError::Missing("audio"));
        check(r#"{"audio": null}"#, RequestError::Missing("audio"));
        check(r#"{"audio": ""}"#, RequestError::Missing("audio"));
        check(r#"{"audio": "http://a/b"}"#, RequestError::Missing("hook_url"));
        for audio in [
            r#""ftp://a/b""#,
            r#""/etc/passwd""#,
            r#""file:///etc/passwd""#,
            "7",
            r#""http://""#,
        ] {
            check(
                &format!(r#"{{"audio": {audio}}}"#),
                RequestError::InvalidUrl("audio"),
            );
        }
        check(
            r#"{"audio": "http://a/b", "hook_url": "javascript:alert(1)"}"#,
            RequestError::InvalidUrl("hook_url"),
        );
        check(
            &format!(r#"{{"audio": "http://a/{}"}}"#, "x".repeat(MAX_URL_BYTES)),
            RequestError::InvalidUrl("audio"),
        );
        check(
            &" ".repeat(MAX_JSON_BYTES + 1),
            RequestError::TooLarge(MAX_JSON_BYTES),
        );
        for content_type in [None, Some(b"text/plain".as_slice()), Some(b"\xff"), Some(b"")] {
            let refused = parse_generate(content_type, b"{}");
            assert_eq!(refused, Err(RequestError::ContentType("application/json")));
        }
    }
}
