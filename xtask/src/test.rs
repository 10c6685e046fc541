//! Every test, on a machine that may have nothing yet.

use anyhow::Result;
use clap::Args;

use crate::process;
use crate::project::Project;
use crate::setup::{self, Build};
use crate::{demo, generate, node, parts, songs, system};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Arguments for `cargo test`: packages, filters, and after another `--` those of the test programs
    #[arg(last = true)]
    cargo_test: Vec<String>,
}

/// How many tests run at once, as libtest reads it.
const THREADS: &str = "RUST_TEST_THREADS";

/// Most tests wait for brokers, servers and processes: two for each core, and four at least, keep the cores busy.
fn threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (2 * cores).max(4)
}

/// `cargo xtask test`: installs what the tests need, then runs them in the dev profile, and the demo where all are run.
pub(crate) fn test(project: &Project, options: &Options) -> Result<()> {
    let no_node = install(project)?;
    let mut tests = project.cargo("test");
    tests.args(selection(&options.cargo_test));
    if std::env::var_os(THREADS).is_none() {
        tests.env(THREADS, threads().to_string());
    }
    if let Some(reason) = no_node {
        tests.env(node::NO_NODE, reason);
    }
    println!("{}", process::line(&tests));
    process::run(&mut tests)?;
    match options.cargo_test.is_empty() {
        true => demo::as_a_test(project),
        false => Ok(()),
    }
}

/// Installs all that the tests need, unless it is there; gives the reason where those on a node cannot run.
pub(crate) fn install(project: &Project) -> Result<Option<String>> {
    system::ensure(system::FOR_TESTING)?;
    setup::install_onnx_runtime(project, Build::Cpu)?;
    generate::install_python(project)?;
    songs::install(project)?;
    parts::install(project)?;
    node::install(project)
}

/// The whole workspace, unless the caller chooses packages.
fn selection(extra: &[String]) -> Vec<&str> {
    let of_cargo = extra.iter().take_while(|argument| *argument != "--");
    let chooses = of_cargo
        .clone()
        .any(|argument| argument.starts_with("-p") || argument.starts_with("--package"));
    let mut arguments = vec!["--all-features", "--locked"];
    if !chooses {
        arguments.insert(0, "--workspace");
    }
    arguments.extend(extra.iter().map(String::as_str));
    arguments
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
}
