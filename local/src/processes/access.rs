//! Access to the API: the address that it listens on, and the credentials of its clients.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};
use separation_contract::environment as env;
use uuid::Uuid;

/// Options of the API's address and clients.
#[derive(Debug, Clone, Args)]
pub(super) struct AccessArguments {
    /// Address of the API. If it is not a loopback address, clients must authenticate
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1",
        conflicts_with = "input"
    )]
    host: IpAddr,
    /// Port of the API; 0 chooses a free one
    #[arg(long, value_name = "PORT", default_value = "8000")]
    port: u16,
    /// Username for HTTP Basic authentication of clients; not on a loopback address
    #[arg(long, env = env::BASIC_AUTH_USERNAME, default_value = "admin", value_name = "NAME")]
    username: String,
    /// Password for HTTP Basic authentication of clients; not on a loopback address. Without it and without API keys, a
    /// random one is printed
    #[arg(long, env = env::BASIC_AUTH_PASSWORD, hide_env_values = true, value_name = "PASSWORD")]
    password: Option<SecretString>,
    /// API keys of clients, as JSON; not on a loopback address
    #[arg(long, env = env::API_KEYS, hide_env_values = true, value_name = "JSON")]
    api_keys: Option<SecretString>,
}

/// Where the API listens, and who can use it.
#[derive(Debug, Clone)]
pub struct ApiAccess {
    /// The address; port 0 means any free port.
    pub(super) address: SocketAddr,
    /// `None` on a loopback address, where every user of this machine is a client.
    pub(super) credentials: Option<Credentials>,
}

/// The credentials of the API's clients.
#[derive(Debug, Clone)]
pub(super) struct Credentials {
    username: String,
    password: Option<SecretString>,
    api_keys: Option<SecretString>,
    /// Whether the password was created for this run.
    is_generated: bool,
}

impl AccessArguments {
    pub(super) fn access(&self) -> ApiAccess {
        let credentials = (!self.host.is_loopback()).then(|| {
            let password = given(self.password.as_ref());
            let api_keys = given(self.api_keys.as_ref());
            let is_generated = password.is_none() && api_keys.is_none();
            let generated = is_generated.then(|| Uuid::new_v4().simple().to_string().into());
            Credentials {
                username: self.username.clone(),
                password: password.or(generated),
                api_keys,
                is_generated,
            }
        });
        ApiAccess {
            address: SocketAddr::new(self.host, self.port),
            credentials,
        }
    }
}

/// An empty variable counts as none.
fn given(secret: Option<&SecretString>) -> Option<SecretString> {
    secret
        .filter(|secret| !secret.expose_secret().is_empty())
        .cloned()
}

#[cfg(test)]
impl ApiAccess {
    /// On this address, with credentials that were created unless it is a loopback address.
    pub(super) fn on(host: &str) -> Self {
        tests::access(host, "", "")
    }
}

impl ApiAccess {
    /// Whether the API has no clients but the users of this machine.
    pub(super) fn is_local(&self) -> bool {
        self.credentials.is_none()
    }

    /// The address at which this machine reaches it.
    pub(super) fn local_address(&self) -> SocketAddr {
        reachable(self.address)
    }

    /// The variables of the API's process, which inherits no credentials.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![(env::API_HOST, self.address.ip().to_string())];
        if let Some(credentials) = &self.credentials {
            variables.push((env::BASIC_AUTH_USERNAME, credentials.username.clone()));
            let secrets = [
                (env::BASIC_AUTH_PASSWORD, &credentials.password),
                (env::API_KEYS, &credentials.api_keys),
            ];
            variables.extend(secrets.into_iter().filter_map(|(name, secret)| {
                let secret = secret.as_ref()?;
                Some((name, secret.expose_secret().to_owned()))
            }));
        }
        variables
    }

    /// The user and the password, if it was created for this run: a client learns it from this text only.
    pub(super) fn generated_password(&self) -> Option<String> {
        let credentials = self
            .credentials
            .as_ref()
            .filter(|credentials| credentials.is_generated)?;
        let (username, password) = (&credentials.username, credentials.password.as_ref()?);
        Some(format!(
            "clients of the API: user {username}, password {} (set another one in {})",
            password.expose_secret(),
            env::BASIC_AUTH_PASSWORD
        ))
    }
}

/// The address at which this machine reaches a server that listens on `address`.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    pub(super) fn access(host: &str, password: &str, api_keys: &str) -> ApiAccess {
        let arguments = AccessArguments {
            host: host.parse().unwrap(),
            port: 8000,
            username: "ann".to_owned(),
            password: Some(password.to_owned().into()),
            api_keys: Some(api_keys.to_owned().into()),
        };
        arguments.access()
    }

    fn variables(access: &ApiAccess) -> BTreeMap<&'static str, String> {
        access.variables().into_iter().collect()
    }

    #[test]
    fn on_a_loopback_address_clients_need_no_credentials() {
        for host in ["127.0.0.1", "::1"] {
            let access = access(host, "secret", "[{}]");
            assert!(access.is_local());
            assert_eq!(access.generated_password(), None);
            assert_eq!(access.variables(), [(env::API_HOST, host.to_owned())]);
        }
    }

    #[test]
    fn on_other_addresses_the_given_credentials_apply() {
        let with_password = access("0.0.0.0", "secret", "");
        assert!(!with_password.is_local());
        assert_eq!(with_password.local_address().to_string(), "127.0.0.1:8000");
        assert_eq!(with_password.generated_password(), None);
        let variables_of_password = variables(&with_password);
        assert_eq!(variables_of_password[env::BASIC_AUTH_USERNAME], "ann");
        assert_eq!(variables_of_password[env::BASIC_AUTH_PASSWORD], "secret");
        assert!(!format!("{with_password:?}").contains("secret"));
        let with_keys = variables(&access("::", "", "[{}]"));
        assert!(!with_keys.contains_key(env::BASIC_AUTH_PASSWORD));
        assert_eq!(with_keys[env::API_KEYS], "[{}]");
    }

    #[test]
    fn without_credentials_each_run_has_a_random_password_that_is_printed() {
        let passwords = [(); 2].map(|()| {
            let access = access("0.0.0.0", "", "");
            let password = variables(&access)[env::BASIC_AUTH_PASSWORD].clone();
            let printed = access.generated_password().unwrap();
            assert!(
                printed.contains(&format!("user ann, password {password} ")),
                "{printed}"
            );
            password
        });
        assert_eq!(passwords[0].len(), 32);
        assert_ne!(passwords[0], passwords[1]);
    }
}
