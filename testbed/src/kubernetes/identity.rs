//! Certificates, keys and tokens of one control plane, made anew for each.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::KeyPair;

use super::write;
use crate::certificates::{self, Authority};

/// What the servers are told of who is who.
#[derive(Debug)]
pub(super) struct Identity {
    ca_pem: String,
    admin_token: String,
    controllers_token: String,
    folder: PathBuf,
}

const CA: &str = "ca.pem";
const SERVER_CERTIFICATE: &str = "server.pem";
const SERVER_KEY: &str = "server.key";
const ACCOUNT_KEY: &str = "service-accounts.key";
const ACCOUNT_PUBLIC_KEY: &str = "service-accounts.pub";
const TOKENS: &str = "tokens.csv";

impl Identity {
    pub(super) fn make(folder: &Path) -> Result<Self> {
        let authority = Authority::make()?;
        let hosts = ["localhost", "127.0.0.1"];
        let server = authority.certificate("kube-apiserver", &hosts, certificates::Purpose::Server)?;
        let accounts = KeyPair::generate()?;
        let token = || uuid::Uuid::new_v4().simple().to_string();
        let (admin_token, controllers_token) = (token(), token());
        write(folder, CA, &authority.pem())?;
        write(folder, SERVER_CERTIFICATE, &server.pem)?;
        write(folder, SERVER_KEY, &server.key)?;
        write(folder, ACCOUNT_KEY, &accounts.serialize_pem())?;
        write(folder, ACCOUNT_PUBLIC_KEY, &accounts.public_key_pem())?;
        // Token, name, uid, groups.
        let tokens = format!(
            "{admin_token},admin,admin,system:masters\n\
             {controllers_token},system:kube-controller-manager,controllers,\n"
        );
        write(folder, TOKENS, &tokens)?;
        Ok(Self {
            ca_pem: authority.pem(),
            admin_token,
            controllers_token,
            folder: folder.to_owned(),
        })
    }

    pub(super) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub(super) fn admin_token(&self) -> &str {
        &self.admin_token
    }

    pub(super) fn controllers_token(&self) -> &str {
        &self.controllers_token
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.folder.join(CA)
    }

    pub(super) fn server_certificate(&self) -> PathBuf {
        self.folder.join(SERVER_CERTIFICATE)
    }

    pub(super) fn server_key(&self) -> PathBuf {
        self.folder.join(SERVER_KEY)
    }

    pub(super) fn account_key(&self) -> PathBuf {
        self.folder.join(ACCOUNT_KEY)
    }

    pub(super) fn account_public_key(&self) -> PathBuf {
        self.folder.join(ACCOUNT_PUBLIC_KEY)
    }

    pub(super) fn tokens(&self) -> PathBuf {
        self.folder.join(TOKENS)
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
