//! Alerts, runbooks and dashboard: Prometheus and Grafana accept them, alerts fire after their time and not in normal
//! work, each has a section in the runbooks, and the metrics that they name exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use separation_testbed::{Components, MetricsOf, Monitoring, documented_metrics, metrics_in};
use serde_json::Value;

const ALERTS: &str = "charts/separation-operator/files/alerts.yaml";
const DASHBOARD: &str = "charts/separation-operator/files/dashboard.json";
const RUNBOOKS: &str = "docs/runbooks.md";

/// Tests of promtool: each alert fires after its time, and none in an hour of normal work.
const FIRING: &str = "operator/tests/alerts/firing.yaml";
const SILENT: &str = "operator/tests/alerts/silent.yaml";

/// Parts of a section of the runbooks.
const PARTS: [&str; 4] = ["**Meaning.** ", "**Impact.** ", "**Diagnosis.** ", "**Repair.** "];

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(relative)
}

fn text(relative: &str) -> String {
    fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

fn monitoring() -> Monitoring {
    Monitoring::read().expect("the chart's files")
}

#[track_caller]
fn promtool(arguments: &[&str], files: &[&str]) {
    let output = Command::new("promtool")
        .args(arguments)
        .args(files.iter().map(|file| path(file)))
        .output()
        .expect("promtool runs; fix: `cargo xtask setup --tests` installs it");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn prometheus_accepts_the_alerts() {
    promtool(&["check", "rules", "--lint-fatal"], &[ALERTS]);
}

#[test]
fn alerts_fire_after_their_time_and_none_in_an_hour_of_normal_work() {
    promtool(&["test", "rules"], &[FIRING, SILENT]);
}

/// The time of a case of promtool's tests.
fn minutes(case: &Value) -> Option<u64> {
    case["eval_time"].as_str()?.strip_suffix('m')?.parse().ok()
}

#[test]
fn each_alert_is_tested_as_firing_and_as_silent_a_minute_earlier() {
    let tests: Value = serde_saphyr::from_str(&text(FIRING)).expect("YAML");
    let tests = tests["tests"].as_array().expect("tests");
    for alert in monitoring().alerts {
        let of_alert = |case: &&Value| case["alertname"] == *alert.alert;
        let is_tested = tests.iter().any(|test| {
            let cases = test["alert_rule_test"].as_array().expect("cases");
            let cases: Vec<_> = cases.iter().filter(of_alert).collect();
            let silent = cases.iter().filter(|case| case["exp_alerts"].is_null());
            let silent: BTreeSet<_> = silent.filter_map(|case| minutes(case)).collect();
            let fires = cases.iter().filter(|case| case["exp_alerts"].is_array());
            // An alert without a delay fires within the minute after it was silent.
            let earlier = if alert.delay == "0s" { 2 } else { 1 };
            fires
                .filter_map(|case| minutes(case))
                .any(|minute| silent.contains(&(minute - earlier)))
        });
        assert!(is_tested, "{FIRING} does not test when {} fires", alert.alert);
    }
}

/// The sections of the runbooks, by heading.
fn runbooks() -> BTreeMap<String, String> {
    let text = text(RUNBOOKS);
    let sections = text.split("\n## ").skip(1);
    let sections = sections.map(|section| section.split_once('\n').expect("a heading"));
    sections
        .map(|(heading, content)| (heading.to_owned(), content.to_owned()))
        .collect()
}

#[test]
fn each_alert_has_its_texts_and_a_section_in_the_runbooks() {
    let project = text("project.toml");
    let source = project
        .lines()
        .find_map(|line| line.strip_prefix("source-url = "));
    let source = source.expect("a URL of the source").trim_matches('"');
    let (alerts, runbooks) = (monitoring().alerts, runbooks());
    for alert in &alerts {
        let name = &alert.alert;
        let annotation = |key: &str| alert.annotations.get(key).map_or("", |text| text.as_str());
        assert!(!annotation("summary").is_empty(), "{name}");
        assert!(annotation("description").contains("; fix: "), "{name}");
        assert_eq!(
            annotation("runbook_url"),
            format!("{source}/blob/main/{RUNBOOKS}#{}", name.to_lowercase())
        );
        let severity = alert.labels.get("severity").map_or("", |text| text.as_str());
        assert!(["critical", "warning"].contains(&severity), "{name}: {severity}");
        let section = runbooks.get(name).map_or("", |section| section.as_str());
        for part in PARTS {
            assert!(section.contains(part), "{RUNBOOKS}: {name} has no {part}");
        }
        assert!(section.contains("```sh\n"), "{RUNBOOKS}: {name} has no command");
    }
    let named: BTreeSet<_> = alerts.iter().map(|alert| &alert.alert).collect();
    assert_eq!(runbooks.keys().collect::<BTreeSet<_>>(), named);
}

#[test]
fn every_metric_in_alerts_dashboard_and_runbooks_is_documented() {
    let documented = documented_metrics().expect("the reference");
    for file in [ALERTS, DASHBOARD, RUNBOOKS, FIRING, SILENT] {
        let unknown: Vec<_> = metrics_in(&text(file))
            .into_iter()
            .filter(|name| !documented.contains(name))
            .collect();
        assert!(
            unknown.is_empty(),
            "{file} names metrics that do not exist: {unknown:?}"
        );
    }
}

#[test]
fn the_dashboard_has_only_fields_that_grafana_has() {
    let program = Components::check_dashboard().expect("the program");
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut input = child.stdin.take().expect("an input");
    input.write_all(text(DASHBOARD).as_bytes()).expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    let problems = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{problems}");
}

#[test]
fn every_query_about_pools_uses_the_variables_of_the_dashboard() {
    let monitoring = monitoring();
    let panels = monitoring.dashboard["panels"].as_array().expect("panels");
    let (mut ids, mut queries) = (BTreeSet::new(), 0);
    for panel in panels {
        assert!(
            ids.insert(panel["id"].as_u64()),
            "{panel} has the id of another panel"
        );
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries += 1;
            let expression = target["expr"].as_str().expect("an expression");
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{expression}");
            let is_about_pools = !expression.contains("separation_operator_");
            for variable in ["namespace=~\"$namespace\"", "pool=~\"$pool\""] {
                assert_eq!(expression.contains(variable), is_about_pools, "{expression}");
            }
        }
    }
    // Each is run with the metrics of real programs: those of the operator in `program`, the others in `worker`.
    let run = [MetricsOf::Operator, MetricsOf::Workers].map(|of| monitoring.queries(of).len());
    assert_eq!(run.iter().sum::<usize>(), queries);
}
