//! One log event is one line: control characters are escaped, so that user input cannot start a new line.

use std::io::{self, Write};

/// Writes each event on one line. The text format of `tracing_subscriber` writes an event with one call, its line break
/// last, and prints `Display` fields as they are.
#[derive(Debug)]
pub(crate) struct OneLine<W>(pub(crate) W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        self.0.write_all(escaped(&text).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The event without control characters, except the line break that ends it.
fn escaped(event: &str) -> String {
    let (text, end) = event.strip_suffix('\n').map_or((event, ""), |text| (text, "\n"));
    let mut line = String::with_capacity(event.len());
    for c in text.chars() {
        // Line and paragraph separators, and characters that reorder the surrounding text.
        let misleads =
            matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || misleads {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line + end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(event: &str) -> String {
        let mut line = OneLine(Vec::new());
        line.write_all(event.as_bytes()).expect("memory");
        String::from_utf8(line.0).expect("text")
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        for (event, expected) in [
            ("INFO Täsk ünd ♪\n", "INFO Täsk ünd ♪\n"),
            ("a\n2026-01-01 INFO forged\n", "a\\n2026-01-01 INFO forged\n"),
            ("a\r\tb\u{1b}[2K\n", "a\\r\\tb\\u{1b}[2K\n"),
            ("a\u{85}b\u{2028}c\u{202e}d\n", "a\\u{85}b\\u{2028}c\\u{202e}d\n"),
            ("a\n\n", "a\\n\n"),
        ] {
            assert_eq!(written(event), expected);
        }
    }
}
