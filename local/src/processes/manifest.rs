//! Files as for `kubectl apply -f`: one pool, and the Secrets that it names. Pure.
//!
//! Unlike on a cluster, a pool may omit Kafka, S3 and the staging storage: this machine provides them.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use separation_operator::crd::{SeparationPool, from_value};
use separation_operator::plan::SecretKey;
use serde_json::{Map, Value, json};

/// The contents of the files; the pool is not validated yet.
#[derive(Debug)]
pub(super) struct Manifests {
    pool: Value,
    /// Secrets by name.
    pub(super) secrets: Secrets,
}

/// The values of Secrets by name and Secret key; `Debug` prints only names.
#[derive(Default, Clone)]
pub(super) struct Secrets(BTreeMap<String, BTreeMap<String, Vec<u8>>>);

/// Whether the pool names a server, or this process provides one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerSource {
    Named,
    Embedded,
}

/// An object store that this process serves.
#[derive(Debug, Clone)]
pub(super) struct EmbeddedStore {
    /// Its URL on this machine.
    pub(super) endpoint: String,
    /// Its URL for clients of the API.
    pub(super) public_url: String,
    pub(super) bucket: &'static str,
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Secrets {
    /// The bytes of a Secret key.
    pub(super) fn bytes(&self, key: &SecretKey) -> Option<&[u8]> {
        Some(self.0.get(&key.secret)?.get(&key.key)?)
    }

    /// The text of a Secret key; `None` if it is missing or not UTF-8.
    pub(super) fn text(&self, key: &SecretKey) -> Option<String> {
        String::from_utf8(self.bytes(key)?.to_vec()).ok()
    }

    fn add(&mut self, secret: &Value) -> anyhow::Result<()> {
        let name = secret["metadata"]["name"]
            .as_str()
            .context("a Secret has no metadata.name")?;
        let keys = self.0.entry(name.to_owned()).or_default();
        for (key, value) in secret["data"].as_object().into_iter().flatten() {
            let bytes = value.as_str().and_then(|text| STANDARD.decode(text.trim()).ok());
            let bytes = bytes.with_context(|| {
                format!("Secret {name}: data.{key} is not base64; fix: encode it, or use stringData")
            })?;
            keys.insert(key.clone(), bytes);
        }
        for (key, value) in secret["stringData"].as_object().into_iter().flatten() {
            let text = value
                .as_str()
                .with_context(|| format!("Secret {name}: stringData.{key} is not a string; fix: quote it"))?;
            keys.insert(key.clone(), text.as_bytes().to_vec());
        }
        Ok(())
    }
}

impl Manifests {
    /// Parses files, given as names and texts.
    ///
    /// # Errors
    /// When a text is not valid YAML, when there is not exactly one pool, or when a Secret is invalid.
    pub(super) fn read(files: &[(String, String)]) -> anyhow::Result<Self> {
        let mut pools = Vec::new();
        let mut secrets = Secrets::default();
        for (name, text) in files {
            let documents: Vec<Value> =
                serde_saphyr::from_multiple(text).with_context(|| format!("{name} is not valid YAML"))?;
            for document in documents {
                match document["kind"].as_str() {
                    Some("SeparationPool") => pools.push(document),
                    Some("Secret") => secrets.add(&document).with_context(|| name.clone())?,
                    // Files that are also applied to a cluster may have other kinds.
                    Some(kind) => tracing::debug!(kind, file = name, "Not needed on one machine"),
                    None if document.is_null() => {}
                    None => bail!("{name}: a document has no kind; fix: kind: SeparationPool"),
                }
            }
        }
        ensure!(
            pools.len() == 1,
            "the files have {} SeparationPools, but exactly one is needed; fix: name files with one",
            pools.len()
        );
        Ok(Self {
            pool: pools.remove(0),
            secrets,
        })
    }

    /// Whether the pool names its brokers.
    pub(super) fn kafka(&self) -> ServerSource {
        server_source(&self.pool["spec"]["kafka"])
    }

    /// Whether the pool names its object store.
    pub(super) fn store(&self) -> ServerSource {
        let storage = &self.pool["spec"]["storage"];
        match server_source(&storage["s3"]) {
            ServerSource::Named => ServerSource::Named,
            // A bucket without a server is one of AWS.
            ServerSource::Embedded => server_source(&storage["stems"]),
        }
    }

    /// Sets the embedded broker in the pool.
    pub(super) fn use_broker(&mut self, bootstrap_servers: &str) {
        nested(&mut self.pool, &["spec", "kafka"])
            .insert("bootstrapServers".into(), bootstrap_servers.into());
    }

    /// Sets the embedded store in the pool, and adds a Secret with its credentials.
    pub(super) fn use_store(&mut self, store: &EmbeddedStore) {
        let endpoint = &store.endpoint;
        let s3 = json!({
            "endpoint": endpoint,
            "forcePathStyle": true,
            "credentialsSecretRef": {"name": "embedded-s3"},
        });
        let stems = json!({
            "bucket": store.bucket,
            "publicURL": format!("{}/{}", store.public_url.trim_end_matches('/'), store.bucket),
        });
        let storage = nested(&mut self.pool, &["spec", "storage"]);
        storage.insert("s3".into(), s3);
        storage.insert("stems".into(), stems);
        let keys = [
            ("AWS_ACCESS_KEY_ID", &store.access_key_id),
            ("AWS_SECRET_ACCESS_KEY", &store.secret_access_key),
        ];
        let keys = keys.map(|(name, value)| (name.to_owned(), value.clone().into_bytes()));
        self.secrets.0.insert("embedded-s3".into(), keys.into());
    }

    /// The pool, with the defaults that an API server would set.
    ///
    /// # Errors
    /// When it is not a valid SeparationPool.
    pub(super) fn pool(&self) -> anyhow::Result<SeparationPool> {
        let mut pool = self.pool.clone();
        let storage = nested(&mut pool, &["spec", "storage"]);
        if server_source(storage.get("staging").unwrap_or(&Value::Null)) == ServerSource::Embedded {
            storage.insert("staging".into(), json!({"s3": {}}));
        }
        if pool["metadata"]["namespace"].is_null() {
            nested(&mut pool, &["metadata"]).insert("namespace".into(), "default".into());
        }
        from_value(pool).context("not a valid SeparationPool")
    }
}

fn server_source(value: &Value) -> ServerSource {
    match value {
        Value::Null => ServerSource::Embedded,
        Value::Object(fields) if fields.is_empty() => ServerSource::Embedded,
        _ => ServerSource::Named,
    }
}

/// The object at this path; created if it is missing or not an object.
fn nested<'v>(value: &'v mut Value, names: &[&str]) -> &'v mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(fields) = value else {
        unreachable!("it was made an object")
    };
    match names.split_first() {
        None => fields,
        Some((first, rest)) => nested(fields.entry(*first).or_insert(Value::Null), rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str =
        "{kind: SeparationPool, apiVersion: separation.dev/v1beta1, metadata: {name: vocals}}";

    fn read(text: &str) -> anyhow::Result<Manifests> {
        Manifests::read(&[("pool.yaml".to_owned(), text.to_owned())])
    }

    fn store() -> EmbeddedStore {
        EmbeddedStore {
            endpoint: "http://127.0.0.1:9".into(),
            public_url: "http://localhost:9000/".into(),
            bucket: "stems",
            access_key_id: "id".into(),
            secret_access_key: "key".into(),
        }
    }

    #[test]
    fn a_pool_with_only_a_name_gets_embedded_servers() {
        let mut manifests = read(SMALLEST).unwrap();
        assert_eq!(
            (manifests.kafka(), manifests.store()),
            (ServerSource::Embedded, ServerSource::Embedded)
        );
        manifests.use_broker("127.0.0.1:1");
        manifests.use_store(&store());
        let pool = manifests.pool().unwrap();
        assert_eq!(pool.spec.kafka.bootstrap_servers, "127.0.0.1:1");
        assert_eq!(
            pool.spec.storage.stems.public_url.as_deref(),
            Some("http://localhost:9000/stems")
        );
        assert!(pool.spec.storage.staging.s3.is_some());
        let key = pool.spec.storage.s3.credentials_secret_ref.unwrap();
        let secret = SecretKey {
            secret: key.name,
            key: key.secret_access_key_key,
        };
        assert_eq!(manifests.secrets.text(&secret).as_deref(), Some("key"));
    }

    #[test]
    fn named_servers_are_kept() {
        let text = include_str!("../../../deploy/samples/pool.yaml");
        let manifests = read(text).unwrap();
        assert_eq!(
            (manifests.kafka(), manifests.store()),
            (ServerSource::Named, ServerSource::Named)
        );
        let mut as_on_a_cluster = separation_operator::crd::from_yaml(text).unwrap();
        as_on_a_cluster.metadata.namespace = Some("media".into());
        assert_eq!(manifests.pool().unwrap(), as_on_a_cluster);
    }

    #[test]
    fn a_bucket_without_a_server_is_one_of_aws() {
        let manifests = read("{kind: SeparationPool, spec: {storage: {stems: {bucket: songs}}}}").unwrap();
        assert_eq!(manifests.store(), ServerSource::Named);
    }

    #[test]
    fn secrets_are_read_from_the_same_files_and_never_printed() {
        let text = format!(
            "{SMALLEST}\n---\nkind: Secret\nmetadata: {{name: user}}\nstringData: {{username: ann}}\n\
             data: {{password: c2VjcmV0}}\n---\nkind: ConfigMap\nmetadata: {{name: other}}\n"
        );
        let manifests = read(&text).unwrap();
        let key = |key: &str| SecretKey {
            secret: "user".into(),
            key: key.into(),
        };
        assert_eq!(manifests.secrets.text(&key("username")).as_deref(), Some("ann"));
        assert_eq!(
            manifests.secrets.text(&key("password")).as_deref(),
            Some("secret")
        );
        assert_eq!(manifests.secrets.text(&key("other")), None);
        assert_eq!(format!("{:?}", manifests.secrets), r#"["user"]"#);
    }

    #[test]
    fn an_invalid_document_is_named_with_its_file() {
        let two = format!("{SMALLEST}\n---\n{SMALLEST}");
        let wrong = [
            ("kind: [", "pool.yaml is not valid YAML"),
            (
                "a: 1",
                "pool.yaml: a document has no kind; fix: kind: SeparationPool",
            ),
            (
                "kind: Service",
                "the files have 0 SeparationPools, but exactly one is needed; fix: name files with one",
            ),
            (
                two.as_str(),
                "the files have 2 SeparationPools, but exactly one is needed; fix: name files with one",
            ),
            ("{kind: Secret, metadata: {name: a}, data: {b: '?'}}", "pool.yaml"),
        ];
        for (text, expected) in wrong {
            assert_eq!(read(text).unwrap_err().to_string(), expected, "{text}");
        }
    }
}
