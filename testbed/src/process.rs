//! Processes that end with the process that started them, however that ends.
//!
//! A small shell supervises each program: it holds the reading end of a pipe whose writing end only our
//! process has. When the pipe closes, because the guard was dropped or our process was killed, the shell
//! kills the program. After the program ends for any reason, the shell kills the rest of its process group.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;

/// $1 and $2 receive the program's standard output and error; the rest is the program. Prints its process id
/// and, when it has ended, its exit code (128 + signal number after a signal).
const SUPERVISOR: &str = r#"
out=$1; err=$2; shift 2
exec 3<&0
"$@" </dev/null 3<&- >>"$out" 2>>"$err" &
program=$!
echo "$program"
( while read -r _; do :; done <&3; kill -9 "$program" ) &
wait "$program"
echo "$?"
kill -9 -$$
"#;

/// Lines of a log in an error message.
const SHOWN_LINES: usize = 30;

/// A running program, killed when this is dropped or our process ends.
///
/// Its standard input is empty; it ignores SIGINT unless it installs a handler.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    log: PathBuf,
    /// Closing it kills the program.
    lifeline: Option<ChildStdin>,
    ended: watch::Receiver<Option<i32>>,
    watcher: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `command`, with its standard output appended to `output` and its standard error to `log`.
    /// Replaces its standard streams; everything else of the command is kept.
    ///
    /// # Errors
    /// If there is no shell or a log cannot be created. A program that cannot be started ends with code 126
    /// or 127, and the log contains the reason.
    pub fn start(name: &str, command: &Command, output: &Path, log: &Path) -> Result<Self> {
        for file in [output, log] {
            fs::File::options()
                .create(true)
                .append(true)
                .open(file)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        let mut supervisor = supervised(command, output, log);
        let mut shell = supervisor.spawn().context("cannot start sh")?;
        let lifeline = shell.stdin.take();
        let mut supervisor_output =
            BufReader::new(shell.stdout.take().context("sh has no standard output")?).lines();
        let pid = supervisor_output
            .next()
            .context("sh ended immediately")?
            .context("cannot read from sh")?
            .parse()
            .ok()
            .and_then(Pid::from_raw)
            .context("sh printed no process id")?;
        let (sender, ended) = watch::channel(None);
        let watcher = std::thread::spawn(move || watch_over(shell, supervisor_output, &sender));
        Ok(Self {
            name: name.to_owned(),
            pid,
            log: log.to_owned(),
            lifeline,
            ended,
            watcher: Some(watcher),
        })
    }

    /// The program's process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends SIGTERM.
    ///
    /// # Errors
    /// If it has already ended.
    pub fn sigterm(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends SIGINT.
    ///
    /// # Errors
    /// If it has already ended.
    pub fn sigint(&self) -> Result<()> {
        self.signal(Signal::INT)
    }

    /// Kills it with SIGKILL and returns when it has ended.
    ///
    /// # Errors
    /// If it has already ended.
    pub async fn kill_9(&self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait_exit(Duration::from_secs(10)).await?;
        Ok(())
    }

    /// Freezes it with SIGSTOP.
    ///
    /// # Errors
    /// If it has already ended.
    pub fn sigstop(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Resumes it with SIGCONT.
    ///
    /// # Errors
    /// If it has already ended.
    pub fn sigcont(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Its exit code, if it has ended: 128 plus the signal number after a signal.
    pub fn exit_code(&self) -> Option<i32> {
        *self.ended.borrow()
    }

    /// Waits until it has ended and returns its exit code, as [`Self::exit_code`].
    ///
    /// # Errors
    /// If it still runs after `within`, with the end of its log.
    pub async fn wait_exit(&self, within: Duration) -> Result<i32> {
        let mut ended = self.ended.clone();
        let code = match tokio::time::timeout(within, ended.wait_for(Option::is_some)).await {
            Ok(Ok(code)) => *code,
            Ok(Err(_)) => bail!("the supervisor of {} is gone", self.name),
            Err(_) => bail!("{} still runs after {within:?}{}", self.name, self.log_end()),
        };
        code.with_context(|| format!("{} left no exit code", self.name))
    }

    /// The last lines of its log, for an error message.
    pub fn log_end(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.lines().collect();
        let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        format!("; the end of {}:\n{}", self.log.display(), shown.join("\n"))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        if let Some(code) = self.exit_code() {
            bail!("{} has ended with {code}{}", self.name, self.log_end());
        }
        kill_process(self.pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        if let Some(watcher) = self.watcher.take() {
            // The thread panics only if the shell's output cannot be read; then there is nothing to report.
            let _ = watcher.join();
        }
    }
}

/// The supervisor's command, with the environment and the working directory of `command`.
fn supervised(command: &Command, output: &Path, log: &Path) -> Command {
    let mut supervisor = Command::new("/bin/sh");
    supervisor
        .args(["-c", SUPERVISOR, "separation-testbed-supervisor"])
        .arg(output)
        .arg(log)
        .arg(command.get_program())
        .args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        supervisor.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => supervisor.env(name, value),
            None => supervisor.env_remove(name),
        };
    }
    supervisor
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0);
    supervisor
}

fn watch_over(
    mut shell: Child,
    mut supervisor_output: impl Iterator<Item = std::io::Result<String>>,
    sender: &watch::Sender<Option<i32>>,
) {
    /// The shell's exit code if it had not been killed with its group.
    const KILLED: i32 = 128 + 9;
    let code = supervisor_output.next().and_then(|line| line.ok()?.parse().ok());
    // Reports the end only after everything that the program started has ended too.
    let _ = shell.wait();
    sender.send_replace(Some(code.unwrap_or(KILLED)));
}
