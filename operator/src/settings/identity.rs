//! Settings of the identity with which the operator authenticates to Kafka where a pool names no Secret for it.

use std::collections::BTreeSet;
use std::fmt;

use clap::Args;

use super::SettingError;
use super::lease::{is_label, is_object_name};

/// Identity options.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Identity")]
pub struct IdentityArguments {
    /// Brokers to which the operator may authenticate with its own identity, for pools of all namespaces or of one,
    /// comma separated. "*." stands for one or more labels, as in *.kafka.eu-central-1.amazonaws.com@media [default:
    /// none]
    #[arg(
        long,
        env = "IDENTITY_BROKERS",
        value_delimiter = ',',
        value_name = "HOST[@NAMESPACE]"
    )]
    identity_brokers: Vec<String>,
    /// Audiences of service account tokens for Kafka, comma separated: pods of all pools may have such tokens, and these
    /// brokers may get such tokens of the operator's own service account. Never list one that the API server or a cloud
    /// accepts: brokers could use the token there [default: none]
    #[arg(
        long,
        env = "IDENTITY_AUDIENCES",
        value_delimiter = ',',
        value_name = "AUDIENCE"
    )]
    identity_audiences: Vec<String>,
    /// Service accounts of pools whose tokens the operator requests, to authenticate as the pool's workers, comma
    /// separated [default: none]
    #[arg(
        long,
        env = "TOKEN_SERVICE_ACCOUNTS",
        value_delimiter = ',',
        value_name = "NAMESPACE/NAME"
    )]
    token_service_accounts: Vec<String>,
    /// Name of the operator's own service account
    #[arg(
        long,
        env = "SERVICE_ACCOUNT",
        value_name = "NAME",
        default_value = "separation-operator"
    )]
    service_account: String,
}

/// Identities that the operator may use, validated together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdentitySettings {
    /// Brokers to which it may authenticate with its own identity.
    pub brokers: Vec<AllowedBroker>,
    /// Audiences of tokens of its own service account that these brokers may get, and of tokens that pods may have.
    pub audiences: BTreeSet<String>,
    /// Service accounts of pools whose tokens it requests.
    pub token_accounts: BTreeSet<ServiceAccountName>,
    /// Its own service account.
    pub own: ServiceAccountName,
}

/// A broker, or all brokers of a domain, for pools of all namespaces or of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedBroker {
    /// The host in lower case; after `*.`, a domain.
    host: String,
    namespace: Option<String>,
}

/// A service account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ServiceAccountName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ServiceAccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl IdentityArguments {
    /// Validates the arguments of an operator that runs in `own_namespace`.
    ///
    /// # Errors
    /// The first invalid host, namespace or name.
    pub fn settings(&self, own_namespace: &str) -> Result<IdentitySettings, SettingError> {
        if !is_object_name(&self.service_account) {
            let problem = format!(
                "{:?} is not a valid name of a service account",
                self.service_account
            );
            let fix = "name the service account of the operator's pods";
            return Err(SettingError::new("--service-account", problem, fix));
        }
        let brokers: Result<Vec<_>, _> = named(&self.identity_brokers).map(AllowedBroker::parse).collect();
        let accounts: Result<BTreeSet<_>, _> = named(&self.token_service_accounts)
            .map(ServiceAccountName::parse)
            .collect();
        Ok(IdentitySettings {
            brokers: brokers?,
            audiences: named(&self.identity_audiences).map(str::to_owned).collect(),
            token_accounts: accounts?,
            own: ServiceAccountName {
                namespace: own_namespace.to_owned(),
                name: self.service_account.clone(),
            },
        })
    }
}

/// The values of a list. An empty environment variable is parsed as a list of one empty value: it means unset.
pub(super) fn named(values: &[String]) -> impl Iterator<Item = &str> {
    let values = values.iter().map(|value| value.trim());
    values.filter(|value| !value.is_empty())
}

impl AllowedBroker {
    fn parse(text: &str) -> Result<Self, SettingError> {
        let (host, namespace) = match text.split_once('@') {
            Some((host, namespace)) => (host, Some(namespace)),
            None => (text, None),
        };
        let host = host.to_ascii_lowercase();
        let domain = host.strip_prefix("*.").unwrap_or(&host);
        let is_namespace = |name: &str| name.len() <= 63 && is_label(name);
        if !is_object_name(domain) || !namespace.is_none_or(is_namespace) {
            let problem = format!("{text:?} is not a host, or a host and a namespace");
            let fix = "write the host without its port, as in kafka.media.svc or *.kafka.eu-central-1.amazonaws.com@media";
            return Err(SettingError::new("--identity-brokers", problem, fix));
        }
        Ok(Self {
            host,
            namespace: namespace.map(str::to_owned),
        })
    }

    /// Whether it allows a host for a pool in a namespace.
    pub fn allows(&self, host: &str, namespace: &str) -> bool {
        // A name with a dot at its end is the same absolute name.
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let is_host = match self.host.strip_prefix("*.") {
            Some(domain) => {
                let labels = host.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.'));
                labels.is_some_and(|labels| !labels.is_empty())
            }
            None => host == self.host,
        };
        is_host
            && self
                .namespace
                .as_deref()
                .is_none_or(|allowed| allowed == namespace)
    }
}

impl fmt::Display for AllowedBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        match &self.namespace {
            Some(namespace) => write!(f, "@{namespace}"),
            None => Ok(()),
        }
    }
}

impl ServiceAccountName {
    fn parse(text: &str) -> Result<Self, SettingError> {
        match text.split_once('/') {
            Some((namespace, name))
                if namespace.len() <= 63 && is_label(namespace) && is_object_name(name) =>
            {
                Ok(Self {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })
            }
            _ => {
                let problem = format!("{text:?} is not a namespace and a name of a service account");
                let fix = "write NAMESPACE/NAME, as in media/vocals";
                Err(SettingError::new("--token-service-accounts", problem, fix))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(allowed: &str, cases: &[(&str, &str, bool)]) {
        let allowed = AllowedBroker::parse(allowed).expect("a broker");
        for (host, namespace, expected) in cases {
            assert_eq!(
                allowed.allows(host, namespace),
                *expected,
                "{host} for {namespace}"
            );
        }
    }

    #[test]
    fn a_broker_is_allowed_by_its_name_or_its_domain_for_all_namespaces_or_one() {
        check(
            "kafka.media.svc",
            &[
                ("kafka.media.svc", "media", true),
                ("KAFKA.media.svc.", "podcasts", true),
                ("b.kafka.media.svc", "media", false),
                ("kafka.media.svc.example", "media", false),
            ],
        );
        check(
            "*.kafka.eu-central-1.amazonaws.com@media",
            &[
                ("b-1.songs.abc.c2.kafka.eu-central-1.amazonaws.com", "media", true),
                (
                    "b-1.songs.abc.c2.kafka.eu-central-1.amazonaws.com",
                    "podcasts",
                    false,
                ),
                ("kafka.eu-central-1.amazonaws.com", "media", false),
                (".kafka.eu-central-1.amazonaws.com", "media", false),
                ("evilkafka.eu-central-1.amazonaws.com", "media", false),
                ("b-1.kafka.us-east-1.amazonaws.com", "media", false),
            ],
        );
        check("127.0.0.1", &[("127.0.0.1", "media", true)]);
    }

    #[test]
    fn invalid_brokers_and_service_accounts_are_refused_with_a_fix() {
        for text in [
            "",
            "*",
            "*.",
            "kafka:9092",
            "a.*.b",
            "kafka@",
            "kafka@a.b",
            "@media",
        ] {
            let error = AllowedBroker::parse(text).expect_err(text).to_string();
            assert!(error.contains("fix: write the host without its port"), "{error}");
        }
        for text in ["vocals", "media/", "/vocals", "a.b/vocals", "media/Vocals"] {
            let error = ServiceAccountName::parse(text).expect_err(text).to_string();
            assert!(error.contains("fix: write NAMESPACE/NAME"), "{error}");
        }
    }
}
