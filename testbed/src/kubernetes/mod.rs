//! A real Kubernetes API: etcd, kube-apiserver and, where asked for, kube-controller-manager, with ways to stop, kill
//! and freeze them.
//!
//! Without [`ControlPlaneOptions::node`] there is no node and no scheduler: Deployments get ReplicaSets and these get
//! Pods, which stay Pending until a test says otherwise in their status. Authorization is RBAC and admission is what a
//! cluster has by default.

mod audit;
mod client;
mod commands;
mod identity;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::OnceCell;

pub use self::audit::ApiRequest;
pub(crate) use self::client::Client;
pub(crate) use self::identity::User;

use self::commands::Ports;
use self::identity::Identity;
use crate::node::Place;
use crate::parts::ControlPlaneParts;
use crate::service::Service;
use crate::{Folder, Process};

/// Alone on two cores it takes eight seconds; others may be building.
const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(60);

/// How a control plane is to be.
#[derive(Debug, Clone)]
pub struct ControlPlaneOptions {
    /// With kube-controller-manager: namespaces get their `default` service account, without which no Pod is admitted,
    /// and Deployments, owners and namespaces work as in a cluster.
    pub controllers: bool,
    /// Further arguments of kube-apiserver.
    pub api_server: Vec<String>,
    /// For a [`crate::Node`] on the machine at this place, with kube-scheduler: the API server listens at
    /// [`Place::host_address`] instead of loopback.
    pub node: Option<Place>,
}

impl Default for ControlPlaneOptions {
    fn default() -> Self {
        Self {
            controllers: true,
            api_server: Vec::new(),
            node: None,
        }
    }
}

/// One of the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The database.
    Etcd,
    /// The API server.
    Api,
    /// The controllers.
    Controllers,
    /// The scheduler, of a control plane with a node.
    Scheduler,
}

/// A running control plane. It ends, and its data vanishes, with this or with our process.
#[derive(Debug)]
pub struct ControlPlane {
    servers: Vec<(Server, Service)>,
    client: Client,
    identity: Identity,
    audit: PathBuf,
    url: String,
    place: Option<Place>,
    folder: Folder,
}

impl ControlPlane {
    /// The one, with controllers, that all tests of this process share: use namespaces of your own, and leave it
    /// running.
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
    /// When it is not installed or not ready within 120 s, with the end of a server's log.
    pub async fn start(options: ControlPlaneOptions) -> Result<Self> {
        let folder = Folder::new()?;
        let identity = Identity::make(folder.path(), options.node)?;
        let ports = Ports::choose(options.node)?;
        let url = ports.url();
        let audit = audit::prepare(folder.path())?;
        let servers = services(&ports, &folder, &identity, &options)?;
        let plane = Self {
            client: Client::new(&url, identity.ca_pem(), identity.token(User::Admin))?,
            servers,
            identity,
            audit,
            url,
            place: options.node,
            folder,
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

    /// Certificate (PEM) that the API server's is signed with.
    pub fn ca_pem(&self) -> &str {
        self.identity.ca_pem()
    }

    /// Token of the user `admin`, who may do everything.
    pub fn admin_token(&self) -> &str {
        self.identity.token(User::Admin)
    }

    /// A token of a service account, valid for an hour: what a Pod of it would be given. The account must be there.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn token_for(&self, namespace: &str, service_account: &str) -> Result<String> {
        self.client
            .token(namespace, service_account)
            .await
            .with_context(|| format!("no token for {namespace}/{service_account}"))
    }

    /// A kubeconfig (YAML) for who has this token.
    pub fn kubeconfig(&self, token: &str) -> String {
        self.identity.kubeconfig(&self.url, token)
    }

    /// With all rights.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The place of the node that it was made for.
    pub(crate) fn place(&self) -> Option<Place> {
        self.place
    }

    /// The kubeconfig of one of its own users.
    pub(crate) fn kubeconfig_of(&self, user: User) -> String {
        self.kubeconfig(self.identity.token(user))
    }

    /// The file with [`Self::ca_pem`].
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.identity.ca()
    }

    /// Whether a node is there and says that it is ready.
    pub(crate) async fn node_is_ready(&self, name: &str) -> Result<bool> {
        let node = self.client.get(&format!("/api/v1/nodes/{name}")).await?;
        let conditions = node["status"]["conditions"].as_array();
        let is_ready =
            |condition: &serde_json::Value| condition["type"] == "Ready" && condition["status"] == "True";
        Ok(conditions.is_some_and(|all| all.iter().any(is_ready)))
    }

    /// All requests that the API server has answered so far, those of its own components left out.
    ///
    /// A request is in here when its answer has arrived; a watch, when it was accepted.
    ///
    /// # Errors
    /// When the audit log is not as expected.
    pub fn requests(&self) -> Result<Vec<ApiRequest>> {
        audit::read(&self.audit)
    }

    /// Stops a server in good order.
    ///
    /// # Errors
    /// When it does not run, or does not end within 60 s.
    pub async fn stop(&self, server: Server) -> Result<()> {
        self.service(server)?.stop(STOP).await
    }

    /// Kills a server with SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&self, server: Server) -> Result<()> {
        self.service(server)?.kill().await
    }

    /// Starts a stopped or killed server again, with its data and port, and waits until the API server is ready where
    /// it runs.
    ///
    /// # Errors
    /// When it runs already or the API server is not ready within 120 s.
    pub async fn start_again(&self, server: Server) -> Result<()> {
        self.service(server)?.launch()?;
        if self.service(Server::Api)?.is_running() {
            self.wait_until_ready().await?;
        }
        Ok(())
    }

    /// Freezes a server: its connections stay open and nothing answers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, server: Server) -> Result<()> {
        self.service(server)?.with_process(Process::sigstop)
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self, server: Server) -> Result<()> {
        self.service(server)?.with_process(Process::sigcont)
    }

    /// The end of a server's log, for a message.
    pub fn log_end(&self, server: Server) -> String {
        self.service(server).map(Service::log_end).unwrap_or_default()
    }

    /// A folder that goes with the control plane.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    async fn wait_until_ready(&self) -> Result<()> {
        self.wait("the API server", Server::Api, || self.client.exists("/readyz"))
            .await
    }

    /// Waits until an answer is yes, or a server ends, or time is up.
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

impl Server {
    /// The program.
    fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Api => "kube-apiserver",
            Self::Controllers => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }
}

/// All servers that such a control plane has; none runs yet.
fn services(
    ports: &Ports,
    folder: &Folder,
    identity: &Identity,
    options: &ControlPlaneOptions,
) -> Result<Vec<(Server, Service)>> {
    let parts = ControlPlaneParts::locate()?;
    let kubeconfig = |server: Server, user: User| {
        let text = identity.kubeconfig(&ports.url(), identity.token(user));
        write(folder.path(), &format!("{}.kubeconfig", server.name()), &text)
    };
    let mut commands = vec![
        (Server::Etcd, commands::etcd(&parts, ports, folder)?),
        (
            Server::Api,
            commands::api_server(&parts, ports, folder, identity, options)?,
        ),
    ];
    if options.controllers {
        let server = Server::Controllers;
        let kubeconfig = kubeconfig(server, User::Controllers)?;
        commands.push((server, commands::controllers(&parts, &kubeconfig, identity)?));
    }
    if options.node.is_some() {
        let server = Server::Scheduler;
        let kubeconfig = kubeconfig(server, User::Scheduler)?;
        commands.push((server, commands::scheduler(&kubeconfig)?));
    }
    let services = commands.into_iter().map(|(server, command)| {
        let log = folder.join(format!("{}.log", server.name()));
        (server, Service::new(server.name(), command, log))
    });
    Ok(services.collect())
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
