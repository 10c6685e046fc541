//! The one classification of errors that everything else acts on.
//!
//! An error's class alone decides whether work is retried, dead-lettered or reported as a defect.

/// What an error says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Another try may succeed: the network, a full disk, a busy machine.
    Transient,
    /// No try will succeed: not audio, no such file, a setting that cannot be met.
    Permanent,
    /// The program broke one of its own promises.
    Bug,
    /// The work's own deadline passed: it fails as its owner's policy says, and is not simply done again.
    TimedOut,
    /// A dependency of the worker (object store, shared volume, broker) refuses or fails, which is no fault of the
    /// work: it is held until the dependency is available again.
    Dependency,
    /// Somebody asked for the work to stop: it is left for another.
    Interrupted,
}
