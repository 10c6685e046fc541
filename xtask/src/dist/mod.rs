//! Builds everything that a release consists of, into `dist/`. Publishes nothing.

mod checksums;
mod cluster_files;
mod command_line;
mod completions;
mod container_images;
mod programs;
mod release;
mod release_test;
mod sbom;
mod wheel;
mod wheel_test;

use std::fs;
use std::io;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use self::release::Release;
use crate::binaries::Profile;
use crate::images::{Image, LOCAL};
use crate::project::Project;
use crate::system;

const EXAMPLES: &str = "\
Examples:
  cargo xtask dist                                 everything, as root
  cargo xtask dist --only wheel                    the Python wheel: pipx install dist/separation_worker-*.whl
  cargo xtask dist --only chart --only manifests   what Helm and kubectl install
  (cd dist && sha256sum --check SHA256SUMS-*)

Files are for this machine's architecture: run it on a machine with arm64 for arm64. The programs need its C library or a
newer one, so build on the oldest system that you support. Names and places are in project.toml.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Build only these parts and keep the other files of dist/
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Completion scripts of bash, fish and zsh
    Completions,
    /// Archive of both programs with ONNX Runtime and the default model
    Cli,
    /// Python wheel of separation-worker with the default model
    Wheel,
    /// Images of the worker and the operator, as OCI archives, and the one with API, broker, store and workers in one
    /// container, as an archive of Docker; requires root
    Images,
    /// Package of the Helm chart
    Chart,
    /// install.yaml and quickstart.yaml, for kubectl
    Manifests,
    /// CycloneDX SBOMs of both programs
    Sbom,
    /// SHA256SUMS-linux-…, which is also written after all other parts
    Checksums,
}

/// `cargo xtask dist`.
pub(crate) fn dist(project: &Project, options: &Options) -> Result<()> {
    let release = Release::new(project, Profile::Dist, project.path("dist"))?;
    let directory = &release.directory;
    let parts = match &options.only[..] {
        [] => Part::value_variants(),
        chosen => chosen,
    };
    ensure!(
        !parts.contains(&Part::Images) || system::is_root(),
        "images are built as root only; fix: run this as root, or choose other parts with --only"
    );
    for (key, value) in release.names.placeholders() {
        println!(
            "{key} is {value}, a placeholder; fix: change it in project.toml, then `cargo xtask generate`"
        );
    }
    if options.only.is_empty() {
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot empty {}", directory.display()));
            }
            _ => {}
        }
    }
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    for (index, part) in parts.iter().enumerate() {
        let name = part.name();
        println!("\n[{}/{}] {name}", index + 1, parts.len());
        let started = Instant::now();
        build(&release, *part).with_context(|| format!("cannot build the part {name}"))?;
        println!("{name} took {:.0} s", started.elapsed().as_secs_f64());
    }
    println!("\n{}:", directory.display());
    for (name, bytes) in checksums::write(directory)? {
        println!("{:>9.1} MB  {name}", bytes as f64 / 1e6);
    }
    Ok(())
}

/// Builds the parts that need no other builds than those of the tests, with their image of `local`, and uses them as users
/// do.
pub(crate) fn run_smoke_test(project: &Project, local: Option<&Image>) -> Result<()> {
    let clone = project.cache().temporary_dir()?;
    let release = Release::new(project, Profile::Tested, clone.path().join("dist"))?;
    fs::create_dir(&release.directory).context("cannot create a directory")?;
    for part in [Part::Cli, Part::Wheel, Part::Chart, Part::Manifests] {
        build(&release, part)?;
    }
    if let Some(image) = local {
        container_images::export(&release, image, LOCAL.name)?;
    }
    checksums::write(&release.directory)?;
    // Another package of the same chart has the same checksum.
    build(&release, Part::Chart)?;
    release_test::write_song(project, clone.path())?;
    release_test::check(&release, clone.path())?;
    wheel_test::run(project, clone.path())
}

impl Part {
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

fn build(release: &Release<'_>, part: Part) -> Result<()> {
    match part {
        Part::Completions => completions::write(release),
        Part::Cli => command_line::write(release),
        Part::Wheel => wheel::write(release),
        Part::Images => container_images::write(release),
        Part::Chart => cluster_files::write_chart(release),
        Part::Manifests => cluster_files::write_manifests(release),
        Part::Sbom => sbom::write(release),
        // Written at the end of every run.
        Part::Checksums => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_workflow_runs_only_commands_that_anyone_can_run_in_a_checkout() {
        let project = Project::locate().unwrap();
        let workflow = fs::read_to_string(project.path(".github/workflows/release.yml")).unwrap();
        let commands: Vec<&str> = workflow
            .lines()
            .filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("run:"))
            .map(str::trim)
            .collect();
        assert_eq!(commands, [".ci/run", "cargo xtask dist"]);
    }
}
