//! TLS to brokers: trusted authorities and the client certificate.

use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::no_broker;
use crate::settings::ClientCertificate;
use crate::{ReadError, Tls};

/// A pool's TLS settings, parsed.
pub(crate) struct Encryption {
    /// `None` means the system trust store, which is read for the first connection.
    roots: Option<RootCertStore>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    connector: OnceCell<TlsConnector>,
}

impl Encryption {
    /// Parses certificates and private key.
    ///
    /// # Errors
    /// When one is not valid PEM, or unusable.
    pub(crate) fn new(tls: &Tls) -> Result<Self, ReadError> {
        let roots = tls
            .ca
            .as_ref()
            .map(|ca| root_store("the CA certificate", ca.expose()));
        Ok(Self {
            roots: roots.transpose()?,
            client: tls.client.as_ref().map(client).transpose()?,
            connector: OnceCell::new(),
        })
    }

    /// Sets up TLS on a connection, and checks that the certificate is for `host`.
    pub(crate) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, ReadError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| ReadError::new(format!("{host} is not a valid TLS server name")))?;
        let connector = self.connector.get_or_try_init(|| self.connector()).await?;
        connector.connect(name, stream).await.map_err(|error| {
            let text = format!("TLS: {error}{}", hint(&error.to_string()));
            if is_about_certificates(&error) {
                ReadError::unauthorized(text)
            } else {
                no_broker(host, &text)
            }
        })
    }

    async fn connector(&self) -> Result<TlsConnector, ReadError> {
        let builder = client_config(self.roots.as_ref()).await?;
        let config = match &self.client {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain.clone(), key.clone_key())
                .map_err(|error| {
                    ReadError::new(format!(
                        "the client certificate and its private key cannot be used: {error}"
                    ))
                })?,
            None => builder.with_no_client_auth(),
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// TLS that verifies servers against `roots`, or else the system trust store.
pub(crate) async fn client_config(
    roots: Option<&RootCertStore>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, ReadError> {
    let roots = match roots {
        Some(roots) => roots.clone(),
        None => system_trust_store().await?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ReadError::new(format!("TLS: {error}")))?;
    Ok(builder.with_root_certificates(roots))
}

/// Parses CA certificates; `description` names them in errors.
///
/// # Errors
/// When one is not valid PEM, or unusable.
pub(crate) fn root_store(description: &str, pem: &str) -> Result<RootCertStore, ReadError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(description, pem)? {
        roots.add(certificate).map_err(|error| {
            let fix = "use an X.509 certificate";
            ReadError::new(format!("{description} cannot be used: {error}; fix: {fix}"))
        })?;
    }
    Ok(roots)
}

async fn system_trust_store() -> Result<RootCertStore, ReadError> {
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs)
        .await
        .map_err(|_| ReadError::new("the system trust store cannot be read"))?;
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err(ReadError::new(
            "the system trust store is empty; fix: name a CA certificate",
        ));
    }
    Ok(roots)
}

fn certificates(description: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, ReadError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match read {
        Ok(found) if found.is_empty() => Err(ReadError::new(format!(
            "{description} is not PEM; fix: use the text that begins with -----BEGIN CERTIFICATE-----"
        ))),
        Ok(found) => Ok(found),
        Err(error) => Err(ReadError::new(format!(
            "{description} is not valid PEM: {error}; fix: use a complete certificate"
        ))),
    }
}

fn client(
    client_certificate: &ClientCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ReadError> {
    let chain = certificates("the client certificate", client_certificate.certificate.expose())?;
    let key = PrivateKeyDer::from_pem_slice(client_certificate.private_key.expose().as_bytes()).map_err(|_| {
        ReadError::new(
            "the client's private key is not an unencrypted key in PEM; fix: openssl pkcs8 -topk8 -nocrypt",
        )
    })?;
    Ok((chain, key))
}

/// Whether the other side speaks TLS, and one of the two certificates was rejected.
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

/// The fix for a TLS error.
fn hint(error: &str) -> &'static str {
    if error.contains("UnknownIssuer") {
        "; fix: name the brokers' CA certificate"
    } else if error.contains("NotValidForName") {
        "; fix: use a host name that the brokers' certificate contains"
    } else if error.contains("CertificateRequired") {
        "; fix: name a client certificate"
    } else if error.contains("corrupt message") {
        "; fix: this port does not seem to use TLS; use another port, or no TLS"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_not_pem_is_refused_by_name() {
        let tls = Tls {
            ca: Some("not a certificate".to_owned().into()),
            client: None,
        };
        let refused = Encryption::new(&tls).err().unwrap();
        assert!(
            refused.to_string().starts_with("the CA certificate is not PEM"),
            "{refused}"
        );
    }
}
