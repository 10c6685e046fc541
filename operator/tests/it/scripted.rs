//! A scripted broker that misbehaves: it reads Kafka requests and sends invalid responses.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Its misbehavior.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    /// Speaks HTTP.
    NotKafka,
    /// Announces a response of 2 GiB.
    Oversized,
    /// Closes every connection at the first request.
    Closes,
    /// Valid handshake; its responses announce four billion items and end.
    CountsWithoutItems,
    /// Valid handshake; its responses have another request's correlation id.
    WrongCorrelationId,
    /// Supports every API up to version 3 only.
    TooOld,
    /// Valid handshake; its topic has this many partitions.
    Partitions(usize),
    /// Accepts requests and never responds.
    Silent,
}

/// The topic of [`Script::Partitions`].
pub(crate) const HUGE_TOPIC: &str = "huge";

/// Listens until it is dropped.
pub(crate) struct ScriptedBroker {
    address: SocketAddr,
    listening: JoinHandle<()>,
}

impl ScriptedBroker {
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        // Built once: building a large one takes longer than a request's timeout.
        let description: Arc<[u8]> = match script {
            Script::Partitions(count) => description(count).into(),
            _ => Arc::default(),
        };
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, script, Arc::clone(&description)));
            }
        });
        Self { address, listening }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for ScriptedBroker {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Ends when the client disconnects.
async fn serve(mut stream: TcpStream, script: Script, body: Arc<[u8]>) -> Option<()> {
    loop {
        let length = stream.read_u32().await.ok()?;
        let mut request = vec![0; usize::try_from(length).ok()?];
        stream.read_exact(&mut request).await.ok()?;
        let (key, correlation) = (request.first_chunk::<2>()?, request.get(4..8)?);
        let is_handshake = *key == [0, 18];
        let response = match script {
            Script::NotKafka => b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            Script::Oversized => vec![0x7f, 0xff, 0xff, 0xff, 0, 0],
            Script::Closes => return None,
            Script::Silent => continue,
            Script::TooOld => framed(correlation, &versions(3)),
            _ if is_handshake => framed(correlation, &versions(20)),
            // Header and throttle time, then four billion brokers.
            Script::CountsWithoutItems => framed(correlation, &[0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]),
            Script::WrongCorrelationId => framed(&[9; 4], &[0; 20]),
            Script::Partitions(_) => framed(correlation, &body),
        };
        stream.write_all(&response).await.ok()?;
    }
}

fn framed(correlation: &[u8], body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(correlation.len() + body.len()).expect("a short answer");
    [&length.to_be_bytes(), correlation, body].concat()
}

/// A response to Metadata, version 10: no broker, and one topic.
fn description(partitions: usize) -> Vec<u8> {
    // Tags of the header, throttle time, no brokers, no cluster id, controller, one topic without an error.
    let mut body = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 0, 0];
    body.push(u8::try_from(HUGE_TOPIC.len() + 1).expect("a short name"));
    body.extend(HUGE_TOPIC.as_bytes());
    body.extend([7; 16]);
    body.push(0);
    varint(partitions + 1, &mut body);
    for partition in 0..partitions {
        body.extend([0, 0]);
        body.extend(u32::try_from(partition).expect("fits").to_be_bytes());
        // Leader and epoch; no replicas of any kind; no tags.
        body.extend([0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 1, 0]);
    }
    // Operations and tags of the topic, then of the response.
    body.extend([0; 10]);
    body
}

fn varint(mut value: usize, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).expect("seven bits"));
}

/// All APIs from version 0 to `highest`.
fn versions(highest: u8) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 0, 0, 60];
    for key in 0..60 {
        body.extend([0, key, 0, 0, 0, highest]);
    }
    body
}
