//! Logs of containers, including deleted pods, whose logs the kubelet removes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

use crate::{TempDirectory, background};

/// Where `machine.sh` mounts the kubelet's /var/log/pods: a directory per pod with one per container.
const POD_LOGS: &str = "logs";
/// Hard links to the same files, which are kept.
const COLLECTED: &str = "kept-logs";

/// The log of a container; a restarted container has a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerLog {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// When its file was created, which is when containerd starts the container; none if the file system does not
    /// record it.
    pub created: Option<SystemTime>,
    /// Its lines, oldest first.
    pub lines: Vec<String>,
}

/// Collects logs while this exists.
#[derive(Debug)]
pub(super) struct LogCollector {
    directory: PathBuf,
    collector: JoinHandle<()>,
}

impl LogCollector {
    pub(super) fn start(directory: &TempDirectory) -> Result<Self> {
        let collected = directory.subdirectory(COLLECTED)?;
        let (from, to) = (directory.join(POD_LOGS), collected.clone());
        let collector = background::start(async move {
            loop {
                // A file removed during the scan was linked earlier or will be found under another name in
                // the next scan.
                let _ = link_all(&from, &to);
                tokio::time::sleep(crate::eventually::POLL).await;
            }
        });
        Ok(Self {
            directory: collected,
            collector,
        })
    }

    pub(super) fn read(&self) -> Result<Vec<ContainerLog>> {
        let mut logs = BTreeMap::new();
        let listed = fs::read_dir(&self.directory).context("cannot list the logs of containers")?;
        for entry in listed {
            let path = entry.context("cannot list the logs of containers")?.path();
            let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let created = fs::metadata(&path).and_then(|file| file.created()).ok();
            if let Some(log) = parse(&name, created, &String::from_utf8_lossy(&text)) {
                logs.insert(name, log);
            }
        }
        Ok(logs.into_values().collect())
    }
}

impl Drop for LogCollector {
    fn drop(&mut self) {
        self.collector.abort();
    }
}

/// Hard-links every file to `NAMESPACE_POD_UID_NUMBER`, where the number is the file's inode.
fn link_all(from: &Path, to: &Path) -> io::Result<()> {
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

/// Each line begins with a time, the stream and whether the line is complete.
fn parse(name: &str, created: Option<SystemTime>, text: &str) -> Option<ContainerLog> {
    let mut fields = name.split('_');
    let (namespace, pod) = (fields.next()?.to_owned(), fields.next()?.to_owned());
    let lines = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3));
    Some(ContainerLog {
        namespace,
        pod,
        created,
        lines: lines.map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_outlive_their_pods() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let container = from.join("media_vocals-1_uid/worker");
        fs::create_dir_all(&container).unwrap();
        fs::create_dir(&to).unwrap();
        let log = container.join("0.log");
        fs::write(&log, "2026-01-01T00:00:00Z stdout F one two\n").unwrap();
        link_all(&from, &to).unwrap();
        link_all(&from, &to).unwrap();
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
        let log = parse(&name, None, &fs::read_to_string(&names[0]).unwrap()).unwrap();
        assert_eq!((log.namespace.as_str(), log.pod.as_str()), ("media", "vocals-1"));
        assert_eq!(log.lines, ["one two", "three"]);
    }
}
