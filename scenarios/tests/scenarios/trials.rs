//! Runs the commands of documents that lead to stems without the user's own Kafka and S3: from one file on a cluster
//! (README.md and docs/install.md), and from one container (README.md and docs/local.md).

use std::fs;
use std::time::{Duration, Instant};

use separation_scenarios::{STEP_TIMEOUT, System, free_port, paste, run_local_image};
use separation_testbed::{ClusterOptions, TempDirectory, documented_commands, readme_block, song};

use crate::is_skipped;

const INSTALL: &str = include_str!("../../../docs/install.md");
const QUICKSTART: &str = include_str!("../../../deploy/quickstart.yaml");

const SONG_SECONDS: f32 = 10.0;
/// From the quickstart's first command to the stems.
const PROMISED: Duration = Duration::from_secs(180);

/// Limits of the container's start and of a song in it, for a busy machine and unoptimized programs; `cargo xtask bench
/// --only local-image` measures what is promised.
const LOCAL_START: Duration = Duration::from_secs(30);
const LOCAL_SONG: Duration = Duration::from_secs(60);

#[test]
fn the_readme_begins_the_quickstart() {
    let (commands, first) = (
        documented_commands(INSTALL, "Quickstart"),
        readme_block("quickstart.yaml"),
    );
    assert!(
        commands.starts_with(&first),
        "{first} is not the start of {commands}"
    );
}

#[tokio::test]
async fn the_quickstart_and_the_image_of_local_lead_to_stems() {
    if is_skipped() {
        return;
    }
    let system = System::without_release(ClusterOptions::default()).await.unwrap();
    check_quickstart(&system).await;
    let times = run_local_image(&system).await.unwrap();
    println!("{times:.1?}");
    assert!(
        times.start <= LOCAL_START && times.song <= LOCAL_SONG,
        "{times:?}"
    );
}

/// Runs the commands within the promised time, and those that remove everything again.
async fn check_quickstart(system: &System) {
    let cluster = &system.cluster;
    let _name_server = cluster.start_name_server().await.unwrap();
    let home = TempDirectory::new().unwrap();
    fs::create_dir(home.join("deploy")).unwrap();
    fs::write(home.join("deploy/quickstart.yaml"), quickstart(system).await).unwrap();
    fs::write(home.join("SONG.mp3"), song(SONG_SECONDS, 1)).unwrap();
    let port = free_port().unwrap().to_string();
    let commands = documented_commands(INSTALL, "Quickstart").replace("8000", &port);
    let started = Instant::now();
    let printed = paste(cluster, home.path(), &commands, STEP_TIMEOUT * 2)
        .await
        .unwrap();
    let took = started.elapsed();
    println!("from the quickstart's first command to stems: {took:.1?}");
    for stem in ["vocals", "instrumental"] {
        let stem = fs::read(home.join(format!("{stem}.wav"))).unwrap();
        // Stereo at 44.1 kHz and 16 bits.
        assert!(stem.len() > SONG_SECONDS as usize * 44_100 * 4, "{printed}");
    }
    assert!(took <= PROMISED, "{took:?}");
    let remove = documented_commands(INSTALL, "Remove the trial");
    paste(cluster, home.path(), &remove, STEP_TIMEOUT).await.unwrap();
    assert!(cluster.pods("separation-trial").await.unwrap().is_empty());
}

/// The file, with the images on the node in place of those that this machine cannot pull.
async fn quickstart(system: &System) -> String {
    let node = &system.cluster.node;
    let mut file = QUICKSTART.to_owned();
    for (repository, image) in [
        ("apache/kafka", node.import_server("kafka").await.unwrap()),
        (
            "versity/versitygw",
            node.import_server("versitygw").await.unwrap(),
        ),
        ("registry.example/separation-operator", System::image("operator")),
        ("registry.example/separation-worker", System::image("worker")),
    ] {
        let start = format!("{repository}:");
        let mut words = QUICKSTART.split_whitespace();
        let public = words.find(|word| word.starts_with(&start)).unwrap();
        file = file.replace(public, &image);
    }
    file
}
