//! Errors of files and objects.

use std::error::Error;
use std::io;
use std::path::Path;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::classify::{self, class_of_file_error, class_of_response};
use crate::error::ErrorClass;
use crate::work::{Dependency, WorkError};

/// Why an operation on a file or an object failed.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The file or object does not exist.
    #[error("{location} does not exist")]
    Missing {
        /// Path or address.
        location: String,
    },
    /// This worker may not use the path or address.
    #[error("{location} may not be used: {rule}")]
    Refused {
        /// Path or address.
        location: String,
        /// The rule that it breaks.
        rule: String,
    },
    /// Larger than the limit.
    #[error("{location} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// Path or address.
        location: String,
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// The stream to store failed.
    #[error("the data to store ended early")]
    Stream(#[source] Box<dyn Error + Send + Sync>),
    /// A file operation failed.
    #[error("cannot {action} {location}")]
    File {
        /// The disk of the file.
        disk: Disk,
        /// The failed operation, a verb for the message.
        action: &'static str,
        /// The path.
        location: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// The directory of songs or of stems does not exist.
    #[error("the directory {location} does not exist")]
    MissingDirectory {
        /// Its path.
        location: String,
    },
    /// The object store refused, failed or did not respond.
    #[error("cannot {action} {location}: {problem}")]
    Objects {
        /// The failed operation, a verb for the message.
        action: &'static str,
        /// The address.
        location: String,
        /// The store's status and message, or the connection's error.
        problem: String,
        /// The code or the status of the store's response; without one, `timeout`, `unreachable`, `credentials` or
        /// `response`.
        code: String,
        /// Decides whether the operation is retried.
        class: ErrorClass,
    },
    /// An address needs an object store, and none is configured.
    #[error(
        "{location} is stored in an object store, and none is configured; fix: set S3_ENDPOINT_URL or AWS credentials"
    )]
    NoObjectStore {
        /// The address.
        location: String,
    },
}

impl StorageError {
    /// The error class, which decides whether the work is retried.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Missing { .. }
            | Self::Refused { .. }
            | Self::TooLarge { .. }
            | Self::Stream(_)
            | Self::NoObjectStore { .. } => ErrorClass::Permanent,
            Self::File { source, .. } => class_of_file_error(source),
            Self::MissingDirectory { .. } => ErrorClass::Dependency,
            Self::Objects { class, .. } => *class,
        }
    }

    /// The dependency that refuses or fails; none unless the class is `Dependency`.
    pub fn dependency(&self) -> Option<Dependency> {
        if self.class() != ErrorClass::Dependency {
            return None;
        }
        match self {
            Self::File { disk, source, .. } => Some(disk.dependency(source)),
            Self::MissingDirectory { .. } => Some(Disk::Shared.dependency(&io::ErrorKind::NotFound.into())),
            Self::Objects { code, .. } => Some(classify::store_dependency(code)),
            _ => None,
        }
    }

    /// The same error with the class `Transient`: the store serves other objects, so retries are limited.
    pub(crate) fn into_transient(mut self) -> Self {
        if let Self::Objects { class, .. } = &mut self {
            *class = ErrorClass::Transient;
        }
        self
    }

    /// The same error with another path in its message.
    pub(crate) fn at(mut self, path: &Path) -> Self {
        if let Self::File { location, .. } = &mut self {
            *location = path.display().to_string();
        }
        self
    }

    /// Whether the scratch disk is full.
    pub(crate) fn is_full_scratch(&self) -> bool {
        matches!(self, Self::File { disk: Disk::Scratch, source, .. } if classify::is_full(source))
    }

    /// Whether the file or object does not exist, rather than cannot be read.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }

    /// Whether the object store does not have the requested feature.
    pub(crate) fn is_not_implemented(&self) -> bool {
        matches!(self, Self::Objects { code, .. } if code == "NotImplemented" || code == "501")
    }

    /// Whether the object store refuses these credentials access to the object. Some stores answer so for objects that do
    /// not exist, if the credentials may not list the bucket.
    pub(crate) fn is_access_denied(&self) -> bool {
        matches!(self, Self::Objects { code, .. } if code == "AccessDenied" || code == "403")
    }

    /// Whether the requested range begins after the end of the object.
    pub fn is_unsatisfiable_range(&self) -> bool {
        matches!(self, Self::Objects { code, .. } if code == "InvalidRange" || code == "416")
    }

    /// An error of a file on the shared volume.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::file_on(Disk::Shared, action, path)
    }

    /// An error of a file on the scratch disk.
    pub(crate) fn scratch(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::file_on(Disk::Scratch, action, path)
    }

    fn file_on(disk: Disk, action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let location = path.display().to_string();
        move |source| Self::File {
            disk,
            action,
            location,
            source,
        }
    }

    pub(crate) fn refused(location: &impl ToString, rule: impl Into<String>) -> Self {
        let (location, rule) = (location.to_string(), rule.into());
        Self::Refused { location, rule }
    }

    pub(crate) fn too_large(location: &impl ToString, limit_bytes: u64) -> Self {
        let location = location.to_string();
        Self::TooLarge {
            location,
            limit_bytes,
        }
    }

    pub(crate) fn missing(location: &impl ToString) -> Self {
        Self::Missing {
            location: location.to_string(),
        }
    }

    /// Maps an error of the SDK, with or without a response of the store.
    pub(crate) fn objects<E>(
        action: &'static str,
        location: &impl ToString,
    ) -> impl FnOnce(SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let location = location.to_string();
        move |error| {
            let status = error.raw_response().map(|response| response.status().as_u16());
            let code = error
                .as_service_error()
                .and_then(ProvideErrorMetadata::code)
                .map(str::to_owned);
            if code.as_deref() == Some("NoSuchKey") {
                return Self::Missing { location };
            }
            let (class, short) = match &error {
                // Requests are built from validated settings, so only fetching credentials can fail.
                SdkError::ConstructionFailure(_) => (ErrorClass::Dependency, "credentials"),
                SdkError::TimeoutError(_) => (ErrorClass::Dependency, "timeout"),
                SdkError::DispatchFailure(_) => (ErrorClass::Dependency, "unreachable"),
                SdkError::ResponseError(_) => (ErrorClass::Dependency, "response"),
                _ => (class_of_response(status.unwrap_or(0), code.as_deref()), ""),
            };
            // The SDK's code for a response without a body.
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
                location,
            }
        }
    }
}

/// The disk that a file is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// The volume of songs and stems, which workers share.
    Shared,
    /// The worker's scratch disk, for downloaded songs and unfinished stems.
    Scratch,
}

impl Disk {
    /// The disk as the dependency that failed with `error`.
    pub(crate) fn dependency(self, error: &io::Error) -> Dependency {
        classify::disk_dependency(self.name(), error)
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

/// Text for people: the status, code and message of the store, or the error chain.
fn problem_of<E>(error: &SdkError<E, HttpResponse>, status: Option<u16>, code: Option<&str>) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let Some(service) = error.as_service_error() else {
        return crate::work::chain(error);
    };
    let mut text = format!("the store answered {}", status.unwrap_or(0));
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
