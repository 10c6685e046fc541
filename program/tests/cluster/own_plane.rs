//! A control plane that tests may break, one test at a time; the shared one must not be broken. Its operator manages
//! all namespaces, with the permissions that `deploy/operator` grants for that.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::{Api, Client};
use separation_testbed::{ControlPlane, ControlPlaneOptions};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::manifests;
use crate::rig::{CRD, Rig, client, install};
use crate::subject::OperatorProcess;

/// Base of the name of the operator's namespace.
const OPERATOR: &str = "separation";

/// Held by one test at a time.
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
        let crd = serde_saphyr::from_str(CRD).expect("YAML");
        install(&admin, &crd).await;
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
