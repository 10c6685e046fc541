//! Commands that users paste.

use std::env;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use separation_testbed::{Cluster, Components, WorkerOptions};

/// A free port of this machine, in place of one in documented commands.
///
/// # Errors
/// If there is none.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

/// Runs commands in a directory, which gets a kubeconfig and is the home directory; otherwise the environment is empty.
/// Programs in its directory `bin` replace others. Returns the standard output.
///
/// # Errors
/// If a command fails, or this takes longer than `within`.
pub async fn paste(cluster: &Cluster, home: &Path, commands: &str, within: Duration) -> Result<String> {
    let configuration = home.join(".kube");
    if !configuration.exists() {
        fs::create_dir(&configuration)
            .and_then(|()| symlink(cluster.kubeconfig(), configuration.join("config")))
            .with_context(|| format!("cannot write to {}", configuration.display()))?;
    }
    let mut path = format!("{}/bin", home.display());
    for program in [Components::kubectl()?, Components::helm()?] {
        let directory = program.parent().context("a program without a directory")?;
        path += &format!(":{}", directory.display());
    }
    path += &format!(":{}", env::var("PATH").context("PATH is not set")?);
    let commands = format!("cd {}\n{commands}", home.display());
    let shell = WorkerOptions::pasted(&commands, &path, home).start()?;
    let code = shell.wait_exit(within).await?;
    let printed = shell.output()?;
    ensure!(
        code == 0,
        "exit code {code} of\n{commands}\n{}{printed}",
        shell.log_end()
    );
    Ok(printed)
}
