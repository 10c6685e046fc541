//! Hashes as text.

use sha2::{Digest as _, Sha256};

/// SHA-256 in hexadecimal digits, 64 of them.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// Bytes as hexadecimal digits in lower case.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
