//! What the API server was asked, from its audit log.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::write;

pub(super) const POLICY: &str = "audit-policy.yaml";
pub(super) const LOG: &str = "audit.log";

/// Who asked what, without bodies; the API server's questions to itself are left out.
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
    /// Plural, such as `deployments`.
    pub resource: String,
    /// Such as `status`; empty for the object itself.
    pub subresource: String,
    /// Empty for what has none.
    pub namespace: String,
    /// Empty where a list or a generated name was asked for.
    pub name: String,
    /// Such as `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
    /// The status that it was answered with.
    pub status: u16,
    /// Path and query.
    pub uri: String,
}

impl ApiRequest {
    /// Whether it could change something.
    pub fn writes(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    stage: String,
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    user: User,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: ResponseStatus,
}

#[derive(Deserialize)]
struct User {
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

/// Writes the policy and gives the path of the log.
pub(super) fn prepare(folder: &Path) -> Result<PathBuf> {
    write(folder, POLICY, POLICY_TEXT)?;
    Ok(folder.join(LOG))
}

pub(super) fn read(log: &Path) -> Result<Vec<ApiRequest>> {
    let text = match std::fs::read_to_string(log) {
        Ok(text) => text,
        Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", log.display())),
    };
    // The last line may be half written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut requests = Vec::new();
    for line in whole.lines() {
        let event: Event = serde_json::from_str(line)
            .with_context(|| format!("the audit log is not as expected: {line}"))?;
        requests.extend(request(event));
    }
    Ok(requests)
}

/// One request is one event: a watch when it starts, anything else when it has ended.
fn request(event: Event) -> Option<ApiRequest> {
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
