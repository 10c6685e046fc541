//! A pool on this machine: the same custom resource and decisions as on a cluster, with processes in place of pods.
//!
//! If the pool names no Kafka or S3, this process serves one for trial use. Workers are stopped with SIGTERM and
//! awaited; one that has a task is never killed, unless the user asks twice.

mod access;
mod arguments;
mod broker;
mod display;
mod environment;
mod fleet;
mod health;
mod lag;
mod manifest;
mod role;
mod songs;
mod store;
mod webhooks;
mod worker;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use reqwest::Url;
use separation_contract::environment as env;
use separation_kafka::{Cluster, ReadErrorKind};
use separation_operator::clock::Clock;
use separation_operator::observe::{WorkloadTokens, cluster_settings};
use separation_operator::plan::{PoolPlan, Role};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use access::reachable;
use broker::EmbeddedBroker;
use display::Display;
use environment::Directories;
use lag::LagSource;
use manifest::{Manifests, ServerSource};
use role::{PoolContext, RolePhase, RolePool, wait_for_at_least};
use songs::{ApiClient, Songs};
use store::StoreServer;
use webhooks::Webhooks;
use worker::{Program, Worker};

pub use access::ApiAccess;
pub use arguments::LocalArguments;
pub use songs::SongReport;

/// The message of the API's log line with its address.
const API_LISTENS: &str = "API listens";

/// Time for the API to start, and the interval of the checks.
const API_START_TIMEOUT: Duration = Duration::from_secs(60);
const API_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The embedded broker reassigns the partitions of a member that left only after a session timeout, so it is short
/// here: six heartbeats.
const EMBEDDED_TIMINGS: [(&str, &str); 2] = [
    (env::KAFKA_SESSION_TIMEOUT_MS, "3000"),
    (env::KAFKA_HEARTBEAT_INTERVAL_MS, "500"),
];

/// Arguments of a local run.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Files with the pool and its Secrets.
    pub files: Vec<PathBuf>,
    /// Songs to separate; if empty, the pool runs until a signal.
    pub inputs: Vec<PathBuf>,
    /// Directory for the stems of `inputs`.
    pub output: PathBuf,
    /// Address of the API, and who can use it.
    pub access: ApiAccess,
    /// URL at which clients reach the embedded store, which listens on this port; `None` means any free port of loopback.
    pub store_url: Option<Url>,
    /// Path of the worker's program.
    pub worker: PathBuf,
    /// Directory for all other files; `None` means a temporary directory.
    pub data: Option<PathBuf>,
    /// Partitions of each topic on the embedded broker.
    pub partitions: i32,
    /// Time between two readings of lag.
    pub lag_check_period: Duration,
    /// Whether to print a JSON object for each song.
    pub json: bool,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All songs were separated, or there were none and a signal arrived.
    Done,
    /// This many songs were not separated.
    Failed(usize),
    /// A signal arrived before all songs were separated.
    Interrupted,
}

/// The user's request by signals. Later variants override earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopRequest {
    /// No signal yet.
    NotRequested,
    /// Finish running tasks, then stop.
    Drain,
    /// Stop immediately.
    Abort,
}

/// The embedded servers, which must outlive the workers.
struct Servers {
    _broker: Option<EmbeddedBroker>,
    _store: Option<StoreServer>,
}

/// A role's task, and the channel that sets its phase.
struct RoleTask {
    role: Role,
    phase: watch::Sender<RolePhase>,
    task: JoinHandle<anyhow::Result<()>>,
}

/// Runs a pool until its songs are separated or the user stops it.
///
/// # Errors
/// When a file, a program or a server cannot be read, started or reached; the text has the fix.
pub async fn run(options: LocalOptions, stop_request: watch::Receiver<StopRequest>) -> anyhow::Result<Ended> {
    let songs = Songs::new(&options.inputs, &options.output)?;
    let mut manifests = read(&options.files)?;
    let temporary = match &options.data {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("separation-local-")
                .tempdir()
                .context("cannot create a temporary directory")?,
        ),
    };
    let data = match (&options.data, &temporary) {
        (Some(data), _) => data.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => bail!("there is no directory for the pool's data"),
    };
    let display = Arc::new(Display::start());
    let (servers, kafka) = start_servers(&mut manifests, &data, &options, &display).await?;
    let ran = run_pool(&options, songs, manifests, &data, kafka, &display, stop_request).await;
    display.end();
    drop(servers);
    if let (Err(_), Some(temporary)) = (&ran, temporary) {
        // The logs have more details than the error.
        let kept = temporary.keep();
        display.print_line(&format!("logs are kept in {}", kept.join("logs").display()));
    }
    ran
}

fn read(files: &[PathBuf]) -> anyhow::Result<Manifests> {
    let mut texts = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        texts.push((file.display().to_string(), text));
    }
    Manifests::read(&texts)
}

/// The brokers of the pool.
struct Kafka {
    cluster: Arc<Cluster>,
    source: ServerSource,
}

/// Starts a server for each of Kafka and S3 that the pool does not name, and adds it to the pool.
async fn start_servers(
    manifests: &mut Manifests,
    data: &Path,
    options: &LocalOptions,
    display: &Display,
) -> anyhow::Result<(Servers, Kafka)> {
    let store = match manifests.store() {
        ServerSource::Named => {
            if options.store_url.is_some() {
                display.print_line("warning: --store-url has no effect: the pool names its own object store");
            }
            None
        }
        ServerSource::Embedded => {
            let host = options.access.address.ip();
            let server = StoreServer::start(&data.join("s3"), host, options.store_url.as_ref()).await?;
            manifests.use_store(&server.store);
            display.print_line(&format!(
                "embedded S3 at {}, for trial use",
                server.store.endpoint
            ));
            Some(server)
        }
    };
    let source = manifests.kafka();
    let broker = match source {
        ServerSource::Named => None,
        ServerSource::Embedded => {
            // A placeholder address: the plan is needed for the names of the topics.
            manifests.use_broker("127.0.0.1:1");
            let plan = PoolPlan::from_pool(&manifests.pool()?)?;
            let mut topics = Vec::new();
            for role in [&plan.processor, &plan.uploader] {
                topics.extend([role.topic.as_str(), role.dead_letter_topic.as_str()]);
            }
            let broker = EmbeddedBroker::start(&topics, options.partitions)?;
            let bootstrap_servers = broker.bootstrap_servers();
            manifests.use_broker(&bootstrap_servers);
            display.print_line(&format!(
                "embedded Kafka at {bootstrap_servers}, for trial use: queued tasks are lost when this process ends"
            ));
            Some(broker)
        }
    };
    let plan = PoolPlan::from_pool(&manifests.pool()?)?;
    // The AWS identity is that of the user; there are no service accounts. Workers have it too, unless the pool has keys
    // for its store.
    let tokens = WorkloadTokens::OwnAws;
    let settings = cluster_settings(&plan.kafka, &plan.id, |key| manifests.secrets.text(key), &tokens);
    let settings = settings.map_err(|error| match error.kind {
        ReadErrorKind::Unauthorized => anyhow!("{error}"),
        _ => {
            anyhow!("{error}").context("fix: add the Secret to the file, or another file with -f SECRET.yaml")
        }
    })?;
    let cluster = Arc::new(Cluster::new(&settings).context("kafka")?);
    let servers = Servers {
        _broker: broker,
        _store: store,
    };
    Ok((servers, Kafka { cluster, source }))
}

async fn run_pool(
    options: &LocalOptions,
    songs: Songs,
    manifests: Manifests,
    data: &Path,
    kafka: Kafka,
    display: &Arc<Display>,
    mut stop_request: watch::Receiver<StopRequest>,
) -> anyhow::Result<Ended> {
    let context = Arc::new(pool_context(options, manifests, data, kafka.source, display)?);
    let (mut api, address) = start_api(&context).await?;
    display.print_line(&format!("post songs to http://{address}"));
    if let Some(text) = options.access.generated_password() {
        display.print_line(&text);
    }
    let mut tasks = Vec::new();
    for role in Role::ALL {
        if context.plan.role(role).enabled {
            let lag = LagSource::new(Arc::clone(&kafka.cluster), kafka.source, context.plan.role(role));
            tasks.push(RoleTask::start(RolePool::new(Arc::clone(&context), role, lag)));
        }
    }
    let (failures, mut failed) = mpsc::unbounded_channel();
    let total = songs.count();
    let mut separating = (total > 0).then(|| {
        let api = Arc::new(ApiClient {
            http: context.program.http.clone(),
            url: format!("http://{address}"),
        });
        let display = Arc::clone(display);
        let json = options.json;
        tokio::spawn(async move {
            let webhooks = Webhooks::listen().await?;
            let for_reports = Arc::clone(&display);
            let report = move |report: SongReport| {
                for_reports.print_result(&report_text(&report, json));
                if report.error.is_some() {
                    // The receiver is gone only at shutdown.
                    let _ = failures.send(());
                }
            };
            songs.separate(api, webhooks, display, report).await
        })
    });
    let ended = tokio::select! {
        separated = finished(&mut separating) => separated.map(|()| Ended::Done),
        failed = first_failure(&mut tasks) => failed.map(|()| Ended::Done),
        () = api.ended() => Err(anyhow!("the API ended: {}", api.last_error())),
        () = wait_for_at_least(&mut stop_request, StopRequest::Drain) => Ok(Ended::Interrupted),
    };
    if matches!(ended, Ok(Ended::Interrupted)) {
        display.print_line("stopping: workers finish their tasks; a second signal stops them immediately");
    }
    if let Some(separating) = &separating {
        separating.abort();
    }
    let drained = end(&mut api, tasks, stop_request).await;
    let ended = ended?;
    drained?;
    let mut count = 0;
    while failed.try_recv().is_ok() {
        count += 1;
    }
    Ok(match ended {
        Ended::Interrupted if total == 0 => Ended::Done,
        Ended::Done if count > 0 => Ended::Failed(count),
        ended => ended,
    })
}

fn pool_context(
    options: &LocalOptions,
    manifests: Manifests,
    data: &Path,
    kafka: ServerSource,
    display: &Arc<Display>,
) -> anyhow::Result<PoolContext> {
    let mut plan = PoolPlan::from_pool(&manifests.pool()?)?;
    for role in [&mut plan.processor, &mut plan.uploader] {
        role.set_lag_check_period(options.lag_check_period);
    }
    let directories = Directories::under(data)?;
    if plan.processor.enabled {
        let model = plan.model.clone().unwrap_or_else(environment::default_model);
        directories.check_model(&model, &options.worker)?;
    }
    environment::write_certificates(&plan.kafka, &directories, &manifests.secrets)?;
    let mut extra_variables = BTreeMap::new();
    if kafka == ServerSource::Embedded {
        extra_variables.extend(EMBEDDED_TIMINGS.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    if std::env::var_os(env::THREADS).is_none() {
        extra_variables.insert(env::THREADS.to_owned(), threads(&plan)?.to_string());
    }
    Ok(PoolContext {
        plan,
        access: options.access.clone(),
        program: Program {
            path: options.worker.clone(),
            http: http_client()?,
        },
        directories,
        secrets: manifests.secrets,
        extra_variables,
        display: Arc::clone(display),
        clock: Clock::start(),
    })
}

/// A client of servers on this machine.
fn http_client() -> anyhow::Result<reqwest::Client> {
    // Fails only if a provider is installed already, as in tests.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build();
    client.context("cannot create an HTTP client")
}

/// Threads of each processor, so that all processors together use the machine's cores.
fn threads(plan: &PoolPlan) -> anyhow::Result<usize> {
    let cores = std::thread::available_parallelism().context("cannot count the cores")?;
    let max_replicas = usize::try_from(plan.processor.policy.limits.max()).unwrap_or(usize::MAX);
    Ok((cores.get() / max_replicas.max(1)).max(1))
}

/// Starts the API, and returns the address at which this machine reaches it.
async fn start_api(context: &PoolContext) -> anyhow::Result<(Worker, SocketAddr)> {
    let name = format!("{}-api", context.plan.id.name).as_str().into();
    let (plan, access, directories) = (&context.plan, &context.access, &context.directories);
    let mut environment = environment::api_environment(plan, access, &name, directories, &context.secrets)?;
    environment.extend(context.extra_variables.clone());
    let mut api = context
        .program
        .start("api", name, &environment, &directories.logs, context.clock.now())?;
    let deadline = Instant::now() + API_START_TIMEOUT;
    loop {
        if let Some(status) = api.poll().await {
            bail!("the API ended ({status}): {}", api.last_error());
        }
        if let Some(address) = api.address(API_LISTENS) {
            return Ok((api, reachable(address)));
        }
        if Instant::now() >= deadline {
            bail!(
                "the API does not listen after {} s: {}",
                API_START_TIMEOUT.as_secs(),
                api.last_error()
            );
        }
        sleep(API_POLL_INTERVAL).await;
    }
}

impl RoleTask {
    fn start(pool: RolePool) -> Self {
        let (phase, phases) = watch::channel(RolePhase::Scale);
        Self {
            role: pool.role(),
            phase,
            task: tokio::spawn(pool.run(phases)),
        }
    }
}

/// Waits for the songs; forever if there are none.
async fn finished(separating: &mut Option<JoinHandle<anyhow::Result<()>>>) -> anyhow::Result<()> {
    match separating {
        Some(separating) => separating.await.context("separating the songs was aborted")?,
        None => std::future::pending().await,
    }
}

/// Waits until a role's task ends, which is always an error here, and removes it.
async fn first_failure(tasks: &mut Vec<RoleTask>) -> anyhow::Result<()> {
    if tasks.is_empty() {
        return std::future::pending().await;
    }
    let (ended, index, _) =
        futures_util::future::select_all(tasks.iter_mut().map(|task| &mut task.task)).await;
    tasks.remove(index);
    ended.context("a role's task failed")??;
    bail!("a role's task ended unexpectedly")
}

/// Stops everything in the order of the data flow: the API, then processors, then uploaders, which first finish the
/// processors' output.
async fn end(
    api: &mut Worker,
    tasks: Vec<RoleTask>,
    mut stop_request: watch::Receiver<StopRequest>,
) -> anyhow::Result<()> {
    api.drain();
    for task in tasks {
        let phase = match task.role {
            Role::Processor => RolePhase::Drain,
            Role::Uploader => RolePhase::Finish,
        };
        task.phase.send_replace(phase);
        let mut running = task.task;
        tokio::select! {
            ended = &mut running => { ended.context("a role's task failed")??; }
            () = wait_for_at_least(&mut stop_request, StopRequest::Abort) => {
                task.phase.send_replace(RolePhase::Abort);
                running.await.context("a role's task failed")??;
            }
        }
    }
    tokio::select! {
        () = api.ended() => {}
        () = wait_for_at_least(&mut stop_request, StopRequest::Abort) => api.abort().await,
    }
    Ok(())
}

/// A song's report as text or JSON.
fn report_text(report: &SongReport, json: bool) -> String {
    if json {
        return serde_json::to_string(report).expect("texts become JSON");
    }
    let input = report.input.display();
    match &report.error {
        Some(error) => format!("{input}: FAILED: {error}"),
        None => {
            let mut text = format!("{input}:");
            for (stem, path) in &report.outputs {
                text.push_str(&format!("\n  {stem}: {}", path.display()));
            }
            text
        }
    }
}
