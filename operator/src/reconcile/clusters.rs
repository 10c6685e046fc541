//! Kafka clusters that pools share, and the secrets that open them.
//!
//! Pools with the same servers and the same login share one cluster, in whichever namespaces they are: nothing else tells
//! them apart. Secrets are read by name, when a pool first needs them and once a while after that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use tokio::sync::mpsc;

use super::Refresh;
use crate::clock::Clock;
use crate::decide::Moment;
use crate::kafka::{Cluster, ClusterSettings, Unread};
use crate::metrics::Metrics;
use crate::observe::LagReader;
use crate::observe::poller::{Polled, Poller};
use crate::plan::{KafkaPlan, PoolId, SecretKey};
use crate::watch::world::RoleKey;

/// How long after a failure a secret is read again.
const SECRET_RETRY: Duration = Duration::from_secs(5);

/// A cluster that is being read.
#[derive(Debug)]
pub(super) struct Opened {
    settings: ClusterSettings,
    pub(super) cluster: Arc<Cluster>,
    pub(super) poller: Poller<RoleKey>,
}

/// Namespace and name of a secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SecretName {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// Clusters that are being read, and secrets as they were last read.
#[derive(Debug)]
pub(super) struct Clusters {
    refresh: Refresh,
    open: Vec<Weak<Opened>>,
    secrets: BTreeMap<SecretName, Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// None where it was not read yet; none inside where there is no such secret.
    texts: Option<Option<BTreeMap<String, String>>>,
    /// Why it could not be read, while it never was.
    problem: Option<String>,
    due: Moment,
    is_busy: bool,
}

/// What opening a cluster came to.
pub(super) enum Opening {
    /// Secrets must be read first.
    Waiting,
    /// A secret is missing, or does not fit.
    Missing(Unread),
    /// With these settings.
    Ready(ClusterSettings),
}

impl Clusters {
    /// Nothing is known.
    pub(super) fn new(refresh: Refresh) -> Self {
        Self {
            refresh,
            open: Vec::new(),
            secrets: BTreeMap::new(),
        }
    }

    /// The settings for a plan, as far as its secrets are known; those that are not will be asked for.
    pub(super) fn settings(&mut self, plan: &KafkaPlan, pool: &PoolId) -> Opening {
        let mut waiting = false;
        for name in secrets_of(plan, pool) {
            let known = self.secrets.entry(name).or_default();
            if let Some(why) = &known.problem {
                return Opening::Missing(Unread(why.as_str().into()));
            }
            waiting |= known.texts.is_none();
        }
        if waiting {
            return Opening::Waiting;
        }
        let text = |key: &SecretKey| {
            let name = SecretName {
                namespace: pool.namespace.clone(),
                name: key.secret.clone(),
            };
            self.secrets
                .get(&name)?
                .texts
                .as_ref()?
                .as_ref()?
                .get(&key.key)
                .cloned()
        };
        match ClusterSettings::of(plan, pool, text) {
            Ok(settings) => Opening::Ready(settings),
            Err(why) => Opening::Missing(why),
        }
    }

    /// The cluster with these settings: the one that is being read already, or a new one.
    ///
    /// # Errors
    /// When a certificate or a key cannot be used.
    pub(super) fn open(
        &mut self,
        settings: ClusterSettings,
        current: Option<&Arc<Opened>>,
        clock: Clock,
        polled: &mpsc::Sender<Vec<Polled<RoleKey>>>,
        metrics: &Metrics,
    ) -> Result<Arc<Opened>, Unread> {
        if let Some(current) = current
            && current.settings == settings
        {
            return Ok(Arc::clone(current));
        }
        self.open.retain(|opened| opened.strong_count() > 0);
        let mut known = self.open.iter().filter_map(Weak::upgrade);
        if let Some(known) = known.find(|opened| opened.settings == settings) {
            return Ok(known);
        }
        let cluster = Arc::new(Cluster::new(&settings)?);
        let opened = Arc::new(Opened {
            poller: Poller::start(
                LagReader::new(Arc::clone(&cluster), self.refresh.offsets),
                clock,
                polled.clone(),
                metrics.cluster(&settings.bootstrap_servers),
            ),
            settings,
            cluster,
        });
        self.open.push(Arc::downgrade(&opened));
        Ok(opened)
    }

    /// Secrets to be read now: those never read, and those whose age is over. Each is given once, until it was read.
    pub(super) fn due_secrets(&mut self, now: Moment) -> Vec<SecretName> {
        let mut due = Vec::new();
        for (name, known) in &mut self.secrets {
            if !known.is_busy && known.due <= now {
                known.is_busy = true;
                due.push(name.clone());
            }
        }
        due
    }

    /// Takes in a secret that was read, or could not be: then what was known stands. Says whether it is different.
    pub(super) fn secret_read(
        &mut self,
        name: &SecretName,
        secret: Result<Option<Secret>, String>,
        now: Moment,
    ) -> bool {
        let Some(known) = self.secrets.get_mut(name) else {
            return false;
        };
        known.is_busy = false;
        let secret = match secret {
            Ok(secret) => secret,
            Err(why) => {
                known.due = now + SECRET_RETRY;
                if known.texts.is_some() {
                    return false;
                }
                let SecretName { namespace, name } = name;
                let problem = Some(format!("secret {namespace}/{name} could not be read: {why}"));
                let is_new = known.problem != problem;
                known.problem = problem;
                return is_new;
            }
        };
        let was_problem = known.problem.take().is_some();
        // One that is missing is about to be made.
        known.due = now
            + if secret.is_some() {
                self.refresh.secrets
            } else {
                SECRET_RETRY
            };
        let texts = Some(secret.map(texts));
        let is_different = was_problem || known.texts != texts;
        known.texts = texts;
        is_different
    }

    /// Forgets secrets that no pool of these needs.
    pub(super) fn keep_secrets<'a>(&mut self, pools: impl Iterator<Item = (&'a PoolId, &'a KafkaPlan)>) {
        let needed: BTreeSet<SecretName> = pools.flat_map(|(pool, plan)| secrets_of(plan, pool)).collect();
        self.secrets.retain(|name, _| needed.contains(name));
    }
}

/// The secrets that a plan names.
pub(super) fn secrets_of(plan: &KafkaPlan, pool: &PoolId) -> BTreeSet<SecretName> {
    let mut keys: Vec<&SecretKey> = Vec::new();
    if let Some(tls) = &plan.tls {
        keys.extend(tls.ca.as_ref());
        if let Some(client) = &tls.client {
            keys.extend([&client.certificate, &client.private_key]);
        }
    }
    if let Some(sasl) = &plan.sasl {
        keys.extend([&sasl.username, &sasl.password]);
    }
    keys.into_iter()
        .map(|key| SecretName {
            namespace: pool.namespace.clone(),
            name: key.secret.clone(),
        })
        .collect()
}

/// The parts of a secret that are text; others cannot be certificates or logins.
fn texts(secret: Secret) -> BTreeMap<String, String> {
    let data = secret.data.unwrap_or_default();
    data.into_iter()
        .filter_map(|(key, bytes)| Some((key, String::from_utf8(bytes.0).ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::from_yaml;
    use crate::plan::PoolPlan;

    #[test]
    fn a_secret_that_may_not_be_read_is_told_unless_it_was_read_before() {
        let yaml = "
apiVersion: separation.dev/v1alpha1
kind: SeparationPool
metadata: {name: vocals, namespace: media}
spec:
  kafka: {bootstrapServers: 'k:1', sasl: {mechanism: SCRAM-SHA-512, secretRef: {name: login}}}
  storage: {s3: {bucket: stems}, work: {s3Prefix: staging/}}
";
        let plan = PoolPlan::of(&from_yaml(yaml).unwrap()).unwrap();
        let name = SecretName {
            namespace: "media".to_owned(),
            name: "login".to_owned(),
        };
        let mut clusters = Clusters::new(Refresh {
            secrets: Duration::from_secs(60),
            offsets: Duration::from_secs(30),
        });
        let now = Moment::default();
        let open = |clusters: &mut Clusters| match clusters.settings(&plan.kafka, &plan.id) {
            Opening::Waiting => "waiting".to_owned(),
            Opening::Missing(why) => why.to_string(),
            Opening::Ready(_) => "ready".to_owned(),
        };
        assert_eq!(open(&mut clusters), "waiting");
        assert!(clusters.secret_read(&name, Err("secrets is forbidden".to_owned()), now));
        assert!(!clusters.secret_read(&name, Err("secrets is forbidden".to_owned()), now));
        assert_eq!(
            open(&mut clusters),
            "secret media/login could not be read: secrets is forbidden"
        );
        let text = |text: &str| k8s_openapi::ByteString(text.as_bytes().to_vec());
        let secret = Secret {
            data: Some(
                [("username", "u"), ("password", "p")]
                    .map(|(key, value)| (key.to_owned(), text(value)))
                    .into(),
            ),
            ..Secret::default()
        };
        assert!(clusters.secret_read(&name, Ok(Some(secret)), now));
        assert_eq!(open(&mut clusters), "ready");
        // What was read stands while it cannot be read again.
        assert!(!clusters.secret_read(&name, Err("no answer".to_owned()), now));
        assert_eq!(open(&mut clusters), "ready");
    }
}
