//! The requests that the operator sends, each in one version of the protocol, and the shapes of their responses.
//!
//! Kafka 3.0 and later, including 4.x, support every version used here.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, ListOffsetsRequest, ListOffsetsResponse,
    MetadataRequest, MetadataResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest,
    OffsetFetchResponse, RequestHeader, ResponseHeader, SaslAuthenticateRequest, SaslAuthenticateResponse,
    SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

use super::ReadError;
use super::limits::{MAX_DECODED_BYTES, ResponseLimit};
use super::shape::{self, Part};

/// The operator's own Kafka client id.
const CLIENT_ID: &str = "separation-operator";

/// Offset of the correlation id in a frame: after the length, the API key and the version.
const CORRELATION_ID_OFFSET: usize = 8;

/// A request with its one version and the shape of its response.
pub(super) trait Request: Encodable + HeaderVersion + ResponseLimit + Sync {
    type Response: Decodable + HeaderVersion + Send;
    const API_KEY: ApiKey;
    const VERSION: i16;
    const SHAPE: &'static [Part];
}

macro_rules! requests {
    ($($request:ty => $response:ty, $key:ident $version:literal, [$($part:expr),* $(,)?];)*) => {
        use Part::{Bytes as Blob, Compact, CompactList, Fixed, List, Tags, Text};

        $(impl Request for $request {
            type Response = $response;
            const API_KEY: ApiKey = ApiKey::$key;
            const VERSION: i16 = $version;
            const SHAPE: &'static [Part] = &[$($part),*];
        })*

        /// All requests, with their versions.
        pub(super) const REQUEST_VERSIONS: &[(ApiKey, i16)] = &[$((ApiKey::$key, $version)),*];
    };
}

requests! {
    ApiVersionsRequest => ApiVersionsResponse, ApiVersions 0, [
        // error, (key, lowest, highest)
        Fixed(2), List(&[Fixed(6)]),
    ];
    SaslHandshakeRequest => SaslHandshakeResponse, SaslHandshake 1, [
        // error, mechanisms
        Fixed(2), List(&[Text]),
    ];
    SaslAuthenticateRequest => SaslAuthenticateResponse, SaslAuthenticate 1, [
        // error, message, bytes, lifetime
        Fixed(2), Text, Blob, Fixed(8),
    ];
    MetadataRequest => MetadataResponse, Metadata 10, [
        // throttle, (node, host, port, rack), cluster, controller
        Fixed(4), CompactList(&[Fixed(4), Compact, Fixed(4), Compact, Tags]), Compact, Fixed(4),
        CompactList(&[
            // error, name, id, internal
            Fixed(2), Compact, Fixed(16), Fixed(1),
            CompactList(&[
                // error, partition, leader, epoch; replicas, those in sync, those offline
                Fixed(2 + 4 + 4 + 4), CompactList(&[Fixed(4)]), CompactList(&[Fixed(4)]), CompactList(&[Fixed(4)]),
                Tags,
            ]),
            // operations
            Fixed(4), Tags,
        ]),
        // operations
        Fixed(4), Tags,
    ];
    ListOffsetsRequest => ListOffsetsResponse, ListOffsets 6, [
        // throttle, (name, (partition, error, time, offset, epoch))
        Fixed(4), CompactList(&[Compact, CompactList(&[Fixed(4 + 2 + 8 + 8 + 4), Tags]), Tags]), Tags,
    ];
    FindCoordinatorRequest => FindCoordinatorResponse, FindCoordinator 4, [
        // throttle, (key, node, host, port, error, message)
        Fixed(4), CompactList(&[Compact, Fixed(4), Compact, Fixed(4 + 2), Compact, Tags]), Tags,
    ];
    OffsetFetchRequest => OffsetFetchResponse, OffsetFetch 8, [
        // throttle, (group, (topic, (partition, offset, epoch, metadata, error)), error)
        Fixed(4),
        CompactList(&[
            Compact,
            CompactList(&[Compact, CompactList(&[Fixed(4 + 8 + 4), Compact, Fixed(2), Tags]), Tags]),
            Fixed(2), Tags,
        ]),
        Tags,
    ];
    // The last version with a retention time; see `groups::OFFSET_RETENTION`.
    OffsetCommitRequest => OffsetCommitResponse, OffsetCommit 4, [
        // throttle, (topic, (partition, error))
        Fixed(4), List(&[Text, List(&[Fixed(4 + 2)])]),
    ];
    DescribeGroupsRequest => DescribeGroupsResponse, DescribeGroups 5, [
        Fixed(4),
        CompactList(&[
            // error, group, state, type, protocol
            Fixed(2), Compact, Compact, Compact, Compact,
            // member, instance, client, host, subscription, assignment
            CompactList(&[Compact, Compact, Compact, Compact, Compact, Compact, Tags]),
            // operations
            Fixed(4), Tags,
        ]),
        Tags,
    ];
}

/// Encodes a request with its length prefix; the correlation id is set by [`set_correlation_id`].
pub(super) fn encode<Q: Request>(request: &Q) -> Result<BytesMut, ReadError> {
    let refused = |error| ReadError::new(format!("cannot encode a {:?} request: {error:#}", Q::API_KEY));
    let header = RequestHeader::default()
        .with_request_api_key(Q::API_KEY as i16)
        .with_request_api_version(Q::VERSION)
        .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)));
    let mut frame = BytesMut::new();
    frame.put_u32(0);
    header
        .encode(&mut frame, Q::header_version(Q::VERSION))
        .map_err(refused)?;
    request.encode(&mut frame, Q::VERSION).map_err(refused)?;
    let length = u32::try_from(frame.len() - 4)
        .map_err(|_| ReadError::new(format!("the {:?} request is too large", Q::API_KEY)))?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// Sets a frame's correlation id.
pub(super) fn set_correlation_id(frame: &mut BytesMut, correlation_id: i32) {
    frame[CORRELATION_ID_OFFSET..CORRELATION_ID_OFFSET + 4].copy_from_slice(&correlation_id.to_be_bytes());
}

/// The correlation id of a response.
pub(super) fn correlation_id(response: &[u8]) -> Option<i32> {
    response.first_chunk().map(|id| i32::from_be_bytes(*id))
}

/// Decodes a response without its length prefix.
pub(super) fn decode<Q: Request>(response: Bytes) -> Result<Q::Response, ReadError> {
    let malformed = || ReadError::new(format!("malformed response to {:?}", Q::API_KEY));
    let header_version = Q::Response::header_version(Q::VERSION);
    let header: &[Part] = if header_version > 0 {
        &[Fixed(4), Tags]
    } else {
        &[Fixed(4)]
    };
    let parts: Vec<Part> = header.iter().chain(Q::SHAPE).copied().collect();
    if shape::decoded_bytes(&parts, &response).ok_or_else(malformed)? > MAX_DECODED_BYTES {
        return Err(ReadError::new(format!(
            "the response to {:?} is too large",
            Q::API_KEY
        )));
    }
    let mut rest = response;
    ResponseHeader::decode(&mut rest, header_version).map_err(|_| malformed())?;
    let decoded = Q::Response::decode(&mut rest, Q::VERSION).map_err(|_| malformed())?;
    if rest.has_remaining() {
        Err(malformed())
    } else {
        Ok(decoded)
    }
}

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
