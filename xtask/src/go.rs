//! Components built from Go modules. A directory of `testbed/` pins each module and its dependencies in
//! `go.mod` and `go.sum`; the cache has one directory of programs per module and version.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::cache::sha256;
use crate::process;
use crate::project::Project;
use crate::system::{self, Need};

/// The programs of one module.
///
/// To add a program, add a line to `programs` and a `tool` to `go.mod` (then run `go mod tidy` in its
/// directory).
#[derive(Debug)]
pub(crate) struct Programs {
    /// Its directory in the cache.
    name: &'static str,
    /// Its directory in `testbed/`, and its name in `testbed/components.toml`.
    directory: &'static str,
    module: &'static str,
    /// Names of the programs, each with its package.
    programs: &'static [(&'static str, &'static str)],
    /// Linker variables for the version, where the module does not set it itself.
    versioned: &'static [(&'static str, VersionPart)],
    c: CgoUse,
    tags: &'static [&'static str],
    /// Duration of the first build on two cores.
    takes: &'static str,
}

/// Selects a part of the version for a linker variable.
type VersionPart = fn(&str) -> &str;

/// Whether a program contains C code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CgoUse {
    /// No C code; runs on any Linux.
    None,
    /// Linked with libraries of this system.
    Libraries,
}

pub(crate) const VERSITYGW: Programs = Programs {
    name: "versitygw",
    directory: "versitygw",
    module: "github.com/versity/versitygw",
    programs: &[("versitygw", "github.com/versity/versitygw/cmd/versitygw")],
    versioned: &[],
    c: CgoUse::None,
    tags: &[],
    takes: "a minute or two",
};

pub(crate) const ETCD: Programs = Programs {
    name: "etcd",
    directory: "etcd",
    module: "go.etcd.io/etcd/server/v3",
    programs: &[("etcd", "go.etcd.io/etcd/server/v3")],
    versioned: &[],
    c: CgoUse::None,
    tags: &[],
    takes: "half a minute",
};

pub(crate) const KUBERNETES: Programs = Programs {
    name: "kubernetes",
    directory: "kubernetes",
    module: "k8s.io/kubernetes",
    programs: &[
        ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        (
            "kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
        ),
    ],
    versioned: KUBERNETES_VERSION,
    c: CgoUse::None,
    tags: &[],
    takes: "four minutes or five",
};

/// Components of a node besides the control plane. From the same module but separate, because not every
/// machine can run a node.
pub(crate) const KUBERNETES_NODE: Programs = Programs {
    name: "kubernetes-node",
    directory: "kubernetes",
    module: "k8s.io/kubernetes",
    programs: &[
        ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
        ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
        ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
        ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ],
    versioned: KUBERNETES_VERSION,
    c: CgoUse::None,
    tags: &[],
    takes: "two minutes",
};

/// Without them, the version is v0.0.0 and Kubernetes considers itself older than all of its features.
const KUBERNETES_VERSION: &[(&str, VersionPart)] = &[
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
    directory: "containerd",
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
    c: CgoUse::None,
    tags: &["no_btrfs"],
    takes: "two minutes",
};

pub(crate) const RUNC: Programs = Programs {
    name: "runc",
    directory: "runc",
    module: "github.com/opencontainers/runc",
    programs: &[("runc", "github.com/opencontainers/runc")],
    versioned: &[],
    // The code that runs between two processes, before Go may start, is written in C.
    c: CgoUse::Libraries,
    tags: &["seccomp"],
    takes: "half a minute",
};

pub(crate) const HELM: Programs = Programs {
    name: "helm",
    directory: "helm",
    module: "helm.sh/helm/v4",
    programs: &[("helm", "helm.sh/helm/v4/cmd/helm")],
    versioned: &[],
    c: CgoUse::None,
    tags: &[],
    takes: "a minute or two",
};

/// Our own program, which reads a dashboard with Grafana's types.
pub(crate) const GRAFANA: Programs = Programs {
    name: "grafana",
    directory: "grafana",
    module: "github.com/grafana/grafana-foundation-sdk/go",
    programs: &[("check-dashboard", "separation.dev/testbed/grafana")],
    versioned: &[],
    c: CgoUse::None,
    tags: &[],
    takes: "half a minute",
};

impl Programs {
    /// Builds the programs, unless they exist, and prints their directory.
    pub(crate) fn install(&self, project: &Project, version: &str) -> Result<()> {
        let name = self.name;
        let directory = self
            .build(project, version)
            .with_context(|| format!("cannot install {name} {version}"))?;
        println!("{name} {version} is in {}", directory.display());
        Ok(())
    }

    fn build(&self, project: &Project, version: &str) -> Result<PathBuf> {
        let directory = project.path(format!("testbed/{}", self.directory));
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let manifest = read("go.mod")?;
        ensure!(
            self.is_required(&manifest, version),
            "testbed/{}/go.mod has another version than testbed/components.toml, {version}",
            self.directory
        );
        let version_flags = self.version_flags(version);
        let tags = self.tags.join(",");
        // Only a program of our own has its source there.
        let source = std::fs::read_to_string(directory.join("main.go")).unwrap_or_default();
        let sums = read("go.sum")?;
        let stamp = sha256(format!("{manifest}{sums}{source}{version_flags}{tags}").as_bytes());
        let cached = format!("{}/{version}", self.name);
        project.cache().install(&cached, &stamp, |filling| {
            system::ensure(self.needs())?;
            println!("building {} {version} ({}, once)", self.name, self.takes);
            for (program, package) in self.programs {
                let mut go = project.command("go");
                go.current_dir(&directory)
                    .env("CGO_ENABLED", if self.c == CgoUse::None { "0" } else { "1" })
                    .args(["build", "-mod=readonly", "-trimpath"])
                    .arg(format!("-tags={tags}"))
                    .arg(format!("-ldflags=-s -w{version_flags}"))
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
            CgoUse::None => &[Need::Go],
            CgoUse::Libraries => &[Need::Go, Need::Compilers, Need::Seccomp],
        }
    }

    /// Linker arguments that set the version.
    fn version_flags(&self, version: &str) -> String {
        self.versioned
            .iter()
            .map(|(variable, value)| format!(" -X {variable}={}", value(version)))
            .collect()
    }

    /// Whether a `go.mod` requires this version of the module.
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

    const MANIFESTS: [(&Programs, &str); 8] = [
        (&VERSITYGW, include_str!("../../testbed/versitygw/go.mod")),
        (&ETCD, include_str!("../../testbed/etcd/go.mod")),
        (&KUBERNETES, include_str!("../../testbed/kubernetes/go.mod")),
        (&KUBERNETES_NODE, include_str!("../../testbed/kubernetes/go.mod")),
        (&CONTAINERD, include_str!("../../testbed/containerd/go.mod")),
        (&RUNC, include_str!("../../testbed/runc/go.mod")),
        (&HELM, include_str!("../../testbed/helm/go.mod")),
        (&GRAFANA, include_str!("../../testbed/grafana/go.mod")),
    ];

    /// Because every program is a tool, the stamp changes with the list.
    #[test]
    fn every_manifest_pins_every_program() {
        let pins: toml::Table = toml::from_str(include_str!("../../testbed/components.toml")).unwrap();
        for (programs, manifest) in MANIFESTS {
            let version = pins[programs.directory]["version"].as_str().unwrap();
            assert!(programs.is_required(manifest, version), "{programs:?}");
            assert!(!programs.is_required(manifest, "v1"), "{programs:?}");
            for (name, package) in programs.programs {
                let is_tool =
                    |line: &str| line.trim_start().strip_prefix("tool ").unwrap_or(line).trim() == *package;
                assert!(manifest.lines().any(is_tool), "{name} is not a tool");
            }
        }
    }

    #[test]
    fn the_linker_sets_the_version_of_kubernetes() {
        assert_eq!(
            KUBERNETES.version_flags("v1.36.3"),
            " -X k8s.io/component-base/version.gitVersion=v1.36.3 \
             -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"
        );
        assert_eq!(VERSITYGW.version_flags("v1.8.0"), "");
    }
}
