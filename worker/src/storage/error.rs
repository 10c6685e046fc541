//! Why a file or an object could not be read or written.

use std::error::Error;
use std::io;
use std::path::Path;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::blame::{self, class_of_answer, class_of_file_error};
use crate::error::ErrorClass;
use crate::work::{Dependency, WorkError};

/// Why a file or an object could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// There is no such file or object.
    #[error("there is no {place}")]
    Missing {
        /// Path or address.
        place: String,
    },
    /// A path or an address that this worker may not use.
    #[error("{place} may not be used: {rule}")]
    Refused {
        /// Path or address.
        place: String,
        /// What it would have to be.
        rule: String,
    },
    /// More bytes than may be taken.
    #[error("{place} has more than {limit_bytes} bytes")]
    TooLarge {
        /// Path or address.
        place: String,
        /// The most that may be taken.
        limit_bytes: u64,
    },
    /// The stream that was to be stored broke off.
    #[error("the data to store broke off")]
    Stream(#[source] Box<dyn Error + Send + Sync>),
    /// A file could not be read or written.
    #[error("cannot {action} {place}")]
    File {
        /// The disk that it is on.
        disk: Disk,
        /// What was tried.
        action: &'static str,
        /// The path.
        place: String,
        /// Why not.
        source: io::Error,
    },
    /// The directory of songs or of stems is not there.
    #[error("there is no directory {place}")]
    NoVolume {
        /// Its path.
        place: String,
    },
    /// The object store refused, failed or was silent.
    #[error("cannot {action} {place}: {problem}")]
    Objects {
        /// What was tried.
        action: &'static str,
        /// The address.
        place: String,
        /// What the store says, or what became of the connection.
        problem: String,
        /// The code or the status of the store's answer, or `timeout` and the like where there was none.
        code: String,
        /// What that says about trying again.
        class: ErrorClass,
    },
    /// Nothing is known about the object store that an address needs.
    #[error(
        "{place} lies in an object store, and none is set up; fix: set S3_ENDPOINT_URL or AWS credentials"
    )]
    NoObjectStore {
        /// The address.
        place: String,
    },
}

impl StorageError {
    /// What this failure says about trying again.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Missing { .. }
            | Self::Refused { .. }
            | Self::TooLarge { .. }
            | Self::Stream(_)
            | Self::NoObjectStore { .. } => ErrorClass::Permanent,
            Self::File { source, .. } => class_of_file_error(source),
            Self::NoVolume { .. } => ErrorClass::Dependency,
            Self::Objects { class, .. } => *class,
        }
    }

    /// The dependency that refuses or fails, of an error of the class `Dependency`.
    pub fn dependency(&self) -> Option<Dependency> {
        if self.class() != ErrorClass::Dependency {
            return None;
        }
        match self {
            Self::File { disk, source, .. } => Some(disk.dependency(source)),
            Self::NoVolume { .. } => Some(Disk::Shared.dependency(&io::ErrorKind::NotFound.into())),
            Self::Objects { code, .. } => Some(blame::store(code)),
            _ => None,
        }
    }

    /// The same as trouble with one object while the store serves others: tried again, and not without end.
    pub(crate) fn of_one_object(self) -> Self {
        match self {
            Self::Objects {
                action,
                place,
                problem,
                code,
                ..
            } => Self::Objects {
                action,
                place,
                problem,
                code,
                class: ErrorClass::Transient,
            },
            other => other,
        }
    }

    /// The same at another place, as its reader knows it.
    pub(crate) fn at(self, path: &Path) -> Self {
        match self {
            Self::File {
                disk, action, source, ..
            } => Self::File {
                disk,
                action,
                source,
                place: path.display().to_string(),
            },
            other => other,
        }
    }

    /// Whether the worker's own disk is full.
    pub(crate) fn is_full_scratch(&self) -> bool {
        matches!(self, Self::File { disk: Disk::Scratch, source, .. } if blame::is_full(source))
    }

    /// Whether the file or object is not there, rather than out of reach.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }

    /// A failure at a file on the shared volume.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::file_on(Disk::Shared, action, path)
    }

    /// A failure at a file of the worker's own.
    pub(crate) fn scratch(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::file_on(Disk::Scratch, action, path)
    }

    fn file_on(disk: Disk, action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let place = path.display().to_string();
        move |source| Self::File {
            disk,
            action,
            place,
            source,
        }
    }

    pub(crate) fn missing(place: &impl ToString) -> Self {
        Self::Missing {
            place: place.to_string(),
        }
    }

    /// What the store's answer, or the lack of one, means.
    pub(crate) fn objects<E>(
        action: &'static str,
        place: &impl ToString,
    ) -> impl FnOnce(SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let place = place.to_string();
        move |error| {
            let status = error.raw_response().map(|response| response.status().as_u16());
            let code = error
                .as_service_error()
                .and_then(ProvideErrorMetadata::code)
                .map(str::to_owned);
            if code.as_deref() == Some("NoSuchKey") {
                return Self::Missing { place };
            }
            let (class, short) = match &error {
                // A request is built from checked settings, so what fails there is fetching credentials.
                SdkError::ConstructionFailure(_) => (ErrorClass::Dependency, "credentials"),
                SdkError::TimeoutError(_) => (ErrorClass::Dependency, "timeout"),
                SdkError::DispatchFailure(_) => (ErrorClass::Dependency, "unreachable"),
                SdkError::ResponseError(_) => (ErrorClass::Dependency, "response"),
                _ => (class_of_answer(status.unwrap_or(0), code.as_deref()), ""),
            };
            // The SDK's own word for an answer without a body.
            let code = code.filter(|code| code != "NotFound");
            Self::Objects {
                action,
                class,
                problem: problem_of(&error, status, code.as_deref()),
                code: match (short, code) {
                    ("", Some(code)) => code,
                    ("", None) => status.unwrap_or(0).to_string(),
                    (short, _) => short.to_owned(),
                },
                place,
            }
        }
    }
}

/// The disk that a file is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// The volume that songs and stems are on, which workers share.
    Shared,
    /// The worker's own, which songs are fetched to and stems are made on.
    Scratch,
}

impl Disk {
    /// The disk as a dependency that gave `error`.
    pub(crate) fn dependency(self, error: &io::Error) -> Dependency {
        blame::disk(self.name(), error)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Shared => "volume",
            Self::Scratch => "scratch",
        }
    }
}

impl From<StorageError> for WorkError {
    fn from(error: StorageError) -> Self {
        match error.dependency() {
            Some(dependency) => Self::held(dependency, error),
            None => Self::new(error.class(), error),
        }
    }
}

/// What a person needs to know: the status and code, or the chain of what broke.
fn problem_of<E>(error: &SdkError<E, HttpResponse>, status: Option<u16>, code: Option<&str>) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let Some(service) = error.as_service_error() else {
        return crate::work::chain(error);
    };
    let mut text = format!("the store answers {}", status.unwrap_or(0));
    for part in [code, service.message()].into_iter().flatten() {
        text.push_str(", ");
        text.push_str(part);
    }
    if let Some(id) = error
        .raw_response()
        .and_then(|response| response.headers().get("x-amz-request-id"))
    {
        text.push_str(", request ");
        text.push_str(id);
    }
    text
}
