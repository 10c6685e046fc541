//! Names to addresses, of which only those that may be called are given out: the connection goes to a checked address,
//! so that a name cannot mean one thing when it is checked and another when it is called.

use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{Rule, Rules};

/// A name all of whose addresses are forbidden.
#[derive(Debug, thiserror::Error)]
#[error("it is {0}")]
pub(super) struct Forbidden(pub(super) Rule);

/// A name that the system knows no address of.
#[derive(Debug, thiserror::Error)]
#[error("the name has no address")]
pub(super) struct Unknown(#[source] Option<std::io::Error>);

/// The system's resolver, less forbidden addresses.
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
            // Port 0 is replaced by the port of the address that is called.
            let found = tokio::net::lookup_host((host, 0)).await;
            let found: Vec<SocketAddr> = found.map_err(|error| Unknown(Some(error)))?.collect();
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
        None => Err(Unknown(None).into()),
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
    fn only_addresses_that_may_be_called_are_given_out() {
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
        let unknown = callable(&rules, "nothing.example", &[]).expect_err("no address");
        assert!(unknown.is::<Unknown>());
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
