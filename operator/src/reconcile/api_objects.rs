//! Writes and deletes the objects of a pool's API. Decides nothing.

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::api_writer::{ApiWriter, Failure, classify, with_timeout};
use crate::apply::{ApiObjects, api_name};
use crate::names::FIELD_MANAGER;
use crate::observe::api::{ApiObject, ApiSnapshot, KnownApi};
use crate::observe::workload::controller_uid;
use crate::plan::PoolId;
use crate::watch::api_pool;

/// The objects of a pool's API after they were written.
#[derive(Debug)]
pub(super) struct WrittenApi {
    pub(super) deployment: ApiSnapshot,
    pub(super) service: ApiObject,
    pub(super) account: Option<ApiObject>,
}

impl WrittenApi {
    pub(super) fn as_known(&self) -> KnownApi<'_> {
        KnownApi {
            deployment: Some(&self.deployment),
            service: Some(&self.service),
            account: self.account.as_ref(),
        }
    }
}

impl ApiWriter {
    /// Applies the objects of a pool's API: what its pods need first, then the Deployment. With 0 replicas the Deployment
    /// is first: its pods must end also if another object cannot be written.
    pub(super) async fn apply_api(
        &self,
        pool: &PoolId,
        pool_uid: &str,
        objects: &ApiObjects,
    ) -> Result<WrittenApi, Failure> {
        let _permit = self.others.acquire().await;
        let has_pods = objects.deployment.spec.replicas != Some(0);
        with_timeout(async {
            let stopped = if has_pods {
                None
            } else {
                Some(self.apply(pool, pool_uid, &objects.deployment).await?)
            };
            let account = match &objects.account {
                Some(account) => Some(self.apply(pool, pool_uid, account).await?),
                None => None,
            };
            let service = self.apply(pool, pool_uid, &objects.service).await?;
            let deployment = match stopped {
                Some(stopped) => stopped,
                None => self.apply(pool, pool_uid, &objects.deployment).await?,
            };
            Ok(WrittenApi {
                deployment: ApiSnapshot::from_deployment(&deployment),
                service: ApiObject::from_metadata(&service.metadata),
                account: account.map(|account| ApiObject::from_metadata(&account.metadata)),
            })
        })
        .await
    }

    /// Deletes the objects of a pool's API that belong to the pool.
    pub(super) async fn delete_api(&self, pool: &PoolId, pool_uid: &str) -> Result<(), Failure> {
        let _permit = self.others.acquire().await;
        with_timeout(async {
            self.delete::<Service>(pool, pool_uid).await?;
            self.delete::<ServiceAccount>(pool, pool_uid).await?;
            self.delete::<Deployment>(pool, pool_uid).await
        })
        .await
    }

    async fn apply<T>(&self, pool: &PoolId, pool_uid: &str, object: &T) -> Result<T, Failure>
    where
        T: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let api: Api<T> = Api::namespaced(self.client.clone(), &pool.namespace);
        let name = api_name(pool);
        let existing = api.get_opt(&name).await.map_err(|error| classify(&error))?;
        let mut object = object.clone();
        // Without force, the fields of an object that another client creates meanwhile are a conflict.
        let mut params = PatchParams::apply(FIELD_MANAGER);
        if let Some(existing) = existing {
            let existing = existing.meta();
            if !belongs_to(existing, pool, pool_uid) {
                let (kind, namespace) = (T::kind(&()), &pool.namespace);
                return Err(Failure::needs_user(
                    "NameTaken",
                    &format!(
                        "{kind} {namespace}/{name} exists and does not belong to this pool; fix: delete or rename it"
                    ),
                ));
            }
            // The object that was read, unchanged: another one of its name is not taken over.
            object.meta_mut().uid.clone_from(&existing.uid);
            object
                .meta_mut()
                .resource_version
                .clone_from(&existing.resource_version);
            params = params.force();
        }
        let written = api.patch(&name, &params, &Patch::Apply(&object)).await;
        written.map_err(|error| classify(&error))
    }

    async fn delete<T>(&self, pool: &PoolId, pool_uid: &str) -> Result<(), Failure>
    where
        T: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api: Api<T> = Api::namespaced(self.client.clone(), &pool.namespace);
        let name = api_name(pool);
        let existing = api.get_opt(&name).await.map_err(|error| classify(&error))?;
        let Some(existing) = existing.filter(|existing| belongs_to(existing.meta(), pool, pool_uid)) else {
            return Ok(());
        };
        // Only this object: one that was recreated under the same name is not deleted.
        let this = DeleteParams {
            preconditions: Some(Preconditions {
                uid: existing.meta().uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match api.delete(&name, &this).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(classify(&error)),
        }
    }
}

/// Whether an object with the name of a pool's API belongs to the pool with this uid, also if its labels were removed.
/// One that another pool controls is of a former pool of the name: another existing pool has no object of this name.
fn belongs_to(metadata: &ObjectMeta, pool: &PoolId, pool_uid: &str) -> bool {
    let has_labels = api_pool(metadata).as_deref() == Some(pool);
    controller_uid(metadata) == Some(pool_uid)
        || has_labels && ApiObject::from_metadata(metadata).belongs_to(pool_uid)
}
