//! A Kubernetes API as tests see it.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use separation_testbed::{ControlPlane, ControlPlaneOptions, Server, eventually};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);

struct Api {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Api {
    fn of(plane: &ControlPlane, token: &str) -> Self {
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

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(&self.token);
        if let Some(body) = body {
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
    let admin = Api::of(plane, plane.admin_token());
    let (status, version) = admin.ask(Method::GET, "/version", None).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    assert!(
        version["gitVersion"].as_str().unwrap().starts_with("v1."),
        "{version}"
    );
    let (status, said) = admin
        .ask(
            Method::POST,
            "/apis/apps/v1/namespaces/default/deployments",
            Some(deployment("counted")),
        )
        .await
        .unwrap();
    assert_eq!(status, StatusCode::CREATED, "{said}");
    eventually("two pods", SOON, async || {
        let path = "/api/v1/namespaces/default/pods?labelSelector=app%3Dcounted";
        let (_, pods) = admin.ask(Method::GET, path, None).await?;
        anyhow::Ok(pods["items"].as_array().is_some_and(|pods| pods.len() == 2))
    })
    .await;
    let requests = plane.requests().unwrap();
    let written: Vec<_> = requests
        .iter()
        .filter(|request| request.writes() && request.user == "admin" && request.resource == "deployments")
        .collect();
    assert_eq!(written.len(), 1, "{written:?}");
    assert_eq!((written[0].verb.as_str(), written[0].status), ("create", 201));
    let controller = "system:serviceaccount:kube-system:replicaset-controller";
    let of_pods = requests
        .iter()
        .filter(|request| request.user == controller && request.resource == "pods" && request.writes());
    assert_eq!(of_pods.count(), 2);
}

#[tokio::test]
async fn a_service_account_may_do_what_its_roles_say() {
    let plane = ControlPlane::shared().await.unwrap();
    let token = plane.token_for("kube-system", "default").await.unwrap();
    let account = Api::of(plane, &token);
    let path = "/api/v1/namespaces/kube-system/pods";
    let (status, said) = account.ask(Method::GET, path, None).await.unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN);
    let message = said["message"].as_str().unwrap();
    assert!(
        message.contains("system:serviceaccount:kube-system:default"),
        "{message}"
    );
    assert!(plane.token_for("kube-system", "nobody").await.is_err());
    assert!(plane.kubeconfig(&token).contains(&token));
}

#[tokio::test]
async fn a_killed_api_server_comes_back_with_its_data_at_its_address() {
    let options = ControlPlaneOptions {
        controllers: false,
        ..Default::default()
    };
    let plane = ControlPlane::start(options).await.unwrap();
    let admin = Api::of(&plane, plane.admin_token());
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kept"}});
    let (status, _) = admin
        .ask(Method::POST, "/api/v1/namespaces", Some(namespace))
        .await
        .unwrap();
    assert_eq!(status, StatusCode::CREATED);
    plane.kill(Server::Api).await.unwrap();
    let kept = "/api/v1/namespaces/kept";
    assert!(admin.ask(Method::GET, kept, None).await.is_err());
    plane.start_again(Server::Api).await.unwrap();
    assert_eq!(
        admin.ask(Method::GET, kept, None).await.unwrap().0,
        StatusCode::OK
    );
    plane.pause(Server::Api).unwrap();
    assert!(admin.ask(Method::GET, kept, None).await.is_err());
    plane.resume(Server::Api).unwrap();
    assert_eq!(
        admin.ask(Method::GET, kept, None).await.unwrap().0,
        StatusCode::OK
    );
    plane.kill(Server::Etcd).await.unwrap();
    plane.start_again(Server::Etcd).await.unwrap();
    assert_eq!(
        admin.ask(Method::GET, kept, None).await.unwrap().0,
        StatusCode::OK
    );
    plane.stop(Server::Api).await.unwrap();
    assert!(plane.stop(Server::Controllers).await.is_err());
}
