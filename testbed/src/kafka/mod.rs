//! Real Kafka: one broker or three, each also a controller (KRaft), with methods to stop, kill and freeze
//! them.

mod client;
mod clients;
mod oauth;
mod properties;
mod records;
mod security;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::OnceCell;
use uuid::Uuid;

pub use self::client::{Group, Member, PartitionLag};
pub use self::oauth::KafkaOauth;
pub use self::records::Record;
pub use self::security::Security;

use self::clients::Clients;
use self::oauth::TokenValidation;
use self::properties::BrokerNode;
use crate::{Components, Process, TcpProxy, TempDirectory};

const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(60);
/// Enough for a broker with a few hundred partitions.
const HEAP_MIB: u32 = 256;

/// Settings of the brokers.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// One or three. With three, topics have three replicas and `min.insync.replicas` is 2.
    pub brokers: u16,
    /// Also listen with TLS and SASL: see [`Kafka::security`].
    pub secure: bool,
    /// The listeners with SASL also accept tokens (OAUTHBEARER) of this issuer; requires [`Self::secure`].
    pub oauth: Option<KafkaOauth>,
    /// Listen address: loopback, or an address such as [`crate::Node::host_address`].
    pub address: Ipv4Addr,
    /// A [`TcpProxy`] in front of every broker's plain listener, at the same address: see [`Kafka::proxy`].
    pub proxied: bool,
    /// Further broker settings, which override the testbed's own.
    pub settings: Vec<(String, String)>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            brokers: 1,
            secure: false,
            oauth: None,
            address: Ipv4Addr::LOCALHOST,
            proxied: false,
            settings: Vec::new(),
        }
    }
}

/// Broker settings that require ACLs for authenticated clients; clients of the plain listener have all
/// rights.
pub const AUTHORIZER: [(&str, &str); 2] = [
    (
        "authorizer.class.name",
        "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    ),
    ("super.users", "User:ANONYMOUS"),
];

/// Running brokers. They stop and their data is removed when this is dropped or our process ends.
#[derive(Debug)]
pub struct Kafka {
    brokers: Vec<Broker>,
    jars: PathBuf,
    security: Option<Security>,
    clients: Clients,
    directory: TempDirectory,
}

#[derive(Debug)]
struct Broker {
    node: BrokerNode,
    properties: PathBuf,
    proxy: Option<TcpProxy>,
    process: Mutex<Option<Process>>,
}

impl Kafka {
    /// The plain broker shared by all tests of this process: use your own topics and groups, and do not stop
    /// it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Kafka> = OnceCell::const_new();
        SHARED
            .get_or_try_init(|| Self::start(KafkaOptions::default()))
            .await
    }

    /// Starts brokers and waits until they serve clients.
    ///
    /// # Errors
    /// If Kafka is not installed or does not start within 60 s, with the end of a broker's log.
    pub async fn start(options: KafkaOptions) -> Result<Self> {
        ensure!(
            matches!(options.brokers, 1 | 3),
            "{} brokers are neither 1 nor 3",
            options.brokers
        );
        ensure!(
            options.secure || options.oauth.is_none(),
            "brokers that accept tokens need secure listeners"
        );
        let jars = Components::locate()?.kafka_lib;
        let directory = TempDirectory::new()?;
        let security = options
            .secure
            .then(|| Security::make(directory.path(), options.address, options.oauth))
            .transpose()?;
        let mut nodes = (1..=options.brokers)
            .map(|id| BrokerNode::choose(id, options.address))
            .collect::<Result<Vec<_>>>()?;
        let mut brokers = Vec::new();
        let mut proxies = Vec::new();
        for node in &mut nodes {
            let proxy = match options.proxied {
                true => Some(TcpProxy::start_at(options.address, node.plain).await?),
                false => None,
            };
            // Clients connect to the addresses that brokers advertise.
            node.advertised = proxy.as_ref().map_or(node.plain, TcpProxy::address);
            proxies.push(proxy);
        }
        for (node, proxy) in nodes.iter().zip(proxies) {
            let data = directory.subdirectory(format!("broker-{}", node.id))?;
            let properties = directory.join(format!("broker-{}.properties", node.id));
            let text = properties::render(node, &nodes, &data, security.as_ref(), &options.settings);
            std::fs::write(&properties, text).context("cannot write a broker's properties")?;
            brokers.push(Broker {
                node: node.clone(),
                properties,
                proxy,
                process: Mutex::new(None),
            });
        }
        let internal: Vec<_> = nodes.iter().map(|node| node.internal).collect();
        let kafka = Self {
            brokers,
            jars,
            security,
            clients: Clients::new(&internal),
            directory,
        };
        kafka.format().await?;
        for index in 0..kafka.brokers.len() {
            kafka.launch(index)?;
        }
        kafka.wait_until_ready().await?;
        Ok(kafka)
    }

    /// `host:port` of every broker, comma separated: without TLS and authentication.
    pub fn bootstrap(&self) -> String {
        self.listed(|broker| broker.node.advertised)
    }

    /// `host:port` of every broker's listener with TLS that requires a client certificate.
    pub fn bootstrap_ssl(&self) -> String {
        self.listed(|broker| broker.node.ssl)
    }

    /// `host:port` of every broker's listener with TLS and authentication.
    pub fn bootstrap_sasl_ssl(&self) -> String {
        self.listed(|broker| broker.node.sasl_ssl)
    }

    /// `host:port` of every broker's listener with authentication and without TLS.
    pub fn bootstrap_sasl_plaintext(&self) -> String {
        self.listed(|broker| broker.node.sasl_plaintext)
    }

    /// The proxy in front of a broker's plain listener; the testbed's own requests bypass it.
    ///
    /// # Panics
    /// If Kafka was started without [`KafkaOptions::proxied`], or there is no such broker.
    pub fn proxy(&self, index: usize) -> &TcpProxy {
        self.brokers[index]
            .proxy
            .as_ref()
            .expect("the brokers were started with proxies")
    }

    /// Connection settings of the listeners with TLS and SASL.
    ///
    /// # Panics
    /// If Kafka was started without [`KafkaOptions::secure`].
    pub fn security(&self) -> &Security {
        self.security
            .as_ref()
            .expect("the brokers were started with secure listeners")
    }

    /// Stops a broker (0, 1, 2) gracefully.
    ///
    /// # Errors
    /// If it is not running, or does not exit within 60 s.
    pub async fn stop_broker(&self, index: usize) -> Result<()> {
        let process = self.take(index)?;
        process.sigterm()?;
        process.wait_exit(STOP).await?;
        Ok(())
    }

    /// Kills a broker with SIGKILL.
    ///
    /// # Errors
    /// If it is not running.
    pub async fn kill_broker(&self, index: usize) -> Result<()> {
        self.take(index)?.kill_9().await
    }

    /// Restarts a stopped or killed broker with its data and ports, and waits until all running ones serve.
    ///
    /// # Errors
    /// If it is already running or does not start within 60 s.
    pub async fn start_broker(&self, index: usize) -> Result<()> {
        self.launch(index)?;
        self.wait_until_ready().await
    }

    /// Freezes a broker: its connections stay open and it does not respond.
    ///
    /// # Errors
    /// If it is not running.
    pub fn pause_broker(&self, index: usize) -> Result<()> {
        self.with_process(index, Process::sigstop)
    }

    /// Resumes a frozen broker.
    ///
    /// # Errors
    /// If it is not running.
    pub fn resume_broker(&self, index: usize) -> Result<()> {
        self.with_process(index, Process::sigcont)
    }

    /// Changes the password of the user of [`Kafka::security`] for both SCRAM mechanisms. Existing
    /// connections stay authenticated.
    ///
    /// # Errors
    /// If Kafka was started without [`KafkaOptions::secure`], or a broker refuses.
    pub async fn set_password(&self, password: &str) -> Result<()> {
        let security = self
            .security
            .as_ref()
            .context("the brokers were started without secure listeners")?;
        let servers = self.listed(|broker| broker.node.internal);
        let log = self.directory.join("password.log");
        let mut changing = Vec::new();
        // One request can change a user only once.
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let mut tool = java(&self.jars, "kafka.admin.ConfigCommand");
            tool.args(["--bootstrap-server", &servers, "--alter"])
                .args(["--entity-type", "users", "--entity-name", security.username()])
                .args(["--add-config", &format!("{mechanism}=[password={password}]")]);
            changing.push(Process::start("the change of a password", &tool, &log, &log)?);
        }
        for process in changing {
            let code = process.wait_exit(START).await?;
            ensure!(code == 0, "cannot change a password{}", process.log_end());
        }
        Ok(())
    }

    /// Replaces the public keys of the tokens' issuer. Existing connections stay authenticated.
    ///
    /// # Errors
    /// If Kafka was started without [`KafkaOptions::oauth`].
    pub fn set_jwks(&self, jwks: &str) -> Result<()> {
        let tokens = self.security.as_ref().and_then(Security::tokens);
        tokens.context("the brokers accept no tokens")?.write_jwks(jwks)
    }

    /// Changes access control lists, with the arguments of `kafka-acls.sh` except the servers. Requires
    /// brokers started with [`AUTHORIZER`].
    ///
    /// # Errors
    /// If a broker refuses.
    pub async fn change_acls(&self, arguments: &[&str]) -> Result<()> {
        let servers = self.listed(|broker| broker.node.internal);
        let log = self.directory.join("acls.log");
        let mut tool = java(&self.jars, "org.apache.kafka.tools.AclCommand");
        tool.args(["--bootstrap-server", &servers]).args(arguments);
        let process = Process::start("a change of access control lists", &tool, &log, &log)?;
        let code = process.wait_exit(START).await?;
        ensure!(
            code == 0,
            "cannot change access control lists{}",
            process.log_end()
        );
        Ok(())
    }

    /// The index of the broker that leads a partition; `None` without a leader.
    ///
    /// # Errors
    /// If no broker responds.
    pub async fn leader(&self, topic: &str, partition: i32) -> Result<Option<usize>> {
        let leader = self.clients.leader(topic, partition).await?;
        Ok(self
            .brokers
            .iter()
            .position(|broker| Some(i32::from(broker.node.id)) == leader))
    }

    /// Formats the data directory of every broker, in parallel.
    async fn format(&self) -> Result<()> {
        // 128 bits in base64, as Kafka requires: 21 digits of 6 bits, and one whose last 4 bits are 0.
        let random = Uuid::new_v4().simple().to_string();
        let cluster_id = format!("{}A", &random[..21]);
        let mut formatting = Vec::new();
        for broker in &self.brokers {
            let mut tool = java(&self.jars, "kafka.tools.StorageTool");
            tool.args(["format", "--cluster-id", &cluster_id, "--config"])
                .arg(&broker.properties);
            if let Some(security) = &self.security {
                tool.args(security.scram_arguments());
            }
            let log = self.log(broker.node.id);
            formatting.push(Process::start("the format of a broker", &tool, &log, &log)?);
        }
        for process in formatting {
            let code = process.wait_exit(START).await?;
            ensure!(
                code == 0,
                "cannot format a broker's directory{}",
                process.log_end()
            );
        }
        Ok(())
    }

    fn launch(&self, index: usize) -> Result<()> {
        let broker = self.broker(index)?;
        let mut process = broker.process.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(process.is_none(), "broker {index} is already running");
        let tokens = self.security.as_ref().and_then(Security::tokens);
        let option = tokens.map(TokenValidation::java_option);
        let mut server = java_with(option.as_deref(), &self.jars, "kafka.Kafka");
        server.arg(&broker.properties);
        let log = self.log(broker.node.id);
        *process = Some(Process::start(&format!("broker {index}"), &server, &log, &log)?);
        Ok(())
    }

    /// Waits until every running broker is known to the others and leads its partitions.
    async fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let mut running = Vec::new();
            for (index, broker) in self.brokers.iter().enumerate() {
                let process = broker.process.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(process) = &*process {
                    if let Some(code) = process.exit_code() {
                        bail!("broker {index} ended with {code}{}", process.log_end());
                    }
                    running.push(broker.node.internal);
                }
            }
            let reason = match self.clients.all_serve(&running).await {
                Ok(true) => return Ok(()),
                Ok(false) => String::new(),
                Err(error) => format!(": {error:#}"),
            };
            if Instant::now() >= deadline {
                let log = self
                    .with_process(0, |process| Ok(process.log_end()))
                    .unwrap_or_default();
                bail!("Kafka does not serve after {START:?}{reason}{log}");
            }
            tokio::time::sleep(crate::eventually::POLL).await;
        }
    }

    fn listed(&self, address: impl Fn(&Broker) -> SocketAddr) -> String {
        let addresses: Vec<_> = self
            .brokers
            .iter()
            .map(|broker| address(broker).to_string())
            .collect();
        addresses.join(",")
    }

    fn broker(&self, index: usize) -> Result<&Broker> {
        self.brokers
            .get(index)
            .with_context(|| format!("there is no broker {index}"))
    }

    fn take(&self, index: usize) -> Result<Process> {
        let mut process = self
            .broker(index)?
            .process
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        process
            .take()
            .with_context(|| format!("broker {index} is not running"))
    }

    fn with_process<T>(&self, index: usize, act: impl FnOnce(&Process) -> Result<T>) -> Result<T> {
        let process = self
            .broker(index)?
            .process
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        act(process
            .as_ref()
            .with_context(|| format!("broker {index} is not running"))?)
    }

    fn log(&self, id: u16) -> PathBuf {
        self.directory.join(format!("broker-{id}.log"))
    }
}

/// A command that runs a class from Kafka's jars.
fn java(jars: &Path, main_class: &str) -> Command {
    java_with(None, jars, main_class)
}

/// The same with a further option of the virtual machine.
fn java_with(option: Option<&str>, jars: &Path, main_class: &str) -> Command {
    let mut class_path = jars.as_os_str().to_owned();
    class_path.push("/*");
    let mut java = Command::new("java");
    java.arg(format!("-Xmx{HEAP_MIB}m"))
        // Many processes share few cores: the quick compiler and the simplest collector start fastest.
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"])
        .args([
            "-Djava.awt.headless=true",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        ])
        .arg("-Dorg.slf4j.simpleLogger.showDateTime=true")
        .args(option)
        .arg("-cp")
        .arg(class_path)
        .arg(main_class);
    java
}
