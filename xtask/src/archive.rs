//! Packs a directory as an image archive, as `docker save` writes it, or as a compressed archive; needs only tar and
//! gzip.
//!
//! Never runs anything from the packed files and never builds a Dockerfile: see `images`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use crate::cache::sha256_file;
use crate::process;
use crate::project::Project;

const CONFIG: &str = "config.json";
const MANIFEST: &str = "manifest.json";
const LAYER: &str = "layer.tar";

/// Writes an image with the files of `root` under this name (`host/path:tag`).
///
/// The same files, owners and permissions give the same image.
pub(crate) fn write(
    project: &Project,
    root: &Path,
    name: &str,
    entrypoint: &[&str],
    archive: &Path,
) -> Result<()> {
    // A temporary directory is private; the root of a file system must not be.
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot change the permissions of {}", root.display()))?;
    let content_dir = project.cache().temporary_dir()?;
    let layer = content_dir.path().join(LAYER);
    let mut packing = tar(project, root, &layer);
    packing.arg(".");
    process::run(&mut packing)?;
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256_file(&layer)?)]},
    });
    let manifest = json!([{"Config": CONFIG, "RepoTags": [name], "Layers": [LAYER]}]);
    for (file, content) in [(CONFIG, config), (MANIFEST, manifest)] {
        fs::write(content_dir.path().join(file), content.to_string())
            .with_context(|| format!("cannot write the {file} of {name}"))?;
    }
    let mut packing = tar(project, content_dir.path(), archive);
    packing.args([MANIFEST, CONFIG, LAYER]);
    process::run(&mut packing)
}

/// Writes the directory `name` of `parent` as a compressed archive. The same files and permissions give the same archive.
pub(crate) fn compress(project: &Project, parent: &Path, name: &str, archive: &Path) -> Result<()> {
    let mut packing = tar(project, parent, archive);
    // -n: without the time.
    packing.args(["--owner=0", "--group=0", "--use-compress-program=gzip -n", name]);
    process::run(&mut packing)
}

/// A tar command that packs the paths appended to it.
fn tar(project: &Project, directory: &Path, archive: &Path) -> std::process::Command {
    let mut tar = project.command("tar");
    tar.args([
        "--create",
        "--sort=name",
        "--mtime=@0",
        "--numeric-owner",
        "--file",
    ])
    .arg(archive)
    .arg("--directory")
    .arg(directory);
    tar
}

/// This machine's architecture, as named in images.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_holds_one_layer_and_is_the_same_every_time() {
        let project = Project::locate().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("program"), "bytes").unwrap();
        let written = ["one.tar", "two.tar"].map(|name| {
            let archive = dir.path().join(name);
            write(&project, &root, "example.test/image:1", &["/program"], &archive).unwrap();
            sha256_file(&archive).unwrap()
        });
        assert_eq!(written[0], written[1]);
        let archive = dir.path().join("one.tar");
        let unpacked = dir.path().join("unpacked");
        fs::create_dir(&unpacked).unwrap();
        let mut tar = project.command("tar");
        tar.arg("-xf").arg(&archive).arg("-C").arg(&unpacked);
        process::run(&mut tar).unwrap();
        let read = |name: &str| -> serde_json::Value {
            serde_json::from_str(&fs::read_to_string(unpacked.join(name)).unwrap()).unwrap()
        };
        assert_eq!(read(MANIFEST)[0]["RepoTags"][0], "example.test/image:1");
        let layer = sha256_file(&unpacked.join(LAYER)).unwrap();
        assert_eq!(read(CONFIG)["rootfs"]["diff_ids"][0], format!("sha256:{layer}"));
    }
}
