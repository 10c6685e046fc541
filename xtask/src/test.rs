//! Runs all tests, on a machine that may have no requirements installed.

use anyhow::{Result, bail};
use clap::Args;

use crate::cluster::run_smoke_test;
use crate::images::{self, ImageProfile};
use crate::onnx_runtime::{self, Build};
use crate::process;
use crate::project::Project;
use crate::{components, demo, generate, node, songs, system};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Run only unit and property tests and the checks of the source: no servers, no root
    #[arg(long)]
    fast: bool,
    /// Arguments for `cargo test`: packages, filters, and after another `--` those of the test programs
    #[arg(last = true)]
    cargo_test: Vec<String>,
}

/// The package and test program that run our own images on a cluster.
const SCENARIOS: [&str; 2] = ["separation-scenarios", "scenarios"];

/// Passes the directory of the images to those tests.
pub(crate) const IMAGES: &str = "SEPARATION_IMAGES";

/// Number of parallel tests, for libtest.
const THREADS: &str = "RUST_TEST_THREADS";

/// Most tests wait for brokers, servers and processes: two per core, and at least four, keep the cores busy.
fn threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (2 * cores).max(4)
}

/// `cargo xtask test`: installs the requirements, then runs the tests in the dev profile; without a selection
/// it also runs the trial cluster and the demo.
pub(crate) fn test(project: &Project, options: &Options) -> Result<()> {
    if options.fast {
        return fast(project, &options.cargo_test);
    }
    let no_node = install(project)?;
    let mut tests = project.cargo("test");
    tests.args(selection(&options.cargo_test));
    if std::env::var_os(THREADS).is_none() {
        tests.env(THREADS, threads().to_string());
    }
    let mut images = None;
    match no_node {
        Some(reason) => {
            tests.env(node::NO_NODE, reason);
        }
        None if runs_scenarios(&options.cargo_test) => {
            images = Some(images::build(project, ImageProfile::Tests, images::TAG)?);
            tests.env(IMAGES, project.target(images::DIRECTORY));
        }
        None => {}
    }
    println!("{}", process::line(&tests));
    process::run(&mut tests)?;
    if !options.cargo_test.is_empty() {
        return Ok(());
    }
    if let Some(images) = images {
        run_smoke_test(project, &images)?;
    }
    demo::run_smoke_test(project)
}

/// Runs the tests inside the crates, which need neither servers nor root, and the checks of the source.
fn fast(project: &Project, extra: &[String]) -> Result<()> {
    system::ensure(system::FOR_BUILDING)?;
    onnx_runtime::install(project, Build::Cpu)?;
    let mut tests = project.cargo("test");
    tests.args(["--workspace", "--all-features", "--locked"]);
    tests.args(["--lib", "--bins", "--test", "rules"]).args(extra);
    println!("{}", process::line(&tests));
    process::run(&mut tests)
}

/// `cargo xtask cluster test`: the tests that need a node, which must be possible on this machine.
pub(crate) fn test_on_nodes(project: &Project) -> Result<()> {
    if let Some(obstacle) = node::obstacle(project) {
        bail!("this machine cannot run a Kubernetes node: {obstacle}");
    }
    let cargo_test = ["--test", "node", "--test", SCENARIOS[1]]
        .map(str::to_owned)
        .into();
    let options = Options {
        fast: false,
        cargo_test,
    };
    test(project, &options)
}

/// Installs the requirements of the tests, unless they exist; returns the reason if those on a node cannot
/// run.
pub(crate) fn install(project: &Project) -> Result<Option<String>> {
    system::ensure(system::FOR_TESTING)?;
    onnx_runtime::install(project, Build::Cpu)?;
    generate::install_python(project)?;
    songs::install(project)?;
    components::install(project)?;
    node::install(project)
}

/// The complete workspace, unless the caller selects packages.
fn selection(extra: &[String]) -> Vec<&str> {
    let cargo_arguments = extra.iter().take_while(|argument| *argument != "--");
    let selects_packages = cargo_arguments
        .clone()
        .any(|argument| argument.starts_with("-p") || argument.starts_with("--package"));
    let mut arguments = vec!["--all-features", "--locked"];
    if !selects_packages {
        arguments.insert(0, "--workspace");
    }
    arguments.extend(extra.iter().map(String::as_str));
    arguments
}

/// Whether the caller's selection includes the scenarios.
fn runs_scenarios(extra: &[String]) -> bool {
    let cargo_arguments: Vec<_> = extra.iter().take_while(|argument| *argument != "--").collect();
    let is_among = |options: &[&str], name: &str| {
        let chosen: Vec<_> = cargo_arguments
            .iter()
            .enumerate()
            .filter_map(|(index, argument)| match argument.split_once('=') {
                Some((option, value)) => options.contains(&option).then_some(value),
                None if options.contains(&argument.as_str()) => {
                    cargo_arguments.get(index + 1).map(|value| value.as_str())
                }
                None => None,
            })
            .collect();
        chosen.is_empty() || chosen.contains(&name)
    };
    is_among(&["-p", "--package"], SCENARIOS[0]) && is_among(&["--test"], SCENARIOS[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(extra: &[&str], expected: &[&str]) {
        let extra: Vec<String> = extra.iter().map(ToString::to_string).collect();
        assert_eq!(selection(&extra), expected);
    }

    #[test]
    fn all_packages_are_tested_unless_some_are_chosen() {
        check(&[], &["--workspace", "--all-features", "--locked"]);
        check(
            &["audio"],
            &["--workspace", "--all-features", "--locked", "audio"],
        );
        check(&["-p", "xtask"], &["--all-features", "--locked", "-p", "xtask"]);
        check(
            &["--", "-p"],
            &["--workspace", "--all-features", "--locked", "--", "-p"],
        );
    }

    #[test]
    fn images_are_built_where_their_tests_run() {
        let runs = |extra: &[&str]| {
            let extra: Vec<String> = extra.iter().map(ToString::to_string).collect();
            runs_scenarios(&extra)
        };
        assert!(runs(&[]) && runs(&["audio"]) && runs(&["--", "-p", "xtask"]));
        assert!(runs(&["-p", "xtask", "--package=separation-scenarios"]));
        assert!(runs(&["--test", "scenarios"]));
        assert!(!runs(&["-p", "xtask"]) && !runs(&["--test=it"]));
    }
}
