//! Finds what `cargo xtask` installed. Installs nothing.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

const PINS: &str = include_str!("../parts.toml");
/// Says why this machine cannot run a node, where `cargo xtask test` found so.
pub(crate) const NO_NODE: &str = "SEPARATION_NO_NODE";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Pins {
    kafka: Pin,
    versitygw: Pin,
    etcd: Pin,
    kubernetes: Pin,
    containerd: Pin,
    runc: Pin,
    images: Pin,
    helm: Pin,
    kafka_python: Pin,
}

#[derive(Debug, Deserialize)]
struct Pin {
    version: String,
}

/// Where the installed parts lie.
#[derive(Debug, Clone)]
pub struct Parts {
    pub(crate) kafka_lib: PathBuf,
    pub(crate) versitygw: PathBuf,
    kafka_python: PathBuf,
}

impl Parts {
    /// The directory that parts are installed in.
    ///
    /// # Errors
    /// When neither the environment nor a home directory names one.
    pub fn cache() -> Result<PathBuf> {
        cache_dir()
    }

    /// Finds them in `SEPARATION_CACHE_DIR`, else `separation` in `XDG_CACHE_HOME`, else `~/.cache/separation`.
    ///
    /// # Errors
    /// When one is not there.
    pub fn locate() -> Result<Self> {
        Self::locate_in(&cache_dir()?)
    }

    /// The existing system's Kafka client, for `PYTHONPATH`.
    pub fn kafka_python(&self) -> &Path {
        &self.kafka_python
    }

    /// The Helm program, looked for only where it is asked for.
    ///
    /// # Errors
    /// When it is not there.
    pub fn helm() -> Result<PathBuf> {
        part(&cache_dir()?, format!("helm/{}/helm", pins()?.helm.version))
    }

    /// The kubectl program, which comes with the parts of a node.
    ///
    /// # Errors
    /// When it is not there.
    pub fn kubectl() -> Result<PathBuf> {
        let folder = format!("kubernetes-node/{}", pins()?.kubernetes.version);
        part(&cache_dir()?, format!("{folder}/kubectl"))
    }

    fn locate_in(cache: &Path) -> Result<Self> {
        let pins = pins()?;
        Ok(Self {
            kafka_lib: part(cache, format!("kafka/{}/lib", pins.kafka.version))?,
            versitygw: part(cache, format!("versitygw/{}/versitygw", pins.versitygw.version))?,
            kafka_python: part(cache, format!("kafka-python/{}", pins.kafka_python.version))?,
        })
    }
}

/// Where the programs of a Kubernetes control plane lie; looked for one by one, for not everybody has all.
#[derive(Debug, Clone)]
pub(crate) enum ControlPlaneParts {
    /// One folder, which `KUBEBUILDER_ASSETS` names.
    Assets(PathBuf),
    /// The cache.
    Cache(PathBuf),
}

impl ControlPlaneParts {
    pub(crate) fn locate() -> Result<Self> {
        Ok(match set("KUBEBUILDER_ASSETS") {
            Some(folder) => Self::Assets(folder),
            None => Self::Cache(cache_dir()?),
        })
    }

    pub(crate) fn etcd(&self) -> Result<PathBuf> {
        self.program("etcd", |pins| format!("etcd/{}", pins.etcd.version))
    }

    /// A program of Kubernetes itself.
    pub(crate) fn kubernetes(&self, program: &str) -> Result<PathBuf> {
        self.program(program, |pins| format!("kubernetes/{}", pins.kubernetes.version))
    }

    fn program(&self, name: &str, cached: impl Fn(&Pins) -> String) -> Result<PathBuf> {
        match self {
            Self::Assets(folder) => {
                let path = folder.join(name);
                ensure!(
                    path.exists(),
                    "{} is not there; fix: put it there, or unset KUBEBUILDER_ASSETS and run `cargo xtask setup --tests`",
                    path.display()
                );
                Ok(path)
            }
            Self::Cache(cache) => part(cache, format!("{}/{name}", cached(&pins()?))),
        }
    }
}

/// Why tests that take a [`crate::Node`] are left out here: what `cargo xtask test` found, or by hand that we are not
/// root, or that parts are missing. In CI there is no such reason: they fail instead.
pub fn no_node() -> Option<String> {
    if let Some(reason) = set(NO_NODE) {
        return Some(reason.display().to_string());
    }
    if set("CI").is_some_and(|value| value != Path::new("false")) {
        return None;
    }
    if !rustix::process::geteuid().is_root() {
        return Some("a node is made of containers, which takes root".to_owned());
    }
    let cache = cache_dir().and_then(|cache| NodeParts::locate_in(&cache));
    cache.err().map(|missing| format!("{missing:#}"))
}

/// What a node is made of; it comes from the cache, whatever the control plane is.
#[derive(Debug, Clone)]
pub(crate) struct NodeParts {
    pub(crate) kubelet: PathBuf,
    pub(crate) kube_proxy: PathBuf,
    pub(crate) kube_scheduler: PathBuf,
    /// With its shim beside it.
    pub(crate) containerd: PathBuf,
    /// The client of containerd.
    pub(crate) ctr: PathBuf,
    pub(crate) runc: PathBuf,
    /// Holds a pod together, as a program and as an image.
    pub(crate) pause: PathBuf,
    pub(crate) pause_image: Image,
    /// A shell with many small programs.
    pub(crate) busybox_image: Image,
}

/// An image and the archive that it comes from.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) archive: PathBuf,
}

impl NodeParts {
    pub(crate) fn locate() -> Result<Self> {
        if let Some(reason) = set(NO_NODE) {
            bail!("this machine cannot run a node: {}", reason.display());
        }
        Self::locate_in(&cache_dir()?)
    }

    fn locate_in(cache: &Path) -> Result<Self> {
        let pins = pins()?;
        let node = |name: &str| {
            let folder = format!("kubernetes-node/{}", pins.kubernetes.version);
            part(cache, format!("{folder}/{name}"))
        };
        let containerd = |name: &str| part(cache, format!("containerd/{}/{name}", pins.containerd.version));
        let tag = &pins.images.version;
        let image = |name: &str| {
            anyhow::Ok(Image {
                name: format!("separation.test/{name}:{tag}"),
                archive: part(cache, format!("images/{tag}/{name}.tar"))?,
            })
        };
        Ok(Self {
            kubelet: node("kubelet")?,
            kube_proxy: node("kube-proxy")?,
            kube_scheduler: node("kube-scheduler")?,
            containerd: containerd("containerd")?,
            ctr: containerd("ctr")?,
            runc: part(cache, format!("runc/{}/runc", pins.runc.version))?,
            pause: part(cache, format!("images/{tag}/pause"))?,
            pause_image: image("pause")?,
            busybox_image: image("busybox")?,
        })
    }
}

fn pins() -> Result<Pins> {
    toml::from_str(PINS).context("testbed/parts.toml is not as expected")
}

fn part(cache: &Path, relative: String) -> Result<PathBuf> {
    let path = cache.join(relative);
    ensure!(
        path.exists(),
        "{} is not there; fix: `cargo xtask setup --tests` installs it",
        path.display()
    );
    Ok(path)
}

fn cache_dir() -> Result<PathBuf> {
    set("SEPARATION_CACHE_DIR")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("separation")))
        .or_else(|| Some(set("HOME")?.join(".cache/separation")))
        .context("no cache directory; fix: set HOME or SEPARATION_CACHE_DIR")
}

fn set(name: &str) -> Option<PathBuf> {
    env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_command_that_installs_it() {
        let empty = tempfile::tempdir().unwrap();
        let missing = Parts::locate_in(empty.path()).unwrap_err().to_string();
        assert!(missing.contains("/kafka/4"), "{missing}");
        assert!(
            missing.ends_with("`cargo xtask setup --tests` installs it"),
            "{missing}"
        );
    }

    #[test]
    fn a_node_is_several_parts() {
        let empty = tempfile::tempdir().unwrap();
        let missing = NodeParts::locate_in(empty.path()).unwrap_err().to_string();
        assert!(missing.contains("/kubernetes-node/v1"), "{missing}");
    }

    #[test]
    fn a_control_plane_is_one_folder_or_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_path_buf();
        let assets = ControlPlaneParts::Assets(path.clone());
        let missing = assets.kubernetes("kube-apiserver").unwrap_err().to_string();
        assert!(missing.contains("unset KUBEBUILDER_ASSETS"), "{missing}");
        std::fs::write(path.join("etcd"), "").unwrap();
        assert_eq!(assets.etcd().unwrap(), path.join("etcd"));
        let missing = ControlPlaneParts::Cache(path).etcd().unwrap_err().to_string();
        assert!(missing.contains("/etcd/v3"), "{missing}");
    }
}
