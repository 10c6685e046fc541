//! ONNX Runtime: installs the pinned library from its published wheel into the cache, where the worker looks
//! for it.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::packages::{Form, Package};
use crate::process;
use crate::project::Project;

/// The file of the `separation` crate with the pinned version.
const PIN: &str = "separation/onnxruntime.toml";

/// Installed members of a wheel: libraries, and the notices that must be distributed with them.
const FILES: [&str; 3] = [
    "onnxruntime/capi/libonnxruntime*.so*",
    "onnxruntime/LICENSE",
    "onnxruntime/ThirdPartyNotices.txt",
];

/// One of the two published builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    Cpu,
    Cuda,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Pin {
    version: String,
    python_version: String,
    platform: String,
    cpu: PinnedWheel,
    cuda: PinnedWheel,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinnedWheel {
    package: String,
    /// By architecture of the wheel, as named by Rust and wheels.
    sha256: BTreeMap<String, String>,
}

/// Installs one build of ONNX Runtime, unless it exists, and returns its directory.
pub(crate) fn install(project: &Project, build: Build) -> Result<PathBuf> {
    let pin = Pin::read(project)?;
    let package = pin.package(build, ARCH)?;
    let directory = project
        .cache()
        .install(&pin.directory(build), &stamp(&package), |filling| {
            package.fetch_files(project, &FILES, filling)?;
            let versioned = filling.join(format!("libonnxruntime.so.{}", pin.version));
            fs::rename(&versioned, filling.join("libonnxruntime.so"))
                .with_context(|| format!("the wheel has no {}", versioned.display()))
        })
        .with_context(|| format!("cannot install ONNX Runtime {}", pin.version))?;
    println!("ONNX Runtime {} is in {}", pin.version, directory.display());
    Ok(directory)
}

/// The package of one build.
pub(crate) fn package(project: &Project, build: Build) -> Result<Package> {
    Pin::read(project)?.package(build, ARCH)
}

/// Identifies what a directory was installed from.
fn stamp(package: &Package) -> String {
    format!("{} {}", package.sha256, FILES.join(" "))
}

impl Pin {
    fn read(project: &Project) -> Result<Self> {
        let path = project.path(PIN);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).with_context(|| format!("{PIN} is invalid"))
    }

    fn package(&self, build: Build, architecture: &str) -> Result<Package> {
        let wheel = match build {
            Build::Cpu => &self.cpu,
            Build::Cuda => &self.cuda,
        };
        let sha256 = wheel.sha256.get(architecture).with_context(|| {
            let pinned: Vec<_> = wheel.sha256.keys().map(String::as_str).collect();
            format!(
                "{PIN} pins {} for {}, not for {architecture}",
                wheel.package,
                pinned.join(" and ")
            )
        })?;
        Ok(Package {
            name: wheel.package.clone(),
            version: self.version.clone(),
            form: Form::WheelFor {
                python: self.python_version.clone(),
                platform: format!("{}_{architecture}", self.platform),
            },
            sha256: sha256.clone(),
        })
    }

    /// Its path in the cache. `find` in `separation/src/onnx/library.rs` must compose the same path;
    /// otherwise the worker's tests do not find the library that `cargo xtask test` installed.
    fn directory(&self, build: Build) -> String {
        let build = match build {
            Build::Cpu => "cpu",
            Build::Cuda => "cuda",
        };
        format!("onnxruntime/{}/{build}", self.version)
    }
}

/// Lists the further libraries that the GPU build needs, and where the dynamic loader finds each.
pub(crate) fn report_cuda_libraries(project: &Project, directory: &Path) -> Result<()> {
    let provider = directory.join("libonnxruntime_providers_cuda.so");
    let listing = process::read(project.command("ldd").arg(&provider))
        .context("cannot list the libraries that the CUDA provider needs")?;
    println!("the CUDA provider needs these libraries from the NVIDIA driver and the CUDA toolkit:");
    for (library, path) in nvidia_libraries(&listing) {
        println!("  {library}: {}", path.unwrap_or("NOT FOUND"));
    }
    println!("  libcudnn.so.9 (cuDNN, loaded when the first convolution runs)");
    println!(
        "the loader searches LD_LIBRARY_PATH, then the directories of /etc/ld.so.conf (`ldconfig -p` lists \
         them)"
    );
    Ok(())
}

/// The NVIDIA libraries in the output of `ldd`, each with its path if found.
fn nvidia_libraries(ldd: &str) -> Vec<(&str, Option<&str>)> {
    ldd.lines()
        .filter_map(|line| line.trim().split_once(" => "))
        .filter(|(library, _)| library.starts_with("libcu") || library.starts_with("libnv"))
        .map(|(library, path)| {
            let path = path.split(" (0x").next().filter(|path| *path != "not found");
            (library, path)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_pin_gives_one_wheel_for_each_build_and_architecture() {
        let pin = Pin::parse(include_str!("../../separation/onnxruntime.toml")).unwrap();
        for (build, directory, package, architectures) in [
            (Build::Cpu, "cpu", "onnxruntime", &["x86_64", "aarch64"][..]),
            (Build::Cuda, "cuda", "onnxruntime-gpu", &["x86_64"]),
        ] {
            assert_eq!(
                pin.directory(build),
                format!("onnxruntime/{}/{directory}", pin.version)
            );
            for architecture in architectures {
                let wheel = pin.package(build, architecture).unwrap();
                assert_eq!((wheel.name.as_str(), wheel.sha256.len()), (package, 64));
                let Form::WheelFor { platform, .. } = wheel.form else {
                    panic!("{:?} is not platform specific", wheel.form)
                };
                assert!(platform.ends_with(architecture), "{platform}");
            }
        }
        let refused = pin.package(Build::Cuda, "aarch64").unwrap_err().to_string();
        assert!(
            refused.ends_with("pins onnxruntime-gpu for x86_64, not for aarch64"),
            "{refused}"
        );
    }

    #[test]
    fn a_pin_with_an_unknown_key_is_refused() {
        assert!(Pin::parse("version = '1'\nsha = 'x'").is_err());
    }

    #[test]
    fn nvidia_libraries_are_listed_with_their_paths() {
        let listing = "\tlinux-vdso.so.1 (0x00007fe7)\n\tlibcublas.so.13 => not found\n\
                       \tlibcuda.so.1 => /usr/lib/libcuda.so.1 (0x00007fe7)\n\tlibm.so.6 => /lib/libm.so.6 (0x0)\n";
        assert_eq!(
            nvidia_libraries(listing),
            [
                ("libcublas.so.13", None),
                ("libcuda.so.1", Some("/usr/lib/libcuda.so.1"))
            ]
        );
    }
}
