//! Requests for tokens (OAUTHBEARER) in a network whose hosts are reached only through a proxy.

use std::time::Duration;

use separation_contract::environment as env;
use separation_testbed::{TokenServer, WorkerOptions};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;

const REQUEST_LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn tokens_are_requested_through_the_proxy_of_the_environment() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy_url = format!("http://{}", proxy.local_addr().unwrap());
    let certificates = TokenServer::start().await.unwrap();
    let _command = WorkerOptions::new(env!("CARGO_BIN_EXE_separation-worker"), "dead-letters")
        .arg("list")
        .env(env::KAFKA_SASL_MECHANISM, "OAUTHBEARER")
        .env(env::KAFKA_OAUTH_TOKEN_ENDPOINT, "https://login.example/token")
        .env(env::KAFKA_OAUTH_CA_LOCATION, certificates.ca_file())
        .env(env::KAFKA_OAUTH_CLIENT_ID, "songs")
        .env(env::KAFKA_OAUTH_CLIENT_SECRET, "x")
        .env("HTTPS_PROXY", proxy_url)
        .env("NO_PROXY", "")
        .start()
        .unwrap();
    let accepted = tokio::time::timeout(REQUEST_LIMIT, proxy.accept()).await;
    let (stream, _) = accepted.expect("a request").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.unwrap();
    assert_eq!(line, "CONNECT login.example:443 HTTP/1.1\r\n");
}
