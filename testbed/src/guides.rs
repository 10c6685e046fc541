//! Guides of docs/guides, and their blocks.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

const GUIDES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guides");

/// Marks, each on the line above a block.
const MARKS: [(&str, Mark); 2] = [
    ("<!-- runs-here -->", Mark::RunsHere),
    ("<!-- needs-cloud -->", Mark::NeedsCloud),
];

/// Where a block can be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A test runs it on the testbed's cluster.
    RunsHere,
    /// It needs a cloud.
    NeedsCloud,
}

/// A fenced block of a guide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuideBlock {
    /// Line of its fence, from 1.
    pub line: usize,
    /// The mark on the line above the fence, if there is one.
    pub mark: Option<Mark>,
    /// The language after the fence, such as `yaml`.
    pub language: String,
    /// The lines between the fences.
    pub text: String,
}

impl GuideBlock {
    /// The name under which a reader saves it: the first line is `# NAME.yaml`.
    pub fn file_name(&self) -> Option<&str> {
        let name = self.text.lines().next()?.strip_prefix("# ")?;
        (name.ends_with(".yaml") && !name.contains(' ')).then_some(name)
    }

    /// Its YAML or JSON documents; none if it is in another language.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn documents(&self) -> Result<Vec<Value>> {
        if !["yaml", "json"].contains(&self.language.as_str()) {
            return Ok(Vec::new());
        }
        serde_saphyr::from_multiple(&self.text)
            .with_context(|| format!("the block in line {} is malformed", self.line))
    }
}

/// The guides, by file name.
///
/// # Errors
/// If they cannot be read.
pub fn guides() -> Result<Vec<(String, Vec<GuideBlock>)>> {
    let mut guides = Vec::new();
    for entry in fs::read_dir(GUIDES).context("cannot read docs/guides")? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        guides.push((name, blocks(&read(&path)?)));
    }
    guides.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(guides)
}

/// The blocks of one guide.
///
/// # Errors
/// If it cannot be read.
pub fn guide(name: &str) -> Result<Vec<GuideBlock>> {
    Ok(blocks(&read(&Path::new(GUIDES).join(name))?))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn blocks(text: &str) -> Vec<GuideBlock> {
    let (mut found, mut open, mut above) = (Vec::new(), None::<GuideBlock>, "");
    for (line, content) in (1..).zip(text.lines()) {
        match (open.take(), content.strip_prefix("```")) {
            (Some(block), Some("")) => found.push(block),
            (Some(mut block), _) => {
                block.text.push_str(content);
                block.text.push('\n');
                open = Some(block);
            }
            (None, Some(language)) => {
                let mark = MARKS.iter().find(|(mark, _)| *mark == above);
                open = Some(GuideBlock {
                    line,
                    mark: mark.map(|(_, mark)| *mark),
                    language: language.to_owned(),
                    text: String::new(),
                });
            }
            (None, None) => {}
        }
        above = content;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_the_mark_on_the_line_above_it() {
        let text = "<!-- runs-here -->\n```yaml\n# pool.yaml\n<!-- needs-cloud -->\n```\n```sh\none\n```\n\
                    <!-- needs-cloud -->\n```sh\n# two.yaml here\n```\n";
        let found = blocks(text);
        let of_block = |block: &GuideBlock| {
            (
                block.line,
                block.mark,
                block.language.clone(),
                block.file_name().map(str::to_owned),
            )
        };
        assert_eq!(
            found.iter().map(of_block).collect::<Vec<_>>(),
            [
                (
                    2,
                    Some(Mark::RunsHere),
                    "yaml".to_owned(),
                    Some("pool.yaml".to_owned())
                ),
                (6, None, "sh".to_owned(), None),
                (10, Some(Mark::NeedsCloud), "sh".to_owned(), None),
            ]
        );
        assert_eq!(found[1].text, "one\n");
    }
}
