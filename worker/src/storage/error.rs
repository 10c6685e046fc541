//! Why a file or an object could not be read or written.

use std::error::Error;
use std::io;
use std::path::Path;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::error::ErrorClass;
use crate::work::WorkError;

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
        /// What was tried.
        action: &'static str,
        /// The path.
        place: String,
        /// Why not.
        source: io::Error,
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
            Self::Objects { class, .. } => *class,
        }
    }

    /// Whether the file or object is not there, rather than out of reach.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }

    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let place = path.display().to_string();
        move |source| Self::File {
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
            if is_missing_object(action, status, code.as_deref()) {
                return Self::Missing { place };
            }
            Self::Objects {
                action,
                place,
                class: class_of_answer(&error, status, code.as_deref()),
                problem: problem_of(&error, status, code.as_deref()),
            }
        }
    }
}

impl From<StorageError> for WorkError {
    fn from(error: StorageError) -> Self {
        Self::new(error.class(), error)
    }
}

/// A 404 that is about the object itself; `NoSuchBucket` and `NoSuchUpload` are about something else. An answer to
/// HEAD has no body and so no code of its own.
fn is_missing_object(action: &str, status: Option<u16>, code: Option<&str>) -> bool {
    match code {
        Some("NoSuchKey") => true,
        Some("NotFound") | None => status == Some(404) && action != "list",
        Some(_) => false,
    }
}

fn class_of_answer<E, R>(error: &SdkError<E, R>, status: Option<u16>, code: Option<&str>) -> ErrorClass {
    match error {
        // A request is built from checked settings, so what fails there is fetching credentials, from a service that
        // may be back in a moment.
        SdkError::ConstructionFailure(_)
        | SdkError::TimeoutError(_)
        | SdkError::DispatchFailure(_)
        | SdkError::ResponseError(_) => ErrorClass::Transient,
        _ => class_of_status(status.unwrap_or(0), code),
    }
}

/// The class of an answer by status and code, as S3's list of error responses describes them.
pub(crate) fn class_of_status(status: u16, code: Option<&str>) -> ErrorClass {
    const PASSING: [&str; 15] = [
        "BadDigest",
        "ConditionalRequestConflict",
        "ExpiredToken",
        "IncompleteBody",
        "InternalError",
        // An upload or a part of it that a cleaner took away: another try begins a new one.
        "InvalidPart",
        "NoSuchUpload",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    ];
    let passing = code.is_some_and(|code| PASSING.contains(&code));
    // 501: the store will not learn it in a minute.
    if passing || matches!(status, 408 | 425 | 429) || (status >= 500 && status != 501) {
        ErrorClass::Transient
    } else {
        ErrorClass::Permanent
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

/// The class of a file system's error.
pub(crate) fn class_of_file_error(error: &io::Error) -> ErrorClass {
    use io::ErrorKind as Kind;
    match error.kind() {
        // A folder that is gone is mostly a volume that is not mounted; a missing input is `Missing` instead.
        Kind::NotFound => ErrorClass::Transient,
        Kind::PermissionDenied
        | Kind::InvalidInput
        | Kind::InvalidFilename
        | Kind::InvalidData
        | Kind::NotADirectory
        | Kind::IsADirectory
        | Kind::Unsupported => ErrorClass::Permanent,
        // A full or failing disk, a stale handle, too many open files: all may pass, here or on another machine.
        _ => ErrorClass::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_store_are_tried_again_only_where_that_may_help() {
        use ErrorClass::{Permanent, Transient};
        for (status, code, class) in [
            (500, None, Transient),
            (503, Some("SlowDown"), Transient),
            (429, None, Transient),
            (408, None, Transient),
            (400, Some("RequestTimeout"), Transient),
            (200, Some("InternalError"), Transient),
            (404, Some("NoSuchUpload"), Transient),
            (409, Some("OperationAborted"), Transient),
            (404, Some("NoSuchBucket"), Permanent),
            (403, Some("AccessDenied"), Permanent),
            (403, Some("SignatureDoesNotMatch"), Permanent),
            (400, Some("EntityTooLarge"), Permanent),
            (301, Some("PermanentRedirect"), Permanent),
            (501, Some("NotImplemented"), Permanent),
        ] {
            assert_eq!(class_of_status(status, code), class, "{status} {code:?}");
        }
    }

    #[test]
    fn a_full_disk_may_pass_and_a_forbidden_folder_does_not() {
        for (number, class) in [
            (28, ErrorClass::Transient),  // ENOSPC
            (5, ErrorClass::Transient),   // EIO
            (116, ErrorClass::Transient), // ESTALE
            (122, ErrorClass::Transient), // EDQUOT
            (24, ErrorClass::Transient),  // EMFILE
            (30, ErrorClass::Transient),  // EROFS
            (13, ErrorClass::Permanent),  // EACCES
            (20, ErrorClass::Permanent),  // ENOTDIR
            (36, ErrorClass::Permanent),  // ENAMETOOLONG
        ] {
            assert_eq!(
                class_of_file_error(&io::Error::from_raw_os_error(number)),
                class,
                "{number}"
            );
        }
    }

    #[test]
    fn a_missing_object_is_told_from_a_missing_bucket() {
        assert!(is_missing_object("read", Some(404), Some("NoSuchKey")));
        assert!(is_missing_object("look up", Some(404), Some("NotFound")));
        assert!(is_missing_object("look up", Some(404), None));
        assert!(!is_missing_object("read", Some(404), Some("NoSuchBucket")));
        assert!(!is_missing_object("upload", Some(404), Some("NoSuchUpload")));
        assert!(!is_missing_object("read", Some(403), None));
    }
}
