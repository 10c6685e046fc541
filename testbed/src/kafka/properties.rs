//! Renders the settings of a broker. Starts no process.

use std::fmt::{Display, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Result;

use super::security::Security;
use crate::ports;

/// A broker's number and addresses.
#[derive(Debug, Clone)]
pub(super) struct BrokerNode {
    /// The id, from 1.
    pub(super) id: u16,
    /// Listener of tests' clients.
    pub(super) plain: SocketAddr,
    /// Advertised address: a proxy's address, or the same.
    pub(super) advertised: SocketAddr,
    /// Listener of the other brokers and the testbed itself, which bypasses any proxy.
    pub(super) internal: SocketAddr,
    pub(super) controller: SocketAddr,
    /// TLS with a client certificate.
    pub(super) ssl: SocketAddr,
    /// TLS with name and password.
    pub(super) sasl_ssl: SocketAddr,
    /// Name and password without TLS.
    pub(super) sasl_plaintext: SocketAddr,
}

impl BrokerNode {
    /// With free ports: of `address` for tests' clients, of loopback for brokers and the testbed.
    pub(super) fn choose(id: u16, address: Ipv4Addr) -> Result<Self> {
        let free = || free_address(address);
        let loopback = || free_address(Ipv4Addr::LOCALHOST);
        let plain = free()?;
        Ok(Self {
            id,
            plain,
            advertised: plain,
            internal: loopback()?,
            controller: loopback()?,
            ssl: free()?,
            sasl_ssl: free()?,
            sasl_plaintext: free()?,
        })
    }
}

/// A free port of an address.
fn free_address(address: Ipv4Addr) -> Result<SocketAddr> {
    Ok(SocketAddr::from((address, ports::free_at(address)?)))
}

/// The text of a properties file; if a setting has two lines, the last one applies.
pub(super) fn render(
    node: &BrokerNode,
    nodes: &[BrokerNode],
    data: &Path,
    security: Option<&Security>,
    settings: &[(String, String)],
) -> String {
    let voters: Vec<_> = nodes
        .iter()
        .map(|node| format!("{}@{}", node.id, node.controller))
        .collect();
    let mut text = Properties::default();
    text.set("process.roles", &"broker,controller");
    text.set("node.id", &node.id);
    text.set("controller.quorum.voters", &voters.join(","));
    text.set("log.dirs", &data.display());
    set_listeners(&mut text, node, security.is_some());
    for (name, value) in FIXED {
        text.set(name, value);
    }
    set_replication(&mut text, nodes.len());
    if let Some(security) = security {
        for (name, value) in security.broker_settings() {
            text.set(&name, &value);
        }
    }
    for (name, value) in settings {
        text.set(name, value);
    }
    text.0
}

/// Lines `name=value`.
#[derive(Default)]
struct Properties(String);

impl Properties {
    fn set(&mut self, name: &str, value: &dyn Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{name}={value}");
    }
}

fn set_listeners(text: &mut Properties, node: &BrokerNode, is_secure: bool) {
    let mut others = format!("INTERNAL://{}", node.internal);
    if is_secure {
        let _ = write!(
            others,
            ",SSL://{},SASL_SSL://{},SASL_PLAINTEXT://{}",
            node.ssl, node.sasl_ssl, node.sasl_plaintext
        );
    }
    text.set(
        "listeners",
        &format!(
            "PLAINTEXT://{},CONTROLLER://{},{others}",
            node.plain, node.controller
        ),
    );
    text.set(
        "advertised.listeners",
        &format!("PLAINTEXT://{},{others}", node.advertised),
    );
    text.set("controller.listener.names", &"CONTROLLER");
    text.set("inter.broker.listener.name", &"INTERNAL");
    text.set(
        "listener.security.protocol.map",
        &"PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,\
          SASL_PLAINTEXT:SASL_PLAINTEXT",
    );
}

fn set_replication(text: &mut Properties, brokers: usize) {
    let (replicas, in_sync) = if brokers == 1 { (1, 1) } else { (3, 2) };
    text.set("default.replication.factor", &replicas);
    text.set("min.insync.replicas", &in_sync);
    for internal in [
        "offsets.topic",
        "transaction.state.log",
        "share.coordinator.state.topic",
    ] {
        text.set(&format!("{internal}.replication.factor"), &replicas);
        text.set(&format!("{internal}.num.partitions"), &brokers);
    }
    text.set("transaction.state.log.min.isr", &in_sync);
    text.set("share.coordinator.state.topic.min.isr", &in_sync);
}

const FIXED: &[(&str, &str)] = &[
    // A test that uses a nonexistent topic should get an error.
    ("auto.create.topics.enable", "false"),
    ("num.partitions", "1"),
    // The first member of a group need not wait for others; tests kill members, so sessions may be short.
    ("group.initial.rebalance.delay.ms", "0"),
    ("group.min.session.timeout.ms", "1000"),
    ("group.consumer.min.session.timeout.ms", "1000"),
    ("group.consumer.min.heartbeat.interval.ms", "500"),
    // A killed broker is detected in three seconds instead of nine.
    ("broker.session.timeout.ms", "3000"),
    ("broker.heartbeat.interval.ms", "500"),
    ("replica.lag.time.max.ms", "5000"),
    // Few threads and little memory: one broker of many on a small machine.
    ("num.network.threads", "2"),
    ("num.io.threads", "4"),
    ("background.threads", "2"),
    ("num.recovery.threads.per.data.dir", "1"),
    ("log.cleaner.threads", "1"),
    ("log.cleaner.dedupe.buffer.size", "4194304"),
    ("log.cleaner.io.buffer.size", "65536"),
    ("offsets.load.buffer.size", "1048576"),
    ("log.index.size.max.bytes", "1048576"),
    // Deleted topics are removed soon, so that one of the same name can follow.
    ("log.segment.delete.delay.ms", "1000"),
    ("controlled.shutdown.enable", "true"),
];
