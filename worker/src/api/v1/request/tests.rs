//! Requests for tasks: what is accepted, and the pointers of what is not.

use serde_json::json;

use super::super::problem::ProblemCode;
use super::*;

const FORMATS: [AudioFormat; 2] = [AudioFormat::Wav, AudioFormat::Flac];
const UPLOAD: &str = "0b6f1ac8-52a1-4b0c-9d4c-1a4a2a0ad1cf";

fn parse(json: &Value) -> Result<NewTask, Problem> {
    parse_task(json.to_string().as_bytes(), TaskForm::Json, &FORMATS)
}

/// A request with this `output`.
#[allow(clippy::needless_pass_by_value, reason = "called with literals")]
fn with_output(output: Value) -> Value {
    json!({"input": {"url": "https://a/b"}, "output": output})
}

#[test]
fn a_complete_request_is_parsed() {
    let task = parse(&json!({
        "input": {"url": "https://example.com/a.mp3?x=%20"},
        "output": {"format": "flac", "bit_depth": 24, "stems": ["instrumental", "vocals"]},
        "webhook_url": "http://example.com/hook",
        "metadata": {"order": "4711", "empty": ""}
    }));
    let task = task.expect("valid");
    assert_eq!(
        task.input,
        NewInput::Url("https://example.com/a.mp3?x=%20".to_owned())
    );
    let output = Output {
        format: AudioFormat::Flac,
        bit_depth: Some(24),
        stems: StemKind::ALL.to_vec(),
    };
    assert_eq!(task.output, output);
    assert_eq!(task.webhook_url.as_deref(), Some("http://example.com/hook"));
    assert_eq!(task.metadata["order"], "4711");
}

#[test]
fn absent_fields_have_their_defaults() {
    let task = parse(&json!({"input": {"upload_id": UPLOAD.to_uppercase()}})).expect("valid");
    let id = TaskId::parse(UPLOAD).expect("an id");
    assert_eq!(task.input, NewInput::Upload(id));
    assert_eq!(task.output, Output::default());
    assert_eq!((task.webhook_url, task.metadata.len()), (None, 0));
    let form = parse_task(b"{}", TaskForm::Multipart, &FORMATS).expect("valid");
    assert_eq!(form.input, NewInput::File);
    assert_eq!(form.output, Output::default());
}

#[test]
fn the_bits_per_sample_are_those_of_the_format() {
    let all = [AudioFormat::Wav, AudioFormat::Flac, AudioFormat::Mp3];
    let depth = |output: Value| {
        let json = with_output(output).to_string();
        let task =
            parse_task(json.as_bytes(), TaskForm::Json, &all).map_err(|problem| problem.pointers().concat());
        task.map(|task| task.output.bit_depth)
    };
    let refused = || Err("/output/bit_depth".to_owned());
    for (format, default, allowed) in [
        ("wav", Some(16), &[16, 24, 32][..]),
        ("flac", Some(16), &[16, 24][..]),
        ("mp3", None, &[][..]),
    ] {
        assert_eq!(depth(json!({"format": format})), Ok(default), "{format}");
        for bits in [0, 8, 16, 24, 32, 64, 272] {
            let expected = match u8::try_from(bits).ok().filter(|bits| allowed.contains(bits)) {
                Some(bits) => Ok(Some(bits)),
                None => refused(),
            };
            assert_eq!(
                depth(json!({"format": format, "bit_depth": bits})),
                expected,
                "{format} {bits}"
            );
        }
        for bits in [json!("16"), json!(16.5), json!(-16), json!(null)] {
            assert_eq!(
                depth(json!({"format": format, "bit_depth": bits})),
                refused(),
                "{format} {bits}"
            );
        }
    }
    assert_eq!(depth(json!({"bit_depth": 24})), Ok(Some(24)));
}

#[track_caller]
#[allow(clippy::needless_pass_by_value, reason = "called with literals")]
fn check(request: Value, pointers: &[&str]) {
    let problem = parse(&request).expect_err("invalid");
    assert_eq!(problem.pointers(), pointers, "{request}");
}

#[test]
fn each_error_points_to_its_value() {
    for body in [json!([]), json!("x"), json!(null)] {
        check(body, &[""]);
    }
    let input = |input: Value| json!({"input": input});
    check(json!({}), &["/input"]);
    check(input(json!("https://a/b")), &["/input"]);
    check(input(json!({})), &["/input"]);
    check(
        input(json!({"url": "https://a/b", "upload_id": UPLOAD})),
        &["/input"],
    );
    check(input(json!({"url": null})), &["/input/url"]);
    check(input(json!({"url": "https://a/b", "file": 1})), &["/input/file"]);
    for url in [
        "",
        "a",
        "ftp://a/b",
        "HTTPS://a",
        " https://a",
        "https://a ",
        "http://",
        "https:///",
    ] {
        check(input(json!({"url": url})), &["/input/url"]);
    }
    for id in [
        "",
        "x",
        "0b6f1ac852a14b0c9d4c1a4a2a0ad1cf",
        "0b6f1ac8-52a1-4b0c-9d4c-1a4a2a0ad1cg",
    ] {
        check(input(json!({"upload_id": id})), &["/input/upload_id"]);
    }
    check(with_output(json!(null)), &["/output"]);
    check(with_output(json!({"format": "mp3"})), &["/output/format"]);
    check(with_output(json!({"format": 1})), &["/output/format"]);
    for stems in [json!([]), json!("vocals"), json!({})] {
        check(with_output(json!({"stems": stems})), &["/output/stems"]);
    }
    check(
        with_output(json!({"stems": ["vocals", "drums", "vocals", 1]})),
        &["/output/stems/1", "/output/stems/2", "/output/stems/3"],
    );
}

#[test]
fn all_errors_are_in_one_response() {
    check(
        json!({
            "input": {"url": 1, "upload_id": 2},
            "output": {"format": "ogg", "stems": [], "rate": 1},
            "webhook_url": "javascript:alert(1)",
            "metadata": {"a/b~c": 1},
            "hook_url": "https://a/b"
        }),
        &[
            "/hook_url",
            "/input/url",
            "/input/upload_id",
            "/output/rate",
            "/output/stems",
            "/output/format",
            "/webhook_url",
            "/metadata/a~1b~0c",
        ],
    );
    let mut many = json!({"input": {"url": "https://a/b"}});
    for index in 0..1_000 {
        many[format!("field{index}")] = json!(1);
    }
    let problem = parse(&many).expect_err("unknown fields");
    assert_eq!(problem.pointers().len(), 32);
}

#[test]
fn a_form_has_no_input_in_its_json() {
    let json = json!({"input": {"url": "https://a/b"}}).to_string();
    let problem = parse_task(json.as_bytes(), TaskForm::Multipart, &FORMATS).expect_err("unknown");
    assert_eq!(problem.pointers(), ["/input"]);
}

#[test]
fn metadata_is_bounded() {
    let with = |metadata: Value| json!({"input": {"url": "https://a/b"}, "metadata": metadata});
    let keys = |count: usize| -> Value {
        let entries = (0..count).map(|index| (format!("key{index}"), json!("x")));
        Value::Object(entries.collect())
    };
    let one = |name: String, value: String| -> Value {
        Value::Object([(name, json!(value))].into_iter().collect())
    };
    for accepted in [
        keys(16),
        one("ä".repeat(64), String::new()),
        one("k".to_owned(), "v".repeat(2047)),
    ] {
        parse(&with(accepted)).expect("within the limits");
    }
    let key = "k".repeat(65);
    check(with(keys(17)), &["/metadata"]);
    check(with(one("k".to_owned(), "v".repeat(2048))), &["/metadata"]);
    check(
        with(one(key.clone(), String::new())),
        &[format!("/metadata/{key}").as_str()],
    );
    check(with(one(String::new(), String::new())), &["/metadata/"]);
    check(with(json!([])), &["/metadata"]);
    check(with(json!({"a": {"b": "c"}})), &["/metadata/a"]);
}

#[test]
fn urls_that_may_not_be_called_are_refused_together() {
    let outbound = outbound::Client::new(&[]);
    let task = |input: &str, webhook: &str| {
        parse(&json!({"input": {"url": input}, "webhook_url": webhook})).expect("valid URLs")
    };
    let public = task("https://example.com/a", "https://example.com/b");
    assert_eq!(public.check_urls(&outbound), Ok(()));
    let private = task(
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:8081/drain",
    );
    let problem = private.check_urls(&outbound).expect_err("private addresses");
    assert_eq!(problem.pointers(), ["/input/url", "/webhook_url"]);
    let details = format!("{problem:?}");
    for shown in ["169.254", "127.0.0.1", "loopback", "OUTBOUND_ALLOW"] {
        assert!(!details.contains(shown), "{details}");
    }
}

#[test]
fn a_fingerprint_is_that_of_the_meaning() {
    let fingerprint = |json: &str| {
        let task = parse_task(json.as_bytes(), TaskForm::Json, &FORMATS);
        task.expect("valid").fingerprint(None)
    };
    let implicit = fingerprint(r#"{"input": {"url": "https://a/b"}, "metadata": {"a": "1", "b": "2"}}"#);
    let explicit = r#"{"metadata": {"b": "2", "a": "1"},
        "output": {"stems": ["instrumental", "vocals"], "bit_depth": 16, "format": "wav"}, "input": {"url": "https://a/b"}}"#;
    assert_eq!(implicit, fingerprint(explicit));
    assert_eq!(implicit.len(), 64);
    assert_ne!(implicit, fingerprint(&explicit.replace("16", "24")));
    assert_ne!(
        implicit,
        fingerprint(&explicit.replace("https://a/b", "https://a/c"))
    );

    let form = parse_task(b"{}", TaskForm::Multipart, &FORMATS).expect("valid");
    assert_ne!(form.fingerprint(Some(&[1; 32])), form.fingerprint(Some(&[2; 32])));
}

#[test]
fn an_idempotency_key_is_visible_ascii() {
    let key = |values: &[&str]| {
        let values = values.iter().map(|value| {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header");
            (header::HeaderName::from_static(IDEMPOTENCY_KEY), value)
        });
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(name, value);
        }
        idempotency_key(&headers)
    };
    assert_eq!(key(&[]), Ok(None));
    let longest = "~".repeat(255);
    for valid in ["1", "order-4711!", &longest] {
        assert_eq!(key(&[valid]), Ok(Some(valid.to_owned())));
    }
    for invalid in ["", "a b", "ä", &"x".repeat(256)] {
        assert!(key(&[invalid]).is_err(), "{invalid}");
    }
    assert!(key(&["a", "a"]).is_err());
}

#[tokio::test]
async fn a_json_body_is_bounded() {
    let read = async |content_type: &'static str, body: Body, limit: Duration| {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        read_json(&headers, body, limit).await
    };
    let minute = Duration::from_secs(60);
    let accepted = read(
        "application/json; charset=utf-8",
        Body::from(vec![b' '; MAX_JSON_BYTES]),
        minute,
    )
    .await;
    assert_eq!(accepted.expect("at the limit").len(), MAX_JSON_BYTES);
    for (content_type, size, expected) in [
        ("text/plain", 1, ProblemCode::UnsupportedContentType),
        ("application/json", MAX_JSON_BYTES + 1, ProblemCode::InputTooLarge),
    ] {
        let refused = read(content_type, Body::from(vec![b' '; size]), minute).await;
        assert_eq!(refused.expect_err("refused").code(), expected);
    }
    let endless = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    let slow = read("application/json", endless, Duration::from_millis(1)).await;
    assert_eq!(slow.expect_err("too slow").code(), ProblemCode::RequestTimeout);
}
