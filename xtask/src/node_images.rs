//! The two built-in images of the tests' node: the one that holds a pod together, and a shell for testing the
//! node.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::sha256;
use crate::project::Project;
use crate::system::{self, Need};
use crate::{archive, process};

const PAUSE_SOURCE: &str = "testbed/images/pause.c";

/// Makes them, unless they exist, and returns their directory: `pause` as a program, `pause.tar` and
/// `busybox.tar`.
///
/// The testbed uses the same names, `separation.test/pause` and `separation.test/busybox`, with the version
/// as tag.
pub(crate) fn install(project: &Project, version: &str) -> Result<PathBuf> {
    let source = project.path(PAUSE_SOURCE);
    let text = fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
    let cached = format!("images/{version}");
    project.cache().install(&cached, &sha256(&text), |filling| {
        system::ensure(&[Need::Compilers, Need::Busybox])?;
        let name = |image: &str| format!("separation.test/{image}:{version}");
        let pause = filling.join("pause");
        compile(project, &source, &pause)?;
        let root = tempfile::tempdir_in(filling)?;
        copy(&pause, &root.path().join("pause"))?;
        let packed = filling.join("pause.tar");
        archive::write(project, root.path(), &name("pause"), &["/pause"], &packed)?;
        let root = tempfile::tempdir_in(filling)?;
        fill_with_busybox(project, root.path())?;
        let packed = filling.join("busybox.tar");
        archive::write(project, root.path(), &name("busybox"), &["/bin/sh"], &packed)
    })
}

/// Compiles a statically linked program.
fn compile(project: &Project, source: &Path, program: &Path) -> Result<()> {
    let mut cc = project.command("cc");
    cc.args(["-static", "-Os", "-s", "-Wall", "-Werror", "-o"])
        .arg(program)
        .arg(source);
    process::run(&mut cc).context("fix: install the static C library (Debian: libc6-dev)")
}

/// Copies busybox, with a link for each of its commands.
pub(crate) fn fill_with_busybox(project: &Project, root: &Path) -> Result<()> {
    let found = process::read(project.command("sh").args(["-c", "command -v busybox"]))?;
    let bin = root.join("bin");
    fs::create_dir(&bin)?;
    copy(Path::new(found.trim()), &bin.join("busybox"))?;
    for name in process::read(project.command("busybox").arg("--list"))?.lines() {
        if name != "busybox" {
            symlink("busybox", bin.join(name)).with_context(|| format!("cannot link {name}"))?;
        }
    }
    // For programs that write temporary files.
    fs::create_dir(root.join("tmp"))?;
    Ok(())
}

/// Copies a file with its permissions.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {}", from.display()))
}
