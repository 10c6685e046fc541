//! Runs the commands of docs/operator.md that install the operator by hand, in a clean environment. kubectl is replaced
//! by a program that records its calls; the test then makes them to a real API server, in the same order.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use separation_testbed::{TempDirectory, WorkerOptions, shell_blocks};
use serde_json::{Value, json};

use crate::manifests::apply;
use crate::own_plane::OwnPlane;
use crate::rig::SOON;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../");

/// Writes its arguments, one per line, and its standard input if its arguments read that.
const KUBECTL: &str = r#"#!/bin/sh
call=$HOME/calls/$(ls "$HOME/calls" | wc -l)
mkdir "$call"
printf '%s\n' "$@" > "$call/arguments"
case "$*" in *"-f -"*) cat > "$call/input" ;; esac
"#;

/// One call of kubectl.
struct Call {
    namespace: Option<String>,
    positional: Vec<String>,
    files: Vec<String>,
    literals: BTreeMap<String, String>,
    input: Option<String>,
}

impl Call {
    fn read(directory: &Path) -> Self {
        let arguments = fs::read_to_string(directory.join("arguments")).expect("a recorded call");
        let mut call = Self {
            namespace: None,
            positional: Vec::new(),
            files: Vec::new(),
            literals: BTreeMap::new(),
            input: fs::read_to_string(directory.join("input")).ok(),
        };
        let mut arguments = arguments.lines();
        while let Some(argument) = arguments.next() {
            match argument {
                "-n" => call.namespace = arguments.next().map(str::to_owned),
                "-f" => call.files.extend(arguments.next().map(str::to_owned)),
                "--watch" => {}
                _ => match argument.strip_prefix("--from-literal=") {
                    Some(literal) => {
                        let (key, value) = literal.split_once('=').expect("KEY=VALUE");
                        call.literals.insert(key.to_owned(), value.to_owned());
                    }
                    None => call.positional.push(argument.to_owned()),
                },
            }
        }
        call
    }

    async fn execute(&self, plane: &OwnPlane) {
        let admin = &plane.rig.admin;
        match self.positional.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["apply"] => {
                for file in &self.files {
                    let text = match file.as_str() {
                        "-" => self.input.clone().expect("standard input"),
                        file => fs::read_to_string(Path::new(REPOSITORY).join(file))
                            .expect("a file of the repository"),
                    };
                    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("manifests");
                    for object in objects {
                        apply(admin, &object).await;
                    }
                }
            }
            ["create", "namespace", name] => {
                let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
                apply(admin, &object).await;
            }
            ["create", "secret", "generic", name] => {
                let namespace = self.namespace.as_deref().expect("a namespace");
                apply(
                    admin,
                    &json!({"apiVersion": "v1", "kind": "Secret", "stringData": self.literals,
                            "metadata": {"name": name, "namespace": namespace}}),
                )
                .await;
            }
            ["get", "separationpools"] => {
                let namespace = self.namespace.as_deref().unwrap_or("default");
                let pools = pools(plane, namespace)
                    .list(&ListParams::default())
                    .await
                    .expect("a list of pools");
                assert!(!pools.items.is_empty(), "no pool in the namespace {namespace}");
            }
            ref other => panic!("kubectl {other:?}"),
        }
    }
}

fn pools(plane: &OwnPlane, namespace: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("separation.dev", "v1beta1", "SeparationPool");
    Api::namespaced_with(plane.rig.admin.clone(), namespace, &ApiResource::from_gvk(&kind))
}

#[tokio::test]
async fn the_documented_commands_install_the_operator_and_a_pool() {
    let plane = OwnPlane::take().await;
    let home = TempDirectory::new().unwrap();
    fs::create_dir(home.join("bin")).unwrap();
    fs::create_dir(home.join("calls")).unwrap();
    symlink(
        env!("CARGO_BIN_EXE_separation-operator"),
        home.join("bin/separation-operator"),
    )
    .unwrap();
    let kubectl = home.join("bin/kubectl");
    fs::write(&kubectl, KUBECTL).unwrap();
    fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
    let document = fs::read_to_string(Path::new(REPOSITORY).join("docs/operator.md")).unwrap();
    let (_, commands) = shell_blocks(&document).into_iter().next().unwrap();
    let path = format!("{}:{}", home.join("bin").display(), env::var("PATH").unwrap());
    let shell = WorkerOptions::pasted(&commands, &path, home.path())
        .start()
        .unwrap();
    assert_eq!(shell.wait_exit(SOON).await.unwrap(), 0, "{}", shell.log_end());
    let calls = fs::read_dir(home.join("calls")).unwrap().count();
    assert_eq!(calls, commands.matches("kubectl ").count());
    for call in 0..calls {
        Call::read(&home.join(format!("calls/{call}")))
            .execute(&plane)
            .await;
    }
    // Other tests have operators that manage all namespaces of this control plane.
    pools(&plane, "media")
        .delete("vocals", &Default::default())
        .await
        .unwrap();
}
