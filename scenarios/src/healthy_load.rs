//! A steady load without faults, under the chart's alerts in a real Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use separation_testbed::{Monitoring, Pod, PodHistory, Prometheus, eventually};
use tokio::time::MissedTickBehavior;

use crate::{Outcome, Pool, PoolOptions, STEP_TIMEOUT, System};

/// Time between two tasks.
const INTERVAL: Duration = Duration::from_secs(5);

const SONG_SECONDS: f32 = 3.0;

/// The ports of the metrics of operator and workers, by which the chart's PodMonitors select them.
const PORTS: [&str; 2] = ["health", "admin"];

/// Number of seconds for each alert.
type Seconds = BTreeMap<String, f64>;

/// Result of [`alerts_under_load`].
#[derive(Debug)]
pub struct AlertsResult {
    /// Number of tasks.
    pub tasks: usize,
    /// Alerts that fired, with the seconds of all their series.
    pub fired: Seconds,
    /// The same of alerts whose expression gave a series for less than their `for`.
    pub pending: Seconds,
    /// Tasks and pods.
    pub outcome: Outcome,
}

/// Processes a task every 5 s for this time, while Prometheus scrapes all pods every second and evaluates the alerts.
///
/// # Errors
/// If a server does not respond, or Prometheus has no metrics of a role.
pub async fn alerts_under_load(
    system: &System,
    time: Duration,
    progress: impl Fn(&str),
) -> Result<AlertsResult> {
    let cluster = &system.cluster;
    let options = PoolOptions {
        // Workers stay between two tasks.
        stabilization_seconds: 60,
        ..PoolOptions::default()
    };
    let pool = Pool::create(system, "media", options).await?;
    let pods = cluster.watch_pods(&pool.namespace);
    let operators = cluster.watch_pods(&system.release.namespace);
    let all = [&operators, &pods];
    let prometheus = Prometheus::start(&[], &Monitoring::read()?.rules).await?;
    eventually("known lag in Prometheus", STEP_TIMEOUT, async || {
        scrape(&prometheus, &all)?;
        let known = prometheus.query("separation_pool_lag_known == 1").await?;
        ensure!(known.len() >= 2, "{known:?}");
        anyhow::Ok(true)
    })
    .await;

    let (started, mut tasks) = (Instant::now(), BTreeSet::new());
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0.. {
        ticks.tick().await;
        if started.elapsed() >= time {
            break;
        }
        scrape(&prometheus, &all)?;
        tasks.insert(pool.submit(SONG_SECONDS, number).await?);
        if tasks.len() % 60 == 0 {
            progress(&format!("{} tasks", tasks.len()));
        }
    }
    let range = format!("{}s", started.elapsed().as_secs());
    let [fired, pending] = [
        alerts(&prometheus, "firing", &range).await?,
        alerts(&prometheus, "pending", &range).await?,
    ];
    let scraped = format!("count by (role) (count_over_time(separation_build_info{{role!=\"\"}}[{range}]))");
    let scraped = prometheus.query(&scraped).await?;
    ensure!(scraped.len() == 2, "not both roles were scraped: {scraped:?}");

    pool.wait_for_all_webhooks(&tasks).await;
    pool.wait_until_no_pods(&pods).await;
    Ok(AlertsResult {
        tasks: tasks.len(),
        fired,
        pending,
        outcome: Outcome::read(&pool, &tasks, &pods).await?,
    })
}

/// Makes Prometheus scrape the existing pods.
fn scrape(prometheus: &Prometheus, histories: &[&PodHistory]) -> Result<()> {
    let pods: Vec<Pod> = histories.iter().flat_map(|pods| pods.existing()).collect();
    let targets: Vec<_> = pods.iter().filter_map(target).collect();
    prometheus.set_targets(&targets)
}

/// The address of a pod's metrics, and the labels that its series have by the chart's PodMonitors; none without an
/// address.
fn target(pod: &Pod) -> Option<(SocketAddr, BTreeMap<&str, &str>)> {
    let object = pod.object();
    let ip: IpAddr = object["status"]["podIP"].as_str()?.parse().ok()?;
    let mut ports = object["spec"]["containers"][0]["ports"].as_array()?.iter();
    let port = ports.find(|port| PORTS.iter().any(|name| port["name"] == *name))?;
    let port = port["containerPort"].as_u64()?.try_into().ok()?;
    let labels = [
        ("namespace", object["metadata"]["namespace"].as_str()),
        ("pod", Some(pod.name())),
        ("pool", pod.label("separation.dev/pool")),
        ("role", pod.label("separation.dev/role")),
    ];
    let labels = labels
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    Some((SocketAddr::new(ip, port), labels.collect()))
}

/// The alerts that were in this state. Prometheus evaluates them every second.
async fn alerts(prometheus: &Prometheus, state: &str, range: &str) -> Result<Seconds> {
    let expression =
        format!("sum by (alertname) (count_over_time(ALERTS{{alertstate=\"{state}\"}}[{range}]))");
    let series = prometheus.query(&expression).await?;
    let named = series.into_iter().map(|mut series| {
        let name = series
            .labels
            .remove("alertname")
            .context("an alert without a name")?;
        anyhow::Ok((name, series.value))
    });
    named.collect()
}
