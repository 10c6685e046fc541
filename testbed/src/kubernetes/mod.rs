//! A real Kubernetes API: etcd, kube-apiserver and, where asked for, kube-controller-manager, with ways to stop, kill
//! and freeze them.
//!
//! There is no node and no scheduler: Deployments get ReplicaSets and these get Pods, which stay Pending until a test
//! says otherwise in their status. Authorization is RBAC and admission is what a cluster has by default.

mod audit;
mod client;
mod commands;
mod identity;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::OnceCell;

pub use self::audit::ApiRequest;

use self::client::Client;
use self::commands::Ports;
use self::identity::Identity;
use crate::parts::ControlPlaneParts;
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
}

impl Default for ControlPlaneOptions {
    fn default() -> Self {
        Self {
            controllers: true,
            api_server: Vec::new(),
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
}

/// A running control plane. It ends, and its data vanishes, with this or with our process.
#[derive(Debug)]
pub struct ControlPlane {
    servers: Vec<Part>,
    client: Client,
    identity: Identity,
    audit: PathBuf,
    url: String,
    folder: Folder,
}

#[derive(Debug)]
struct Part {
    server: Server,
    command: Command,
    process: Mutex<Option<Process>>,
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
        let parts = ControlPlaneParts::locate()?;
        let folder = Folder::new()?;
        let identity = Identity::make(folder.path())?;
        let ports = Ports::choose()?;
        let url = ports.url();
        let audit = audit::prepare(folder.path())?;
        let mut servers = vec![
            Part::new(Server::Etcd, commands::etcd(&parts, &ports, &folder)?),
            Part::new(
                Server::Api,
                commands::api_server(&parts, &ports, &folder, &identity, &options.api_server)?,
            ),
        ];
        if options.controllers {
            let kubeconfig = folder.join("controllers.kubeconfig");
            let text = identity.kubeconfig(&url, identity.controllers_token());
            std::fs::write(&kubeconfig, text).context("cannot write a kubeconfig")?;
            let command = commands::controllers(&parts, &kubeconfig, &identity)?;
            servers.push(Part::new(Server::Controllers, command));
        }
        let plane = Self {
            client: Client::new(&url, identity.ca_pem(), identity.admin_token())?,
            servers,
            identity,
            audit,
            url,
            folder,
        };
        plane.launch(Server::Etcd)?;
        plane.launch(Server::Api)?;
        plane.wait_until_ready().await?;
        if options.controllers {
            plane.launch(Server::Controllers)?;
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
        self.identity.admin_token()
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
        let process = self.take(server)?;
        process.sigterm()?;
        process.wait_exit(STOP).await?;
        Ok(())
    }

    /// Kills a server with SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&self, server: Server) -> Result<()> {
        self.take(server)?.kill_9().await
    }

    /// Starts a stopped or killed server again, with its data and port, and waits until the API server is ready where
    /// it runs.
    ///
    /// # Errors
    /// When it runs already or the API server is not ready within 120 s.
    pub async fn start_again(&self, server: Server) -> Result<()> {
        self.launch(server)?;
        if self.with_process(Server::Api, |_| Ok(())).is_ok() {
            self.wait_until_ready().await?;
        }
        Ok(())
    }

    /// Freezes a server: its connections stay open and nothing answers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, server: Server) -> Result<()> {
        self.with_process(server, Process::sigstop)
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self, server: Server) -> Result<()> {
        self.with_process(server, Process::sigcont)
    }

    /// The end of a server's log, for a message.
    pub fn log_end(&self, server: Server) -> String {
        self.with_process(server, |process| Ok(process.log_end()))
            .unwrap_or_default()
    }

    /// A folder that goes with the control plane.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    fn launch(&self, server: Server) -> Result<()> {
        let part = self.part(server)?;
        let mut process = part.process.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(process.is_none(), "{} runs already", server.name());
        let log = self.log(server);
        *process = Some(Process::start(server.name(), &part.command, &log, &log)?);
        Ok(())
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
            for part in &self.servers {
                let process = part.process.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((process, code)) = process.as_ref().and_then(|it| Some((it, it.exit_code()?))) {
                    bail!("{} ended with {code}{}", part.server.name(), process.log_end());
                }
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

    fn part(&self, server: Server) -> Result<&Part> {
        self.servers
            .iter()
            .find(|part| part.server == server)
            .with_context(|| format!("this control plane has no {}", server.name()))
    }

    fn take(&self, server: Server) -> Result<Process> {
        let mut process = self
            .part(server)?
            .process
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        process
            .take()
            .with_context(|| format!("{} does not run", server.name()))
    }

    fn with_process<T>(&self, server: Server, act: impl FnOnce(&Process) -> Result<T>) -> Result<T> {
        let process = self
            .part(server)?
            .process
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        act(process
            .as_ref()
            .with_context(|| format!("{} does not run", server.name()))?)
    }

    fn log(&self, server: Server) -> PathBuf {
        self.folder.join(format!("{}.log", server.name()))
    }
}

impl Server {
    /// The program.
    fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Api => "kube-apiserver",
            Self::Controllers => "kube-controller-manager",
        }
    }
}

impl Part {
    fn new(server: Server, command: Command) -> Self {
        Self {
            server,
            command,
            process: Mutex::new(None),
        }
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
