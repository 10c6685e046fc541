//! Checks whether this machine can run a Kubernetes node, for tests and trials, and installs its components.

use std::path::Path;

use anyhow::{Result, bail};

use crate::project::Project;
use crate::{components, process, system};

/// Passes the reason why there is no node to the tests. The testbed reads it.
pub(crate) const NO_NODE: &str = "SEPARATION_NO_NODE";

/// Control group controllers that a kubelet requires.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// Installs the components of a node, or returns why this machine cannot run one.
///
/// In CI, where no test may be skipped, this is an error.
pub(crate) fn install(project: &Project) -> Result<Option<String>> {
    let Some(obstacle) = obstacle(project) else {
        components::install_node(project)?;
        return Ok(None);
    };
    if project.is_ci() {
        bail!("tests on a Kubernetes node cannot run here, and CI skips none: {obstacle}");
    }
    println!("tests on a Kubernetes node are skipped: {obstacle}");
    Ok(Some(obstacle))
}

/// Why this machine cannot run a node; `None` if it can.
pub(crate) fn obstacle(project: &Project) -> Option<String> {
    if !system::is_root() {
        return Some("a node needs containers, which require root".to_owned());
    }
    let groups = Path::new("/sys/fs/cgroup");
    let missing = missing_controllers(groups);
    if !missing.is_empty() {
        return Some(format!(
            "there is no {} control group in {}",
            missing.join(", "),
            groups.display()
        ));
    }
    let mut namespaces = project.command("unshare");
    namespaces.args(["--mount", "--net", "--pid", "--fork", "true"]);
    if !process::succeeds(&mut namespaces) {
        return Some(
            "this system does not allow creating namespaces (`unshare --mount --net --pid`)".to_owned(),
        );
    }
    None
}

/// Checks control groups v1 and v2.
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
