//! No process or directory is left behind.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use separation_testbed::{Process, S3Server, TempDirectory, eventually};

const TIMEOUT: Duration = Duration::from_secs(20);

fn runs(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_dropped_server_and_directory_are_removed_immediately() {
    let server = S3Server::start().await.unwrap();
    let pid = server.process().pid();
    assert!(runs(pid));
    drop(server);
    assert!(!runs(pid));
    let directory = TempDirectory::new().unwrap();
    let path = directory.path().to_owned();
    std::fs::write(directory.join("file"), "content").unwrap();
    drop(directory);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_process_reports_its_exit_code() {
    let directory = TempDirectory::new().unwrap();
    let (out, log) = (directory.join("out"), directory.join("log"));
    let mut command = Command::new("sh");
    command.args(["-c", "echo output; echo error >&2; exit 3"]);
    let process = Process::start("a shell", &command, &out, &log).unwrap();
    assert_eq!(process.wait_exit(TIMEOUT).await.unwrap(), 3);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "output\n");
    assert!(process.log_end().ends_with("error"));
    assert!(process.sigterm().is_err());
    let mut endless = Command::new("sleep");
    endless.arg("1000");
    let process = Process::start("sleep", &endless, &out, &log).unwrap();
    process.sigstop().unwrap();
    assert!(process.wait_exit(Duration::from_millis(100)).await.is_err());
    process.kill_9().await.unwrap();
    assert_eq!(process.exit_code(), Some(137));
    let missing = Process::start("nothing", &Command::new("no-such-program"), &out, &log).unwrap();
    assert_eq!(missing.wait_exit(TIMEOUT).await.unwrap(), 127);
}

/// Started by the test below as a separate process, to be killed.
#[tokio::test]
async fn a_process_that_is_killed() {
    let Ok(report) = std::env::var("TESTBED_REPORT") else {
        return;
    };
    let server = S3Server::start().await.unwrap();
    let directory = TempDirectory::new().unwrap();
    let text = format!("{}\n{}", server.process().pid(), directory.path().display());
    std::fs::write(format!("{report}.part"), text).unwrap();
    std::fs::rename(format!("{report}.part"), report).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn nothing_outlives_a_killed_test() {
    let directory = TempDirectory::new().unwrap();
    let report = directory.join("report");
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "leftovers::a_process_that_is_killed"])
        .env("TESTBED_REPORT", &report)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let text = eventually("output of the process", TIMEOUT, async || {
        std::fs::read_to_string(&report).ok()
    })
    .await;
    let (pid, path) = text.split_once('\n').unwrap();
    let pid = pid.parse().unwrap();
    assert!(runs(pid) && Path::new(path).exists());
    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("end of its server", TIMEOUT, async || !runs(pid)).await;
    eventually("removal of its directory", TIMEOUT, async || {
        !Path::new(path).exists()
    })
    .await;
}
