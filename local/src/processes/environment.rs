//! The environment of a worker's process: that of its pod, with this machine's directories in place of the pod's.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::EnvVar;
use separation_contract::environment as env;
use separation_contract::names;
use separation_operator::apply::{self, CA_PATH, CLIENT_PATH, OAUTH_CA_PATH, SCRATCH_PATH, WORK_PATH};
use separation_operator::decide::PodName;
use separation_operator::plan::{KafkaPlan, Model, OauthPlan, OauthSource, PoolPlan, SaslPlan, SecretKey};

use super::access::ApiAccess;
use super::manifest::Secrets;

/// The directories of a pool on this machine.
#[derive(Debug, Clone)]
pub(super) struct Directories {
    /// Replaces the shared volume.
    pub(super) work: PathBuf,
    /// Has a scratch directory for each worker.
    pub(super) scratch: PathBuf,
    /// Certificates; the files are readable by their owner only.
    pub(super) certificates: PathBuf,
    /// Has a log file for each worker.
    pub(super) logs: PathBuf,
}

/// Separation model of pools that name none, as on a cluster unless its operator has another default.
pub(super) fn default_model() -> Model {
    Model::named(names::DEFAULT_MODEL)
}

impl Directories {
    /// Creates the directories in `directory`.
    pub(super) fn under(directory: &Path) -> anyhow::Result<Self> {
        let create_directory = |name: &str| {
            let path = directory.join(name);
            fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
            anyhow::Ok(path)
        };
        Ok(Self {
            work: create_directory("work")?,
            scratch: create_directory("scratch")?,
            certificates: create_directory("certificates")?,
            logs: create_directory("logs")?,
        })
    }

    /// Checks that the pool's model is on this machine; the program `worker` knows where its models are. A worker waits
    /// for its model, because in a pod the volume may be filled later; here a missing model means a wrong name or path.
    ///
    /// # Errors
    /// When there is no such model.
    pub(super) fn check_model(&self, model: &Model, worker: &Path) -> anyhow::Result<()> {
        if model.sha256.is_some() {
            // The worker downloads it.
            return Ok(());
        }
        let path = self
            .local_path(&model.name, "")
            .unwrap_or_else(|| model.name.clone());
        // Anything but an absolute path is a model's name.
        if path.starts_with('/') {
            anyhow::ensure!(
                Path::new(&path).is_file(),
                "spec.processor.model.path: no such file: {path}; fix: name a model file of this machine"
            );
            return Ok(());
        }
        let found = Command::new(worker)
            .args(["models", "path", "--", &path])
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", worker.display()))?;
        let printed = String::from_utf8_lossy(&found.stderr);
        let problem = printed.trim().trim_start_matches("error: ");
        anyhow::ensure!(found.status.success(), "spec.processor.model: {problem}");
        Ok(())
    }

    /// The path on this machine of a path in a pod.
    fn local_path(&self, path: &str, worker: &str) -> Option<String> {
        let directories = [
            (WORK_PATH, self.work.clone()),
            (SCRATCH_PATH, self.scratch.join(worker)),
            (CA_PATH, self.certificates.join("ca")),
            (CLIENT_PATH, self.certificates.join("client")),
            (OAUTH_CA_PATH, self.certificates.join("oauth-ca")),
        ];
        directories.iter().find_map(|(pod, local_path)| {
            let rest = path.strip_prefix(pod)?;
            (rest.is_empty() || rest.starts_with('/')).then(|| format!("{}{rest}", local_path.display()))
        })
    }
}

/// The environment of a worker's process. `variables` are those of its pod; `access` is that of the pool's API.
///
/// # Errors
/// When a Secret that the pool names is in none of the files.
pub(super) fn process_environment(
    variables: Vec<EnvVar>,
    access: &ApiAccess,
    worker: &PodName,
    directories: &Directories,
    secrets: &Secrets,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut environment = BTreeMap::new();
    for variable in variables {
        let from = variable.value_from.as_ref();
        let value = if let Some(key) = from.and_then(|from| from.secret_key_ref.as_ref()) {
            let key = SecretKey {
                secret: key.name.clone(),
                key: key.key.clone(),
            };
            secrets.text(&key).with_context(|| missing(&key))?
        } else if from.is_some() {
            // The only field reference in pods is their name.
            worker.as_str().to_owned()
        } else {
            let value = variable.value.unwrap_or_default();
            directories.local_path(&value, worker.as_str()).unwrap_or(value)
        };
        environment.insert(variable.name, value);
    }
    // Each pod has its own address; here each worker needs its own port.
    environment.insert(env::ADMIN_ADDR.to_owned(), "127.0.0.1:0".to_owned());
    // This process parses the log.
    environment.insert(env::LOG_FORMAT.to_owned(), "json".to_owned());
    if access.is_local() {
        // Songs and webhook receivers may be on this machine, whose users are the only clients.
        let allowed = environment.entry(env::OUTBOUND_ALLOW.to_owned()).or_default();
        if !allowed.is_empty() {
            allowed.push(',');
        }
        allowed.push_str("127.0.0.0/8,::1");
    }
    Ok(environment)
}

/// The environment of the API's process. The credentials of its clients are those of `access`, never those of the pool.
///
/// # Errors
/// As [`process_environment`].
pub(super) fn api_environment(
    plan: &PoolPlan,
    access: &ApiAccess,
    name: &PodName,
    directories: &Directories,
    secrets: &Secrets,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut api = plan.api.clone().unwrap_or_default();
    (api.keys, api.basic_auth) = (None, None);
    if access.is_local() {
        // A free port that the API chooses is not known yet.
        api.public_url = (access.address.port() != 0).then(|| format!("http://{}", access.address));
    }
    let variables = apply::api_variables(plan, &api, access.address.port().into());
    let mut environment = process_environment(variables, access, name, directories, secrets)?;
    let variables = access.variables().into_iter();
    environment.extend(variables.map(|(name, value)| (name.to_owned(), value)));
    Ok(environment)
}

/// Writes certificates to the paths in the workers' environment.
///
/// # Errors
/// When a Secret is missing or a file cannot be written.
pub(super) fn write_certificates(
    kafka: &KafkaPlan,
    directories: &Directories,
    secrets: &Secrets,
) -> anyhow::Result<()> {
    let Some(tls) = &kafka.tls else { return Ok(()) };
    let oauth_cas: &[SecretKey] = match &kafka.sasl {
        Some(SaslPlan::Oauth(OauthPlan {
            source: OauthSource::ClientCredentials(client),
            ..
        })) => &client.cas,
        _ => &[],
    };
    // Workers trust every certificate in these directories, also those of an earlier run.
    for trusted in ["ca", "oauth-ca"].map(|name| directories.certificates.join(name)) {
        if trusted.is_dir() {
            fs::remove_dir_all(&trusted).with_context(|| format!("cannot empty {}", trusted.display()))?;
        }
    }
    let cas = numbered("ca", &tls.cas).chain(numbered("oauth-ca", oauth_cas));
    let client = tls.client.iter();
    let client = client.flat_map(|client| [&client.certificate, &client.private_key]);
    let client = client.map(|key| ("client", key.key.clone(), key));
    for (directory, file, key) in cas.chain(client) {
        let bytes = secrets.bytes(key).with_context(|| missing(key))?;
        let directory = directories.certificates.join(directory);
        let path = directory.join(file);
        write_private(&directory, &path, bytes)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// CA certificates as files of a directory.
fn numbered<'a>(
    directory: &'static str,
    cas: &'a [SecretKey],
) -> impl Iterator<Item = (&'static str, String, &'a SecretKey)> {
    let cas = cas.iter().enumerate();
    cas.map(move |(number, ca)| (directory, format!("{number}.crt"), ca))
}

fn write_private(directory: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    fs::create_dir_all(directory)?;
    let mut options = fs::OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    options.open(path)?.write_all(bytes)
}

/// The error for a Secret that is in none of the files.
pub(super) fn missing(key: &SecretKey) -> String {
    let SecretKey { secret, key } = key;
    format!(
        "no Secret {secret} with the key {key}; fix: add it to the file, or another file with -f SECRET.yaml"
    )
}

#[cfg(test)]
mod tests {
    use separation_operator::apply::variables;
    use separation_operator::plan::Role;

    use super::*;
    use crate::processes::manifest::Manifests;

    fn directories() -> Directories {
        let path = |name: &str| PathBuf::from(format!("/tmp/{name}"));
        Directories {
            work: path("work"),
            scratch: path("scratch"),
            certificates: path("certificates"),
            logs: path("logs"),
        }
    }

    fn environment(pool: &str, host: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let manifests = Manifests::read(&[("pool.yaml".into(), pool.to_owned())])?;
        let plan = PoolPlan::from_pool(&manifests.pool()?)?;
        let worker = PodName::from("vocals-processor-1");
        process_environment(
            variables(&plan, plan.role(Role::Processor), &default_model(), None),
            &ApiAccess::on(host),
            &worker,
            &directories(),
            &manifests.secrets,
        )
    }

    const POOL: &str = "
kind: SeparationPool
apiVersion: separation.dev/v1beta1
metadata: {name: vocals}
spec:
  kafka:
    bootstrapServers: 'kafka:9092'
    tls: {trustedCertificateSecretRefs: [{name: ca}, {name: next-ca}]}
    sasl: {usernameSecretRef: {name: user}, passwordSecretRef: {name: user}}
  storage: {stems: {bucket: stems}, staging: {persistentVolumeClaim: {claimName: work}}}
";

    const USER: &str = "
---
{kind: Secret, metadata: {name: user}, stringData: {username: ann, password: x}}
";

    #[test]
    fn a_process_gets_the_environment_of_its_pod_with_directories_of_this_machine() {
        let environment = environment(&format!("{POOL}{USER}"), "127.0.0.1").unwrap();
        let value = |name: &str| environment[name].as_str();
        assert_eq!(value(env::KAFKA_CLIENT_ID), "vocals-processor-1");
        assert_eq!(value(env::KAFKA_SASL_PASSWORD), "x");
        assert_eq!(value(env::KAFKA_SSL_CA_LOCATION), "/tmp/certificates/ca");
        assert_eq!(value(env::SCRATCH_DIR), "/tmp/scratch/vocals-processor-1");
        assert!(
            Path::new(value(env::TEMP_DIR)).starts_with(Path::new("/tmp").join("work")),
            "{}",
            value(env::TEMP_DIR)
        );
        assert_eq!(value(env::ADMIN_ADDR), "127.0.0.1:0");
        assert_eq!(value(env::OUTBOUND_ALLOW), "127.0.0.0/8,::1");
    }

    #[test]
    fn clients_on_other_machines_cannot_make_a_process_call_this_one() {
        for host in ["0.0.0.0", "::"] {
            let environment = environment(&format!("{POOL}{USER}"), host).unwrap();
            assert_eq!(environment.get(env::OUTBOUND_ALLOW), None, "{host}");
        }
    }

    #[test]
    fn the_api_requires_no_credentials_and_has_the_other_settings_of_the_pool() {
        let text = "
kind: SeparationPool
apiVersion: separation.dev/v1beta1
metadata: {name: vocals}
spec:
  kafka: {bootstrapServers: 'kafka:9092'}
  storage:
    s3: {endpoint: 'http://s3:9000', publicEndpoint: 'https://s3.example'}
    stems: {bucket: stems, retentionDays: 30}
    staging: {s3: {}}
  webhooks: {signingSecretRefs: [{name: webhook}]}
  api:
    keysSecretRef: {name: api-keys}
    basicAuthSecretRef: {name: api}
    publicURL: https://songs.example
    maxInputSize: 1Gi
    maxInputSeconds: 3600
---
{kind: Secret, metadata: {name: webhook}, stringData: {secret: whsec_x}}
";
        let manifests = Manifests::read(&[("pool.yaml".into(), text.to_owned())]).unwrap();
        let plan = PoolPlan::from_pool(&manifests.pool().unwrap()).unwrap();
        let worker = PodName::from("vocals-api");
        let access = ApiAccess::on("127.0.0.1");
        let environment =
            api_environment(&plan, &access, &worker, &directories(), &manifests.secrets).unwrap();
        for (name, value) in [
            (env::API_HOST, "127.0.0.1"),
            (env::API_PORT, "8000"),
            (env::API_PUBLIC_URL, "http://127.0.0.1:8000"),
            (env::WEBHOOK_SECRET, "whsec_x"),
            (env::MAX_INPUT_BYTES, "1073741824"),
            (env::MAX_INPUT_SECONDS, "3600"),
            (env::S3_PUBLIC_ENDPOINT, "https://s3.example"),
            (env::STEMS_RETENTION_DAYS, "30"),
        ] {
            assert_eq!(environment[name], value, "{name}");
        }
        for name in [env::API_KEYS, env::BASIC_AUTH_PASSWORD] {
            assert!(!environment.contains_key(name), "{name}");
        }
    }

    #[test]
    fn each_trusted_certificate_is_a_file_of_its_own_and_those_of_earlier_runs_are_removed() {
        let secrets = "
---
{kind: Secret, metadata: {name: ca}, stringData: {ca.crt: one}}
---
{kind: Secret, metadata: {name: next-ca}, stringData: {ca.crt: two}}
";
        let manifests = Manifests::read(&[("pool.yaml".into(), format!("{POOL}{secrets}"))]).unwrap();
        let plan = PoolPlan::from_pool(&manifests.pool().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let directories = Directories::under(directory.path()).unwrap();
        let trusted = directories.certificates.join("ca");
        write_private(&trusted, &trusted.join("2.crt"), b"earlier").unwrap();
        write_certificates(&plan.kafka, &directories, &manifests.secrets).unwrap();
        let read = |name: &str| fs::read_to_string(trusted.join(name)).unwrap();
        assert_eq!((read("0.crt").as_str(), read("1.crt").as_str()), ("one", "two"));
        assert_eq!(fs::read_dir(&trusted).unwrap().count(), 2);
    }

    #[test]
    fn a_secret_that_is_in_no_file_is_named_with_the_fix() {
        assert_eq!(
            environment(POOL, "127.0.0.1").unwrap_err().to_string(),
            "no Secret user with the key username; fix: add it to the file, or another file with -f SECRET.yaml"
        );
    }
}
