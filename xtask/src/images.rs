//! The project's own images: `Dockerfile.worker` and `Dockerfile.operator`, built without a Docker engine, around
//! programs that cargo built on this machine.
//!
//! No base image is fetched: the one that they take libraries from is made of Debian's packages, once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::project::Project;
use crate::setup::{self, Build};
use crate::system::{self, Need};
use crate::{archive, process};

/// Debian's release whose libraries the images take: raise the second part when the recipe changes.
const BASE: &str = "bookworm";
const BASE_VERSION: &str = "1";
const BASE_NAME: &str = "localhost/debian:bookworm";

/// Where the Dockerfiles look for programs that need not be compiled. Their `READY` names the same.
const READY: &str = "target/ready";

/// Under cargo's target directory: the archives, `separation-worker.tar` and `separation-operator.tar`.
pub(crate) const FOLDER: &str = "images";
/// The images' tag, where nobody says another.
pub(crate) const TAG: &str = "dev";

/// Which programs go into the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Those that the tests run, so that nothing is compiled twice.
    Tests,
    /// Those that are shipped.
    Release,
}

/// An image that was built.
#[derive(Debug)]
pub(crate) struct Image {
    /// With host and tag, as pods name it.
    pub(crate) name: String,
    /// As `docker save` writes it.
    pub(crate) archive: PathBuf,
}

impl Image {
    /// Size of the archive, in which layers are not compressed.
    pub(crate) fn bytes(&self) -> Result<u64> {
        let archive = fs::metadata(&self.archive);
        Ok(archive.context("buildah left no archive")?.len())
    }
}

/// The greatest images for CPUs that may be shipped, in bytes; in those for tests the operator has more in it.
pub(crate) const MOST: [(&str, u64); 2] = [("worker", 150_000_000), ("operator", 50_000_000)];

/// Builds the worker's image and the operator's, in this order, with this tag.
///
/// It takes root, as a node does: see `node::obstacle`.
pub(crate) fn build(project: &Project, profile: Profile, tag: &str) -> Result<Vec<Image>> {
    system::ensure(system::FOR_BUILDING)?;
    system::ensure(&[Need::Images])?;
    prepare(project, profile)?;
    let buildah = Buildah::open(project)?;
    let built = MOST
        .into_iter()
        .map(|(program, most)| {
            let image = Image {
                name: format!("localhost/separation-{program}:{tag}"),
                archive: project.target(format!("{FOLDER}/separation-{program}.tar")),
            };
            buildah
                .build(&format!("Dockerfile.{program}"), program, &image)
                .with_context(|| format!("cannot build {}", image.name))?;
            let bytes = image.bytes()?;
            println!("{} is built: {:.0} MB", image.name, bytes as f64 / 1e6);
            ensure!(
                profile == Profile::Tests || bytes <= most,
                "{} has {bytes} bytes and may have {most}; fix: see what went into it",
                image.name
            );
            Ok(image)
        })
        .collect();
    buildah.prune()?;
    built
}

/// Puts programs and libraries where the Dockerfiles look for them, without what only debuggers read.
fn prepare(project: &Project, profile: Profile) -> Result<()> {
    let builds = match profile {
        Profile::Tests => vec![project.tests_build()],
        // As the Dockerfiles compile them.
        Profile::Release => [
            &["--package=separation-worker"][..],
            &["--package=separation-operator", "--no-default-features"],
        ]
        .map(|chosen| {
            let mut build = project.cargo("build");
            build.arg("--release").args(chosen).arg("--locked");
            build
        })
        .into(),
    };
    for mut build in builds {
        println!("{}", process::line(&build));
        process::run(&mut build)?;
    }
    let built = project.target(match profile {
        Profile::Tests => "debug",
        Profile::Release => "release",
    });
    let ready = project.path(READY);
    match fs::remove_dir_all(&ready) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot empty {}", ready.display()));
        }
        _ => {}
    }
    for program in ["worker", "operator"] {
        let folder = ready.join(program);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let name = format!("separation-{program}");
        let mut strip = project.command("strip");
        strip.arg("-o").arg(folder.join(&name)).arg(built.join(&name));
        process::run(&mut strip)?;
    }
    let library = setup::install_onnx_runtime(project, Build::Cpu)?;
    let mut copying = project.command("cp");
    copying
        .arg("-r")
        .arg(library)
        .arg(ready.join("worker/onnxruntime"));
    process::run(&mut copying)
}

/// buildah with a storage of its own.
struct Buildah<'p> {
    project: &'p Project,
    storage: PathBuf,
}

impl<'p> Buildah<'p> {
    /// Makes the storage, with the base in it.
    fn open(project: &'p Project) -> Result<Self> {
        let buildah = Self {
            project,
            storage: project.target(format!("{FOLDER}/storage")),
        };
        fs::create_dir_all(&buildah.storage)
            .with_context(|| format!("cannot make {}", buildah.storage.display()))?;
        let mut looking = buildah.command(&["inspect", "--type", "image", BASE_NAME]);
        if !process::succeeds(&mut looking) {
            let base = base(project).context("cannot make the base of the images")?;
            let mut pulling = buildah.command(&["pull", "--quiet"]);
            pulling.arg(format!("docker-archive:{}", base.display()));
            process::run(&mut pulling)?;
        }
        Ok(buildah)
    }

    /// Builds a target of a Dockerfile in the checkout and writes it as an archive.
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
        // buildah adds to an archive that is there, and then refuses.
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

    /// Removes images that have no name any more: those before, and those of stages.
    fn prune(&self) -> Result<()> {
        let pruned = process::observe(&mut self.command(&["rmi", "--prune", "--force"]))?;
        ensure!(
            pruned.status.success(),
            "buildah cannot remove what is left of builds; fix: remove {}; it said:\n{}",
            self.storage.display(),
            String::from_utf8_lossy(&pruned.stderr)
        );
        Ok(())
    }

    /// In a mount namespace of its own, which takes along what buildah leaves mounted.
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

/// The archive of the base: the smallest Debian, with the certificates of the usual authorities.
fn base(project: &Project) -> Result<PathBuf> {
    let cached = format!("debian/{BASE}-{BASE_VERSION}");
    let folder = project.cache().install(&cached, BASE_VERSION, |filling| {
        println!("making a base image of Debian {BASE} (a minute, once)");
        // Not among the system's temporary files, where device files may be of no use.
        let root = project.cache().temporary_dir()?;
        let mut debootstrap = project.command("debootstrap");
        debootstrap
            .args(["--variant=minbase", "--include=ca-certificates", BASE])
            .arg(root.path());
        let installed = process::observe(&mut debootstrap)?;
        ensure!(
            installed.status.success(),
            "debootstrap failed; fix: check the network, and what Debian's mirrors say; it said:\n{}",
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
    Ok(folder.join("debian.tar"))
}

/// Removes what is in a folder.
fn empty(folder: &Path) -> Result<()> {
    fs::remove_dir_all(folder)
        .and_then(|()| fs::create_dir(folder))
        .with_context(|| format!("cannot empty {}", folder.display()))
}
