//! Settings of outbound requests and of webhook signatures.

use std::str::FromStr;

use clap::Args;
use ipnet::IpNet;
use secrecy::SecretString;
use separation_contract::environment as env;

/// Options for outbound requests.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Outbound calls")]
pub struct OutboundArguments {
    /// Hosts, addresses and CIDRs that may be called although they are private, comma separated
    #[arg(long, env = env::OUTBOUND_ALLOW, value_delimiter = ',', value_name = "HOSTS")]
    pub outbound_allow: Vec<OutboundAllow>,
}

/// Options for webhooks.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Webhooks")]
pub struct WebhookArguments {
    /// Secret that webhooks are signed with (Standard Webhooks; whsec_ and base64, or any text)
    #[arg(long, env = env::WEBHOOK_SECRET, hide_env_values = true, value_name = "SECRET")]
    pub webhook_secret: Option<SecretString>,
    /// Signing secret before the last rotation; then webhooks have a signature of both
    #[arg(long, env = env::WEBHOOK_PREVIOUS_SECRET, hide_env_values = true, value_name = "SECRET",
          requires = "webhook_secret")]
    pub webhook_previous_secret: Option<SecretString>,
}

/// A host or a network that may be called although it is private.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboundAllow {
    /// A host name in lower case.
    Host(String),
    /// All addresses of a network.
    Network(IpNet),
}

/// Not a valid host, address or network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither a host name, nor an address, nor a CIDR such as 10.0.0.0/8")]
pub struct OutboundAllowError;

impl FromStr for OutboundAllow {
    type Err = OutboundAllowError;

    fn from_str(text: &str) -> Result<Self, OutboundAllowError> {
        let text = text.trim();
        if let Ok(network) = text.parse::<IpNet>() {
            return Ok(Self::Network(network));
        }
        if let Ok(address) = text.parse::<std::net::IpAddr>() {
            return Ok(Self::Network(address.into()));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if text.is_empty() || !text.chars().all(plain) {
            return Err(OutboundAllowError);
        }
        Ok(Self::Host(text.to_ascii_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_addresses_and_networks_are_distinguished() {
        let network = |text: &str| OutboundAllow::Network(text.parse().expect("a network"));
        assert_eq!("10.0.0.0/8".parse(), Ok(network("10.0.0.0/8")));
        assert_eq!("::1".parse(), Ok(network("::1/128")));
        assert_eq!(
            "Audio.Internal".parse(),
            Ok(OutboundAllow::Host("audio.internal".into()))
        );
        assert_eq!("http://x".parse::<OutboundAllow>(), Err(OutboundAllowError));
        assert_eq!("10.0.0.0/99".parse::<OutboundAllow>(), Err(OutboundAllowError));
    }
}
