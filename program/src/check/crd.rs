//! Whether the installed CRD has the fields that this program knows. Fields that it lacks are dropped by the API server.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client};
use separation_contract::check::Finding;
use separation_operator::crd;
use separation_operator::lease::api_error_text;
use serde_json::Value;

/// The command that installs it.
pub(super) const INSTALL: &str = "`separation-operator crd | kubectl apply --server-side -f -`";

/// The most fields that a message names.
const MAX_NAMED: usize = 5;

/// The CRD that should be installed, with the finding's object.
pub(super) struct ExpectedCrd {
    crd: CustomResourceDefinition,
    name: String,
}

impl ExpectedCrd {
    pub(super) fn new() -> Self {
        let crd = crd::crd();
        let name = crd.metadata.name.clone().unwrap_or_default();
        Self { crd, name }
    }

    /// The object of the findings.
    pub(super) fn object(&self) -> String {
        format!("CustomResourceDefinition {}", self.name)
    }

    /// Compares the installed one.
    pub(super) async fn check(&self, client: &Client) -> Finding {
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        match definitions.get(&self.name).await {
            Ok(installed) => self.compare(&installed),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                Finding::problem("crd", format!("it is not installed; fix: {INSTALL}"))
            }
            Err(error) => {
                let why = api_error_text(&error);
                Finding::warning(
                    "crd",
                    format!("it cannot be read: {why}; fix: run it as a user who may get CRDs"),
                )
            }
        }
    }

    fn compare(&self, installed: &CustomResourceDefinition) -> Finding {
        let program = env!("CARGO_PKG_VERSION");
        let expected = &self.crd.spec.versions[0].name;
        let Some(installed) = fields(installed, expected) else {
            let text = format!("it does not serve version {expected}; fix: {INSTALL}");
            return Finding::problem("crd", text);
        };
        let known = fields(&self.crd, expected).unwrap_or_default();
        let missing: Vec<_> = known.difference(&installed).map(String::as_str).collect();
        if !missing.is_empty() {
            return Finding::problem(
                "crd",
                format!(
                    "it lacks fields of version {program} of this program, which the API server drops from pools: {}; fix: \
                     {INSTALL}",
                    named(&missing)
                ),
            );
        }
        let newer: Vec<_> = installed.difference(&known).map(String::as_str).collect();
        if !newer.is_empty() {
            return Finding::warning(
                "crd",
                format!(
                    "it has fields that version {program} of this program does not know: {}; fix: use the program of the \
                     operator's version",
                    named(&newer)
                ),
            );
        }
        Finding::ok(
            "crd",
            format!("it serves {expected} with all fields of version {program}"),
        )
    }
}

/// The paths of all fields of a served version; `None` if it is not served.
fn fields(crd: &CustomResourceDefinition, version: &str) -> Option<BTreeSet<String>> {
    let mut versions = crd.spec.versions.iter();
    let version = versions.find(|candidate| candidate.name == version && candidate.served)?;
    let schema = version.schema.as_ref()?.open_api_v3_schema.as_ref()?;
    let schema = serde_json::to_value(schema).ok()?;
    let mut found = BTreeSet::new();
    collect(&schema, "", &mut found);
    Some(found)
}

fn collect(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        collect(property, &path, found);
        found.insert(path);
    }
    if schema["items"].is_object() {
        collect(&schema["items"], &format!("{path}[]"), found);
    }
}

fn named(fields: &[&str]) -> String {
    let shown = fields[..fields.len().min(MAX_NAMED)].join(", ");
    match fields.len().saturating_sub(MAX_NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use separation_contract::check::CheckResult;

    use super::*;

    /// The finding for a CRD whose schema was changed like this.
    fn found(change: impl FnOnce(&mut Value)) -> Finding {
        let expected = ExpectedCrd::new();
        let mut installed = serde_json::to_value(&expected.crd).unwrap();
        change(&mut installed["spec"]["versions"][0]);
        expected.compare(&serde_json::from_value(installed).unwrap())
    }

    const SPEC: &str = "/schema/openAPIV3Schema/properties/spec/properties";

    #[test]
    fn the_crd_of_this_program_is_ok() {
        assert_eq!(found(|_| {}).result, CheckResult::Ok);
    }

    #[test]
    fn fields_that_an_older_crd_lacks_are_named_with_the_command() {
        let finding = found(|version| {
            let tls = version.pointer_mut(&format!("{SPEC}/kafka/properties")).unwrap();
            tls.as_object_mut().unwrap().remove("tls").unwrap();
        });
        assert_eq!(finding.result, CheckResult::Problem);
        assert!(finding.message.contains("spec.kafka.tls"), "{finding:?}");
        assert_eq!(finding.fix.as_deref(), Some(INSTALL));
    }

    #[test]
    fn fields_of_a_newer_crd_are_a_warning_and_an_unserved_version_is_a_problem() {
        let newer = found(|version| {
            version.pointer_mut(SPEC).unwrap()["later"] = serde_json::json!({"type": "string"});
        });
        assert_eq!(newer.result, CheckResult::Warning);
        assert!(newer.message.contains("spec.later"), "{newer:?}");
        let unserved = found(|version| version["served"] = false.into());
        assert_eq!(unserved.result, CheckResult::Problem);
    }
}
