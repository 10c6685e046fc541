//! Whose fault a failure of a store or a file system is: that of the one object a message names, or that of the store.
//! Pure.
//!
//! A failure counts as one of the store unless it is known to be about the object alone: a message must not fail because
//! the store refuses everybody.

use std::error::Error;
use std::io;

use crate::error::ErrorClass;
use crate::work::Dependency;

/// Codes that are about the object of the request and nothing else.
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

/// The class of an answer of the store by status and code, as S3's list of error responses describes them.
pub(super) fn class_of_answer(status: u16, code: Option<&str>) -> ErrorClass {
    let about_the_object = code.is_some_and(|code| OBJECT_CODES.contains(&code));
    // A body or a range that a proxy in between does not take.
    if about_the_object || matches!(status, 413 | 416) {
        ErrorClass::Permanent
    } else {
        ErrorClass::Dependency
    }
}

/// Whether an answer says that the requester is refused, rather than that the store has trouble.
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

/// The store as a dependency, by the code or the status of its answer.
pub(super) fn store(code: &str) -> Dependency {
    let fix = match code {
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken" | "credentials" => {
            "give the worker valid S3 credentials"
        }
        "AccessDenied" | "AllAccessDisabled" | "401" | "403" => {
            "give the worker valid S3 credentials, and let them list the bucket and read, write and delete its objects"
        }
        "NoSuchBucket" => "create the bucket, or correct its name",
        "RequestTimeTooSkewed" => "set the clock of the worker's machine",
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException"
        | "301"
        | "307" => "set AWS_REGION and S3_ENDPOINT_URL to those of the bucket",
        "404" => "set S3_ENDPOINT_URL to the object store: another server answers there",
        "timeout" | "unreachable" => "make the object store reachable",
        _ => "see the object store's own logs",
    };
    Dependency::new("s3", code, fix)
}

/// The class of a file system's error at a path that a message names.
pub(super) fn class_of_file_error(error: &io::Error) -> ErrorClass {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::InvalidInput | Kind::InvalidFilename | Kind::NotADirectory | Kind::IsADirectory => {
            ErrorClass::Permanent
        }
        // A directory that another program removed: the next try creates it again. Without the volume itself there is an
        // error of its own.
        Kind::NotFound => ErrorClass::Transient,
        // ELOOP, whose kind is not stable.
        _ if error.raw_os_error() == Some(40) => ErrorClass::Permanent,
        _ => ErrorClass::Dependency,
    }
}

/// The shared volume or the scratch disk as a dependency, by the number of its error.
pub(super) fn disk(kind: &str, error: &io::Error) -> Dependency {
    let number = match error.kind() {
        io::ErrorKind::NotFound => Some(2),
        _ => error.raw_os_error(),
    };
    let (code, fix) = match number {
        Some(1) => ("EPERM", "let the worker's user read and write the volume"),
        Some(2) => ("ENOENT", "mount the volume"),
        Some(5) => ("EIO", "repair the volume"),
        Some(13) => ("EACCES", "let the worker's user read and write the volume"),
        Some(23) => ("ENFILE", "raise the machine's limit of open files"),
        Some(24) => ("EMFILE", "raise the worker's limit of open files"),
        Some(28) => ("ENOSPC", "make room on the volume"),
        Some(30) => ("EROFS", "mount the volume writable"),
        Some(107) => ("ENOTCONN", "mount the volume again"),
        Some(110) => ("ETIMEDOUT", "make the volume's server reachable"),
        Some(116) => ("ESTALE", "mount the volume again"),
        Some(122) => ("EDQUOT", "raise the quota of the worker's user"),
        _ => ("", "see the kernel's log"),
    };
    let other = || number.map_or("error".to_owned(), |number| format!("errno{number}"));
    let code = if code.is_empty() { other() } else { code.to_owned() };
    Dependency::new(kind, &code, fix)
}

/// The numbers of the operating system's errors among an error and its causes, outermost first.
pub(crate) fn os_errors<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = i32> + 'e {
    std::iter::successors(Some(error), |&error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error())
}

/// Whether an error that the operating system gave to a program that read or wrote a file tells of a disk that refuses or
/// fails, rather than of the file's content.
pub(crate) fn is_disk_trouble(number: i32) -> bool {
    matches!(number, 5 | 13 | 23 | 24 | 28 | 30 | 107 | 110 | 116 | 122)
}

/// Whether a disk is full, or this user's part of it.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(28 | 122))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ErrorClass::{Dependency as Store, Permanent as Object};

    #[test]
    fn an_answer_is_the_stores_fault_unless_it_is_about_the_object() {
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
            assert_eq!(class_of_answer(status, code), class, "{status} {code:?}");
        }
    }

    #[test]
    fn an_error_of_the_file_system_is_the_volumes_fault_unless_the_path_cannot_be_one() {
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
        assert_eq!(store("NoSuchBucket").name, "s3:NoSuchBucket");
        let full = disk("volume", &io::Error::from_raw_os_error(28));
        assert_eq!(
            (full.name.as_str(), full.fix),
            ("volume:ENOSPC", "make room on the volume")
        );
        assert_eq!(
            disk("scratch", &io::Error::from_raw_os_error(95)).name,
            "scratch:errno95"
        );
        assert_eq!(disk("volume", &io::Error::other("x")).name, "volume:error");
    }
}
