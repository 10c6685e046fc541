//! Commands in README.md that users paste.

const README: &str = include_str!("../../README.md");

/// All blocks of shell commands, each with its heading.
pub fn readme_blocks() -> Vec<(&'static str, String)> {
    shell_blocks(README)
}

/// The first block of shell commands under a heading.
///
/// # Panics
/// If there is none.
pub fn readme_block(heading: &str) -> String {
    let found = readme_blocks().into_iter().find(|(above, _)| *above == heading);
    found
        .unwrap_or_else(|| panic!("README.md has no commands under {heading}"))
        .1
}

/// The shell blocks of another document.
pub fn shell_blocks(text: &str) -> Vec<(&str, String)> {
    code_blocks(text, "sh")
}

/// The blocks in a language of a document, each with its heading.
pub fn code_blocks<'t>(text: &'t str, language: &str) -> Vec<(&'t str, String)> {
    let (mut heading, mut blocks) = ("", Vec::new());
    let mut block = None::<(&str, String)>;
    for line in text.lines() {
        match (block.take(), line.strip_prefix("```")) {
            (Some((found, text)), Some("")) if found == language => blocks.push((heading, text)),
            (Some(_), Some("")) => {}
            (Some((found, mut text)), _) => {
                text.push_str(line);
                text.push('\n');
                block = Some((found, text));
            }
            (None, Some(found)) => block = Some((found, String::new())),
            (None, None) if line.starts_with('#') => heading = line.trim_matches(['#', ' ']),
            (None, None) => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_of_commands_are_found() {
        let text = "# A\n```sh\n# no heading\none\n```\n## B\n```yaml\n# no heading\nno: command\n```\n```sh\ntwo\n```\n";
        assert_eq!(
            shell_blocks(text),
            [("A", "# no heading\none\n".to_owned()), ("B", "two\n".to_owned())]
        );
        assert_eq!(
            code_blocks(text, "yaml"),
            [("B", "# no heading\nno: command\n".to_owned())]
        );
    }
}
