//! What every test here starts from: the shared control plane with the definition installed, and a namespace.

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

/// What waits for the API server alone is done within this, unless something is wrong.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The committed definition.
pub(crate) const DEFINITION: &str = include_str!("../../../crds/separationpools.yaml");

/// A namespace of the shared control plane.
pub(crate) struct Rig {
    pub(crate) plane: &'static ControlPlane,
    pub(crate) admin: Client,
    pub(crate) namespace: String,
    /// Of the operator's service account, with the rights that `deploy/operator` gives for this namespace.
    pub(crate) operator_token: String,
}

impl Rig {
    /// Starts the control plane and installs the definition, if this is the first test, and makes a namespace.
    pub(crate) async fn new() -> Self {
        static INSTALLED: OnceCell<()> = OnceCell::const_new();
        let plane = ControlPlane::shared().await.expect("a control plane");
        let admin = client(plane, plane.admin_token()).await;
        INSTALLED
            .get_or_init(|| async {
                let definition = serde_saphyr::from_str(DEFINITION).expect("YAML");
                install(&admin, &definition).await;
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

    /// A client with the rights of a service account of this namespace.
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

    /// The same for a definition that was installed under another group.
    pub(crate) fn pools_of(&self, group: &str) -> String {
        format!(
            "/apis/{group}/v1alpha1/namespaces/{}/separationpools",
            self.namespace
        )
    }
}

/// A client of this test's own: connections end with the runtime that made them.
pub(crate) async fn client(plane: &ControlPlane, token: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(&plane.kubeconfig(token)).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("a usable kubeconfig");
    // What tests store may nest deeper than a parser goes.
    separation_operator::api::unfenced_client(config).expect("a client")
}

/// Applies a definition as a person would, and waits until pools can be written.
pub(crate) async fn install(client: &Client, definition: &Value) {
    let name = definition["metadata"]["name"].as_str().expect("a name");
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply("tests").force().validation_strict();
    definitions
        .patch(name, &params, &Patch::Apply(definition))
        .await
        .expect("the definition is accepted");
    eventually("established definition", SOON, async || {
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

/// How a body is meant.
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

/// The same with a text that need not be a value.
pub(crate) fn post_text(path: impl Into<String>, text: String) -> Call {
    Call::new(Method::POST, path.into()).with_text(Body::Json, text)
}

/// A merge patch of the same kind.
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

    /// As a table, as kubectl asks for it.
    pub(crate) fn tabular(mut self) -> Self {
        self.accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
        self
    }

    pub(crate) async fn try_send(self, client: &Client) -> Result<Value, kube::Error> {
        client.request(self.request()).await
    }

    /// The answer as it is.
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

    /// The answer of a server that accepts this.
    #[track_caller]
    pub(crate) fn accepted(self, client: &Client) -> impl Future<Output = Value> {
        let at = std::panic::Location::caller();
        async move {
            let line = format!("{} {}", self.method, self.path);
            match self.try_send(client).await {
                Ok(answer) => answer,
                Err(error) => panic!("{line}, asked at {at}: {error}"),
            }
        }
    }

    /// The answer of a server that refuses this.
    #[track_caller]
    pub(crate) fn refused(self, client: &Client) -> impl Future<Output = Status> {
        let at = std::panic::Location::caller();
        async move {
            let line = format!("{} {}", self.method, self.path);
            match self.try_send(client).await {
                Err(kube::Error::Api(status)) => *status,
                other => panic!("{line}, asked at {at}, was not refused: {other:?}"),
            }
        }
    }
}

/// Fields that a refusal names.
pub(crate) fn fields(status: &Status) -> Vec<&str> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.map(|cause| cause.field.as_str()).collect()
}

/// A pool with only what must be said, of a group's definition.
pub(crate) fn pool_of(group: &str, name: &str) -> Value {
    json!({
        "apiVersion": format!("{group}/v1alpha1"),
        "kind": "SeparationPool",
        "metadata": {"name": name},
        "spec": {
            "kafka": {"bootstrapServers": "kafka:9092"},
            "storage": {"s3": {"bucket": "stems"}, "work": {"s3Prefix": "staging/"}},
        },
    })
}

/// The same of the committed definition.
pub(crate) fn pool(name: &str) -> Value {
    pool_of("separation.dev", name)
}

/// What a JSON merge patch does.
pub(crate) fn merged(mut value: Value, change: &Value) -> Value {
    json_patch::merge(&mut value, change);
    value
}
