//! The names and places of the project, which `project.toml` states, and their replacement in the files of the checkout.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::process;
use crate::project::Project;

const FILE: &str = "project.toml";

/// This file, whose tests have names of their own.
const THIS: &str = "xtask/src/names.rs";

/// The table of the values that the files have, at the end of `project.toml`.
const GENERATED: &str = "[generated]\n";

const STALE: &str = "project.toml has names that the other files do not have; fix: `cargo xtask generate`, then review \
                     and commit the changes";

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Names {
    /// In titles and names of files.
    pub(crate) name: String,
    pub(crate) api_group: String,
    /// The name of an image without `/separation-…`.
    pub(crate) image_repository: String,
    pub(crate) chart_repository: String,
    pub(crate) source_url: String,
    pub(crate) security_contact: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    names: Names,
    generated: Names,
}

impl Names {
    /// The names that all files have.
    pub(crate) fn read(project: &Project) -> Result<Self> {
        let Content { names, generated } = parse(&text(project)?)?;
        ensure!(names == generated, STALE);
        Ok(names)
    }

    /// Whether images have no registry yet.
    pub(crate) fn has_placeholder(&self) -> bool {
        is_placeholder(&self.image_repository)
    }

    /// The values that are not decided yet, with their keys.
    pub(crate) fn placeholders(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.fields()
            .into_iter()
            .filter(|(_, value)| is_placeholder(value))
    }

    fn fields(&self) -> [(&'static str, &str); 6] {
        [
            ("name", &self.name),
            ("api-group", &self.api_group),
            ("image-repository", &self.image_repository),
            ("chart-repository", &self.chart_repository),
            ("source-url", &self.source_url),
            ("security-contact", &self.security_contact),
        ]
    }

    /// The texts by which files contain the values. One that contains another one comes before it.
    fn texts(&self) -> [String; 7] {
        [
            format!("# {}\n", self.name),
            format!("part-of: {}\n", self.name),
            self.chart_repository.clone(),
            format!("{}/separation-", self.image_repository),
            self.security_contact.clone(),
            self.source_url.clone(),
            self.api_group.clone(),
        ]
    }
}

/// Replaces changed values in all files, or fails if there are any and `check` is set.
pub(crate) fn generate(project: &Project, check: bool) -> Result<()> {
    let text = text(project)?;
    let Content { names, generated } = parse(&text)?;
    if names == generated {
        return Ok(());
    }
    ensure!(!check, STALE);
    let (old, new) = (generated.texts(), names.texts());
    for path in files(project)? {
        // Files that are not text have no names; listed files that do not exist are deleted ones.
        let Ok(content) = fs::read_to_string(&path) else {
            continue;
        };
        let replaced = replaced(&content, &old, &new);
        if replaced != content {
            println!("writing {}", path.display());
            fs::write(&path, replaced).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    let path = project.path(FILE);
    fs::write(&path, with_generated(&text, &names)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    // Lines break elsewhere after names of another length.
    process::run(project.cargo("fmt").arg("--all"))
}

fn text(project: &Project) -> Result<String> {
    let path = project.path(FILE);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn parse(text: &str) -> Result<Content> {
    let content: Content = toml::from_str(text).with_context(|| format!("{FILE} is invalid"))?;
    for (key, value) in content.names.fields() {
        let is_plain =
            !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || "\"'\\".contains(c));
        let expected = match key {
            "name" if !is_label(value) => "lower-case letters, digits and hyphens",
            "api-group" if !value.contains('.') || !value.split('.').all(is_label) => {
                "a DNS name in lower case with a dot"
            }
            _ if !is_plain || value.ends_with('/') => "a value without spaces, quotes and a final /",
            _ => continue,
        };
        bail!("{FILE}: {key} is {value:?}; fix: {expected}");
    }
    Ok(content)
}

/// Whether this is a label of a DNS name (RFC 1123) in lower case.
fn is_label(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len())
        && text.chars().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether the host of this address is in the reserved domain `example` (RFC 2606).
fn is_placeholder(value: &str) -> bool {
    let (_, rest) = value.split_once("://").unwrap_or(("", value));
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default();
    host.ends_with(".example")
}

/// The files of the checkout that may have names of the project.
fn files(project: &Project) -> Result<Vec<PathBuf>> {
    let mut git = project.git();
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = process::read(&mut git)?;
    let names = listed
        .split_terminator('\0')
        .filter(|name| ![FILE, THIS].contains(name));
    Ok(names.map(|name| project.path(name)).collect())
}

fn replaced(content: &str, old: &[String], new: &[String]) -> String {
    let changes = old.iter().zip(new).filter(|(old, new)| old != new);
    changes.fold(content.to_owned(), |content, (old, new)| {
        content.replace(old, new)
    })
}

/// The text of `project.toml` with these values as those that the files have.
fn with_generated(text: &str, names: &Names) -> Result<String> {
    let (head, _) = text
        .split_once(GENERATED)
        .with_context(|| format!("{FILE} has no line {}", GENERATED.trim_end()))?;
    let values: String = names
        .fields()
        .iter()
        .map(|(key, value)| format!("{key} = \"{value}\"\n"))
        .collect();
    Ok(format!("{head}{GENERATED}{values}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITTED: &str = include_str!("../../project.toml");

    fn with(change: impl FnOnce(&mut Names)) -> Names {
        let mut names = parse(COMMITTED).unwrap().generated;
        change(&mut names);
        names
    }

    #[test]
    fn files_have_the_names_of_project_toml() {
        let project = Project::locate().unwrap();
        let names = parse(COMMITTED).unwrap().names;
        let check = |file: &str, expected: &str| {
            let content = fs::read_to_string(project.path(file)).unwrap();
            assert!(content.contains(expected), "{file} lacks {expected}");
        };
        check("README.md", &format!("# {}\n", names.name));
        check(
            "operator/src/crd/mod.rs",
            &format!("group = \"{}\"", names.api_group),
        );
        let image = format!("{}/separation-", names.image_repository);
        check("charts/separation-operator/values.yaml", &image);
        check("deploy/operator/deployment.yaml", &image);
        check("docs/install.md", &names.chart_repository);
        check("charts/separation-operator/Chart.yaml", &names.source_url);
        for file in ["Dockerfile.worker", "Dockerfile.operator", "Dockerfile.local"] {
            let label = format!("org.opencontainers.image.source=\"{}\"", names.source_url);
            check(file, &label);
        }
        check("SECURITY.md", &names.security_contact);
    }

    #[test]
    fn changed_names_are_replaced_and_no_others() {
        let old = with(|names| {
            names.name = "separation".to_owned();
            names.api_group = "separation.dev".to_owned();
            names.image_repository = "registry.example".to_owned();
            names.chart_repository = "oci://registry.example/charts".to_owned();
        });
        let mut new = old.clone();
        new.name = "splitter".to_owned();
        new.api_group = "audio.acme.test".to_owned();
        new.image_repository = "images.acme.test/splitter".to_owned();
        let content = "# separation\napiVersion: separation.dev/v1beta1\nimage: registry.example/separation-worker:1\n\
                       helm pull oci://registry.example/charts/separation-operator\nuse separation::audio;\n";
        assert_eq!(
            replaced(content, &old.texts(), &new.texts()),
            "# splitter\napiVersion: audio.acme.test/v1beta1\nimage: images.acme.test/splitter/separation-worker:1\n\
             helm pull oci://registry.example/charts/separation-operator\nuse separation::audio;\n"
        );
    }

    #[test]
    fn replaced_names_are_recorded() {
        let names = with(|names| names.api_group = "audio.acme.test".to_owned());
        let written = parse(&with_generated(COMMITTED, &names).unwrap()).unwrap();
        assert_eq!(written.generated, names);
        assert_eq!(written.names, parse(COMMITTED).unwrap().names);
    }

    #[test]
    fn a_value_that_would_break_files_is_refused() {
        let committed = parse(COMMITTED).unwrap().names;
        for (key, value) in [
            ("image-repository", ""),
            ("image-repository", "a b"),
            ("image-repository", "a\\\"b"),
            ("image-repository", "registry.test/"),
            ("name", "Splitter"),
            ("name", "a.b"),
            ("api-group", "separation"),
            ("api-group", "audio..test"),
            ("api-group", "audio.-acme.test"),
        ] {
            let mut fields = committed.fields().into_iter();
            let (_, current) = fields.find(|(found, _)| *found == key).unwrap();
            let line = |value: &str| format!("\n{key} = \"{value}\"\n");
            let text = COMMITTED.replacen(&line(current), &line(value), 1);
            let refused = parse(&text).unwrap_err().to_string();
            assert!(
                refused.starts_with(&format!("project.toml: {key} is")),
                "{refused}"
            );
        }
    }

    #[test]
    fn placeholders_are_known_by_their_host() {
        for value in [
            "registry.example",
            "registry.example:5000/audio",
            "oci://registry.example/charts",
            "https://source.example/separation",
            "security@source.example",
        ] {
            assert!(is_placeholder(value), "{value}");
        }
        for value in [
            "registry.example.com",
            "registry.test/registry.example",
            "separation",
        ] {
            assert!(!is_placeholder(value), "{value}");
        }
    }
}
