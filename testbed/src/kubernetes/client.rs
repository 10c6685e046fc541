//! The API requests of the testbed itself.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use crate::background;

/// Requests without a response by then are retried.
const TIMEOUT: Duration = Duration::from_secs(5);
const TOKEN_SECONDS: u32 = 3600;
/// A watch ends earlier by itself, after five to ten minutes.
const WATCH_TIMEOUT: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Client {
    pub(super) fn new(url: &str, ca_pem: &str, token: &str) -> Result<Self> {
        // Another test may have installed it first; it is the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(ca_pem.as_bytes())?])
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .context("cannot create an HTTP client")?;
        Ok(Self {
            http,
            url: url.to_owned(),
            token: token.to_owned(),
        })
    }

    /// Whether a GET of this path succeeds.
    pub(super) async fn exists(&self, path: &str) -> Result<bool> {
        let request = self
            .http
            .get(format!("{}{path}", self.url))
            .bearer_auth(&self.token);
        background::run(async move { Ok(request.send().await?.status().is_success()) }).await
    }

    /// The object at a path; null if there is none.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        let request = self
            .http
            .get(format!("{}{path}", self.url))
            .bearer_auth(&self.token);
        background::run(async move {
            let response = request.send().await?;
            if response.status() == reqwest::StatusCode::NOT_FOUND {
                return Ok(Value::Null);
            }
            Ok(response.error_for_status()?.json().await?)
        })
        .await
    }

    /// The lines of a streaming response as they arrive; must be called within the testbed's own runtime.
    pub(crate) async fn lines(&self, path: &str) -> Result<impl Stream<Item = Result<String>> + use<>> {
        let response = self
            .http
            .get(format!("{}{path}", self.url))
            .bearer_auth(&self.token)
            .timeout(WATCH_TIMEOUT)
            .send()
            .await?
            .error_for_status()?;
        let mut partial = Vec::new();
        let pieces = response.bytes_stream().map_err(anyhow::Error::from);
        Ok(pieces.flat_map(move |piece| {
            let lines = piece.map(|piece| take_complete_lines(&mut partial, &piece));
            stream::iter(match lines {
                Ok(lines) => lines.into_iter().map(Ok).collect(),
                Err(lost) => vec![Err(lost)],
            })
        }))
    }

    /// Requests a token of a service account; without audiences, for the API server.
    pub(super) async fn token(&self, namespace: &str, name: &str, audiences: &[&str]) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let request = self
            .http
            .post(format!("{}{path}", self.url))
            .bearer_auth(&self.token)
            .json(&json!({
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"audiences": audiences, "expirationSeconds": TOKEN_SECONDS},
            }));
        background::run(async move {
            let response = request.send().await?;
            let status = response.status();
            let body: Value = response.json().await?;
            ensure!(status.is_success(), "{}", body["message"]);
            let token = body["status"]["token"]
                .as_str()
                .context("the response has no token")?;
            Ok(token.to_owned())
        })
        .await
    }
}

/// The lines that a further piece completes; an incomplete last line stays in `partial`.
fn take_complete_lines(partial: &mut Vec<u8>, piece: &[u8]) -> Vec<String> {
    partial.extend(piece);
    let Some(end) = partial.iter().rposition(|byte| *byte == b'\n') else {
        return Vec::new();
    };
    let rest = partial.split_off(end + 1);
    let complete = std::mem::replace(partial, rest);
    String::from_utf8_lossy(&complete)
        .lines()
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_complete_however_the_stream_is_split() {
        let mut partial = Vec::new();
        assert!(take_complete_lines(&mut partial, b"on").is_empty());
        assert_eq!(take_complete_lines(&mut partial, b"e\ntwo\nth"), ["one", "two"]);
        assert_eq!(take_complete_lines(&mut partial, b"ree\n"), ["three"]);
        assert!(partial.is_empty());
    }
}
