//! A dependency of the worker: the object store, a volume, Kafka, the model.

/// A dependency that refuses or fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// The dependency and its error code, such as `s3:403`, `volume:EACCES`, `kafka:29`.
    pub name: String,
    /// The fix: what makes it available again.
    pub fix: &'static str,
}

impl Dependency {
    /// A dependency of this kind, with its error code and the fix.
    pub fn new(kind: &str, code: &str, fix: &'static str) -> Self {
        Self {
            name: format!("{kind}:{code}"),
            fix,
        }
    }
}
