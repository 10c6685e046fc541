//! The Kubernetes API, as used by tests.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use separation_testbed::{ControlPlane, ControlPlaneOptions, Server, eventually};
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(60);

struct Api {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Api {
    fn new(plane: &ControlPlane, token: &str) -> Self {
        let ca = reqwest::Certificate::from_pem(plane.ca_pem().as_bytes()).unwrap();
        Self {
            http: reqwest::Client::builder()
                .tls_certs_only([ca])
                .timeout(Duration::from_secs(5))
                .build()
                .unwrap(),
            url: plane.url().to_owned(),
            token: token.to_owned(),
        }
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let patches = method == Method::PATCH;
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(&self.token);
        if let Some(body) = body {
            if patches {
                request = request.header("content-type", "application/merge-patch+json");
            }
            request = request.json(&body);
        }
        let response = request.send().await?;
        Ok((response.status(), response.json().await?))
    }
}

fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "worker", "image": "image"}]},
            },
        },
    })
}

#[tokio::test]
async fn deployments_get_pods_and_requests_are_counted() {
    let plane = ControlPlane::shared().await.unwrap();
    let admin = Api::new(plane, plane.admin_token());
    let (status, version) = admin.request(Method::GET, "/version", None).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    assert!(
        version["gitVersion"].as_str().unwrap().starts_with("v1."),
        "{version}"
    );
    let (status, response) = admin
        .request(
            Method::POST,
            "/apis/apps/v1/namespaces/default/deployments",
            Some(deployment("counted")),
        )
        .await
        .unwrap();
    assert_eq!(status, StatusCode::CREATED, "{response}");
    eventually("two pods", TIMEOUT, async || {
        let path = "/api/v1/namespaces/default/pods?labelSelector=app%3Dcounted";
        let (_, pods) = admin.request(Method::GET, path, None).await?;
        anyhow::Ok(pods["items"].as_array().is_some_and(|pods| pods.len() == 2))
    })
    .await;
    let requests = plane.requests().unwrap();
    let written: Vec<_> = requests
        .iter()
        .filter(|request| request.writes() && request.user == "admin" && request.name == "counted")
        .collect();
    assert_eq!(written.len(), 1, "{written:?}");
    assert_eq!((written[0].verb.as_str(), written[0].status), ("create", 201));
    let controller = "system:serviceaccount:kube-system:replicaset-controller";
    let pod_writes = requests
        .iter()
        .filter(|request| request.user == controller && request.resource == "pods" && request.writes());
    // Other tests have Deployments on the same server.
    assert!(pod_writes.count() >= 2);
}

#[tokio::test]
async fn pods_marked_ready_make_a_deployment_ready_and_the_one_with_the_lowest_deletion_cost_is_deleted_first()
 {
    let plane = ControlPlane::shared().await.unwrap();
    let admin = Api::new(plane, plane.admin_token());
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment_path = format!("{deployments}/ready");
    let response = admin
        .request(Method::POST, deployments, Some(deployment("ready")))
        .await
        .unwrap();
    assert_eq!(response.0, StatusCode::CREATED, "{}", response.1);
    let pods = async || {
        let path = "/api/v1/namespaces/default/pods?labelSelector=app%3Dready";
        let (_, list) = admin.request(Method::GET, path, None).await?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let names = items.iter().filter_map(|pod| pod["metadata"]["name"].as_str());
        anyhow::Ok(names.map(str::to_owned).collect::<Vec<_>>())
    };
    let both = eventually("two pods", TIMEOUT, async || {
        let names = pods().await?;
        anyhow::Ok((names.len() == 2).then_some(names))
    })
    .await;
    for (pod, cost) in both.iter().zip(["10", "-10"]) {
        let path = format!("/api/v1/namespaces/default/pods/{pod}");
        let costs =
            json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": cost}}});
        let (status, response) = admin.request(Method::PATCH, &path, Some(costs)).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{response}");
        let ready = json!({"status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        }});
        let (status, response) = admin
            .request(Method::PATCH, &format!("{path}/status"), Some(ready))
            .await
            .unwrap();
        assert_eq!(status, StatusCode::OK, "{response}");
    }
    eventually("two ready replicas", TIMEOUT, async || {
        let (_, now) = admin.request(Method::GET, &deployment_path, None).await?;
        anyhow::Ok(now["status"]["readyReplicas"] == 2)
    })
    .await;
    let fewer = json!({"spec": {"replicas": 1}});
    let (status, response) = admin
        .request(Method::PATCH, &deployment_path, Some(fewer))
        .await
        .unwrap();
    assert_eq!(status, StatusCode::OK, "{response}");
    let remaining = eventually("one pod", TIMEOUT, async || {
        let names = pods().await?;
        anyhow::Ok((names.len() == 1).then_some(names))
    })
    .await;
    assert_eq!(remaining, both[..1]);
}

#[tokio::test]
async fn a_service_account_has_only_the_rights_of_its_roles() {
    let plane = ControlPlane::shared().await.unwrap();
    // A controller creates the account soon after the namespace.
    let token = eventually("token", TIMEOUT, async || {
        anyhow::Ok(plane.token_for("kube-system", "default").await.ok())
    })
    .await;
    let account = Api::new(plane, &token);
    let path = "/api/v1/namespaces/kube-system/pods";
    let (status, response) = account.request(Method::GET, path, None).await.unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN);
    let message = response["message"].as_str().unwrap();
    assert!(
        message.contains("system:serviceaccount:kube-system:default"),
        "{message}"
    );
    assert!(plane.token_for("kube-system", "missing").await.is_err());
    assert!(plane.kubeconfig(&token).contains(&token));
}

#[tokio::test]
async fn a_killed_api_server_restarts_with_its_data_at_its_address() {
    let options = ControlPlaneOptions {
        controllers: false,
        ..Default::default()
    };
    let plane = ControlPlane::start(options).await.unwrap();
    let admin = Api::new(&plane, plane.admin_token());
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kept"}});
    let (status, _) = admin
        .request(Method::POST, "/api/v1/namespaces", Some(namespace))
        .await
        .unwrap();
    assert_eq!(status, StatusCode::CREATED);
    plane.kill(Server::Api).await.unwrap();
    let kept = "/api/v1/namespaces/kept";
    assert!(admin.request(Method::GET, kept, None).await.is_err());
    plane.start_again(Server::Api).await.unwrap();
    assert_eq!(
        admin.request(Method::GET, kept, None).await.unwrap().0,
        StatusCode::OK
    );
    plane.pause(Server::Api).unwrap();
    // A request that was received before the signal may still be answered.
    eventually("a paused server", TIMEOUT, async || {
        anyhow::Ok(admin.request(Method::GET, kept, None).await.is_err())
    })
    .await;
    plane.resume(Server::Api).unwrap();
    assert_eq!(
        admin.request(Method::GET, kept, None).await.unwrap().0,
        StatusCode::OK
    );
    plane.kill(Server::Etcd).await.unwrap();
    plane.start_again(Server::Etcd).await.unwrap();
    assert_eq!(
        admin.request(Method::GET, kept, None).await.unwrap().0,
        StatusCode::OK
    );
    plane.stop(Server::Api).await.unwrap();
    assert!(plane.stop(Server::Controllers).await.is_err());
}

#[tokio::test]
async fn a_server_that_does_not_start_reports_the_reason() {
    let options = ControlPlaneOptions {
        controllers: false,
        api_server: vec!["--no-such-flag".to_owned()],
        ..Default::default()
    };
    let error = ControlPlane::start(options).await.unwrap_err().to_string();
    assert!(
        error.starts_with("kube-apiserver ended with 1; the end of"),
        "{error}"
    );
    assert!(error.contains("unknown flag: --no-such-flag"), "{error}");
}
