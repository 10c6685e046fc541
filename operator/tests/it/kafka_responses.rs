//! Single responses that must not be taken at face value, from a scripted broker.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use separation_contract::kafka::OffsetReset;
use separation_operator::decide::Lag;
use separation_operator::kafka::TopicIdentity;
use separation_operator::observe::{Adoption, OffsetAnomaly, Query};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::reading::{Reading, known};

const TOPIC: &str = "tasks";
const GROUPS: [&str; 2] = ["one", "two"];
const CLUSTER_ID: &str = "scripted";

/// The next responses about the only partition; the last one is repeated.
#[derive(Debug, Clone)]
struct Responses {
    ends: VecDeque<i64>,
    committed: VecDeque<Option<i64>>,
}

/// A cluster of one broker with one topic of one partition, whose first message is 0. It listens until it is dropped.
struct ScriptedCluster {
    address: SocketAddr,
    listening: JoinHandle<()>,
}

impl ScriptedCluster {
    async fn start(ends: &[i64], committed: &[Option<i64>]) -> Self {
        let responses = Arc::new(Mutex::new(Responses {
            ends: ends.iter().copied().collect(),
            committed: committed.iter().copied().collect(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, address.port(), Arc::clone(&responses)));
            }
        });
        Self { address, listening }
    }

    fn reading(&self) -> Reading {
        Reading::of(&self.address.to_string())
    }
}

impl Drop for ScriptedCluster {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Ends when the client disconnects.
async fn serve(mut stream: TcpStream, port: u16, responses: Arc<Mutex<Responses>>) -> Option<()> {
    loop {
        let length = stream.read_u32().await.ok()?;
        let mut request = vec![0; usize::try_from(length).ok()?];
        stream.read_exact(&mut request).await.ok()?;
        let key = i16::from_be_bytes(*request.first_chunk::<2>()?);
        let correlation = request.get(4..8)?;
        let body = match key {
            2 => list_offsets(&request, &responses),
            3 => metadata(port),
            9 => offset_fetch(&responses),
            10 => find_coordinator(port),
            18 => api_versions(),
            _ => return None,
        };
        // Response headers of the flexible format have tagged fields: none here.
        let tags: &[u8] = if key == 18 { &[] } else { &[0] };
        let response = [correlation, tags, &body].concat();
        let length = u32::try_from(response.len()).ok()?;
        stream.write_all(&length.to_be_bytes()).await.ok()?;
        stream.write_all(&response).await.ok()?;
    }
}

/// The next response; the last one is repeated.
fn next<T: Copy>(responses: &mut VecDeque<T>) -> T {
    let first = responses[0];
    if responses.len() > 1 {
        responses.pop_front();
    }
    first
}

/// The flexible format: lengths and counts are encoded as N + 1, and each item ends with the count of its tags.
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn with(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn text(self, text: &str) -> Self {
        let length = u8::try_from(text.len() + 1).expect("a short text");
        self.with(&[length]).with(text.as_bytes())
    }

    fn list(self, count: usize) -> Self {
        self.with(&[u8::try_from(count + 1).expect("a short list")])
    }
}

fn api_versions() -> Vec<u8> {
    // No error, and 60 keys from version 0 to 20.
    let each = (0..60).flat_map(|key| [0, key, 0, 0, 0, 20]);
    [0, 0, 0, 0, 0, 60].into_iter().chain(each).collect()
}

fn metadata(port: u16) -> Vec<u8> {
    let body = Body::default()
        .with(&[0; 4])
        .list(1)
        // Broker 1, its port, no rack.
        .with(&1_i32.to_be_bytes())
        .text("127.0.0.1")
        .with(&i32::from(port).to_be_bytes())
        .with(&[0, 0])
        .text(CLUSTER_ID)
        .with(&1_i32.to_be_bytes())
        .list(1)
        // No error, name, id, not internal.
        .with(&[0, 0])
        .text(TOPIC)
        .with(&[7; 16])
        .with(&[0])
        .list(1)
        // No error, partition 0, leader 1, epoch; replicas, those in sync, those offline.
        .with(&[0, 0])
        .with(&0_i32.to_be_bytes())
        .with(&1_i32.to_be_bytes())
        .with(&[0; 4])
        .list(0)
        .list(0)
        .list(0)
        .with(&[0]);
    // Operations and tags of the topic, and of the cluster.
    body.with(&[0; 4]).with(&[0]).with(&[0; 4]).with(&[0]).0
}

fn list_offsets(request: &[u8], responses: &Mutex<Responses>) -> Vec<u8> {
    // Time -2 asks for the first offset, -1 for the next.
    let asks_for_start = request
        .windows(8)
        .any(|bytes| bytes == (-2_i64).to_be_bytes().as_slice());
    let offset = if asks_for_start {
        0
    } else {
        next(&mut responses.lock().expect("nothing panics").ends)
    };
    Body::default()
        .with(&[0; 4])
        .list(1)
        .text(TOPIC)
        .list(1)
        // Partition, no error, time, offset, epoch.
        .with(&[0; 4 + 2 + 8])
        .with(&offset.to_be_bytes())
        .with(&[0; 4])
        .with(&[0, 0, 0])
        .0
}

fn find_coordinator(port: u16) -> Vec<u8> {
    let mut body = Body::default().with(&[0; 4]).list(GROUPS.len());
    for group in GROUPS {
        body = body
            .text(group)
            .with(&1_i32.to_be_bytes())
            .text("127.0.0.1")
            .with(&i32::from(port).to_be_bytes())
            // No error, no message.
            .with(&[0, 0, 0, 0]);
    }
    body.with(&[0]).0
}

fn offset_fetch(responses: &Mutex<Responses>) -> Vec<u8> {
    let committed = next(&mut responses.lock().expect("nothing panics").committed);
    let mut body = Body::default().with(&[0; 4]).list(GROUPS.len());
    for group in GROUPS {
        body = body
            .text(group)
            .list(1)
            .text(TOPIC)
            .list(1)
            .with(&0_i32.to_be_bytes())
            .with(&committed.unwrap_or(-1).to_be_bytes())
            .with(&(-1_i32).to_be_bytes())
            // No metadata, no error, tags of partition and topic; no error and tags of the group.
            .with(&[0, 0, 0, 0, 0, 0, 0, 0]);
    }
    body.with(&[0]).0
}

fn query(group: &str) -> Query {
    Query {
        topic: TOPIC.into(),
        group: group.into(),
        adoption: Adoption::pending(OffsetReset::Earliest),
    }
}

/// As [`query`], for a group whose offsets were initialized, by this process or another one.
fn initialized(group: &str) -> Query {
    let topic = TopicIdentity {
        cluster_id: Some(CLUSTER_ID.into()),
        // Sixteen bytes of 7, as base64.
        topic_id: Some("BwcHBwcHBwcHBwcHBwcHBw".into()),
    };
    Query {
        adoption: Adoption {
            initialized_for: Some(topic),
            policy: OffsetReset::Earliest,
        },
        ..query(group)
    }
}

#[tokio::test]
async fn a_commit_after_the_end_was_read_is_not_beyond_the_end() {
    let cluster = ScriptedCluster::start(&[10, 12], &[Some(12)]).await;
    let found = cluster.reading().read(&initialized("one")).await;
    assert_eq!(found.lag.lag, known([0]));
    assert_eq!(found.lag.anomalies, []);

    let cluster = ScriptedCluster::start(&[10, 11], &[Some(12)]).await;
    let found = cluster.reading().read(&initialized("one")).await;
    assert_eq!(found.lag.lag, known([11]));
    let beyond = OffsetAnomaly::BeyondEnd {
        partition: 0,
        committed: 12,
        end: 11,
    };
    assert_eq!(found.lag.anomalies, [beyond]);
}

#[tokio::test]
async fn missing_offsets_are_believed_after_a_grace_period_of_ten_seconds() {
    let cluster = ScriptedCluster::start(&[10], &[None, Some(7)]).await;
    let mut reading = cluster.reading();
    let query = initialized("one");
    let lag = reading.read_once(&query).await.lag.lag;
    assert!(matches!(lag, Lag::Unknown { .. }), "{lag:?}");
    assert_eq!(reading.read_once(&query).await.lag.lag, known([3]));

    let cluster = ScriptedCluster::start(&[10], &[None]).await;
    let mut reading = cluster.reading();
    for _ in 0..5 {
        let lag = reading.read_once(&query).await.lag.lag;
        assert!(matches!(lag, Lag::Unknown { .. }), "{lag:?}");
    }
    assert_eq!(reading.read_once(&query).await.lag.lag, known([10]));
}

#[tokio::test]
async fn known_offsets_of_a_group_outlive_rounds_that_do_not_read_it() {
    let committed = [Some(7), Some(7), None];
    let cluster = ScriptedCluster::start(&[10, 10, 11], &committed).await;
    let mut reading = cluster.reading();
    assert_eq!(reading.read_once(&query("one")).await.lag.lag, known([3]));
    // A role with a shorter interval.
    assert_eq!(reading.read_once(&query("two")).await.lag.lag, known([3]));
    let lag = reading.read_once(&query("one")).await.lag.lag;
    assert!(matches!(lag, Lag::Unknown { .. }), "{lag:?}");
}
