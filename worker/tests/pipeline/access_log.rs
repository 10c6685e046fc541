//! The access log of the API and its durations by route.

use reqwest::{Method, multipart};
use separation_contract::environment as env;
use separation_testbed::{LogLine, tiny_song};
use serde_json::{Value, json};

use crate::rig::{Rig, STEP_TIMEOUT, WORKER, admin, ask, http};

const PASSWORD: &str = "a secret of the test";

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Method, route, status and client of a line; the other fields are checked alone.
fn request_of(line: &LogLine) -> [Value; 4] {
    ["method", "route", "status", "client"].map(|field| line.fields[field].clone())
}

#[tokio::test]
async fn each_request_is_logged_once_with_its_route_its_client_its_task_and_its_trace() {
    let rig = Rig::new(1).await;
    let api = rig.site.worker(WORKER, "api");
    let api = api
        .env(env::API_PORT, "0")
        .env(env::API_HOST, "127.0.0.1")
        .env(env::BASIC_AUTH_USERNAME, "acme")
        .env(env::BASIC_AUTH_PASSWORD, PASSWORD)
        .start()
        .unwrap();
    let address = api.address("API listens", STEP_TIMEOUT).await.unwrap();
    let request = |method: Method, path: &str| {
        let request = http().request(method, format!("http://{address}{path}"));
        request.header("traceparent", TRACE)
    };
    let authenticated = |method: Method, path: &str| request(method, path).basic_auth("acme", Some(PASSWORD));

    let song = multipart::Part::bytes(tiny_song(1)).file_name("song.wav");
    let form = multipart::Form::new().part("audio", song);
    let posted = authenticated(Method::POST, "/tasks").multipart(form);
    let posted: Value = posted.send().await.unwrap().json().await.unwrap();
    let task = posted["task_uuid"].as_str().unwrap();
    let read = authenticated(Method::GET, &format!("/tasks/{task}?key=a-secret"));
    assert_eq!(read.send().await.unwrap().status(), 200);
    for (request, status) in [
        (request(Method::GET, &format!("/v1/tasks/{task}")), 401),
        (request(Method::HEAD, "/health"), 200),
        (request(Method::OPTIONS, "/v1/tasks"), 405),
        (authenticated(Method::GET, "/no/such/a-secret"), 404),
    ] {
        assert_eq!(request.send().await.unwrap().status(), status);
    }

    let lines = api
        .wait_for_logs("Request answered", 6, STEP_TIMEOUT)
        .await
        .unwrap();
    let expected = [
        json!(["POST", "/tasks", 200, "acme"]),
        json!(["GET", "/tasks/{task_uuid}", 200, "acme"]),
        json!(["GET", "/v1/tasks/{id}", 401, null]),
        json!(["HEAD", "/health", 200, null]),
        json!(["OPTIONS", "/v1/tasks", 405, null]),
        json!(["GET", "other", 404, null]),
    ];
    for (line, expected) in lines.iter().zip(expected) {
        assert_eq!(json!(request_of(line)), expected, "{}", line.fields);
        assert_eq!(line.fields["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        assert!(line.fields["duration_ms"].is_u64(), "{}", line.fields);
        assert!(!line.fields.to_string().contains("a-secret"), "{}", line.fields);
    }
    let tasks: Vec<Option<&str>> = lines
        .iter()
        .map(|line| line.fields["task_uuid"].as_str())
        .collect();
    assert_eq!(tasks, [Some(task), Some(task), Some(task), None, None, None]);
    let (_, metrics) = ask(admin(&api).await, "/metrics").await.unwrap();
    for series in [
        r#"separation_request_seconds_count{method="GET",route="/tasks/{task_uuid}"} 1"#,
        r#"separation_request_seconds_count{method="GET",route="other"} 1"#,
    ] {
        assert!(metrics.contains(series), "{series} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_request_without_a_trace_gets_the_trace_of_its_task() {
    let rig = Rig::new(1).await;
    let api = rig.site.worker(WORKER, "api");
    let api = api.env(env::API_PORT, "0").start().unwrap();
    let address = api.address("API listens", STEP_TIMEOUT).await.unwrap();
    let form = multipart::Form::new().part("audio", multipart::Part::bytes(tiny_song(1)));
    let posted = http().post(format!("http://{address}/tasks")).multipart(form);
    assert_eq!(posted.send().await.unwrap().status(), 200);
    let queued = api.wait_for_log("Task queued", STEP_TIMEOUT).await.unwrap();
    let answered = api.wait_for_log("Request answered", STEP_TIMEOUT).await.unwrap();
    assert!(answered.fields["trace_id"].is_string(), "{}", answered.fields);
    assert_eq!(answered.fields["trace_id"], queued.fields["trace_id"]);
    assert_eq!(answered.fields["client"], "local");
}
