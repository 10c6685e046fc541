//! Prints to standard output and standard error.
//!
//! Control characters in file names could move a terminal's cursor or forge lines, so they are escaped. A closed
//! standard output (`| head -1`) does not stop the work, and a failure to write to standard error is ignored.

use std::borrow::Cow;
use std::io::{self, Write as _, stderr, stdout};

use serde::Serialize;

/// Writes a line to standard output; a closed pipe is no error.
pub(super) fn line_out(text: &str) -> io::Result<()> {
    write_out(&format!("{}\n", escaped(text)))
}

/// Writes a JSON object and a newline to standard output; a closed pipe is no error.
pub(super) fn json_out(value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string(value)?;
    write_out(&format!("{}\n", escaped_in_json(&text)))
}

/// Writes text without escaping it to standard output; a closed pipe is no error.
pub(super) fn write_out(text: &str) -> io::Result<()> {
    let written = stdout().lock().write_all(text.as_bytes());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes a line to standard error and ignores a failure.
pub(super) fn line_err(text: &str) {
    let _ = writeln!(stderr().lock(), "{}", escaped(text));
}

/// Escapes control characters as in Rust's string literals: `\n`, `\u{1b}`.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    replaced(text, |c| c.escape_default().to_string())
}

/// Escapes the control characters that JSON allows unescaped in strings; the JSON's value is unchanged.
fn escaped_in_json(text: &str) -> Cow<'_, str> {
    // All of them are below 0x10000.
    replaced(text, |c| format!("\\u{:04x}", u32::from(c)))
}

fn replaced(text: &str, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.chars().any(is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_control(c) {
            escaped.push_str(&escape(c));
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// C0, DEL, C1, line and paragraph separators, and characters that change the text direction.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escaped("a song – é.mp3"), "a song – é.mp3");
        assert_eq!(
            escaped("a\x1b[2Jb\nc\u{9b}d\u{202e}"),
            "a\\u{1b}[2Jb\\nc\\u{9b}d\\u{202e}"
        );
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        let name = "a\x1b[2J\u{9b}\u{7f}\u{202e}\n";
        let text = serde_json::to_string(name).expect("a string");
        let escaped = escaped_in_json(&text);
        assert!(!escaped.chars().any(is_control), "{escaped}");
        let back: String = serde_json::from_str(&escaped).expect("JSON");
        assert_eq!(back, name);
    }
}
