//! A control plane that tests may break: one after the other, never the shared one. Its operator looks after all
//! namespaces, with the rights that `deploy/operator` gives for that.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::{Api, Client};
use separation_testbed::{ControlPlane, ControlPlaneOptions};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::manifests;
use crate::rig::{DEFINITION, Rig, client, install};
use crate::subject::OperatorProcess;

/// The name that the operator's namespace is made of.
const OPERATOR: &str = "separation";

/// Taken by one test at a time.
pub(crate) struct OwnPlane {
    pub(crate) rig: Rig,
    _turn: MutexGuard<'static, ()>,
}

impl OwnPlane {
    pub(crate) async fn take() -> Self {
        static PLANE: OnceCell<ControlPlane> = OnceCell::const_new();
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let plane = PLANE
            .get_or_try_init(|| ControlPlane::start(ControlPlaneOptions::default()))
            .await
            .expect("a control plane");
        let admin = client(plane, plane.admin_token()).await;
        let definition = serde_saphyr::from_str(DEFINITION).expect("YAML");
        install(&admin, &definition).await;
        manifests::install_for_all(&admin, OPERATOR).await;
        let namespace = namespace(&admin).await;
        Self {
            rig: Rig {
                plane,
                operator_token: manifests::token(plane, OPERATOR).await,
                admin,
                namespace,
            },
            _turn: turn,
        }
    }

    /// Starts an operator for all namespaces.
    pub(crate) fn operator(&self, arguments: &[&str]) -> OperatorProcess {
        let system = manifests::system(OPERATOR);
        OperatorProcess::launch(self.rig.plane, &self.rig.operator_token, &system, arguments)
    }
}

async fn namespace(admin: &Client) -> String {
    let namespaces: Api<Namespace> = Api::all(admin.clone());
    let namespace = Namespace {
        metadata: kube::core::ObjectMeta {
            generate_name: Some("test-".to_owned()),
            ..Default::default()
        },
        ..Default::default()
    };
    let made = namespaces.create(&PostParams::default(), &namespace).await;
    made.expect("a namespace").metadata.name.expect("a name")
}
