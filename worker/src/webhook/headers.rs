//! The headers of a webhook's request: Standard Webhooks 1.0, and the task's trace.

use super::signature::Signer;
use crate::telemetry::TraceContext;

/// The headers of one request. `timestamp` is the time of this request in Unix seconds, so that receivers can refuse
/// old ones.
pub(super) fn headers(
    signers: &[Signer],
    id: &str,
    timestamp: u64,
    body: &[u8],
    trace: TraceContext,
) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", timestamp.to_string()),
        (TraceContext::HEADER, trace.child().to_string()),
    ];
    if !signers.is_empty() {
        let signatures = signers.iter().map(|signer| signer.sign(id, timestamp, body));
        headers.push(("webhook-signature", signatures.collect::<Vec<_>>().join(" ")));
    }
    headers
}
