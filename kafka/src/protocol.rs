//! The requests of this client, each in a range of versions of the protocol, and the shapes of their responses.
//!
//! Each connection uses the highest version that both sides support. Kafka 1.0 and later, including 4.x, and Redpanda
//! support one of the versions of each request, except ConsumerGroupDescribe, which came with Kafka 3.7.

use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse, CreateTopicsRequest, CreateTopicsResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, FindCoordinatorRequest, FindCoordinatorResponse, ListOffsetsRequest,
    ListOffsetsResponse, MetadataRequest, MetadataResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetFetchRequest, OffsetFetchResponse, RequestHeader, ResponseHeader, SaslAuthenticateRequest,
    SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes, VersionRange};

use crate::limits::{MAX_DECODED_BYTES, ResponseLimit};
use crate::shape::{self, Format, Part};
use crate::{ReadError, ReadErrorKind, batches};

/// Offset of the correlation id in a frame: after the length, the API key and the version.
const CORRELATION_ID_OFFSET: usize = 8;

/// The first version of the request header with tags: that of requests in flexible versions.
const FIRST_FLEXIBLE_HEADER: i16 = 2;

/// A request with its versions and the shape of its response.
pub(crate) trait Request: Encodable + HeaderVersion + ResponseLimit + Sync {
    type Response: Decodable + HeaderVersion + Send;
    const API_KEY: ApiKey;
    /// The versions that this client supports.
    const VERSIONS: VersionRange;
    const SHAPE: &'static [Part];
    /// How a request about several groups is sent in versions in which a request names one group.
    const BATCH: Option<Batch<Self>> = None;
}

/// A request about several groups, and its equivalent in earlier versions.
pub(crate) struct Batch<Q: Request> {
    /// The first version whose requests name several groups.
    since: i16,
    split: fn(&Q) -> Vec<Q>,
    /// Its responses are in the order of the split requests.
    join: fn(&Q, Vec<Q::Response>) -> Q::Response,
}

macro_rules! requests {
    ($(
        $request:ty => $response:ty, $key:ident $lowest:literal to $highest:literal, [$($part:expr),* $(,)?]
        $(, groups since $since:literal, else $split:path, $join:path)?;
    )*) => {
        use Part::{Before, Bytes as Blob, Fixed, List, Since, Tags, Text};

        $(impl Request for $request {
            type Response = $response;
            const API_KEY: ApiKey = ApiKey::$key;
            const VERSIONS: VersionRange = VersionRange {
                min: $lowest,
                max: $highest,
            };
            const SHAPE: &'static [Part] = &[$($part),*];
            $(const BATCH: Option<Batch<Self>> = Some(Batch {
                since: $since,
                split: $split,
                join: $join,
            });)?
        })*
    };
}

requests! {
    // All brokers support version 0, also those that answer any later one with UNSUPPORTED_VERSION.
    ApiVersionsRequest => ApiVersionsResponse, ApiVersions 0 to 0, [
        // error, (key, lowest, highest)
        Fixed(2), List(&[Fixed(6)]),
    ];
    SaslHandshakeRequest => SaslHandshakeResponse, SaslHandshake 1 to 1, [
        // error, mechanisms
        Fixed(2), List(&[Text]),
    ];
    SaslAuthenticateRequest => SaslAuthenticateResponse, SaslAuthenticate 0 to 1, [
        // error, message, bytes, lifetime
        Fixed(2), Text, Blob, Since(1, &[Fixed(8)]),
    ];
    MetadataRequest => MetadataResponse, Metadata 4 to 10, [
        // throttle, (node, host, port, rack), cluster, controller
        Fixed(4), List(&[Fixed(4), Text, Fixed(4), Text, Tags]), Text, Fixed(4),
        List(&[
            // error, name, id, internal
            Fixed(2), Text, Since(10, &[Fixed(16)]), Fixed(1),
            List(&[
                // error, partition, leader, epoch; replicas, those in sync, those offline
                Fixed(2 + 4 + 4), Since(7, &[Fixed(4)]), List(&[Fixed(4)]), List(&[Fixed(4)]),
                Since(5, &[List(&[Fixed(4)])]), Tags,
            ]),
            // operations
            Since(8, &[Fixed(4)]), Tags,
        ]),
        // operations
        Since(8, &[Fixed(4)]), Tags,
    ];
    // The first version in which the broker chooses the replication factor.
    CreateTopicsRequest => CreateTopicsResponse, CreateTopics 4 to 4, [
        // throttle, (name, error, message)
        Fixed(4), List(&[Text, Fixed(2), Text]),
    ];
    ListOffsetsRequest => ListOffsetsResponse, ListOffsets 2 to 6, [
        // throttle, (name, (partition, error, time, offset, epoch))
        Fixed(4), List(&[Text, List(&[Fixed(4 + 2 + 8 + 8), Since(4, &[Fixed(4)]), Tags]), Tags]), Tags,
    ];
    FindCoordinatorRequest => FindCoordinatorResponse, FindCoordinator 1 to 4, [
        // throttle; error, message, node, host, port
        Fixed(4), Before(4, &[Fixed(2), Text, Fixed(4), Text, Fixed(4)]),
        // (key, node, host, port, error, message)
        Since(4, &[List(&[Text, Fixed(4), Text, Fixed(4 + 2), Text, Tags])]), Tags,
    ], groups since 4, else batches::split_lookup, batches::join_lookups;
    OffsetFetchRequest => OffsetFetchResponse, OffsetFetch 3 to 8, [
        // throttle; (topic, (partition, offset, epoch, metadata, error)), error
        Fixed(4),
        Before(8, &[
            List(&[Text, List(&[Fixed(4 + 8), Since(5, &[Fixed(4)]), Text, Fixed(2), Tags]), Tags]), Fixed(2),
        ]),
        // (group, (topic, (partition, offset, epoch, metadata, error)), error)
        Since(8, &[List(&[
            Text, List(&[Text, List(&[Fixed(4 + 8 + 4), Text, Fixed(2), Tags]), Tags]), Fixed(2), Tags,
        ])]),
        Tags,
    ], groups since 8, else batches::split_fetch, batches::join_fetches;
    // The last versions with a retention time; see `groups::OFFSET_RETENTION`.
    OffsetCommitRequest => OffsetCommitResponse, OffsetCommit 3 to 4, [
        // throttle, (topic, (partition, error))
        Fixed(4), List(&[Text, List(&[Fixed(4 + 2)])]),
    ];
    DescribeGroupsRequest => DescribeGroupsResponse, DescribeGroups 1 to 5, [
        Fixed(4),
        List(&[
            // error, group, state, type, protocol
            Fixed(2), Text, Text, Text, Text,
            // member, instance, client, host, subscription, assignment
            List(&[Text, Since(4, &[Text]), Text, Text, Blob, Blob, Tags]),
            // operations
            Since(3, &[Fixed(4)]), Tags,
        ]),
        Tags,
    ];
    ConsumerGroupDescribeRequest => ConsumerGroupDescribeResponse, ConsumerGroupDescribe 0 to 1, [
        Fixed(4),
        List(&[
            // error, message, group, state, epoch, epoch of the assignment, assignor
            Fixed(2), Text, Text, Text, Fixed(4 + 4), Text,
            List(&[
                // member, instance, rack, epoch, client, host, (topic), pattern of topics
                Text, Text, Text, Fixed(4), Text, Text, List(&[Text]), Text,
                // current and target assignment: (topic id, topic, (partition))
                List(&[Fixed(16), Text, List(&[Fixed(4)]), Tags]), Tags,
                List(&[Fixed(16), Text, List(&[Fixed(4)]), Tags]), Tags,
                // type
                Since(1, &[Fixed(1)]), Tags,
            ]),
            // operations
            Fixed(4), Tags,
        ]),
        Tags,
    ];
}

/// Encodes requests in versions that a broker supports.
#[derive(Debug, Clone)]
pub(crate) struct Encoder {
    client_id: StrBytes,
    supported: Arc<[ApiVersion]>,
}

impl Encoder {
    /// For a broker that has not yet reported its versions: it gets only version 0 of that request.
    pub(crate) fn new(client_id: StrBytes) -> Self {
        Self {
            client_id,
            supported: [ApiVersion::default().with_api_key(ApiKey::ApiVersions as i16)].into(),
        }
    }

    /// The same for a broker that supports these versions.
    pub(crate) fn with_versions(self, supported: &[ApiVersion]) -> Self {
        Self {
            supported: supported.into(),
            ..self
        }
    }

    /// Encodes a request in the highest version that both sides support, and returns that version. It is one frame, or
    /// one for each group if requests of this version name one group. Each has the size limit of its response.
    ///
    /// # Errors
    /// When the versions of both sides do not overlap.
    pub(crate) fn encode<Q: Request>(&self, request: &Q) -> Result<(i16, Vec<(BytesMut, usize)>), ReadError> {
        let version = choose_version::<Q>(&self.supported)?;
        let frames = match Q::BATCH {
            Some(batch) if version < batch.since => (batch.split)(request)
                .iter()
                .map(|part| self.encode_frame(part, version))
                .collect::<Result<Vec<_>, _>>()?,
            _ => vec![self.encode_frame(request, version)?],
        };
        Ok((version, frames))
    }

    /// Encodes a frame with its length prefix; the correlation id is set by [`set_correlation_id`].
    fn encode_frame<Q: Request>(&self, request: &Q, version: i16) -> Result<(BytesMut, usize), ReadError> {
        let refused = |error| ReadError::new(format!("cannot encode a {:?} request: {error:#}", Q::API_KEY));
        let header = RequestHeader::default()
            .with_request_api_key(Q::API_KEY as i16)
            .with_request_api_version(version)
            .with_client_id(Some(self.client_id.clone()));
        let mut frame = BytesMut::new();
        frame.put_u32(0);
        header
            .encode(&mut frame, Q::header_version(version))
            .map_err(refused)?;
        request.encode(&mut frame, version).map_err(refused)?;
        let length = u32::try_from(frame.len() - 4)
            .map_err(|_| ReadError::new(format!("the {:?} request is too large", Q::API_KEY)))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        Ok((frame, request.max_response_bytes()))
    }
}

/// The highest version of a request that both sides support.
fn choose_version<Q: Request>(supported: &[ApiVersion]) -> Result<i16, ReadError> {
    let (request, ours) = (Q::API_KEY, Q::VERSIONS);
    let Some(theirs) = supported.iter().find(|theirs| theirs.api_key == request as i16) else {
        let why = format!("the broker does not support {request:?}; fix: use Kafka 3.0 or later");
        return Err(ReadError::with_kind(why, ReadErrorKind::Unsupported));
    };
    let (lowest, highest) = (theirs.min_version, theirs.max_version);
    let version = highest.min(ours.max);
    if version >= lowest.max(ours.min) {
        return Ok(version);
    }
    let fix = if highest < ours.min {
        "use Kafka 3.0 or later"
    } else {
        "use a later version of this program"
    };
    let why = format!(
        "the broker supports {request:?} in versions {lowest} to {highest}, and this program in {} to {}; fix: {fix}",
        ours.min, ours.max
    );
    Err(ReadError::with_kind(why, ReadErrorKind::NoCommonVersion))
}

/// Sets a frame's correlation id.
pub(crate) fn set_correlation_id(frame: &mut BytesMut, correlation_id: i32) {
    frame[CORRELATION_ID_OFFSET..CORRELATION_ID_OFFSET + 4].copy_from_slice(&correlation_id.to_be_bytes());
}

/// The correlation id of a response.
pub(crate) fn correlation_id(response: &[u8]) -> Option<i32> {
    response.first_chunk().map(|id| i32::from_be_bytes(*id))
}

/// Decodes the responses to the frames of a request, without their length prefixes.
pub(crate) fn decode<Q: Request>(
    request: &Q,
    version: i16,
    responses: Vec<Bytes>,
) -> Result<Q::Response, ReadError> {
    let mut bytes_left = MAX_DECODED_BYTES;
    let mut decoded = Vec::with_capacity(responses.len());
    for response in responses {
        decoded.push(decode_frame::<Q>(version, response, &mut bytes_left)?);
    }
    match Q::BATCH {
        Some(batch) if version < batch.since => Ok((batch.join)(request, decoded)),
        _ => decoded.pop().ok_or_else(malformed::<Q>),
    }
}

/// Decodes one response, which may take `bytes_left` when decoded.
fn decode_frame<Q: Request>(
    version: i16,
    response: Bytes,
    bytes_left: &mut usize,
) -> Result<Q::Response, ReadError> {
    let parts: Vec<Part> = [Fixed(4), Tags].iter().chain(Q::SHAPE).copied().collect();
    let format = Format {
        version,
        is_flexible: Q::header_version(version) >= FIRST_FLEXIBLE_HEADER,
    };
    let decoded_bytes = shape::decoded_bytes(&parts, format, &response).ok_or_else(malformed::<Q>)?;
    *bytes_left = bytes_left
        .checked_sub(decoded_bytes)
        .ok_or_else(|| ReadError::malformed(format!("the response to {:?} is too large", Q::API_KEY)))?;
    let mut rest = response;
    let header_version = Q::Response::header_version(version);
    ResponseHeader::decode(&mut rest, header_version).map_err(|_| malformed::<Q>())?;
    let decoded = Q::Response::decode(&mut rest, version).map_err(|_| malformed::<Q>())?;
    if rest.has_remaining() {
        Err(malformed::<Q>())
    } else {
        Ok(decoded)
    }
}

fn malformed<Q: Request>() -> ReadError {
    ReadError::malformed(format!("malformed response to {:?}", Q::API_KEY))
}

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
