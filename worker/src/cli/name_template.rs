//! The template of stems' file names, `--name`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, ensure};

use super::stem_files::{MAX_NAME_BYTES, shortened};
use crate::model::StemName;

/// A path below the output directory, without the extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NameTemplate {
    text: String,
    /// At least one component, each of at least one part.
    components: Vec<Vec<Part>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// File name of the song without its extension.
    Name,
    /// Name of the stem.
    Stem,
}

impl NameTemplate {
    pub(super) fn has_name(&self) -> bool {
        self.components.iter().flatten().any(|part| *part == Part::Name)
    }

    pub(super) fn has_stem(&self) -> bool {
        self.components.iter().flatten().any(|part| *part == Part::Stem)
    }

    /// The path of a stem of a song below the output directory. `name` is the song's file name without its extension.
    pub(super) fn path(&self, name: &OsStr, stem: &StemName, extension: &str) -> Result<PathBuf> {
        let mut path = PathBuf::new();
        for (index, parts) in self.components.iter().enumerate() {
            let is_last = index + 1 == self.components.len();
            let ending = if is_last {
                format!(".{extension}")
            } else {
                String::new()
            };
            let component = component(parts, name, stem, &ending);
            ensure!(
                component != "." && component != "..",
                "--name {self} gives the directory {} for the song {}; fix: rename the song, or use another --name",
                component.display(),
                name.display()
            );
            path.push(component);
        }
        Ok(path)
    }
}

/// One component of a path, in which the song's name is shortened to what file systems allow.
fn component(parts: &[Part], name: &OsStr, stem: &StemName, ending: &str) -> OsString {
    let mut names = 0;
    let mut other_bytes = ending.len();
    for part in parts {
        match part {
            Part::Text(text) => other_bytes += text.len(),
            Part::Stem => other_bytes += stem.as_str().len(),
            Part::Name => names += 1,
        }
    }
    let name = shortened(
        name.as_bytes(),
        MAX_NAME_BYTES.saturating_sub(other_bytes) / names.max(1),
    );
    let mut component = Vec::new();
    for part in parts {
        component.extend_from_slice(match part {
            Part::Text(text) => text.as_bytes(),
            Part::Stem => stem.as_str().as_bytes(),
            Part::Name => &name,
        });
    }
    component.extend_from_slice(ending.as_bytes());
    OsString::from_vec(component)
}

impl fmt::Display for NameTemplate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl FromStr for NameTemplate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self {
            text: text.to_owned(),
            components: text.split('/').map(parts).collect::<Result<_, _>>()?,
        })
    }
}

/// The parts of one component of a path.
fn parts(text: &str) -> Result<Vec<Part>, String> {
    const UNBALANCED: &str =
        "a { or } is not part of a placeholder; fix: use {name}, {stem} and text without braces";
    if matches!(text, "" | "." | "..") {
        return Err(format!(
            "the part {text:?} of the path does not name a file below --output-dir; fix: use a path such as \
             {{name}}/{{stem}}"
        ));
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(['{', '}']) {
        let (before, braced) = rest.split_at(start);
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        let (placeholder, after) = braced
            .strip_prefix('{')
            .and_then(|braced| braced.split_once('}'))
            .ok_or(UNBALANCED)?;
        parts.push(match placeholder {
            "name" => Part::Name,
            "stem" => Part::Stem,
            unknown => {
                return Err(format!(
                    "unknown placeholder {{{unknown}}}; fix: use {{name}} (the song's file name without its \
                     extension) and {{stem}}"
                ));
            }
        });
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn path(template: &str, name: &str) -> Result<PathBuf> {
        let stem = StemName::new("vocals").expect("a stem");
        let template: NameTemplate = template.parse().expect("a template");
        template.path(OsStr::new(name), &stem, "wav")
    }

    fn check(template: &str, name: &str, expected: &str) {
        assert_eq!(path(template, name).expect("a path"), Path::new(expected));
    }

    fn check_refused(template: &str, expected: &str) {
        let refused = template.parse::<NameTemplate>().expect_err(template);
        assert!(refused.contains(expected), "{refused}");
        assert!(refused.contains("fix: "), "{refused}");
    }

    #[test]
    fn placeholders_are_replaced_and_slashes_give_sub_directories() {
        check("{name}_{stem}", "my song", "my song_vocals.wav");
        check("{stem}/{name}", "my song", "vocals/my song.wav");
        check("out/{name}/{stem} of {name}", "x", "out/x/vocals of x.wav");
        check("{stem}", "x", "vocals.wav");
    }

    #[test]
    fn names_in_song_files_are_never_placeholders() {
        check("{name}_{stem}", "{stem}", "{stem}_vocals.wav");
    }

    #[test]
    fn templates_that_leave_the_output_directory_are_refused() {
        for template in [
            "../{stem}",
            "/tmp/{stem}",
            "a/../{stem}",
            "{name}/",
            "",
            ".",
            "a//{stem}",
        ] {
            check_refused(template, "below --output-dir");
        }
        for name in [".", ".."] {
            path("{name}/{stem}", name).expect_err("a path out of the directory");
            check("{name}_{stem}", name, &format!("{name}_vocals.wav"));
        }
        path("{name}./{stem}", ".").expect_err("a path out of the directory");
    }

    #[test]
    fn an_unknown_placeholder_is_refused_by_name() {
        check_refused("{artist}_{stem}", "{artist}");
        check_refused("{}{stem}", "{}");
        for template in ["{name", "name}", "{na/me}", "}{stem}{"] {
            check_refused(template, "brace");
        }
    }

    #[test]
    fn every_component_fits_the_file_system() {
        let long = "é".repeat(127);
        for template in ["{name}_{stem}", "{name}/{name} {name} {stem}"] {
            let path = path(template, &long).expect("a path");
            assert!(
                path.iter().all(|component| component.len() <= 255),
                "{}",
                path.display()
            );
            assert!(path.to_str().expect("complete characters").contains('~'));
        }
        check("{name}/{stem}", &long, &format!("{long}/vocals.wav"));
    }
}
