//! The real components for tests: Kafka, Kubernetes and its node, an S3 server, Helm, Grafana's types, Python's Kafka
//! client, Schemathesis, AWS's signer for MSK and the packages of tests in a browser, installed into the cache.
//!
//! Never starts any of them: the testbed does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::cache::{sha256, sha256_file};
use crate::go;
use crate::node_images;
use crate::packages::{Form, Package};
use crate::process;
use crate::project::Project;
use crate::python::create_environment;
use crate::server_images;
use crate::system::{self, Need};

/// The testbed reads the same file and must compose the same paths; otherwise its tests find nothing.
const PINS: &str = include_str!("../../testbed/components.toml");
const KAFKA_POM: &str = "testbed/kafka/pom.xml";
const KAFKA_JARS: &str = "testbed/kafka/jars.sha256";
const BROWSER_PACKAGES: &str = "testbed/browser/package.json";
const BROWSER_LOCK: &str = "testbed/browser/package-lock.json";
const SCHEMATHESIS: &str = "testbed/schemathesis/requirements.txt";
const MSK_SIGNER: &str = "testbed/msk-signer/requirements.txt";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
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
    kafka_python: PinnedWheel,
    playwright_core: Pin,
    schemathesis: Pin,
    msk_signer: Pin,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    version: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinnedWheel {
    version: String,
    sha256: String,
}

/// Installs every component that any machine can run, unless it exists.
pub(crate) fn install(project: &Project) -> Result<()> {
    let pins = parse(PINS)?;
    let kafka = install_kafka(project, &pins.kafka.version)
        .with_context(|| format!("cannot install Kafka {}", pins.kafka.version))?;
    println!("Kafka {} is in {}", pins.kafka.version, kafka.display());
    go::VERSITYGW.install(project, &pins.versitygw.version)?;
    match project.kubernetes_assets() {
        Some(assets) => println!("using Kubernetes from KUBEBUILDER_ASSETS: {}", assets.display()),
        None => {
            go::ETCD.install(project, &pins.etcd.version)?;
            go::KUBERNETES.install(project, &pins.kubernetes.version)?;
        }
    }
    go::HELM.install(project, &pins.helm.version)?;
    go::GRAFANA.install(project, &pins.grafana.version)?;
    let kafka_python = install_kafka_python(project, &pins.kafka_python)
        .with_context(|| format!("cannot install kafka-python {}", pins.kafka_python.version))?;
    println!(
        "kafka-python {} is in {}",
        pins.kafka_python.version,
        kafka_python.display()
    );
    let browser = install_browser_packages(project, &pins.playwright_core.version)
        .with_context(|| format!("cannot install playwright-core {}", pins.playwright_core.version))?;
    println!(
        "playwright-core {} is in {}",
        pins.playwright_core.version,
        browser.display()
    );
    let environments = [
        ("schemathesis", SCHEMATHESIS, &pins.schemathesis.version),
        ("msk-signer", MSK_SIGNER, &pins.msk_signer.version),
    ];
    for (name, requirements, version) in environments {
        let installed = install_environment(project, name, requirements, version)
            .with_context(|| format!("cannot install {name} {version}"))?;
        println!("{name} {version} is in {}", installed.display());
    }
    Ok(())
}

/// Installs the components of a node, unless they exist; after [`install`].
pub(crate) fn install_node(project: &Project) -> Result<()> {
    let pins = parse(PINS)?;
    system::ensure(system::FOR_NODES)?;
    go::KUBERNETES_NODE.install(project, &pins.kubernetes.version)?;
    go::CONTAINERD.install(project, &pins.containerd.version)?;
    go::RUNC.install(project, &pins.runc.version)?;
    let images = node_images::install(project, &pins.images.version).with_context(|| {
        format!(
            "cannot create the images of a node, version {}",
            pins.images.version
        )
    })?;
    println!("the images of a node are in {}", images.display());
    let jars = format!("kafka/{}/lib", pins.kafka.version);
    let versitygw = format!("versitygw/{}/versitygw", pins.versitygw.version);
    let [jars, versitygw] = [jars, versitygw].map(|path| project.cache().path(path));
    let images = server_images::install(project, &pins.images.version, &jars, &versitygw)
        .context("cannot create the images of Kafka and versitygw")?;
    println!("the images of Kafka and versitygw are in {}", images.display());
    Ok(())
}

/// The cache directories of kubectl and Helm, once a node is installed.
pub(crate) fn tools(project: &Project) -> Result<[PathBuf; 2]> {
    let pins = parse(PINS)?;
    Ok([
        project
            .cache()
            .path(format!("kubernetes-node/{}", pins.kubernetes.version)),
        project.cache().path(format!("helm/{}", pins.helm.version)),
    ])
}

/// Installs Helm, unless it exists, and returns the program.
pub(crate) fn helm(project: &Project) -> Result<PathBuf> {
    let version = parse(PINS)?.helm.version;
    go::HELM.install(project, &version)?;
    Ok(project.cache().path(format!("helm/{version}/helm")))
}

fn parse(text: &str) -> Result<Pins> {
    toml::from_str(text).context("testbed/components.toml is invalid")
}

/// The jars, in one directory `lib`.
fn install_kafka(project: &Project, version: &str) -> Result<PathBuf> {
    let pom = project.path(KAFKA_POM);
    let jars = read(&project.path(KAFKA_JARS))?;
    let stamp = sha256(format!("{}{jars}", read(&pom)?).as_bytes());
    project
        .cache()
        .install(&format!("kafka/{version}"), &stamp, |filling| {
            system::ensure(&[Need::Java, Need::Maven])?;
            println!("downloading Kafka {version}");
            let lib = filling.join("lib");
            let mut maven = project.command("mvn");
            maven
                .args(["--quiet", "--batch-mode", "--file"])
                .arg(&pom)
                .arg(format!("-Dkafka.version={version}"))
                .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
                .arg(format!("-DoutputDirectory={}", lib.display()));
            process::run(&mut maven)
                .context("fix: check the network, and the mirror in ~/.m2/settings.xml")?;
            check_jars(&lib, &jars)
        })
}

/// Checks that `directory` contains exactly the listed files, with the listed hashes.
///
/// Maven itself only compares with hashes from the same source as the jars.
fn check_jars(directory: &Path, list: &str) -> Result<()> {
    let mut pinned = list
        .lines()
        .map(|line| {
            let (hash, name) = line
                .split_once("  ")
                .with_context(|| format!("{KAFKA_JARS} has an invalid line: `{line}`"))?;
            Ok((name, hash))
        })
        .collect::<Result<BTreeMap<_, _>>>()?;
    for entry in fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let file = entry.context("cannot list the jars")?;
        let name = file.file_name().to_string_lossy().into_owned();
        let Some(hash) = pinned.remove(name.as_str()) else {
            bail!("{name} is not one of the jars that {KAFKA_JARS} pins");
        };
        let found = sha256_file(&file.path())?;
        ensure!(
            found == hash,
            "{name} is not the pinned jar: its SHA-256 is {found}, not {hash}; \
             fix: check Maven's mirror (~/.m2/settings.xml), and empty ~/.m2/repository"
        );
    }
    let missing: Vec<_> = pinned.into_keys().collect();
    ensure!(
        missing.is_empty(),
        "Maven did not download {}, which {KAFKA_JARS} pins",
        missing.join(", ")
    );
    Ok(())
}

/// A directory for `PYTHONPATH`.
fn install_kafka_python(project: &Project, pin: &PinnedWheel) -> Result<PathBuf> {
    let package = Package {
        name: "kafka-python".to_owned(),
        version: pin.version.clone(),
        form: Form::Wheel,
        sha256: pin.sha256.clone(),
    };
    project
        .cache()
        .install(&format!("kafka-python/{}", pin.version), &pin.sha256, |filling| {
            system::ensure(&[Need::Pip])?;
            package.unpack(project, filling)
        })
}

/// A virtual environment with the packages of a file of requirements.
fn install_environment(project: &Project, name: &str, requirements: &str, version: &str) -> Result<PathBuf> {
    let stamp = sha256(read(&project.path(requirements))?.as_bytes());
    project
        .cache()
        .install(&format!("{name}/{version}"), &stamp, |filling| {
            create_environment(project, requirements, filling)
        })
}

/// A directory `node_modules` with exactly the packages that the lock file pins by checksum; none of their scripts run.
fn install_browser_packages(project: &Project, version: &str) -> Result<PathBuf> {
    let lock = read(&project.path(BROWSER_LOCK))?;
    project.cache().install(
        &format!("browser/{version}"),
        &sha256(lock.as_bytes()),
        |filling| {
            system::ensure(&[Need::Node])?;
            println!("downloading playwright-core {version} and the other packages in {BROWSER_LOCK}");
            for path in [BROWSER_PACKAGES, BROWSER_LOCK].map(|path| project.path(path)) {
                let name = path.file_name().context("the path of a file")?;
                fs::copy(&path, filling.join(name))
                    .with_context(|| format!("cannot copy {}", path.display()))?;
            }
            let mut npm = project.command("npm");
            npm.current_dir(filling).args([
                "ci",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--no-update-notifier",
                "--loglevel=error",
            ]);
            process::run(&mut npm)
                .context("fix: check the network, and the registry that `npm config get registry` shows")
        },
    )
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_pins_are_complete() {
        let pins = parse(PINS).unwrap();
        assert_eq!(pins.kafka_python.sha256.len(), 64);
        let jars = include_str!("../../testbed/kafka/jars.sha256");
        assert!(jars.contains(&format!("  kafka_2.13-{}.jar\n", pins.kafka.version)));
        let packages = include_str!("../../testbed/browser/package.json");
        let pinned = format!("\"playwright-core\": \"{}\"", pins.playwright_core.version);
        assert!(
            packages.contains(&pinned),
            "testbed/browser/package.json lacks {pinned}"
        );
        let environments = [
            (
                include_str!("../../testbed/schemathesis/requirements.txt"),
                format!("schemathesis=={} ", pins.schemathesis.version),
            ),
            (
                include_str!("../../testbed/msk-signer/requirements.txt"),
                format!("aws-msk-iam-sasl-signer-python=={} ", pins.msk_signer.version),
            ),
        ];
        for (requirements, pinned) in environments {
            assert!(
                requirements.contains(&pinned),
                "no file of requirements has {pinned}"
            );
        }
    }

    #[test]
    fn only_the_pinned_jars_are_accepted() {
        const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let check = |name: &str, content: &str| {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(name), content).unwrap();
            check_jars(dir.path(), &format!("{ABC}  a.jar\n")).map_err(|error| error.to_string())
        };
        check("a.jar", "abc").unwrap();
        let changed = check("a.jar", "abd").unwrap_err();
        assert!(changed.starts_with("a.jar is not the pinned jar"), "{changed}");
        let unknown = check("b.jar", "abc").unwrap_err();
        assert!(unknown.starts_with("b.jar is not one of the jars"), "{unknown}");
        let dir = tempfile::tempdir().unwrap();
        let missing = check_jars(dir.path(), &format!("{ABC}  a.jar\n"))
            .unwrap_err()
            .to_string();
        assert!(missing.starts_with("Maven did not download a.jar"), "{missing}");
    }
}
