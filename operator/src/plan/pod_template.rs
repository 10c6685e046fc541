//! Size and nesting limits of `podTemplate`, the only field without a schema: the operator keeps it in memory for
//! every pool.

use serde_json::{Map, Value};

use super::checks::Checks;
use crate::crd::PodTemplate;
use crate::names::{MAX_DEPTH, TOO_DEEP};

/// Largest `podTemplate`, as JSON. The API server stores them with each pod of the pool.
const MAX_BYTES: usize = 64 * 1024;

/// Levels of a path that a message shows.
const NAMED_LEVELS: usize = 6;

/// Refuses overrides that are too large or nest too deeply.
pub(super) fn check_pod_template(component: &str, template: &PodTemplate, checks: &mut Checks) {
    let field = format!("{component}.podTemplate");
    let mut path = Vec::new();
    if is_any_cut_off(&template.0, &mut path) {
        let more = if path.len() > NAMED_LEVELS { ".…" } else { "" };
        path.truncate(NAMED_LEVELS);
        let _: Option<()> = checks.refuse(
            &format!("{field}.{}{more}", path.join(".")),
            format!("nests too deeply: values below {MAX_DEPTH} levels are not read"),
            "remove it: no field of a pod nests so deeply",
        );
    }
    let bytes = serde_json::to_string(&template.0).map_or(0, |json| json.len());
    if bytes > MAX_BYTES {
        let _: Option<()> = checks.refuse(
            &field,
            format!(
                "has {} KiB, more than the limit of {} KiB",
                bytes / 1024,
                MAX_BYTES / 1024
            ),
            "move large values into a ConfigMap, and mount it",
        );
    }
}

/// Whether a value was cut off because it nests too deeply; then `path` is its path.
fn is_cut_off<'a>(value: &'a Value, path: &mut Vec<&'a str>) -> bool {
    match value {
        Value::String(text) => text == TOO_DEEP,
        Value::Object(fields) => is_any_cut_off(fields, path),
        Value::Array(items) => items.iter().any(|item| is_cut_off(item, path)),
        _ => false,
    }
}

/// As [`is_cut_off`], for the fields of an object.
fn is_any_cut_off<'a>(fields: &'a Map<String, Value>, path: &mut Vec<&'a str>) -> bool {
    fields.iter().any(|(name, value)| {
        path.push(name);
        let found = is_cut_off(value, path);
        if !found {
            path.pop();
        }
        found
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(template: &Value) -> Vec<String> {
        let mut checks = Checks::default();
        let template = PodTemplate(template.as_object().expect("an object").clone());
        check_pod_template("processor", &template, &mut checks);
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
              fix: move large values into a ConfigMap, and mount it"
            ]
        );
    }
}
