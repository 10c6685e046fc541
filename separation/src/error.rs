//! The classification of errors.
//!
//! The class alone decides whether work is retried, sent to the dead-letter topic or reported as a defect.

/// Whether a retry may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// A retry may succeed: network, full disk, busy machine.
    Transient,
    /// No retry will succeed: not audio, no such file, an unsupported setting.
    Permanent,
    /// The program violated an invariant.
    Bug,
    /// The task's own deadline passed: it fails by the failure policy and is not simply repeated.
    TimedOut,
    /// A dependency of the worker (object store, shared volume, broker) refuses or fails. The task is not at
    /// fault and is held until the dependency is available again.
    Dependency,
    /// The work was asked to stop and is left to another worker.
    Interrupted,
}
