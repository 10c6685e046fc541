//! Classifies failures of an object store or a file system: caused by the one object that a message names, or by the
//! store. No I/O.
//!
//! A failure counts as the store's unless it is known to concern only the object: a message must not fail because the
//! store refuses all requests.

use std::error::Error;
use std::io;

use crate::error::ErrorClass;
use crate::work::Dependency;

/// S3 error codes that concern only the object of the request.
const OBJECT_CODES: [&str; 8] = [
    "EntityTooLarge",
    "EntityTooSmall",
    // An archived object.
    "InvalidObjectState",
    "InvalidRange",
    "KeyTooLongError",
    "MetadataTooLarge",
    "NoSuchKey",
    "NoSuchVersion",
];

/// The class of an error response, by status and code (S3 API reference, "Error responses").
pub(super) fn class_of_response(status: u16, code: Option<&str>) -> ErrorClass {
    let about_the_object = code.is_some_and(|code| OBJECT_CODES.contains(&code));
    // 413, 416: a proxy refuses the size of the body or the range.
    if about_the_object || matches!(status, 413 | 416) {
        ErrorClass::Permanent
    } else {
        ErrorClass::Dependency
    }
}

/// Whether an error code or status means that the store refuses the requester, rather than fails.
pub(super) fn is_refusal(code: &str) -> bool {
    matches!(
        code,
        "AccessDenied"
            | "AllAccessDisabled"
            | "NoSuchBucket"
            | "PermanentRedirect"
            | "301"
            | "307"
            | "401"
            | "403"
    )
}

/// The store as a dependency, by the code or the status of its response.
pub(super) fn store_dependency(code: &str) -> Dependency {
    let fix = match code {
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken" | "credentials" => {
            "configure valid S3 credentials for the worker"
        }
        "AccessDenied" | "AllAccessDisabled" | "401" | "403" => {
            "configure valid S3 credentials that may list the bucket and read, write and delete its objects"
        }
        "NoSuchBucket" => "create the bucket or correct its name",
        "RequestTimeTooSkewed" => "correct the clock of the worker's machine",
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException"
        | "301"
        | "307" => "set AWS_REGION and S3_ENDPOINT_URL to the bucket's region and endpoint",
        "404" => "set S3_ENDPOINT_URL to the object store; another server answers at this address",
        "timeout" | "unreachable" => "make the object store reachable",
        _ => "see the object store's logs",
    };
    Dependency::new("s3", code, fix)
}

/// The class of a file system error at a path that a message names.
pub(super) fn class_of_file_error(error: &io::Error) -> ErrorClass {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::InvalidInput | Kind::InvalidFilename | Kind::NotADirectory | Kind::IsADirectory => {
            ErrorClass::Permanent
        }
        // A directory that another program removed: the next attempt recreates it. A missing volume is
        // `StorageError::MissingDirectory`.
        Kind::NotFound => ErrorClass::Transient,
        // ELOOP; its `ErrorKind` is not stable.
        _ if error.raw_os_error() == Some(40) => ErrorClass::Permanent,
        _ => ErrorClass::Dependency,
    }
}

/// The shared volume or the scratch disk as a dependency, by the error's number.
pub(super) fn disk_dependency(kind: &str, error: &io::Error) -> Dependency {
    let number = match error.kind() {
        io::ErrorKind::NotFound => Some(2),
        _ => error.raw_os_error(),
    };
    let (code, fix) = match number {
        Some(1) => ("EPERM", "allow the worker's user to read and write the volume"),
        Some(2) => ("ENOENT", "mount the volume"),
        Some(5) => ("EIO", "repair the volume"),
        Some(13) => ("EACCES", "allow the worker's user to read and write the volume"),
        Some(23) => ("ENFILE", "raise the machine's limit on open files"),
        Some(24) => ("EMFILE", "raise the worker's limit on open files"),
        Some(28) => ("ENOSPC", "free space on the volume"),
        Some(30) => ("EROFS", "mount the volume writable"),
        Some(107) => ("ENOTCONN", "mount the volume again"),
        Some(110) => ("ETIMEDOUT", "make the volume's server reachable"),
        Some(116) => ("ESTALE", "mount the volume again"),
        Some(122) => ("EDQUOT", "raise the quota of the worker's user"),
        _ => ("", "see the kernel log"),
    };
    let other = || number.map_or("error".to_owned(), |number| format!("errno{number}"));
    let code = if code.is_empty() { other() } else { code.to_owned() };
    Dependency::new(kind, &code, fix)
}

/// OS error numbers of an error and its causes, outermost first.
pub(crate) fn os_errors<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = i32> + 'e {
    std::iter::successors(Some(error), |&error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error())
}

/// Whether an OS error number from reading or writing a file means that the disk refuses or fails.
pub(crate) fn is_disk_error(number: i32) -> bool {
    matches!(number, 5 | 13 | 23 | 24 | 28 | 30 | 107 | 110 | 116 | 122)
}

/// Whether the disk or this user's quota is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(28 | 122))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ErrorClass::{Dependency as Store, Permanent as Object};

    #[test]
    fn an_error_response_is_the_stores_failure_unless_it_concerns_the_object() {
        for (status, code, class) in [
            (500, None, Store),
            (503, Some("SlowDown"), Store),
            (429, None, Store),
            (400, Some("RequestTimeout"), Store),
            (404, Some("NoSuchUpload"), Store),
            (404, Some("NoSuchBucket"), Store),
            (404, None, Store),
            (403, Some("AccessDenied"), Store),
            (403, Some("SignatureDoesNotMatch"), Store),
            (403, Some("InvalidAccessKeyId"), Store),
            (403, Some("RequestTimeTooSkewed"), Store),
            (400, Some("ExpiredToken"), Store),
            (401, None, Store),
            (301, Some("PermanentRedirect"), Store),
            (501, Some("NotImplemented"), Store),
            (507, Some("InsufficientStorage"), Store),
            (400, Some("EntityTooLarge"), Object),
            (413, None, Object),
            (403, Some("InvalidObjectState"), Object),
        ] {
            assert_eq!(class_of_response(status, code), class, "{status} {code:?}");
        }
    }

    #[test]
    fn a_file_error_is_the_volumes_failure_unless_the_path_is_invalid() {
        for (number, class) in [
            (5, Store),                 // EIO
            (13, Store),                // EACCES
            (24, Store),                // EMFILE
            (28, Store),                // ENOSPC
            (30, Store),                // EROFS
            (116, Store),               // ESTALE
            (122, Store),               // EDQUOT
            (2, ErrorClass::Transient), // ENOENT: a directory that was removed
            (20, Object),               // ENOTDIR
            (36, Object),               // ENAMETOOLONG
            (40, Object),               // ELOOP
        ] {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(class_of_file_error(&error), class, "{number}");
        }
    }

    #[test]
    fn a_dependency_has_its_code_and_a_fix() {
        assert_eq!(store_dependency("NoSuchBucket").name, "s3:NoSuchBucket");
        let full = disk_dependency("volume", &io::Error::from_raw_os_error(28));
        assert_eq!(
            (full.name.as_str(), full.fix),
            ("volume:ENOSPC", "free space on the volume")
        );
        assert_eq!(
            disk_dependency("scratch", &io::Error::from_raw_os_error(95)).name,
            "scratch:errno95"
        );
        assert_eq!(
            disk_dependency("volume", &io::Error::other("x")).name,
            "volume:error"
        );
    }
}
