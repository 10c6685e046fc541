//! Addresses of brokers.

use std::fmt;

use crate::ReadError;

/// Where a broker listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// Reads `host:port`.
    pub(crate) fn parse(text: &str) -> Result<Self, ReadError> {
        let parts = text.trim().rsplit_once(':');
        let address = parts.and_then(|(host, port)| {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Some(Self {
                host: (!host.is_empty()).then(|| host.to_owned())?,
                port: port.parse().ok()?,
            })
        });
        address.ok_or_else(|| {
            ReadError::new(format!(
                "`{text}` is not a valid broker address; fix: write host:port, comma separated"
            ))
        })
    }
}

/// The hosts of bootstrap servers, as a [`crate::Cluster`] connects to them.
///
/// # Errors
/// When an address is invalid.
pub fn bootstrap_hosts(bootstrap_servers: &str) -> Result<Vec<String>, ReadError> {
    let addresses = bootstrap_servers.split(',').map(Address::parse);
    addresses
        .map(|address| address.map(|address| address.host))
        .collect()
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_with_host_names_and_ip_addresses() {
        let read = |text: &str| Address::parse(text).map(|address| (address.host, address.port));
        assert_eq!(read("kafka:9092"), Ok(("kafka".to_owned(), 9092)));
        assert_eq!(read("[::1]:9092"), Ok(("::1".to_owned(), 9092)));
        for text in ["kafka", ":9092", "kafka:", "kafka:99999"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
