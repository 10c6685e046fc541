//! The chart's alerts and dashboard, and the metrics that the reference documents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const ALERTS: &str = "charts/separation-operator/files/alerts.yaml";
const DASHBOARD: &str = "charts/separation-operator/files/dashboard.json";
const REFERENCES: [&str; 2] = ["docs/reference/operator.md", "docs/reference/worker.md"];

/// Starts of the names of our metrics.
const PREFIXES: [&str; 2] = ["separation_", "process_"];

/// Variables of the dashboard and of Grafana, with the values of a test: all pools, and more than a few scrapes.
const VARIABLES: [(&str, &str); 3] = [("$__rate_interval", "1m"), ("$namespace", ".*"), ("$pool", ".*")];

/// The files of the chart.
#[derive(Debug, Clone)]
pub struct Monitoring {
    /// All alerts.
    pub alerts: Vec<AlertRule>,
    /// The dashboard.
    pub dashboard: Value,
    /// The file of the alerts, for [`crate::Prometheus::start`].
    pub rules: Value,
}

/// A rule of an alert.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertRule {
    /// The name.
    pub alert: String,
    /// The expression.
    pub expr: String,
    /// How long the expression gives a series before the alert fires.
    #[serde(rename = "for")]
    pub delay: String,
    /// Labels besides those of the series.
    pub labels: BTreeMap<String, String>,
    /// Templates of texts.
    pub annotations: BTreeMap<String, String>,
}

/// A query of the dashboard, without variables.
#[derive(Debug, Clone)]
pub struct PanelQuery {
    /// Title of the panel.
    pub panel: String,
    /// The expression.
    pub expression: String,
}

impl Monitoring {
    /// Reads the files.
    ///
    /// # Errors
    /// If one is malformed.
    pub fn read() -> Result<Self> {
        let rules: Value = serde_saphyr::from_str(&text(ALERTS)?).context("malformed alerts")?;
        let groups = rules["groups"].as_array().context("no groups of rules")?;
        let rules_of_groups = groups.iter().filter_map(|group| group["rules"].as_array());
        let alerts = rules_of_groups.flatten().map(|rule| {
            serde_json::from_value::<AlertRule>(rule.clone()).with_context(|| format!("malformed: {rule}"))
        });
        Ok(Self {
            alerts: alerts.collect::<Result<_>>()?,
            dashboard: serde_json::from_str(&text(DASHBOARD)?).context("malformed dashboard")?,
            rules,
        })
    }

    /// A file with the rules of these groups, whose alerts fire without a delay.
    pub fn rules_without_delay(&self, groups: &[&str]) -> Value {
        let mut rules = self.rules.clone();
        let all = rules["groups"].as_array_mut().into_iter().flatten();
        let chosen = all.filter(|group| group["name"].as_str().is_some_and(|name| groups.contains(&name)));
        let chosen = chosen.map(|group| {
            for rule in group["rules"].as_array_mut().into_iter().flatten() {
                rule["for"] = json!("0s");
            }
            group.take()
        });
        json!({"groups": chosen.collect::<Vec<_>>()})
    }

    /// The queries of the dashboard about metrics of the operator, or of workers and APIs.
    pub fn queries(&self, of: MetricsOf) -> Vec<PanelQuery> {
        let panels = self.dashboard["panels"].as_array().into_iter().flatten();
        let queries = panels.flat_map(|panel| {
            let targets = panel["targets"].as_array().into_iter().flatten();
            let title = panel["title"].as_str().unwrap_or_default();
            targets.map(move |target| PanelQuery {
                panel: title.to_owned(),
                expression: without_variables(target["expr"].as_str().unwrap_or_default()),
            })
        });
        queries
            .filter(|query| MetricsOf::in_expression(&query.expression) == of)
            .collect()
    }
}

/// The programs that have a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsOf {
    /// The operator.
    Operator,
    /// Workers and APIs.
    Workers,
}

impl MetricsOf {
    fn in_expression(expression: &str) -> Self {
        match ["separation_pool_", "separation_operator_"]
            .iter()
            .any(|prefix| expression.contains(prefix))
        {
            true => Self::Operator,
            false => Self::Workers,
        }
    }
}

fn without_variables(expression: &str) -> String {
    VARIABLES
        .iter()
        .fold(expression.to_owned(), |text, (variable, value)| {
            text.replace(variable, value)
        })
}

/// The names of metrics in a text, such as an expression.
pub fn metrics_in(text: &str) -> BTreeSet<String> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| PREFIXES.iter().any(|prefix| word.starts_with(prefix)))
        .map(str::to_owned)
        .collect()
}

/// The names of series that the reference documents: of a histogram those with a suffix, too.
///
/// # Errors
/// If the reference cannot be read.
pub fn documented_metrics() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for page in REFERENCES {
        for line in text(page)?.lines() {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let (name, kind) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
            let suffixes: &[&str] = match kind {
                "counter" | "gauge" => &[""],
                "histogram" => &["", "_bucket", "_sum", "_count"],
                _ => &[],
            };
            let name = name.trim_matches('`');
            found.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
        }
    }
    Ok(found)
}

fn text(path: &str) -> Result<String> {
    fs::read_to_string(Path::new(WORKSPACE).join(path)).with_context(|| format!("cannot read {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_in_an_expression() {
        let found = metrics_in(
            "rate(separation_task_seconds_bucket{role!=\"\"}[1m]) / on (pool) max(process_open_fds)",
        );
        let expected = ["process_open_fds", "separation_task_seconds_bucket"];
        assert_eq!(found, expected.map(str::to_owned).into());
    }
}
