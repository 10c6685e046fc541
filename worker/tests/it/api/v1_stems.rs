//! Stems of v1 over HTTP: complete, in ranges, by presigned links, and after they expired; peaks and previews.

use reqwest::{Method, StatusCode, header};
use separation_testbed::tiny_song;
use serde_json::json;

use super::bench::Answer;
use super::v1_bench::{V1Bench, accepted, check_problem};

/// After all tests have ended.
const LATER: u64 = 4_000_000_000;

/// A task with stems.
async fn succeeded(api: &V1Bench, finished_at: u64) -> String {
    let id = accepted(&Answer::of(api.post_form(&json!({}), &tiny_song(1))).await);
    api.wait_until_queued(&id).await;
    api.succeed(&id, finished_at).await;
    format!("/v1/tasks/{id}")
}

/// Status, headers and body of a request for a part.
async fn part(
    api: &V1Bench,
    path: &str,
    headers: &[(&'static str, &str)],
) -> (u16, header::HeaderMap, String) {
    let mut request = api.request(Method::GET, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, response.text().await.unwrap())
}

#[tokio::test]
async fn a_stem_is_served_completely_and_in_single_ranges() {
    let api = V1Bench::start(&[]).await;
    let stem = format!("{}/stems/vocals", succeeded(&api, LATER).await);
    let (status, complete, body) = part(&api, &stem, &[]).await;
    assert_eq!((status, &*body), (200, "vocals"));
    assert_eq!(complete["content-type"], "audio/wav");
    assert_eq!(complete["content-length"], "6");
    assert_eq!(complete["accept-ranges"], "bytes");
    assert_eq!(complete["cache-control"], "no-store");
    assert_eq!(
        complete["content-disposition"],
        "attachment; filename=\"song_vocals.wav\"; filename*=UTF-8''song_vocals.wav"
    );
    let etag = complete["etag"].to_str().unwrap();

    for (range, expected, content_range) in [
        ("bytes=0-1", "vo", "bytes 0-1/6"),
        ("bytes=2-", "cals", "bytes 2-5/6"),
        ("bytes=-3", "als", "bytes 3-5/6"),
        ("bytes=4-99", "ls", "bytes 4-5/6"),
    ] {
        let (status, headers, body) = part(&api, &stem, &[("range", range), ("if-range", etag)]).await;
        assert_eq!((status, &*body), (206, expected), "{range}");
        assert_eq!(headers["content-range"], content_range);
        assert_eq!(headers["content-length"], expected.len().to_string());
    }
    for ignored in ["bytes=0-1,3-4", "items=0-1", "bytes=4-2"] {
        let (status, _, body) = part(&api, &stem, &[("range", ignored)]).await;
        assert_eq!((status, &*body), (200, "vocals"), "{ignored}");
    }
    let changed = [("range", "bytes=0-1"), ("if-range", "\"another\"")];
    let (status, headers, body) = part(&api, &stem, &changed).await;
    assert_eq!((status, &*body), (200, "vocals"));
    assert!(!headers.contains_key("content-range"));
    let (status, headers, body) = part(&api, &stem, &[("range", "bytes=6-")]).await;
    assert_eq!(
        (status, &headers["content-range"]),
        (416, &header::HeaderValue::from_static("bytes */6"))
    );
    assert!(body.contains("range_not_satisfiable"), "{body}");

    let head = api.request(Method::HEAD, &stem).send().await.unwrap();
    assert_eq!(
        (head.status(), &head.headers()["content-length"]),
        (StatusCode::OK, &complete["content-length"])
    );
}

#[tokio::test]
async fn peaks_and_previews_are_served_for_players() {
    let api = V1Bench::start(&[]).await;
    let task = succeeded(&api, LATER).await;
    let peaks = api.get(&format!("{task}/peaks")).await;
    assert_eq!((peaks.status, &peaks.json), (200, &json!({})));
    assert_eq!(peaks.headers[header::CONTENT_TYPE], "application/json");
    let preview = format!("{task}/previews/vocals");
    let (status, headers, body) = part(&api, &preview, &[("range", "bytes=2-6")]).await;
    assert_eq!((status, &*body), (206, "small"));
    assert_eq!(headers["content-type"], "audio/flac");
}

#[tokio::test]
async fn stems_are_found_only_while_they_exist() {
    let api = V1Bench::start(&["--stems-retention-days", "1"]).await;
    let queued = accepted(&Answer::of(api.post_form(&json!({}), &tiny_song(2))).await);
    let stem_of = |task: &str| format!("{task}/stems/vocals");
    check_problem(
        &api.get(&stem_of(&format!("/v1/tasks/{queued}"))).await,
        404,
        "not_found",
    );
    let task = succeeded(&api, LATER).await;
    check_problem(&api.get(&format!("{task}/stems/drums")).await, 404, "not_found");
    check_problem(
        &api.get(&format!("{task}/previews/drums")).await,
        404,
        "not_found",
    );

    // Stored by `succeeded` for the vocals only.
    check_problem(
        &api.get(&format!("{task}/previews/instrumental")).await,
        404,
        "not_found",
    );

    let expired = succeeded(&api, 1).await;
    for path in [
        stem_of(&expired),
        format!("{expired}/peaks"),
        format!("{expired}/previews/vocals"),
    ] {
        check_problem(&api.get(&path).await, 410, "expired");
    }
    let shown = api.get(&expired).await.json;
    assert_eq!(
        (&shown["state"], &shown["stems"]),
        (&json!("succeeded"), &json!(null))
    );
    let swept = succeeded(&api, LATER).await;
    let id = super::v1_bench::task_id(swept.rsplit('/').next().unwrap());
    api.store.remove_stems(&id).await.unwrap();
    check_problem(&api.get(&stem_of(&swept)).await, 410, "expired");
    check_problem(&api.get(&format!("{swept}/peaks")).await, 404, "not_found");
}

#[tokio::test]
async fn clients_that_reach_the_object_store_get_presigned_links() {
    let api = V1Bench::with_public_endpoint().await;
    let stem = format!("{}/stems/instrumental", succeeded(&api, LATER).await);
    let no_redirects = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none());
    let http = no_redirects.build().unwrap();
    let (client, request) = api.request(Method::GET, &stem).build_split();
    drop(client);
    let response = http.execute(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), 302);
    let link = response.headers()[header::LOCATION].to_str().unwrap().to_owned();
    assert!(link.starts_with(&api.server.endpoint()), "{link}");
    let stem = http.get(&link).send().await.unwrap();
    let disposition = stem.headers()[header::CONTENT_DISPOSITION]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(disposition.contains("song_instrumental.wav"), "{disposition}");
    assert_eq!(stem.text().await.unwrap(), "instrumental");
}

/// The origins that the policy of the page allows for stems.
async fn media_sources(api: &V1Bench) -> String {
    let page = api.api.http.get(&api.api.url).send().await.unwrap();
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    let sources = policy
        .split(';')
        .find_map(|part| part.trim().strip_prefix("media-src"));
    sources.unwrap().trim().to_owned()
}

#[tokio::test]
async fn the_page_plays_stems_of_the_object_store_only_if_the_api_redirects_there() {
    let sent = V1Bench::start(&[]).await;
    assert_eq!(media_sources(&sent).await, "'self'");
    let linked = V1Bench::with_public_endpoint().await;
    let expected = format!("'self' {}", linked.server.endpoint());
    assert_eq!(media_sources(&linked).await, expected);
}
