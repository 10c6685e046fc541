//! The settings of a broker. Starts nothing.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Result;

use super::security::Security;

/// A broker's number and addresses.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// From 1 up.
    pub(super) id: u16,
    /// Where tests' clients connect.
    pub(super) plain: SocketAddr,
    /// Where it says that it listens: a proxy's address, or the same.
    pub(super) advertised: SocketAddr,
    /// Where the other brokers and the testbed itself connect: past any proxy.
    pub(super) internal: SocketAddr,
    pub(super) controller: SocketAddr,
    /// TLS, with a client certificate.
    pub(super) ssl: SocketAddr,
    /// TLS, with name and password.
    pub(super) sasl_ssl: SocketAddr,
    /// Name and password in the open.
    pub(super) sasl_plaintext: SocketAddr,
}

impl Node {
    /// With free ports: of `address` for tests' clients, of loopback for the broker's own kind.
    pub(super) fn choose(id: u16, address: Ipv4Addr) -> Result<Self> {
        let free = || super::free_address(address);
        let own = || super::free_address(Ipv4Addr::LOCALHOST);
        let plain = free()?;
        Ok(Self {
            id,
            plain,
            advertised: plain,
            internal: own()?,
            controller: own()?,
            ssl: free()?,
            sasl_ssl: free()?,
            sasl_plaintext: free()?,
        })
    }
}

/// The text of a properties file; of two lines for one setting, the last counts.
pub(super) fn render(
    node: &Node,
    nodes: &[Node],
    data: &Path,
    security: Option<&Security>,
    settings: &[(String, String)],
) -> String {
    let mut text = String::new();
    let mut set = |name: &str, value: &dyn std::fmt::Display| {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{name}={value}");
    };
    let voters: Vec<_> = nodes
        .iter()
        .map(|node| format!("{}@{}", node.id, node.controller))
        .collect();
    set("process.roles", &"broker,controller");
    set("node.id", &node.id);
    set("controller.quorum.voters", &voters.join(","));
    set("log.dirs", &data.display());
    let mut others = format!("INTERNAL://{}", node.internal);
    if security.is_some() {
        let _ = write!(
            others,
            ",SSL://{},SASL_SSL://{},SASL_PLAINTEXT://{}",
            node.ssl, node.sasl_ssl, node.sasl_plaintext
        );
    }
    set(
        "listeners",
        &format!(
            "PLAINTEXT://{},CONTROLLER://{},{others}",
            node.plain, node.controller
        ),
    );
    set(
        "advertised.listeners",
        &format!("PLAINTEXT://{},{others}", node.advertised),
    );
    set("controller.listener.names", &"CONTROLLER");
    set("inter.broker.listener.name", &"INTERNAL");
    set(
        "listener.security.protocol.map",
        &"PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,\
          SASL_PLAINTEXT:SASL_PLAINTEXT",
    );
    for (name, value) in FIXED {
        set(name, value);
    }
    let (replicas, in_sync) = if nodes.len() == 1 { (1, 1) } else { (3, 2) };
    set("default.replication.factor", &replicas);
    set("min.insync.replicas", &in_sync);
    for internal in [
        "offsets.topic",
        "transaction.state.log",
        "share.coordinator.state.topic",
    ] {
        set(&format!("{internal}.replication.factor"), &replicas);
        set(&format!("{internal}.num.partitions"), &nodes.len());
    }
    set("transaction.state.log.min.isr", &in_sync);
    set("share.coordinator.state.topic.min.isr", &in_sync);
    if let Some(security) = security {
        for (name, value) in security.broker_settings() {
            set(&name, &value);
        }
    }
    for (name, value) in settings {
        set(name, value);
    }
    text
}

const FIXED: &[(&str, &str)] = &[
    // A test that names a topic which does not exist should hear of it.
    ("auto.create.topics.enable", "false"),
    ("num.partitions", "1"),
    // The first member of a group need not wait for others, and tests kill members: sessions may be short.
    ("group.initial.rebalance.delay.ms", "0"),
    ("group.min.session.timeout.ms", "1000"),
    ("group.consumer.min.session.timeout.ms", "1000"),
    ("group.consumer.min.heartbeat.interval.ms", "500"),
    // A killed broker is noticed in three seconds rather than nine.
    ("broker.session.timeout.ms", "3000"),
    ("broker.heartbeat.interval.ms", "500"),
    ("replica.lag.time.max.ms", "5000"),
    // Small in threads and memory: one broker of many on a small machine.
    ("num.network.threads", "2"),
    ("num.io.threads", "4"),
    ("background.threads", "2"),
    ("num.recovery.threads.per.data.dir", "1"),
    ("log.cleaner.threads", "1"),
    ("log.cleaner.dedupe.buffer.size", "4194304"),
    ("log.cleaner.io.buffer.size", "65536"),
    ("offsets.load.buffer.size", "1048576"),
    ("log.index.size.max.bytes", "1048576"),
    // Deleted topics vanish soon, so that one of the same name can follow.
    ("log.segment.delete.delay.ms", "1000"),
    ("controlled.shutdown.enable", "true"),
];
