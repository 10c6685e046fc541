//! Checksums of models.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// The SHA-256 of a file, in lower-case hexadecimal digits. Reads it as a stream; blocks.
///
/// # Errors
/// When the file cannot be read.
pub fn sha256_of_file(path: &Path) -> io::Result<String> {
    Ok(hexadecimal(&hash_of(File::open(path)?)?.finalize()))
}

/// The hash of everything that can be read, to which more may be added.
pub(crate) fn hash_of(mut input: impl Read) -> io::Result<Sha256> {
    let mut hashing = Hashing::new(io::sink());
    io::copy(&mut input, &mut hashing)?;
    Ok(hashing.hash)
}

/// Bytes as lower-case hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Computes the checksum of everything that is written through it.
pub(crate) struct Hashing<W> {
    output: W,
    hash: Sha256,
}

impl<W> Hashing<W> {
    pub(crate) fn new(output: W) -> Self {
        Self {
            output,
            hash: Sha256::new(),
        }
    }

    pub(crate) fn sha256(self) -> String {
        hexadecimal(&self.hash.finalize())
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_published_one() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("abc");
        std::fs::write(&file, "abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_of_file(&file).unwrap(), expected);
    }
}
