//! The process of a worker under test, with its log lines.

use std::fs;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use serde_json::Value;

use crate::{Process, TempDirectory};

/// A worker to start.
#[derive(Debug)]
pub struct WorkerOptions {
    role: String,
    command: Command,
}

/// A running worker; [`Process`] has its signals and exit code.
#[derive(Debug)]
pub struct Worker {
    process: Process,
    log: PathBuf,
    output: PathBuf,
    directory: TempDirectory,
}

/// One line of a worker's log.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// The message.
    pub message: String,
    /// The level: `ERROR`, `WARN`, `INFO` and so on; empty for a line that is not JSON.
    pub level: String,
    /// The complete line: the message and its fields.
    pub fields: Value,
}

impl WorkerOptions {
    /// A worker in a role, which is the program's first argument.
    pub fn new(binary: &str, role: &str) -> Self {
        let mut command = Command::new(binary);
        command
            .arg(role)
            .env("LOG_FORMAT", "json")
            .env("ADMIN_ADDR", "127.0.0.1:0");
        Self {
            role: role.to_owned(),
            command,
        }
    }

    /// A shell that runs commands as a user pastes them: it inherits no environment and gets only this `PATH`
    /// and `HOME`. Variables set later do not reach it.
    pub fn pasted(commands: &str, path: &str, home: &Path) -> Self {
        let mut command = Command::new("env");
        command
            .arg("-i")
            .arg(format!("PATH={path}"))
            .arg(format!("HOME={}", home.display()))
            .args(["bash", "-euc", commands]);
        Self {
            role: "bash".to_owned(),
            command,
        }
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets several environment variables.
    #[must_use]
    pub fn envs(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.command.envs(variables);
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Starts the process.
    ///
    /// # Errors
    /// If no process can be started; a worker that exits immediately shows in [`Process::wait_exit`].
    pub fn start(self) -> Result<Worker> {
        let directory = TempDirectory::new()?;
        let (log, output) = (directory.join("log"), directory.join("output"));
        let process = Process::start(&self.role, &self.command, &output, &log)?;
        Ok(Worker {
            process,
            log,
            output,
            directory,
        })
    }
}

impl Worker {
    /// All lines of its log so far.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn log(&self) -> Result<Vec<LogLine>> {
        let bytes = fs::read(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        let text = String::from_utf8_lossy(&bytes);
        // The last line may be incomplete.
        let complete_lines = text.rfind('\n').map_or("", |end| &text[..end]);
        Ok(complete_lines.lines().map(LogLine::read).collect())
    }

    /// The messages of all lines so far, in order.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn messages(&self) -> Result<Vec<String>> {
        Ok(self.log()?.into_iter().map(|line| line.message).collect())
    }

    /// Waits for a line whose message starts with `message`, and returns the first one.
    ///
    /// # Errors
    /// If there is none `within` that time, or the worker exits first; the error has the end of the log.
    pub async fn wait_for_log(&self, message: &str, within: Duration) -> Result<LogLine> {
        self.wait_for_logs(message, 1, within)
            .await?
            .pop()
            .context("one line was found")
    }

    /// Waits until `count` lines have messages that start with `message`, and returns them.
    ///
    /// # Errors
    /// As [`Self::wait_for_log`].
    pub async fn wait_for_logs(&self, message: &str, count: usize, within: Duration) -> Result<Vec<LogLine>> {
        let deadline = Instant::now() + within;
        loop {
            // Checked before the log is read, so that the worker's last lines are included.
            let ended = self.process.exit_code();
            let mut lines = self.log()?;
            lines.retain(|line| line.message.starts_with(message));
            if lines.len() >= count {
                lines.truncate(count);
                return Ok(lines);
            }
            let found = lines.len();
            if let Some(code) = ended {
                bail!(
                    "the worker ended with {code} and logged `{message}` {found} times{}",
                    self.log_end()
                );
            }
            if Instant::now() >= deadline {
                bail!(
                    "the worker logged `{message}` {found} times within {within:?}{}",
                    self.log_end()
                );
            }
            tokio::time::sleep(crate::eventually::POLL).await;
        }
    }

    /// Its standard output so far.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn output(&self) -> Result<String> {
        fs::read_to_string(&self.output).with_context(|| format!("cannot read {}", self.output.display()))
    }

    /// The address in the field `address` of a log line.
    ///
    /// # Errors
    /// If there is no such line `within` that time.
    pub async fn address(&self, message: &str, within: Duration) -> Result<SocketAddr> {
        let line = self.wait_for_log(message, within).await?;
        let address = line.fields["address"]
            .as_str()
            .context("the log line has no address")?;
        address
            .parse()
            .with_context(|| format!("`{address}` is not a valid address"))
    }

    /// A directory of this worker, removed with it.
    pub fn directory(&self) -> &TempDirectory {
        &self.directory
    }
}

impl Deref for Worker {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl LogLine {
    /// A line of a log. One that is not JSON is a message without fields.
    pub fn read(line: &str) -> Self {
        let fields: Value = serde_json::from_str(line).unwrap_or(Value::Null);
        let text = |name: &str| fields[name].as_str().map(str::to_owned);
        Self {
            message: text("message").unwrap_or_else(|| line.to_owned()),
            level: text("level").unwrap_or_default(),
            fields,
        }
    }

    /// When it was written.
    ///
    /// # Errors
    /// If it has no time, as a line that is not JSON.
    pub fn time(&self) -> Result<SystemTime> {
        let text = self.fields["timestamp"].as_str();
        let text = text.with_context(|| format!("the log line `{}` has no timestamp", self.message))?;
        let time = DateTime::from_str(text, DateTimeFormat::DateTime)
            .with_context(|| format!("`{text}` is not a valid timestamp"))?;
        Ok(SystemTime::try_from(time)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_message_fields_and_time() {
        let line =
            r#"{"timestamp":"1970-01-01T00:01:00.250000Z","level":"INFO","message":"Leading","pools":3}"#;
        let line = LogLine::read(line);
        assert_eq!((line.message.as_str(), line.level.as_str()), ("Leading", "INFO"));
        assert_eq!(line.fields["pools"], 3);
        let since_epoch = line.time().unwrap().duration_since(SystemTime::UNIX_EPOCH);
        assert_eq!(since_epoch.unwrap(), Duration::from_millis(60_250));
        let text = LogLine::read("thread panicked");
        assert_eq!(text.message, "thread panicked");
        assert!(text.time().is_err());
    }
}
