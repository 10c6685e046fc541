//! Pieces of HTML: escaped texts and anchors.

/// Text in an element or an attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A line of text, in which backticks enclose code.
pub(super) fn inline(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return escape(text);
    }
    let pieces = parts
        .into_iter()
        .enumerate()
        .map(|(index, part)| match index % 2 {
            1 => code(part),
            _ => escape(part),
        });
    pieces.collect()
}

/// Paragraphs, which empty lines separate.
pub(super) fn prose(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(str::trim);
    paragraphs
        .filter(|paragraph| !paragraph.is_empty())
        .map(|paragraph| format!("<p>{}</p>\n", inline(paragraph)))
        .collect()
}

pub(super) fn code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

/// An `id`, the same for the same text: letters and digits, and a hyphen for all between them.
pub(super) fn anchor(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_inside_and_outside_of_code() {
        let html = prose("a < b & `c > \"d\"`\n\n'e'");
        assert_eq!(
            html,
            "<p>a &lt; b &amp; <code>c &gt; &quot;d&quot;</code></p>\n<p>&#39;e&#39;</p>\n"
        );
        assert_eq!(inline("an unpaired ` <i>"), "an unpaired ` &lt;i&gt;");
    }

    #[test]
    fn anchors_have_letters_digits_and_hyphens() {
        assert_eq!(anchor("v1 GET /v1/tasks/{id}"), "v1-GET-v1-tasks-id");
    }
}
