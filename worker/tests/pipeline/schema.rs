//! The OpenAPI documents against the real API: Schemathesis sends what they allow and what they do not allow, and
//! compares each response with them.

use std::process::Command;

use separation_contract::environment as env;
use separation_testbed::{Components, TempDirectory};
use serde_json::{Value, json};

use crate::rig::{Rig, STEP_TIMEOUT, WORKER};

/// OpenAPI documents, each with the seconds for its requests.
const DOCUMENTS: [(&str, u32); 2] = [("/v1/openapi.json", 75), ("/openapi.json", 45)];

/// Requests of all documents together.
const LEAST_REQUESTS: u64 = 2_000;

/// No response with a status of 500 or more, and none that the document does not describe.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance";

/// The API key of a new client and the value of API_KEYS with its entry.
fn new_key() -> (String, String) {
    let created = Command::new(WORKER)
        .args(["keys", "create", "schema", "--webhook-secret", "--json"])
        .output()
        .unwrap();
    assert!(created.status.success(), "{created:?}");
    let created: Value = serde_json::from_slice(&created.stdout).unwrap();
    let key = created["key"].as_str().unwrap().to_owned();
    (key, json!([created["entry"]]).to_string())
}

/// Sends requests for some seconds, and returns their number.
async fn check(api: &str, key: &str, document: &str, seconds: u32) -> u64 {
    let directory = TempDirectory::new().unwrap();
    let report = directory.join("report.json");
    let mut schemathesis = Command::new(Components::schemathesis().unwrap());
    schemathesis
        .args(["-m", "schemathesis.cli", "run", &format!("{api}{document}")])
        .args(["--header", &format!("Authorization: Bearer {key}")])
        .args([
            "--checks",
            CHECKS,
            "--max-time",
            &seconds.to_string(),
            "--seed",
            "1",
        ])
        .args([
            "--workers",
            "1",
            "--request-timeout",
            "30",
            "--suppress-health-check",
            "all",
        ])
        .args(["--generation-database", "none", "--warnings", "off", "--no-color"])
        .args(["--report", "json", "--report-json-path"])
        .arg(&report)
        .current_dir(directory.path())
        .env("NO_PROXY", "127.0.0.1");
    let output = tokio::task::spawn_blocking(move || schemathesis.output().unwrap())
        .await
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let report = std::fs::read(&report).unwrap_or_else(|error| panic!("{error}\n{printed}\n{errors}"));
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(
        (&report["failures"], &report["errors"]),
        (&json!([]), &json!([])),
        "{printed}"
    );
    let operations = &report["operations"];
    assert_eq!(operations["tested"], operations["total"], "{printed}");
    report["test_cases"]["generated"].as_u64().unwrap()
}

#[tokio::test]
async fn thousands_of_requests_get_only_responses_that_the_documents_describe() {
    let rig = Rig::new(1).await;
    let (key, keys) = new_key();
    let api = rig
        .staged_in_s3(rig.site.worker(WORKER, "api"))
        .env(env::API_PORT, "0")
        .env(env::API_HOST, "127.0.0.1")
        .env(env::API_KEYS, keys)
        .env(env::S3_PUBLIC_ENDPOINT, rig.s3.endpoint())
        .env(env::INPUT_TIMEOUT_SECONDS, "5")
        // Links name hosts that do not exist: without a name server, a lookup ends only by a timeout.
        .env("RES_OPTIONS", "attempts:1 timeout:1")
        .start()
        .unwrap();
    let address = api.address("API listens", STEP_TIMEOUT).await.unwrap();
    let mut requests = 0;
    for (document, seconds) in DOCUMENTS {
        let sent = check(&format!("http://{address}"), &key, document, seconds).await;
        eprintln!("{sent} requests by {document}");
        requests += sent;
    }
    assert!(requests >= LEAST_REQUESTS, "{requests} requests");
    assert_eq!(api.exit_code(), None, "{}", api.log_end());
}
