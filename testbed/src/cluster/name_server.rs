//! The name server of a cluster's pods, which knows the addresses of Services.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::Cluster;
use crate::background;
use crate::kubernetes::Client;

const PORT: u16 = 53;
/// The end of the names of Services.
const SERVICES: &str = ".svc.cluster.local";
/// Seconds for which clients may keep an address: tests create Services again.
const TTL: u32 = 1;
/// Larger than any query.
const QUERY_BYTES: usize = 4096;

/// A running name server; it ends when this is dropped.
#[derive(Debug)]
pub struct NameServer {
    serving: JoinHandle<()>,
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Cluster {
    /// Starts the name server of the pods. Without it, pods resolve no name.
    ///
    /// # Errors
    /// If it is running already.
    pub async fn start_name_server(&self) -> Result<NameServer> {
        let address = (self.node.host_address(), PORT);
        let client = self.plane.client().clone();
        background::run(async move {
            let socket = UdpSocket::bind(address).await;
            let socket = socket.with_context(|| format!("cannot listen on port {PORT} of {}", address.0))?;
            Ok(NameServer {
                serving: background::start(serve(socket, client)),
            })
        })
        .await
    }
}

async fn serve(socket: UdpSocket, client: Client) {
    let mut query = [0; QUERY_BYTES];
    loop {
        // Clients repeat a query without a response.
        let Ok((size, from)) = socket.recv_from(&mut query).await else {
            continue;
        };
        if let Ok(response) = response(&client, &query[..size]).await {
            let _ = socket.send_to(&response, from).await;
        }
    }
}

async fn response(client: &Client, query: &[u8]) -> Result<Vec<u8>> {
    let query = Packet::parse(query)?;
    let question = query.questions.first().context("a query without a question")?;
    let address = address(client, &question.qname.to_string()).await?;
    let mut response = Packet::new_reply(query.id());
    // Otherwise a client may take "no such name" for that of a server which does not resolve names for it, and ask another.
    response.set_flags(PacketFlag::AUTHORITATIVE_ANSWER | PacketFlag::RECURSION_AVAILABLE);
    match address {
        None => *response.rcode_mut() = RCODE::NameError,
        Some(address) if question.qtype == QTYPE::TYPE(TYPE::A) => {
            let name = question.qname.clone();
            let record = ResourceRecord::new(name, CLASS::IN, TTL, RData::A(address.into()));
            response.answers.push(record);
        }
        // The name exists, without such records.
        Some(_) => {}
    }
    response.questions.push(question.clone());
    Ok(response.build_bytes_vec()?)
}

/// The address of a Service; `None` if no Service has this name.
async fn address(client: &Client, name: &str) -> Result<Option<Ipv4Addr>> {
    let name = name.to_ascii_lowercase();
    let parts = name.strip_suffix(SERVICES).and_then(|name| name.split_once('.'));
    let Some((service, namespace)) = parts else {
        return Ok(None);
    };
    let path = format!("/api/v1/namespaces/{namespace}/services/{service}");
    let found = client.get(&path).await?;
    let address = found["spec"]["clusterIP"].as_str();
    Ok(address.and_then(|address| address.parse().ok()))
}
