//! What `helm` and `kubectl` install: the chart as a package, and the plain manifests as one file.

use std::fs;

use anyhow::{Context, Result};

use super::release::{Release, VERSION};
use crate::names::Names;
use crate::{components, manifests, process};

const CHART: &str = "charts/separation-operator";

/// Writes the package of the chart. The same files give the same package.
pub(super) fn write_chart(release: &Release<'_>) -> Result<()> {
    let project = release.project;
    let helm = components::helm(project)?;
    // Helm packs the times of the files.
    let copy = project.cache().temporary_dir()?;
    process::run(project.command("cp").args(["-r", CHART]).arg(copy.path()))?;
    let mut dating = project.command("find");
    process::run(
        dating
            .arg(copy.path())
            .args(["-exec", "touch", "--date=@0", "{}", "+"]),
    )?;
    // Isolates Helm from the user's settings and plugins.
    let home = project.cache().temporary_dir()?;
    let mut packaging = project.command(helm);
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        packaging.env(variable, home.path());
    }
    packaging
        .arg("package")
        .arg(copy.path().join("separation-operator"))
        .arg("--destination")
        .arg(&release.directory);
    process::run(&mut packaging)
}

/// Writes `install.yaml` and `quickstart.yaml`.
pub(super) fn write_manifests(release: &Release<'_>) -> Result<()> {
    let joined = manifests::install(release.project)?;
    let path = release.path("install.yaml");
    fs::write(&path, head(&release.names, &joined) + &joined)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let quickstart = release.project.path(manifests::QUICKSTART);
    fs::copy(&quickstart, release.path("quickstart.yaml"))
        .with_context(|| format!("cannot copy {}", quickstart.display()))?;
    Ok(())
}

/// The comment at the top of install.yaml. Without a registry, it has the lines to change.
fn head(names: &Names, joined: &str) -> String {
    let head = format!(
        "# separation-operator {VERSION}, for SeparationPools in all namespaces: kubectl apply -f install.yaml\n"
    );
    if !names.has_placeholder() {
        return head;
    }
    let registry = &names.image_repository;
    let image = format!("{registry}/separation-");
    let lines = joined.lines().filter(|line| line.contains(&image));
    let lines: String = lines.map(|line| format!("#   {}\n", line.trim())).collect();
    format!(
        "{head}# {registry} is a placeholder, not a registry: first push both images to yours, and write it into these lines:\n{lines}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Project;

    #[test]
    fn install_yaml_begins_with_the_two_lines_to_change_while_images_have_no_registry() {
        let project = Project::locate().unwrap();
        let mut names = Names::read(&project).unwrap();
        let joined = manifests::install(&project).unwrap();
        let joined = joined.replace(&names.image_repository, "registry.example");
        names.image_repository = "registry.example".to_owned();
        let commented = head(&names, &joined);
        assert!(
            commented.lines().all(|line| line.starts_with("# ")),
            "{commented}"
        );
        let listed: Vec<_> = commented
            .lines()
            .filter_map(|line| line.strip_prefix("#   "))
            .collect();
        let expected = [("image", "operator"), ("value", "worker")].map(|(field, program)| {
            format!(
                "{field}: {}/separation-{program}:{VERSION}",
                names.image_repository
            )
        });
        assert_eq!(listed, expected);
        names.image_repository = "images.acme.test".to_owned();
        assert_eq!(head(&names, &joined).lines().count(), 1);
    }
}
