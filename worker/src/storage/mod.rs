//! Where songs and stems lie: shared folders, an object store, and a worker's own scratch space.
//!
//! Streams whatever it moves: memory does not depend on the size of a file. Must never read or write outside the
//! folders and buckets that its settings name, and never show half a file under a final name.

mod attempt;
mod blame;
mod blocking;
mod confine;
mod error;
mod finals;
mod manifest;
mod public_url;
mod s3;
mod scratch;
mod staging;

pub use attempt::AttemptId;
pub(crate) use blame::{is_disk_trouble, is_full, os_errors};
pub use confine::OpenFile;
pub use error::{Disk, StorageError};
pub use finals::{FinalManifest, FinalStatus, Finals, WebhookState};
pub use manifest::{InputIdentity, StagedStem, StagingManifest};
pub use public_url::public_url;
pub use s3::{ListedObject, ObjectHead, PreparedObject, S3, TimeLimits, TransferLimits};
pub use scratch::{AttemptScratch, Scratch};
pub use staging::{StagedInput, Staging, StemFiles, StemSource, Stored};
