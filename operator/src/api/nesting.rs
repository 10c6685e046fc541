//! Replaces values that nest too deeply in responses of the API server, before they are decoded.
//!
//! `serde_json` refuses a complete list because of one value that is nested more than 127 levels deep, and a user can
//! store one in a field without a schema, such as `podTemplate`. Here each value below [`MAX_DEPTH`] levels becomes
//! the text [`TOO_DEEP`], in lists, watches and single objects, so that only its own object is invalid.

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use tower::BoxError;

use crate::names::{MAX_DEPTH, TOO_DEEP};

/// The response with bounded nesting.
pub(crate) fn bound_nesting<B>(response: Response<B>) -> Response<UnsyncBoxBody<Bytes, BoxError>>
where
    B: BodyExt<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(http::header::CONTENT_LENGTH);
    let mut filter = NestingFilter::default();
    let body = body
        .map_frame(move |frame| frame.map_data(|bytes| filter.pass(bytes)))
        .map_err(Into::into)
        .boxed_unsync();
    Response::from_parts(parts, body)
}

/// Parser state in a stream of JSON texts.
#[derive(Debug, Default)]
struct NestingFilter {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl NestingFilter {
    /// The next bytes, without values that nest too deeply.
    fn pass(&mut self, bytes: Bytes) -> Bytes {
        let mut output: Option<Vec<u8>> = self.is_too_deep().then(Vec::new);
        // Start of the bytes that are kept and not yet copied.
        let mut from = 0;
        for (at, byte) in bytes.iter().enumerate() {
            if self.in_string {
                self.in_string(*byte);
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    self.depth += 1;
                    if self.depth == MAX_DEPTH + 1 {
                        let output = output.get_or_insert_default();
                        output.extend_from_slice(&bytes[from..at]);
                        output.extend_from_slice(format!("\"{TOO_DEEP}\"").as_bytes());
                    }
                }
                b'}' | b']' => {
                    if self.depth == MAX_DEPTH + 1 {
                        from = at + 1;
                    }
                    self.depth = self.depth.saturating_sub(1);
                }
                _ => {}
            }
        }
        match output {
            None => bytes,
            Some(mut output) => {
                if !self.is_too_deep() {
                    output.extend_from_slice(&bytes[from..]);
                }
                output.into()
            }
        }
    }

    fn is_too_deep(&self) -> bool {
        self.depth > MAX_DEPTH
    }

    fn in_string(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// The output for a text that arrives in pieces of these lengths.
    fn passed(text: &str, pieces: &[usize]) -> String {
        let mut filter = NestingFilter::default();
        let mut rest = Bytes::copy_from_slice(text.as_bytes());
        let mut passed = Vec::new();
        for length in pieces {
            let piece = rest.split_to((*length).min(rest.len()));
            passed.extend_from_slice(&filter.pass(piece));
        }
        passed.extend_from_slice(&filter.pass(rest));
        String::from_utf8(passed).expect("UTF-8")
    }

    fn nested(levels: usize) -> String {
        format!("{}{}{}", r#"{"a":"#.repeat(levels), 1, "}".repeat(levels))
    }

    fn depth(value: &Value) -> usize {
        match value {
            Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
            Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    #[test]
    fn an_item_that_nests_too_deeply_leaves_other_items_unchanged() {
        for levels in [130, 5_000, 100_000] {
            let list = format!(
                r#"{{"items":[{{"name":"deep \" ] }}","spec":{}}},{{"name":"other"}}]}}"#,
                nested(levels)
            );
            let read: Value = serde_json::from_str(&passed(&list, &[])).expect("JSON");
            assert_eq!(read["items"][0]["name"], "deep \" ] }");
            assert_eq!(read["items"][1], json!({"name": "other"}));
            assert_eq!(depth(&read), MAX_DEPTH);
            assert!(read.to_string().contains(TOO_DEEP));
        }
    }

    #[test]
    fn values_within_the_depth_limit_are_unchanged() {
        let text = nested(MAX_DEPTH);
        assert_eq!(passed(&text, &[]), text);
        assert_ne!(passed(&nested(MAX_DEPTH + 1), &[]), nested(MAX_DEPTH + 1));
        // Brackets in strings do not count.
        let text = format!(r#"{{"a":"{}"}}"#, r#"[{\"\\"#.repeat(1_000));
        assert_eq!(passed(&text, &[]), text);
    }

    #[test]
    fn each_event_of_a_watch_is_limited_separately() {
        let events = format!("{}\n{}\n{}\n", nested(3), nested(200), nested(4));
        let passed = passed(&events, &[]);
        let lines: Vec<_> = passed.lines().collect();
        assert_eq!((lines[0], lines[2]), (&*nested(3), &*nested(4)));
        assert_eq!(depth(&serde_json::from_str(lines[1]).expect("JSON")), MAX_DEPTH);
    }

    proptest! {
        #[test]
        fn chunk_boundaries_do_not_change_the_output(
            levels in 50_usize..90,
            key in "[\\[{\"\\\\}\\]a]{0,6}",
            pieces in prop::collection::vec(0_usize..40, 0..60),
        ) {
            let mut value = json!([1, key]);
            for level in 0..levels {
                value = if level % 2 == 0 { json!({key.clone(): value, "b": [key]}) } else { json!([value, key]) };
            }
            let text = value.to_string();
            let complete = passed(&text, &[]);
            prop_assert_eq!(passed(&text, &pieces), complete.clone());
            let read: Value = serde_json::from_str(&complete).expect("JSON");
            prop_assert_eq!(depth(&read), depth(&value).min(MAX_DEPTH));
        }
    }
}
