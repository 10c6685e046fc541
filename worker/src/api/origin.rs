//! Refuses requests that a browser sends for a page of another origin: it adds the user's credentials to them.

use axum::http::{HeaderMap, HeaderValue, Method, header};
use separation_daemon::names_this_machine;
use url::Url;

use super::clients::{Clients, is_bearer};

/// Header in which a browser names the relation of the page to this API, over https and to its own machine.
const SITE: &str = "sec-fetch-site";

/// Checks a request to the drop-in API.
pub(super) fn check_drop_in(
    clients: &Clients,
    method: &Method,
    headers: &HeaderMap,
) -> Result<(), &'static str> {
    check_host(clients, headers)?;
    check_site(method, headers, &["cross-site"])
}

/// Checks a request to v1, whose session cookie is also sent for pages of sibling hosts. Requests without encryption have
/// only the page's origin, which must be that of the request or of `public_url`.
pub(super) fn check_v1(
    clients: &Clients,
    public_url: Option<&Url>,
    method: &Method,
    headers: &HeaderMap,
) -> Result<(), &'static str> {
    check_host(clients, headers)?;
    check_site(method, headers, &["cross-site", "same-site"])?;
    // No browser adds a Bearer token by itself.
    if method == Method::GET || headers.contains_key(SITE) || is_bearer(headers) {
        return Ok(());
    }
    match headers.get(header::ORIGIN) {
        Some(origin) if !is_own(origin, headers, public_url) => {
            Err("the page has another origin; fix: set API_PUBLIC_URL if a proxy replaces the header Host")
        }
        _ => Ok(()),
    }
}

fn check_host(clients: &Clients, headers: &HeaderMap) -> Result<(), &'static str> {
    // Without authentication, a page whose host name was rebound to this machine (DNS rebinding) must be refused.
    match clients.is_open() && !names_this_machine(headers) {
        true => Err("without a password, call the API as localhost or by its IP address"),
        false => Ok(()),
    }
}

fn check_site(method: &Method, headers: &HeaderMap, refused: &[&str]) -> Result<(), &'static str> {
    let is_refused = headers
        .get(SITE)
        .is_some_and(|site| refused.iter().any(|refused| site == refused));
    match is_refused && method != Method::GET {
        true => Err("pages of other sites must not post songs"),
        false => Ok(()),
    }
}

/// Whether an origin has the host and the port of the request's `Host` or of `public_url`.
fn is_own(origin: &HeaderValue, headers: &HeaderMap, public_url: Option<&Url>) -> bool {
    // The origin `null`, of a page in a sandbox, is not a URL.
    let origin = origin.to_str().ok().and_then(|origin| Url::parse(origin).ok());
    let Some(authority) = origin.as_ref().and_then(authority) else {
        return false;
    };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let scheme = origin.as_ref().map_or("http", Url::scheme);
    let requested = host.and_then(|host| Url::parse(&format!("{scheme}://{host}")).ok());
    let own = [requested.as_ref(), public_url];
    own.into_iter()
        .flatten()
        .any(|own| self::authority(own) == Some(authority))
}

/// Host and port of a URL.
fn authority(url: &Url) -> Option<(&str, u16)> {
    Some((url.host_str()?, url.port_or_known_default()?))
}

#[cfg(test)]
mod tests {
    use super::super::clients::Client;
    use super::*;

    fn headers(headers: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        let headers = headers.iter().cloned();
        headers
            .map(|(name, value)| (name, HeaderValue::from_static(value)))
            .collect()
    }

    fn is_allowed(method: &Method, headers: &HeaderMap) -> bool {
        let client = Client::new("acme", [1; 32]).expect("a name");
        let clients = Clients::new(vec![client]).expect("one client");
        let public_url = Url::parse("https://songs.example/base").expect("a URL");
        check_v1(&clients, Some(&public_url), method, headers).is_ok()
    }

    #[test]
    fn a_page_of_another_origin_changes_nothing_without_encryption() {
        let host = (header::HOST, "10.0.0.5:8000");
        for (origin, allowed) in [
            ("http://10.0.0.5:8000", true),
            ("https://songs.example", true),
            ("https://songs.example:443", true),
            ("http://10.0.0.5", false),
            ("http://10.0.0.5:8001", false),
            ("http://songs.example", false),
            ("https://songs.example.evil.example", false),
            ("https://evil.example", false),
            ("data:text/html", false),
            ("null", false),
            ("", false),
        ] {
            let sent = headers(&[host.clone(), (header::ORIGIN, origin)]);
            assert_eq!(is_allowed(&Method::POST, &sent), allowed, "{origin}");
            assert_eq!(is_allowed(&Method::DELETE, &sent), allowed, "{origin}");
            assert!(is_allowed(&Method::GET, &sent), "{origin}");
        }
        assert!(is_allowed(&Method::POST, &headers(&[host])), "not a browser");
    }

    #[test]
    fn a_default_port_need_not_be_written() {
        for (host, origin) in [
            ("api.example", "https://api.example"),
            ("api.example:80", "http://api.example"),
        ] {
            let sent = headers(&[(header::HOST, host), (header::ORIGIN, origin)]);
            assert!(is_allowed(&Method::POST, &sent), "{host} {origin}");
        }
    }

    #[test]
    fn the_origin_is_not_compared_if_the_browser_names_the_site_or_the_request_has_a_key() {
        let foreign = [
            (header::HOST, "vocals-api"),
            (header::ORIGIN, "https://evil.example"),
        ];
        let site = header::HeaderName::from_static(SITE);
        for (name, value, allowed) in [
            (site.clone(), "same-origin", true),
            (site.clone(), "same-site", false),
            (site, "cross-site", false),
            (header::AUTHORIZATION, "Bearer sk_1", true),
            (header::AUTHORIZATION, "Basic YTpi", false),
            (header::COOKIE, "session=a.1.x", false),
        ] {
            let sent = [&foreign[..], &[(name, value)]].concat();
            assert_eq!(is_allowed(&Method::POST, &headers(&sent)), allowed, "{value}");
        }
    }
}
