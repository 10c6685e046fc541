//! Paths of the checkout and the cache. The only module that reads the environment.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::{self, Cache};

/// The current checkout and its cache.
#[derive(Debug)]
pub(crate) struct Project {
    root: PathBuf,
    target: PathBuf,
    cache: Cache,
    kubernetes_assets: Option<PathBuf>,
    is_ci: bool,
    tag: Option<String>,
    kubeconfig: Option<PathBuf>,
}

impl Project {
    /// Locates the checkout from which `cargo xtask` started this program.
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
            // Made absolute, so that a relative directory means the same for every program.
            cache: Cache::new(std::path::absolute(cache_root).context("no current directory")?),
            kubernetes_assets: env::var_os("KUBEBUILDER_ASSETS")
                .filter(|directory| !directory.is_empty())
                .map(PathBuf::from),
            is_ci: env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false"),
            tag: env::var("GITHUB_REF_NAME")
                .ok()
                .filter(|_| env::var_os("GITHUB_REF_TYPE").is_some_and(|kind| kind == "tag")),
            kubeconfig: env::var_os("KUBECONFIG")
                .filter(|file| !file.is_empty())
                .map(PathBuf::from),
            root,
        })
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// A directory with the programs of a Kubernetes control plane, if the user has one.
    pub(crate) fn kubernetes_assets(&self) -> Option<&Path> {
        self.kubernetes_assets.as_deref()
    }

    /// The kubeconfig of an existing cluster, if the user has one.
    pub(crate) fn kubeconfig(&self) -> Option<&Path> {
        self.kubeconfig.as_deref()
    }

    /// Whether this is a CI run, in which nothing may be skipped.
    pub(crate) fn is_ci(&self) -> bool {
        self.is_ci
    }

    /// The tag for which a workflow of GitHub runs this program.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// A file or directory of the checkout.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// A file or directory under cargo's target directory, for intermediate files.
    pub(crate) fn target(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.target.join(relative)
    }

    /// A program that runs in the checkout and gets the cache directory, so that it and its children use no
    /// other. Every program except those of `system` is started by this.
    pub(crate) fn command(&self, program: impl Into<OsString>) -> Command {
        let mut command = Command::new(program.into());
        command
            .current_dir(&self.root)
            .env("SEPARATION_CACHE_DIR", self.cache.root());
        command
    }

    /// Git, also if the checkout belongs to another user, as in a container.
    pub(crate) fn git(&self) -> Command {
        let mut git = self.command("git");
        git.arg("-c")
            .arg(format!("safe.directory={}", self.root.display()));
        git
    }

    /// Cargo with a subcommand; rustup's toolchain is inherited through the environment.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = self.command("cargo");
        // Cargo's variables for this package would cause rebuilds of packages that read them, and again
        // without us.
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

    /// A build with the profile of programs that leave this machine, which contain their own OpenSSL.
    pub(crate) fn dist_build(&self) -> Command {
        let mut build = self.cargo("build");
        build
            .env("OPENSSL_NO_VENDOR", "0")
            .args(["--locked", "--profile=dist"]);
        build
    }

    /// The build of all tests, which leaves the programs that they start in `target/debug`, so that using
    /// those compiles nothing twice.
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
    fn every_program_gets_the_cache_directory() {
        let project = Project::locate().unwrap();
        for command in [project.command("separation-worker"), project.cargo("test")] {
            let variable = command
                .get_envs()
                .find(|(name, _)| *name == "SEPARATION_CACHE_DIR");
            assert_eq!(variable.unwrap().1, Some(project.cache().root().as_os_str()));
        }
    }
}
