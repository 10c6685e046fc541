//! One worker's process: started, looked at over its admin endpoint, drained by SIGTERM, and never killed while it works.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use separation_contract::environment as env;
use serde::Deserialize;
use serde_json::Value;
use tokio::process::{Child, Command};

use super::fleet::{Doing, Seen};
use crate::decide::PodName;

/// How long one look may take: an answer on loopback takes a millisecond, on a machine that is busy separating more.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

/// How long a process that was told twice to end gets before it is killed.
const ABORT_WITHIN: Duration = Duration::from_secs(5);

/// The line of a worker's log that names its admin endpoint.
const ADMIN_LISTENS: &str = "Admin endpoint listens";

/// The program that workers are, and how it is started.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) http: reqwest::Client,
}

/// A worker's process. It is killed with this value.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) name: PodName,
    child: Child,
    log: PathBuf,
    admin: Option<SocketAddr>,
    doing: Doing,
    told_to_end: bool,
    http: reqwest::Client,
}

/// What a worker says of itself.
#[derive(Debug, Deserialize)]
struct Status {
    state: State,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Starting,
    Idle,
    Busy,
    Draining,
    Stopped,
}

impl Program {
    /// Starts a worker in a role, with its log in a file.
    pub(super) fn start(
        &self,
        role: &str,
        name: PodName,
        environment: &BTreeMap<String, String>,
        logs: &Path,
    ) -> anyhow::Result<Worker> {
        let log = logs.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(&self.path);
        command
            .arg(role)
            // It belongs to a key that somebody else gave.
            .env_remove(env::AWS_SESSION_TOKEN)
            .envs(environment)
            // It ends in order when we are gone, however that came.
            .env(env::PARENT_PROCESS, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(file))
            // Ctrl-C is meant for us; we tell them.
            .process_group(0)
            .kill_on_drop(true);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", self.path.display()))?;
        Ok(Worker {
            name,
            child,
            log,
            admin: None,
            doing: Doing::Starting,
            told_to_end: false,
            http: self.http.clone(),
        })
    }
}

impl Worker {
    /// Looks what it is doing; gives how it ended, if it did.
    pub(super) async fn look(&mut self) -> Option<ExitStatus> {
        // That it cannot be waited for means that it is gone.
        if let Ok(Some(ended)) = self.child.try_wait() {
            return Some(ended);
        }
        self.doing = match self.ask().await {
            _ if self.told_to_end => Doing::Draining,
            Ok(State::Starting) => Doing::Starting,
            Ok(State::Idle) => Doing::Idle,
            Ok(State::Busy) => Doing::Busy,
            // It was told by somebody else.
            Ok(State::Draining | State::Stopped) => Doing::Draining,
            Err(_) if self.doing == Doing::Starting => Doing::Starting,
            Err(error) => {
                tracing::debug!(worker = %self.name, error = format!("{error:#}"), "No answer");
                Doing::Untold
            }
        };
        None
    }

    /// What it was doing when it was looked at last.
    pub(super) fn seen(&self) -> Seen {
        Seen {
            name: self.name.clone(),
            doing: self.doing,
        }
    }

    /// Tells it to finish what it has and end, once: told twice it would leave its task.
    pub(super) fn drain(&mut self) {
        if !self.told_to_end {
            self.tell();
        }
    }

    /// Waits until it ended.
    pub(super) async fn ended(&mut self) {
        // One that cannot be waited for is gone.
        let _ = self.child.wait().await;
    }

    /// Ends it at once: its task stays for others.
    pub(super) async fn abort(&mut self) {
        self.drain();
        self.tell();
        if tokio::time::timeout(ABORT_WITHIN, self.ended()).await.is_err() {
            // One that is gone needs no killing.
            let _ = self.child.kill().await;
        }
    }

    fn tell(&mut self) {
        self.told_to_end = true;
        self.doing = Doing::Draining;
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // One that is gone needs no telling.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// The last thing that its log says, for a person: an error's text where there is one.
    pub(super) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let of_error = lines.iter().rev().find(|line| line.starts_with("error: "));
        let last = of_error.or(lines.last()).copied().unwrap_or("nothing");
        let said: Option<Value> = serde_json::from_str(last).ok();
        let said = said.as_ref().and_then(|said| said["message"].as_str());
        format!("{} (all of it: {})", said.unwrap_or(last), self.log.display())
    }

    /// The address that a line of its log names, once it is there.
    pub(super) fn address(&self, message: &str) -> Option<SocketAddr> {
        let text = fs::read_to_string(&self.log).ok()?;
        let lines = text.lines().filter(|line| line.contains(message));
        let mut said = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        said.find_map(|line| line["address"].as_str()?.parse().ok())
    }

    async fn ask(&mut self) -> anyhow::Result<State> {
        let admin = match self.admin {
            Some(admin) => admin,
            None => self.address(ADMIN_LISTENS).context("it does not listen yet")?,
        };
        self.admin = Some(admin);
        let answer = self
            .http
            .get(format!("http://{admin}/status"))
            .timeout(LOOK_WITHIN)
            .send()
            .await?
            .error_for_status()?;
        let status: Status = answer.json().await?;
        Ok(status.state)
    }
}
