//! Runs the documented commands for one machine: of docs/command-line.md, docs/local.md (without a container),
//! docs/operations.md and deploy/local-real.md.

use std::env;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use separation_testbed::{
    Components, Kafka, KafkaOptions, S3Server, TempDirectory, Worker, WorkerOptions, documented_commands,
    shell_blocks, song,
};

use crate::{OPERATOR, PATIENCE};

const COMMAND_LINE: &str = include_str!("../../../docs/command-line.md");
const LOCAL: &str = include_str!("../../../docs/local.md");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../");

/// Replacement for cargo: the programs are already built.
const CARGO: &str = "#!/bin/sh\necho \"cargo $*\" >>cargo.log\n";

/// A directory like a checkout that was built for release, with a user's songs in it.
struct Checkout {
    directory: TempDirectory,
}

impl Checkout {
    fn new() -> Self {
        let directory = TempDirectory::new().unwrap();
        let programs = directory.join("target/release");
        fs::create_dir_all(&programs).unwrap();
        for name in ["separation-operator", "separation-worker"] {
            symlink(Path::new(OPERATOR).with_file_name(name), programs.join(name)).unwrap();
        }
        let cargo = programs.join("cargo");
        fs::write(&cargo, CARGO).unwrap();
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
        symlink(Path::new(REPOSITORY).join("deploy"), directory.join("deploy")).unwrap();
        // Where `cargo xtask setup` installs what programs need.
        fs::create_dir(directory.join(".cache")).unwrap();
        symlink(Components::cache().unwrap(), directory.join(".cache/separation")).unwrap();
        Self { directory }
    }

    /// Runs commands in this directory, with it as the home directory.
    fn paste(&self, commands: &str) -> Worker {
        let directory = self.directory.path();
        let path = format!(
            "{}/target/release:{}",
            directory.display(),
            env::var("PATH").unwrap()
        );
        let commands = format!("cd {}\n{commands}", directory.display());
        WorkerOptions::pasted(&commands, &path, directory)
            .start()
            .unwrap()
    }

    async fn succeeds(&self, commands: &str) {
        let shell = self.paste(commands);
        let code = shell.wait_exit(PATIENCE).await.unwrap();
        assert_eq!(code, 0, "{commands}\n{}", shell.log_end());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A song of this name, in the format of its extension.
    async fn song(&self, name: &str) {
        fs::write(self.path("source.wav"), song(2.0, 1)).unwrap();
        let (_, format) = name.rsplit_once('.').unwrap();
        self.succeeds(&format!(
            "separation-worker separate source.wav --output-dir made --format {format} --model builtin
            mv made/source_instrumental.{format} {name}; rm -r made source.wav"
        ))
        .await;
    }

    fn check_stems(&self, songs: &[&str]) {
        for song in songs {
            for stem in ["vocals", "instrumental"] {
                let path = self.path(&format!("stems/{song}_{stem}.wav"));
                assert!(path.is_file(), "{}", path.display());
            }
        }
    }

    /// Arguments of cargo.
    fn asked_of_cargo(&self) -> String {
        fs::read_to_string(self.path("cargo.log")).unwrap_or_default()
    }
}

#[tokio::test]
async fn the_documented_command_separates_songs() {
    let checkout = Checkout::new();
    fs::create_dir(checkout.path("ALBUM")).unwrap();
    for name in ["SONG.mp3", "SONG.wav", "other.flac", "ALBUM/track.flac"] {
        checkout.song(name).await;
    }
    let models = Path::new(REPOSITORY).join("worker/tests/models");
    for ending in ["onnx", "json"] {
        let model = models.join(format!("identity_full.{ending}"));
        let name = format!("UVR-MDX-NET-Inst_HQ_4.{ending}");
        fs::copy(model, checkout.path(&name)).unwrap();
    }
    let commands = documented_commands(COMMAND_LINE, "The command line");
    checkout.succeeds(&commands).await;
    checkout.check_stems(&["SONG", "track"]);
    assert!(checkout.path("stems/other_vocals.flac").is_file());
    assert_eq!(
        checkout.asked_of_cargo(),
        "cargo xtask setup\ncargo build --release --locked -p separation-worker\n"
    );
}

#[tokio::test]
async fn the_documented_pool_runs_on_a_laptop() {
    let checkout = Checkout::new();
    for name in ["one.mp3", "two.mp3"] {
        checkout.song(name).await;
    }
    let commands = documented_commands(LOCAL, "Without a container");
    let [setup, build, once, serve] = commands.lines().collect::<Vec<_>>().try_into().unwrap();
    let without_comment = |line: &str| line.split('#').next().unwrap_or_default().trim().to_owned();
    checkout.succeeds(&format!("{setup}\n{build}")).await;
    // Tests run in parallel, and another one may use the default port.
    checkout
        .succeeds(&format!("{} --port 0", without_comment(once)))
        .await;
    checkout.check_stems(&["one", "two"]);
    let serving = checkout.paste(&format!("exec {} --port 0", without_comment(serve)));
    serving.wait_for_log("post songs to ", PATIENCE).await.unwrap();
    serving.sigint().unwrap();
    assert_eq!(serving.wait_exit(PATIENCE).await.unwrap(), 0);
    assert_eq!(
        checkout.asked_of_cargo(),
        "cargo xtask setup\ncargo build --release --locked -p separation-worker -p separation-operator\n"
    );
}

#[tokio::test]
async fn the_documented_pipeline_runs() {
    let checkout = Checkout::new();
    checkout.song("SONG.mp3").await;
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    for topic in ["uvr_tasks", "uvr_results"] {
        kafka.create_topic(topic, 2).await.unwrap();
    }
    let s3 = S3Server::shared().await.unwrap();
    let bucket = format!("readme-{}", uuid::Uuid::new_v4().simple());
    s3.create_bucket(&bucket).await.unwrap();
    s3.make_public(&bucket).await.unwrap();
    let shared = checkout.path("shared");
    for directory in ["songs", "stems"] {
        fs::create_dir_all(shared.join(directory)).unwrap();
    }
    let mut commands = with_free_ports(&documented_commands(OPERATIONS, "Start the roles"));
    for (written, real) in [
        ("kafka:9092", kafka.bootstrap()),
        ("/shared", shared.display().to_string()),
        ("http://s3:9000", s3.endpoint()),
        ("S3_BUCKET_NAME=stems", format!("S3_BUCKET_NAME={bucket}")),
        (
            "AWS_ACCESS_KEY_ID=…",
            format!("AWS_ACCESS_KEY_ID={}", s3.access_key()),
        ),
        (
            "AWS_SECRET_ACCESS_KEY=…",
            format!("AWS_SECRET_ACCESS_KEY={}", s3.secret_key()),
        ),
        (
            "BASIC_AUTH_PASSWORD=…",
            "BASIC_AUTH_PASSWORD=secret-of-mine".to_owned(),
        ),
    ] {
        assert!(commands.contains(written), "{written} is not in {commands}");
        commands = commands.replace(written, &real);
    }
    let shell = checkout.paste(&format!("{commands}\nkill $(jobs -p)\nwait"));
    let code = shell.wait_exit(PATIENCE).await.unwrap();
    assert_eq!(code, 0, "{}", shell.log_end());
    checkout.check_stems(&["SONG"]);
    let printed = shell.output().unwrap();
    assert!(printed.contains("uvr_tasks"), "lag was printed: {printed}");
}

#[tokio::test]
async fn the_documented_pool_runs_with_external_kafka_and_s3() {
    const SAMPLE: &str = "deploy/samples/local-real.yaml";
    let checkout = Checkout::new();
    checkout.song("SONG.mp3").await;
    let mut sample = fs::read_to_string(Path::new(REPOSITORY).join(SAMPLE)).unwrap();
    let document = fs::read_to_string(Path::new(REPOSITORY).join("deploy/local-real.md")).unwrap();
    let blocks: Vec<_> = shell_blocks(&document)
        .into_iter()
        .map(|(_, block)| block)
        .collect();
    let mut blocks: [String; 3] = blocks.try_into().unwrap();
    for written in ["127.0.0.1:9092", "127.0.0.1:9093", "127.0.0.1:7070"] {
        let real = format!("127.0.0.1:{}", free_port());
        for text in blocks.iter_mut().chain([&mut sample]) {
            *text = text.replace(written, &real);
        }
    }
    let [kafka, s3, pool] = blocks;
    fs::remove_file(checkout.path("deploy")).unwrap();
    fs::create_dir_all(checkout.path("deploy/samples")).unwrap();
    fs::write(checkout.path(SAMPLE), sample).unwrap();
    // A shell that starts a server as its last step becomes that server.
    let data = checkout.path("data").display().to_string();
    let server = |commands: &str, start: &str| {
        let (before, last) = commands.rsplit_once(start).unwrap();
        checkout.paste(&format!("{before}exec {start}{last}").replace("~/separation-local", &data))
    };
    let _servers = [server(&kafka, "java -Xmx512m"), server(&s3, "$s3 --access")];
    checkout
        .succeeds(&pool.replace(" --input", " --port 0 --input"))
        .await;
    checkout.check_stems(&["SONG"]);
}

/// The commands of the pipeline with free ports instead of named and default ones, since tests run in parallel. Roles
/// that would listen on the same port still do.
fn with_free_ports(commands: &str) -> String {
    let spelled_out = commands.lines().map(|line| {
        let role = line.strip_prefix("separation-worker ").unwrap_or_default();
        let serves = ["processor", "uploader", "api"]
            .iter()
            .any(|name| role.starts_with(name));
        if !serves {
            return format!("{line}\n");
        }
        let mut line = line.trim_end_matches(" &").to_owned();
        if !line.contains("--admin-addr") {
            line.push_str(" --admin-addr 0.0.0.0:8081");
        }
        if role.starts_with("api") {
            line.push_str(" --port 8000");
        }
        line + " &\n"
    });
    let mut commands: String = spelled_out.collect();
    for port in ["8000", "8081", "8082", "8083"] {
        assert!(commands.contains(port), "{port} is not in {commands}");
        commands = commands.replace(port, &free_port().to_string());
    }
    commands
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
