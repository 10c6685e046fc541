//! The HTTP client for addresses that clients supply.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::header::{
    CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, IF_RANGE, LOCATION, RANGE, RETRY_AFTER,
};
use reqwest::{Method, Response, redirect};
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};

use super::resolve::{CheckedResolver, Forbidden, Unresolved};
use super::{Download, DownloadLimits, OutboundError, ResumeFrom, Rules};
use crate::settings::OutboundAllow;
use crate::work::chain;

/// Maximum number of redirects of one call.
const MAX_REDIRECTS: usize = 5;

/// Time limit for connecting, TLS included; a reachable host needs a fraction of it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle time after which a pooled connection is closed: long enough for consecutive webhooks to one receiver.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// Calls addresses that clients supply, if the rules allow them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    rules: Arc<Rules>,
    unencrypted: Unencrypted,
}

/// Which http addresses are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unencrypted {
    /// All that the rules allow, except a POST that was redirected from https.
    Allowed,
    /// Those of hosts that are allowed explicitly, and none that https redirects to.
    OfNamedHosts,
}

/// The proxies that calls go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proxies {
    /// None: a proxy resolves names itself, so that the address behind it cannot be checked.
    None,
    /// Those of `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.
    OfEnvironment,
}

/// The response to [`Client::post_json_once`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostResponse {
    /// HTTP status.
    pub status: u16,
    /// The value of `Retry-After`.
    pub retry_after: Option<String>,
}

/// One call, including its redirects.
struct Call<'c> {
    method: Method,
    headers: &'c HeaderMap,
    body: &'c [u8],
}

/// Installs ring as the process's TLS provider; a second call changes nothing.
pub fn install_tls() {
    // Fails only when a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

impl Client {
    /// A client for public addresses and the `allowed` ones.
    pub fn new(allowed: &[OutboundAllow]) -> Self {
        Self::with(Rules::new(allowed), Proxies::None)
    }

    /// As [`new`](Self::new), for addresses in this worker's settings: calls go through the proxies that the environment
    /// names. The address behind a proxy is checked only as it is written, because the proxy resolves its name.
    pub fn through_proxies(allowed: &[OutboundAllow]) -> Self {
        let allowed: Vec<_> = allowed.iter().cloned().chain(proxy_hosts()).collect();
        Self::with(Rules::new(&allowed), Proxies::OfEnvironment)
    }

    fn with(rules: Rules, proxies: Proxies) -> Self {
        install_tls();
        let rules = Arc::new(rules);
        let http = builder(&rules, proxies).build().unwrap_or_else(|error| {
            tracing::warn!(error = %chain(&error), "Cannot load the system trust store: https addresses cannot be called");
            let no_certificates = builder(&rules, proxies).tls_certs_only([]);
            no_certificates
                .build()
                .expect("only loading the system trust store can fail, and it is not used here")
        });
        let unencrypted = Unencrypted::Allowed;
        Self {
            http,
            rules,
            unencrypted,
        }
    }

    /// The same client for content that others must neither read nor change: it calls http addresses only of hosts that
    /// are allowed explicitly, and follows no redirect from https to http.
    #[must_use]
    pub fn encrypted(mut self) -> Self {
        self.unencrypted = Unencrypted::OfNamedHosts;
        self
    }

    /// Posts JSON and returns the response's status, also an error status. The response's body is not read. Follows 307
    /// and 308 with another POST; `timeout` covers all requests together.
    ///
    /// # Errors
    /// When there is no response, when an address may not be called, and on a redirect by another status: 301, 302 and
    /// 303 turn a POST into a GET without the body, whose response would not confirm the delivery.
    pub async fn post_json(
        &self,
        url: &str,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<u16, OutboundError> {
        let all = json_headers(headers)?;
        let call = Call {
            method: Method::POST,
            headers: &all,
            body: &body,
        };
        let limit = Limit::starting_now(timeout, timeout);
        let (response, _) = self.follow(url, &call, limit).await?;
        Ok(response.status().as_u16())
    }

    /// Posts JSON once and returns the response's status, also that of a redirect, which is not followed. The response's
    /// body is not read; `timeout` covers the complete request.
    ///
    /// # Errors
    /// When there is no response, or the address may not be called.
    pub async fn post_json_once(
        &self,
        url: &str,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<PostResponse, OutboundError> {
        let all = json_headers(headers)?;
        let call = Call {
            method: Method::POST,
            headers: &all,
            body: &body,
        };
        let url = parse(url)?;
        let host = self.check(&url)?;
        let limit = Limit::starting_now(timeout, timeout);
        let response = self.send(&url, &host, &call, limit).await?;
        let retry_after = response.headers().get(RETRY_AFTER);
        Ok(PostResponse {
            status: response.status().as_u16(),
            retry_after: retry_after
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
        })
    }

    /// Downloads an address.
    ///
    /// # Errors
    /// When the response is not a success, when an address may not be called, or when a limit is exceeded.
    pub async fn get(&self, url: &str, limits: DownloadLimits) -> Result<Download, OutboundError> {
        self.get_from(url, None, limits).await
    }

    /// Downloads the rest of an address; from its start if the server does not continue, or its content has changed:
    /// see [`Download::offset`].
    ///
    /// # Errors
    /// As [`get`](Self::get). [`OutboundError::Part`] if the server sends another part, or one of other content.
    pub async fn get_from(
        &self,
        url: &str,
        from: Option<&ResumeFrom>,
        limits: DownloadLimits,
    ) -> Result<Download, OutboundError> {
        let mut headers = HeaderMap::new();
        if let Some(from) = from {
            let validator = HeaderValue::from_str(&from.validator);
            let range = HeaderValue::from_str(&format!("bytes={}-", from.offset));
            headers.insert(RANGE, range.map_err(|_| OutboundError::Header("range"))?);
            headers.insert(
                IF_RANGE,
                validator.map_err(|_| OutboundError::Header("if-range"))?,
            );
        }
        let call = Call {
            method: Method::GET,
            headers: &headers,
            body: &[],
        };
        let limit = Limit::starting_now(limits.total, limits.idle);
        let (response, host) = self.follow(url, &call, limit).await?;
        let status = response.status();
        if !status.is_success() {
            let status = status.as_u16();
            return Err(OutboundError::Status { host, status });
        }
        Download::start(response, from, host, limits, limit.deadline)
    }

    /// Checks an address without resolving its host name.
    ///
    /// # Errors
    /// When it is not an http(s) URL, or contains an IP address that may not be called.
    pub fn check_url(&self, url: &str) -> Result<(), OutboundError> {
        self.check(&parse(url)?).map(|_| ())
    }

    /// Sends a call and follows redirects. Returns the response and the last host.
    async fn follow(
        &self,
        url: &str,
        call: &Call<'_>,
        limit: Limit,
    ) -> Result<(Response, String), OutboundError> {
        let mut url = parse(url)?;
        for _ in 0..=MAX_REDIRECTS {
            let host = self.check(&url)?;
            let response = self.send(&url, &host, call, limit).await?;
            match self.next(&url, &host, &response, &call.method)? {
                Some(next) => url = next,
                None => return Ok((response, host)),
            }
        }
        Err(OutboundError::TooManyRedirects {
            host: url.host_str().unwrap_or_default().to_owned(),
            limit: MAX_REDIRECTS,
        })
    }

    /// Checks everything that needs no name resolution. Returns the host.
    fn check(&self, url: &Url) -> Result<String, OutboundError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(OutboundError::Url("its scheme is neither http nor https"));
        }
        // The parser has converted 0x7f.1, 2130706433 and similar forms to addresses.
        let host = url.host().ok_or(OutboundError::Url("it has no host"))?;
        if self.unencrypted == Unencrypted::OfNamedHosts && url.scheme() == "http" && !self.rules.names(&host)
        {
            let host = host.to_string();
            return Err(OutboundError::Unencrypted { host });
        }
        let address = match host {
            Host::Domain(name) => return Ok(name.to_owned()),
            Host::Ipv4(address) => address.into(),
            Host::Ipv6(address) => address.into(),
        };
        let host = url.host_str().unwrap_or_default().to_owned();
        match self.rules.check(address) {
            Ok(()) => Ok(host),
            Err(rule) => Err(OutboundError::Refused { host, rule }),
        }
    }

    /// The target of a redirect; none if the response is not a redirect.
    fn next(
        &self,
        url: &Url,
        host: &str,
        response: &Response,
        method: &Method,
    ) -> Result<Option<Url>, OutboundError> {
        let status = response.status().as_u16();
        let refuse = |reason| {
            let host = host.to_owned();
            Err(OutboundError::Redirect { host, status, reason })
        };
        match (status, method) {
            (301..=303, &Method::POST) => {
                return refuse("it turns a POST into a GET, which delivers nothing; fix: answer 307 or 308");
            }
            (301..=303 | 307 | 308, _) => {}
            _ => return Ok(None),
        }
        let location = response.headers().get(LOCATION);
        let Some(location) = location.and_then(|location| location.to_str().ok()) else {
            return refuse("it has no Location header");
        };
        // A relative address keeps the username and password of this one, an absolute one has its own or none.
        let Ok(next) = url.join(location) else {
            return refuse("its Location is not a valid URL");
        };
        let needs_encryption = method == Method::POST || self.unencrypted == Unencrypted::OfNamedHosts;
        if needs_encryption && url.scheme() == "https" && next.scheme() != "https" {
            return refuse("it redirects from https to http");
        }
        Ok(Some(next))
    }

    async fn send(
        &self,
        url: &Url,
        host: &str,
        call: &Call<'_>,
        limit: Limit,
    ) -> Result<Response, OutboundError> {
        let request = self
            .http
            .request(call.method.clone(), url.clone())
            .headers(call.headers.clone());
        let request = if call.body.is_empty() {
            request
        } else {
            request.body(call.body.to_vec())
        };
        let idle_deadline = Instant::now() + limit.idle;
        match timeout_at(limit.deadline.min(idle_deadline), request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(explain(host, error)),
            Err(_) if idle_deadline < limit.deadline => Err(OutboundError::IdleTimeout {
                host: host.to_owned(),
                limit: limit.idle,
            }),
            Err(_) => Err(OutboundError::Timeout {
                host: host.to_owned(),
                limit: limit.total,
            }),
        }
    }
}

/// Time limits of a call.
#[derive(Debug, Clone, Copy)]
struct Limit {
    total: Duration,
    deadline: Instant,
    idle: Duration,
}

impl Limit {
    fn starting_now(total: Duration, idle: Duration) -> Self {
        Self {
            total,
            deadline: Instant::now() + total,
            idle,
        }
    }
}

/// The headers of a request whose body is JSON.
fn json_headers(headers: &[(&'static str, String)]) -> Result<HeaderMap, OutboundError> {
    let mut all = HeaderMap::new();
    all.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in headers {
        let unusable = || OutboundError::Header(name);
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?;
        all.insert(key, HeaderValue::from_str(value).map_err(|_| unusable())?);
    }
    Ok(all)
}

fn parse(url: &str) -> Result<Url, OutboundError> {
    Url::parse(url).map_err(|_| OutboundError::Url("it is not a valid URL"))
}

fn builder(rules: &Arc<Rules>, proxies: Proxies) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("separation-worker/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(CheckedResolver::new(Arc::clone(rules)))
        .redirect(redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE);
    match proxies {
        Proxies::None => builder.no_proxy(),
        // The default.
        Proxies::OfEnvironment => builder,
    }
}

/// The hosts of the environment's proxies, which may be private.
fn proxy_hosts() -> impl Iterator<Item = OutboundAllow> {
    let proxies = Matcher::from_env();
    // Proxies are chosen by scheme, except for the hosts of NO_PROXY.
    let any_host = ["http://any.invalid", "https://any.invalid"].map(Uri::from_static);
    any_host.into_iter().filter_map(move |uri| {
        let proxy = proxies.intercept(&uri)?;
        let host = proxy.uri().host()?;
        Some(OutboundAllow::Host(host.to_ascii_lowercase()))
    })
}

/// Maps an error of the HTTP client, whose cause may be an error of [`CheckedResolver`].
fn explain(host: &str, error: reqwest::Error) -> OutboundError {
    let host = host.to_owned();
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if let Some(Forbidden(rule)) = error.downcast_ref() {
            return OutboundError::Refused { host, rule: *rule };
        }
        if error.is::<Unresolved>() {
            let source = chain(error).into();
            return OutboundError::Resolve { host, source };
        }
        cause = error.source();
    }
    OutboundError::Connect {
        host,
        source: error.without_url().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_from_https_to_http_is_followed_only_by_downloads_that_may_be_unencrypted() {
        let response = |to: &str| {
            let redirect = axum::http::Response::builder().status(302).header(LOCATION, to);
            Response::from(redirect.body("").expect("a response"))
        };
        let client = Client::new(&["songs.example".parse().expect("a host")]);
        let from = Url::parse("https://songs.example/a").expect("a URL");
        let next = |client: &Client, to| client.next(&from, "songs.example", &response(to), &Method::GET);
        assert!(next(&client, "http://songs.example/b").is_ok());
        let client = client.encrypted();
        assert!(next(&client, "https://other.example/b").is_ok());
        let refused = next(&client, "http://songs.example/b").expect_err("not encrypted");
        assert!(
            matches!(refused, OutboundError::Redirect { status: 302, .. }),
            "{refused:?}"
        );
    }
}
