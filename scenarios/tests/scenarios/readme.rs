//! Runs the commands of README.md for a pool on a cluster, after those of docs/install.md for the images. Only `docker build`
//! is replaced.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::ensure;
use separation_scenarios::{STEP_TIMEOUT, System, paste};
use separation_testbed::{ClusterOptions, TempDirectory, documented_commands, eventually, readme_block};

use crate::is_skipped;

const INSTALL: &str = include_str!("../../../docs/install.md");
const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../");
const DOCKER: &str = "#!/bin/sh\necho \"docker $*\" >>docker.log\n";
/// The first line of the recording.
const WATCH: &str = "kubectl -n media get seppool --watch";

/// Stands for the user's own registry; nothing is fetched from it, because the node has the images.
const REGISTRY: &str = "registry.test";

#[tokio::test]
async fn the_commands_of_the_readme_install_the_operator_and_a_pool() {
    if is_skipped() {
        return;
    }
    let system = System::without_release(ClusterOptions::default()).await.unwrap();
    let cluster = &system.cluster;
    for program in ["worker", "operator"] {
        let pushed = format!("{REGISTRY}/separation-{program}:{}", env!("CARGO_PKG_VERSION"));
        let built = format!("localhost/separation-{program}:dev");
        cluster.node.tag(&built, &pushed).await.unwrap();
    }
    cluster.s3.create_bucket("stems").await.unwrap();

    let checkout = checkout(&[
        ("kafka.media.svc:9092", cluster.kafka.bootstrap()),
        ("http://s3.media.svc:9000", cluster.s3.endpoint()),
    ]);
    assert!(readme_block(WATCH).starts_with(&format!("$ {WATCH}\n")));
    // A watch would never end.
    let get = WATCH.trim_end_matches(" --watch");
    let images = documented_commands(INSTALL, "Images");
    let commands = format!("{images}{}{get}", readme_block("helm install"))
        .replace("REGISTRY", REGISTRY)
        .replace("KEY_ID=…", &format!("KEY_ID={}", cluster.s3.access_key()))
        .replace("ACCESS_KEY=…", &format!("ACCESS_KEY={}", cluster.s3.secret_key()));
    let home = checkout.path();
    let printed = paste(cluster, home, &commands, STEP_TIMEOUT).await.unwrap();
    assert!(printed.contains("vocals"), "{printed}");
    let docker_log = fs::read_to_string(checkout.join("docker.log")).unwrap();
    for program in ["worker", "operator"] {
        let build = format!("docker build -f Dockerfile.{program} -t {REGISTRY}/separation-{program}");
        assert!(docker_log.contains(&build), "{docker_log}");
    }

    let path = "/apis/separation.dev/v1beta1/namespaces/media/separationpools/vocals";
    eventually("a pool and an API that are ready", STEP_TIMEOUT, async || {
        let pool = cluster.get(path).await?;
        let status = &pool["status"];
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let mut fulfilled = conditions.filter(|condition| condition["status"] == "True");
        ensure!(
            fulfilled.any(|condition| condition["type"] == "Ready") && status["api"]["ready"] == 2,
            "{pool:#}"
        );
        anyhow::Ok(true)
    })
    .await;
}

/// The directories that the commands use, with this test's own addresses in the pool.
fn checkout(changes: &[(&str, String)]) -> TempDirectory {
    let directory = TempDirectory::new().unwrap();
    let repository = Path::new(REPOSITORY);
    symlink(repository.join("charts"), directory.join("charts")).unwrap();
    let mut pool = readme_block("kind: SeparationPool");
    assert_eq!(pool.lines().count(), 11, "{pool}");
    for (written, real) in changes {
        assert!(pool.contains(written), "{written} is not in {pool}");
        pool = pool.replace(written, real);
    }
    fs::write(directory.join("pool.yaml"), pool).unwrap();
    fs::create_dir(directory.join("bin")).unwrap();
    let docker = directory.join("bin/docker");
    fs::write(&docker, DOCKER).unwrap();
    fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).unwrap();
    directory
}
