//! Where things are: the checkout and the cache. The environment is read here and nowhere else.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::{self, Cache};

/// The checkout that is worked on, and the cache that it uses.
#[derive(Debug)]
pub(crate) struct Project {
    root: PathBuf,
    target: PathBuf,
    cache: Cache,
    kubernetes_assets: Option<PathBuf>,
    is_ci: bool,
    kubeconfig: Option<PathBuf>,
}

impl Project {
    /// Finds the checkout that this program was started from by `cargo xtask`.
    pub(crate) fn locate() -> Result<Self> {
        let manifest_dir = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest_dir
            .parent()
            .context("xtask is not inside a checkout; fix: start it as `cargo xtask`")?
            .to_path_buf();
        let cache_root = cache::root(
            env::var_os("SEPARATION_CACHE_DIR"),
            env::var_os("XDG_CACHE_HOME"),
            env::var_os("HOME"),
        )
        .context("no directory to install into; fix: set HOME or SEPARATION_CACHE_DIR")?;
        let target = root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
        Ok(Self {
            target,
            // A relative directory means the same one for every program that is told of it.
            cache: Cache::new(std::path::absolute(cache_root).context("no current directory")?),
            kubernetes_assets: env::var_os("KUBEBUILDER_ASSETS")
                .filter(|folder| !folder.is_empty())
                .map(PathBuf::from),
            is_ci: env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false"),
            kubeconfig: env::var_os("KUBECONFIG")
                .filter(|file| !file.is_empty())
                .map(PathBuf::from),
            root,
        })
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// A folder with the programs of a Kubernetes control plane, where somebody has them already.
    pub(crate) fn kubernetes_assets(&self) -> Option<&Path> {
        self.kubernetes_assets.as_deref()
    }

    /// The kubeconfig of a cluster that somebody has already.
    pub(crate) fn kubeconfig(&self) -> Option<&Path> {
        self.kubeconfig.as_deref()
    }

    /// Whether this is a run that nobody watches, where nothing may be left out.
    pub(crate) fn is_ci(&self) -> bool {
        self.is_ci
    }

    /// A file or directory of the checkout.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// A file or directory under cargo's target directory: for what is made on the way and never kept.
    pub(crate) fn target(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.target.join(relative)
    }

    /// A program that runs in the checkout and is told the cache directory, so that it and what it starts look
    /// nowhere else. Every program but those of `system` is started by this.
    pub(crate) fn command(&self, program: impl Into<OsString>) -> Command {
        let mut command = Command::new(program.into());
        command
            .current_dir(&self.root)
            .env("SEPARATION_CACHE_DIR", self.cache.root());
        command
    }

    /// Cargo with a subcommand; rustup's toolchain is passed on by the environment.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = self.command("cargo");
        // What cargo told us of this package would have packages built anew that ask for it, and again without us.
        for (name, _) in env::vars_os() {
            let of_package =
                |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
            if name.to_str().is_some_and(of_package) {
                command.env_remove(name);
            }
        }
        command.arg(subcommand);
        command
    }

    /// The build of all tests, which leaves the programs that they start in `target/debug`: who takes those has nothing
    /// compiled twice.
    pub(crate) fn tests_build(&self) -> Command {
        let mut build = self.cargo("test");
        build.args(["--workspace", "--all-features", "--no-run", "--locked"]);
        build
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_told_the_cache_directory() {
        let project = Project::locate().unwrap();
        for command in [project.command("separation-worker"), project.cargo("test")] {
            let told = command
                .get_envs()
                .find(|(name, _)| *name == "SEPARATION_CACHE_DIR");
            assert_eq!(told.unwrap().1, Some(project.cache().root().as_os_str()));
        }
    }
}
