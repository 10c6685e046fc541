//! Alerts and dashboard: off by default, and with the labels by which Prometheus and Grafana select them.

use std::collections::BTreeSet;

use separation_testbed::Monitoring;
use serde_json::{Value, json};

use super::{NAME, rendered};

#[test]
fn alerts_are_a_rule_object_with_the_labels_that_prometheus_selects() {
    assert!(rendered(&json!({})).all("PrometheusRule").is_empty());
    let values = json!({"alerts": {"enabled": true, "labels": {"release": "prometheus"}}});
    let objects = rendered(&values);
    let rule = objects.one("PrometheusRule", NAME);
    assert_eq!(rule["metadata"]["labels"]["release"], "prometheus");
    let groups = rule["spec"]["groups"].as_array().expect("groups");
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules"));
    let rendered: BTreeSet<_> = rules.filter_map(|rule| rule["alert"].as_str()).collect();
    let monitoring = Monitoring::read().expect("the chart's files");
    let in_file: BTreeSet<_> = monitoring.alerts.iter().map(|rule| &*rule.alert).collect();
    assert_eq!(rendered, in_file);
    // Helm must not evaluate the templates of Prometheus.
    let summary = &groups[0]["rules"][0]["annotations"]["summary"];
    assert!(
        summary
            .as_str()
            .is_some_and(|summary| summary.contains("{{ $labels.pool }}")),
        "{summary}"
    );
}

#[test]
fn the_dashboard_is_a_config_map_with_the_label_that_grafana_selects() {
    assert!(rendered(&json!({})).all("ConfigMap").is_empty());
    let objects = rendered(&json!({"dashboards": {"enabled": true}}));
    let map = objects.one("ConfigMap", "separation-operator-dashboard");
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    let text = map["data"]["separation-pools.json"].as_str().expect("a text");
    let dashboard: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(dashboard["uid"], "separation-pools");
    let other =
        json!({"dashboards": {"enabled": true, "labels": {"grafana_dashboard": null, "folder": "audio"}}});
    let objects = rendered(&other);
    let labels = &objects.one("ConfigMap", "separation-operator-dashboard")["metadata"]["labels"];
    assert_eq!(
        (&labels["folder"], labels.get("grafana_dashboard")),
        (&json!("audio"), None)
    );
}
