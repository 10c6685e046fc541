//! A server that can be stopped or killed and then restarted with the same command.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::Process;

/// Its command, and its process while it runs.
#[derive(Debug)]
pub(crate) struct Service {
    name: &'static str,
    command: Command,
    log: PathBuf,
    process: Mutex<Option<Process>>,
}

impl Service {
    /// A service that is not running yet; its output is appended to `log`.
    pub(crate) fn new(name: &'static str, command: Command, log: PathBuf) -> Self {
        Self {
            name,
            command,
            log,
            process: Mutex::new(None),
        }
    }

    pub(crate) fn launch(&self) -> Result<()> {
        let mut process = self.process();
        ensure!(process.is_none(), "{} is already running", self.name);
        *process = Some(Process::start(self.name, &self.command, &self.log, &self.log)?);
        Ok(())
    }

    /// Sends SIGTERM and waits until it exits.
    pub(crate) async fn stop(&self, within: Duration) -> Result<()> {
        let process = self.take()?;
        process.sigterm()?;
        process.wait_exit(within).await?;
        Ok(())
    }

    pub(crate) async fn kill(&self) -> Result<()> {
        self.take()?.kill_9().await
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process().is_some()
    }

    /// Fails if it exited by itself.
    pub(crate) fn check(&self) -> Result<()> {
        let process = self.process();
        if let Some((process, code)) = process.as_ref().and_then(|it| Some((it, it.exit_code()?))) {
            bail!("{} ended with {code}{}", self.name, process.log_end());
        }
        Ok(())
    }

    pub(crate) fn with_process<T>(&self, act: impl FnOnce(&Process) -> Result<T>) -> Result<T> {
        let process = self.process();
        act(process
            .as_ref()
            .with_context(|| format!("{} is not running", self.name))?)
    }

    /// The end of its log, for a message; empty while it is not running.
    pub(crate) fn log_end(&self) -> String {
        self.with_process(|process| Ok(process.log_end()))
            .unwrap_or_default()
    }

    fn take(&self) -> Result<Process> {
        self.process()
            .take()
            .with_context(|| format!("{} is not running", self.name))
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
