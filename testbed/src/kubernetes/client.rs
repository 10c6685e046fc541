//! The few questions that the testbed itself asks an API server.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use crate::background;

/// A server that does not answer by then is asked again.
const TIMEOUT: Duration = Duration::from_secs(5);
const TOKEN_SECONDS: u32 = 3600;
/// A watch ends by itself before, after five to ten minutes.
const WATCH_TIMEOUT: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Client {
    pub(super) fn new(url: &str, ca_pem: &str, token: &str) -> Result<Self> {
        // Another test may have been first; it chose the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(ca_pem.as_bytes())?])
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .context("cannot make an HTTP client")?;
        Ok(Self {
            http,
            url: url.to_owned(),
            token: token.to_owned(),
        })
    }

    /// Whether a path is answered with success.
    pub(super) async fn exists(&self, path: &str) -> Result<bool> {
        let request = self
            .http
            .get(format!("{}{path}", self.url))
            .bearer_auth(&self.token);
        background::run(async move { Ok(request.send().await?.status().is_success()) }).await
    }

    /// An object; null where there is none.
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

    /// The lines of an answer that goes on, as they come; to be asked for within the testbed's own runtime.
    pub(crate) async fn lines(&self, path: &str) -> Result<impl Stream<Item = Result<String>> + use<>> {
        let response = self
            .http
            .get(format!("{}{path}", self.url))
            .bearer_auth(&self.token)
            .timeout(WATCH_TIMEOUT)
            .send()
            .await?
            .error_for_status()?;
        let mut begun = Vec::new();
        let pieces = response.bytes_stream().map_err(anyhow::Error::from);
        Ok(pieces.flat_map(move |piece| {
            let lines = piece.map(|piece| whole_lines(&mut begun, &piece));
            stream::iter(match lines {
                Ok(lines) => lines.into_iter().map(Ok).collect(),
                Err(lost) => vec![Err(lost)],
            })
        }))
    }

    /// A token of a service account.
    pub(super) async fn token(&self, namespace: &str, name: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let request = self
            .http
            .post(format!("{}{path}", self.url))
            .bearer_auth(&self.token)
            .json(&json!({
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": TOKEN_SECONDS},
            }));
        background::run(async move {
            let response = request.send().await?;
            let status = response.status();
            let body: Value = response.json().await?;
            ensure!(status.is_success(), "{}", body["message"]);
            let token = body["status"]["token"]
                .as_str()
                .context("the answer has no token")?;
            Ok(token.to_owned())
        })
        .await
    }
}

/// The lines that a further piece completes; what comes after the last one is kept for the next piece.
fn whole_lines(begun: &mut Vec<u8>, piece: &[u8]) -> Vec<String> {
    begun.extend(piece);
    let Some(end) = begun.iter().rposition(|byte| *byte == b'\n') else {
        return Vec::new();
    };
    let rest = begun.split_off(end + 1);
    let whole = std::mem::replace(begun, rest);
    String::from_utf8_lossy(&whole)
        .lines()
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_whatever_pieces_they_come_in() {
        let mut begun = Vec::new();
        assert!(whole_lines(&mut begun, b"on").is_empty());
        assert_eq!(whole_lines(&mut begun, b"e\ntwo\nth"), ["one", "two"]);
        assert_eq!(whole_lines(&mut begun, b"ree\n"), ["three"]);
        assert!(begun.is_empty());
    }
}
