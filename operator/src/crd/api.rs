//! Spec of the HTTP API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kafka::{password_key, username_key};
use super::pod::PodFields;
use super::storage::ByteQuantity;

/// The HTTP API that accepts songs: a Deployment and a Service, NAME-api, that do not depend on the lag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.keysSecretRef) || has(self.basicAuthSecretRef)",
    "message": "clients of the API must authenticate; fix: set keysSecretRef, basicAuthSecretRef, or both"
}]))]
pub struct ApiSpec {
    /// Whether the API runs. Default: true.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// Number of API pods. Default: 2.
    #[serde(default = "replicas")]
    #[schemars(range(min = 1, max = 100))]
    pub replicas: i32,
    /// Secret with the API keys of clients. Set this, basicAuthSecretRef, or both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys_secret_ref: Option<KeysSecretRef>,
    /// Secret with one user name and password (Basic authentication), as clients of uvr5-api have. Set this,
    /// keysSecretRef, or both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_auth_secret_ref: Option<BasicAuthSecretRef>,
    /// URL of the API as its clients reach it, such as `https://songs.example`: links in responses and webhooks begin
    /// with it. Default: they are paths, such as /v1/tasks/ID/stems/vocals.
    #[serde(rename = "publicURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^/\s]+"))]
    pub public_url: Option<String>,
    /// Maximum size of a song, such as 2Gi; 1Mi to 64Gi. Default: 2Gi.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_input_size: Option<ByteQuantity>,
    /// Maximum duration of a song of an API v1 task, in seconds. Default: 14400.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub max_input_seconds: Option<i32>,
    /// Maximum time to receive or fetch one song, in seconds. Default: 600.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub input_timeout_seconds: Option<i32>,
    /// Maximum time without new data while a song is received or fetched, in seconds. Default: 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3_600))]
    pub input_idle_seconds: Option<i32>,
    /// Maximum number of songs that one pod receives or fetches at the same time; further requests are answered 503
    /// with Retry-After. Default: 8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub max_concurrent_inputs: Option<i32>,
    /// Image, resources, placement and other settings of the pods.
    #[serde(flatten)]
    pub pod: PodFields,
}

/// A Secret in the pool's namespace with a user name and a password, by default with the keys of a
/// kubernetes.io/basic-auth Secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuthSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Secret key with the user name. Default: username.
    #[serde(default = "username_key")]
    #[schemars(length(min = 1, max = 253))]
    pub username_key: String,
    /// Secret key with the password. Default: password.
    #[serde(default = "password_key")]
    #[schemars(length(min = 1, max = 253))]
    pub password_key: String,
}

/// A Secret in the pool's namespace with the API keys of clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeysSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Secret key with the JSON list of API keys: an entry of separation-worker keys create for each client.
    /// Default: keys.json.
    #[serde(default = "keys_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn keys_key() -> String {
    "keys.json".into()
}

fn enabled() -> bool {
    true
}

fn replicas() -> i32 {
    2
}
