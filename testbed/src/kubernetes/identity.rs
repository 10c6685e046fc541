//! Certificates, keys and tokens of one control plane, generated for each.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::KeyPair;

use super::files::write;
use crate::certificates::{Authority, Purpose};
use crate::node::MachineNetwork;

/// Users with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// Has all rights.
    Admin,
    Controllers,
    Scheduler,
    /// The kubelet of the node.
    Node,
    /// The kube-proxy of the node.
    Proxy,
}

const USERS: [User; 5] = [
    User::Admin,
    User::Controllers,
    User::Scheduler,
    User::Node,
    User::Proxy,
];

/// Credentials that the servers accept.
#[derive(Debug)]
pub(super) struct Identity {
    ca_pem: String,
    /// In the order of `USERS`.
    tokens: [String; USERS.len()],
    directory: PathBuf,
}

const CA: &str = "ca.pem";
const SERVER_CERTIFICATE: &str = "server.pem";
const SERVER_KEY: &str = "server.key";
const ACCOUNT_KEY: &str = "service-accounts.key";
const ACCOUNT_PUBLIC_KEY: &str = "service-accounts.pub";
const TOKENS: &str = "tokens.csv";
const NODE_CLIENT_CERTIFICATE: &str = "kubelet-client.pem";
const NODE_CLIENT_KEY: &str = "kubelet-client.key";

impl User {
    /// Name and group, as used in Kubernetes' own roles.
    fn name_and_group(self, network: Option<MachineNetwork>) -> (String, &'static str) {
        match self {
            Self::Admin => ("admin".to_owned(), "system:masters"),
            Self::Controllers => ("system:kube-controller-manager".to_owned(), ""),
            Self::Scheduler => ("system:kube-scheduler".to_owned(), ""),
            Self::Node => {
                let node = network.map_or_else(|| "none".to_owned(), |network| network.name());
                (format!("system:node:{node}"), "system:nodes")
            }
            Self::Proxy => ("system:kube-proxy".to_owned(), ""),
        }
    }
}

impl Identity {
    /// For a control plane that may have a node in `network`.
    pub(super) fn make(directory: &Path, network: Option<MachineNetwork>) -> Result<Self> {
        let authority = Authority::make()?;
        let address = network.map_or(Ipv4Addr::LOCALHOST, |network| network.host_address());
        let hosts = [
            "localhost",
            "127.0.0.1",
            &address.to_string(),
            "10.96.0.1",
            "kubernetes.default.svc",
        ];
        let server = authority.certificate("kube-apiserver", &hosts, Purpose::Server)?;
        let node_client = authority.certificate("kube-apiserver", &[], Purpose::Client)?;
        let accounts = KeyPair::generate()?;
        let tokens = USERS.map(|_| uuid::Uuid::new_v4().simple().to_string());
        write(directory, CA, &authority.pem())?;
        write(directory, SERVER_CERTIFICATE, &server.pem)?;
        write(directory, SERVER_KEY, &server.key)?;
        write(directory, ACCOUNT_KEY, &accounts.serialize_pem())?;
        write(directory, ACCOUNT_PUBLIC_KEY, &accounts.public_key_pem())?;
        write(directory, NODE_CLIENT_CERTIFICATE, &node_client.pem)?;
        write(directory, NODE_CLIENT_KEY, &node_client.key)?;
        let mut listed = String::new();
        for (user, token) in USERS.into_iter().zip(&tokens) {
            let (name, group) = user.name_and_group(network);
            // Token, name, uid, groups.
            listed.push_str(&format!("{token},{name},{name},{group}\n"));
        }
        write(directory, TOKENS, &listed)?;
        Ok(Self {
            ca_pem: authority.pem(),
            tokens,
            directory: directory.to_owned(),
        })
    }

    pub(super) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub(super) fn token(&self, user: User) -> &str {
        &self.tokens[user as usize]
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.directory.join(CA)
    }

    pub(super) fn server_certificate(&self) -> PathBuf {
        self.directory.join(SERVER_CERTIFICATE)
    }

    pub(super) fn server_key(&self) -> PathBuf {
        self.directory.join(SERVER_KEY)
    }

    pub(super) fn account_key(&self) -> PathBuf {
        self.directory.join(ACCOUNT_KEY)
    }

    pub(super) fn account_public_key(&self) -> PathBuf {
        self.directory.join(ACCOUNT_PUBLIC_KEY)
    }

    pub(super) fn tokens(&self) -> PathBuf {
        self.directory.join(TOKENS)
    }

    /// The client certificate of the API server for kubelets.
    pub(super) fn node_client_certificate(&self) -> PathBuf {
        self.directory.join(NODE_CLIENT_CERTIFICATE)
    }

    pub(super) fn node_client_key(&self) -> PathBuf {
        self.directory.join(NODE_CLIENT_KEY)
    }

    pub(super) fn kubeconfig(&self, url: &str, token: &str) -> String {
        let ca = self.ca();
        format!(
            r#"apiVersion: v1
kind: Config
clusters:
- name: testbed
  cluster:
    server: {url}
    certificate-authority: {}
users:
- name: testbed
  user:
    token: {token}
contexts:
- name: testbed
  context:
    cluster: testbed
    user: testbed
current-context: testbed
"#,
            ca.display()
        )
    }
}
