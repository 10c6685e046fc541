//! Environment variables of containers, by the source of their value.

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, SecretKeySelector};

use crate::plan::SecretKey;

/// A variable whose value is part of the manifest.
pub(super) fn plain(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.into()),
        value_from: None,
    }
}

/// A variable with the value of a Secret key.
pub(super) fn secret(name: &str, key: &SecretKey) -> EnvVar {
    let key = SecretKeySelector {
        name: key.secret.clone(),
        key: key.key.clone(),
        optional: None,
    };
    with_source(
        name,
        EnvVarSource {
            secret_key_ref: Some(key),
            ..EnvVarSource::default()
        },
    )
}

/// A variable with the pod's name.
pub(super) fn pod_name(name: &str) -> EnvVar {
    let field = ObjectFieldSelector {
        api_version: Some("v1".into()),
        field_path: "metadata.name".into(),
    };
    with_source(
        name,
        EnvVarSource {
            field_ref: Some(field),
            ..EnvVarSource::default()
        },
    )
}

fn with_source(name: &str, source: EnvVarSource) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(source),
    }
}
