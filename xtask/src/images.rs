//! Builds the project's images from `Dockerfile.worker` and `Dockerfile.operator` without a Docker engine,
//! with programs that cargo built on this machine.
//!
//! No base image is downloaded: the base for libraries is made of Debian packages, once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::models;
use crate::onnx_runtime::{self, Build};
use crate::project::Project;
use crate::system::{self, Need};
use crate::{archive, process};

/// Debian release of the images' libraries: increase the second part when the recipe changes.
const BASE: &str = "bookworm";
const BASE_VERSION: &str = "1";
const BASE_NAME: &str = "localhost/debian:bookworm";

/// Where the Dockerfiles look for compiled programs. The same as their `READY`.
const READY: &str = "target/ready";

/// Directory of the archives `separation-worker.tar` and `separation-operator.tar`, under cargo's target
/// directory.
pub(crate) const DIRECTORY: &str = "images";
/// Default tag of the images.
pub(crate) const TAG: &str = "dev";

/// Which programs the images contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageProfile {
    /// The tests' builds, so that nothing is compiled twice.
    Tests,
    /// As shipped.
    Dist,
}

/// A built image.
#[derive(Debug)]
pub(crate) struct Image {
    /// Its name with host and tag, as used by pods.
    pub(crate) name: String,
    /// Its archive, as written by `docker save`.
    pub(crate) archive: PathBuf,
}

impl Image {
    /// Size of the archive, whose layers are not compressed.
    pub(crate) fn bytes(&self) -> Result<u64> {
        let archive = fs::metadata(&self.archive);
        Ok(archive.context("buildah left no archive")?.len())
    }
}

/// Size limits of released CPU images, in bytes; the operator in test images is larger.
pub(crate) const MAX_BYTES: [(&str, u64); 2] = [("worker", 150_000_000), ("operator", 50_000_000)];

/// Builds the worker's and the operator's image, in this order, with this tag.
///
/// Requires root, like a node: see `node::obstacle`.
pub(crate) fn build(project: &Project, profile: ImageProfile, tag: &str) -> Result<Vec<Image>> {
    system::ensure(system::FOR_BUILDING)?;
    system::ensure(&[Need::Images])?;
    prepare(project, profile)?;
    let buildah = Buildah::open(project)?;
    let built = MAX_BYTES
        .into_iter()
        .map(|(program, max_bytes)| {
            let image = Image {
                name: format!("localhost/separation-{program}:{tag}"),
                archive: project.target(format!("{DIRECTORY}/separation-{program}.tar")),
            };
            buildah
                .build(&format!("Dockerfile.{program}"), program, &image)
                .with_context(|| format!("cannot build {}", image.name))?;
            let bytes = image.bytes()?;
            println!("{} is built: {:.0} MB", image.name, bytes as f64 / 1e6);
            ensure!(
                profile == ImageProfile::Tests || bytes <= max_bytes,
                "{} has {bytes} bytes, the limit is {max_bytes}; fix: check its content",
                image.name
            );
            Ok(image)
        })
        .collect();
    buildah.prune()?;
    built
}

/// Copies stripped programs, libraries and the default model to where the Dockerfiles look for them.
fn prepare(project: &Project, profile: ImageProfile) -> Result<()> {
    let builds = match profile {
        ImageProfile::Tests => vec![project.tests_build()],
        // With the same arguments as in the Dockerfiles.
        ImageProfile::Dist => [
            &["--package=separation-worker"][..],
            &["--package=separation-operator", "--no-default-features"],
        ]
        .map(|chosen| {
            let mut build = project.dist_build();
            build.args(chosen);
            build
        })
        .into(),
    };
    let ((), wheel) = models::while_building(project, || {
        builds.into_iter().try_for_each(|mut build| {
            println!("{}", process::line(&build));
            process::run(&mut build)
        })
    })?;
    let built = project.target(match profile {
        ImageProfile::Tests => "debug",
        ImageProfile::Dist => "dist",
    });
    let installed = models::install(project, &built.join("separation-worker"), wheel.as_ref())?;
    let ready = project.path(READY);
    match fs::remove_dir_all(&ready) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot empty {}", ready.display()));
        }
        _ => {}
    }
    for program in ["worker", "operator"] {
        let directory = ready.join(program);
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let name = format!("separation-{program}");
        let mut strip = project.command("strip");
        strip.arg("-o").arg(directory.join(&name)).arg(built.join(&name));
        process::run(&mut strip)?;
    }
    let library = onnx_runtime::install(project, Build::Cpu)?;
    let worker = ready.join("worker");
    let mut copying = project.command("cp");
    copying.arg("-r").arg(library).arg(worker.join("onnxruntime"));
    process::run(&mut copying)?;
    fs::create_dir_all(worker.join("models")).context("cannot create the directory of models")?;
    let mut copying = project.command("cp");
    copying.args(models::FILES.map(|file| installed.join(file)));
    copying.arg(worker.join("models"));
    process::run(&mut copying)
}

/// buildah with its own storage.
struct Buildah<'p> {
    project: &'p Project,
    storage: PathBuf,
}

impl<'p> Buildah<'p> {
    /// Creates the storage, with the base image.
    fn open(project: &'p Project) -> Result<Self> {
        let buildah = Self {
            project,
            storage: project.target(format!("{DIRECTORY}/storage")),
        };
        fs::create_dir_all(&buildah.storage)
            .with_context(|| format!("cannot create {}", buildah.storage.display()))?;
        let mut looking = buildah.command(&["inspect", "--type", "image", BASE_NAME]);
        if !process::succeeds(&mut looking) {
            let base = base(project).context("cannot make the base image")?;
            let mut pulling = buildah.command(&["pull", "--quiet"]);
            pulling.arg(format!("docker-archive:{}", base.display()));
            process::run(&mut pulling)?;
        }
        Ok(buildah)
    }

    /// Builds a target of a Dockerfile and writes it as an archive.
    fn build(&self, dockerfile: &str, target: &str, image: &Image) -> Result<()> {
        println!("building {} from {dockerfile}", image.name);
        let mut building = self.command(&["bud", "--isolation", "chroot", "--quiet", "--file", dockerfile]);
        building
            .args(["--target", target, "--tag", &image.name])
            .args(["--build-arg", "PARTS=ready"])
            .arg(format!("--build-arg=DEBIAN={BASE_NAME}"))
            .arg(format!("--build-arg=TARGETARCH={}", archive::architecture()))
            .arg(concat!("--build-arg=VERSION=", env!("CARGO_PKG_VERSION")))
            .arg(self.project.path("."));
        process::run(&mut building)?;
        self.save(image)
    }

    fn save(&self, image: &Image) -> Result<()> {
        // buildah would append to an existing archive and then fail.
        match fs::remove_file(&image.archive) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", image.archive.display()));
            }
            _ => {}
        }
        let mut saving = self.command(&["push", "--quiet", &image.name]);
        saving.arg(format!(
            "docker-archive:{}:{}",
            image.archive.display(),
            image.name
        ));
        process::run(&mut saving)
    }

    /// Removes unnamed images: earlier ones and those of build stages.
    fn prune(&self) -> Result<()> {
        let pruned = process::observe(&mut self.command(&["rmi", "--prune", "--force"]))?;
        ensure!(
            pruned.status.success(),
            "buildah cannot remove old images; fix: remove {}; its output:\n{}",
            self.storage.display(),
            String::from_utf8_lossy(&pruned.stderr)
        );
        Ok(())
    }

    /// In its own mount namespace, which also removes the mounts that buildah leaves.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.project.command("unshare");
        command
            .args(["--mount", "buildah", "--storage-driver", "overlay", "--root"])
            .arg(self.storage.join("root"))
            .arg("--runroot")
            .arg(self.storage.join("run"))
            .args(arguments);
        command
    }
}

/// The archive of the base image: a minimal Debian with the system trust store.
fn base(project: &Project) -> Result<PathBuf> {
    let cached = format!("debian/{BASE}-{BASE_VERSION}");
    let directory = project.cache().install(&cached, BASE_VERSION, |filling| {
        println!("making a base image of Debian {BASE} (a minute, once)");
        // Not in the system's temporary directory, where device files may not work.
        let root = project.cache().temporary_dir()?;
        let mut debootstrap = project.command("debootstrap");
        debootstrap
            .args(["--variant=minbase", "--include=ca-certificates", BASE])
            .arg(root.path());
        let installed = process::observe(&mut debootstrap)?;
        ensure!(
            installed.status.success(),
            "debootstrap failed; fix: check the network, and Debian's mirrors; its output:\n{}",
            String::from_utf8_lossy(&installed.stdout)
        );
        empty(&root.path().join("var/cache/apt/archives"))?;
        empty(&root.path().join("var/lib/apt/lists"))?;
        archive::write(
            project,
            root.path(),
            BASE_NAME,
            &["/bin/bash"],
            &filling.join("debian.tar"),
        )
    })?;
    Ok(directory.join("debian.tar"))
}

/// Empties a directory.
fn empty(directory: &Path) -> Result<()> {
    fs::remove_dir_all(directory)
        .and_then(|()| fs::create_dir(directory))
        .with_context(|| format!("cannot empty {}", directory.display()))
}
