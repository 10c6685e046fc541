//! Commands that users paste.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use separation_testbed::{Cluster, Components, WorkerOptions};

/// Runs commands in a directory, which gets a kubeconfig and is the home directory; otherwise the environment is empty.
/// Programs in its directory `bin` replace others. Returns the standard output.
pub(crate) async fn paste(cluster: &Cluster, home: &Path, commands: &str, within: Duration) -> String {
    fs::create_dir(home.join(".kube")).unwrap();
    symlink(cluster.kubeconfig(), home.join(".kube/config")).unwrap();
    let programs = [Components::kubectl().unwrap(), Components::helm().unwrap()]
        .map(|program| program.parent().unwrap().display().to_string())
        .join(":");
    let path = format!("{}/bin:{programs}:{}", home.display(), env::var("PATH").unwrap());
    let commands = format!("cd {}\n{commands}", home.display());
    let shell = WorkerOptions::pasted(&commands, &path, home).start().unwrap();
    assert_eq!(
        shell.wait_exit(within).await.unwrap(),
        0,
        "{}{}",
        shell.log_end(),
        shell.output().unwrap()
    );
    shell.output().unwrap()
}
