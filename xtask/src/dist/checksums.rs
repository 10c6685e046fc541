//! The checksums of all files of a release, for `sha256sum --check`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::archive::architecture;
use crate::cache::sha256_file;

const PREFIX: &str = "SHA256SUMS";

/// The name of the file: the files for several architectures may be published in one directory.
pub(super) fn file() -> String {
    format!("{PREFIX}-linux-{}", architecture())
}

/// Writes the checksums of the files in `directory`; returns their names and sizes in bytes.
pub(super) fn write(directory: &Path) -> Result<Vec<(String, u64)>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", directory.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let bytes = entry
            .metadata()
            .with_context(|| format!("cannot read {name}"))?
            .len();
        if !name.starts_with(PREFIX) {
            files.push((name, bytes));
        }
    }
    files.sort();
    let mut lines = String::new();
    for (name, _) in &files {
        lines += &format!("{}  {name}\n", sha256_file(&directory.join(name))?);
    }
    let path = directory.join(file());
    fs::write(&path, lines).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::process;

    #[test]
    fn sha256sum_accepts_the_files_and_refuses_a_changed_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("b.tar"), "b").unwrap();
        fs::write(path("a.whl"), "abc").unwrap();
        // The second time, the file of checksums exists and is not listed in itself.
        for _ in 0..2 {
            let listed = write(directory.path()).unwrap();
            assert_eq!(listed, [("a.whl".to_owned(), 3), ("b.tar".to_owned(), 1)]);
        }
        let check = || {
            let mut check = Command::new("sha256sum");
            check.current_dir(directory.path());
            process::succeeds(check.args(["--check", "--strict"]).arg(file()))
        };
        assert!(check());
        fs::write(path("b.tar"), "c").unwrap();
        assert!(!check());
    }
}
