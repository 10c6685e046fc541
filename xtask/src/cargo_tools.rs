//! Programs that `cargo install` builds, each version once, in the cache.

use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::project::Project;

/// Installs the program `name` of the package `name`, unless it exists; returns a command that runs it.
pub(crate) fn install(project: &Project, name: &str, version: &str) -> Result<Command> {
    let directory = project
        .cache()
        .install(&format!("tools/{name}-{version}"), version, |filling| {
            println!("installing {name} {version} (minutes, once)");
            process::run(
                project
                    .cargo("install")
                    .args([
                        name,
                        "--version",
                        version,
                        "--locked",
                        "--quiet",
                        // It runs for seconds: an optimized build would take minutes longer.
                        "--debug",
                        "--root",
                    ])
                    .arg(filling)
                    // As its authors publish it: their assertions are for their own tests.
                    .env("CARGO_PROFILE_DEV_DEBUG_ASSERTIONS", "false")
                    // Next to the build of this workspace, not in it: its dependencies are separate.
                    .env("CARGO_TARGET_DIR", project.target("tools")),
            )
        })
        .with_context(|| format!("cannot install {name} {version}"))?;
    Ok(project.command(directory.join("bin").join(name)))
}
