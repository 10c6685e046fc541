//! The HTTP client of the AWS SDK: requests go through the proxies that the environment names in `HTTPS_PROXY`,
//! `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.
//!
//! Requests to the services that give this machine its credentials never do: a proxy would answer for another machine.

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector,
    http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use url::{Host, Url};

/// The first two segments of the IPv6 addresses of AWS's services on a machine: `fd00:ec2::254` and `fd00:ec2::23`.
const AWS_LOCAL_V6: [u16; 2] = [0xfd00, 0xec2];

/// Sends a request through a proxy or not, depending on its destination.
#[derive(Debug)]
struct ByDestination {
    proxied: SharedHttpConnector,
    /// Without TLS: the services of this machine use http.
    direct: SharedHttpConnector,
}

/// An HTTP client for the AWS SDK, with connections of its own.
pub fn aws_http_client() -> SharedHttpClient {
    let proxied = Builder::new().build_with_connector_fn(|settings, components| {
        let mut connector = Connector::builder();
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector
            .proxy_config(ProxyConfig::from_env())
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build()
    });
    let direct = Builder::new().build_http();
    http_client_fn(move |settings, components| {
        SharedHttpConnector::new(ByDestination {
            proxied: proxied.http_connector(settings, components),
            direct: direct.http_connector(settings, components),
        })
    })
}

impl HttpConnector for ByDestination {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        match is_on_this_machine(request.uri()) {
            true => self.direct.call(request),
            false => self.proxied.call(request),
        }
    }
}

/// Whether a URL is served by this machine or, at a link-local address, for it: instance metadata, and the credentials of
/// containers (ECS, EKS Pod Identity).
fn is_on_this_machine(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else {
        return false;
    };
    let is_local = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_link_local(),
        Some(Host::Ipv6(address)) => {
            let is_of_aws = address.segments().starts_with(&AWS_LOCAL_V6);
            address.is_loopback() || address.is_unicast_link_local() || is_of_aws
        }
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url.scheme() == "http" && is_local
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_services_of_this_machine_are_called_without_a_proxy() {
        for direct in [
            "http://169.254.169.254/latest/api/token",
            "http://169.254.170.2/v2/credentials/a",
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::254]/latest/api/token",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://127.0.0.1:9000/stems/a",
            "http://localhost:9000/stems/a",
        ] {
            assert!(is_on_this_machine(direct), "{direct}");
        }
        for proxied in [
            "https://stems.s3.eu-central-1.amazonaws.com/a",
            "https://sts.eu-central-1.amazonaws.com/",
            "http://minio.media.svc:9000/stems/a",
            "http://10.0.0.5:9000/stems/a",
            "http://[fd00:1::23]:9000/stems/a",
            "https://127.0.0.1:9000/stems/a",
        ] {
            assert!(!is_on_this_machine(proxied), "{proxied}");
        }
    }
}
