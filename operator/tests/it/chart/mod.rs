//! The Helm chart: the objects that its values give, and the values that it refuses.

mod crd;
mod identity;
mod monitoring;
mod operator;
mod options;
mod plain;
mod refusals;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PodSpec;
use separation_testbed::Release;
use serde_json::Value;

use crate::manifests::read;

/// Name of the release, and of most of its objects.
const NAME: &str = "separation-operator";

/// The objects of a chart.
#[derive(Debug)]
struct Rendered(Vec<Value>);

fn rendered(values: &Value) -> Rendered {
    rendered_as(&Release::default(), values)
}

fn rendered_as(release: &Release, values: &Value) -> Rendered {
    let objects = release.render(values);
    Rendered(objects.unwrap_or_else(|error| panic!("{values}: {error:#}")))
}

/// Helm's error for these values.
fn refusal(values: &Value) -> String {
    match Release::default().render(values) {
        Ok(objects) => panic!("{values} gave {objects:#?}"),
        Err(error) => format!("{error:#}"),
    }
}

impl Rendered {
    /// The objects of a kind.
    fn all(&self, kind: &str) -> Vec<&Value> {
        let objects = self.0.iter();
        objects.filter(|object| object["kind"] == kind).collect()
    }

    /// The object of this kind and name.
    #[track_caller]
    fn one(&self, kind: &str, name: &str) -> &Value {
        let mut found = self.all(kind);
        found.retain(|object| object["metadata"]["name"] == name);
        match found[..] {
            [one] => one,
            _ => panic!("not one {kind} {name} in {:#?}", self.0),
        }
    }

    /// The operator's Deployment.
    fn deployment(&self) -> Deployment {
        read(self.one("Deployment", NAME))
    }

    /// The operator's pods.
    fn pod(&self) -> PodSpec {
        self.deployment().spec.template.spec.expect("a pod")
    }
}
