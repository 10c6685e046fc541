//! The version of the stored formats.

use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer};

/// Version of the formats. New optional fields need no new version: readers ignore unknown fields.
pub const VERSION: u32 = 1;

/// Reads a version, and refuses others than [`VERSION`].
pub(super) fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        VERSION => Ok(VERSION),
        other => Err(D::Error::custom(format_args!(
            "version {other} is not known; fix: update this worker"
        ))),
    }
}
