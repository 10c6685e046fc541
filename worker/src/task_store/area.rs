//! The area of v1 in the bucket of finished stems: object keys, and objects with JSON.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use separation_contract::message::TaskId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::ErrorClass;
use crate::settings::{ObjectAddress, S3Settings, SettingError};
use crate::storage::{Created, S3, StorageError};

/// Prefix of the area, before that of finished stems: it stays private where those are public.
const AREA: &str = "v1/";

/// Largest object with JSON that is read. A record has a link, a file name and 2 KB of metadata; an outcome has the text
/// of an error.
const MAX_BYTES: usize = 256 * 1024;

/// Objects of one listing that are read simultaneously.
const READS_IN_FLIGHT: usize = 16;

/// Characters that are encoded in a client's name: all that have a meaning in object keys or paths.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

const JSON: Option<&str> = Some("application/json");

/// The kinds of objects: the first part of object keys below the area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Claims,
    Deliveries,
    Erased,
    Incoming,
    Open,
    Outcomes,
    Stems,
    Tasks,
    Uploads,
    Webhooks,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Claims,
        Self::Deliveries,
        Self::Erased,
        Self::Incoming,
        Self::Open,
        Self::Outcomes,
        Self::Stems,
        Self::Tasks,
        Self::Uploads,
        Self::Webhooks,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Claims => "claims",
            Self::Deliveries => "deliveries",
            Self::Erased => "erased",
            Self::Incoming => "incoming",
            Self::Open => "open",
            Self::Outcomes => "outcomes",
            Self::Stems => "stems",
            Self::Tasks => "tasks",
            Self::Uploads => "uploads",
            Self::Webhooks => "webhooks",
        }
    }

    fn is_kind(text: &str) -> bool {
        Self::ALL.into_iter().any(|kind| kind.as_str() == text)
    }
}

/// A client's name as a part of object keys: itself, if it consists of letters, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientPart(String);

impl ClientPart {
    pub(super) fn of(client: &str) -> Self {
        let encoded = utf8_percent_encode(client, ENCODED).to_string();
        // Of another area or of nothing; no encoded name begins with a lower-case letter after `%`.
        if encoded.is_empty() || Kind::is_kind(&encoded) {
            return Self(format!("%{encoded}"));
        }
        Self(encoded)
    }

    /// The part as a listing has it.
    pub(super) fn listed(part: &str) -> Self {
        Self(part.to_owned())
    }

    /// The client's name; none if it is not UTF-8.
    pub(super) fn name(&self) -> Option<String> {
        let encoded = match self.0.strip_prefix('%') {
            Some(rest) if rest.is_empty() || Kind::is_kind(rest) => rest,
            _ => self.0.as_str(),
        };
        let name = percent_decode_str(encoded).decode_utf8().ok()?;
        Some(name.into_owned())
    }
}

/// The task of an object named `{id}.json`.
pub(super) fn task_of(name: &str) -> Option<TaskId> {
    TaskId::parse(name.strip_suffix(".json")?).ok()
}

/// The objects below `v1/` and the prefix of finished stems.
#[derive(Debug, Clone)]
pub(super) struct Area {
    s3: S3,
    prefix: ObjectAddress,
}

impl Area {
    pub(super) fn new(s3: S3, settings: &S3Settings) -> Result<Self, SettingError> {
        Ok(Self {
            s3,
            prefix: ObjectAddress {
                bucket: settings.bucket()?.to_owned(),
                key: format!("{AREA}{}", settings.stems_prefix),
            },
        })
    }

    pub(super) fn s3(&self) -> &S3 {
        &self.s3
    }

    /// The address of `path` below the area, not of a kind.
    pub(super) fn root(&self, path: &str) -> ObjectAddress {
        self.prefix.join(path)
    }

    /// The address of `path` below a kind; with an empty path, the prefix of the kind.
    pub(super) fn at(&self, kind: Kind, path: &str) -> ObjectAddress {
        self.root(&format!("{}/{path}", kind.as_str()))
    }

    /// The address of the JSON of a task.
    pub(super) fn of_task(&self, kind: Kind, id: &TaskId) -> ObjectAddress {
        self.at(kind, &format!("{id}.json"))
    }

    /// The address of the object of a client's task, which `ending` completes.
    pub(super) fn of_client(
        &self,
        kind: Kind,
        client: &ClientPart,
        id: &TaskId,
        ending: &str,
    ) -> ObjectAddress {
        self.at(kind, &format!("{}/{id}{ending}", client.0))
    }

    /// The prefix of a client's objects.
    pub(super) fn client_prefix(&self, kind: Kind, client: &ClientPart) -> ObjectAddress {
        self.at(kind, &format!("{}/", client.0))
    }

    /// The address of a listed object.
    pub(super) fn listed(&self, key: &str) -> ObjectAddress {
        ObjectAddress {
            bucket: self.prefix.bucket.clone(),
            key: key.to_owned(),
        }
    }

    /// The parts of a listed object key after the kind. None if it has another number of parts, or is that of another
    /// area whose prefix begins with the kind's: a bucket may have the areas `v1/` and `v1/stems/`.
    pub(super) fn parts<'k, const N: usize>(&self, kind: Kind, key: &'k str) -> Option<[&'k str; N]> {
        let below = key.strip_prefix(&self.at(kind, "").key)?;
        let parts: Vec<&str> = below.split('/').collect();
        let parts: [&str; N] = parts.try_into().ok()?;
        let is_of_another_area = parts.first().is_some_and(|first| Kind::is_kind(first));
        (!is_of_another_area).then_some(parts)
    }

    /// Reads the JSON of an object; none if it does not exist.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        address: &ObjectAddress,
    ) -> Result<Option<T>, StorageError> {
        let read = repeated(|| self.s3.read_small(address, MAX_BYTES)).await;
        let json = match read {
            Err(error) if error.is_missing() => return Ok(None),
            read => read?,
        };
        let malformed = |error: serde_json::Error| StorageError::Objects {
            action: "read",
            location: address.to_string(),
            problem: format!("its content is not valid: {error}"),
            code: "malformed".to_owned(),
            class: ErrorClass::Permanent,
        };
        serde_json::from_slice(&json).map(Some).map_err(malformed)
    }

    /// Reads the JSON of listed objects, in their order. Leaves out objects that were deleted meanwhile, and those that
    /// are not valid, which it logs.
    pub(super) async fn read_listed<T: DeserializeOwned>(
        &self,
        keys: Vec<String>,
    ) -> Result<Vec<(String, T)>, StorageError> {
        let reads = keys.into_iter().map(|key| self.read_valid(key));
        let read = stream::iter(reads).buffered(READS_IN_FLIGHT);
        let read: Vec<Option<(String, T)>> = read.try_collect().await?;
        Ok(read.into_iter().flatten().collect())
    }

    async fn read_valid<T: DeserializeOwned>(
        &self,
        key: String,
    ) -> Result<Option<(String, T)>, StorageError> {
        match self.read(&self.listed(&key)).await {
            Err(error) if error.class() == ErrorClass::Permanent => {
                tracing::warn!(object = key, %error, "Skipping an object that is not valid");
                Ok(None)
            }
            read => Ok(read?.map(|content| (key, content))),
        }
    }

    /// Writes an object with JSON.
    pub(super) async fn write(
        &self,
        address: &ObjectAddress,
        content: &impl Serialize,
    ) -> Result<(), StorageError> {
        self.write_bytes(address, to_json(content).into(), JSON).await
    }

    /// Writes a small object.
    pub(super) async fn write_bytes(
        &self,
        address: &ObjectAddress,
        content: Bytes,
        content_type: Option<&str>,
    ) -> Result<(), StorageError> {
        repeated(|| self.s3.write_small(address, content.clone(), content_type)).await
    }

    /// Creates an object with JSON. [`Created::New`] also if it already has this content.
    pub(super) async fn create(
        &self,
        address: &ObjectAddress,
        content: &impl Serialize,
    ) -> Result<Created, StorageError> {
        self.create_bytes(address, to_json(content).into(), JSON).await
    }

    /// Creates a small object. [`Created::New`] also if it already has this content, as after a create whose response was
    /// lost.
    pub(super) async fn create_bytes(
        &self,
        address: &ObjectAddress,
        content: Bytes,
        content_type: Option<&str>,
    ) -> Result<Created, StorageError> {
        // A repeated create finds its own object, which is compared below.
        let created = repeated(|| self.s3.create_small(address, content.clone(), content_type)).await?;
        if created == Created::New {
            return Ok(created);
        }
        match self.s3.read_small(address, MAX_BYTES).await {
            Ok(found) if found == content => Ok(Created::New),
            // It existed, and was deleted meanwhile or is another one.
            Ok(_) | Err(StorageError::Missing { .. } | StorageError::TooLarge { .. }) => Ok(Created::Exists),
            Err(error) => Err(error),
        }
    }
}

/// Sends a request that may be repeated, and once more if the first one failed for a moment: a connection that was kept
/// open was closed meanwhile, or the server failed.
async fn repeated<T, F: Future<Output = Result<T, StorageError>>>(
    mut send: impl FnMut() -> F,
) -> Result<T, StorageError> {
    match send().await {
        Err(error) if is_broken_connection(&error) || error.class() == ErrorClass::Transient => send().await,
        done => done,
    }
}

/// Whether a request got no response, or only a part of one.
fn is_broken_connection(error: &StorageError) -> bool {
    matches!(error, StorageError::Objects { code, .. } if code == "unreachable" || code == "response")
}

fn to_json(content: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(content).expect("texts, numbers and maps with texts as keys always serialize")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_name_is_one_part_of_an_object_key_and_never_that_of_another_client() {
        for (name, part) in [
            ("acme-2", "acme-2"),
            ("", "%"),
            ("%", "%25"),
            ("..", "%2E%2E"),
            ("a/b", "a%2Fb"),
            ("tasks", "%tasks"),
            ("%tasks", "%25tasks"),
            ("é", "%C3%A9"),
        ] {
            assert_eq!(ClientPart::of(name).0, part);
            assert_eq!(ClientPart::listed(part).name().as_deref(), Some(name));
        }
    }
}
