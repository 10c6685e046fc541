//! Runs README.md's commands for a cluster. Only `docker build` is replaced.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::ensure;
use separation_scenarios::{STEP_TIMEOUT, System};
use separation_testbed::{ClusterOptions, TempDirectory, eventually, readme_block};

use crate::is_skipped;
use crate::shell::paste;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../");
const DOCKER: &str = "#!/bin/sh\necho \"docker $*\" >>docker.log\n";
const SAMPLE: &str = "deploy/samples/pool.yaml";

/// Stands for the user's own registry; nothing is fetched from it, because the node has the images.
const REGISTRY: &str = "registry.example";

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
    for topic in ["uvr_tasks", "uvr_results"] {
        cluster.kafka.create_topic(topic, 4).await.unwrap();
    }
    cluster.s3.create_bucket("stems").await.unwrap();

    let checkout = checkout(&[
        ("kafka.media.svc:9092", cluster.kafka.bootstrap()),
        ("http://s3.media.svc:9000", cluster.s3.endpoint()),
    ]);
    let commands = readme_block("Install on a cluster")
        .replace("REGISTRY", REGISTRY)
        .replace("KEY_ID=…", &format!("KEY_ID={}", cluster.s3.access_key()))
        .replace("ACCESS_KEY=…", &format!("ACCESS_KEY={}", cluster.s3.secret_key()));
    // It would never end.
    assert!(commands.ends_with(" --watch\n"), "{commands}");
    let commands = commands.trim_end().trim_end_matches(" --watch");
    let home = checkout.path();
    let printed = paste(cluster, home, commands, STEP_TIMEOUT).await;
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
    let mut pool = fs::read_to_string(repository.join(SAMPLE)).unwrap();
    for (written, real) in changes {
        assert!(pool.contains(written), "{written} is not in {pool}");
        pool = pool.replace(written, real);
    }
    let sample = directory.join(SAMPLE);
    fs::create_dir_all(sample.parent().unwrap()).unwrap();
    fs::write(sample, pool).unwrap();
    fs::create_dir(directory.join("bin")).unwrap();
    let docker = directory.join("bin/docker");
    fs::write(&docker, DOCKER).unwrap();
    fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).unwrap();
    directory
}
