//! The page at `/` and its files: signs in, uploads songs, follows their tasks and plays the stems. Loads nothing from
//! other origins, except stems to whose presigned links the API redirects; its scripts use only the API v1.

use std::sync::LazyLock;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::app::App;
use super::problem::Problem;
use crate::model::hexadecimal;
use crate::work::chain;

const INDEX: &str = include_str!("page/index.html");

/// Stands for the nonce in the page.
const NONCE: &str = "NONCE";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// File names of the page, their types and contents.
const FILES: [(&str, &str, &str); 15] = [
    (
        "style.css",
        "text/css; charset=utf-8",
        include_str!("page/style.css"),
    ),
    ("icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("add_songs.js", SCRIPT, include_str!("page/add_songs.js")),
    ("client.js", SCRIPT, include_str!("page/client.js")),
    ("dom.js", SCRIPT, include_str!("page/dom.js")),
    ("follow.js", SCRIPT, include_str!("page/follow.js")),
    ("main.js", SCRIPT, include_str!("page/main.js")),
    ("player.js", SCRIPT, include_str!("page/player.js")),
    ("song_view.js", SCRIPT, include_str!("page/song_view.js")),
    ("songs.js", SCRIPT, include_str!("page/songs.js")),
    ("transport.js", SCRIPT, include_str!("page/transport.js")),
    ("uploads.js", SCRIPT, include_str!("page/uploads.js")),
    (
        "wavesurfer.esm.js",
        SCRIPT,
        include_str!("page/vendor/wavesurfer.esm.js"),
    ),
    ("words.js", SCRIPT, include_str!("page/words.js")),
    ("workspace.js", SCRIPT, include_str!("page/workspace.js")),
];

/// The ETag of each file, by its index.
static ETAGS: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| {
    let etag = |content: &str| {
        let digits = hexadecimal(&Sha256::digest(content)[..16]);
        HeaderValue::from_str(&format!("\"{digits}\"")).expect("hexadecimal digits are a valid header")
    };
    FILES.iter().map(|(_, _, content)| etag(content)).collect()
});

/// The page. Its nonce allows the style elements of the waveforms, which are created in the browser.
pub(super) async fn serve(State(app): State<App>) -> impl IntoResponse {
    let nonce = Uuid::new_v4().simple().to_string();
    let links = link_origin(&app).await.unwrap_or_default();
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self'; \
         media-src 'self' {links}; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    (
        [(header::CONTENT_SECURITY_POLICY, policy)],
        Html(INDEX.replace(NONCE, &nonce)),
    )
}

/// The other origin that the player is redirected to for stems, if there is one.
async fn link_origin(app: &App) -> Option<&str> {
    app.v1().ok()?.link_origin().await.unwrap_or_else(|error| {
        tracing::warn!(error = %chain(&error), "Cannot sign a link to stems: the page cannot play them by links");
        None
    })
}

/// A file of the page. Browsers ask whether it has changed before they use it again.
pub(super) async fn file(Path(name): Path<String>, request: HeaderMap) -> Response {
    let Some(index) = FILES.iter().position(|(known, _, _)| *known == name) else {
        return Problem::not_found().into_response();
    };
    let (_, content_type, content) = FILES[index];
    let etag = &ETAGS[index];
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::ETAG, etag.clone()),
    ];
    if request.get(header::IF_NONE_MATCH) == Some(etag) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    (headers, [content_type], content).into_response()
}
