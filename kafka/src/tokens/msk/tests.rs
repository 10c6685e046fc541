//! The expiry and the region of tokens, and the sources of credentials. Their fields are compared with those of AWS's
//! signer in `worker/tests/it/msk_tokens.rs`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::UNIX_EPOCH;

use super::*;

/// Set in the child process, which fetches a token.
const CHILD: &str = "SEPARATION_TEST_FETCHES";

/// The access key of the role that a web identity assumes.
const WEB_IDENTITY: &str = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
    <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>WEBIDENTITY</AccessKeyId><SecretAccessKey>a\
    </SecretAccessKey><SessionToken>b</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
    </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";

/// The access key of a container or pod.
const CONTAINER: &str = r#"{"AccessKeyId": "CONTAINER", "SecretAccessKey": "a", "Token": "b",
    "Expiration": "2099-01-01T00:00:00Z"}"#;

/// 2024-05-17T12:34:56Z.
fn at() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_715_949_296)
}

fn credentials(expiry: Option<SystemTime>) -> Credentials {
    Credentials::new("AKIDEXAMPLE", "a secret", None, expiry, "test")
}

#[test]
fn a_token_does_not_outlive_its_credentials() {
    let soon = at() + Duration::from_secs(60);
    let late = at() + Duration::from_secs(3_600);
    for (expiry, expires) in [
        (None, at() + LIFETIME),
        (Some(late), at() + LIFETIME),
        (Some(soon), soon),
    ] {
        let token = msk_token("eu-central-1", &credentials(expiry), at());
        assert_eq!(token.unwrap().expires, expires);
    }
}

#[test]
fn a_region_cannot_change_the_host_that_is_signed() {
    for region in ["", "example.org/", "eu-central-1.example.org#", "EU"] {
        let error = msk_token(region, &credentials(None), at()).unwrap_err();
        assert!(
            error.to_string().contains("is not an AWS region; fix: "),
            "{error}"
        );
        assert!(MskIam::new(region.to_owned()).is_err());
    }
}

/// Prints the access key that signs a token with the environment of this process, or the error.
#[tokio::test]
#[allow(clippy::print_stdout, reason = "the parent reads it")]
async fn child_that_fetches() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let result = match MskIam::new("eu-central-1".to_owned()).unwrap().fetch().await {
        Ok(token) => {
            let url = URL_SAFE_NO_PAD.decode(token.text.expose()).unwrap();
            let url = Url::parse(std::str::from_utf8(&url).unwrap()).unwrap();
            let credential = url.query_pairs().find(|(name, _)| name == "X-Amz-Credential");
            credential.unwrap().1.split('/').next().unwrap().to_owned()
        }
        Err(error) => error.to_string(),
    };
    println!("result: {result}");
}

/// The result that a child process prints.
#[track_caller]
fn result_with(environment: &[(&str, &str)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "tokens::msk::tests::child_that_fetches"])
        .env_clear()
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(environment.iter().copied())
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.split_once("result: "));
    line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
        .1
        .to_owned()
}

/// An HTTP server with the credentials of a web identity for POST, and of a container for GET.
fn credentials_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().for_each(|stream| respond(&stream.unwrap())));
    address
}

fn respond(mut stream: &TcpStream) {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    let mut body_bytes = 0;
    loop {
        let start = request.len();
        reader.read_line(&mut request).unwrap();
        let line = request[start..].trim().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(length) = line.strip_prefix("content-length:") {
            body_bytes = length.trim().parse().unwrap();
        }
    }
    reader.read_exact(&mut vec![0; body_bytes]).unwrap();
    let body = if request.starts_with("POST") {
        WEB_IDENTITY
    } else {
        CONTAINER
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .unwrap();
}

#[test]
fn workload_identity_precedes_the_keys_in_the_environment() {
    let server = format!("http://{}", credentials_server());
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "a token").unwrap();
    let keys = [
        ("AWS_ACCESS_KEY_ID", "ENVIRONMENT"),
        ("AWS_SECRET_ACCESS_KEY", "a"),
    ];
    // Nothing listens there: addresses of the node are not requested through a proxy.
    let no_proxy = ("HTTP_PROXY", "http://127.0.0.1:1");
    let container = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.as_str()), no_proxy];
    // Only the proxy can resolve the name.
    let web_identity = [
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/vocals"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
        ("AWS_ENDPOINT_URL_STS", "http://sts.example"),
        ("HTTP_PROXY", server.as_str()),
    ];
    assert_eq!(result_with(&keys), "ENVIRONMENT");
    assert_eq!(result_with(&[&keys[..], &container].concat()), "CONTAINER");
    let all = [&keys[..], &container, &web_identity].concat();
    assert_eq!(result_with(&all), "WEBIDENTITY");
}

#[test]
fn an_error_without_credentials_names_the_fix() {
    let error = result_with(&[]);
    assert!(
        error.starts_with("no AWS credentials for Amazon MSK; fix: "),
        "{error}"
    );
}
