//! An S3 server in this process for trial use: a directory behind the API that workers use in production.
//!
//! It listens on loopback. Clients with its credentials may do everything; others can only fetch objects, as from a
//! publicly readable bucket.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Context as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use uuid::Uuid;

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

/// Allows reading objects without credentials; everything else requires them.
struct PublicObjects;

#[async_trait::async_trait]
impl S3Access for PublicObjects {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let fetches = matches!(cx.s3_op().name(), "GetObject" | "HeadObject");
        if cx.credentials().is_some() || fetches {
            Ok(())
        } else {
            Err(s3_error!(AccessDenied, "credentials of the server are required"))
        }
    }
}

impl StoreServer {
    /// Serves a directory, with new random credentials.
    pub(super) async fn start(directory: &Path) -> anyhow::Result<Self> {
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
        service.set_access(PublicObjects);
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .await
            .context("the embedded S3 cannot listen")?;
        let address = listener.local_addr().context("the embedded S3 has no address")?;
        let serving = tokio::spawn(serve(listener, service.build())).abort_handle();
        Ok(Self {
            store: EmbeddedStore {
                endpoint: format!("http://{address}"),
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
