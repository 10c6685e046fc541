//! Connection faults on request.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use separation_testbed::{Kafka, KafkaOptions, TcpProxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const TIMEOUT: Duration = Duration::from_secs(20);
const DELAY: Duration = Duration::from_millis(300);

/// A server that echoes its input.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reads, mut writes) = stream.split();
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
            });
        }
    });
    address
}

async fn echoes(stream: &mut TcpStream, text: &[u8]) -> bool {
    let mut back = vec![0; text.len()];
    stream.write_all(text).await.is_ok() && stream.read_exact(&mut back).await.is_ok() && back == text
}

#[tokio::test]
async fn connections_are_forwarded_cut_and_refused() {
    let proxy = TcpProxy::start(echo().await).await.unwrap();
    let mut first = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(echoes(&mut first, b"one").await);
    proxy.cut();
    assert!(!echoes(&mut first, b"two").await);
    let mut second = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(echoes(&mut second, b"three").await);
    proxy.refuse();
    assert!(!echoes(&mut second, b"four").await);
    eventually("refusal", TIMEOUT, async || {
        TcpStream::connect(proxy.address()).await.is_err()
    })
    .await;
    proxy.forward();
    let mut third = eventually("connection", TIMEOUT, async || {
        TcpStream::connect(proxy.address()).await.ok()
    })
    .await;
    assert!(echoes(&mut third, b"five").await);
    assert_eq!(proxy.connections(), 3);
    drop(proxy);
    assert!(!echoes(&mut third, b"six").await);
}

#[tokio::test]
async fn bytes_are_delayed_stalled_and_cut_off_midway() {
    let proxy = TcpProxy::start(echo().await).await.unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    proxy.delay(DELAY);
    let start = Instant::now();
    assert!(echoes(&mut stream, b"slow").await);
    assert!(start.elapsed() >= 2 * DELAY);
    proxy.stall();
    stream.write_all(b"late").await.unwrap();
    let mut back = [0; 4];
    assert!(
        tokio::time::timeout(DELAY, stream.read_exact(&mut back))
            .await
            .is_err()
    );
    proxy.forward();
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"late");
    proxy.cut_after(6);
    assert!(echoes(&mut stream, b"1234").await);
    assert!(!echoes(&mut stream, b"5678").await);
    let mut reconnected = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(echoes(&mut reconnected, b"complete").await);
}

#[tokio::test]
async fn clients_of_kafka_can_be_disconnected_while_the_testbed_stays_connected() {
    let kafka = Kafka::start(KafkaOptions {
        proxied: true,
        ..KafkaOptions::default()
    })
    .await
    .unwrap();
    kafka.create_topic("cut", 1).await.unwrap();
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("message.timeout.ms", "1500")
        .set("log_level", "0")
        .create()
        .unwrap();
    let sends = async |text: &str| {
        producer
            .send(FutureRecord::to("cut").key("k").payload(text), TIMEOUT)
            .await
            .is_ok()
    };
    assert!(sends("through the proxy").await);
    kafka.proxy(0).refuse();
    assert!(!sends("nowhere").await);
    assert_eq!(kafka.consume_all("cut").await.unwrap().len(), 1);
    kafka.proxy(0).forward();
    eventually("a working connection", TIMEOUT, async || sends("again").await).await;
    kafka.pause_broker(0).unwrap();
    assert!(!sends("into a frozen broker").await);
    kafka.resume_broker(0).unwrap();
    eventually("an answer", TIMEOUT, async || sends("thawed").await).await;
}
