//! TLS to brokers: whom we trust, and what we show.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connection::no_broker;
use super::settings::ClientCertificate;
use super::{Tls, Unread};

/// Encryption as it was asked for.
pub(super) struct Encryption {
    /// None means the authorities that the machine trusts, which are read when the first connection is made.
    roots: Option<RootCertStore>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    connector: OnceCell<TlsConnector>,
}

impl Encryption {
    /// Reads what was given.
    ///
    /// # Errors
    /// When a text is not what it should be.
    pub(super) fn new(tls: &Tls) -> Result<Self, Unread> {
        let roots = tls.ca.as_ref().map(|ca| {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("the authority's certificate", ca.expose())? {
                roots.add(certificate).map_err(|error| {
                    Unread::new(format!("the authority's certificate cannot be used: {error}"))
                })?;
            }
            Ok(roots)
        });
        Ok(Self {
            roots: roots.transpose()?,
            client: tls.client.as_ref().map(client).transpose()?,
            connector: OnceCell::new(),
        })
    }

    /// Encrypts a connection, and checks that the other side is `host`.
    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Unread> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Unread::new(format!("{host} is no name that a certificate could have")))?;
        let connector = self.connector.get_or_try_init(|| self.connector()).await?;
        connector.connect(name, stream).await.map_err(|error| {
            let text = format!("TLS: {error}{}", hint(&error.to_string()));
            if is_about_certificates(&error) {
                Unread::refused(text)
            } else {
                no_broker(host, &text)
            }
        })
    }

    async fn connector(&self) -> Result<TlsConnector, Unread> {
        let roots = match &self.roots {
            Some(roots) => roots.clone(),
            None => trusted_by_the_machine().await?,
        };
        let refused = |error: rustls::Error| Unread::new(format!("TLS: {error}"));
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .with_root_certificates(roots);
        let config = match &self.client {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain.clone(), key.clone_key())
                .map_err(|error| {
                    Unread::new(format!(
                        "the client certificate and its key cannot be used: {error}"
                    ))
                })?,
            None => builder.with_no_client_auth(),
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

async fn trusted_by_the_machine() -> Result<RootCertStore, Unread> {
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs)
        .await
        .map_err(|_| Unread::new("the machine's authorities cannot be read"))?;
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err(Unread::new(
            "this machine trusts no authority; fix: name the brokers' in kafka.tls.caSecretRef",
        ));
    }
    Ok(roots)
}

fn certificates(what: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, Unread> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match read {
        Ok(found) if found.is_empty() => Err(Unread::new(format!(
            "{what} is no PEM; fix: give the text that begins with -----BEGIN CERTIFICATE-----"
        ))),
        Ok(found) => Ok(found),
        Err(error) => Err(Unread::new(format!("{what} is no PEM: {error}"))),
    }
}

fn client(
    given: &ClientCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Unread> {
    let chain = certificates("the client certificate", given.certificate.expose())?;
    let key = PrivateKeyDer::from_pem_slice(given.private_key.expose().as_bytes()).map_err(|_| {
        Unread::new(
            "the client's private key is no PEM of an unencrypted key; fix: openssl pkcs8 -topk8 -nocrypt",
        )
    })?;
    Ok((chain, key))
}

/// Whether the other side speaks TLS, and one of the two certificates is refused.
fn is_about_certificates(error: &std::io::Error) -> bool {
    let error = error
        .get_ref()
        .and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(
        error,
        Some(
            rustls::Error::InvalidCertificate(_)
                | rustls::Error::NoCertificatesPresented
                | rustls::Error::AlertReceived(_)
        )
    )
}

/// What a person can do about an error of TLS.
fn hint(error: &str) -> &'static str {
    if error.contains("UnknownIssuer") {
        "; fix: name the brokers' authority in kafka.tls.caSecretRef"
    } else if error.contains("NotValidForName") {
        "; fix: reach the brokers by a name that their certificate has"
    } else if error.contains("CertificateRequired") {
        "; fix: name a client certificate in kafka.tls.clientCertificateSecretRef"
    } else if error.contains("corrupt message") {
        "; fix: this port does not seem to speak TLS, take another or remove kafka.tls"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pem_is_refused_by_name() {
        let tls = Tls {
            ca: Some("certainly no PEM".to_owned().into()),
            client: None,
        };
        let refused = Encryption::new(&tls).err().unwrap();
        assert!(
            refused
                .to_string()
                .starts_with("the authority's certificate is no PEM"),
            "{refused}"
        );
    }
}
