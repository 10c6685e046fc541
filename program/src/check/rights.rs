//! Whether the operator's service account has the rights that the operator needs in a namespace.

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use separation_contract::check::Finding;
use separation_operator::lease::api_error_text;

/// API group, resource and verbs, as `deploy/operator` and the chart grant them.
const NEEDED: [(&str, &str, &[&str]); 8] = [
    ("separation.dev", "separationpools", &["list", "watch"]),
    ("separation.dev", "separationpools/status", &["patch"]),
    (
        "apps",
        "deployments",
        &["get", "list", "watch", "create", "patch", "delete"],
    ),
    (
        "",
        "services",
        &["get", "list", "watch", "create", "patch", "delete"],
    ),
    (
        "",
        "serviceaccounts",
        &["get", "list", "watch", "create", "patch", "delete"],
    ),
    ("", "pods", &["list", "watch", "patch"]),
    ("", "secrets", &["get"]),
    ("events.k8s.io", "events", &["create"]),
];

/// The operator's service account.
pub(super) struct OperatorAccount<'a> {
    client: &'a Client,
    namespace: &'a str,
    name: &'a str,
    is_caller: bool,
}

impl<'a> OperatorAccount<'a> {
    /// Finds out whether this process is the operator's own pod.
    pub(super) async fn new(client: &'a Client, namespace: &'a str, name: &'a str) -> Self {
        let mut account = Self {
            client,
            namespace,
            name,
            is_caller: false,
        };
        let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
        let review = reviews
            .create(&PostParams::default(), &SelfSubjectReview::default())
            .await;
        // API servers before 1.28 do not have this review: then the caller counts as a user.
        let caller = review.ok().and_then(|review| review.status?.user_info?.username);
        account.is_caller = caller == Some(account.user());
        account
    }

    /// Whether this process has the operator's identity, as in `helm test`.
    pub(super) fn is_caller(&self) -> bool {
        self.is_caller
    }

    /// Reviews all rights in a namespace, or in all.
    pub(super) async fn check(&self, namespace: Option<&str>) -> Finding {
        let place = namespace.map_or("all namespaces".to_owned(), |name| format!("namespace {name}"));
        let user = self.user();
        let mut lacking = Vec::new();
        for (group, resource, verbs) in NEEDED {
            for verb in verbs {
                let attributes = attributes(group, resource, verb, namespace);
                match self.may(attributes).await {
                    Ok(true) => {}
                    Ok(false) => lacking.push(format!("{verb} {resource}")),
                    Err(error) => {
                        return Finding::warning(
                            "rights",
                            format!(
                                "the rights of {user} in {place} cannot be reviewed: {}; fix: run it as a user who may \
                                 create subjectaccessreviews, or run helm test",
                                api_error_text(&error)
                            ),
                        );
                    }
                }
            }
        }
        if lacking.is_empty() {
            return Finding::ok("rights", format!("{user} has the needed rights in {place}"));
        }
        Finding::problem(
            "rights",
            format!(
                "{user} may not {} in {place}; fix: install the chart with rbac.create=true and the namespace in \
                 watchNamespaces, or apply deploy/operator; with a service account of another name, --service-account",
                lacking.join(", ")
            ),
        )
    }

    fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }

    async fn may(&self, attributes: ResourceAttributes) -> Result<bool, kube::Error> {
        let params = PostParams::default();
        let resource_attributes = Some(attributes);
        let status = if self.is_caller {
            let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
            let review = SelfSubjectAccessReview {
                spec: SelfSubjectAccessReviewSpec {
                    resource_attributes,
                    ..SelfSubjectAccessReviewSpec::default()
                },
                ..SelfSubjectAccessReview::default()
            };
            reviews.create(&params, &review).await?.status
        } else {
            let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
            let groups = [
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{}", self.namespace),
                "system:authenticated".to_owned(),
            ];
            let review = SubjectAccessReview {
                spec: SubjectAccessReviewSpec {
                    user: Some(self.user()),
                    groups: Some(groups.into()),
                    resource_attributes,
                    ..SubjectAccessReviewSpec::default()
                },
                ..SubjectAccessReview::default()
            };
            reviews.create(&params, &review).await?.status
        };
        Ok(status.is_some_and(|status| status.allowed))
    }
}

/// `resource` may have a subresource after a slash.
fn attributes(group: &str, resource: &str, verb: &str, namespace: Option<&str>) -> ResourceAttributes {
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (resource, None),
    };
    ResourceAttributes {
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource,
        verb: Some(verb.to_owned()),
        namespace: namespace.map(str::to_owned),
        ..ResourceAttributes::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::api::rbac::v1::ClusterRole;

    use super::*;

    #[test]
    fn exactly_the_rights_that_the_manifests_grant_are_reviewed() {
        let manifests = include_str!("../../../deploy/operator/cluster-role.yaml");
        let (role, _) = manifests.split_once("\n---\n").unwrap();
        let role: ClusterRole = serde_saphyr::from_str(role).unwrap();
        let mut granted = BTreeSet::new();
        for rule in role.rules.unwrap() {
            for group in rule.api_groups.iter().flatten() {
                for resource in rule.resources.iter().flatten() {
                    let verbs = rule.verbs.iter();
                    granted.extend(verbs.map(|verb| format!("{group}/{resource} {verb}")));
                }
            }
        }
        let needed = NEEDED.iter().flat_map(|(group, resource, verbs)| {
            let verbs = verbs.iter();
            verbs.map(move |verb| format!("{group}/{resource} {verb}"))
        });
        assert_eq!(needed.collect::<BTreeSet<_>>(), granted);
    }

    #[test]
    fn a_subresource_is_reviewed_as_one() {
        let status = attributes("g", "pools/status", "patch", Some("media"));
        assert_eq!(status.resource.as_deref(), Some("pools"));
        assert_eq!(status.subresource.as_deref(), Some("status"));
    }
}
