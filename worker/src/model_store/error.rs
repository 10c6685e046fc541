//! Errors of models at addresses.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::ErrorClass;
use crate::model::ParametersError;
use crate::outbound::OutboundError;
use crate::settings::ModelLocation;
use crate::song::SongError;
use crate::storage::StorageError;
use crate::work::Dependency;

/// Why a model at an address is not available.
#[derive(Debug, thiserror::Error)]
pub enum ModelStoreError {
    /// The cache cannot be read or written.
    #[error("cannot {action} {}; fix: set MODEL_CACHE_DIR to a writable directory with enough room", .path.display())]
    File {
        /// The failed operation, a verb for the message.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// There is no such file.
    #[error("there is no model at {location}; fix: store the file there, or correct the address")]
    Missing {
        /// The address.
        location: String,
    },
    /// The server refuses this worker.
    #[error("{location} may not be read: the server answered {status}; fix: allow this worker to read it")]
    Denied {
        /// The address.
        location: String,
        /// The HTTP status.
        status: u16,
    },
    /// The download failed.
    #[error("cannot download {location}")]
    Http {
        /// The address.
        location: String,
        /// The failed call.
        source: Box<OutboundError>,
    },
    /// The download from the object store failed.
    #[error("cannot download {location}")]
    Object {
        /// The address.
        location: String,
        /// The store's error.
        source: Box<StorageError>,
    },
    /// The model has no parameters.
    #[error(
        "the parameters of the model {location} were not found: there is no JSON object at {sidecar}; fix: {fix} \
         ({needed})"
    )]
    NoParameters {
        /// The address of the model.
        location: String,
        /// The address of its sidecar.
        sidecar: String,
        /// How to provide them.
        fix: &'static str,
        /// Which ones the model needs.
        needed: String,
    },
    /// The file has other content than expected.
    #[error(
        "the file at {location} is not the expected model: its SHA-256 is {found}, not {expected}; {}",
        .kind.as_ref().map_or_else(
            || "fix: correct the checksum, or the address".to_owned(),
            |kind| format!("it is {kind}"),
        )
    )]
    Checksum {
        /// The address.
        location: String,
        /// SHA-256 of the file.
        found: String,
        /// The expected SHA-256.
        expected: String,
        /// The kind of file and the fix, if its content shows that.
        kind: Option<String>,
    },
}

impl ModelStoreError {
    /// The dependency that fails, if a later attempt may succeed without a change of this worker's settings.
    pub fn dependency(&self) -> Option<Dependency> {
        match self {
            Self::File { .. } => {
                let fix = "make room in MODEL_CACHE_DIR, and allow the worker's user to write to it";
                Some(Dependency::new("model", "cache", fix))
            }
            Self::Missing { .. } => {
                let fix = "store the model at MODEL_URI, or correct the address";
                Some(Dependency::new("model", "missing", fix))
            }
            Self::Denied { status, .. } => {
                let fix = "allow the worker to read MODEL_URI";
                Some(Dependency::new("model", &status.to_string(), fix))
            }
            Self::NoParameters { .. } => {
                let fix = "store the parameters of the model at MODEL_URI next to it, as NAME.json";
                Some(Dependency::new("model", "parameters", fix))
            }
            Self::Object { source, .. } if source.dependency().is_some() => source.dependency(),
            _ if self.is_transient() => {
                let fix = "make the server of MODEL_URI reachable";
                Some(Dependency::new("model", "unreachable", fix))
            }
            Self::Http { .. } | Self::Object { .. } | Self::Checksum { .. } => None,
        }
    }

    /// Whether the same call may succeed soon: the network or the server failed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Http { source, .. } => source.class() == ErrorClass::Transient,
            Self::Object { source, .. } => is_outage(source),
            _ => false,
        }
    }

    /// Whether there is no such file.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }

    /// Whether the server refuses this worker to read the file: status 401 or 403.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Denied { .. } => true,
            Self::Object { source, .. } => match &**source {
                StorageError::Objects { code, .. } => {
                    matches!(code.as_str(), "AccessDenied" | "401" | "403")
                }
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether the server has no content that continues the stored part.
    pub(super) fn is_other_content(&self) -> bool {
        match self {
            Self::Http { source, .. } => matches!(
                **source,
                OutboundError::Status { status: 416, .. } | OutboundError::Part { .. }
            ),
            Self::Object { source, .. } => match &**source {
                StorageError::Objects { code, .. } => {
                    matches!(
                        code.as_str(),
                        "PreconditionFailed" | "412" | "InvalidRange" | "416"
                    )
                }
                _ => false,
            },
            _ => false,
        }
    }

    /// The error for a model at this address that was not loaded, if the reason is that its parameters are neither known
    /// nor next to it.
    pub fn no_parameters(location: &ModelLocation, error: &SongError, fix: &'static str) -> Option<Self> {
        let needed = match error {
            SongError::Parameters(ParametersError::NotFound { .. }) => {
                "keys compensate, mdx_dim_f_set, mdx_dim_t_set, mdx_n_fft_scale_set, primary_stem".to_owned()
            }
            SongError::Undeclared(error) => error.to_string(),
            _ => return None,
        };
        Some(Self::NoParameters {
            location: location.to_string(),
            sidecar: location.sidecar().to_string(),
            fix,
            needed,
        })
    }

    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    pub(super) fn http(location: &ModelLocation) -> impl FnOnce(OutboundError) -> Self {
        let location = location.to_string();
        move |source| match source {
            OutboundError::Status {
                status: 404 | 410, ..
            } => Self::Missing { location },
            OutboundError::Status {
                status: status @ (401 | 403),
                ..
            } => Self::Denied { location, status },
            source => Self::Http {
                location,
                source: Box::new(source),
            },
        }
    }

    pub(super) fn object(location: &ModelLocation) -> impl FnOnce(StorageError) -> Self {
        let location = location.to_string();
        move |source| match source {
            StorageError::Missing { .. } => Self::Missing { location },
            source => Self::Object {
                location,
                source: Box::new(source),
            },
        }
    }
}

/// Whether the store failed, rather than refused.
fn is_outage(error: &StorageError) -> bool {
    match error {
        StorageError::Objects { class, code, .. } => {
            let codes = [
                "timeout",
                "unreachable",
                "SlowDown",
                "InternalError",
                "ServiceUnavailable",
            ];
            *class == ErrorClass::Transient || codes.contains(&code.as_str()) || code.starts_with("50")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location() -> ModelLocation {
        ModelLocation::Object("s3://models/a.onnx".parse().unwrap())
    }

    #[track_caller]
    fn check_status(status: u16, dependency: Option<&str>, transient: bool) {
        let host = "models.example".to_owned();
        let error = ModelStoreError::http(&location())(OutboundError::Status { host, status });
        let found = error.dependency().map(|dependency| dependency.name);
        assert_eq!(
            (found.as_deref(), error.is_transient()),
            (dependency, transient),
            "{error}"
        );
    }

    #[test]
    fn a_server_that_fails_is_called_again_and_a_missing_model_is_waited_for() {
        check_status(503, Some("model:unreachable"), true);
        check_status(429, Some("model:unreachable"), true);
        check_status(404, Some("model:missing"), false);
        check_status(403, Some("model:403"), false);
        check_status(418, None, false);
    }

    #[test]
    fn a_wrong_file_is_described_with_both_checksums() {
        let error = |kind: Option<&str>| ModelStoreError::Checksum {
            location: location().to_string(),
            found: "aa".to_owned(),
            expected: "bb".to_owned(),
            kind: kind.map(str::to_owned),
        };
        assert_eq!(
            error(Some("a web page; fix: download the file itself")).to_string(),
            "the file at s3://models/a.onnx is not the expected model: its SHA-256 is aa, not bb; \
             it is a web page; fix: download the file itself"
        );
        assert!(
            error(None)
                .to_string()
                .ends_with("fix: correct the checksum, or the address")
        );
        assert_eq!(error(None).dependency(), None);
    }
}
