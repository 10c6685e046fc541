//! Builds the project's images from `Dockerfile.worker`, `Dockerfile.operator` and `Dockerfile.local` without a Docker
//! engine, with programs that cargo built on this machine.
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

/// Directory of the archives, such as `separation-worker.tar`, under cargo's target directory.
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
    fn new(project: &Project, recipe: &Recipe, tag: &str) -> Self {
        let name = recipe.name;
        Self {
            name: format!("localhost/separation-{name}:{tag}"),
            archive: project.target(format!("{DIRECTORY}/separation-{name}.tar")),
        }
    }

    /// Size of the archive, whose layers are not compressed.
    pub(crate) fn bytes(&self) -> Result<u64> {
        let archive = fs::metadata(&self.archive);
        Ok(archive.context("buildah left no archive")?.len())
    }
}

/// What an image is built from.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// The end of the names of the image and of its Dockerfile, and the target in it.
    pub(crate) name: &'static str,
    /// Its program.
    program: &'static str,
    /// Arguments of the program's build, as in the Dockerfile.
    build: &'static [&'static str],
    /// Size limit of the released image for CPUs, in bytes; some test images are larger.
    pub(crate) max_bytes: u64,
}

/// The images of a cluster.
pub(crate) const FOR_CLUSTERS: [Recipe; 2] = [WORKER, OPERATOR];

/// All images.
pub(crate) const ALL: [Recipe; 3] = [WORKER, OPERATOR, LOCAL];

const WORKER: Recipe = Recipe {
    name: "worker",
    program: "separation-worker",
    build: &["--package=separation-worker"],
    max_bytes: 150_000_000,
};

const OPERATOR: Recipe = Recipe {
    name: "operator",
    program: "separation-operator",
    build: &["--package=separation-operator", "--no-default-features"],
    max_bytes: 50_000_000,
};

/// Its base is the worker's image, which therefore is built before it.
pub(crate) const LOCAL: Recipe = Recipe {
    name: "local",
    program: "separation-operator",
    build: &["--package=separation-operator"],
    max_bytes: 200_000_000,
};

/// Builds images in this order, with this tag. The first one is the worker's.
///
/// Requires root, like a node: see `node::obstacle`.
pub(crate) fn build(
    project: &Project,
    profile: ImageProfile,
    recipes: &[Recipe],
    tag: &str,
) -> Result<Vec<Image>> {
    system::ensure(system::FOR_BUILDING)?;
    system::ensure(&[Need::Images])?;
    let revision = match profile {
        ImageProfile::Tests => "unknown".to_owned(),
        ImageProfile::Dist => revision(project)?,
    };
    prepare(project, profile, recipes)?;
    let buildah = Buildah::open(project)?;
    let built = recipes
        .iter()
        .map(|recipe| {
            let image = Image::new(project, recipe, tag);
            let worker = Image::new(project, &WORKER, tag);
            buildah
                .build(recipe.name, &worker, &revision, &image)
                .with_context(|| format!("cannot build {}", image.name))?;
            let bytes = image.bytes()?;
            println!("{} is built: {:.0} MB", image.name, bytes as f64 / 1e6);
            ensure!(
                profile == ImageProfile::Tests || bytes <= recipe.max_bytes,
                "{} has {bytes} bytes, the limit is {}; fix: check its content",
                image.name,
                recipe.max_bytes
            );
            Ok(image)
        })
        .collect();
    buildah.prune()?;
    built
}

/// Writes a built image as an archive of this format of buildah, under this name.
pub(crate) fn export(
    project: &Project,
    image: &Image,
    format: &str,
    archive: &Path,
    name: &str,
) -> Result<()> {
    Buildah::open(project)?.save(image, format, archive, name)
}

/// Copies stripped programs, libraries and the default model to where the Dockerfiles look for them.
fn prepare(project: &Project, profile: ImageProfile, recipes: &[Recipe]) -> Result<()> {
    let built = project.target(match profile {
        ImageProfile::Tests => "debug",
        ImageProfile::Dist => "dist",
    });
    let ready = project.path(READY);
    match fs::remove_dir_all(&ready) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot empty {}", ready.display()));
        }
        _ => {}
    }
    let ((), wheel) = models::while_building(project, || {
        if profile == ImageProfile::Tests {
            run(&mut project.tests_build())?;
        }
        recipes.iter().try_for_each(|recipe| {
            if profile == ImageProfile::Dist {
                run(project.dist_build().args(recipe.build))?;
            }
            // Immediately: the next build may replace the program.
            strip(project, &built.join(recipe.program), &ready.join(recipe.name))
        })
    })?;
    let worker = ready.join(WORKER.name);
    let installed = models::install(project, &built.join(WORKER.program), wheel.as_ref())?;
    let library = onnx_runtime::install(project, Build::Cpu)?;
    let mut copying = project.command("cp");
    copying.arg("-r").arg(library).arg(worker.join("onnxruntime"));
    process::run(&mut copying)?;
    fs::create_dir_all(worker.join("models")).context("cannot create the directory of models")?;
    let mut copying = project.command("cp");
    copying.args(models::FILES.map(|file| installed.join(file)));
    copying.arg(worker.join("models"));
    process::run(&mut copying)
}

fn run(build: &mut Command) -> Result<()> {
    println!("{}", process::line(build));
    process::run(build)
}

/// The commit that is checked out.
fn revision(project: &Project) -> Result<String> {
    let commit = process::read(project.git().args(["rev-parse", "HEAD"]));
    let commit = commit.context("images have no label of their commit; fix: build in a git checkout")?;
    Ok(commit.trim().to_owned())
}

/// Copies a program without its symbols into a directory, which is created if it does not exist.
pub(crate) fn strip(project: &Project, program: &Path, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let name = program.file_name().context("the path of a program")?;
    let mut strip = project.command("strip");
    strip.arg("-o").arg(directory.join(name)).arg(program);
    process::run(&mut strip)
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

    /// Builds the image of a Dockerfile and writes it as an archive. `worker` is the worker's image, `revision`
    /// the commit in the label.
    fn build(&self, name: &str, worker: &Image, revision: &str, image: &Image) -> Result<()> {
        let dockerfile = format!("Dockerfile.{name}");
        println!("building {} from {dockerfile}", image.name);
        // OCI's format has no health check.
        let mut building = self.command(&["bud", "--isolation", "chroot", "--quiet", "--format", "docker"]);
        building
            .args(["--file", &dockerfile, "--target", name, "--tag", &image.name])
            .args(["--build-arg", "PARTS=ready"])
            .arg(format!("--build-arg=WORKER={}", worker.name))
            .arg(format!("--build-arg=DEBIAN={BASE_NAME}"))
            .arg(format!("--build-arg=TARGETARCH={}", archive::architecture()))
            .arg(concat!("--build-arg=VERSION=", env!("CARGO_PKG_VERSION")))
            .arg(format!("--build-arg=REVISION={revision}"))
            .arg(self.project.path("."));
        process::run(&mut building)?;
        self.save(image, "docker-archive", &image.archive, &image.name)
    }

    /// Writes the image as an archive of this format, under this name.
    fn save(&self, image: &Image, format: &str, archive: &Path, name: &str) -> Result<()> {
        // buildah would append to an existing archive and then fail.
        match fs::remove_file(archive) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", archive.display()));
            }
            _ => {}
        }
        let mut saving = self.command(&["push", "--quiet", &image.name]);
        saving.arg(format!("{format}:{}:{name}", archive.display()));
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
