//! Reads and writes the fields of the `Lease` object.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};

use super::election::Record;
use crate::settings::LeaseSettings;

/// Extracts the fields that the election uses; `None` without a resourceVersion, which an API server always sends.
pub(super) fn record(lease: &Lease) -> Option<Record> {
    let version = lease.metadata.resource_version.as_deref()?;
    let spec = lease.spec.as_ref();
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref());
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds);
    Some(Record {
        holder: holder.filter(|holder| !holder.is_empty()).map(Arc::from),
        duration: seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs),
        version: version.into(),
    })
}

/// The lease with this replica as holder; other fields are kept. `wall` is only informative: the election never uses
/// it.
pub(super) fn acquired(lease: Option<&Lease>, settings: &LeaseSettings, wall: Timestamp) -> Lease {
    let mut lease = lease.cloned().unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            name: Some(settings.name.clone()),
            namespace: Some(settings.namespace.clone()),
            ..ObjectMeta::default()
        },
        spec: None,
    });
    let before = lease.spec.unwrap_or_default();
    let ours = before.holder_identity.as_deref() == Some(&settings.identity);
    let transitions = before.lease_transitions.unwrap_or(0);
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(settings.identity.clone()),
        // At most ten minutes, so it fits.
        lease_duration_seconds: i32::try_from(settings.timings.duration().as_secs()).ok(),
        renew_time: Some(MicroTime(wall)),
        acquire_time: before
            .acquire_time
            .clone()
            .filter(|_| ours)
            .or(Some(MicroTime(wall))),
        lease_transitions: Some(if ours {
            transitions
        } else {
            transitions.saturating_add(1)
        }),
        ..before
    });
    lease
}

/// The lease without a holder, so that another replica can acquire it immediately.
pub(super) fn released(lease: &Lease, wall: Timestamp) -> Lease {
    let before = lease.spec.clone().unwrap_or_default();
    Lease {
        metadata: lease.metadata.clone(),
        spec: Some(LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            renew_time: Some(MicroTime(wall)),
            ..before
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::settings::LeaseTimings;

    fn settings() -> LeaseSettings {
        LeaseSettings {
            name: "operator".into(),
            namespace: "system".into(),
            identity: "us_1".into(),
            timings: LeaseTimings::default(),
        }
    }

    fn lease(spec: &Value) -> Lease {
        let metadata = json!({"name": "operator", "labels": {"of": "a user"}, "resourceVersion": "7"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a lease")
    }

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn a_lease_without_a_holder_is_distinguished_from_a_held_one() {
        let holder = |holder: Value| {
            let record = record(&lease(
                &json!({"holderIdentity": holder, "leaseDurationSeconds": 0}),
            ));
            let record = record.expect("a record");
            assert_eq!(record.duration, None);
            record.holder
        };
        assert_eq!(holder(Value::Null), None);
        assert_eq!(holder(json!("")), None);
        assert_eq!(holder(json!("other")).as_deref(), Some("other"));
    }

    #[test]
    fn acquiring_counts_as_a_transition_and_renewing_does_not() {
        let before = lease(&json!({"holderIdentity": "other", "leaseTransitions": 3, "strategy": "x"}));
        let taken_over = acquired(Some(&before), &settings(), time("2026-01-01T00:00:00Z"));
        let renewed = acquired(Some(&taken_over), &settings(), time("2026-01-01T00:00:02Z"));
        let spec = serde_json::to_value(&renewed).expect("JSON");
        let expected = json!({
            "holderIdentity": "us_1",
            "leaseDurationSeconds": 15,
            "acquireTime": "2026-01-01T00:00:00.000000Z",
            "renewTime": "2026-01-01T00:00:02.000000Z",
            "leaseTransitions": 4,
            "strategy": "x",
        });
        assert_eq!(spec["spec"], expected);
        assert_eq!(spec["metadata"]["labels"], json!({"of": "a user"}));
        assert_eq!(spec["metadata"]["resourceVersion"], json!("7"));
    }

    #[test]
    fn a_released_lease_can_be_acquired_immediately() {
        let held = acquired(None, &settings(), time("2026-01-01T00:00:00Z"));
        let mut released_lease = released(&held, time("2026-01-01T00:00:09Z"));
        released_lease.metadata.resource_version = Some("8".into());
        let record = record(&released_lease).expect("a record");
        assert_eq!(
            (record.holder, record.duration),
            (None, Some(Duration::from_secs(1)))
        );
    }
}
