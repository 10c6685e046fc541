//! API requests of these tests.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Method, StatusCode};
use separation_testbed::{ControlPlane, eventually};
use serde_json::Value;

/// A pod starts in two seconds, but the machine may be busy.
const TIMEOUT: Duration = Duration::from_secs(90);
const PODS: &str = "/api/v1/namespaces/default/pods";

pub(crate) struct Api {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Api {
    pub(crate) fn new(plane: &ControlPlane) -> Self {
        let ca = reqwest::Certificate::from_pem(plane.ca_pem().as_bytes()).unwrap();
        Self {
            http: reqwest::Client::builder()
                .tls_certs_only([ca])
                .no_proxy()
                .timeout(Duration::from_secs(10))
                .build()
                .unwrap(),
            url: plane.url().to_owned(),
            token: plane.admin_token().to_owned(),
        }
    }

    pub(crate) async fn create(&self, pod: &Value) {
        let response = self.request(Method::POST, PODS, Some(pod)).await.unwrap();
        assert_eq!(response.0, StatusCode::CREATED, "{}", response.1);
    }

    /// Waits until a pod is running and ready, and returns it.
    pub(crate) async fn running(&self, name: &str) -> Value {
        eventually(&format!("pod {name} running"), TIMEOUT, async || {
            let pod = self.pod(name).await?;
            let status = &pod["status"];
            let is_running = status["phase"] == "Running" && status["containerStatuses"][0]["ready"] == true;
            ensure!(is_running, "{status}");
            anyhow::Ok(Some(pod))
        })
        .await
    }

    pub(crate) async fn pod(&self, name: &str) -> Result<Value> {
        let (status, pod) = self.request(Method::GET, &format!("{PODS}/{name}"), None).await?;
        ensure!(status == StatusCode::OK, "{status}: {pod}");
        Ok(pod)
    }

    /// Waits until a pod has printed `text`, and returns its log.
    pub(crate) async fn log_with(&self, name: &str, text: &str) -> String {
        eventually(&format!("\"{text}\" from pod {name}"), TIMEOUT, async || {
            let log = self.log(name).await?;
            ensure!(log.contains(text), "its log: {log}");
            anyhow::Ok(Some(log))
        })
        .await
    }

    async fn log(&self, name: &str) -> Result<String> {
        let response = self
            .http
            .get(format!("{}{PODS}/{name}/log", self.url))
            .bearer_auth(&self.token)
            .send()
            .await?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status == StatusCode::OK, "{status}: {text}");
        Ok(text)
    }

    /// Deletes a pod gracefully and waits until it is gone.
    pub(crate) async fn delete(&self, name: &str) {
        let path = format!("{PODS}/{name}");
        let (status, response) = self.request(Method::DELETE, &path, None).await.unwrap();
        assert_eq!(status, StatusCode::OK, "{response}");
        eventually(&format!("end of pod {name}"), TIMEOUT, async || {
            let (status, pod) = self.request(Method::GET, &path, None).await?;
            ensure!(status == StatusCode::NOT_FOUND, "{}", pod["status"]);
            anyhow::Ok(true)
        })
        .await;
    }

    async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value)> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let status = response.status();
        Ok((status, response.json().await.context("the response is not JSON")?))
    }
}
