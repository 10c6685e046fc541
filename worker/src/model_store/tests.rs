//! Downloads from a real server on this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

use super::*;
use crate::settings::{AddressNames, S3Credentials, S3Settings};

/// A page that servers send in place of a file that they do not have.
const PAGE: &str = "<html>no such page</html>";

const SIDECAR_TEXT: &str = "{\"license\": \"MIT\"}";

/// A server of one model.
#[derive(Debug, Default)]
struct Server {
    content: Mutex<Vec<u8>>,
    etag: Mutex<String>,
    /// Status and body of the sidecar.
    sidecar: Mutex<(StatusCode, &'static str)>,
    /// Sends the rest of the content also if it has changed.
    ignores_conditions: AtomicBool,
    /// Closes the connection after this many bytes of a body, if it is not 0.
    cut_at: AtomicUsize,
    /// The served requests: path and `Range`.
    requests: Mutex<Vec<(String, Option<String>)>>,
}

async fn answer(State(server): State<Arc<Server>>, uri: Uri, headers: HeaderMap) -> Response {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let range = text(header::RANGE);
    let request = (uri.path().to_owned(), range.clone());
    server.requests.lock().unwrap().push(request);
    if uri.path().ends_with(".json") {
        let sidecar = *server.sidecar.lock().unwrap();
        return sidecar.into_response();
    }
    let (content, etag) = (
        server.content.lock().unwrap().clone(),
        server.etag.lock().unwrap().clone(),
    );
    let ignores_conditions = server.ignores_conditions.load(Ordering::Relaxed);
    let first = range.filter(|_| ignores_conditions || text(header::IF_RANGE).as_ref() == Some(&etag));
    let first = first.map(|range| {
        range["bytes=".len()..]
            .trim_end_matches('-')
            .parse::<usize>()
            .unwrap()
    });
    if first.is_some_and(|first| first >= content.len()) {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    }
    let rest = content[first.unwrap_or(0)..].to_vec();
    let length = rest.len();
    let cut_at = server.cut_at.load(Ordering::Relaxed);
    let body = match cut_at {
        0 => Body::from(rest),
        cut_at => {
            let sent = Bytes::copy_from_slice(&rest[..cut_at]);
            let broken = async {
                // The server sends what it has before it polls again.
                tokio::task::yield_now().await;
                Err(std::io::Error::other("cut"))
            };
            Body::from_stream(stream::iter([Ok(sent)]).chain(stream::once(broken)))
        }
    };
    let mut response = (
        [(header::ETAG, etag), (header::CONTENT_LENGTH, length.to_string())],
        body,
    )
        .into_response();
    if let Some(first) = first {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {first}-{}/{}", content.len() - 1, content.len());
        response
            .headers_mut()
            .insert(header::CONTENT_RANGE, range.parse().unwrap());
    }
    response
}

struct Bench {
    server: Arc<Server>,
    address: SocketAddr,
    cache: tempfile::TempDir,
    store: ModelStore,
}

impl Bench {
    async fn new(content: &[u8]) -> Self {
        let server = Arc::new(Server {
            content: Mutex::new(content.to_vec()),
            etag: Mutex::new("\"v1\"".to_owned()),
            sidecar: Mutex::new((StatusCode::OK, PAGE)),
            ..Server::default()
        });
        let app = Router::new().fallback(answer).with_state(Arc::clone(&server));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        let cache = tempfile::tempdir().unwrap();
        let http = outbound::Client::new(&["127.0.0.1".parse().unwrap()]);
        let store = ModelStore::new(cache.path().join("models"), http, None);
        Self {
            server,
            address,
            cache,
            store,
        }
    }

    fn address(&self, content: &[u8]) -> ModelAddress {
        let sha256: String = Sha256::digest(content)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let url = format!("http://{}/a/m.onnx", self.address);
        ModelAddress::parse(&url, Some(&sha256), AddressNames::PROCESSOR).unwrap()
    }

    async fn obtain(&self, content: &[u8]) -> Result<PathBuf, ModelStoreError> {
        let address = self.address(content);
        self.store.obtain(&address, None, &mut |_| {}).await
    }

    fn serve_sidecar(&self, status: StatusCode, text: &'static str) {
        *self.server.sidecar.lock().unwrap() = (status, text);
    }

    /// The directory in the cache of the model with this content.
    fn directory(&self, content: &[u8]) -> PathBuf {
        let sha256 = self.address(content).sha256;
        self.cache.path().join("models").join(sha256.as_str())
    }

    /// Downloads 400 bytes.
    async fn interrupt(&self, content: &[u8]) {
        self.server.cut_at.store(400, Ordering::Relaxed);
        let cut = self.obtain(content).await.unwrap_err();
        assert!(cut.is_transient(), "{cut}");
        assert_eq!(cut.dependency().unwrap().name, "model:unreachable");
        self.server.cut_at.store(0, Ordering::Relaxed);
        assert_eq!(self.ranges(), [None]);
    }

    /// The `Range`s of the requests for the model since the last call.
    fn ranges(&self) -> Vec<Option<String>> {
        let requests = std::mem::take(&mut *self.server.requests.lock().unwrap());
        let of_model = requests.into_iter().filter(|(path, _)| path.ends_with(".onnx"));
        of_model.map(|(_, range)| range).collect()
    }

    /// Names of the files in the model's cache directory.
    fn files(&self, content: &[u8]) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory(content)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Not text, and not a protobuf message.
const MODEL_BYTES: &[u8] = &[0xff; 1_000];

#[tokio::test]
async fn a_model_is_downloaded_once() {
    let bench = Bench::new(MODEL_BYTES).await;
    let mut seen = Vec::new();
    let address = bench.address(MODEL_BYTES);
    let mut report = |progress| seen.push(progress);
    let path = bench.store.obtain(&address, None, &mut report).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), MODEL_BYTES);
    let receiving = |done_bytes| DownloadProgress::Receiving {
        done_bytes,
        total_bytes: Some(1_000),
    };
    assert_eq!(seen.first(), Some(&receiving(0)));
    assert_eq!(seen.last(), Some(&receiving(1_000)));
    // The page that the server answers in place of a sidecar is not stored.
    assert_eq!(bench.files(MODEL_BYTES), ["lock", "model.onnx"]);
    assert_eq!(bench.ranges(), [None]);
    assert_eq!(bench.obtain(MODEL_BYTES).await.unwrap(), path);
    assert!(bench.ranges().is_empty());
    // A damaged file is replaced.
    std::fs::write(&path, "damaged").unwrap();
    bench.obtain(MODEL_BYTES).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), MODEL_BYTES);
}

#[tokio::test]
async fn an_interrupted_download_is_continued_unless_the_content_has_changed() {
    let bench = Bench::new(MODEL_BYTES).await;
    bench.interrupt(MODEL_BYTES).await;
    let path = bench.obtain(MODEL_BYTES).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), MODEL_BYTES);
    assert_eq!(bench.ranges(), [Some("bytes=400-".to_owned())]);

    for ignores_conditions in [false, true] {
        std::fs::remove_file(&path).unwrap();
        *bench.server.content.lock().unwrap() = vec![0xee; 1_000];
        bench.interrupt(MODEL_BYTES).await;
        *bench.server.content.lock().unwrap() = MODEL_BYTES.to_vec();
        bench.server.etag.lock().unwrap().insert(1, 'n');
        let ignores = &bench.server.ignores_conditions;
        ignores.store(ignores_conditions, Ordering::Relaxed);
        bench.obtain(MODEL_BYTES).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), MODEL_BYTES);
        bench.ranges();
        ignores.store(false, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn an_object_is_not_continued_with_another_one_by_a_store_that_ignores_conditions() {
    let bench = Bench::new(&[0xee; 1_000]).await;
    let credentials = S3Credentials {
        access_key: "ann".to_owned(),
        secret_key: "secret".into(),
        session_token: None,
    };
    let settings = S3Settings {
        endpoint: Some(format!("http://{}", bench.address).parse().unwrap()),
        credentials: Some(credentials),
        region: None,
        bucket: None,
        stems_prefix: String::new(),
        public_domain: None,
        public_endpoint: None,
        path_style: true,
    };
    let s3 = S3::connect(&settings).await;
    let directory = bench.cache.path().join("models");
    let store = ModelStore::new(directory, outbound::Client::new(&[]), Some(s3));
    let sha256 = bench.address(MODEL_BYTES).sha256.to_string();
    let address = ModelAddress::parse("s3://models/m.onnx", Some(&sha256), AddressNames::PROCESSOR).unwrap();
    bench.server.cut_at.store(400, Ordering::Relaxed);
    let cut = store.obtain(&address, None, &mut |_| {}).await.unwrap_err();
    assert!(cut.is_transient(), "{cut}");

    bench.server.cut_at.store(0, Ordering::Relaxed);
    *bench.server.content.lock().unwrap() = MODEL_BYTES.to_vec();
    *bench.server.etag.lock().unwrap() = "\"v2\"".to_owned();
    bench.server.ignores_conditions.store(true, Ordering::Relaxed);
    let mut seen = Vec::new();
    let mut report = |progress| seen.push(progress);
    let path = store.obtain(&address, None, &mut report).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), MODEL_BYTES);
    let begins_at_0 = DownloadProgress::Receiving {
        done_bytes: 0,
        total_bytes: Some(1_000),
    };
    assert_eq!(seen[0], begins_at_0);
    assert_eq!(bench.ranges(), [None, Some("bytes=400-".to_owned()), None]);
}

#[tokio::test]
async fn a_download_that_continued_a_damaged_part_is_repeated_once() {
    let bench = Bench::new(MODEL_BYTES).await;
    bench.interrupt(MODEL_BYTES).await;
    let part = bench.directory(MODEL_BYTES).join("model.onnx.part");
    std::fs::write(&part, [0; 400]).unwrap();
    let path = bench.obtain(MODEL_BYTES).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), MODEL_BYTES);
    let twice = [Some("bytes=400-".to_owned()), None];
    assert_eq!(bench.ranges(), twice);

    std::fs::remove_file(&path).unwrap();
    *bench.server.content.lock().unwrap() = vec![0xee; 1_000];
    bench.interrupt(MODEL_BYTES).await;
    let refused = bench.obtain(MODEL_BYTES).await.unwrap_err();
    assert!(matches!(refused, ModelStoreError::Checksum { .. }), "{refused}");
    assert_eq!(bench.ranges(), twice);
}

#[tokio::test]
async fn a_complete_model_is_not_downloaded_again_when_its_sidecar_failed() {
    let bench = Bench::new(MODEL_BYTES).await;
    bench.serve_sidecar(StatusCode::SERVICE_UNAVAILABLE, "");
    let failed = bench.obtain(MODEL_BYTES).await.unwrap_err();
    assert_eq!(failed.dependency().unwrap().name, "model:unreachable", "{failed}");
    assert_eq!(bench.ranges(), [None]);
    bench.serve_sidecar(StatusCode::OK, SIDECAR_TEXT);
    let path = bench.obtain(MODEL_BYTES).await.unwrap();
    assert!(bench.ranges().is_empty());
    assert_eq!(std::fs::read(&path).unwrap(), MODEL_BYTES);
    assert_eq!(bench.files(MODEL_BYTES), ["lock", "model.json", "model.onnx"]);
}

#[tokio::test]
async fn a_model_in_the_cache_gets_its_sidecar_once_the_server_has_it() {
    let bench = Bench::new(MODEL_BYTES).await;
    for absent in [StatusCode::NOT_FOUND, StatusCode::FORBIDDEN] {
        bench.serve_sidecar(absent, PAGE);
        bench.obtain(MODEL_BYTES).await.unwrap();
        assert_eq!(bench.files(MODEL_BYTES), ["lock", "model.onnx"], "{absent}");
    }
    bench.serve_sidecar(StatusCode::IM_A_TEAPOT, "");
    let failed = bench.obtain(MODEL_BYTES).await.unwrap_err();
    assert!(matches!(failed, ModelStoreError::Http { .. }), "{failed}");
    // A file of its parameters takes the place of the sidecar.
    let (address, given) = (bench.address(MODEL_BYTES), Path::new("given.json"));
    let path = bench.store.obtain(&address, Some(given), &mut |_| {}).await;
    assert_eq!(bench.ranges(), [None]);

    bench.serve_sidecar(StatusCode::OK, SIDECAR_TEXT);
    assert_eq!(bench.obtain(MODEL_BYTES).await.unwrap(), path.unwrap());
    let sidecar = bench.directory(MODEL_BYTES).join("model.json");
    assert_eq!(std::fs::read_to_string(sidecar).unwrap(), SIDECAR_TEXT);
    bench.server.requests.lock().unwrap().clear();
    bench.obtain(MODEL_BYTES).await.unwrap();
    assert!(bench.server.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_download_waits_for_another_one_of_the_same_model_and_reports_that() {
    let bench = Bench::new(MODEL_BYTES).await;
    let directory = bench.directory(MODEL_BYTES);
    std::fs::create_dir_all(&directory).unwrap();
    let lock = File::create(directory.join(LOCK)).unwrap();
    lock.lock().unwrap();
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let mut report = |progress| sender.send(progress).unwrap();
    let address = bench.address(MODEL_BYTES);
    let obtaining = bench.store.obtain(&address, None, &mut report);
    let releasing = async {
        assert_eq!(seen.recv().await, Some(DownloadProgress::Waiting));
        assert!(bench.ranges().is_empty());
        drop(lock);
    };
    let (obtained, ()) = tokio::join!(obtaining, releasing);
    obtained.unwrap();
}

#[tokio::test]
async fn interrupted_downloads_of_other_models_are_removed_after_a_day() {
    let bench = Bench::new(MODEL_BYTES).await;
    let part = |name: &str, age: Duration| {
        let directory = bench.cache.path().join("models").join(name);
        std::fs::create_dir_all(&directory).unwrap();
        for file in ["model.onnx", "model.onnx.part.json"] {
            std::fs::write(directory.join(file), "").unwrap();
        }
        let part = File::create(directory.join("model.onnx.part")).unwrap();
        part.set_modified(SystemTime::now() - age).unwrap();
        (File::create(directory.join(LOCK)).unwrap(), directory)
    };
    let day = Duration::from_secs(24 * 60 * 60);
    let (_, abandoned) = part("abandoned", day);
    let (_, interrupted) = part("interrupted", day / 2);
    let (lock, running) = part("running", day);
    lock.lock().unwrap();
    bench.obtain(MODEL_BYTES).await.unwrap();
    let files = |directory: &Path| std::fs::read_dir(directory).unwrap().count();
    assert_eq!(files(&abandoned), 2, "the model and the lock stay");
    assert_eq!((files(&interrupted), files(&running)), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn only_transient_failures_are_retried_a_few_times_with_growing_pauses() {
    let location = || ModelLocation::Object("s3://models/a.onnx".parse().unwrap());
    let status = |status| {
        let host = "models.example".to_owned();
        ModelStoreError::http(&location())(outbound::OutboundError::Status { host, status })
    };
    for (code, calls, pauses_s) in [(503, 5, &[1, 2, 4, 8][..]), (404, 1, &[][..])] {
        let (mut called, mut seen_s) = (0, Vec::new());
        let step = async || {
            called += 1;
            Err::<(), _>(status(code))
        };
        let mut retrying = |_: &ModelStoreError, pause: Duration| seen_s.push(pause.as_secs());
        with_retries(step, &mut retrying).await.unwrap_err();
        assert_eq!((called, seen_s.as_slice()), (calls, pauses_s), "{code}");
    }
}

#[tokio::test]
async fn another_file_is_described_and_never_stored() {
    let bench = Bench::new(b"<!doctype html><title>log in</title>").await;
    let refused = bench.obtain(MODEL_BYTES).await.unwrap_err();
    let text = refused.to_string();
    assert!(
        text.contains("it is a web page; fix: download the file itself"),
        "{text}"
    );
    assert!(
        text.contains(bench.address(MODEL_BYTES).sha256.as_str()),
        "{text}"
    );
    assert_eq!(refused.dependency(), None);
    assert_eq!(bench.files(MODEL_BYTES), ["lock"]);
}
