//! The Python wheel: the program as a script, the default model as package data, and ONNX Runtime as a dependency.
//!
//! The program looks for both among the packages of its environment: `separation/src/locations.rs`.

use std::env::consts::ARCH;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::command_line::copy;
use super::programs::{self, Worker};
use super::release::{Release, VERSION};
use crate::binaries::Profile;
use crate::names::Names;
use crate::onnx_runtime::{self, Build};
use crate::packages::Package;
use crate::project::Project;
use crate::python::install_environment;
use crate::{models, process};

/// The packer, which writes checksums and the archive.
const REQUIREMENTS: &str = "xtask/python/wheel/requirements.txt";

const DESCRIPTION: &str = include_str!("../../python/wheel/description.md");

/// The name of the package in names of files and directories; `separation/src/locations.rs` has it too.
const PACKAGE: &str = "separation_worker";

/// As ONNX Runtime's package.
const REQUIRES_PYTHON: &str = ">=3.11";

/// Of the libraries that every system with a manylinux tag has (PEP 600, and the policies of auditwheel), those that
/// compilers link.
const SYSTEM_LIBRARIES: [&str; 7] = [
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
];

/// Of the ZIP format, the earliest: the same files give the same wheel.
const SOURCE_DATE_EPOCH: &str = "315532800";

pub(super) fn write(release: &Release<'_>) -> Result<()> {
    let staging = release.project.cache().temporary_dir()?;
    let worker = programs::worker(release, staging.path())?;
    // The wheel of the tests' program is for this machine.
    if release.profile == Profile::Dist {
        check_libraries(release.project, &worker.program)?;
    }
    pack(release, &worker)
}

/// Packs the wheel of this program and model.
fn pack(release: &Release<'_>, worker: &Worker) -> Result<()> {
    let project = release.project;
    let tag = tag(&worker.program)?;
    let root = project.cache().temporary_dir()?;
    let scripts = root.path().join(format!("{PACKAGE}-{VERSION}.data/scripts"));
    fs::create_dir_all(&scripts).context("cannot create a directory of the wheel")?;
    let program = scripts.join("separation-worker");
    fs::copy(&worker.program, program).context("cannot copy the program")?;
    let models = root.path().join(PACKAGE).join("models");
    copy(&worker.models, &models::FILES, &models)?;
    let info = root.path().join(format!("{PACKAGE}-{VERSION}.dist-info"));
    copy(&project.path("."), &["LICENSE", "NOTICE"], &info.join("licenses"))?;
    let onnx_runtime = onnx_runtime::package(project, Build::Cpu)?;
    let generator =
        format!("Wheel-Version: 1.0\nGenerator: xtask {VERSION}\nRoot-Is-Purelib: false\nTag: {tag}\n");
    for (file, content) in [
        ("METADATA", metadata(&release.names, &onnx_runtime)),
        ("WHEEL", generator),
    ] {
        fs::write(info.join(file), content).with_context(|| format!("cannot write the wheel's {file}"))?;
    }
    let python = install_environment(project, "wheel", REQUIREMENTS)?;
    let mut packing = project.command(python);
    packing
        .env("SOURCE_DATE_EPOCH", SOURCE_DATE_EPOCH)
        .args(["-m", "wheel", "pack", "--dest-dir"])
        .arg(&release.directory)
        .arg(root.path());
    process::run(&mut packing)?;
    let wheel = release.path(&format!("{PACKAGE}-{VERSION}-{tag}.whl"));
    ensure!(wheel.is_file(), "no wheel {} was packed", wheel.display());
    Ok(())
}

/// The core metadata.
fn metadata(names: &Names, onnx_runtime: &Package) -> String {
    format!(
        "Metadata-Version: 2.4\n\
         Name: separation-worker\n\
         Version: {VERSION}\n\
         Summary: Splits songs into vocals and instrumental\n\
         Project-URL: Source, {source}\n\
         License-Expression: Apache-2.0 AND BSD-3-Clause AND MIT AND MPL-2.0\n\
         License-File: LICENSE\n\
         License-File: NOTICE\n\
         Classifier: Environment :: Console\n\
         Classifier: Operating System :: POSIX :: Linux\n\
         Classifier: Topic :: Multimedia :: Sound/Audio :: Analysis\n\
         Requires-Python: {REQUIRES_PYTHON}\n\
         Requires-Dist: {package}=={version}\n\
         Description-Content-Type: text/markdown\n\
         \n\
         {DESCRIPTION}",
        source = names.source_url,
        package = onnx_runtime.name,
        version = onnx_runtime.version,
    )
}

/// Fails if the program is linked with a library that the wheel's tag does not promise.
fn check_libraries(project: &Project, program: &Path) -> Result<()> {
    let mut reading = project.command("readelf");
    let printed = process::read(reading.args(["--wide", "--dynamic"]).arg(program))?;
    let other = other_libraries(&printed).join(", ");
    ensure!(
        other.is_empty(),
        "{} is linked with {other}, which systems with a manylinux tag may lack; fix: link it statically",
        program.display()
    );
    Ok(())
}

/// The libraries in the output of readelf that are not [`SYSTEM_LIBRARIES`] or the loader.
fn other_libraries(readelf: &str) -> Vec<&str> {
    let needed = readelf.lines().filter(|line| line.contains("(NEEDED)"));
    let names = needed.filter_map(|line| Some(line.split_once('[')?.1.trim_end_matches(']')));
    names
        .filter(|name| !SYSTEM_LIBRARIES.contains(name) && !name.starts_with("ld-linux-"))
        .collect()
}

/// The wheel's tag: for any Python, on systems whose C library is not older than the program needs.
fn tag(program: &Path) -> Result<String> {
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let minor = glibc_minor(&bytes)
        .with_context(|| format!("{} names no version of the C library", program.display()))?;
    Ok(format!("py3-none-manylinux_2_{minor}_{ARCH}"))
}

/// The highest N of the symbol versions `GLIBC_2.N` in a program.
fn glibc_minor(program: &[u8]) -> Option<u32> {
    const PREFIX: &[u8] = b"GLIBC_2.";
    let number = |rest: &[u8]| {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
        let digits: String = digits.map(|byte| char::from(*byte)).collect();
        digits.parse().ok()
    };
    let found = program.windows(PREFIX.len()).enumerate();
    let found = found.filter(|(_, window)| *window == PREFIX);
    found
        .filter_map(|(start, _)| number(&program[start + PREFIX.len()..]))
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wheel_is_for_the_newest_c_library_that_its_program_needs() {
        assert_eq!(
            glibc_minor(b"\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_2.2.5\0GLIBC_PRIVATE\0"),
            Some(34)
        );
        assert_eq!(glibc_minor(b"\0GLIBC_2.17"), Some(17));
        assert_eq!(glibc_minor(b"#!/bin/sh"), None);
    }

    #[test]
    fn a_wheel_needs_only_libraries_that_its_tag_promises() {
        let line =
            |name: &str| format!(" 0x0000000000000001 (NEEDED)             Shared library: [{name}]\n");
        let needed: String = ["libssl.so.3", "libc.so.6", "ld-linux-x86-64.so.2"]
            .map(line)
            .concat();
        let printed =
            format!("Dynamic section at offset 0xd58:\n{needed} 0x000000000000000c (INIT) 0x1000\n");
        assert_eq!(other_libraries(&printed), ["libssl.so.3"]);
    }

    #[test]
    fn a_wheel_requires_exactly_the_pinned_onnx_runtime() {
        let project = Project::locate().unwrap();
        let package = onnx_runtime::package(&project, Build::Cpu).unwrap();
        let text = metadata(&Names::read(&project).unwrap(), &package);
        let (head, description) = text.split_once("\n\n").unwrap();
        let required: Vec<_> = head
            .lines()
            .filter_map(|line| line.strip_prefix("Requires-Dist: "))
            .collect();
        assert_eq!(required, [format!("onnxruntime=={}", package.version)]);
        assert!(description.starts_with("# separation-worker\n"));
    }
}
