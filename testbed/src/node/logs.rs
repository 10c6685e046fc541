//! What containers printed, also those of pods that are gone: kubelet removes the logs with the pods.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

use crate::{Folder, background};

/// Where `machine.sh` puts what kubelet has in /var/log/pods: a folder for each pod, in it one for each container.
const WRITTEN: &str = "logs";
/// Further names of the same files, which stay.
const KEPT: &str = "kept-logs";

/// What a container printed; one that was started again is another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerLog {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Its lines, oldest first.
    pub lines: Vec<String>,
}

/// Keeps logs as long as this is there.
#[derive(Debug)]
pub(super) struct KeptLogs {
    kept: PathBuf,
    keeping: JoinHandle<()>,
}

impl KeptLogs {
    pub(super) fn start(folder: &Folder) -> Result<Self> {
        let kept = folder.subfolder(KEPT)?;
        let (from, to) = (folder.join(WRITTEN), kept.clone());
        let keeping = background::start(async move {
            loop {
                // What goes while it is looked at was seen before, or is seen by another name next time.
                let _ = keep(&from, &to);
                tokio::time::sleep(crate::eventually::POLL).await;
            }
        });
        Ok(Self { kept, keeping })
    }

    pub(super) fn read(&self) -> Result<Vec<ContainerLog>> {
        let mut logs = BTreeMap::new();
        let listed = fs::read_dir(&self.kept).context("cannot list the logs of containers")?;
        for entry in listed {
            let path = entry.context("cannot list the logs of containers")?.path();
            let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if let Some(log) = parse(&name, &String::from_utf8_lossy(&text)) {
                logs.insert(name, log);
            }
        }
        Ok(logs.into_values().collect())
    }
}

impl Drop for KeptLogs {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

/// Gives every file a further name, by which it stays: `NAMESPACE_POD_UID_NUMBER`, the number that of the file itself.
fn keep(from: &Path, to: &Path) -> io::Result<()> {
    for pod in fs::read_dir(from)? {
        let pod = pod?;
        for container in fs::read_dir(pod.path())? {
            for log in fs::read_dir(container?.path())? {
                let log = log?;
                let name = format!("{}_{}", pod.file_name().display(), log.metadata()?.ino());
                match fs::hard_link(log.path(), to.join(name)) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// Each line begins with time, stream and whether it is whole.
fn parse(name: &str, text: &str) -> Option<ContainerLog> {
    let mut words = name.split('_');
    let (namespace, pod) = (words.next()?.to_owned(), words.next()?.to_owned());
    let lines = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3));
    Some(ContainerLog {
        namespace,
        pod,
        lines: lines.map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_outlive_what_they_were_written_for() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let container = from.join("media_vocals-1_uid/worker");
        fs::create_dir_all(&container).unwrap();
        fs::create_dir(&to).unwrap();
        let log = container.join("0.log");
        fs::write(&log, "2026-01-01T00:00:00Z stdout F one two\n").unwrap();
        keep(&from, &to).unwrap();
        keep(&from, &to).unwrap();
        let more = "2026-01-01T00:00:00Z stderr F three\n";
        io::Write::write_all(
            &mut fs::File::options().append(true).open(&log).unwrap(),
            more.as_bytes(),
        )
        .unwrap();
        fs::remove_dir_all(&from).unwrap();
        let names: Vec<_> = fs::read_dir(&to)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(names.len(), 1);
        let name = names[0].file_name().unwrap().to_string_lossy();
        let log = parse(&name, &fs::read_to_string(&names[0]).unwrap()).unwrap();
        assert_eq!((log.namespace.as_str(), log.pod.as_str()), ("media", "vocals-1"));
        assert_eq!(log.lines, ["one two", "three"]);
    }
}
