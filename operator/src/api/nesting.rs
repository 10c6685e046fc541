//! Cuts off what nests too deeply in the answers of the API server, before they are decoded.
//!
//! `serde_json` refuses a whole list because of one value that is nested more than 127 levels deep, and a user can store one
//! in a field without a schema, such as `podOverrides`. Here each value below [`DEEPEST`] levels becomes the text
//! [`TOO_DEEP`], in lists, watches and single objects, so that only its own object has a problem.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use kube::client::Body;
use tower::layer::layer_fn;
use tower::{BoxError, Layer, Service};

/// Levels of an answer that are decoded. A pod and its managed fields have fewer than 30, a list or a watch adds two.
pub const DEEPEST: usize = 64;

/// Text in place of a value below them.
pub const TOO_DEEP: &str = "separation.dev/nested-too-deeply";

/// A service whose answers are bounded in their nesting.
#[derive(Debug, Clone)]
pub struct BoundNesting<S> {
    inner: S,
}

impl<S> BoundNesting<S> {
    /// Bounds the nesting of a service's answers.
    pub fn layer() -> impl Layer<S, Service = Self> {
        layer_fn(|inner| Self { inner })
    }
}

impl<S, B> Service<Request<Body>> for BoundNesting<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: BodyExt<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<UnsyncBoxBody<Bytes, BoxError>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.inner.call(request);
        Box::pin(async move {
            let (mut parts, body) = answer.await.map_err(Into::into)?.into_parts();
            parts.headers.remove(http::header::CONTENT_LENGTH);
            let mut cut = Cut::default();
            let body = body
                .map_frame(move |frame| frame.map_data(|bytes| cut.pass(bytes)))
                .map_err(Into::into)
                .boxed_unsync();
            Ok(Response::from_parts(parts, body))
        })
    }
}

/// Where in a stream of JSON texts the last byte was.
#[derive(Debug, Default)]
struct Cut {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Cut {
    /// The next bytes, without what lies too deep.
    fn pass(&mut self, bytes: Bytes) -> Bytes {
        let mut kept: Option<Vec<u8>> = self.is_cutting().then(Vec::new);
        // Where bytes that are passed on, and not yet copied, begin.
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
                    if self.depth == DEEPEST + 1 {
                        let kept = kept.get_or_insert_default();
                        kept.extend_from_slice(&bytes[from..at]);
                        kept.extend_from_slice(format!("\"{TOO_DEEP}\"").as_bytes());
                    }
                }
                b'}' | b']' => {
                    if self.depth == DEEPEST + 1 {
                        from = at + 1;
                    }
                    self.depth = self.depth.saturating_sub(1);
                }
                _ => {}
            }
        }
        match kept {
            None => bytes,
            Some(mut kept) => {
                if !self.is_cutting() {
                    kept.extend_from_slice(&bytes[from..]);
                }
                kept.into()
            }
        }
    }

    fn is_cutting(&self) -> bool {
        self.depth > DEEPEST
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

    /// A text as it is passed on when it comes in pieces of these lengths.
    fn passed(text: &str, pieces: &[usize]) -> String {
        let mut cut = Cut::default();
        let mut rest = Bytes::copy_from_slice(text.as_bytes());
        let mut passed = Vec::new();
        for length in pieces {
            let piece = rest.split_to((*length).min(rest.len()));
            passed.extend_from_slice(&cut.pass(piece));
        }
        passed.extend_from_slice(&cut.pass(rest));
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
    fn one_item_that_nests_too_deeply_leaves_the_others_as_they_are() {
        for levels in [130, 5_000, 100_000] {
            let list = format!(
                r#"{{"items":[{{"name":"deep \" ] }}","spec":{}}},{{"name":"other"}}]}}"#,
                nested(levels)
            );
            let read: Value = serde_json::from_str(&passed(&list, &[])).expect("JSON");
            assert_eq!(read["items"][0]["name"], "deep \" ] }");
            assert_eq!(read["items"][1], json!({"name": "other"}));
            assert_eq!(depth(&read), DEEPEST);
            assert!(read.to_string().contains(TOO_DEEP));
        }
    }

    #[test]
    fn what_nests_as_deep_as_it_may_is_not_changed() {
        let text = nested(DEEPEST);
        assert_eq!(passed(&text, &[]), text);
        assert_ne!(passed(&nested(DEEPEST + 1), &[]), nested(DEEPEST + 1));
        // Brackets in texts do not count.
        let text = format!(r#"{{"a":"{}"}}"#, r#"[{\"\\"#.repeat(1_000));
        assert_eq!(passed(&text, &[]), text);
    }

    #[test]
    fn events_of_a_watch_come_one_after_the_other() {
        let events = format!("{}\n{}\n{}\n", nested(3), nested(200), nested(4));
        let passed = passed(&events, &[]);
        let lines: Vec<_> = passed.lines().collect();
        assert_eq!((lines[0], lines[2]), (&*nested(3), &*nested(4)));
        assert_eq!(depth(&serde_json::from_str(lines[1]).expect("JSON")), DEEPEST);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            levels in 50_usize..90,
            key in "[\\[{\"\\\\}\\]a]{0,6}",
            pieces in prop::collection::vec(0_usize..40, 0..60),
        ) {
            let mut value = json!([1, key]);
            for level in 0..levels {
                value = if level % 2 == 0 { json!({key.clone(): value, "b": [key]}) } else { json!([value, key]) };
            }
            let text = value.to_string();
            let whole = passed(&text, &[]);
            prop_assert_eq!(passed(&text, &pieces), whole.clone());
            let read: Value = serde_json::from_str(&whole).expect("JSON");
            prop_assert_eq!(depth(&read), depth(&value).min(DEEPEST));
        }
    }
}
