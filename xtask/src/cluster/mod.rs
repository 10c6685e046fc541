//! A cluster for manual trials: Kubernetes, Kafka and S3 in the background, until they are stopped.

mod daemon;
mod sample_setup;
mod smoke_test;

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

pub(crate) use smoke_test::run_smoke_test;

use self::daemon::{ClusterProcess, ClusterState, running};
use crate::images::{self, ImageProfile};
use crate::project::Project;
use crate::{components, node, process, system, test};

/// Name of the directory under cargo's target directory.
const DIRECTORY: &str = "cluster";

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Start Kubernetes with one node, Kafka and S3 in the background, and print how to reach them
    ///
    /// With KUBECONFIG set, uses that cluster and starts only Kafka and S3.
    Up(Up),
    /// Build the images of the worker and the operator, import them into the node, and install the chart
    ///
    /// For a cluster from KUBECONFIG, prints how to import and install them.
    Load(Load),
    /// Run all tests that need a node, on temporary clusters of their own
    Test,
    /// Stop everything that `up` started
    Down,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Listen address of Kafka and S3 for the pods of the KUBECONFIG cluster (default: this machine's first
    /// address)
    #[arg(long)]
    address: Option<Ipv4Addr>,
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Use release builds instead of the tests' builds
    #[arg(long)]
    release: bool,
    /// The tag of both images
    #[arg(long, default_value = images::TAG)]
    tag: String,
}

/// `cargo xtask cluster`.
pub(crate) fn cluster(project: &Project, command: &ClusterCommand) -> Result<()> {
    match command {
        ClusterCommand::Up(options) => up(project, options),
        ClusterCommand::Load(options) => load(project, options),
        ClusterCommand::Test => test::test_on_nodes(project),
        ClusterCommand::Down => down(project),
    }
}

fn up(project: &Project, options: &Up) -> Result<()> {
    let directory = project.target(DIRECTORY);
    if let Some(state) = running(&directory)? {
        println!("the cluster is already up");
        return print(project, &state);
    }
    system::ensure(system::FOR_TESTING)?;
    components::install(project)?;
    let mut cluster_process = ClusterProcess::build(project)?;
    match (project.kubeconfig(), node::obstacle(project)) {
        (Some(kubeconfig), _) => {
            let address = options.address.map_or_else(first_address, Ok)?;
            println!("using the cluster of {}", kubeconfig.display());
            cluster_process.only_services_at(address);
        }
        (None, None) => components::install_node(project)?,
        (None, Some(obstacle)) => bail!(
            "this machine cannot run a Kubernetes node: {obstacle}; fix: set KUBECONFIG to use an existing cluster"
        ),
    }
    let state = cluster_process.start(&directory)?;
    print(project, &state)
}

fn print(project: &Project, state: &ClusterState) -> Result<()> {
    if let Some(kubeconfig) = &state.kubeconfig {
        let [kubectl, helm] = components::tools(project)?;
        println!("\nexport KUBECONFIG={}", kubeconfig.display());
        println!("export PATH={}:{}:$PATH", kubectl.display(), helm.display());
    }
    let s3 = &state.s3;
    println!(
        "\nfor pods:\n  Kafka   {}\n  S3      {}  region {}  bucket {}  access key {}  secret key {}",
        state.kafka, s3.endpoint, s3.region, s3.bucket, s3.access_key, s3.secret_key
    );
    println!("\ncargo xtask cluster load    builds the images and installs the operator");
    println!("cargo xtask cluster down    stops everything");
    Ok(())
}

fn load(project: &Project, options: &Load) -> Result<()> {
    let directory = project.target(DIRECTORY);
    let state =
        running(&directory)?.context("there is no cluster; fix: `cargo xtask cluster up` starts one")?;
    let profile = if options.release {
        ImageProfile::Dist
    } else {
        ImageProfile::Tests
    };
    let built = images::build(project, profile, &images::FOR_CLUSTERS, &options.tag)?;
    if state.kubeconfig.is_some() {
        sample_setup::install(project, &directory, &state, &built)?;
    } else {
        println!(
            "\nimport these images into your cluster, with `kind load image-archive`, `minikube image load` or a registry:"
        );
        for image in &built {
            println!("  {}  as {}", image.archive.display(), image.name);
        }
        println!("\nthen install the operator (with a registry, change the image names in the values):");
        let installing = sample_setup::prepare(project, &directory, &state, &built)?;
        println!("  {}", process::line(&installing));
    }
    sample_setup::explain(project, &directory);
    Ok(())
}

fn down(project: &Project) -> Result<()> {
    let directory = project.target(DIRECTORY);
    let Some(state) = running(&directory)? else {
        println!("no cluster is running");
        return daemon::remove(&directory);
    };
    daemon::end(&directory, &state)?;
    println!("the cluster has stopped");
    Ok(())
}

/// The address from which this machine connects to others.
fn first_address() -> Result<Ipv4Addr> {
    // Sends nothing; TEST-NET-1 (RFC 5737) is reserved for documentation.
    let socket = UdpSocket::bind(("0.0.0.0", 0)).and_then(|socket| {
        socket.connect(("192.0.2.1", 9))?;
        socket.local_addr()
    });
    match socket.map(|address| address.ip()) {
        Ok(IpAddr::V4(address)) => Ok(address),
        _ => bail!("this machine has no reachable address; fix: set --address"),
    }
}
