//! A real Kubernetes API: etcd, kube-apiserver and, optionally, kube-controller-manager, with methods to
//! stop, kill and freeze them.
//!
//! Without [`ControlPlaneOptions::node`] there is neither a node nor a scheduler: Deployments create
//! ReplicaSets and these create Pods, which stay Pending until a test changes their status. Authorization is
//! RBAC; admission has the defaults of a cluster.

mod audit;
mod client;
mod commands;
mod files;
mod identity;
mod options;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::OnceCell;

pub use self::audit::ApiRequest;
pub(crate) use self::client::Client;
pub(crate) use self::identity::User;
pub use self::options::{ControlPlaneOptions, Server};

use self::commands::{ISSUER, Ports};
use self::files::write;
use self::identity::Identity;
use crate::components::ControlPlaneComponents;
use crate::node::MachineNetwork;
use crate::service::Service;
use crate::{Process, TempDirectory};

/// Takes eight seconds on two idle cores; the machine may be busy.
const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(60);

/// A running control plane. It stops and its data is removed when this is dropped or our process ends.
#[derive(Debug)]
pub struct ControlPlane {
    servers: Vec<(Server, Service)>,
    client: Client,
    identity: Identity,
    audit: PathBuf,
    url: String,
    node_network: Option<MachineNetwork>,
    directory: TempDirectory,
}

impl ControlPlane {
    /// The issuer of service accounts' tokens: their claim `iss`.
    pub const ISSUER: &str = ISSUER;

    /// The control plane with controllers that is shared by all tests of this process: use your own
    /// namespaces, and do not stop it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        SHARED
            .get_or_try_init(|| Self::start(ControlPlaneOptions::default()))
            .await
    }

    /// Starts one and waits until it is ready.
    ///
    /// # Errors
    /// If it is not installed or not ready within 120 s, with the end of a server's log.
    pub async fn start(options: ControlPlaneOptions) -> Result<Self> {
        let directory = TempDirectory::new()?;
        let identity = Identity::make(directory.path(), options.node)?;
        let ports = Ports::choose(options.node)?;
        let url = ports.url();
        let audit = audit::prepare(directory.path())?;
        let servers = services(&ports, &directory, &identity, &options)?;
        let plane = Self {
            client: Client::new(&url, identity.ca_pem(), identity.token(User::Admin))?,
            servers,
            identity,
            audit,
            url,
            node_network: options.node,
            directory,
        };
        plane.service(Server::Etcd)?.launch()?;
        plane.service(Server::Api)?.launch()?;
        plane.wait_until_ready().await?;
        if options.node.is_some() {
            plane.service(Server::Scheduler)?.launch()?;
        }
        if options.controllers {
            plane.service(Server::Controllers)?.launch()?;
            plane
                .wait("the controllers", Server::Controllers, || {
                    plane
                        .client
                        .exists("/api/v1/namespaces/default/serviceaccounts/default")
                })
                .await?;
        }
        Ok(plane)
    }

    /// URL of the API server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The authority's certificate (PEM), which signs the API server's certificate.
    pub fn ca_pem(&self) -> &str {
        self.identity.ca_pem()
    }

    /// Token of the user `admin`, who has all rights.
    pub fn admin_token(&self) -> &str {
        self.identity.token(User::Admin)
    }

    /// A token of a service account, valid for an hour, like that of its Pods. The account must exist.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn token_for(&self, namespace: &str, service_account: &str) -> Result<String> {
        self.client
            .token(namespace, service_account, &[])
            .await
            .with_context(|| format!("no token for {namespace}/{service_account}"))
    }

    /// A token of a service account for another server than the API, valid for an hour.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn token_for_audience(
        &self,
        namespace: &str,
        service_account: &str,
        audience: &str,
    ) -> Result<String> {
        self.client
            .token(namespace, service_account, &[audience])
            .await
            .with_context(|| format!("no token for {namespace}/{service_account}"))
    }

    /// The public keys (JWKS) of service accounts' tokens.
    ///
    /// # Errors
    /// If the API server does not respond.
    pub async fn jwks(&self) -> Result<String> {
        let jwks = self.client.get("/openid/v1/jwks").await;
        Ok(jwks.context("cannot read the public keys of tokens")?.to_string())
    }

    /// A kubeconfig (YAML) with this token.
    pub fn kubeconfig(&self, token: &str) -> String {
        self.identity.kubeconfig(&self.url, token)
    }

    /// A client with all rights.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The network of its node, if it has one.
    pub(crate) fn node_network(&self) -> Option<MachineNetwork> {
        self.node_network
    }

    /// The kubeconfig of one of its own users.
    pub(crate) fn kubeconfig_of(&self, user: User) -> String {
        self.kubeconfig(self.identity.token(user))
    }

    /// The file with [`Self::ca_pem`].
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.identity.ca()
    }

    /// Whether the node exists and is ready.
    pub(crate) async fn node_is_ready(&self, name: &str) -> Result<bool> {
        let node = self.client.get(&format!("/api/v1/nodes/{name}")).await?;
        let conditions = node["status"]["conditions"].as_array();
        let is_ready =
            |condition: &serde_json::Value| condition["type"] == "Ready" && condition["status"] == "True";
        Ok(conditions.is_some_and(|all| all.iter().any(is_ready)))
    }

    /// All requests that the API server has answered so far, except those of its own components.
    ///
    /// A request is included once its response was sent; a watch, once it was accepted.
    ///
    /// # Errors
    /// If the audit log has an unexpected format.
    pub fn requests(&self) -> Result<Vec<ApiRequest>> {
        audit::read(&self.audit)
    }

    /// Stops a server gracefully.
    ///
    /// # Errors
    /// If it is not running, or does not exit within 60 s.
    pub async fn stop(&self, server: Server) -> Result<()> {
        self.service(server)?.stop(STOP).await
    }

    /// Kills a server with SIGKILL.
    ///
    /// # Errors
    /// If it is not running.
    pub async fn kill(&self, server: Server) -> Result<()> {
        self.service(server)?.kill().await
    }

    /// Restarts a stopped or killed server with its data and port, and waits until the API server, if
    /// running, is ready.
    ///
    /// # Errors
    /// If it is already running or the API server is not ready within 120 s.
    pub async fn start_again(&self, server: Server) -> Result<()> {
        self.service(server)?.launch()?;
        if self.service(Server::Api)?.is_running() {
            self.wait_until_ready().await?;
        }
        Ok(())
    }

    /// Freezes a server: its connections stay open and it does not respond.
    ///
    /// # Errors
    /// If it is not running.
    pub fn pause(&self, server: Server) -> Result<()> {
        self.service(server)?.with_process(Process::sigstop)
    }

    /// Resumes a frozen server.
    ///
    /// # Errors
    /// If it is not running.
    pub fn resume(&self, server: Server) -> Result<()> {
        self.service(server)?.with_process(Process::sigcont)
    }

    /// The end of a server's log, for a message.
    pub fn log_end(&self, server: Server) -> String {
        self.service(server).map(Service::log_end).unwrap_or_default()
    }

    /// A directory that is removed with the control plane.
    pub fn directory(&self) -> &TempDirectory {
        &self.directory
    }

    async fn wait_until_ready(&self) -> Result<()> {
        self.wait("the API server", Server::Api, || self.client.exists("/readyz"))
            .await
    }

    /// Waits until `holds` returns true; fails if a server exits or time is up.
    async fn wait<F>(&self, what: &str, server: Server, holds: impl Fn() -> F) -> Result<()>
    where
        F: Future<Output = Result<bool>>,
    {
        let deadline = Instant::now() + START;
        loop {
            for (_, service) in &self.servers {
                service.check()?;
            }
            let reason = match holds().await {
                Ok(true) => return Ok(()),
                Ok(false) => String::new(),
                Err(error) => format!(": {error:#}"),
            };
            if Instant::now() >= deadline {
                bail!(
                    "{what} is not ready after {START:?}{reason}{}",
                    self.log_end(server)
                );
            }
            tokio::time::sleep(crate::eventually::POLL).await;
        }
    }

    fn service(&self, server: Server) -> Result<&Service> {
        self.servers
            .iter()
            .find_map(|(which, service)| (*which == server).then_some(service))
            .with_context(|| format!("this control plane has no {}", server.name()))
    }
}

/// All servers of such a control plane, not yet running.
fn services(
    ports: &Ports,
    directory: &TempDirectory,
    identity: &Identity,
    options: &ControlPlaneOptions,
) -> Result<Vec<(Server, Service)>> {
    let components = ControlPlaneComponents::locate()?;
    let kubeconfig = |server: Server, user: User| {
        let text = identity.kubeconfig(&ports.url(), identity.token(user));
        write(directory.path(), &format!("{}.kubeconfig", server.name()), &text)
    };
    let mut commands = vec![
        (Server::Etcd, commands::etcd(&components, ports, directory)?),
        (
            Server::Api,
            commands::api_server(&components, ports, directory, identity, options)?,
        ),
    ];
    if options.controllers {
        let server = Server::Controllers;
        let kubeconfig = kubeconfig(server, User::Controllers)?;
        commands.push((server, commands::controllers(&components, &kubeconfig, identity)?));
    }
    if options.node.is_some() {
        let server = Server::Scheduler;
        let kubeconfig = kubeconfig(server, User::Scheduler)?;
        commands.push((server, commands::scheduler(&kubeconfig)?));
    }
    let services = commands.into_iter().map(|(server, command)| {
        let log = directory.join(format!("{}.log", server.name()));
        (server, Service::new(server.name(), command, log))
    });
    Ok(services.collect())
}
