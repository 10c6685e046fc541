//! Request bodies of the API: any bytes give a request or an error, and only http(s) addresses are accepted.
//!
//! `cargo +nightly fuzz run requests -- -max_total_time=60`

#![no_main]

use libfuzzer_sys::fuzz_target;
use separation_worker::api::{parse_basic, parse_generate};
use separation_worker::telemetry::TraceContext;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = parse_generate(Some(b"application/json"), bytes) {
        for address in [&request.audio, &request.hook_url] {
            let scheme = address.split(':').next().expect("split gives one part at least");
            assert!(
                scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"),
                "{address}"
            );
        }
    }
    let _ = parse_generate(Some(bytes), b"{}");
    let _ = parse_basic(bytes);
    let trace = TraceContext::from_header(Some(bytes));
    assert_eq!(
        TraceContext::from_header(Some(trace.to_string().as_bytes())),
        trace
    );
});
