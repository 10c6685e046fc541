//! The wheel as users install it: the commands of README.md install it with pipx, and its program separates a song with
//! nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::process;
use crate::project::Project;
use crate::python::install_environment;

const README: &str = "README.md";

/// pipx.
const REQUIREMENTS: &str = "xtask/python/pipx/requirements.txt";

/// In place of cargo: the wheel is packed already.
const CARGO: &str = r#"[ "$*" = "xtask dist --only wheel" ]"#;

/// The last command of README.md.
const SEPARATE: &str = "separation-worker separate SONG.mp3";

/// From the start of the installation to the last stem.
const LIMIT: Duration = Duration::from_secs(120);

/// Installs the wheel of the tests' program and separates a song. `directory` is like a clone, with both of them.
pub(super) fn run(project: &Project, directory: &Path) -> Result<()> {
    let readme = fs::read_to_string(project.path(README)).with_context(|| format!("cannot read {README}"))?;
    let (install, separate) = commands(&readme)?;
    let path = |name: &str| directory.join(name);
    for name in ["bin", "home"] {
        fs::create_dir(path(name)).context("cannot create a directory")?;
    }
    let pipx = install_environment(project, "pipx", REQUIREMENTS)?;
    write_program(
        &path("bin/pipx"),
        &format!("exec '{}' -m pipx \"$@\"", pipx.display()),
    )?;
    write_program(&path("bin/cargo"), CARGO)?;

    let started = Instant::now();
    // pip has settings in the environment, such as those of a proxy.
    let mut shell = project.command("/bin/sh");
    shell
        .current_dir(directory)
        .env("PIPX_HOME", path("pipx"))
        .env("PIPX_BIN_DIR", path("installed"))
        .arg("-euc")
        .arg(format!("PATH=\"$PWD/bin:$PATH\"\n{install}"));
    process::run(&mut shell)?;
    // The program finds no cache, no other program and no configuration.
    let mut shell = project.command("/bin/sh");
    shell
        .current_dir(directory)
        .env_clear()
        .env("HOME", path("home"))
        .env("PATH", path("installed"))
        .args(["-euc", separate]);
    process::run(&mut shell)?;
    for stem in ["stems/SONG_vocals.wav", "stems/SONG_instrumental.wav"] {
        ensure!(path(stem).is_file(), "the stem {stem} does not exist");
    }
    let duration = started.elapsed();
    println!(
        "the wheel was installed and separated a song in {:.0} s",
        duration.as_secs_f64()
    );
    ensure!(
        duration <= LIMIT,
        "that took more than {} s; fix: check the network, and what the wheel depends on",
        LIMIT.as_secs()
    );
    Ok(())
}

/// The commands of README.md that install the wheel, and the one that uses it.
fn commands(readme: &str) -> Result<(&str, &str)> {
    let blocks = readme.split("```sh\n").skip(1);
    let mut blocks = blocks.filter_map(|text| text.split("```").next());
    let block = blocks.find(|block| block.contains("pipx install"));
    let block = block.with_context(|| format!("{README} has no block with `pipx install`"))?;
    let end = block.find(SEPARATE);
    let end = end.with_context(|| format!("{README} does not have `{SEPARATE}` after `pipx install`"))?;
    Ok(block.split_at(end))
}

/// Writes a shell script.
fn write_program(path: &Path, commands: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{commands}\n"))
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", path.display()))
}
