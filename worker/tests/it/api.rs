//! The HTTP API over real connections: responses, queued tasks, and no incomplete state.

mod bench;
mod failures;
mod real;
mod stopping;
mod submit;
mod v1_authentication;
mod v1_bench;
mod v1_leftovers;
mod v1_songs;
mod v1_stems;
mod v1_tasks;
mod v1_uploads;
mod v1_webhooks;

use bench::{Answer, Bench, Form, PASSWORD, Songs, basic};
use reqwest::Method;
use reqwest::header;
use separation_worker::api::QueueProgress;
use serde_json::{Value, json};

const SONG: &[u8] = b"a song, of whatever format";

#[tokio::test]
async fn health_needs_no_authentication() {
    let api = Bench::guarded(&[]).await;
    let answer = Answer::of(api.http.get(format!("{}/health", api.url))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json["status"], "healthy");
    assert!(answer.json["timestamp"].is_u64(), "{answer:?}");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn a_link_becomes_a_task() {
    let (api, songs) = (Bench::guarded(&[]).await, Songs::start(SONG).await);
    let body = json!({"audio": songs.at("/song.mp3?token=1"), "hook_url": "https://example.com/hook"});
    let request = api.request(Method::POST, "/generate").header(
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    );
    let mut answer = Answer::of(request.json(&body)).await;
    let id = answer.task_uuid();
    answer.json["task_uuid"] = "…".into();
    assert_eq!(
        answer.json,
        json!({"message": "Task has been queued for processing", "status": "queued", "task_uuid": "…"})
    );
    assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 4);

    let tasks = api.tasks();
    let [(task, trace)] = tasks.as_slice() else {
        panic!("one task, not {tasks:?}");
    };
    assert_eq!(task.task_uuid.as_str(), id);
    assert_eq!(task.audio_path, format!("/songs/{id}_input.wav"));
    assert_eq!(task.hook_url.as_deref(), Some("https://example.com/hook"));
    assert!(task.timestamp().is_some_and(|seconds| seconds > 1.7e9));
    assert_eq!(trace.trace_id(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(api.files.inputs.lock().unwrap()[&id], SONG);
}

#[tokio::test]
async fn a_file_becomes_a_task() {
    let api = Bench::guarded(&[]).await;
    let song: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let hook = b"https://example.com/hook";
    let forms = [
        (Form::default().field("audio", &song), None),
        (Form::default().field("audio", &song).field("hook_url", b""), None),
        (
            Form::default().field("hook_url", hook).field("audio", &song),
            Some(hook),
        ),
        (
            Form::default().field("audio", &song).field("hook_url", hook),
            Some(hook),
        ),
    ];
    for (form, hook) in forms {
        let id = api.upload(form).await.task_uuid();
        let (task, _) = api.tasks().pop().unwrap();
        assert_eq!(task.task_uuid.as_str(), id);
        assert_eq!(
            task.hook_url.as_deref().map(str::as_bytes),
            hook.map(|hook| hook.as_slice())
        );
        assert!(api.files.inputs.lock().unwrap()[&id] == song);
    }
}

#[tokio::test]
async fn only_requests_with_valid_credentials_are_served() {
    let api = Bench::guarded(&[]).await;
    let endpoints = [
        (Method::POST, "/generate"),
        (Method::POST, "/tasks"),
        (Method::GET, "/tasks/abc"),
    ];
    for (method, path) in endpoints {
        for credentials in [
            None,
            Some(basic("admin", "password")),
            Some(basic("root", PASSWORD)),
            Some("Bearer x".into()),
        ] {
            let mut request = api.http.request(method.clone(), format!("{}{path}", api.url));
            if let Some(credentials) = credentials {
                request = request.header(header::AUTHORIZATION, credentials);
            }
            let answer = Answer::of(request).await;
            assert_eq!(answer.status, 401, "{path}");
            assert_eq!(answer.json, json!({"error": "Unauthorized"}));
            assert!(
                answer.headers["www-authenticate"]
                    .to_str()
                    .unwrap()
                    .starts_with("Basic")
            );
        }
    }
}

#[tokio::test]
async fn without_a_password_only_requests_for_this_machine_are_served() {
    let api = Bench::start(&[]).await;
    let ask = |host: &'static str, site: &'static str| {
        let request = api
            .http
            .post(format!("{}/generate", api.url))
            .header(header::HOST, host);
        Answer::of(request.header("sec-fetch-site", site))
    };
    for host in ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:80"] {
        assert_eq!(ask(host, "same-origin").await.status, 400, "{host}");
        assert_eq!(ask(host, "cross-site").await.status, 403, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example"] {
        assert_eq!(ask(host, "same-origin").await.status, 403, "{host}");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_get_json_errors() {
    let api = Bench::guarded(&[]).await;
    for path in ["/nothing", "/tasks/unknown", "/tasks/..%2F..%2Fetc", "/tasks/%00"] {
        let answer = api.get(path).await;
        assert_eq!(
            (answer.status, &answer.json),
            (404, &json!({"error": "Not found"})),
            "{path}"
        );
    }
    for (method, path) in [
        (Method::GET, "/generate"),
        (Method::DELETE, "/tasks/abc"),
        (Method::POST, "/health"),
    ] {
        let answer = Answer::of(api.request(method, path)).await;
        assert_eq!(
            (answer.status, &answer.json),
            (405, &json!({"error": "Method not allowed"})),
            "{path}"
        );
        assert!(answer.headers.contains_key(header::ALLOW), "{path}");
    }
}

#[tokio::test]
async fn a_task_is_followed_from_the_queue_to_its_stems() {
    let api = Bench::guarded(&[]).await;
    let mut id = String::new();
    for _ in 0..3 {
        id = api.upload(Form::default().field("audio", SONG)).await.task_uuid();
    }
    let status = async || {
        let mut answer = api.get(&format!("/tasks/{id}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let fields = answer.json.as_object_mut().unwrap();
        assert_eq!(fields.remove("task_uuid"), Some(Value::from(id.as_str())));
        assert!(fields.remove("timestamp").is_some_and(|seconds| seconds.is_u64()));
        answer.json
    };
    assert_eq!(status().await, json!({"status": "queued"}));
    let progress = |committed, begun| {
        let committed = Some(committed);
        *api.queue.progress.lock().unwrap() = Some(QueueProgress {
            committed,
            begun,
            ..QueueProgress::default()
        });
    };
    progress(0, true);
    assert_eq!(status().await, json!({"status": "queued", "position": 2}));
    progress(2, true);
    assert_eq!(status().await, json!({"status": "processing"}));
    progress(5, true);
    assert_eq!(status().await, json!({"status": "unknown"}));
    *api.files.separated.lock().unwrap() = true;
    assert_eq!(status().await, json!({"status": "separated"}));
    let manifest = json!({
        "version": 1, "task_uuid": id, "status": "success", "vocals": "https://cdn/v.wav",
        "instrumental": "https://cdn/i.wav", "webhook": "none", "finished_at": 5
    });
    api.files.publish_manifest(&id, manifest);
    let done = json!({
        "status": "done", "vocals": "https://cdn/v.wav", "instrumental": "https://cdn/i.wav", "webhook": "none",
        "finished_at": 5
    });
    assert_eq!(status().await, done);
}

#[tokio::test]
async fn the_openapi_document_matches_the_snapshot() {
    let api = Bench::guarded(&[]).await;
    let answer = Answer::of(api.http.get(format!("{}/openapi.json", api.url))).await;
    assert_eq!(answer.status, 200);
    insta::assert_json_snapshot!("openapi", answer.json);
}

#[tokio::test]
async fn the_page_runs_only_its_own_files() {
    let api = Bench::guarded(&[]).await;
    let get = async |path: &str| {
        let response = api.http.get(format!("{}{path}", api.url)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let headers = response.headers().clone();
        (headers, response.text().await.unwrap())
    };
    let nonce = async || {
        let (headers, page) = get("/").await;
        let policy = headers["content-security-policy"].to_str().unwrap().to_owned();
        let nonce = policy
            .split("'nonce-")
            .nth(1)
            .and_then(|rest| rest.split('\'').next());
        let nonce = nonce.unwrap().to_owned();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'; "),
            "{policy}"
        );
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        assert!(page.contains(&format!("nonce=\"{nonce}\"")), "{page}");
        (nonce, page)
    };
    let ((first, page), (second, _)) = (nonce().await, nonce().await);
    assert_ne!(first, second);
    for foreign in [
        "<style",
        "style=",
        " onclick",
        "</script>\n<script>",
        "=\"//",
        "src=\"http",
        "href=\"http",
    ] {
        assert!(!page.contains(foreign), "{foreign}");
    }

    // All files that the page and its scripts name.
    let mut names: Vec<String> = quoted_after(&page, "/assets/");
    let mut checked = std::collections::BTreeSet::new();
    while let Some(name) = names.pop() {
        if !checked.insert(name.clone()) {
            continue;
        }
        let path = format!("/assets/{name}");
        let (headers, content) = get(&path).await;
        let expected = match name.rsplit('.').next().unwrap() {
            "js" => "text/javascript",
            "css" => "text/css",
            _ => "image/svg+xml",
        };
        assert!(
            headers["content-type"].to_str().unwrap().starts_with(expected),
            "{name}"
        );
        assert_eq!(headers["cache-control"], "no-cache", "{name}");
        let again = api.http.get(format!("{}{path}", api.url));
        let again = again
            .header("if-none-match", &headers["etag"])
            .send()
            .await
            .unwrap();
        assert_eq!(again.status(), 304, "{name}");
        names.extend(quoted_after(&content, "from \"./"));
    }
    assert!(
        checked.contains("wavesurfer.esm.js") && checked.len() > 10,
        "{checked:?}"
    );
}

#[tokio::test]
async fn the_reference_of_the_api_needs_no_authentication_and_runs_nothing() {
    let api = Bench::guarded(&[]).await;
    let response = api.http.get(format!("{}/docs", api.url)).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    let policy = response.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"),
        "{policy}"
    );
    let page = response.text().await.unwrap();
    for path in ["/v1/tasks/{id}/cancel", "/generate"] {
        assert!(
            page.contains(&format!("<code>POST</code> <code>{path}</code>")),
            "{path}"
        );
    }
}

/// The texts after each `start` in `text`, until a quote.
fn quoted_after(text: &str, start: &str) -> Vec<String> {
    let found = text.split(start).skip(1);
    found
        .filter_map(|rest| Some(rest.split('"').next()?.to_owned()))
        .collect()
}
