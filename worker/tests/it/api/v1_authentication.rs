//! Authentication of v1: API keys, sessions of the page, and what other sites' pages may do.

use reqwest::{Method, RequestBuilder, header};
use serde_json::json;

use super::bench::{Answer, Bench, PASSWORD, basic};

/// The client `acme` with the API key `abc`.
const KEYS: &str =
    r#"[{"name": "acme", "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}]"#;

/// An API with a password and the API key of [`KEYS`].
async fn api() -> Bench {
    Bench::guarded(&["--api-keys", KEYS]).await
}

/// A request without authentication.
fn request(api: &Bench, method: Method, path: &str) -> RequestBuilder {
    api.http.request(method, format!("{}{path}", api.url))
}

#[track_caller]
fn check_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(answer.json["status"], status);
    assert_eq!(answer.json["code"], code);
    assert_eq!(answer.json["type"], "about:blank");
}

#[tokio::test]
async fn a_key_or_the_password_identifies_the_client() {
    let api = api().await;
    for (authorization, client) in [
        ("Bearer abc".to_owned(), "acme"),
        (basic("acme", "abc"), "acme"),
        (basic("admin", PASSWORD), "admin"),
    ] {
        let session = request(&api, Method::GET, "/v1/session");
        let answer = Answer::of(session.header(header::AUTHORIZATION, &authorization)).await;
        assert_eq!((answer.status, &answer.json), (200, &json!({"client": client})));
        // Authenticated, and there is no such task.
        let drop_in = request(&api, Method::GET, "/tasks/abc");
        let answer = Answer::of(drop_in.header(header::AUTHORIZATION, &authorization)).await;
        assert_eq!(
            (answer.status, &answer.json),
            (404, &json!({"error": "Not found"}))
        );
    }
    for authorization in [
        "Bearer abd".to_owned(),
        basic("acme", PASSWORD),
        basic("admin", "abc"),
    ] {
        let session = request(&api, Method::GET, "/v1/session");
        let answer = Answer::of(session.header(header::AUTHORIZATION, &authorization)).await;
        check_problem(&answer, 401, "unauthenticated");
        let challenge = &answer.headers[header::WWW_AUTHENTICATE];
        assert!(challenge.to_str().unwrap().starts_with("Bearer"), "{challenge:?}");
    }
}

#[tokio::test]
async fn every_documented_operation_is_served_and_authenticated_as_documented() {
    let api = api().await;
    let answer = Answer::of(request(&api, Method::GET, "/v1/openapi.json")).await;
    assert_eq!(answer.status, 200);
    let id = "0b6f1ac8-52a1-4b0c-9d4c-1a4a2a0ad1cf";
    for (path, item) in answer.json["paths"].as_object().unwrap() {
        assert!(path.starts_with("/v1/"), "{path}");
        let path = path.replace("{id}", id).replace("{stem}", "vocals");
        for (method, operation) in item.as_object().unwrap() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let status = Answer::of(request(&api, method.clone(), &path)).await.status;
            match operation["security"].is_null() {
                true => assert_eq!(status, 401, "{method} {path}"),
                false => assert!(![401, 404, 405].contains(&status), "{method} {path}: {status}"),
            }
        }
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let api = api().await;
    for path in ["/v1", "/v1/nothing", "/v1/tasks/a/b/c/d"] {
        check_problem(&api.get(path).await, 404, "not_found");
    }
    for (method, path) in [
        (Method::PUT, "/v1/tasks"),
        (Method::POST, "/v1/tasks/abc"),
        (Method::POST, "/v1/openapi.json"),
        (Method::PUT, "/v1/session"),
    ] {
        let answer = Answer::of(api.request(method, path)).await;
        check_problem(&answer, 405, "method_not_allowed");
        assert!(answer.headers.contains_key(header::ALLOW), "{path}");
    }
}

#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let api = api().await;
    for site in ["cross-site", "same-site"] {
        for (method, path) in [
            (Method::POST, "/v1/tasks"),
            (Method::DELETE, "/v1/tasks/abc"),
            (Method::POST, "/v1/session"),
            (Method::DELETE, "/v1/session"),
        ] {
            let request = api.request(method, path).header("sec-fetch-site", site);
            check_problem(&Answer::of(request).await, 403, "forbidden");
        }
        let read = api
            .request(Method::GET, "/v1/session")
            .header("sec-fetch-site", site);
        assert_eq!(Answer::of(read).await.status, 200);
    }
    let own = api
        .request(Method::DELETE, "/v1/session")
        .header("sec-fetch-site", "same-origin");
    assert_eq!(Answer::of(own).await.status, 204);
}

#[tokio::test]
async fn without_a_key_only_requests_for_this_machine_are_served() {
    let api = Bench::start(&[]).await;
    let ask = |method, host: &'static str| {
        Answer::of(request(&api, method, "/v1/session").header(header::HOST, host))
    };
    for host in ["localhost", "127.0.0.1:1", "[::1]:80"] {
        let answer = ask(Method::GET, host).await;
        assert_eq!((answer.status, &answer.json), (200, &json!({"client": "local"})));
    }
    for method in [Method::GET, Method::POST, Method::DELETE] {
        check_problem(&ask(method, "evil.example").await, 403, "forbidden");
    }
}

#[tokio::test]
async fn a_session_authenticates_v1_until_it_is_ended() {
    let api = api().await;
    let sign_in = |key: &str| request(&api, Method::POST, "/v1/session").json(&json!({"key": key}));
    check_problem(&Answer::of(sign_in("abd")).await, 401, "unauthenticated");
    let answer = Answer::of(sign_in("abc")).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap();
    let (value, attributes) = cookie.split_once(';').unwrap();
    assert_eq!(attributes, " Max-Age=43200; Path=/; HttpOnly; SameSite=Strict");

    let with_session = |method, path| request(&api, method, path).header(header::COOKIE, value);
    let answer = Answer::of(with_session(Method::GET, "/v1/session")).await;
    assert_eq!(answer.json, json!({"client": "acme"}));
    let drop_in = Answer::of(with_session(Method::GET, "/tasks/abc")).await;
    assert_eq!(drop_in.status, 401, "the drop-in API has no sessions");

    let ended = Answer::of(with_session(Method::DELETE, "/v1/session")).await;
    let cookie = ended.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.starts_with("session=; Max-Age=0;"), "{cookie}");
    let secure = sign_in("abc").header("x-forwarded-proto", "https");
    let cookie = Answer::of(secure).await.headers[header::SET_COOKIE].clone();
    let cookie = cookie.to_str().unwrap();
    assert!(
        cookie.starts_with("__Host-session=acme.")
            && cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict; Secure"),
        "{cookie}"
    );
    let (value, _) = cookie.split_once(';').unwrap();
    let session = request(&api, Method::GET, "/v1/session").header(header::COOKIE, value);
    assert_eq!(Answer::of(session).await.json, json!({"client": "acme"}));
    let ended = request(&api, Method::DELETE, "/v1/session").header("x-forwarded-proto", "https");
    let ended = Answer::of(ended).await.headers;
    let names = ended.get_all(header::SET_COOKIE).into_iter();
    let names: Vec<&str> = names
        .map(|cookie| cookie.to_str().unwrap().split_once("=; Max-Age=0;").unwrap().0)
        .collect();
    assert_eq!(names, ["session", "__Host-session"]);
}

#[tokio::test]
async fn without_encryption_a_session_of_another_origins_page_changes_nothing() {
    let api = api().await;
    let sign_in = request(&api, Method::POST, "/v1/session").json(&json!({"key": "abc"}));
    let cookie = Answer::of(sign_in).await.headers[header::SET_COOKIE].clone();
    for (origin, status, code) in [
        ("http://evil.example", 403, "forbidden"),
        ("null", 403, "forbidden"),
        // This API has no store of tasks.
        (&*api.url, 503, "unavailable"),
    ] {
        let post = request(&api, Method::POST, "/v1/tasks").header(header::COOKIE, &cookie);
        let answer = Answer::of(post.header(header::ORIGIN, origin)).await;
        check_problem(&answer, status, code);
    }
}

#[tokio::test]
async fn an_invalid_sign_in_is_described() {
    let api = api().await;
    let post = |content_type: &'static str, body: String| {
        let request = request(&api, Method::POST, "/v1/session");
        Answer::of(request.header(header::CONTENT_TYPE, content_type).body(body))
    };
    let json = "application/json";
    let unknown = post(json, r#"{"key": "abc", "name": "acme"}"#.to_owned()).await;
    check_problem(&unknown, 400, "invalid_request");
    assert_eq!(unknown.json["errors"][0]["pointer"], "/name");
    check_problem(&post(json, "key".to_owned()).await, 400, "invalid_request");
    check_problem(
        &post("text/plain", "{}".to_owned()).await,
        415,
        "unsupported_content_type",
    );
    check_problem(&post(json, " ".repeat(70_000)).await, 413, "input_too_large");
}
