//! Files in PEM format, and directories of them.

use std::fs;
use std::path::{Path, PathBuf};

use separation_kafka::{ReadError, SecretText};

/// The text of a file in PEM format.
pub(super) fn pem(path: &Path) -> Result<SecretText, ReadError> {
    let read = fs::read_to_string(path);
    read.map(SecretText::from)
        .map_err(|error| ReadError::new(format!("cannot read {}: {error}", path.display())))
}

/// The CA certificates of a file, or of the files of a directory.
pub(super) fn trusted(location: &Path) -> Result<SecretText, ReadError> {
    match location.is_dir() {
        true => Ok(certificates_below(location).into()),
        false => pem(location),
    }
}

/// The files of a directory, one after the other. What cannot be read is left out: then brokers are not trusted, and the
/// client reports it.
pub(super) fn certificates_below(directory: &Path) -> String {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    texts.collect::<Vec<_>>().join("\n")
}
