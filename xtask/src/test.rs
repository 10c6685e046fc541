//! Runs all tests, on a machine that may have no requirements installed.

use anyhow::{Result, bail};
use clap::Args;

use crate::cluster::run_smoke_test;
use crate::images::{self, ImageProfile};
use crate::onnx_runtime::{self, Build};
use crate::process;
use crate::project::Project;
use crate::{components, demo, dist, generate, models, node, songs, system};

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

/// The package whose tests separate with the default model.
const NEEDS_MODEL: &str = "separation-operator";

/// The options of `cargo test` that choose packages, and those that choose test programs.
const PACKAGE_OPTIONS: &[&str] = &["-p", "--package"];
const TEST_OPTIONS: &[&str] = &["--test"];

/// Passes the directory of the images to those tests.
pub(crate) const IMAGES: &str = "SEPARATION_IMAGES";

/// Number of parallel tests, for libtest.
const THREADS: &str = "RUST_TEST_THREADS";

/// Most tests wait for brokers, servers and processes: three per core, and at least six, keep the cores busy.
fn threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (3 * cores).max(6)
}

/// `cargo xtask test`: installs the requirements, then runs the tests in the dev profile; without a selection
/// it also runs the trial cluster, the demo and parts of a release.
pub(crate) fn test(project: &Project, options: &Options) -> Result<()> {
    if options.fast {
        return fast(project, &options.cargo_test);
    }
    let no_node = install(project)?;
    if is_chosen(&options.cargo_test, PACKAGE_OPTIONS, NEEDS_MODEL) {
        models::install_for_tests(project)?;
    }
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
            images = Some(images::build(
                project,
                ImageProfile::Tests,
                &images::ALL,
                images::TAG,
            )?);
            tests.env(IMAGES, project.target(images::DIRECTORY));
        }
        None => {}
    }
    println!("{}", process::line(&tests));
    process::run(&mut tests)?;
    if !options.cargo_test.is_empty() {
        return Ok(());
    }
    // The image of `local` is the last one.
    let local = images.as_mut().and_then(Vec::pop);
    if let Some(images) = &images {
        run_smoke_test(project, images)?;
    }
    demo::run_smoke_test(project)?;
    dist::run_smoke_test(project, local.as_ref())
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
    let mut arguments = vec!["--all-features", "--locked"];
    if chosen(extra, PACKAGE_OPTIONS).is_empty() {
        arguments.insert(0, "--workspace");
    }
    arguments.extend(extra.iter().map(String::as_str));
    arguments
}

/// Whether the caller's selection includes the scenarios.
fn runs_scenarios(extra: &[String]) -> bool {
    is_chosen(extra, PACKAGE_OPTIONS, SCENARIOS[0]) && is_chosen(extra, TEST_OPTIONS, SCENARIOS[1])
}

/// Whether the caller's selection by these options includes `name`.
fn is_chosen(extra: &[String], options: &[&str], name: &str) -> bool {
    let chosen = chosen(extra, options);
    chosen.is_empty() || chosen.contains(&name)
}

/// The values of these options of cargo: `-p NAME`, `-pNAME` and `--package=NAME`.
fn chosen<'e>(extra: &'e [String], options: &[&str]) -> Vec<&'e str> {
    let arguments = extra.iter().map(String::as_str);
    let arguments: Vec<&str> = arguments.take_while(|argument| *argument != "--").collect();
    let value = |(index, argument): (usize, &&'e str)| {
        options.iter().find_map(|option| {
            let rest = argument.strip_prefix(option)?;
            match rest.strip_prefix('=') {
                Some(value) => Some(value),
                None if rest.is_empty() => arguments.get(index + 1).copied(),
                None => (!option.starts_with("--")).then_some(rest),
            }
        })
    };
    arguments.iter().enumerate().filter_map(value).collect()
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
        check(&["-pxtask"], &["--all-features", "--locked", "-pxtask"]);
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

    #[test]
    fn the_model_is_installed_for_the_tests_that_need_it() {
        let needs = |extra: &[&str]| {
            let extra: Vec<String> = extra.iter().map(ToString::to_string).collect();
            is_chosen(&extra, PACKAGE_OPTIONS, NEEDS_MODEL)
        };
        assert!(needs(&[]) && needs(&["audio"]) && needs(&["--test", "local"]));
        for chosen in [
            &["-p", "separation-operator"][..],
            &["-pseparation-operator"],
            &["--package=xtask", "--package=separation-operator"],
        ] {
            assert!(needs(chosen), "{chosen:?}");
        }
        assert!(!needs(&[
            "-p",
            "separation-worker",
            "--",
            "-p",
            "separation-operator"
        ]));
    }
}
