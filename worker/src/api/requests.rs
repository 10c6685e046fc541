//! What callers ask for, read from bytes that may be anything.

use serde_json::Value;
use url::Url;

/// The largest body of JSON that is read: two addresses, of a few hundred bytes each.
pub const MAX_JSON_BYTES: usize = 64 * 1024;

/// The longest address that is taken; the message that carries it to the workers may have 64 KiB.
const MAX_URL_BYTES: usize = 8 * 1024;

/// A song to fetch, and whom to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerateRequest {
    /// Where the song is.
    pub audio: String,
    /// Whom to tell.
    pub hook_url: String,
}

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not the type that is read.
    #[error("Content-Type must be {0}")]
    ContentType(&'static str),
    /// Not what the type says.
    #[error("The body is not a JSON object")]
    NotAnObject,
    /// More than is read.
    #[error("The body is larger than {0} bytes")]
    TooLarge(usize),
    /// A field that must be there.
    #[error("Missing required field: {0}")]
    Missing(&'static str),
    /// A field that is no address.
    #[error("Invalid field: {0} must be an http:// or https:// address")]
    NoAddress(&'static str),
}

/// Reads the body of `POST /generate`.
///
/// # Errors
/// What is wrong with it first.
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
        Some(_) => Err(RequestError::NoAddress(name)),
    };
    Ok(GenerateRequest {
        audio: address("audio")?,
        hook_url: address("hook_url")?,
    })
}

/// Reads the field `name` that holds an address.
///
/// # Errors
/// When it holds none.
pub fn parse_address(name: &'static str, text: &str) -> Result<String, RequestError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(RequestError::Missing(name));
    }
    let url = Url::parse(text).ok().filter(|url| {
        text.len() <= MAX_URL_BYTES && matches!(url.scheme(), "http" | "https") && url.has_host()
    });
    url.map(|_| text.to_owned()).ok_or(RequestError::NoAddress(name))
}

/// Whether a `Content-Type` is `expected`, whatever parameters follow.
pub(super) fn is_type(content_type: Option<&[u8]>, expected: &str) -> bool {
    let essence = content_type.and_then(|bytes| bytes.split(|&byte| byte == b';').next());
    essence.is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(expected.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: Option<&[u8]> = Some(b"application/json");

    #[test]
    fn a_request_of_the_existing_system_is_read() {
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
    fn what_is_wrong_is_said() {
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
                RequestError::NoAddress("audio"),
            );
        }
        check(
            r#"{"audio": "http://a/b", "hook_url": "javascript:alert(1)"}"#,
            RequestError::NoAddress("hook_url"),
        );
        check(
            &format!(r#"{{"audio": "http://a/{}"}}"#, "x".repeat(MAX_URL_BYTES)),
            RequestError::NoAddress("audio"),
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
