//! Locates the components that `cargo xtask` installed. Installs nothing.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

const PINS: &str = include_str!("../components.toml");
/// The reason why this machine cannot run a node, set by `cargo xtask test`.
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
    grafana: Pin,
    kafka_python: Pin,
    playwright_core: Pin,
    schemathesis: Pin,
    msk_signer: Pin,
}

#[derive(Debug, Deserialize)]
struct Pin {
    version: String,
}

/// Paths of installed components.
#[derive(Debug, Clone)]
pub struct Components {
    pub(crate) kafka_lib: PathBuf,
    pub(crate) versitygw: PathBuf,
    kafka_python: PathBuf,
}

impl Components {
    /// The installation directory.
    ///
    /// # Errors
    /// If neither the environment nor a home directory gives one.
    pub fn cache() -> Result<PathBuf> {
        cache_dir()
    }

    /// Locates them in `SEPARATION_CACHE_DIR`, else `separation` in `XDG_CACHE_HOME`, else
    /// `~/.cache/separation`.
    ///
    /// # Errors
    /// If one is missing.
    pub fn locate() -> Result<Self> {
        Self::locate_in(&cache_dir()?)
    }

    /// uvr5-api's Kafka client, for `PYTHONPATH`.
    pub fn kafka_python(&self) -> &Path {
        &self.kafka_python
    }

    /// The Helm program, located on demand.
    ///
    /// # Errors
    /// If it is missing.
    pub fn helm() -> Result<PathBuf> {
        component(&cache_dir()?, format!("helm/{}/helm", pins()?.helm.version))
    }

    /// The program that checks a dashboard on its standard input, located on demand.
    ///
    /// # Errors
    /// If it is missing.
    pub fn check_dashboard() -> Result<PathBuf> {
        let directory = format!("grafana/{}", pins()?.grafana.version);
        component(&cache_dir()?, format!("{directory}/check-dashboard"))
    }

    /// The kubectl program, which is installed with the components of a node.
    ///
    /// # Errors
    /// If it is missing.
    pub fn kubectl() -> Result<PathBuf> {
        let directory = format!("kubernetes-node/{}", pins()?.kubernetes.version);
        component(&cache_dir()?, format!("{directory}/kubectl"))
    }

    /// The directory `node_modules` with the packages of tests in a browser, located on demand.
    ///
    /// # Errors
    /// If it is missing.
    pub fn browser_packages() -> Result<PathBuf> {
        let version = pins()?.playwright_core.version;
        component(&cache_dir()?, format!("browser/{version}/node_modules"))
    }

    /// The Python interpreter that has Schemathesis, located on demand.
    ///
    /// # Errors
    /// If it is missing.
    pub fn schemathesis() -> Result<PathBuf> {
        let version = pins()?.schemathesis.version;
        component(&cache_dir()?, format!("schemathesis/{version}/bin/python"))
    }

    /// The Python interpreter that has AWS's signer of tokens for MSK, located on demand.
    ///
    /// # Errors
    /// If it is missing.
    pub fn msk_signer() -> Result<PathBuf> {
        let version = pins()?.msk_signer.version;
        component(&cache_dir()?, format!("msk-signer/{version}/bin/python"))
    }

    fn locate_in(cache: &Path) -> Result<Self> {
        let pins = pins()?;
        Ok(Self {
            kafka_lib: component(cache, format!("kafka/{}/lib", pins.kafka.version))?,
            versitygw: component(cache, format!("versitygw/{}/versitygw", pins.versitygw.version))?,
            kafka_python: component(cache, format!("kafka-python/{}", pins.kafka_python.version))?,
        })
    }
}

/// Location of the programs of a Kubernetes control plane; each is located on demand, because not every setup
/// has all.
#[derive(Debug, Clone)]
pub(crate) enum ControlPlaneComponents {
    /// The directory in `KUBEBUILDER_ASSETS`.
    Assets(PathBuf),
    /// The cache.
    Cache(PathBuf),
}

impl ControlPlaneComponents {
    pub(crate) fn locate() -> Result<Self> {
        Ok(match set("KUBEBUILDER_ASSETS") {
            Some(directory) => Self::Assets(directory),
            None => Self::Cache(cache_dir()?),
        })
    }

    pub(crate) fn etcd(&self) -> Result<PathBuf> {
        self.program("etcd", |pins| format!("etcd/{}", pins.etcd.version))
    }

    /// Path of a program of Kubernetes itself.
    pub(crate) fn kubernetes(&self, program: &str) -> Result<PathBuf> {
        self.program(program, |pins| format!("kubernetes/{}", pins.kubernetes.version))
    }

    fn program(&self, name: &str, cached: impl Fn(&Pins) -> String) -> Result<PathBuf> {
        match self {
            Self::Assets(directory) => {
                let path = directory.join(name);
                ensure!(
                    path.exists(),
                    "{} is missing; fix: install it there, or unset KUBEBUILDER_ASSETS and run `cargo xtask setup --tests`",
                    path.display()
                );
                Ok(path)
            }
            Self::Cache(cache) => component(cache, format!("{}/{name}", cached(&pins()?))),
        }
    }
}

/// Why tests that need a [`crate::Node`] are skipped here: the reason from `cargo xtask test`, or else no
/// root rights or missing components. In CI they are never skipped and fail instead.
pub fn no_node() -> Option<String> {
    if let Some(reason) = set(NO_NODE) {
        return Some(reason.display().to_string());
    }
    if set("CI").is_some_and(|value| value != Path::new("false")) {
        return None;
    }
    if !rustix::process::geteuid().is_root() {
        return Some("a node needs containers, which require root".to_owned());
    }
    let cache = cache_dir().and_then(|cache| NodeComponents::locate_in(&cache));
    cache.err().map(|missing| format!("{missing:#}"))
}

/// Components of a node, always from the cache, whatever control plane is used.
#[derive(Debug, Clone)]
pub(crate) struct NodeComponents {
    pub(crate) kubelet: PathBuf,
    pub(crate) kube_proxy: PathBuf,
    pub(crate) kube_scheduler: PathBuf,
    /// containerd, with its shim in the same directory.
    pub(crate) containerd: PathBuf,
    /// The client of containerd.
    pub(crate) ctr: PathBuf,
    pub(crate) runc: PathBuf,
    /// The program and image that hold a pod together.
    pub(crate) pause: PathBuf,
    pub(crate) pause_image: Image,
    /// An image with a shell and basic tools.
    pub(crate) busybox_image: Image,
}

/// An image and its archive.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) archive: PathBuf,
}

impl NodeComponents {
    pub(crate) fn locate() -> Result<Self> {
        if let Some(reason) = set(NO_NODE) {
            bail!("this machine cannot run a node: {}", reason.display());
        }
        Self::locate_in(&cache_dir()?)
    }

    /// The image of a server, located on demand.
    pub(crate) fn server_image(server: &str) -> Result<Image> {
        let tag = pins()?.images.version;
        Ok(Image {
            name: format!("separation.test/{server}:{tag}"),
            archive: component(&cache_dir()?, format!("server-images/{tag}/{server}.tar"))?,
        })
    }

    fn locate_in(cache: &Path) -> Result<Self> {
        let pins = pins()?;
        let node = |name: &str| {
            let directory = format!("kubernetes-node/{}", pins.kubernetes.version);
            component(cache, format!("{directory}/{name}"))
        };
        let containerd =
            |name: &str| component(cache, format!("containerd/{}/{name}", pins.containerd.version));
        let tag = &pins.images.version;
        let image = |name: &str| {
            anyhow::Ok(Image {
                name: format!("separation.test/{name}:{tag}"),
                archive: component(cache, format!("images/{tag}/{name}.tar"))?,
            })
        };
        Ok(Self {
            kubelet: node("kubelet")?,
            kube_proxy: node("kube-proxy")?,
            kube_scheduler: node("kube-scheduler")?,
            containerd: containerd("containerd")?,
            ctr: containerd("ctr")?,
            runc: component(cache, format!("runc/{}/runc", pins.runc.version))?,
            pause: component(cache, format!("images/{tag}/pause"))?,
            pause_image: image("pause")?,
            busybox_image: image("busybox")?,
        })
    }
}

fn pins() -> Result<Pins> {
    toml::from_str(PINS).context("testbed/components.toml is invalid")
}

fn component(cache: &Path, relative: String) -> Result<PathBuf> {
    let path = cache.join(relative);
    ensure!(
        path.exists(),
        "{} is missing; fix: `cargo xtask setup --tests` installs it",
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
    fn a_missing_component_is_named_with_the_command_that_installs_it() {
        let empty = tempfile::tempdir().unwrap();
        let missing = Components::locate_in(empty.path()).unwrap_err().to_string();
        assert!(missing.contains("/kafka/4"), "{missing}");
        assert!(
            missing.ends_with("`cargo xtask setup --tests` installs it"),
            "{missing}"
        );
    }

    #[test]
    fn a_node_has_several_components() {
        let empty = tempfile::tempdir().unwrap();
        let missing = NodeComponents::locate_in(empty.path()).unwrap_err().to_string();
        assert!(missing.contains("/kubernetes-node/v1"), "{missing}");
    }

    #[test]
    fn the_trial_runs_the_versions_that_tests_use() {
        let trial = include_str!("../../deploy/trial.yaml");
        let pins = pins().unwrap();
        for image in [
            format!("apache/kafka:{}", pins.kafka.version),
            format!("versity/versitygw:{}", pins.versitygw.version),
        ] {
            assert!(trial.contains(&format!("image: {image}\n")), "{image}");
        }
    }

    #[test]
    fn a_control_plane_is_located_in_one_directory_or_the_cache() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_path_buf();
        let assets = ControlPlaneComponents::Assets(path.clone());
        let missing = assets.kubernetes("kube-apiserver").unwrap_err().to_string();
        assert!(missing.contains("unset KUBEBUILDER_ASSETS"), "{missing}");
        std::fs::write(path.join("etcd"), "").unwrap();
        assert_eq!(assets.etcd().unwrap(), path.join("etcd"));
        let missing = ControlPlaneComponents::Cache(path)
            .etcd()
            .unwrap_err()
            .to_string();
        assert!(missing.contains("/etcd/v3"), "{missing}");
    }
}
