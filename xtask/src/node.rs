//! Whether this machine can run a Kubernetes node of its own, for tests and for trials, and its parts where it can.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, bail};

use crate::project::Project;
use crate::{parts, process};

/// What tests are told where there is no node: the reason. The testbed reads it.
pub(crate) const NO_NODE: &str = "SEPARATION_NO_NODE";

/// Control groups that a kubelet does not start without.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// Installs what a node takes, or gives the reason why this machine cannot run one.
///
/// Where every test must run, as in CI, such a machine is an error.
pub(crate) fn install(project: &Project) -> Result<Option<String>> {
    let Some(obstacle) = obstacle(project) else {
        parts::install_node(project)?;
        return Ok(None);
    };
    if project.is_ci() {
        bail!("tests on a Kubernetes node cannot run here, and CI skips none: {obstacle}");
    }
    println!("tests on a Kubernetes node are skipped: {obstacle}");
    Ok(Some(obstacle))
}

/// Why this machine cannot run a node; nothing where it can.
pub(crate) fn obstacle(project: &Project) -> Option<String> {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !is_root {
        return Some("a node is made of containers, which takes root".to_owned());
    }
    let groups = Path::new("/sys/fs/cgroup");
    let missing = missing_controllers(groups);
    if !missing.is_empty() {
        return Some(format!(
            "there is no control group of {} in {}",
            missing.join(", "),
            groups.display()
        ));
    }
    let mut namespaces = project.command("unshare");
    namespaces.args(["--mount", "--net", "--pid", "--fork", "true"]);
    if !process::succeeds(&mut namespaces) {
        return Some(
            "this system does not let us make namespaces (`unshare --mount --net --pid`)".to_owned(),
        );
    }
    None
}

/// Of version 1 or 2.
fn missing_controllers(groups: &Path) -> Vec<&'static str> {
    let unified = std::fs::read_to_string(groups.join("cgroup.controllers")).unwrap_or_default();
    let is_there = |name: &&str| {
        unified.split_whitespace().any(|controller| controller == *name) || groups.join(name).is_dir()
    };
    CONTROLLERS.into_iter().filter(|name| !is_there(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_groups_of_both_kinds_are_found() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(missing_controllers(dir.path()), CONTROLLERS);
        for name in ["cpu", "memory", "pids"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert_eq!(missing_controllers(dir.path()), ["cpuset"]);
        std::fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu io\n").unwrap();
        assert!(missing_controllers(dir.path()).is_empty());
    }
}
