//! Validated HTTP API.

use std::time::Duration;

use super::checks::Checks;
use super::storage::SecretKey;
use crate::crd::{ApiSpec, PodFields};

/// The HTTP API of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiPlan {
    /// Number of pods.
    pub replicas: u32,
    /// User name of clients.
    pub username: SecretKey,
    /// Password of clients.
    pub password: SecretKey,
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

impl ApiPlan {
    /// The plan of an enabled API; the outer `None` after a problem.
    pub(super) fn from_spec(spec: Option<&ApiSpec>, checks: &mut Checks) -> Option<Option<Self>> {
        let Some(spec) = spec.filter(|spec| spec.enabled) else {
            return Some(None);
        };
        let secret = &spec.basic_auth_secret_ref;
        let max_input_bytes = match &spec.max_input_size {
            None => Some(2 << 30),
            Some(size) => size
                .bytes()
                .filter(|bytes| (1 << 20..=64 << 30).contains(bytes))
                .or_else(|| {
                    let problem = format!("{} is out of range", size.0);
                    checks.refuse("api.maxInputSize", problem, "choose 1Mi to 64Gi")
                }),
        };
        let mut number = |name: &str, value: Option<i32>, default: i32, max: i64| -> Option<u32> {
            checks.integer(&format!("api.{name}"), value.unwrap_or(default).into(), 1..=max)
        };
        let replicas = number("replicas", Some(spec.replicas), 2, 100);
        let timeout = number("inputTimeoutSeconds", spec.input_timeout_seconds, 600, 86_400);
        let idle = number("inputIdleSeconds", spec.input_idle_seconds, 30, 3_600);
        let concurrent = number("maxConcurrentInputs", spec.max_concurrent_inputs, 8, 1_000);
        Some(Some(Self {
            replicas: replicas?,
            username: SecretKey::new(&secret.name, &secret.username_key),
            password: SecretKey::new(&secret.name, &secret.password_key),
            max_input_bytes: max_input_bytes?,
            input_timeout: Duration::from_secs(timeout?.into()),
            input_idle: Duration::from_secs(idle?.into()),
            max_concurrent_inputs: concurrent?,
            pod: spec.pod.clone(),
        }))
    }
}
