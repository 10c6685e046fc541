//! Writes and deletes the objects of a pool's API. Decides nothing.

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::api_writer::{ApiWriter, Failure, classify, with_timeout};
use crate::apply::{ApiObjects, api_name};
use crate::names::FIELD_MANAGER;
use crate::observe::api::ApiSnapshot;
use crate::observe::workload::controller_uid;
use crate::plan::PoolId;

impl ApiWriter {
    /// Applies the objects of a pool's API: what its pods need first, then the Deployment.
    pub(super) async fn apply_api(
        &self,
        pool: &PoolId,
        pool_uid: &str,
        objects: &ApiObjects,
    ) -> Result<ApiSnapshot, Failure> {
        let _permit = self.others.acquire().await;
        with_timeout(async {
            if let Some(account) = &objects.account {
                self.apply(pool, pool_uid, account).await?;
            }
            self.apply(pool, pool_uid, &objects.service).await?;
            let written: Deployment = self.apply(pool, pool_uid, &objects.deployment).await?;
            Ok(ApiSnapshot::from_deployment(&written))
        })
        .await
    }

    /// Deletes the objects of a pool's API that the pool owns.
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
        if existing.is_some_and(|existing| controller_uid(existing.meta()) != Some(pool_uid)) {
            let (kind, namespace) = (T::kind(&()), &pool.namespace);
            return Err(Failure::needs_user(
                "NameTaken",
                &format!(
                    "{kind} {namespace}/{name} exists and does not belong to this pool; fix: delete or rename it"
                ),
            ));
        }
        let force = PatchParams::apply(FIELD_MANAGER).force();
        let written = api.patch(&name, &force, &Patch::Apply(object)).await;
        written.map_err(|error| classify(&error))
    }

    async fn delete<T>(&self, pool: &PoolId, pool_uid: &str) -> Result<(), Failure>
    where
        T: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api: Api<T> = Api::namespaced(self.client.clone(), &pool.namespace);
        let name = api_name(pool);
        let existing = api.get_opt(&name).await.map_err(|error| classify(&error))?;
        let Some(existing) = existing.filter(|existing| controller_uid(existing.meta()) == Some(pool_uid))
        else {
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
