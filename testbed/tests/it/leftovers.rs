//! Nothing stays behind: no process, no folder.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use separation_testbed::{Folder, Process, S3Server, eventually};

const SOON: Duration = Duration::from_secs(20);

fn runs(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn what_is_dropped_is_gone_at_once() {
    let server = S3Server::start().await.unwrap();
    let pid = server.process().pid();
    assert!(runs(pid));
    drop(server);
    assert!(!runs(pid));
    let folder = Folder::new().unwrap();
    let path = folder.path().to_owned();
    std::fs::write(folder.join("file"), "content").unwrap();
    drop(folder);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_process_tells_how_it_ended() {
    let folder = Folder::new().unwrap();
    let (out, log) = (folder.join("out"), folder.join("log"));
    let mut command = Command::new("sh");
    command.args(["-c", "echo said; echo complained >&2; exit 3"]);
    let process = Process::start("a shell", &command, &out, &log).unwrap();
    assert_eq!(process.wait_exit(SOON).await.unwrap(), 3);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "said\n");
    assert!(process.log_end().ends_with("complained"));
    assert!(process.sigterm().is_err());
    let mut endless = Command::new("sleep");
    endless.arg("1000");
    let process = Process::start("sleep", &endless, &out, &log).unwrap();
    process.sigstop().unwrap();
    assert!(process.wait_exit(Duration::from_millis(100)).await.is_err());
    process.kill_9().await.unwrap();
    assert_eq!(process.exit_code(), Some(137));
    let missing = Process::start("nothing", &Command::new("no-such-program"), &out, &log).unwrap();
    assert_eq!(missing.wait_exit(SOON).await.unwrap(), 127);
}

/// What the test below starts as a process of its own, to be killed.
#[tokio::test]
async fn a_process_that_waits_to_be_killed() {
    let Ok(told) = std::env::var("TESTBED_TELL") else {
        return;
    };
    let server = S3Server::start().await.unwrap();
    let folder = Folder::new().unwrap();
    let text = format!("{}\n{}", server.process().pid(), folder.path().display());
    std::fs::write(format!("{told}.part"), text).unwrap();
    std::fs::rename(format!("{told}.part"), told).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn nothing_outlives_a_killed_test() {
    let folder = Folder::new().unwrap();
    let told = folder.join("told");
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "leftovers::a_process_that_waits_to_be_killed"])
        .env("TESTBED_TELL", &told)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let text = eventually("word of the process", SOON, async || {
        std::fs::read_to_string(&told).ok()
    })
    .await;
    let (pid, path) = text.split_once('\n').unwrap();
    let pid = pid.parse().unwrap();
    assert!(runs(pid) && Path::new(path).exists());
    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("end of its server", SOON, async || !runs(pid)).await;
    eventually("end of its folder", SOON, async || !Path::new(path).exists()).await;
}
