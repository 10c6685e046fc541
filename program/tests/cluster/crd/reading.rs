//! kubectl's table, short names, and the output of `kubectl explain`.

use separation_testbed::eventually;
use serde_json::{Value, json};

use super::walk;
use crate::rig::{Rig, SOON, get, merge_patch, pool, post};

#[tokio::test]
async fn a_table_shows_the_numbers_and_the_reason() {
    let rig = Rig::new().await;
    post(rig.pools(), &pool("vocals")).accepted(&rig.admin).await;
    let row = async || {
        let table = get(rig.pools()).tabular().accepted(&rig.admin).await;
        let columns: Vec<_> = table["columnDefinitions"]
            .as_array()
            .expect("columns")
            .iter()
            .zip(table["rows"][0]["cells"].as_array().expect("cells"))
            .map(|(column, cell)| {
                let name = column["name"].as_str().expect("a name").to_owned();
                (name, column["priority"] == 0, cell.clone())
            })
            .collect();
        columns
    };
    let cells = row().await;
    let shown: Vec<_> = cells
        .iter()
        .filter(|(_, shown, _)| *shown)
        .map(|(name, ..)| &**name)
        .collect();
    assert_eq!(
        shown,
        [
            "Name", "Lag", "Min", "Max", "Desired", "Ready", "Busy", "Draining", "Reason", "Age"
        ]
    );
    // Before the operator has reconciled it, there is no status.
    let values: Vec<_> = cells[1..9].iter().map(|(.., cell)| cell.clone()).collect();
    assert_eq!(
        Value::Array(values),
        json!([null, 0, 8, null, null, null, null, null])
    );
    let status = json!({"status": {
        "processor": {
            "lag": {"state": "Partial", "messages": 12, "summary": "at least 12"},
            "replicas": {"desired": 4, "ready": 3, "busy": 2, "draining": 1},
            "reason": "Working",
        },
        "uploader": {
            "lag": {"state": "Unknown", "summary": "?"},
            "replicas": {"desired": 1},
            "reason": "LagUnknown",
        },
    }});
    merge_patch(format!("{}/vocals/status", rig.pools()), &status)
        .accepted(&rig.admin)
        .await;
    let cells: Vec<_> = row().await.into_iter().map(|(.., cell)| cell).collect();
    let expected = json!([
        "vocals",
        "at least 12",
        0,
        8,
        4,
        3,
        2,
        1,
        "Working",
        "?",
        1,
        "LagUnknown"
    ]);
    assert_eq!(Value::Array(cells[..12].to_vec()), expected);
    assert!(cells[12].is_string(), "{cells:?}");
}

#[tokio::test]
async fn the_short_name_and_the_category_are_served() {
    let rig = Rig::new().await;
    let resources = get("/apis/separation.dev/v1beta1").accepted(&rig.admin).await;
    let resources = resources["resources"].as_array().expect("resources");
    let names: Vec<_> = resources.iter().map(|resource| &resource["name"]).collect();
    assert_eq!(names, ["separationpools", "separationpools/status"]);
    assert_eq!(resources[0]["shortNames"], json!(["seppool"]));
    assert_eq!(resources[0]["categories"], json!(["all"]));
    assert_eq!(resources[0]["singularName"], "separationpool");
    assert_eq!(resources[0]["namespaced"], true);
}

#[tokio::test]
async fn every_field_can_be_explained() {
    let rig = Rig::new().await;
    let mut labels: Vec<&str> = "separation.dev".split('.').collect();
    labels.reverse();
    let published_kind = format!("{}.v1beta1.SeparationPool", labels.join("."));
    let kind = eventually("published schema", SOON, async || {
        let groups = get("/openapi/v3").accepted(&rig.admin).await;
        let url = groups["paths"]["apis/separation.dev/v1beta1"]["serverRelativeURL"].as_str()?;
        let published = get(url).accepted(&rig.admin).await;
        let kind = &published["components"]["schemas"][&published_kind];
        kind.is_object().then(|| kind.clone())
    })
    .await;
    assert!(kind["description"].is_string(), "the kind is not explained");
    let mut explained = 0;
    for part in ["spec", "status"] {
        walk(&kind["properties"][part], part, &mut |path, schema| {
            let description = schema["description"].as_str().unwrap_or_default();
            assert!(
                path.ends_with("[]") || description.len() > 10,
                "{path} is not explained"
            );
            explained += 1;
        });
    }
    assert!(explained > 80, "{explained}");
    // Defaults are printed too.
    let processor = &kind["properties"]["spec"]["properties"]["processor"];
    assert_eq!(processor["properties"]["maxCrashes"]["default"], 3);
}

#[tokio::test]
async fn reading_pools_needs_permission() {
    let rig = Rig::new().await;
    // Every namespace gets this account shortly after it was created.
    let path = format!("/api/v1/namespaces/{}/serviceaccounts/default", rig.namespace);
    eventually("default account", SOON, async || {
        get(&path).try_send(&rig.admin).await.is_ok()
    })
    .await;
    let account = rig.service_account("default").await;
    let refusal = get(rig.pools()).refused(&account).await;
    assert_eq!(refusal.code, 403);
    let user = format!("system:serviceaccount:{}:default", rig.namespace);
    assert!(refusal.message.contains(&user), "{}", refusal.message);
    let asked = rig.plane.requests().expect("an audit log");
    let of_account: Vec<_> = asked.iter().filter(|request| request.user == user).collect();
    assert_eq!(of_account.len(), 1, "{of_account:?}");
    assert_eq!((of_account[0].verb.as_str(), of_account[0].status), ("list", 403));
}
