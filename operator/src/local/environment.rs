//! The environment of a worker's process: that of its pod, with this machine's places in place of the pod's.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::EnvVar;
use separation_contract::environment as env;

use super::manifest::Secrets;
use crate::apply::{CA_FOLDER, CLIENT_FOLDER, SCRATCH_FOLDER, WORK_FOLDER};
use crate::decide::PodName;
use crate::plan::{KafkaPlan, Model, SecretKey};

/// Where on this machine a pool's files are.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// In place of the shared volume.
    pub(super) work: PathBuf,
    /// A folder for each worker's own files.
    pub(super) scratch: PathBuf,
    /// Certificates, for their owner only.
    pub(super) certificates: PathBuf,
    /// A log for each worker.
    pub(super) logs: PathBuf,
}

impl Places {
    /// Places under one folder, made.
    pub(super) fn under(folder: &Path) -> anyhow::Result<Self> {
        let place = |name: &str| {
            let place = folder.join(name);
            fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
            anyhow::Ok(place)
        };
        Ok(Self {
            work: place("work")?,
            scratch: place("scratch")?,
            certificates: place("certificates")?,
            logs: place("logs")?,
        })
    }

    /// Checks that the file of a pool's model exists. A worker waits for its model, since in a pod the volume may come
    /// later; on one machine the path is wrong.
    ///
    /// # Errors
    /// When there is no such file.
    pub(super) fn check_model(&self, model: &Model) -> anyhow::Result<()> {
        let path = self.here(&model.0, "").unwrap_or_else(|| model.0.clone());
        // Anything else is a model's name.
        anyhow::ensure!(
            !path.starts_with('/') || Path::new(&path).is_file(),
            "spec.model.path: no such file: {path}; fix: name a model file of this machine"
        );
        Ok(())
    }

    /// The path on this machine of a path in a pod.
    fn here(&self, path: &str, worker: &str) -> Option<String> {
        let places = [
            (WORK_FOLDER, self.work.clone()),
            (SCRATCH_FOLDER, self.scratch.join(worker)),
            (CA_FOLDER, self.certificates.join("ca")),
            (CLIENT_FOLDER, self.certificates.join("client")),
        ];
        places.iter().find_map(|(pod, here)| {
            let rest = path.strip_prefix(pod)?;
            (rest.is_empty() || rest.starts_with('/')).then(|| format!("{}{rest}", here.display()))
        })
    }
}

/// What a worker's process is told. `variables` are those of its pod.
///
/// # Errors
/// When a secret that the pool names is in none of the files.
pub(super) fn of_process(
    variables: Vec<EnvVar>,
    worker: &PodName,
    places: &Places,
    secrets: &Secrets,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut told = BTreeMap::new();
    for variable in variables {
        let from = variable.value_from.as_ref();
        let value = if let Some(key) = from.and_then(|from| from.secret_key_ref.as_ref()) {
            let key = SecretKey {
                secret: key.name.clone(),
                key: key.key.clone(),
            };
            secrets.text(&key).with_context(|| missing(&key))?
        } else if from.is_some() {
            // The one field that pods are told of is their name.
            worker.as_str().to_owned()
        } else {
            let value = variable.value.unwrap_or_default();
            places.here(&value, worker.as_str()).unwrap_or(value)
        };
        told.insert(variable.name, value);
    }
    // The pod's own address; here each worker needs one of its own.
    told.insert(env::ADMIN_ADDR.to_owned(), "127.0.0.1:0".to_owned());
    // Read by this process.
    told.insert(env::LOG_FORMAT.to_owned(), "json".to_owned());
    // Whoever waits for a webhook on this machine is meant.
    let allowed = told.entry(env::OUTBOUND_ALLOW.to_owned()).or_default();
    if !allowed.is_empty() {
        allowed.push(',');
    }
    allowed.push_str("127.0.0.0/8,::1");
    Ok(told)
}

/// Writes certificates where workers are told that they are.
///
/// # Errors
/// When a secret is missing or a file cannot be written.
pub(super) fn write_certificates(
    kafka: &KafkaPlan,
    places: &Places,
    secrets: &Secrets,
) -> anyhow::Result<()> {
    let Some(tls) = &kafka.tls else { return Ok(()) };
    let client = tls.client.iter();
    let client = client.flat_map(|client| [("client", &client.certificate), ("client", &client.private_key)]);
    for (folder, key) in tls.ca.iter().map(|ca| ("ca", ca)).chain(client) {
        let bytes = secrets.bytes(key).with_context(|| missing(key))?;
        let folder = places.certificates.join(folder);
        let path = folder.join(&key.key);
        write_private(&folder, &path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn write_private(folder: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    fs::create_dir_all(folder)?;
    let mut options = fs::OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    options.open(path)?.write_all(bytes)
}

/// What is said of a secret that is in none of the files.
pub(super) fn missing(key: &SecretKey) -> String {
    let SecretKey { secret, key } = key;
    format!(
        "no Secret {secret} with the key {key}; fix: add it to the file, or another file with -f SECRET.yaml"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::variables;
    use crate::local::manifest::Manifests;
    use crate::plan::{PoolPlan, Role};

    fn places() -> Places {
        let place = |name: &str| PathBuf::from(format!("/tmp/{name}"));
        Places {
            work: place("work"),
            scratch: place("scratch"),
            certificates: place("certificates"),
            logs: place("logs"),
        }
    }

    fn told(pool: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let manifests = Manifests::read(&[("pool.yaml".into(), pool.to_owned())])?;
        let plan = PoolPlan::of(&manifests.pool()?)?;
        let worker = PodName::from("vocals-processor-1");
        of_process(
            variables(&plan, plan.role(Role::Processor), None),
            &worker,
            &places(),
            &manifests.secrets,
        )
    }

    const POOL: &str = "
kind: SeparationPool
apiVersion: separation.dev/v1alpha1
metadata: {name: vocals}
spec:
  kafka: {bootstrapServers: 'kafka:9092', sasl: {secretRef: {name: user}}, tls: {caSecretRef: {name: ca}}}
  storage: {s3: {bucket: stems}, work: {persistentVolumeClaim: {claimName: work}}}
";

    #[test]
    fn a_process_is_told_what_its_pod_would_be_with_places_of_this_machine() {
        let told = told(&format!(
            "{POOL}\n---\nkind: Secret\nmetadata: {{name: user}}\nstringData: {{username: ann, password: x}}\n"
        ))
        .unwrap();
        let told = |name: &str| told[name].as_str();
        assert_eq!(told(env::KAFKA_CLIENT_ID), "vocals-processor-1");
        assert_eq!(told(env::KAFKA_SASL_PASSWORD), "x");
        assert_eq!(told(env::KAFKA_SSL_CA_LOCATION), "/tmp/certificates/ca/ca.crt");
        assert_eq!(told(env::SCRATCH_DIR), "/tmp/scratch/vocals-processor-1");
        assert!(
            Path::new(told(env::TEMP_DIR)).starts_with(Path::new("/tmp").join("work")),
            "{}",
            told(env::TEMP_DIR)
        );
        assert_eq!(told(env::ADMIN_ADDR), "127.0.0.1:0");
        assert_eq!(told(env::OUTBOUND_ALLOW), "127.0.0.0/8,::1");
    }

    #[test]
    fn a_secret_that_is_in_no_file_is_named_with_the_fix() {
        assert_eq!(
            told(POOL).unwrap_err().to_string(),
            "no Secret user with the key username; fix: add it to the file, or another file with -f SECRET.yaml"
        );
    }
}
