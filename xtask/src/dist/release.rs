//! The release that is built: its version, names and directory.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::archive::architecture;
use crate::binaries::Profile;
use crate::names::Names;
use crate::project::Project;

/// The version of the workspace.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A release for this machine's architecture.
pub(super) struct Release<'p> {
    pub(super) project: &'p Project,
    pub(super) names: Names,
    /// Of its programs.
    pub(super) profile: Profile,
    /// Where its files are written.
    pub(super) directory: PathBuf,
}

impl<'p> Release<'p> {
    pub(super) fn new(project: &'p Project, profile: Profile, directory: PathBuf) -> Result<Self> {
        check_tag(project.tag())?;
        Ok(Self {
            project,
            names: Names::read(project)?,
            profile,
            directory,
        })
    }

    /// A file of the release.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// The name of something that runs on this machine's architecture only, without an ending.
pub(super) fn name_for_architecture(name: &str) -> String {
    format!("{name}-{VERSION}-linux-{}", architecture())
}

/// Fails if this is the tag of another version.
fn check_tag(tag: Option<&str>) -> Result<()> {
    let expected = format!("v{VERSION}");
    ensure!(
        tag.is_none_or(|tag| tag == expected),
        "the tag {} is not {expected}, that of the version in Cargo.toml; fix: set the version, or another tag",
        tag.unwrap_or_default()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_of_another_version_is_refused() {
        check_tag(None).unwrap();
        check_tag(Some(concat!("v", env!("CARGO_PKG_VERSION")))).unwrap();
        for tag in [VERSION, "v0.0.0", "main"] {
            let refused = check_tag(Some(tag)).unwrap_err().to_string();
            assert!(
                refused.starts_with(&format!("the tag {tag} is not v")),
                "{refused}"
            );
        }
    }
}
