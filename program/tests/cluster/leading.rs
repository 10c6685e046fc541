//! The manifests, the lease and events on a real API server, with exactly the permissions that the manifests grant.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, PostParams};
use kube::{Client, Resource as _};
use separation_operator::crd::SeparationPool;
use separation_operator::events::{EventText, EventType, event_writer};
use separation_operator::lease::{Leadership, elector};
use separation_operator::metrics::Metrics;
use separation_operator::settings::{LeaseSettings, LeaseTimings};
use separation_testbed::eventually;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::manifests;
use crate::rig::{Rig, SOON};

/// From the leader's end to its standby's first write, at most.
const TAKEOVER: Duration = Duration::from_secs(20);

fn system(rig: &Rig) -> String {
    manifests::system(&rig.namespace)
}

struct Replica {
    leadership: Leadership,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Replica {
    async fn start(rig: &Rig, identity: &str) -> Self {
        let client = account(rig).await;
        let settings = LeaseSettings {
            name: "separation-operator".into(),
            namespace: system(rig),
            identity: identity.into(),
            timings: LeaseTimings::default(),
        };
        let (leadership, elector) = elector(client, settings);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(elector.run(async {
            let _ = stopped.await;
        }));
        Self {
            leadership,
            stop,
            task,
        }
    }

    async fn until_it_holds(&mut self, is_leader: bool) -> Duration {
        let start = Instant::now();
        let wait = async {
            while self.leadership.is_leading(Instant::now()) != is_leader {
                self.leadership.changed().await.expect("it runs");
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("it changes");
        start.elapsed()
    }
}

async fn account(rig: &Rig) -> Client {
    crate::rig::client(rig.plane, &rig.operator_token).await
}

#[tokio::test]
async fn replicas_share_the_lease_with_the_permissions_of_the_manifests() {
    let rig = Rig::new().await;
    manifests::install(&rig.admin, "deployment.yaml", &rig.namespace).await;
    let mut one = Replica::start(&rig, "one").await;
    one.until_it_holds(true).await;
    let mut other = Replica::start(&rig, "other").await;
    other.leadership.changed().await.expect("it runs");
    assert_eq!(other.leadership.leader().as_deref(), Some("one"));
    one.task.abort();
    let took = other.until_it_holds(true).await;
    assert!(took <= TAKEOVER, "{took:?}");
    let mut third = Replica::start(&rig, "third").await;
    third.leadership.changed().await.expect("it runs");
    other.stop.send(()).expect("it runs");
    other.task.await.expect("it ends");
    let gave_back = third.until_it_holds(true).await;
    assert!(gave_back <= Duration::from_secs(5), "{gave_back:?}");
    let leases: Api<Lease> = Api::namespaced(rig.admin.clone(), &system(&rig));
    let lease = leases.get("separation-operator").await.expect("the lease");
    let spec = lease.spec.expect("a spec");
    assert_eq!(spec.holder_identity.as_deref(), Some("third"));
    assert_eq!(spec.lease_transitions, Some(3));
}

#[tokio::test]
async fn events_are_accepted_and_requests_without_permission_are_refused() {
    let rig = Rig::new().await;
    manifests::install(&rig.admin, "deployment.yaml", &rig.namespace).await;
    let pool = json!({"apiVersion": "separation.dev/v1beta1", "kind": "SeparationPool",
                      "metadata": {"name": "vocals", "namespace": rig.namespace},
                      "spec": {"kafka": {"bootstrapServers": "k:1"},
                               "storage": {"stems": {"bucket": "b-b"}, "staging": {"s3": {"prefix": "w/"}}}}});
    let pool: SeparationPool = serde_json::from_value(pool).expect("a pool");
    let pools: Api<SeparationPool> = Api::namespaced(rig.admin.clone(), &rig.namespace);
    let pool = pools.create(&PostParams::default(), &pool).await.expect("a pool");
    let (writer, task) = event_writer(account(&rig).await, "operator-1_ab", &Metrics::new());
    writer.queue(
        pool.object_ref(&()),
        EventText {
            type_: EventType::Warning,
            reason: "HeldUnknownLag",
            action: "Decide",
            note: "processor: lag is unknown".into(),
        },
    );
    drop(writer);
    task.run().await;
    let events: Api<Event> = Api::namespaced(rig.admin.clone(), &rig.namespace);
    eventually("event", SOON, async || {
        let found = events.list(&kube::api::ListParams::default()).await?;
        let ours = |event: &&Event| event.reason.as_deref() == Some("HeldUnknownLag");
        anyhow::Ok(found.iter().any(|event| {
            ours(&event)
                && event
                    .regarding
                    .as_ref()
                    .is_some_and(|about| about.uid == pool.metadata.uid)
        }))
    })
    .await;
    // Other requests are refused: deleting, and listing Secrets.
    let account = account(&rig).await;
    let ours: Api<SeparationPool> = Api::namespaced(account.clone(), &rig.namespace);
    let error = ours.delete("vocals", &kube::api::DeleteParams::default()).await;
    let error = error.expect_err("no permission");
    assert!(
        matches!(&error, kube::Error::Api(status) if status.code == 403),
        "{error}"
    );
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(account, &rig.namespace);
    let error = secrets
        .list(&kube::api::ListParams::default())
        .await
        .expect_err("no permission");
    assert!(
        matches!(&error, kube::Error::Api(status) if status.code == 403),
        "{error}"
    );
}
