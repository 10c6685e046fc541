//! An S3 server in this process for trial use: a directory behind the API that workers use in production.
//!
//! It listens on loopback unless its clients are elsewhere. Clients with its credentials may do everything; others can
//! only fetch finished stems of uvr5-api's API, as from a publicly readable bucket.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Context as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use reqwest::Url;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Result, s3_error};
use s3s_fs::FileSystem;
use separation_contract::message::TaskId;
use separation_contract::names;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use uuid::Uuid;

use super::access::reachable;
use super::manifest::EmbeddedStore;

/// The one bucket.
const BUCKET: &str = "stems";

/// A server that stops when this is dropped.
#[derive(Debug)]
pub(super) struct StoreServer {
    pub(super) store: EmbeddedStore,
    serving: AbortHandle,
}

impl Drop for StoreServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Allows reading published stems without credentials; everything else requires them.
struct PublicStems;

/// Whether an object is a stem that the API of uvr5-api links to: its links are the only authorization. Staged songs and
/// stems, and all objects of the HTTP API v1, are in directories.
fn is_published_stem(key: &str) -> bool {
    let task = key
        .rsplit_once('_')
        .and_then(|(task, _)| TaskId::parse(task).ok());
    task.is_some_and(|task| key == names::vocals_key(&task) || key == names::instrumental_key(&task))
}

#[async_trait::async_trait]
impl S3Access for PublicStems {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let fetches = matches!(cx.s3_op().name(), "GetObject" | "HeadObject");
        let is_public = cx.s3_path().get_object_key().is_some_and(is_published_stem);
        if cx.credentials().is_some() || (fetches && is_public) {
            Ok(())
        } else {
            Err(s3_error!(AccessDenied, "credentials of the server are required"))
        }
    }
}

impl StoreServer {
    /// Serves a directory, with new random credentials: on any free port of loopback, or for clients that reach it at
    /// `public_url`, on this port of `host`.
    pub(super) async fn start(
        directory: &Path,
        host: IpAddr,
        public_url: Option<&Url>,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory.join(BUCKET))
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let files = FileSystem::new(directory).map_err(|error| {
            anyhow::anyhow!("the embedded S3 cannot use {}: {error:?}", directory.display())
        })?;
        let (access_key_id, secret_access_key) = (random_key(), random_key());
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(
            access_key_id.clone(),
            secret_access_key.clone(),
        ));
        service.set_access(PublicStems);
        let address = match public_url {
            None => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            Some(url) => {
                let port = url.port().with_context(|| {
                    format!("--store-url {url} names no port except its scheme's default; fix: add one, such as :9000")
                })?;
                SocketAddr::new(host, port)
            }
        };
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("the embedded S3 cannot listen on {address}"))?;
        let address = listener.local_addr().context("the embedded S3 has no address")?;
        let endpoint = format!("http://{}", reachable(address));
        let serving = tokio::spawn(serve(listener, service.build())).abort_handle();
        Ok(Self {
            store: EmbeddedStore {
                public_url: public_url.map_or_else(|| endpoint.clone(), Url::to_string),
                endpoint,
                bucket: BUCKET,
                access_key_id,
                secret_access_key,
            },
            serving,
        })
    }
}

async fn serve(listener: TcpListener, service: S3Service) -> Infallible {
    // Dropping it aborts all connections.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // The client has disconnected already.
                let Ok((stream, _)) = accepted else { continue };
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service.clone());
                connections.spawn(async move {
                    // Clients retry after a connection error.
                    let _ = connection.await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

fn random_key() -> String {
    Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn clients_without_credentials_can_read_published_stems_only() {
        let directory = tempfile::tempdir().unwrap();
        let server = StoreServer::start(directory.path(), Ipv4Addr::LOCALHOST.into(), None)
            .await
            .unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        for (key, expected) in [
            ("t1_vocals.wav", 200_u16),
            ("t1_instrumental.wav", 200),
            ("t1.json", 403),
            ("t1_input.wav", 403),
            ("_vocals.wav", 403),
            ("staging/inputs/t1_input.wav", 403),
            ("staging/stems/t1/a1/t1_vocals.wav", 403),
            ("v1/stems/admin/t2/vocals.wav", 403),
            ("v1/tasks/admin/t2.json", 403),
        ] {
            let file = directory.path().join(BUCKET).join(key);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "bytes").unwrap();
            let response = http
                .get(format!("{}/{BUCKET}/{key}", server.store.endpoint))
                .send();
            assert_eq!(response.await.unwrap().status(), expected, "{key}");
        }
        let listing = http.get(format!("{}/{BUCKET}", server.store.endpoint)).send();
        assert_eq!(listing.await.unwrap().status(), 403);
    }

    #[tokio::test]
    async fn the_url_for_clients_names_a_port() {
        let directory = tempfile::tempdir().unwrap();
        for url in ["http://localhost", "https://files.example/stems"] {
            let url = url.parse().unwrap();
            let refused = StoreServer::start(directory.path(), Ipv4Addr::LOCALHOST.into(), Some(&url)).await;
            let refused = refused.unwrap_err().to_string();
            assert!(
                refused.starts_with(&format!("--store-url {url} names no port")),
                "{refused}"
            );
        }
    }
}
