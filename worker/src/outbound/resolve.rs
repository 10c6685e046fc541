//! Resolves host names and returns only addresses that may be called. The client connects to a checked address, so a
//! name cannot resolve differently between the check and the call (DNS rebinding).

use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{Rule, Rules};

/// A host name whose addresses are all forbidden.
#[derive(Debug, thiserror::Error)]
#[error("it is {0}")]
pub(super) struct Forbidden(pub(super) Rule);

/// A host name that does not resolve.
#[derive(Debug, thiserror::Error)]
#[error("the host name has no address")]
pub(super) struct Unresolved(#[source] Option<std::io::Error>);

/// The system's resolver, without forbidden addresses.
pub(super) struct CheckedResolver {
    rules: Arc<Rules>,
}

impl CheckedResolver {
    pub(super) fn new(rules: Arc<Rules>) -> Self {
        Self { rules }
    }
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = Arc::clone(&self.rules);
        Box::pin(async move {
            let host = name.as_str();
            // The client replaces port 0 by the URL's port.
            let found = tokio::net::lookup_host((host, 0)).await;
            let found: Vec<SocketAddr> = found.map_err(|error| Unresolved(Some(error)))?.collect();
            let allowed = callable(&rules, host, &found)?;
            let addresses: Addrs = Box::new(allowed.into_iter());
            Ok(addresses)
        })
    }
}

fn callable(
    rules: &Rules,
    host: &str,
    found: &[SocketAddr],
) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
    if rules.allows_host(host) {
        return Ok(found.to_vec());
    }
    let mut refused = None;
    let allowed: Vec<SocketAddr> = found
        .iter()
        .copied()
        .filter(|address| match rules.check(address.ip()) {
            Ok(()) => true,
            Err(rule) => {
                refused.get_or_insert(rule);
                false
            }
        })
        .collect();
    match refused {
        _ if !allowed.is_empty() => Ok(allowed),
        Some(rule) => Err(Forbidden(rule).into()),
        None => Err(Unresolved(None).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts
            .iter()
            .map(|text| SocketAddr::new(text.parse().expect("an address"), 0))
            .collect()
    }

    #[test]
    fn only_allowed_addresses_are_returned() {
        let mixed = addresses(&["10.0.0.1", "8.8.8.8", "::1"]);
        let rules = Rules::default();
        assert_eq!(
            callable(&rules, "mixed.example", &mixed).expect("one is public"),
            addresses(&["8.8.8.8"])
        );
        let refused = callable(&rules, "inside.example", &addresses(&["10.0.0.1", "::1"]));
        let refused = refused.expect_err("none is public");
        assert_eq!(
            refused.downcast_ref::<Forbidden>().map(|f| f.0),
            Some(Rule::Private)
        );
        let unresolved = callable(&rules, "nothing.example", &[]).expect_err("no address");
        assert!(unresolved.is::<Unresolved>());
    }

    #[test]
    fn a_host_that_is_allowed_by_name_keeps_all_its_addresses() {
        let rules = Rules::new(&["inside.example".parse().expect("a host")]);
        let found = addresses(&["10.0.0.1"]);
        assert_eq!(
            callable(&rules, "inside.example", &found).expect("allowed"),
            found
        );
        assert!(callable(&rules, "other.example", &found).is_err());
    }
}
