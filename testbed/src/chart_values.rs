//! The table of the chart's values in its README, from the comments in `values.yaml` and from `values.schema.json`.

use serde_json::Value;

use crate::check_generated;
use crate::reference::table;

const VALUES: &str = include_str!("../../charts/separation-operator/values.yaml");
const SCHEMA: &str = include_str!("../../charts/separation-operator/values.schema.json");
const README: &str = include_str!("../../charts/separation-operator/README.md");

/// Lines of the README around the table.
const BEGIN: &str =
    "<!-- The table is generated from values.yaml by `cargo xtask generate`; never edited. -->\n";
const END: &str = "<!-- End of the generated table. -->\n";

/// The path and the comment of each value, in the order of the file. A blank line separates a comment from a value.
fn comments(yaml: &str) -> Vec<(String, String)> {
    let (mut found, mut comment) = (Vec::new(), Vec::new());
    let mut parents: Vec<(usize, &str)> = Vec::new();
    for line in yaml.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(text) = text.strip_prefix('#') {
            comment.push(text.trim());
            continue;
        }
        let written = std::mem::take(&mut comment).join(" ");
        let Some((name, _)) = text.split_once(':').filter(|_| !text.starts_with('-')) else {
            continue;
        };
        parents.retain(|(of_parent, _)| *of_parent < indent);
        parents.push((indent, name));
        let path: Vec<_> = parents.iter().map(|(_, name)| *name).collect();
        found.push((path.join("."), written));
    }
    found
}

/// The schema of a value; `None` below a value whose schema names no properties.
fn schema_of<'s>(root: &'s Value, path: &str) -> Option<&'s Value> {
    let mut schema = root;
    for name in path.split('.') {
        schema = schema["properties"].get(name)?;
        while let Some(reference) = schema["$ref"].as_str() {
            schema = root.pointer(reference.trim_start_matches('#'))?;
        }
    }
    Some(schema)
}

fn type_of(schema: &Value) -> String {
    let words = |words: &Value| {
        let words = words.as_array().into_iter().flatten();
        words
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect()
    };
    let (values, types): (Vec<String>, Vec<String>) = (words(&schema["enum"]), words(&schema["type"]));
    match schema["type"].as_str() {
        Some(name) => name.to_owned(),
        None if !types.is_empty() => types.join(" or "),
        None => values.join(", "),
    }
}

fn rows() -> Vec<[String; 4]> {
    let values: Value = serde_saphyr::from_str(VALUES).expect("YAML");
    let schema: Value = serde_json::from_str(SCHEMA).expect("JSON");
    let mut rows = Vec::new();
    for (path, comment) in comments(VALUES) {
        let Some(schema) = schema_of(&schema, &path) else {
            continue;
        };
        let has_values = schema["properties"].is_object();
        let default = path.split('.').fold(&values, |value, name| &value[name]);
        let default = match default {
            _ if has_values => String::new(),
            Value::String(text) if !text.is_empty() => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        if !(has_values && comment.is_empty()) {
            rows.push([format!("`{path}`"), type_of(schema), default, comment]);
        }
    }
    rows
}

#[test]
fn the_committed_table_of_chart_values_is_up_to_date() {
    let (before, rest) = README.split_once(BEGIN).expect("the line before the table");
    let (_, after) = rest.split_once(END).expect("the line after the table");
    let table = table("| value | type | default | description |", rows());
    check_generated(
        "charts/separation-operator/README.md",
        &format!("{before}{BEGIN}{table}\n{END}{after}"),
    );
}

#[test]
fn a_comment_belongs_to_the_value_below_it() {
    let yaml = "# Of no value.\n\n# A group\n# of values.\ngroup:\n  # Inner.\n  inner: 1\n  list:\n    - name: x\nlast: {}\n";
    let found = comments(yaml);
    let found: Vec<_> = found
        .iter()
        .map(|(path, comment)| (&**path, &**comment))
        .collect();
    let expected = [
        ("group", "A group of values."),
        ("group.inner", "Inner."),
        ("group.list", ""),
        ("last", ""),
    ];
    assert_eq!(found, expected);
}
