//! Which IP addresses may be called, decided from the address alone. No I/O.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use url::Host;

use crate::settings::OutboundAllow;

/// Why an address may not be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// This machine.
    Loopback,
    /// Private networks (RFC 1918, unique local addresses).
    Private,
    /// Carrier-grade NAT (`100.64.0.0/10`), which clouds also use internally.
    Shared,
    /// Link-local; clouds serve instance metadata there.
    LinkLocal,
    /// A cloud's internal service at an otherwise public address.
    Metadata,
    /// The unspecified address and its network.
    Unspecified,
    /// Multicast groups.
    Multicast,
    /// The limited broadcast address.
    Broadcast,
    /// Networks reserved for documentation.
    Documentation,
    /// Networks reserved for other uses.
    Reserved,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::Shared => "an address of a shared carrier or cloud network",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "the address of a cloud's internal service",
            Self::Unspecified => "an unspecified address",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "a broadcast address",
            Self::Documentation => "an address for documentation",
            Self::Reserved => "a reserved address",
        })
    }
}

/// Allows public addresses and the configured ones.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    allowed: Vec<OutboundAllow>,
}

impl Rules {
    /// Public addresses and the `allowed` ones.
    pub fn new(allowed: &[OutboundAllow]) -> Self {
        Self {
            allowed: allowed.to_vec(),
        }
    }

    /// Whether all addresses of a host may be called, because the host is allowed by name.
    pub(super) fn allows_host(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        self.allowed.iter().any(|allowed| match allowed {
            OutboundAllow::Host(name) => name.trim_end_matches('.').eq_ignore_ascii_case(host),
            OutboundAllow::Network(_) => false,
        })
    }

    /// Whether a host is allowed explicitly, although it may be public.
    pub(super) fn names(&self, host: &Host<&str>) -> bool {
        match host {
            Host::Domain(name) => self.allows_host(name),
            Host::Ipv4(address) => self.allows_address((*address).into()),
            Host::Ipv6(address) => self.allows_address((*address).into()),
        }
    }

    /// Whether an address may be called.
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn check(&self, address: IpAddr) -> Result<(), Rule> {
        match matching_rule(address) {
            Some(rule) if !self.allows_address(address) => Err(rule),
            _ => Ok(()),
        }
    }

    fn allows_address(&self, address: IpAddr) -> bool {
        // An allowed IPv4 network also allows its addresses embedded in IPv6.
        let inner = match address {
            IpAddr::V6(v6) => embedded(v6).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        self.allowed.iter().any(|allowed| match allowed {
            OutboundAllow::Network(network) => {
                network.contains(&address) || inner.is_some_and(|inner| network.contains(&inner))
            }
            OutboundAllow::Host(_) => false,
        })
    }
}

/// Non-public IPv4 networks (IANA special-purpose address registry, and two networks of clouds).
const FORBIDDEN_V4: &[(Ipv4Net, Rule)] = &[
    (v4([0, 0, 0, 0], 8), Rule::Unspecified),
    (v4([10, 0, 0, 0], 8), Rule::Private),
    (v4([100, 64, 0, 0], 10), Rule::Shared),
    (v4([127, 0, 0, 0], 8), Rule::Loopback),
    (v4([168, 63, 129, 16], 32), Rule::Metadata),
    (v4([169, 254, 0, 0], 16), Rule::LinkLocal),
    (v4([172, 16, 0, 0], 12), Rule::Private),
    (v4([192, 0, 0, 0], 24), Rule::Reserved),
    (v4([192, 0, 2, 0], 24), Rule::Documentation),
    (v4([192, 88, 99, 0], 24), Rule::Reserved),
    (v4([192, 168, 0, 0], 16), Rule::Private),
    (v4([198, 18, 0, 0], 15), Rule::Reserved),
    (v4([198, 51, 100, 0], 24), Rule::Documentation),
    (v4([203, 0, 113, 0], 24), Rule::Documentation),
    (v4([224, 0, 0, 0], 4), Rule::Multicast),
    (v4([255, 255, 255, 255], 32), Rule::Broadcast),
    (v4([240, 0, 0, 0], 4), Rule::Reserved),
];

/// Non-public IPv6 networks that embed no IPv4 address.
const FORBIDDEN_V6: &[(Ipv6Net, Rule)] = &[
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), Rule::Unspecified),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), Rule::Loopback),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), Rule::Documentation),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), Rule::Documentation),
    // IETF protocol assignments, among them Teredo, which embeds inverted IPv4 addresses.
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), Rule::Reserved),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), Rule::Private),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), Rule::LinkLocal),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), Rule::Private),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), Rule::Multicast),
    // Local-use NAT64 (RFC 8215).
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), Rule::Private),
];

/// Global unicast IPv6.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

const fn v4(octets: [u8; 4], prefix: u8) -> Ipv4Net {
    let [a, b, c, d] = octets;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

fn matching_rule(address: IpAddr) -> Option<Rule> {
    match address {
        IpAddr::V4(address) => matching_rule_v4(address),
        IpAddr::V6(address) => matching_rule_v6(address),
    }
}

fn matching_rule_v4(address: Ipv4Addr) -> Option<Rule> {
    let mut rules = FORBIDDEN_V4.iter();
    rules
        .find(|(network, _)| network.contains(&address))
        .map(|&(_, rule)| rule)
}

fn matching_rule_v6(address: Ipv6Addr) -> Option<Rule> {
    let mut rules = FORBIDDEN_V6.iter();
    if let Some((_, rule)) = rules.find(|(network, _)| network.contains(&address)) {
        return Some(*rule);
    }
    match embedded(address) {
        Some(inner) => matching_rule_v4(inner),
        None => (!GLOBAL_V6.contains(&address)).then_some(Rule::Reserved),
    }
}

/// The IPv4 address embedded in an IPv6 address: mapped (`::ffff:0:0/96`), compatible (`::/96`),
/// translated (NAT64, `64:ff9b::/96`; SIIT, `::ffff:0:0:0/96`), tunneled (6to4, `2002::/16`).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..]
        | [0, 0, 0, 0, 0, 0, high, low] => Some(from(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: Option<Rule>, addresses: &[&str]) {
        for address in addresses {
            let parsed = address.parse().expect("an address");
            assert_eq!(Rules::default().check(parsed).err(), rule, "{address}");
        }
    }

    #[test]
    fn public_addresses_may_be_called() {
        check(
            None,
            &[
                "1.1.1.1",
                "8.8.8.8",
                "9.255.255.255",
                "11.0.0.0",
                "100.63.255.255",
                "100.128.0.0",
                "126.255.255.255",
                "128.0.0.0",
                "168.63.129.15",
                "169.253.255.255",
                "172.15.255.255",
                "172.32.0.0",
                "192.0.1.0",
                "192.167.255.255",
                "198.17.255.255",
                "198.20.0.0",
                "223.255.255.255",
                "2606:4700:4700::1111",
                "2001:4860:4860::8888",
                "2a00:1450::1",
            ],
        );
    }

    #[test]
    fn addresses_that_are_not_public_are_refused_with_their_rule() {
        check(Some(Rule::Loopback), &["127.0.0.1", "127.255.255.254", "::1"]);
        check(
            Some(Rule::Private),
            &[
                "10.0.0.0",
                "10.255.255.255",
                "172.16.0.0",
                "172.31.255.255",
                "192.168.0.0",
                "192.168.255.255",
                "fc00::1",
                "fd00:ec2::254",
                "fdff::1",
                "fec0::1",
                "64:ff9b:1::a00:1",
            ],
        );
        check(
            Some(Rule::Shared),
            &["100.64.0.0", "100.100.100.200", "100.127.255.255"],
        );
        check(
            Some(Rule::LinkLocal),
            &["169.254.169.254", "169.254.0.1", "fe80::1", "febf::1"],
        );
        check(Some(Rule::Metadata), &["168.63.129.16"]);
        check(Some(Rule::Unspecified), &["0.0.0.0", "0.1.2.3", "::"]);
        check(
            Some(Rule::Multicast),
            &["224.0.0.1", "239.255.255.255", "ff02::1"],
        );
        check(Some(Rule::Broadcast), &["255.255.255.255"]);
        check(
            Some(Rule::Documentation),
            &[
                "192.0.2.1",
                "198.51.100.1",
                "203.0.113.1",
                "2001:db8::1",
                "3fff::1",
            ],
        );
        check(
            Some(Rule::Reserved),
            &[
                "192.0.0.192",
                "192.88.99.1",
                "198.18.0.1",
                "198.19.255.255",
                "240.0.0.1",
                "254.255.255.255",
                "100::1",
                "2001::1",
                "2001:2::1",
                "5f00::1",
                "4000::1",
                "64:ff9b:0:1::1",
            ],
        );
    }

    #[test]
    fn an_ipv4_address_inside_an_ipv6_one_counts() {
        check(
            Some(Rule::Loopback),
            &[
                "::ffff:127.0.0.1",
                "::127.0.0.1",
                "::ffff:0:127.0.0.1",
                "64:ff9b::127.0.0.1",
                "2002:7f00:1::",
                "2002:7f00:1:1234::5",
            ],
        );
        check(
            Some(Rule::LinkLocal),
            &[
                "::ffff:169.254.169.254",
                "64:ff9b::169.254.169.254",
                "2002:a9fe:a9fe::1",
            ],
        );
        check(Some(Rule::Private), &["::ffff:10.0.0.1", "64:ff9b::192.168.0.1"]);
        check(None, &["::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"]);
    }

    #[test]
    fn allowed_networks_may_be_called_in_every_form_and_no_others() {
        let allowed = ["10.1.0.0/16", "::1", "audio.internal"].map(|text| text.parse().expect("allowed"));
        let rules = Rules::new(&allowed);
        for address in ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "::1"] {
            assert_eq!(
                rules.check(address.parse().expect("an address")),
                Ok(()),
                "{address}"
            );
        }
        for address in ["10.2.0.1", "127.0.0.1", "::ffff:10.2.0.1"] {
            assert!(
                rules.check(address.parse().expect("an address")).is_err(),
                "{address}"
            );
        }
        assert!(rules.allows_host("Audio.Internal"));
        assert!(rules.allows_host("audio.internal."));
        assert!(!rules.allows_host("x.audio.internal"));
        assert!(!rules.allows_host("10.1.2.3"));
    }
}
