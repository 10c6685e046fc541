//! The questions that we ask, each in one version of the protocol, and the shapes of their answers.
//!
//! Every version here is spoken by Kafka 3.0 and later, 4.x included.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, ListOffsetsRequest, ListOffsetsResponse,
    MetadataRequest, MetadataResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest,
    OffsetFetchResponse, RequestHeader, ResponseHeader, SaslAuthenticateRequest, SaslAuthenticateResponse,
    SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

use super::limits::{Expected, LONGEST_DECODED_BYTES};
use super::shape::{self, Part};
use super::{Cause, Unread};

/// How we call ourselves.
const CLIENT_ID: &str = "separation-operator";

/// Where a frame carries the id that its answer repeats: after its length, its key and its version.
const CORRELATION_AT: usize = 8;

/// A question with its one version and the shape of its answer.
pub(super) trait Question: Encodable + HeaderVersion + Expected + Sync {
    type Answer: Decodable + HeaderVersion + Send;
    const KEY: ApiKey;
    const VERSION: i16;
    const SHAPE: &'static [Part];
}

macro_rules! questions {
    ($($question:ty => $answer:ty, $key:ident $version:literal, [$($part:expr),* $(,)?];)*) => {
        use Part::{Bytes as Blob, Compact, CompactList, Fixed, List, Tags, Text};

        $(impl Question for $question {
            type Answer = $answer;
            const KEY: ApiKey = ApiKey::$key;
            const VERSION: i16 = $version;
            const SHAPE: &'static [Part] = &[$($part),*];
        })*

        /// All questions, with their versions.
        pub(super) const ALL: &[(ApiKey, i16)] = &[$((ApiKey::$key, $version)),*];
    };
}

questions! {
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
    // The last version with a retention time; see `groups::RETAINED_FOR`.
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

/// A question as it travels, with its length, and no id yet.
pub(super) fn encode<Q: Question>(question: &Q) -> Result<BytesMut, Unread> {
    let refused = |error| Unread::new(format!("{:?} cannot be asked: {error:#}", Q::KEY));
    let header = RequestHeader::default()
        .with_request_api_key(Q::KEY as i16)
        .with_request_api_version(Q::VERSION)
        .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)));
    let mut frame = BytesMut::new();
    frame.put_u32(0);
    header
        .encode(&mut frame, Q::header_version(Q::VERSION))
        .map_err(refused)?;
    question.encode(&mut frame, Q::VERSION).map_err(refused)?;
    let length = u32::try_from(frame.len() - 4)
        .map_err(|_| Unread::new(format!("{:?} is too long to be asked", Q::KEY)))?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// Gives a frame its id.
pub(super) fn number(frame: &mut BytesMut, correlation: i32) {
    frame[CORRELATION_AT..CORRELATION_AT + 4].copy_from_slice(&correlation.to_be_bytes());
}

/// The id that an answer repeats.
pub(super) fn correlation(answer: &[u8]) -> Option<i32> {
    answer.first_chunk().map(|id| i32::from_be_bytes(*id))
}

/// Reads an answer, without its length.
pub(super) fn decode<Q: Question>(answer: Bytes) -> Result<Q::Answer, Unread> {
    let nonsense = || Unread::new(format!("malformed response to {:?}", Q::KEY));
    let header_version = Q::Answer::header_version(Q::VERSION);
    let header: &[Part] = if header_version > 0 {
        &[Fixed(4), Tags]
    } else {
        &[Fixed(4)]
    };
    let parts: Vec<Part> = header.iter().chain(Q::SHAPE).copied().collect();
    if shape::decoded_bytes(&parts, &answer).ok_or_else(nonsense)? > LONGEST_DECODED_BYTES {
        return Err(Unread::new(format!("the answer to {:?} is too large", Q::KEY)));
    }
    let mut rest = answer;
    ResponseHeader::decode(&mut rest, header_version).map_err(|_| nonsense())?;
    let decoded = Q::Answer::decode(&mut rest, Q::VERSION).map_err(|_| nonsense())?;
    if rest.has_remaining() {
        Err(nonsense())
    } else {
        Ok(decoded)
    }
}

/// A text for a message.
pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// What kind of failure an error code is.
pub(super) fn cause(code: i16) -> Cause {
    match ResponseError::try_from_code(code) {
        Some(
            ResponseError::TopicAuthorizationFailed
            | ResponseError::GroupAuthorizationFailed
            | ResponseError::ClusterAuthorizationFailed
            | ResponseError::SaslAuthenticationFailed
            | ResponseError::UnsupportedSaslMechanism
            | ResponseError::IllegalSaslState,
        ) => Cause::Refused,
        Some(
            ResponseError::LeaderNotAvailable
            | ResponseError::NotLeaderOrFollower
            | ResponseError::RequestTimedOut
            | ResponseError::BrokerNotAvailable
            | ResponseError::OffsetNotAvailable
            | ResponseError::CoordinatorLoadInProgress
            | ResponseError::CoordinatorNotAvailable
            | ResponseError::NotCoordinator,
        ) => Cause::Unreachable,
        _ => Cause::Other,
    }
}

/// An error code in words.
pub(super) fn meaning(code: i16) -> String {
    let Some(error) = ResponseError::try_from_code(code) else {
        return "no error".to_owned();
    };
    match error {
        ResponseError::UnknownTopicOrPartition => "the broker knows no such topic or partition".to_owned(),
        ResponseError::LeaderNotAvailable => "nobody leads the partition now".to_owned(),
        ResponseError::NotLeaderOrFollower => "the broker does not lead the partition any more".to_owned(),
        ResponseError::OffsetNotAvailable => "the new leader does not know the end yet".to_owned(),
        ResponseError::CoordinatorLoadInProgress => "the coordinator is still reading its groups".to_owned(),
        ResponseError::CoordinatorNotAvailable => "the group has no coordinator now".to_owned(),
        ResponseError::NotCoordinator => "the broker is not the group's coordinator any more".to_owned(),
        ResponseError::TopicAuthorizationFailed => {
            "not allowed; fix: allow this user to describe the topic".to_owned()
        }
        ResponseError::GroupAuthorizationFailed => {
            "not allowed; fix: allow this user to describe and read the group".to_owned()
        }
        ResponseError::ClusterAuthorizationFailed => {
            "not allowed; fix: allow this user to describe the cluster".to_owned()
        }
        error => format!("Kafka says {error} ({code})"),
    }
}
