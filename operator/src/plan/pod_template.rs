//! Size and nesting limits of the fields without a schema, which the operator keeps in memory for every pool:
//! `podTemplate`, `affinity` and `env[].valueFrom`.

use serde_json::Value;

use super::checks::Checks;
use crate::crd::PodFields;
use crate::names::{MAX_DEPTH, TOO_DEEP};

/// Largest value, as JSON. The API server stores it with each pod of the pool.
const MAX_BYTES: usize = 64 * 1024;

/// Levels of a path that a message shows.
const NAMED_LEVELS: usize = 6;

/// Refuses fields without a schema that are too large or nest too deeply.
pub(super) fn check_open_fields(component: &str, fields: &PodFields, checks: &mut Checks) {
    let template = Value::Object(fields.pod_template.0.clone());
    check(&format!("{component}.podTemplate"), &template, checks);
    if let Some(affinity) = &fields.affinity {
        check(&format!("{component}.affinity"), affinity, checks);
    }
    for variable in &fields.env {
        if let Some(source) = &variable.value_from {
            let field = format!("{component}.env[{}].valueFrom", variable.name);
            check(&field, source, checks);
        }
    }
}

fn check(field: &str, value: &Value, checks: &mut Checks) {
    let mut path = Vec::new();
    if is_cut_off(value, &mut path) {
        let more = if path.len() > NAMED_LEVELS { ".…" } else { "" };
        path.truncate(NAMED_LEVELS);
        let _: Option<()> = checks.refuse(
            &format!("{field}.{}{more}", path.join(".")),
            format!("nests too deeply: values below {MAX_DEPTH} levels are not read"),
            "remove it: no field of a pod nests so deeply",
        );
    }
    let bytes = serde_json::to_string(value).map_or(0, |json| json.len());
    if bytes > MAX_BYTES {
        let _: Option<()> = checks.refuse(
            field,
            format!(
                "has {} KiB, more than the limit of {} KiB",
                bytes / 1024,
                MAX_BYTES / 1024
            ),
            "shorten it, or move large values into a ConfigMap and mount it",
        );
    }
}

/// Whether a value was cut off because it nests too deeply; then `path` is its path.
fn is_cut_off<'a>(value: &'a Value, path: &mut Vec<&'a str>) -> bool {
    match value {
        Value::String(text) => text == TOO_DEEP,
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            path.push(name);
            let found = is_cut_off(value, path);
            if !found {
                path.pop();
            }
            found
        }),
        Value::Array(items) => items.iter().any(|item| is_cut_off(item, path)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(template: &Value) -> Vec<String> {
        refused_fields(json!({"podTemplate": template}))
    }

    fn refused_fields(fields: Value) -> Vec<String> {
        let mut checks = Checks::default();
        let fields: PodFields = serde_json::from_value(fields).expect("fields of pods");
        check_open_fields("processor", &fields, &mut checks);
        checks.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_value_that_nests_too_deeply_is_named_by_its_path() {
        let deep = json!({"spec": {"nodeSelector": {"gpu": "yes"}, "a": [{"b": TOO_DEEP}]}});
        assert_eq!(
            refused(&deep),
            [
                "spec.processor.podTemplate.spec.a.b: nests too deeply: values below 64 levels are not read; \
              fix: remove it: no field of a pod nests so deeply"
            ]
        );
        let deeper = (0..60).fold(json!(TOO_DEEP), |inner, _| json!({"a": inner}));
        assert!(
            refused(&deeper)[0].starts_with("spec.processor.podTemplate.a.a.a.a.a.a.…: nests too deeply"),
            "{:?}",
            refused(&deeper)
        );
    }

    #[test]
    fn overrides_that_are_too_large_are_refused_with_their_size() {
        let large = |bytes: usize| json!({"metadata": {"annotations": {"a": "x".repeat(bytes)}}});
        assert_eq!(refused(&large(60 * 1024)), Vec::<String>::new());
        assert_eq!(
            refused(&large(1024 * 1024)),
            [
                "spec.processor.podTemplate: has 1024 KiB, more than the limit of 64 KiB; \
              fix: shorten it, or move large values into a ConfigMap and mount it"
            ]
        );
    }

    #[test]
    fn every_field_without_a_schema_has_the_limits() {
        let found = refused_fields(json!({
            "affinity": {"nodeAffinity": {"a": TOO_DEEP}},
            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"key": "x".repeat(65 * 1024)}}}],
        }));
        assert_eq!(found.len(), 2, "{found:?}");
        let (affinity, source) = (&found[0], &found[1]);
        assert!(
            affinity.starts_with("spec.processor.affinity.nodeAffinity.a: nests too deeply"),
            "{affinity}"
        );
        assert!(
            source.starts_with("spec.processor.env[A].valueFrom: has 65 KiB"),
            "{source}"
        );
    }
}
