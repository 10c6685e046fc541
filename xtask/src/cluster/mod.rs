//! A cluster for trials: Kubernetes, Kafka and S3 in the background, until they are ended.

mod held;
mod trial;
mod tried;

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

pub(crate) use tried::as_a_test;

use self::held::{Holder, State, running};
use crate::images::{self, Image, Profile};
use crate::project::Project;
use crate::{node, parts, process, system, test};

/// Under cargo's target directory.
const FOLDER: &str = "cluster";

#[derive(Debug, Subcommand)]
pub(crate) enum Step {
    /// Start Kubernetes with one node, Kafka and S3 in the background, and say how to reach them
    ///
    /// With KUBECONFIG set, that cluster is taken, and only Kafka and S3 are started.
    Up(Up),
    /// Build the images of the worker and the operator, bring them to the node, and install the chart with them
    ///
    /// For a cluster that KUBECONFIG names, say how to bring and install them.
    Load(Load),
    /// Run all tests that take a node: on clusters of their own, which end with them
    Test,
    /// End what `up` started
    Down,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Where Kafka and S3 listen for the pods of the cluster that KUBECONFIG names (default: this machine's first address)
    #[arg(long)]
    address: Option<Ipv4Addr>,
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Take the programs that are shipped (a release build), not those that tests run
    #[arg(long)]
    release: bool,
    /// The tag of both images
    #[arg(long, default_value = images::TAG)]
    tag: String,
}

/// `cargo xtask cluster`.
pub(crate) fn cluster(project: &Project, step: &Step) -> Result<()> {
    match step {
        Step::Up(options) => up(project, options),
        Step::Load(options) => load(project, options),
        Step::Test => test::test_on_nodes(project),
        Step::Down => down(project),
    }
}

fn up(project: &Project, options: &Up) -> Result<()> {
    let folder = project.target(FOLDER);
    if let Some(state) = running(&folder)? {
        println!("it is up already");
        return print(project, &state);
    }
    system::ensure(system::FOR_TESTING)?;
    parts::install(project)?;
    let mut holder = Holder::build(project)?;
    match (project.kubeconfig(), node::obstacle(project)) {
        (Some(kubeconfig), _) => {
            let address = options.address.map_or_else(first_address, Ok)?;
            println!("taking the cluster of {}", kubeconfig.display());
            holder.only_services_at(address);
        }
        (None, None) => parts::install_node(project)?,
        (None, Some(obstacle)) => bail!(
            "this machine cannot run a Kubernetes node: {obstacle}; fix: set KUBECONFIG to a cluster that you have"
        ),
    }
    let state = holder.start(&folder)?;
    print(project, &state)
}

fn print(project: &Project, state: &State) -> Result<()> {
    if let Some(kubeconfig) = &state.kubeconfig {
        let [kubectl, helm] = parts::tools(project)?;
        println!("\nexport KUBECONFIG={}", kubeconfig.display());
        println!("export PATH={}:{}:$PATH", kubectl.display(), helm.display());
    }
    let s3 = &state.s3;
    println!(
        "\nfor pods:\n  Kafka   {}\n  S3      {}  region {}  bucket {}  access key {}  secret key {}",
        state.kafka, s3.endpoint, s3.region, s3.bucket, s3.access_key, s3.secret_key
    );
    println!("\ncargo xtask cluster load    builds the images and installs the operator with them");
    println!("cargo xtask cluster down    ends it all");
    Ok(())
}

fn load(project: &Project, options: &Load) -> Result<()> {
    let folder = project.target(FOLDER);
    let state = running(&folder)?.context("there is no cluster; fix: `cargo xtask cluster up` starts one")?;
    let profile = if options.release {
        Profile::Release
    } else {
        Profile::Tests
    };
    let built = images::build(project, profile, &options.tag)?;
    if state.kubeconfig.is_some() {
        bring(project, &folder, &state, &built)?;
    } else {
        println!(
            "\nbring these to your cluster, by `kind load image-archive`, `minikube image load` or a registry:"
        );
        for image in &built {
            println!("  {}  as {}", image.archive.display(), image.name);
        }
        println!(
            "\nthen install the operator (with other names of images in the values, where a registry gives them):"
        );
        trial::prepare(project, &folder, &state, &built)?.explain();
    }
    trial::explain(project, &folder);
    Ok(())
}

/// Gives our own cluster the images and the chart's release, and writes a pool to apply.
fn bring(project: &Project, folder: &Path, state: &State, images: &[Image]) -> Result<()> {
    let (Some(kubeconfig), Some((program, arguments))) = (&state.kubeconfig, state.import.split_first())
    else {
        bail!("somebody else's cluster is given nothing");
    };
    for image in images {
        let mut importing = project.command(program);
        importing.args(arguments).arg(&image.archive);
        process::run(&mut importing)?;
        println!("the node has {}", image.name);
    }
    trial::prepare(project, folder, state, images)?.run(kubeconfig)
}

fn down(project: &Project) -> Result<()> {
    let folder = project.target(FOLDER);
    let Some(state) = running(&folder)? else {
        println!("there is no cluster");
        return held::remove(&folder);
    };
    held::end(&folder, &state)?;
    println!("the cluster has ended");
    Ok(())
}

/// The address that this machine would call others from.
fn first_address() -> Result<Ipv4Addr> {
    // Nothing is sent; TEST-NET-1 (RFC 5737) is nobody's.
    let socket = UdpSocket::bind(("0.0.0.0", 0)).and_then(|socket| {
        socket.connect(("192.0.2.1", 9))?;
        socket.local_addr()
    });
    match socket.map(|address| address.ip()) {
        Ok(IpAddr::V4(address)) => Ok(address),
        _ => bail!("this machine has no address that others reach; fix: give --address"),
    }
}
