//! Requests to the API server, from its audit log.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::files::write;

pub(super) const POLICY: &str = "audit-policy.yaml";
pub(super) const LOG: &str = "audit.log";

/// Logs metadata of all requests without bodies, except the API server's requests to itself.
const POLICY_TEXT: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [\"system:apiserver\"]
- level: None
  nonResourceURLs: [\"/*\"]
- level: Metadata
";

/// A request that the API server has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiRequest {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// Plural resource name, such as `deployments`.
    pub resource: String,
    /// Subresource, such as `status`; empty for the object itself.
    pub subresource: String,
    /// Namespace; empty for cluster-scoped resources.
    pub namespace: String,
    /// Object name; empty for a list or a generated name.
    pub name: String,
    /// User, such as `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
    /// HTTP status of the response.
    pub status: u16,
    /// Path and query.
    pub uri: String,
}

impl ApiRequest {
    /// Whether it is a write request.
    pub fn writes(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuditEvent {
    stage: String,
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    user: AuditUser,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: ResponseStatus,
}

#[derive(Deserialize)]
struct AuditUser {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

/// Writes the policy and returns the path of the log.
pub(super) fn prepare(directory: &Path) -> Result<PathBuf> {
    write(directory, POLICY, POLICY_TEXT)?;
    Ok(directory.join(LOG))
}

pub(super) fn read(log: &Path) -> Result<Vec<ApiRequest>> {
    let text = match std::fs::read_to_string(log) {
        Ok(text) => text,
        Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", log.display())),
    };
    // The last line may be incomplete.
    let complete_lines = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut requests = Vec::new();
    for line in complete_lines.lines() {
        let event: AuditEvent = serde_json::from_str(line)
            .with_context(|| format!("unexpected line in the audit log: {line}"))?;
        requests.extend(request(event));
    }
    Ok(requests)
}

/// Each request counts once: a watch when it starts, any other when it has ended.
fn request(event: AuditEvent) -> Option<ApiRequest> {
    let expected = if event.verb == "watch" {
        "ResponseStarted"
    } else {
        "ResponseComplete"
    };
    (event.stage == expected).then_some(ApiRequest {
        verb: event.verb,
        resource: event.object_ref.resource,
        subresource: event.object_ref.subresource,
        namespace: event.object_ref.namespace,
        name: event.object_ref.name,
        user: event.user.username,
        status: event.response_status.code,
        uri: event.request_uri,
    })
}
