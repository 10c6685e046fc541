//! Parts that are built from Go modules. A folder of `testbed/` pins each module and all that it asks for, by its
//! `go.mod` and `go.sum`; the cache gets one folder of programs per module and version.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::cache::sha256;
use crate::process;
use crate::project::Project;
use crate::system::{self, Need};

/// Programs of one module.
///
/// One more program is one more line in `programs` and one more `tool` in `go.mod` (then `go mod tidy` in its folder).
#[derive(Debug)]
pub(crate) struct Programs {
    /// Its folder in the cache.
    name: &'static str,
    /// Its folder in `testbed/`, and its name in `testbed/parts.toml`.
    folder: &'static str,
    module: &'static str,
    /// Names of programs, each with its package.
    programs: &'static [(&'static str, &'static str)],
    /// Variables that say the version, where the module does not know it by itself.
    versioned: &'static [(&'static str, OfVersion)],
    c: UseOfC,
    tags: &'static [&'static str],
    /// How long the first build takes on two cores.
    takes: &'static str,
}

/// What of a version is said.
type OfVersion = fn(&str) -> &str;

/// Whether a program has parts in C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UseOfC {
    /// It has none, and runs on any Linux.
    None,
    /// It is linked with libraries of this system.
    Libraries,
}

pub(crate) const VERSITYGW: Programs = Programs {
    name: "versitygw",
    folder: "versitygw",
    module: "github.com/versity/versitygw",
    programs: &[("versitygw", "github.com/versity/versitygw/cmd/versitygw")],
    versioned: &[],
    c: UseOfC::None,
    tags: &[],
    takes: "a minute or two",
};

pub(crate) const ETCD: Programs = Programs {
    name: "etcd",
    folder: "etcd",
    module: "go.etcd.io/etcd/server/v3",
    programs: &[("etcd", "go.etcd.io/etcd/server/v3")],
    versioned: &[],
    c: UseOfC::None,
    tags: &[],
    takes: "half a minute",
};

pub(crate) const KUBERNETES: Programs = Programs {
    name: "kubernetes",
    folder: "kubernetes",
    module: "k8s.io/kubernetes",
    programs: &[
        ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        (
            "kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
        ),
    ],
    versioned: KUBERNETES_VERSION,
    c: UseOfC::None,
    tags: &[],
    takes: "four minutes or five",
};

/// What a node takes beside the control plane. Of the same module, and apart from it, for not every machine can be one.
pub(crate) const KUBERNETES_NODE: Programs = Programs {
    name: "kubernetes-node",
    folder: "kubernetes",
    module: "k8s.io/kubernetes",
    programs: &[
        ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
        ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
        ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
        ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ],
    versioned: KUBERNETES_VERSION,
    c: UseOfC::None,
    tags: &[],
    takes: "two minutes",
};

/// Without them it says v0.0.0, and takes itself for older than every feature that it has.
const KUBERNETES_VERSION: &[(&str, OfVersion)] = &[
    ("k8s.io/component-base/version.gitVersion", |version| version),
    ("k8s.io/component-base/version.gitMajor", |version| {
        number(version, 0)
    }),
    ("k8s.io/component-base/version.gitMinor", |version| {
        number(version, 1)
    }),
];

pub(crate) const CONTAINERD: Programs = Programs {
    name: "containerd",
    folder: "containerd",
    module: "github.com/containerd/containerd/v2",
    programs: &[
        ("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
        (
            "containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        ),
        ("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
    ],
    versioned: &[],
    c: UseOfC::None,
    tags: &["no_btrfs"],
    takes: "two minutes",
};

pub(crate) const RUNC: Programs = Programs {
    name: "runc",
    folder: "runc",
    module: "github.com/opencontainers/runc",
    programs: &[("runc", "github.com/opencontainers/runc")],
    versioned: &[],
    // What it does between two processes, before Go may start, is in C.
    c: UseOfC::Libraries,
    tags: &["seccomp"],
    takes: "half a minute",
};

pub(crate) const HELM: Programs = Programs {
    name: "helm",
    folder: "helm",
    module: "helm.sh/helm/v4",
    programs: &[("helm", "helm.sh/helm/v4/cmd/helm")],
    versioned: &[],
    c: UseOfC::None,
    tags: &[],
    takes: "a minute or two",
};

impl Programs {
    /// Builds them, unless they are there, and says where.
    pub(crate) fn install(&self, project: &Project, version: &str) -> Result<()> {
        let name = self.name;
        let directory = self
            .build(project, version)
            .with_context(|| format!("cannot install {name} {version}"))?;
        println!("{name} {version} is in {}", directory.display());
        Ok(())
    }

    fn build(&self, project: &Project, version: &str) -> Result<PathBuf> {
        let folder = project.path(format!("testbed/{}", self.folder));
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let manifest = read("go.mod")?;
        ensure!(
            self.is_required(&manifest, version),
            "testbed/{}/go.mod names another version than testbed/parts.toml, {version}",
            self.folder
        );
        let said = self.said(version);
        let tags = self.tags.join(",");
        let stamp = sha256(format!("{manifest}{}{said}{tags}", read("go.sum")?).as_bytes());
        let cached = format!("{}/{version}", self.name);
        project.cache().install(&cached, &stamp, |filling| {
            system::ensure(self.needs())?;
            println!("building {} {version} ({}, once)", self.name, self.takes);
            for (program, package) in self.programs {
                let mut go = project.command("go");
                go.current_dir(&folder)
                    .env("CGO_ENABLED", if self.c == UseOfC::None { "0" } else { "1" })
                    .args(["build", "-mod=readonly", "-trimpath"])
                    .arg(format!("-tags={tags}"))
                    .arg(format!("-ldflags=-s -w{said}"))
                    .arg("-o")
                    .arg(filling.join(program))
                    .arg(package);
                process::run(&mut go)
                    .context("fix: check the network, and the module proxy that `go env GOPROXY` shows")?;
            }
            Ok(())
        })
    }

    fn needs(&self) -> &'static [Need] {
        match self.c {
            UseOfC::None => &[Need::Go],
            UseOfC::Libraries => &[Need::Go, Need::Compilers, Need::Seccomp],
        }
    }

    /// What the linker is told of the version.
    fn said(&self, version: &str) -> String {
        self.versioned
            .iter()
            .map(|(variable, value)| format!(" -X {variable}={}", value(version)))
            .collect()
    }

    /// Whether a `go.mod` asks for this version of the module.
    fn is_required(&self, manifest: &str, version: &str) -> bool {
        manifest.lines().any(|line| {
            let mut words = line.split_whitespace().skip_while(|word| *word == "require");
            words.next() == Some(self.module) && words.next() == Some(version)
        })
    }
}

/// A number of a version: `number("v1.36.3", 1)` is `36`.
fn number(version: &str, index: usize) -> &str {
    version
        .trim_start_matches('v')
        .split('.')
        .nth(index)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFESTS: [(&Programs, &str); 7] = [
        (&VERSITYGW, include_str!("../../testbed/versitygw/go.mod")),
        (&ETCD, include_str!("../../testbed/etcd/go.mod")),
        (&KUBERNETES, include_str!("../../testbed/kubernetes/go.mod")),
        (&KUBERNETES_NODE, include_str!("../../testbed/kubernetes/go.mod")),
        (&CONTAINERD, include_str!("../../testbed/containerd/go.mod")),
        (&RUNC, include_str!("../../testbed/runc/go.mod")),
        (&HELM, include_str!("../../testbed/helm/go.mod")),
    ];

    /// That every program is a tool is also what makes the stamp change with the list.
    #[test]
    fn every_manifest_pins_every_program() {
        let pins: toml::Table = toml::from_str(include_str!("../../testbed/parts.toml")).unwrap();
        for (programs, manifest) in MANIFESTS {
            let version = pins[programs.folder]["version"].as_str().unwrap();
            assert!(programs.is_required(manifest, version), "{programs:?}");
            assert!(!programs.is_required(manifest, "v1"), "{programs:?}");
            for (name, package) in programs.programs {
                let is_tool =
                    |line: &str| line.trim_start().strip_prefix("tool ").unwrap_or(line).trim() == *package;
                assert!(manifest.lines().any(is_tool), "{name} is no tool");
            }
        }
    }

    #[test]
    fn kubernetes_says_its_version() {
        assert_eq!(
            KUBERNETES.said("v1.36.3"),
            " -X k8s.io/component-base/version.gitVersion=v1.36.3 \
             -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"
        );
        assert_eq!(VERSITYGW.said("v1.8.0"), "");
    }
}
