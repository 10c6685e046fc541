//! HTTPS: an [`axum::serve::Listener`] with TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::background;
use crate::certificates::Certificate;

/// Connections whose handshake is done and that the server has not taken yet.
const QUEUE: usize = 16;

/// Connections after their TLS handshake. Handshakes run in parallel, so that a client that sends nothing delays no
/// other.
#[derive(Debug)]
pub(crate) struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    accepting: JoinHandle<()>,
}

impl TlsListener {
    /// Serves this certificate on the connections of `listener`.
    pub(crate) fn new(listener: TcpListener, certificate: &Certificate) -> Result<Self> {
        let address = listener.local_addr().context("a listener has no address")?;
        let chain = vec![CertificateDer::from_pem_slice(certificate.pem.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let (sender, ready) = mpsc::channel(QUEUE);
        let accepting = background::start(accept(listener, TlsAcceptor::from(Arc::new(config)), sender));
        Ok(Self {
            address,
            ready,
            accepting,
        })
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    sender: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            // The process may have too many open files for a moment.
            tokio::time::sleep(crate::eventually::POLL).await;
            continue;
        };
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        background::start(async move {
            // A client that refuses the certificate is not a defect of the server.
            if let Ok(stream) = acceptor.accept(stream).await {
                let _ = sender.send((stream, from)).await;
            }
        });
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(ready) => ready,
            // The accepting task has ended, with the testbed's runtime.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
