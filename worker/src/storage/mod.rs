//! Storage of songs and stems: shared directories, an object store, and a worker's scratch space.
//!
//! All data is streamed: memory does not depend on the size of a file. Must never read or write outside the configured
//! directories and buckets, and never expose an incomplete file under its final name.

mod attempt;
mod blocking;
mod classify;
mod confine;
mod deletions;
mod error;
mod finals;
mod manifest;
mod public_url;
mod s3;
mod scratch;
mod staging;

pub use attempt::AttemptId;
pub(crate) use classify::{is_disk_error, is_full, os_errors};
pub use confine::OpenFile;
pub(crate) use deletions::Deletions;
pub use error::{Disk, StorageError};
pub use finals::{FinalManifest, FinalStatus, Finals, WebhookState};
pub use manifest::{InputIdentity, StagedStem, StagingManifest};
pub use public_url::public_url;
pub use s3::{
    Created, ListedObject, ObjectHead, PreparedObject, PresignedLink, S3, TimeLimits, TransferLimits,
};
pub(crate) use s3::{OpenObject, Pages};
pub use scratch::{AttemptScratch, Scratch};
pub use staging::{StagedInput, Staging, StemFiles, StemSource, StoredStems};
