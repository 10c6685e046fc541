//! Validated HTTP API.

use std::time::Duration;

use super::checks::Checks;
use super::storage::SecretKey;
use crate::crd::{ApiSpec, BasicAuthSecretRef, PodFields};

/// The HTTP API of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiPlan {
    /// Number of pods.
    pub replicas: u32,
    /// API keys of clients; in a cluster at least one of these and `basic_auth` is set.
    pub keys: Option<SecretKey>,
    /// User name and password of clients.
    pub basic_auth: Option<BasicAuth>,
    /// URL of the API as its clients reach it.
    pub public_url: Option<String>,
    /// Largest song.
    pub max_input_bytes: u64,
    /// Time to receive or fetch one song.
    pub input_timeout: Duration,
    /// Longest time without data of a song.
    pub input_idle: Duration,
    /// Songs that one pod receives or fetches at the same time.
    pub max_concurrent_inputs: u32,
    /// Settings of the pods. Validated when they are merged with the pod template.
    pub pod: PodFields,
}

/// Secret keys of one user name and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicAuth {
    /// The user name.
    pub username: SecretKey,
    /// The password.
    pub password: SecretKey,
}

impl BasicAuth {
    fn from_spec(spec: &BasicAuthSecretRef) -> Self {
        Self {
            username: SecretKey::new(&spec.name, &spec.username_key),
            password: SecretKey::new(&spec.name, &spec.password_key),
        }
    }
}

/// An API without credentials and with the defaults of its other fields.
impl Default for ApiPlan {
    fn default() -> Self {
        Self {
            replicas: 2,
            keys: None,
            basic_auth: None,
            public_url: None,
            max_input_bytes: 2 << 30,
            input_timeout: Duration::from_secs(600),
            input_idle: Duration::from_secs(30),
            max_concurrent_inputs: 8,
            pod: PodFields::default(),
        }
    }
}

impl ApiPlan {
    /// The Secret keys with the credentials of clients.
    pub fn client_secret_keys(&self) -> impl Iterator<Item = &SecretKey> {
        let basic_auth = self.basic_auth.iter();
        let basic_auth = basic_auth.flat_map(|basic_auth| [&basic_auth.username, &basic_auth.password]);
        self.keys.iter().chain(basic_auth)
    }

    /// Whether it has a client without an API key, whose webhooks the pool's signing secrets sign: each API key has
    /// signing secrets of its own.
    pub fn has_client_without_key(&self) -> bool {
        self.basic_auth.is_some() || self.keys.is_none()
    }

    /// The plan of an enabled API; the outer `None` after a problem.
    pub(super) fn from_spec(spec: Option<&ApiSpec>, checks: &mut Checks) -> Option<Option<Self>> {
        let Some(spec) = spec else { return Some(None) };
        let (keys, basic_auth) = (&spec.keys_secret_ref, &spec.basic_auth_secret_ref);
        if keys.is_none() && basic_auth.is_none() {
            let fix = "set keysSecretRef, basicAuthSecretRef, or both";
            return checks.refuse("api", "clients of the API must authenticate", fix);
        }
        if !spec.enabled {
            return Some(None);
        }
        checks.http_url("api.publicURL", spec.public_url.as_deref());
        let default = Self::default();
        let max_input_bytes = match &spec.max_input_size {
            None => Some(default.max_input_bytes),
            Some(size) => size
                .bytes()
                .filter(|bytes| (1 << 20..=64 << 30).contains(bytes))
                .or_else(|| {
                    let problem = format!("{} is out of range", size.0);
                    checks.refuse("api.maxInputSize", problem, "choose 1Mi to 64Gi")
                }),
        };
        let mut number = |name: &str, value: Option<i32>, max: i64| -> Option<Option<u32>> {
            checks.optional_integer(&format!("api.{name}"), value, 1..=max)
        };
        let replicas = number("replicas", Some(spec.replicas), 100);
        let timeout = number("inputTimeoutSeconds", spec.input_timeout_seconds, 86_400);
        let idle = number("inputIdleSeconds", spec.input_idle_seconds, 3_600);
        let concurrent = number("maxConcurrentInputs", spec.max_concurrent_inputs, 1_000);
        let duration = |seconds: u32| Duration::from_secs(seconds.into());
        Some(Some(Self {
            replicas: replicas?.unwrap_or(default.replicas),
            keys: keys.as_ref().map(|keys| SecretKey::new(&keys.name, &keys.key)),
            basic_auth: basic_auth.as_ref().map(BasicAuth::from_spec),
            public_url: spec.public_url.clone(),
            max_input_bytes: max_input_bytes?,
            input_timeout: timeout?.map_or(default.input_timeout, duration),
            input_idle: idle?.map_or(default.input_idle, duration),
            max_concurrent_inputs: concurrent?.unwrap_or(default.max_concurrent_inputs),
            pod: spec.pod.clone(),
        }))
    }
}
