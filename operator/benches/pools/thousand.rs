//! A thousand pools: time of their first reconciliation, cost while idle, and all of them busy at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use separation_operator::crd::SeparationPool;
use separation_testbed::eventually;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Bench, NAMESPACE, TIMEOUT, pool};

const PARTITIONS: i32 = 4;

/// Parallel requests of this program.
const PARALLEL_REQUESTS: usize = 16;

pub(super) async fn measure(bench: &Bench, pools: usize, idle: Duration) -> Result<Value> {
    let names: Vec<String> = (0..pools).map(|number| format!("pool-{number:04}")).collect();
    bench.kafka.create_topic("results", 1).await?;
    stream::iter(&names)
        .map(|name| {
            let topic = format!("tasks-{name}");
            async move { bench.kafka.create_topic(&topic, PARTITIONS).await }
        })
        .buffer_unordered(PARALLEL_REQUESTS)
        .try_collect::<Vec<_>>()
        .await?;
    let operator = bench.start("operator")?;
    let pid = operator.process.pid();

    let start = Instant::now();
    let scaling = json!({"maxReplicas": 8, "scaleDown": {"stabilizationWindowSeconds": 0}});
    stream::iter(&names)
        .map(|name| {
            let pool = pool(name, &bench.kafka.bootstrap(), &scaling);
            async move { bench.apply(&pool).await }
        })
        .buffer_unordered(PARALLEL_REQUESTS)
        .try_collect::<Vec<_>>()
        .await?;
    let applied = start.elapsed();
    eventually("Deployments of all", TIMEOUT, async || {
        let found = bench.deployments().list_metadata(&ListParams::default()).await?;
        anyhow::Ok(found.items.len() == 2 * pools)
    })
    .await;
    let deployed = start.elapsed();
    let all: Api<SeparationPool> = Api::namespaced(bench.client.clone(), NAMESPACE);
    eventually("status of all", TIMEOUT, async || {
        let found = all.list(&ListParams::default()).await?;
        let is_known = |pool: &SeparationPool| {
            pool.status.as_ref().is_some_and(|status| {
                let adopted = |role: &Option<separation_operator::crd::RoleStatus>| {
                    role.as_ref().is_some_and(|role| role.offsets.is_some())
                };
                adopted(&status.processor) && adopted(&status.uploader)
            })
        };
        anyhow::Ok(found.items.iter().all(is_known))
    })
    .await;
    let observed = start.elapsed();

    let writes_until_idle = until_idle(bench).await?;
    let writes_before = writes(bench)?;
    let cpu_before = cpu_seconds(pid)?;
    tokio::time::sleep(idle).await;
    let cpu = cpu_seconds(pid)? - cpu_before;
    let writes_idle = difference(&writes(bench)?, &writes_before);
    let memory = resident_bytes(pid)?;
    let sockets = sockets_to(pid, &bench.kafka.bootstrap())?;

    // Watched, not listed repeatedly: lists of thousands of objects would dominate the API server's load.
    let listed = bench.deployments().list_metadata(&ListParams::default()).await?;
    let version = listed.metadata.resource_version.context("a list has a version")?;
    let deployments = bench.deployments();
    let scaled = deployments.watch(&WatchParams::default(), &version).await?;
    let start = Instant::now();
    stream::iter(&names)
        .flat_map(|name| stream::iter((0..PARTITIONS).map(move |partition| (name, partition))))
        .map(|(name, partition)| {
            let topic = format!("tasks-{name}");
            async move { bench.kafka.publish_to(&topic, partition, "key", "{}").await }
        })
        .buffer_unordered(1_000)
        .try_collect::<Vec<_>>()
        .await?;
    let published = start.elapsed();
    let written = timeout(TIMEOUT, replicas_written(scaled, pools));
    written.await.context("not all replicas were written")??;
    let busy = start.elapsed();
    let writes_busy = difference(&writes(bench)?, &writes_before);
    Ok(json!({
        "pools": pools,
        "applied_seconds": applied.as_secs_f64(),
        "deployed_seconds": deployed.as_secs_f64(),
        "observed_seconds": observed.as_secs_f64(),
        "idle_seconds": idle.as_secs_f64(),
        "idle_cpu_share": cpu / idle.as_secs_f64(),
        "writes_until_idle": writes_until_idle,
        "idle_writes": writes_idle,
        "writes_until_busy": writes_busy,
        "resident_bytes": memory,
        "resident_bytes_busy": resident_bytes(pid)?,
        "kafka_sockets": sockets,
        "published_seconds": published.as_secs_f64(),
        "busy_seconds": busy.as_secs_f64(),
    }))
}

/// Waits until `pools` Deployments have a replica for each partition.
async fn replicas_written(
    changes: impl Stream<Item = kube::Result<WatchEvent<Deployment>>>,
    pools: usize,
) -> Result<()> {
    let mut changes = std::pin::pin!(changes);
    let mut done = BTreeSet::new();
    while done.len() < pools {
        let change = changes.try_next().await?.context("the watch ended")?;
        let WatchEvent::Modified(deployment) = change else {
            continue;
        };
        if deployment.spec.replicas == Some(PARTITIONS) {
            done.extend(deployment.metadata.name);
        }
    }
    Ok(())
}

/// Number of writes so far, by verb, resource and status, without those of the Lease and of this program.
fn writes(bench: &Bench) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for request in bench.plane.requests()? {
        if request.writes() && request.resource != "leases" && !request.uri.contains("fieldManager=bench") {
            let what = format!(
                "{} {} {} {}",
                request.verb, request.resource, request.subresource, request.status
            );
            *counts.entry(what).or_default() += 1;
        }
    }
    Ok(counts)
}

fn difference(after: &BTreeMap<String, usize>, before: &BTreeMap<String, usize>) -> BTreeMap<String, usize> {
    let since = |what: &String, count: &usize| count - before.get(what).copied().unwrap_or(0);
    let changed = after
        .iter()
        .map(|(what, count)| (what.clone(), since(what, count)));
    changed.filter(|(_, count)| *count > 0).collect()
}

/// Waits until the first reconciliation is complete, events included. Returns the writes.
async fn until_idle(bench: &Bench) -> Result<BTreeMap<String, usize>> {
    let mut before = writes(bench)?;
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let now = writes(bench)?;
        if now == before {
            return Ok(now);
        }
        before = now;
    }
}

fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Fields 14 and 15, counted after the name, which may have blanks: user and system time in hundredths of a second.
    let after = stat.rsplit(')').next().context("a name")?;
    let ticks: Vec<f64> = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse().ok())
        .collect();
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1_024)
}

/// Connections of a process to a port of this machine.
fn sockets_to(pid: u32, address: &str) -> Result<usize> {
    let port: u16 = address.rsplit(':').next().context("a port")?.parse()?;
    let port = format!(":{port:04X}");
    let mut inodes = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let Ok(link) = fs::read_link(entry?.path()) else {
            continue;
        };
        let link = link.to_string_lossy().into_owned();
        inodes.extend(
            link.strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'))
                .map(str::to_owned),
        );
    }
    let mut count = 0;
    for table in ["tcp", "tcp6"] {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{table}"))?;
        count += table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|fields| {
                let remote = fields.get(2).is_some_and(|remote| remote.ends_with(&port));
                remote
                    && fields
                        .get(9)
                        .is_some_and(|inode| inodes.iter().any(|ours| ours == inode))
            })
            .count();
    }
    Ok(count)
}
