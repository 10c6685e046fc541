//! The guides of docs/guides: each block is marked, and every pool and the chart's values in them are valid.

use separation_operator::crd::{crd, from_value};
use separation_operator::settings::Allowance;
use separation_testbed::{GuideBlock, Release, guides};
use serde_json::Value;

use crate::manifests::check_pool;

/// All blocks, each with its guide and line.
fn blocks() -> Vec<(String, GuideBlock)> {
    let mut found = Vec::new();
    for (name, blocks) in guides().expect("the guides") {
        assert!(!blocks.is_empty(), "{name} has no blocks");
        let blocks = blocks.into_iter();
        found.extend(blocks.map(|block| (format!("docs/guides/{name}:{}", block.line), block)));
    }
    found
}

/// Fields of a spec that the CRD does not have: kubectl refuses them.
fn unknown_fields(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return Vec::new();
    }
    let mut unknown = Vec::new();
    for (name, field) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let known = schema["properties"]
            .get(name)
            .or_else(|| schema.get("additionalProperties"));
        match known {
            Some(known) => unknown.extend(unknown_fields(known, field, &path)),
            None => unknown.push(path),
        }
    }
    for item in value.as_array().into_iter().flatten() {
        unknown.extend(unknown_fields(&schema["items"], item, path));
    }
    unknown
}

#[test]
fn each_block_is_run_by_a_test_or_needs_a_cloud() {
    for (place, block) in blocks() {
        assert!(
            block.mark.is_some(),
            "{place}: the line above has no mark; fix: write <!-- runs-here --> or <!-- needs-cloud -->"
        );
        let is_named = block.language != "yaml" || block.file_name().is_some();
        assert!(is_named, "{place}: the first line is not `# NAME.yaml`");
    }
}

#[test]
fn every_pool_in_a_guide_is_valid() {
    let crd = serde_json::to_value(crd()).expect("JSON");
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut pools = 0;
    for (place, block) in blocks() {
        // Otherwise this test would not find it.
        let is_hidden = block.language != "yaml" && block.text.contains("SeparationPool");
        assert!(!is_hidden, "{place}: a pool is written as YAML");
        for document in block.documents().expect("YAML or JSON") {
            if document["kind"] != "SeparationPool" {
                continue;
            }
            let unknown = unknown_fields(schema, &document["spec"], "spec");
            assert!(unknown.is_empty(), "{place}: unknown fields {unknown:?}");
            let pool = from_value(document).unwrap_or_else(|error| panic!("{place}: {error}"));
            check_pool(&place, &pool, &[Allowance::ServiceAccount]);
            pools += 1;
        }
    }
    let guides = guides().expect("the guides").len();
    assert_eq!(pools, guides, "each guide has one pool");
}

#[test]
fn the_chart_accepts_the_values_in_the_guides() {
    let mut files = 0;
    for (place, block) in blocks() {
        if block.file_name() != Some("values.yaml") {
            continue;
        }
        // The reader's registry in place of the placeholder, which the chart refuses.
        let text = block.text.replace("registry.example/", "registry.test/");
        let block = GuideBlock { text, ..block };
        for values in block.documents().expect("YAML") {
            let rendered = Release::default().render(&values);
            assert!(rendered.is_ok(), "{place}: {rendered:?}");
        }
        files += 1;
    }
    assert!(files > 0);
}
