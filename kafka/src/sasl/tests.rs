//! Tests with a scripted broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::advance;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::*;
use crate::handshake::Transport;
use crate::protocol::Encoder;
use crate::{FetchToken, ReadErrorKind, TokenSettings};

/// Error code `SASL_AUTHENTICATION_FAILED`.
const FAILED: i16 = 58;

/// An error code, a message, and the bytes of the mechanism.
type Response = (i16, &'static str, &'static [u8]);

/// The response to the mechanism's name.
const SUPPORTED: Response = (0, "", b"");

#[derive(Debug, Default)]
struct Counting(AtomicU32);

#[async_trait]
impl FetchToken for Counting {
    async fn fetch(&self) -> Result<Token, ReadError> {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Token {
            text: format!("token-{number}").into(),
            principal: "vocals".to_owned(),
            expires: SystemTime::now() + Duration::from_secs(3_600),
        })
    }
}

fn extensions(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    owned.collect()
}

fn with_extensions(extensions: BTreeMap<String, String>) -> Result<Authentication, ReadError> {
    let settings = TokenSettings {
        origin: TokenOrigin::External {
            name: "media/vocals".to_owned(),
        },
        extensions,
    };
    let tokens = TokenCache::new(Arc::new(Counting::default()));
    Authentication::new(&Sasl::Token(settings), Some(tokens))
}

fn handshake(stream: DuplexStream) -> Handshake {
    let transport: Box<dyn Transport> = Box::new(stream);
    let (reader, writer) = tokio::io::split(transport);
    let supported = [ApiKey::SaslHandshake, ApiKey::SaslAuthenticate].map(|key| {
        ApiVersion::default()
            .with_api_key(key as i16)
            .with_min_version(1)
            .with_max_version(1)
    });
    Handshake {
        frames: FramedRead::new(reader, LengthDelimitedCodec::new()),
        writer,
        next_correlation_id: 0,
        encoder: Encoder::new(text("test")).with_versions(&supported),
    }
}

/// Sends the responses, and returns the requests.
async fn broker(mut stream: DuplexStream, responses: &[Response]) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    for (number, (code, message, bytes)) in responses.iter().enumerate() {
        let mut request = vec![0; stream.read_u32().await.unwrap() as usize];
        stream.read_exact(&mut request).await.unwrap();
        requests.push(request);
        let mut response = u32::try_from(number).unwrap().to_be_bytes().to_vec();
        response.extend(code.to_be_bytes());
        if number == 0 {
            // A list of mechanisms.
            response.extend(0_u32.to_be_bytes());
        } else {
            response.extend(u16::try_from(message.len()).unwrap().to_be_bytes());
            response.extend(message.bytes());
            response.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
            response.extend(*bytes);
            response.extend(60_000_u64.to_be_bytes());
        }
        stream
            .write_u32(u32::try_from(response.len()).unwrap())
            .await
            .unwrap();
        stream.write_all(&response).await.unwrap();
    }
    requests
}

/// Authenticates with a broker that sends these responses after that to the mechanism's name, and returns the last
/// request.
async fn authenticate_with(
    authentication: &Authentication,
    responses: &[Response],
) -> (Result<Option<Duration>, ReadError>, String) {
    let (ours, theirs) = duplex(4_096);
    let responses = [&[SUPPORTED][..], responses].concat();
    let mut handshake = handshake(ours);
    let (authenticated, requests) = tokio::join!(
        authenticate(&mut handshake, authentication),
        broker(theirs, &responses)
    );
    let last = requests.last().unwrap();
    (authenticated, String::from_utf8_lossy(last).into_owned())
}

#[tokio::test]
async fn a_token_is_sent_with_its_extensions() {
    let extensions = extensions(&[("logicalCluster", "lkc-1"), ("poolId", "pool 1")]);
    let authentication = with_extensions(extensions).unwrap();
    let (authenticated, request) = authenticate_with(&authentication, &[(0, "", b"")]).await;
    assert_eq!(authenticated, Ok(Some(Duration::from_secs(60))));
    let expected = "n,,\u{1}auth=Bearer token-0\u{1}logicalCluster=lkc-1\u{1}poolId=pool 1\u{1}\u{1}";
    assert!(request.ends_with(expected), "{request:?}");
}

#[test]
fn a_message_without_extensions_ends_with_two_separators() {
    let token = Token {
        text: "a.b.c".to_owned().into(),
        principal: String::new(),
        expires: SystemTime::UNIX_EPOCH,
    };
    let message = client_response(&token, &BTreeMap::new());
    assert_eq!(message, Ok("n,,\u{1}auth=Bearer a.b.c\u{1}\u{1}".to_owned()));
    for text in ["", "two words", "a\u{1}b", "a\nb", "ä"] {
        let token = Token {
            text: text.to_owned().into(),
            ..token.clone()
        };
        assert!(client_response(&token, &BTreeMap::new()).is_err(), "{text:?}");
    }
}

#[test]
fn extensions_that_brokers_cannot_read_are_refused_by_name() {
    for (name, value) in [
        ("auth", "x"),
        ("", "x"),
        ("a-b", "x"),
        ("a", ""),
        ("a", "b\u{1}c=d"),
    ] {
        let error = with_extensions(extensions(&[(name, value)])).err().unwrap();
        let expected = format!("`{name}` is not a valid SASL extension; fix: ");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}

#[tokio::test]
async fn an_error_of_the_broker_is_acknowledged_and_reported() {
    let authentication = with_extensions(BTreeMap::new()).unwrap();
    let error = br#"{"status":"invalid_token"}"#;
    let (authenticated, request) =
        authenticate_with(&authentication, &[(0, "", error), (FAILED, "invalid", b"")]).await;
    // The length of the message and the message.
    assert!(request.ends_with("\0\0\0\u{1}\u{1}"), "{request:?}");
    let error = authenticated.unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::Unauthorized);
    let expected =
        r#"the broker rejected the token: {"status":"invalid_token"}; fix: let the brokers accept"#;
    assert!(error.to_string().starts_with(expected), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_fetched_again() {
    let authentication = with_extensions(BTreeMap::new()).unwrap();
    let (_, request) = authenticate_with(&authentication, &[(0, "", b"")]).await;
    assert!(request.contains("token-0"), "{request:?}");
    advance(Duration::from_secs(10)).await;
    let (rejected, _) = authenticate_with(&authentication, &[(FAILED, "unknown key", b"")]).await;
    assert!(rejected.unwrap_err().to_string().contains("unknown key"));
    let (authenticated, request) = authenticate_with(&authentication, &[(0, "", b"")]).await;
    assert!(
        authenticated.is_ok() && request.contains("token-1"),
        "{request:?}"
    );
}

#[test]
fn tokens_from_outside_need_their_source() {
    let settings = TokenSettings {
        origin: TokenOrigin::External {
            name: "media/vocals".to_owned(),
        },
        extensions: BTreeMap::new(),
    };
    let error = Authentication::new(&Sasl::Token(settings), None).err().unwrap();
    assert_eq!(
        error.to_string(),
        "the tokens of media/vocals are not fetched here"
    );
}
