//! Blocks of documents that users paste.

const README: &str = include_str!("../../README.md");

/// The block of README.md that contains a text, without its fences.
///
/// # Panics
/// If there is none, or another one contains it too.
pub fn readme_block(containing: &str) -> String {
    let blocks = ["sh", "yaml", "text"].map(|language| code_blocks(README, language));
    let mut found = blocks
        .into_iter()
        .flatten()
        .map(|(_, text)| text)
        .filter(|text| text.contains(containing));
    match (found.next(), found.next()) {
        (Some(text), None) => text,
        (None, _) => panic!("no block of README.md contains {containing}"),
        _ => panic!("several blocks of README.md contain {containing}"),
    }
}

/// All blocks of shell commands under a heading of a document, to paste together.
///
/// # Panics
/// If there is none.
pub fn documented_commands(document: &str, heading: &str) -> String {
    let blocks = shell_blocks(document).into_iter();
    let text: String = blocks
        .filter(|(above, _)| *above == heading)
        .map(|(_, text)| text)
        .collect();
    assert!(!text.is_empty(), "no commands under {heading}");
    text
}

/// The shell blocks of a document, each with its heading.
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
        let twice = "# A\n```sh\none\n```\n```sh\ntwo\n```\n# B\n```sh\nthree\n```\n";
        assert_eq!(documented_commands(twice, "A"), "one\ntwo\n");
    }

    #[test]
    fn each_block_of_commands_in_the_readme_is_pasted_by_a_test() {
        let blocks = shell_blocks(README);
        let first_words = blocks.iter().map(|(_, text)| {
            let words: Vec<&str> = text.split_whitespace().take(3).collect();
            words.join(" ")
        });
        let known = [
            // `cargo xtask test`, by `xtask/src/dist/wheel_test.rs`.
            "cargo xtask dist",
            // `scenarios/src/local_image.rs`.
            "docker build -f",
            // `cargo xtask test` itself, which runs the demo.
            "cargo xtask demo",
            // `scenarios/tests/scenarios/readme.rs`.
            "helm install separation-operator",
            // `scenarios/tests/scenarios/trials.rs`.
            "until kubectl apply",
            // `scenarios/src/local_image.rs`.
            "task=$(curl -fsS -u",
        ];
        assert_eq!(first_words.collect::<Vec<_>>(), known);
    }
}
