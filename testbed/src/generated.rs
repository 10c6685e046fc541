//! Committed files that tests generate.

use std::path::Path;
use std::{env, fs};

/// Set by `cargo xtask generate`: the files are written.
const WRITE: &str = "SEPARATION_WRITE_GENERATED";

/// Compares a committed file with its generated content, or writes it if `cargo xtask generate` runs the test.
///
/// # Panics
/// If the file is out of date or cannot be written.
#[track_caller]
pub fn check_generated(path: &str, content: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    if env::var_os(WRITE).is_some() {
        fs::write(&file, content).unwrap_or_else(|error| panic!("cannot write {path}: {error}"));
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == content,
        "{path} is out of date; fix: `cargo xtask generate`, then review and commit the changes"
    );
}
