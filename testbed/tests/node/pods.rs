//! Pods on a node, while servers of the cluster are killed and restarted.

use std::time::{Duration, Instant};

use separation_testbed::{ControlPlane, ControlPlaneOptions, Machine, Node, Receiver, Server, eventually};
use serde_json::{Value, json};

use crate::api::Api;
use crate::is_skipped;

const TIMEOUT: Duration = Duration::from_secs(60);
const GRACE_SECONDS: u64 = 120;

/// Calls the host, sends a request to the API server, and calls the host again on SIGTERM.
fn script(hook: &str) -> String {
    // An HTTPS server answers a plain HTTP request with an error message.
    format!(
        r"
trap 'wget -q -O /dev/null {hook}/bye; echo I received SIGTERM; exit 0' TERM
wget -q -O /dev/null {hook}/hello && echo I reached the host
printf 'GET / HTTP/1.0\r\n\r\n' | nc 10.96.0.1 443
echo I am ready
while :; do sleep 1 & wait $!; done
"
    )
}

/// As strict as the pods of our chart: no root, a read-only file system, few system calls.
fn pod(name: &str, image: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "shell",
                "image": image,
                "args": ["-c", script],
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
                "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
            }],
        },
    })
}

#[tokio::test]
async fn pods_reach_their_servers_survive_restarts_of_the_node_and_end_on_sigterm() {
    if is_skipped() {
        return;
    }
    let machine = Machine::start().await.unwrap();
    let network = machine.network();
    let options = ControlPlaneOptions {
        node: Some(network),
        ..Default::default()
    };
    let plane = ControlPlane::start(options).await.unwrap();
    let node = Node::start(machine, &plane).await.unwrap();
    let api = Api::new(&plane);
    let receiver = Receiver::start_at(network.host_address()).await.unwrap();
    let hook = format!("http://{}", receiver.address());
    let was_requested = |path: &str| receiver.requests().iter().any(|request| request.path == path);

    api.create(&pod("first", node.busybox(), &script(&hook))).await;
    let log = api.log_with("first", "I am ready").await;
    assert!(log.contains("I reached the host\n"), "{log}");
    assert!(
        log.contains("Client sent an HTTP request to an HTTPS server"),
        "{log}"
    );
    assert!(was_requested("/hello"));

    // The same container keeps running while the runtime is down and comes back.
    let before = api.running("first").await;
    node.kill_kubelet().await.unwrap();
    plane.kill(Server::Api).await.unwrap();
    plane.start_again(Server::Api).await.unwrap();
    node.start_kubelet().await.unwrap();
    node.restart_runtime().await.unwrap();
    let another = "localhost/another:name";
    eventually("a runtime that answers", TIMEOUT, async || {
        node.tag(node.busybox(), another).await.map(|()| true)
    })
    .await;
    api.create(&pod("second", another, &script(&hook))).await;
    api.log_with("second", "I am ready").await;
    let after = api.running("first").await;
    let container = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    assert_eq!(container(&before), container(&after));

    // It received SIGTERM and exited without being killed.
    let start = Instant::now();
    api.delete("first").await;
    assert!(start.elapsed() < Duration::from_secs(GRACE_SECONDS));
    assert!(was_requested("/bye"));
}
