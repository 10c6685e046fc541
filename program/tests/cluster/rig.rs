//! Fixture of the cluster tests: the shared control plane with the CRD installed, and a namespace.

use std::fmt::Debug;
use std::time::Duration;

use axum::http::{Method, Request, header};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use kube::{Client, Config};
use separation_testbed::{ControlPlane, eventually};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::manifests;

/// Timeout of waits that depend on the API server only.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The committed CRD.
pub(crate) const CRD: &str = include_str!("../../../crds/separationpools.yaml");

/// A namespace of the shared control plane.
pub(crate) struct Rig {
    pub(crate) plane: &'static ControlPlane,
    pub(crate) admin: Client,
    pub(crate) namespace: String,
    /// Of the operator's service account, with the permissions that `deploy/operator` grants for this namespace.
    pub(crate) operator_token: String,
}

impl Rig {
    /// Starts the control plane and installs the CRD, if this is the first test, and creates a namespace.
    pub(crate) async fn new() -> Self {
        static INSTALLED: OnceCell<()> = OnceCell::const_new();
        let plane = ControlPlane::shared().await.expect("a control plane");
        let admin = client(plane, plane.admin_token()).await;
        INSTALLED
            .get_or_init(|| async {
                let crd = serde_saphyr::from_str(CRD).expect("YAML");
                install(&admin, &crd).await;
            })
            .await;
        let namespace = Namespace {
            metadata: kube::core::ObjectMeta {
                generate_name: Some("test-".to_owned()),
                ..Default::default()
            },
            ..Default::default()
        };
        let namespaces: Api<Namespace> = Api::all(admin.clone());
        let made = namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .expect("a namespace");
        let namespace = made.metadata.name.expect("a name");
        manifests::install_for_one(&admin, &namespace).await;
        Self {
            plane,
            operator_token: manifests::token(plane, &namespace).await,
            admin,
            namespace,
        }
    }

    /// A client with the permissions of a service account of this namespace.
    pub(crate) async fn service_account(&self, name: &str) -> Client {
        let token = self
            .plane
            .token_for(&self.namespace, name)
            .await
            .expect("a token");
        client(self.plane, &token).await
    }

    /// Pools of this namespace, as a path.
    pub(crate) fn pools(&self) -> String {
        self.pools_of("separation.dev")
    }

    /// As [`Self::pools`], for a CRD that was installed under another group.
    pub(crate) fn pools_of(&self, group: &str) -> String {
        format!(
            "/apis/{group}/v1beta1/namespaces/{}/separationpools",
            self.namespace
        )
    }
}

/// A client for one test: connections end with the runtime that opened them.
pub(crate) async fn client(plane: &ControlPlane, token: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(&plane.kubeconfig(token)).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("a usable kubeconfig");
    // Tests store objects that nest deeper than a parser accepts.
    separation_operator::api::unfenced_client(config).expect("a client")
}

/// Applies a CRD as a user would, and waits until pools can be written.
pub(crate) async fn install(client: &Client, crd: &Value) {
    let name = crd["metadata"]["name"].as_str().expect("a name");
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply("tests").force().validation_strict();
    definitions
        .patch(name, &params, &Patch::Apply(crd))
        .await
        .expect("the CRD is accepted");
    eventually("established CRD", SOON, async || {
        let now = definitions.get(name).await?;
        let conditions = now
            .status
            .and_then(|status| status.conditions)
            .unwrap_or_default();
        let is_true = |kind: &str| {
            conditions
                .iter()
                .any(|condition| condition.type_ == kind && condition.status == "True")
        };
        anyhow::Ok(is_true("Established") && is_true("NamesAccepted"))
    })
    .await;
}

/// Content type of a body.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Body {
    Json,
    MergePatch,
    Apply,
}

/// One request, as JSON.
pub(crate) struct Call {
    method: Method,
    path: String,
    accept: &'static str,
    content: Option<(&'static str, Vec<u8>)>,
}

pub(crate) fn get(path: impl Into<String>) -> Call {
    Call::new(Method::GET, path.into())
}

pub(crate) fn post(path: impl Into<String>, body: &Value) -> Call {
    Call::new(Method::POST, path.into()).with(Body::Json, body)
}

pub(crate) fn put(path: impl Into<String>, body: &Value) -> Call {
    Call::new(Method::PUT, path.into()).with(Body::Json, body)
}

pub(crate) fn merge_patch(path: impl Into<String>, body: &Value) -> Call {
    Call::new(Method::PATCH, path.into()).with(Body::MergePatch, body)
}

/// As [`post`], with a text that need not be valid JSON.
pub(crate) fn post_text(path: impl Into<String>, text: String) -> Call {
    Call::new(Method::POST, path.into()).with_text(Body::Json, text)
}

/// A JSON merge patch.
pub(crate) fn patch_text(path: impl Into<String>, text: String) -> Call {
    Call::new(Method::PATCH, path.into()).with_text(Body::MergePatch, text)
}

/// Server-side apply; the path's query names the field manager.
pub(crate) fn apply(path: impl Into<String>, body: &Value) -> Call {
    Call::new(Method::PATCH, path.into()).with(Body::Apply, body)
}

impl Call {
    fn new(method: Method, path: String) -> Self {
        Self {
            method,
            path,
            accept: "application/json",
            content: None,
        }
    }

    fn with(self, body: Body, value: &Value) -> Self {
        self.with_text(body, value.to_string())
    }

    fn with_text(mut self, body: Body, text: String) -> Self {
        let kind = match body {
            Body::Json => "application/json",
            Body::MergePatch => "application/merge-patch+json",
            Body::Apply => "application/apply-patch+yaml",
        };
        self.content = Some((kind, text.into_bytes()));
        self
    }

    /// Requests a table, as kubectl does.
    pub(crate) fn tabular(mut self) -> Self {
        self.accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
        self
    }

    pub(crate) async fn try_send(self, client: &Client) -> Result<Value, kube::Error> {
        client.request(self.request()).await
    }

    /// The response, successful or not.
    pub(crate) async fn send_text(self, client: &Client) -> Result<String, kube::Error> {
        client.request_text(self.request()).await
    }

    fn request(self) -> Request<Vec<u8>> {
        let (kind, bytes) = self.content.unwrap_or(("application/json", Vec::new()));
        Request::builder()
            .method(self.method)
            .uri(self.path)
            .header(header::ACCEPT, self.accept)
            .header(header::CONTENT_TYPE, kind)
            .body(bytes)
            .expect("a request")
    }

    /// The response; panics if the server refuses the request.
    #[track_caller]
    pub(crate) fn accepted(self, client: &Client) -> impl Future<Output = Value> {
        let at = std::panic::Location::caller();
        async move {
            let line = format!("{} {}", self.method, self.path);
            match self.try_send(client).await {
                Ok(response) => response,
                Err(error) => panic!("{line}, called at {at}: {error}"),
            }
        }
    }

    /// The refusal; panics if the server accepts the request.
    #[track_caller]
    pub(crate) fn refused(self, client: &Client) -> impl Future<Output = Status> {
        let at = std::panic::Location::caller();
        async move {
            let line = format!("{} {}", self.method, self.path);
            match self.try_send(client).await {
                Err(kube::Error::Api(status)) => *status,
                other => panic!("{line}, called at {at}, was not refused: {other:?}"),
            }
        }
    }
}

/// Fields that a refusal names.
pub(crate) fn fields(status: &Status) -> Vec<&str> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.map(|cause| cause.field.as_str()).collect()
}

/// A pool with only the required fields, of the CRD under `group`.
pub(crate) fn pool_of(group: &str, name: &str) -> Value {
    json!({
        "apiVersion": format!("{group}/v1beta1"),
        "kind": "SeparationPool",
        "metadata": {"name": name},
        "spec": {
            "kafka": {"bootstrapServers": "kafka:9092"},
            "storage": {"stems": {"bucket": "stems"}, "staging": {"s3": {}}},
        },
    })
}

/// A pool with only the required fields.
pub(crate) fn pool(name: &str) -> Value {
    pool_of("separation.dev", name)
}

/// Applies a JSON merge patch.
pub(crate) fn merged(mut value: Value, change: &Value) -> Value {
    json_patch::merge(&mut value, change);
    value
}
