//! One worker's process: started, polled over its admin endpoint, drained with SIGTERM. It is killed only on an abort.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use separation_contract::environment as env;
use separation_operator::decide::{Moment, PodName};
use serde::Deserialize;
use serde_json::Value;
use tokio::process::{Child, Command};

use super::fleet::{WorkerActivity, WorkerSnapshot};

/// Timeout of a status request: a response on loopback takes a millisecond, but longer while the machine separates
/// songs.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for a process to end after a second SIGTERM, before it is killed.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The message of a worker's log line with the address of its admin endpoint.
const ADMIN_LISTENS: &str = "Admin endpoint listens";

/// The worker's program.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) http: reqwest::Client,
}

/// A worker's process. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) name: PodName,
    pub(super) created: Moment,
    child: Child,
    log: PathBuf,
    admin: Option<SocketAddr>,
    activity: WorkerActivity,
    sigterm_sent: bool,
    http: reqwest::Client,
}

/// A worker's `/status` response.
#[derive(Debug, Deserialize)]
struct StatusResponse {
    state: ReportedState,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ReportedState {
    Starting,
    Idle,
    Busy,
    Draining,
    Stopped,
}

impl Program {
    /// Starts a worker in a role; its log is written to `NAME.log` in `logs`.
    pub(super) fn start(
        &self,
        role: &str,
        name: PodName,
        environment: &BTreeMap<String, String>,
        logs: &Path,
        now: Moment,
    ) -> anyhow::Result<Worker> {
        let log = logs.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command(&self.path, role, environment)
            .stderr(Stdio::from(file))
            .spawn()
            .with_context(|| format!("cannot start {}", self.path.display()))?;
        Ok(Worker {
            name,
            created: now,
            child,
            log,
            admin: None,
            activity: WorkerActivity::Starting,
            sigterm_sent: false,
            http: self.http.clone(),
        })
    }
}

fn command(program: &Path, role: &str, environment: &BTreeMap<String, String>) -> Command {
    let mut command = Command::new(program);
    // Options of this process; only the API has clients, and its environment has their credentials.
    for name in [env::BASIC_AUTH_PASSWORD, env::API_KEYS] {
        command.env_remove(name);
    }
    if environment.contains_key(env::AWS_ACCESS_KEY_ID) {
        // It belongs to the user's own keys, which those of the pool replace.
        command.env_remove(env::AWS_SESSION_TOKEN);
    }
    command
        .arg(role)
        .envs(environment)
        // The worker drains when this process is gone, even after a crash.
        .env(env::PARENT_PROCESS, std::process::id().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // Ctrl-C must reach only this process, which then drains the workers.
        .process_group(0)
        .kill_on_drop(true);
    command
}

impl Worker {
    /// Polls its activity; returns its exit status if it ended.
    pub(super) async fn poll(&mut self) -> Option<ExitStatus> {
        // An error also means that it is gone.
        if let Ok(Some(ended)) = self.child.try_wait() {
            return Some(ended);
        }
        self.activity = match self.fetch_state().await {
            _ if self.sigterm_sent => WorkerActivity::Draining,
            Ok(ReportedState::Starting) => WorkerActivity::Starting,
            Ok(ReportedState::Idle) => WorkerActivity::Idle,
            Ok(ReportedState::Busy) => WorkerActivity::Busy,
            // It was stopped by another process.
            Ok(ReportedState::Draining | ReportedState::Stopped) => WorkerActivity::Draining,
            Err(_) if self.activity == WorkerActivity::Starting => WorkerActivity::Starting,
            Err(error) => {
                tracing::debug!(worker = %self.name, error = format!("{error:#}"), "No response");
                WorkerActivity::Unknown
            }
        };
        None
    }

    /// Its activity at the last poll.
    pub(super) fn snapshot(&self) -> WorkerSnapshot {
        WorkerSnapshot {
            name: self.name.clone(),
            activity: self.activity,
            created: self.created,
        }
    }

    /// Sends SIGTERM once, so that it finishes its task and ends; a second SIGTERM would abort the task.
    pub(super) fn drain(&mut self) {
        if !self.sigterm_sent {
            self.send_sigterm();
        }
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&mut self) {
        // An error means that it is gone.
        let _ = self.child.wait().await;
    }

    /// Stops it immediately; its task stays uncommitted, for another worker.
    pub(super) async fn abort(&mut self) {
        self.drain();
        self.send_sigterm();
        if tokio::time::timeout(ABORT_TIMEOUT, self.ended()).await.is_err() {
            // Fails only if it has ended already.
            let _ = self.child.kill().await;
        }
    }

    fn send_sigterm(&mut self) {
        self.sigterm_sent = true;
        self.activity = WorkerActivity::Draining;
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // Fails only if it has ended already.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// The last error in its log, or else the last line, with the path of the log.
    pub(super) fn last_error(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let of_error = lines.iter().rev().find(|line| line.starts_with("error: "));
        let last = of_error.or(lines.last()).copied().unwrap_or("no output");
        let line: Option<Value> = serde_json::from_str(last).ok();
        let message = line.as_ref().and_then(|line| line["message"].as_str());
        format!("{} (log: {})", message.unwrap_or(last), self.log.display())
    }

    /// The address in the log line with `message`, once it was written.
    pub(super) fn address(&self, message: &str) -> Option<SocketAddr> {
        let text = fs::read_to_string(&self.log).ok()?;
        let lines = text.lines().filter(|line| line.contains(message));
        let mut entries = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entries.find_map(|line| line["address"].as_str()?.parse().ok())
    }

    async fn fetch_state(&mut self) -> anyhow::Result<ReportedState> {
        let admin = match self.admin {
            Some(admin) => admin,
            None => self.address(ADMIN_LISTENS).context("it does not listen yet")?,
        };
        self.admin = Some(admin);
        let response = self
            .http
            .get(format!("http://{admin}/status"))
            .timeout(STATUS_TIMEOUT)
            .send()
            .await?
            .error_for_status()?;
        let status: StatusResponse = response.json().await?;
        Ok(status.state)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_process_inherits_no_credentials_of_clients() {
        let value = |environment: BTreeMap<String, String>, name: &str| {
            let command = command(Path::new("separation-worker"), "api", &environment);
            let mut set = command.as_std().get_envs();
            let set = set.find(|(found, _)| *found == name);
            // `None` means that the variable is removed.
            set.expect("an inherited variable").1.map(OsStr::to_owned)
        };
        for name in [env::BASIC_AUTH_PASSWORD, env::API_KEYS] {
            assert_eq!(value(BTreeMap::new(), name), None, "{name}");
            let own = BTreeMap::from([(name.to_owned(), "own".to_owned())]);
            assert_eq!(value(own, name), Some("own".into()), "{name}");
        }
    }
}
