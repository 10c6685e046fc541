//! Checks other than tests: prints one line per check with its time, and lists the failed ones at the end.

use std::io::{self, Write};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::cargo_tools;
use crate::process;
use crate::project::Project;
use crate::system;

const CARGO_DENY: &str = "0.20.2";

struct Step {
    name: &'static str,
    command: Command,
}

/// `cargo xtask ci`: runs every check, even after a failure.
pub(crate) fn ci(project: &Project) -> Result<()> {
    system::ensure(system::FOR_CHECKING)?;
    let cargo_deny = cargo_tools::install(project, "cargo-deny", CARGO_DENY)?;
    let mut failures = Vec::new();
    for mut step in steps(project, cargo_deny)? {
        if !run(&mut step)? {
            failures.push(format!("  {}: {}", step.name, process::line(&step.command)));
        }
    }
    if !failures.is_empty() {
        bail!("these checks failed:\n{}", failures.join("\n"));
    }
    println!("all checks passed");
    Ok(())
}

fn steps(project: &Project, mut cargo_deny: Command) -> Result<Vec<Step>> {
    let cargo = |arguments: &[&str]| {
        let mut command = project.cargo(arguments[0]);
        command.args(&arguments[1..]);
        command
    };
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    let operator_for_images = [
        "clippy",
        "--package=separation-operator",
        "--no-default-features",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    let mut doc = cargo(&["doc", "--no-deps", "--workspace", "--all-features", "--locked"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    cargo_deny.args(["check", "licenses", "bans", "sources"]);
    let mut fuzz_targets = cargo(&["check", "--locked", "--manifest-path", "fuzz/Cargo.toml"]);
    // A separate workspace, with the same versions and profile: dependencies are checked once for both.
    fuzz_targets.env("CARGO_TARGET_DIR", project.target(""));
    let own = std::env::current_exe().context("cannot find this program")?;
    let mut generated = project.command(own);
    generated.args(["generate", "--check"]);
    let step = |name, command| Step { name, command };
    Ok(vec![
        step("formatting", cargo(&["fmt", "--all", "--check"])),
        step(
            "formatting of the fuzz targets",
            cargo(&["fmt", "--check", "--manifest-path", "fuzz/Cargo.toml"]),
        ),
        step("lints", cargo(&clippy)),
        step(
            "lints of the operator as in its image",
            cargo(&operator_for_images),
        ),
        step("fuzz targets", fuzz_targets),
        step("documentation", doc),
        step("licenses and sources", cargo_deny),
        step("generated files", generated),
    ])
}

/// Runs one check, shows its output if it failed, and returns whether it passed.
fn run(step: &mut Step) -> Result<bool> {
    print!("{} … ", step.name);
    io::stdout().flush().context("cannot write to standard output")?;
    let start = Instant::now();
    let output = process::observe(&mut step.command)?;
    let seconds = start.elapsed().as_secs_f64();
    if output.status.success() {
        println!("ok ({seconds:.1} s)");
    } else {
        println!("FAILED ({seconds:.1} s)");
        print!("{}", String::from_utf8_lossy(&output.stdout));
        print!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.status.success())
}
