//! The brokers that clients connect to first.

use separation_contract::kafka::{ServersError, strip_protocols};

use super::checks::Checks;

const FIELD: &str = "kafka.bootstrapServers";

/// The comma separated addresses of `listed` without prefixes such as `SASL_SSL://`, which must be `protocol`.
pub(super) fn addresses(listed: &str, protocol: &str, checks: &mut Checks) -> Option<String> {
    let (addresses, prefix) = match strip_protocols(listed) {
        Ok((addresses, prefix)) if addresses.split(',').all(is_address) => (addresses, prefix),
        Err(mixed @ ServersError::Mixed { .. }) => {
            let fix = format!("write {protocol}:// before each server, or no prefix");
            return checks.refuse(FIELD, mixed.to_string(), fix);
        }
        Ok(_) | Err(ServersError::Protocol { .. }) => {
            let problem = format!("`{listed}` is not a list of brokers");
            let fix = "write host:port, comma separated, without spaces";
            return checks.refuse(FIELD, problem, fix);
        }
    };
    if let Some(prefix) = prefix.filter(|prefix| *prefix != protocol) {
        let problem = format!("the prefix {prefix}:// contradicts kafka.tls or kafka.sasl");
        let fix = format!("write {protocol}:// or no prefix, or set or remove tls and sasl");
        return checks.refuse(FIELD, problem, fix);
    }
    Some(addresses)
}

fn is_address(text: &str) -> bool {
    let port = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty() && !host.contains('/'));
    port.is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_removed_if_they_agree_with_the_connection() {
        let accepted = |listed: &str, protocol: &str| {
            let mut checks = Checks::default();
            addresses(listed, protocol, &mut checks).ok_or_else(|| checks.problems[0].to_string())
        };
        for (listed, protocol, expected) in [
            ("a:1,b:2", "PLAINTEXT", "a:1,b:2"),
            ("[::1]:9092", "PLAINTEXT", "[::1]:9092"),
            ("SSL://a:9094", "SSL", "a:9094"),
            ("SASL_SSL://a:9096,SASL_SSL://b:9096", "SASL_SSL", "a:9096,b:9096"),
        ] {
            assert_eq!(accepted(listed, protocol).as_deref(), Ok(expected), "{listed}");
        }
        for (listed, protocol, expected) in [
            ("SASL_SSL://a:9096", "SSL", "fix: write SSL:// or no prefix"),
            (
                "SASL_SSL://a:9096,b:9096",
                "SASL_SSL",
                "fix: write SASL_SSL:// before each server",
            ),
            ("http://a:1", "PLAINTEXT", "is not a list of brokers"),
            ("a:1/path", "PLAINTEXT", "is not a list of brokers"),
            ("SSL://a", "SSL", "is not a list of brokers"),
            ("a:1,", "SSL", "is not a list of brokers"),
        ] {
            let refused = accepted(listed, protocol).unwrap_err();
            assert!(refused.contains(expected), "{listed}: {refused}");
        }
    }
}
