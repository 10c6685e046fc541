//! A pool on this machine: the same resource and the same decisions as on a cluster, with processes in place of pods.
//!
//! What the pool does not name, Kafka or S3, runs in this process, for trying out. Workers are told to end by SIGTERM and
//! waited for; one that has a task is never killed, unless somebody asks twice.

mod broker;
mod display;
mod environment;
mod fleet;
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
use separation_contract::environment as env;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::clock::Clock;
use crate::kafka::{Cluster, ClusterSettings};
use crate::plan::{PoolPlan, Role};
use broker::{EmbeddedBroker, EmbeddedLag};
use display::Display;
use environment::Places;
use lag::{ClusterLag, LagSource};
use manifest::{Manifests, Server};
use role::{Phase, RolePool, Site, reached};
use songs::{Api, Songs};
use store::StoreServer;
use webhooks::Webhooks;
use worker::{Program, Worker};

pub use songs::SongReport;

/// The line of the API's log that names its address.
const API_LISTENS: &str = "API listens";

/// How long the API may take to start, and the time between two looks.
const API_WITHIN: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The in-process broker shares partitions out anew only a session after somebody left, so that sessions are short there:
/// three heartbeats and a little.
const EMBEDDED_TIMINGS: [(&str, &str); 2] = [
    (env::KAFKA_SESSION_TIMEOUT_MS, "3000"),
    (env::KAFKA_HEARTBEAT_INTERVAL_MS, "500"),
];

/// What is run.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Files with the pool and its Secrets.
    pub files: Vec<PathBuf>,
    /// Songs to separate; with none, the pool runs until a signal.
    pub inputs: Vec<PathBuf>,
    /// Where stems of `inputs` go.
    pub output: PathBuf,
    /// Port of the API on this machine; 0 takes any free one.
    pub port: u16,
    /// The worker's program.
    pub worker: PathBuf,
    /// Where everything else is kept; a temporary folder if nothing is said.
    pub data: Option<PathBuf>,
    /// Partitions of each topic on the embedded broker.
    pub partitions: i32,
    /// Print a JSON object for each song.
    pub json: bool,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All songs were separated, or there were none and a signal came.
    Done,
    /// This many songs were not separated.
    Failed(usize),
    /// A signal came before all songs were separated.
    Interrupted,
}

/// What somebody at the keyboard asks for; later ones count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// Nothing.
    Nothing,
    /// To finish what runs.
    End,
    /// To end at once.
    Abort,
}

/// Everything that must outlive the workers.
struct Servers {
    _broker: Option<EmbeddedBroker>,
    _store: Option<StoreServer>,
}

/// A role's task, and how it is told what to do.
struct RoleTask {
    role: Role,
    phase: watch::Sender<Phase>,
    task: JoinHandle<anyhow::Result<()>>,
}

/// Runs a pool until its songs are separated or somebody asks for the end.
///
/// # Errors
/// What cannot be read, started or reached, with its fix.
pub async fn run(options: LocalOptions, asked: watch::Receiver<Asked>) -> anyhow::Result<Ended> {
    let songs = Songs::new(&options.inputs, &options.output)?;
    let mut manifests = read(&options.files)?;
    let temporary = match &options.data {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("separation-local-")
                .tempdir()
                .context("no temporary folder")?,
        ),
    };
    let data = match (&options.data, &temporary) {
        (Some(data), _) => data.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => bail!("there is no folder for the pool's data"),
    };
    let display = Arc::new(Display::start());
    let (servers, lag) = start_servers(&mut manifests, &data, &options, &display).await?;
    let ran = run_pool(&options, songs, manifests, &data, lag, &display, asked).await;
    display.end();
    drop(servers);
    if let (Err(_), Some(temporary)) = (&ran, temporary) {
        // Logs say more than the error.
        let kept = temporary.keep();
        display.say(&format!("logs are kept in {}", kept.join("logs").display()));
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

/// How lag is read.
enum LagOf {
    Embedded {
        bootstrap_servers: String,
        partitions: i32,
    },
    Cluster(Arc<Cluster>),
}

impl LagOf {
    fn role(&self, plan: &PoolPlan, role: Role) -> anyhow::Result<LagSource> {
        let plan = plan.role(role);
        Ok(match self {
            Self::Embedded {
                bootstrap_servers,
                partitions,
            } => LagSource::Embedded(Arc::new(EmbeddedLag::new(
                bootstrap_servers,
                &plan.group,
                &plan.topic,
                *partitions,
            )?)),
            Self::Cluster(cluster) => {
                LagSource::Cluster(Box::new(ClusterLag::new(Arc::clone(cluster), plan)))
            }
        })
    }
}

/// Starts what the pool does not name, and fills it in.
async fn start_servers(
    manifests: &mut Manifests,
    data: &Path,
    options: &LocalOptions,
    display: &Display,
) -> anyhow::Result<(Servers, LagOf)> {
    let store = match manifests.store() {
        Server::Named => None,
        Server::Embedded => {
            let server = StoreServer::start(&data.join("s3")).await?;
            manifests.use_store(&server.store);
            display.say(&format!(
                "embedded S3 at {}, for trying out",
                server.store.endpoint
            ));
            Some(server)
        }
    };
    let (broker, lag) = match manifests.kafka() {
        Server::Named => {
            let plan = PoolPlan::of(&manifests.pool()?)?;
            let settings = ClusterSettings::of(&plan.kafka, &plan.id, |key| manifests.secrets.text(key))
                .map_err(|unread| anyhow!("{unread}"))
                .context("fix: add the Secret to the file, or another file with -f SECRET.yaml")?;
            let cluster = Cluster::new(&settings).context("kafka")?;
            (None, LagOf::Cluster(Arc::new(cluster)))
        }
        Server::Embedded => {
            // Any address, for the names of the topics.
            manifests.use_broker("127.0.0.1:1");
            let plan = PoolPlan::of(&manifests.pool()?)?;
            let mut topics = Vec::new();
            for role in [&plan.processor, &plan.uploader] {
                topics.extend([role.topic.as_str(), role.dead_letter_topic.as_str()]);
            }
            let broker = EmbeddedBroker::start(&topics, options.partitions)?;
            let bootstrap_servers = broker.bootstrap_servers();
            manifests.use_broker(&bootstrap_servers);
            display.say(&format!(
                "embedded Kafka at {bootstrap_servers}, for trying out: what waits in it is gone when this ends"
            ));
            let lag = LagOf::Embedded {
                bootstrap_servers,
                partitions: options.partitions,
            };
            (Some(broker), lag)
        }
    };
    let servers = Servers {
        _broker: broker,
        _store: store,
    };
    Ok((servers, lag))
}

async fn run_pool(
    options: &LocalOptions,
    songs: Songs,
    manifests: Manifests,
    data: &Path,
    lag: LagOf,
    display: &Arc<Display>,
    mut asked: watch::Receiver<Asked>,
) -> anyhow::Result<Ended> {
    let site = Arc::new(site(options, manifests, data, &lag, display)?);
    let (mut api, address) = start_api(&site, options.port).await?;
    display.say(&format!("songs are taken at http://{address}"));
    let mut tasks = Vec::new();
    for role in Role::ALL {
        if site.plan.role(role).enabled {
            let lag = lag.role(&site.plan, role)?;
            tasks.push(RoleTask::start(RolePool::new(Arc::clone(&site), role, lag)));
        }
    }
    let (failures, mut failed) = mpsc::unbounded_channel();
    let total = songs.count();
    let mut separating = (total > 0).then(|| {
        let api = Arc::new(Api {
            http: site.program.http.clone(),
            url: format!("http://{address}"),
        });
        let display = Arc::clone(display);
        let json = options.json;
        tokio::spawn(async move {
            let webhooks = Webhooks::listen().await?;
            let for_reports = Arc::clone(&display);
            let report = move |report: SongReport| {
                for_reports.print(&words(&report, json));
                if report.error.is_some() {
                    // Nobody counts any more.
                    let _ = failures.send(());
                }
            };
            songs.separate(api, webhooks, display, report).await
        })
    });
    let ended = tokio::select! {
        separated = finished(&mut separating) => separated.map(|()| Ended::Done),
        failed = first_failure(&mut tasks) => failed.map(|()| Ended::Done),
        () = api.ended() => Err(anyhow!("the API ended: {}", api.last_words())),
        () = reached(&mut asked, Asked::End) => Ok(Ended::Interrupted),
    };
    if matches!(ended, Ok(Ended::Interrupted)) {
        display.say("ending: running tasks are finished; once more ends at once");
    }
    if let Some(separating) = &separating {
        separating.abort();
    }
    let left = end(&mut api, tasks, asked).await;
    let ended = ended?;
    left?;
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

fn site(
    options: &LocalOptions,
    manifests: Manifests,
    data: &Path,
    lag: &LagOf,
    display: &Arc<Display>,
) -> anyhow::Result<Site> {
    let plan = PoolPlan::of(&manifests.pool()?)?;
    let places = Places::under(data)?;
    places.check_model(&plan.model)?;
    environment::write_certificates(&plan.kafka, &places, &manifests.secrets)?;
    let mut extra = BTreeMap::new();
    if matches!(lag, LagOf::Embedded { .. }) {
        extra.extend(EMBEDDED_TIMINGS.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    if std::env::var_os("THREADS").is_none() {
        extra.insert("THREADS".to_owned(), threads(&plan)?.to_string());
    }
    // A second call, in a test's process, changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder()
        .no_proxy()
        .build()
        .context("cannot make an HTTP client")?;
    Ok(Site {
        plan,
        program: Program {
            path: options.worker.clone(),
            http,
        },
        places,
        secrets: manifests.secrets,
        extra,
        display: Arc::clone(display),
        clock: Clock::start(),
    })
}

/// Threads of each processor, so that all of them together have the machine's cores.
fn threads(plan: &PoolPlan) -> anyhow::Result<usize> {
    let cores = std::thread::available_parallelism().context("cannot count the cores")?;
    let most = usize::try_from(plan.processor.policy.bounds.max()).unwrap_or(usize::MAX);
    Ok((cores.get() / most.max(1)).max(1))
}

/// Starts the API, and gives where it listens.
async fn start_api(site: &Site, port: u16) -> anyhow::Result<(Worker, SocketAddr)> {
    let name = format!("{}-api", site.plan.id.name).as_str().into();
    let mut environment = site.environment(Role::Processor, &name)?;
    environment.insert(env::API_HOST.to_owned(), "127.0.0.1".to_owned());
    environment.insert(env::API_PORT.to_owned(), port.to_string());
    // It listens on loopback, for whoever uses this machine.
    environment.insert(env::BASIC_AUTH_PASSWORD.to_owned(), String::new());
    let mut api = site.program.start("api", name, &environment, &site.places.logs)?;
    let deadline = Instant::now() + API_WITHIN;
    loop {
        if let Some(status) = api.look().await {
            bail!("the API ended ({status}): {}", api.last_words());
        }
        if let Some(address) = api.address(API_LISTENS) {
            return Ok((api, address));
        }
        if Instant::now() >= deadline {
            bail!(
                "the API does not listen after {} s: {}",
                API_WITHIN.as_secs(),
                api.last_words()
            );
        }
        sleep(LOOK_INTERVAL).await;
    }
}

impl RoleTask {
    fn start(pool: RolePool) -> Self {
        let (phase, phases) = watch::channel(Phase::Scale);
        Self {
            role: pool.role(),
            phase,
            task: tokio::spawn(pool.run(phases)),
        }
    }
}

/// Waits for the songs; for ever where there are none.
async fn finished(separating: &mut Option<JoinHandle<anyhow::Result<()>>>) -> anyhow::Result<()> {
    match separating {
        Some(separating) => separating.await.context("the songs were given up")?,
        None => std::future::pending().await,
    }
}

/// Waits until a role fails, and takes it off: none ends without being asked.
async fn first_failure(tasks: &mut Vec<RoleTask>) -> anyhow::Result<()> {
    if tasks.is_empty() {
        return std::future::pending().await;
    }
    let (ended, index, _) =
        futures_util::future::select_all(tasks.iter_mut().map(|task| &mut task.task)).await;
    tasks.remove(index);
    ended.context("a role's task failed")??;
    bail!("a role ended without being asked")
}

/// Ends everything in the order of the data: no more songs, then processors, then uploaders, who first finish what
/// processors left.
async fn end(
    api: &mut Worker,
    tasks: Vec<RoleTask>,
    mut asked: watch::Receiver<Asked>,
) -> anyhow::Result<()> {
    api.drain();
    for task in tasks {
        let orderly = match task.role {
            Role::Processor => Phase::Drain,
            Role::Uploader => Phase::Finish,
        };
        task.phase.send_replace(orderly);
        let mut running = task.task;
        tokio::select! {
            ended = &mut running => { ended.context("a role's task failed")??; }
            () = reached(&mut asked, Asked::Abort) => {
                task.phase.send_replace(Phase::Abort);
                running.await.context("a role's task failed")??;
            }
        }
    }
    tokio::select! {
        () = api.ended() => {}
        () = reached(&mut asked, Asked::Abort) => api.abort().await,
    }
    Ok(())
}

/// A song's report, for people or programs.
fn words(report: &SongReport, json: bool) -> String {
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
