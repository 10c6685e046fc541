//! The page at `/`: posts a song and follows its task. One file that loads nothing from other origins.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{Html, IntoResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");
const BODY: &str = include_str!("page/body.html");

/// The page, and the `Content-Security-Policy` that allows only its own style and script.
static PAGE: LazyLock<(String, String)> = LazyLock::new(|| {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Vocals and instrumental</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{BODY}\
         <script>{SCRIPT}</script>\n</body>\n</html>\n"
    );
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    (page, policy)
});

pub(super) async fn serve() -> impl IntoResponse {
    let (page, policy) = &*PAGE;
    (
        [(header::CONTENT_SECURITY_POLICY, policy.as_str())],
        Html(page.as_str()),
    )
}
