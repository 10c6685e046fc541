//! A real Prometheus that scrapes programs under test every second and evaluates rules as often.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::monitoring::PanelQuery;
use crate::{Process, TempDirectory, eventually, ports};

const START: Duration = Duration::from_secs(30);
const REQUEST: Duration = Duration::from_secs(10);

/// The file of the scraped addresses.
const TARGETS: &str = "targets.json";

/// Labels of a series or an alert.
type Labels = BTreeMap<String, String>;

/// Prometheus on a free port of loopback; it ends when this is dropped.
#[derive(Debug)]
pub struct Prometheus {
    url: Url,
    http: reqwest::Client,
    process: Process,
    directory: TempDirectory,
}

/// A series and its current value.
#[derive(Debug, Clone)]
pub struct Series {
    /// All labels, the metric's name as `__name__`.
    pub labels: Labels,
    /// The value; NaN if it is not a number.
    pub value: f64,
}

/// An alert that fires.
#[derive(Debug, Clone, Deserialize)]
pub struct Alert {
    /// All labels, the alert's name as `alertname`.
    pub labels: Labels,
    /// The rendered annotations.
    pub annotations: Labels,
    state: String,
}

impl Prometheus {
    /// Starts it for these addresses and waits until it serves requests. Series get the labels of their address, as
    /// service discovery gives them in a cluster, unless they have such labels. `rules` is the content of a file of rules.
    ///
    /// # Errors
    /// If it is not installed or does not start, with the end of its log.
    pub async fn start(targets: &[(SocketAddr, BTreeMap<&str, &str>)], rules: &Value) -> Result<Self> {
        let directory = TempDirectory::new()?;
        // JSON is also YAML.
        let write = |name: &str, content: &Value| write(&directory, name, content);
        let configuration = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [write("rules.yaml", rules)?],
            "scrape_configs": [{
                "job_name": "separation",
                "honor_labels": true,
                "file_sd_configs": [{"files": [write_targets(&directory, targets)?]}],
            }],
        });
        let address = format!("127.0.0.1:{}", ports::free()?);
        let mut command = Command::new("prometheus");
        command
            .arg(format!(
                "--config.file={}",
                write("prometheus.yaml", &configuration)?.display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn");
        let log = directory.join("prometheus.log");
        // Another test may have installed it first; it is the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = Self {
            url: format!("http://{address}").parse().context("not a valid URL")?,
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(REQUEST)
                .build()
                .context("cannot create an HTTP client")?,
            process: Process::start("prometheus", &command, &log, &log)?,
            directory,
        };
        server.wait_until_ready().await?;
        Ok(server)
    }

    /// Replaces the addresses; Prometheus notices within 5 s.
    ///
    /// # Errors
    /// If their file cannot be written.
    pub fn set_targets(&self, targets: &[(SocketAddr, BTreeMap<&str, &str>)]) -> Result<()> {
        write_targets(&self.directory, targets).map(drop)
    }

    async fn wait_until_ready(&self) -> Result<()> {
        let url = self.url.join("-/ready")?;
        let ready = async {
            loop {
                let response = self.http.get(url.clone()).send().await;
                if response.is_ok_and(|response| response.status().is_success()) {
                    return Ok(());
                }
                if let Some(code) = self.process.exit_code() {
                    bail!(
                        "prometheus ended with {code}{}; fix: `cargo xtask setup --tests` installs it",
                        self.process.log_end()
                    );
                }
                tokio::time::sleep(eventually::POLL).await;
            }
        };
        tokio::time::timeout(START, ready).await.with_context(|| {
            format!(
                "prometheus is not ready after {START:?}{}",
                self.process.log_end()
            )
        })?
    }

    /// The current result of an expression that gives a vector.
    ///
    /// # Errors
    /// If Prometheus refuses the expression.
    pub async fn query(&self, expression: &str) -> Result<Vec<Series>> {
        #[derive(Deserialize)]
        struct Sample {
            metric: Labels,
            value: (f64, String),
        }
        let mut data = self.get("api/v1/query", &[("query", expression)]).await?;
        let samples: Vec<Sample> = serde_json::from_value(data["result"].take())
            .with_context(|| format!("not a vector: {expression}"))?;
        let series = samples.into_iter().map(|sample| {
            let value = sample.value.1.parse::<f64>().context("not a valid value")?;
            anyhow::Ok(Series {
                labels: sample.metric,
                value,
            })
        });
        series.collect()
    }

    /// The alerts that fire now.
    ///
    /// # Errors
    /// If Prometheus does not respond.
    pub async fn alerts(&self) -> Result<Vec<Alert>> {
        let mut data = self.get("api/v1/alerts", &[]).await?;
        let mut alerts: Vec<Alert> =
            serde_json::from_value(data["alerts"].take()).context("not a list of alerts")?;
        alerts.retain(|alert| alert.state == "firing");
        Ok(alerts)
    }

    /// Waits until an alert with these labels fires.
    ///
    /// # Panics
    /// If none does `within` that time, with the alerts that fire.
    pub async fn until_alert(&self, name: &str, labels: &[(&str, &str)], within: Duration) -> Alert {
        eventually(&format!("alert {name} {labels:?}"), within, async || {
            let alerts = self.alerts().await?;
            let is_expected = |alert: &&Alert| {
                let has =
                    |label: &str, value: &str| alert.labels.get(label).is_some_and(|found| found == value);
                has("alertname", name) && labels.iter().all(|(label, value)| has(label, value))
            };
            match alerts.iter().find(is_expected) {
                Some(alert) => anyhow::Ok(Some(alert.clone())),
                None => bail!("these fire: {alerts:?}"),
            }
        })
        .await
    }

    /// The queries that give no number, each after its panel.
    ///
    /// # Errors
    /// If Prometheus refuses an expression.
    pub async fn without_data(&self, queries: &[PanelQuery]) -> Result<Vec<String>> {
        let mut without = Vec::new();
        for query in queries {
            let series = self.query(&query.expression).await?;
            if series.iter().all(|series| series.value.is_nan()) {
                without.push(format!("{}: {}", query.panel, query.expression));
            }
        }
        Ok(without)
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let mut url = self.url.join(path)?;
        url.query_pairs_mut().extend_pairs(parameters);
        let response = self.http.get(url).send().await.context("no response")?;
        let mut response: Value = response.json().await.context("the response is not JSON")?;
        ensure!(
            response["status"] == "success",
            "{path} {parameters:?}: {}",
            response["error"]
        );
        Ok(response["data"].take())
    }
}

fn write_targets(
    directory: &TempDirectory,
    targets: &[(SocketAddr, BTreeMap<&str, &str>)],
) -> Result<PathBuf> {
    let targets = targets
        .iter()
        .map(|(address, labels)| json!({"targets": [address.to_string()], "labels": labels}));
    let written = write(directory, "targets.new", &targets.collect())?;
    let path = directory.join(TARGETS);
    // Prometheus must not read half of a file.
    fs::rename(written, &path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn write(directory: &TempDirectory, name: &str, content: &Value) -> Result<PathBuf> {
    let path = directory.join(name);
    fs::write(&path, content.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
