//! The Dockerfiles match what the operator and the chart expect of the images.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::PodSpec;
use separation_operator::apply::Manifest;
use separation_operator::crd;
use separation_operator::plan::{Model, PoolPlan, Role};
use separation_operator::settings::WorkerSettings;
use serde_json::Value;

const WORKER: &str = include_str!("../../../Dockerfile.worker");
const OPERATOR: &str = include_str!("../../../Dockerfile.operator");
const LOCAL: &str = include_str!("../../../Dockerfile.local");
const POOL_OF_LOCAL: &str = include_str!("../../../deploy/image/local.yaml");
const IGNORED: &str = include_str!("../../../.dockerignore");
const WORKSPACE: &str = include_str!("../../../Cargo.toml");
const TOOLCHAIN: &str = include_str!("../../../rust-toolchain.toml");
const CHART: &str = include_str!("../../../charts/separation-operator/Chart.yaml");
const POOL: &str = include_str!("../../../deploy/samples/shared-volume.yaml");

/// The stages of a Dockerfile: base image, name, and instructions.
fn stages(text: &str) -> Vec<(&str, &str, Vec<&str>)> {
    let mut stages: Vec<(&str, &str, Vec<&str>)> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(from) = line.strip_prefix("FROM ") {
            let (base, name) = from.split_once(" AS ").expect("every stage has a name");
            stages.push((base, name, Vec::new()));
        } else if let Some((_, _, lines)) = stages.last_mut() {
            lines.push(line);
        }
    }
    stages
}

/// The instructions of a stage.
fn stage<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let found = stages(text).into_iter().find(|(_, found, _)| *found == name);
    found.unwrap_or_else(|| panic!("no stage {name}")).2
}

fn worker_pod(role: Role) -> PodSpec {
    let plan = PoolPlan::from_pool(&crd::from_yaml(POOL).expect("a pool")).expect("a plan");
    let settings = WorkerSettings {
        image: "separation-worker:test".to_owned(),
        image_pull_secrets: Vec::new(),
        model: Model::named("builtin"),
        allowed: BTreeSet::new(),
        audiences: BTreeSet::new(),
    };
    let manifest = Manifest::new(Arc::new(plan), role, Arc::new(settings));
    let built = manifest.deployment(0).expect("one");
    built.spec.template.spec.expect("a pod")
}

#[test]
fn images_start_from_scratch_and_run_no_shell() {
    for (text, name) in [(WORKER, "worker"), (OPERATOR, "operator")] {
        let (base, last, lines) = stages(text).pop().expect("a stage");
        assert_eq!((base, last), ("${BASE}", name));
        assert!(text.contains("\nARG BASE=scratch\n"));
        assert!(!lines.iter().any(|line| line.starts_with("RUN")), "{lines:?}");
        assert!(lines.contains(&"USER 65532:65532"));
        let notice = format!("COPY NOTICE /usr/share/doc/separation-{name}/");
        assert!(lines.contains(&notice.as_str()), "{lines:?}");
        // The exec form: the image has no shell.
        assert!(lines.contains(&format!("ENTRYPOINT [\"separation-{name}\"]").as_str()));
    }
}

/// The elements of an instruction in the exec form, which needs no shell.
fn exec_form(lines: &[&str], instruction: &str) -> Vec<String> {
    let found = lines.iter().find_map(|line| line.strip_prefix(instruction));
    serde_json::from_str(found.expect("the instruction")).expect("the exec form")
}

#[test]
fn the_image_of_local_adds_one_program_to_that_of_the_worker() {
    let (base, last, lines) = stages(LOCAL).pop().expect("a stage");
    assert_eq!((base, last), ("${WORKER}", "local"));
    assert!(!lines.iter().any(|line| line.starts_with("RUN")), "{lines:?}");
    assert!(lines.contains(&"USER 65532:65532"));
    let started = [exec_form(&lines, "ENTRYPOINT "), exec_form(&lines, "CMD ")].concat();
    assert_eq!(started[..2], ["separation-operator", "local"]);
    let option = |name: &str| {
        let value = started.iter().find_map(|word| word.strip_prefix(name));
        value.unwrap_or_else(|| panic!("{started:?} has no {name}"))
    };
    let pool = format!("COPY deploy/image/local.yaml {}", option("--file="));
    assert!(lines.contains(&pool.as_str()), "{pool}");
    // The only directory that it writes to.
    assert!(LOCAL.contains(&format!("install -d --mode=1777 /image{}\n", option("--data="))));
    assert!(lines.contains(&format!("VOLUME {}", option("--data=")).as_str()));
    let (_, port) = option("--store-url=").rsplit_once(':').expect("a port");
    assert!(
        lines.contains(&format!("EXPOSE 8000 {port}").as_str()),
        "{lines:?}"
    );
}

#[test]
fn the_pool_of_local_has_ready_workers_and_leaves_the_servers_to_the_program() {
    let pool: Value = serde_saphyr::from_str(POOL_OF_LOCAL).expect("YAML");
    for role in ["processor", "uploader"] {
        assert_eq!(pool["spec"][role]["scaling"]["minReplicas"], 1);
    }
    assert!(pool["spec"]["kafka"].is_null() && pool["spec"]["storage"].is_null());
}

#[test]
fn the_image_contains_everything_that_a_pod_names() {
    for target in ["worker", "cuda"] {
        let lines = stage(WORKER, target);
        for role in [Role::Processor, Role::Uploader] {
            let pod = worker_pod(role);
            let context = pod.security_context.expect("a context");
            let user = format!(
                "USER {}:{}",
                context.run_as_user.expect("a user"),
                context.run_as_group.expect("a group")
            );
            assert!(lines.contains(&user.as_str()), "{user}");
            let container = &pod.containers[0];
            assert_eq!(container.command, None, "the image's own program runs");
            let hook = container
                .lifecycle
                .as_ref()
                .and_then(|lifecycle| lifecycle.pre_stop.as_ref())
                .and_then(|hook| hook.exec.as_ref())
                .and_then(|exec| exec.command.as_ref())
                .expect("a hook");
            assert!(lines.contains(&format!("ENTRYPOINT [\"{}\"]", hook[0]).as_str()));
            assert!(
                lines
                    .iter()
                    .any(|line| line.starts_with("ENV PATH=/opt/separation:"))
            );
            for port in container.ports.iter().flatten() {
                let exposed = lines.iter().find_map(|line| line.strip_prefix("EXPOSE "));
                let mut exposed = exposed.expect("ports").split(' ');
                assert!(exposed.any(|exposed| exposed == port.container_port.to_string()));
            }
            // The image has the writable directories that pods mount.
            for mount in container.volume_mounts.iter().flatten() {
                assert!(
                    WORKER.contains(&format!(" /writable{}", mount.mount_path)),
                    "{}",
                    mount.mount_path
                );
            }
            let setting = |name: &str| {
                let mut variables = container.env.iter().flatten();
                let variable = variables
                    .find(|variable| variable.name == name)
                    .expect("the variable is set");
                format!("{name}={}", variable.value.as_deref().unwrap_or_default())
            };
            for name in ["SCRATCH_DIR", "TEMP_DIR", "OUTPUT_DIR"] {
                let is_set = lines.iter().any(|line| line.contains(&setting(name)));
                assert!(is_set, "{} is not in {lines:?}", setting(name));
            }
        }
    }
}

#[test]
fn versions_are_those_of_the_workspace() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(WORKSPACE.contains(&format!("\nversion = \"{version}\"\n")));
    let chart: Value = serde_saphyr::from_str(CHART).expect("YAML");
    for field in ["version", "appVersion"] {
        assert_eq!(chart[field], version);
    }
    for text in [WORKER, OPERATOR, LOCAL] {
        let defaults = text.lines().filter_map(|line| line.strip_prefix("ARG VERSION="));
        let defaults: Vec<_> = defaults.collect();
        assert!(!defaults.is_empty() && defaults.iter().all(|default| *default == version));
        let compiler = TOOLCHAIN
            .lines()
            .find_map(|line| line.strip_prefix("channel = "))
            .expect("a channel");
        assert!(text.contains(&format!("\nARG RUST=rust:{}-", compiler.trim_matches('"'))));
    }
}

#[test]
fn onnx_runtime_is_pinned_in_one_place_only() {
    for text in [WORKER, OPERATOR, LOCAL] {
        let is_hash = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(!text.split(|c: char| !c.is_ascii_alphanumeric()).any(is_hash));
        for forbidden in ["pip install", "pip download", "curl ", "wget "] {
            assert!(!text.contains(forbidden), "{forbidden}");
        }
    }
    // `cargo xtask setup` installs the version of separation/onnxruntime.toml.
    assert!(
        stage(WORKER, "compiled")
            .iter()
            .any(|line| line.contains("cargo xtask setup"))
    );
}

#[test]
fn images_contain_the_default_model_where_no_volume_is_mounted() {
    for (target, parts) in [("worker", "parts"), ("cuda", "parts-cuda")] {
        let lines = stage(WORKER, target);
        let copied = format!("COPY --from={parts} /parts/models/ /opt/separation/models/");
        assert!(lines.contains(&copied.as_str()), "{copied} is not in {lines:?}");
        // Users mount their own models at /models.
        assert!(
            lines.iter().any(|line| line.contains("MODEL_FILE_DIR=/models ")),
            "{lines:?}"
        );
        // Of the model, the page's player and the decoders, as NOTICE states.
        let licenses = "Apache-2.0 AND BSD-3-Clause AND MIT AND MPL-2.0";
        let label = format!("org.opencontainers.image.licenses=\"{licenses}\" \\");
        assert!(lines.contains(&label.as_str()), "{lines:?}");
        let notice = "COPY NOTICE /usr/share/doc/separation-worker/";
        assert!(lines.contains(&notice), "{lines:?}");
    }
}

#[test]
fn a_stage_uses_no_program_that_only_the_cache_of_an_earlier_build_has() {
    let lines = stage(WORKER, "compiled-cuda");
    assert!(!lines.iter().any(|line| line.contains("/target/")), "{lines:?}");
}

#[test]
fn the_build_context_has_all_members_of_the_workspace() {
    let members = WORKSPACE
        .lines()
        .find_map(|line| line.strip_prefix("members = ["))
        .expect("members");
    for member in members.trim_end_matches(']').split(", ") {
        let kept = format!("!{}", member.trim_matches('"'));
        assert!(IGNORED.lines().any(|line| line == kept), "{kept}");
    }
}
