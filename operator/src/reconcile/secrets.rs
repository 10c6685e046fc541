//! Secrets that pools name: read one by one by name, when a pool first needs them and periodically after that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;

use crate::apply::short_hash;
use crate::decide::Moment;
use crate::plan::{PoolId, PoolPlan, Role, SecretKey};

/// Time until an unreadable or missing Secret is read again: it may be about to be created.
const RETRY: Duration = Duration::from_secs(5);

/// Namespace and name of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SecretName {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl SecretName {
    /// The Secret of a key that a pool names, in the pool's namespace.
    pub(super) fn of(pool: &PoolId, key: &SecretKey) -> Self {
        Self {
            namespace: pool.namespace.clone(),
            name: key.secret.clone(),
        }
    }
}

/// The last contents of Secrets.
#[derive(Debug)]
pub(super) struct SecretCache {
    refresh: Duration,
    known: BTreeMap<SecretName, KnownSecret>,
}

#[derive(Debug, Default)]
struct KnownSecret {
    /// `None` until it was read; `Some(None)` if the Secret does not exist.
    texts: Option<Option<BTreeMap<String, String>>>,
    /// Why it could not be read, if it was never read.
    problem: Option<Arc<str>>,
    due: Moment,
    is_busy: bool,
}

/// Whether a Secret was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SecretState {
    /// It was not read yet.
    NotYet,
    /// It could not be read, and was never read before.
    Failed(Arc<str>),
    /// It was read, or does not exist.
    Done,
}

impl SecretCache {
    /// Secrets are read again after `refresh`.
    pub(super) fn new(refresh: Duration) -> Self {
        Self {
            refresh,
            known: BTreeMap::new(),
        }
    }

    /// Registers the Secrets that a plan names.
    pub(super) fn register(&mut self, plan: &PoolPlan) {
        for name in secrets_of(plan) {
            self.known.entry(name).or_default();
        }
    }

    /// Whether a Secret was read.
    pub(super) fn state(&self, name: &SecretName) -> SecretState {
        match self.known.get(name) {
            Some(KnownSecret {
                problem: Some(why), ..
            }) => SecretState::Failed(Arc::clone(why)),
            Some(KnownSecret { texts: Some(_), .. }) => SecretState::Done,
            _ => SecretState::NotYet,
        }
    }

    /// The text of a Secret key; `None` if the Secret or the key is missing, or was not read.
    pub(super) fn text(&self, pool: &PoolId, key: &SecretKey) -> Option<String> {
        let known = self.known.get(&SecretName::of(pool, key))?;
        known.texts.as_ref()?.as_ref()?.get(&key.key).cloned()
    }

    /// A hash of the contents that a role's workers are started with. `None` if there are none, and while one is
    /// missing or unread: pods are not replaced because a Secret is temporarily missing.
    pub(super) fn hash(&self, plan: &PoolPlan, role: Role) -> Option<String> {
        self.hash_of(&plan.id, &plan.secret_keys(role))
    }

    /// The same for these keys.
    pub(super) fn hash_of(&self, pool: &PoolId, keys: &[&SecretKey]) -> Option<String> {
        if keys.is_empty() {
            return None;
        }
        let mut contents = Vec::new();
        for key in keys {
            let text = self.text(pool, key)?;
            for part in [&key.secret, &key.key, &text] {
                // Prefixed with its length, so that different contents never give the same bytes.
                contents.extend_from_slice(&part.len().to_be_bytes());
                contents.extend_from_slice(part.as_bytes());
            }
        }
        Some(short_hash(&contents))
    }

    /// Secrets to read now: those never read, and those due again. A Secret is not returned again until it was read.
    pub(super) fn due(&mut self, now: Moment) -> Vec<SecretName> {
        let mut due = Vec::new();
        for (name, known) in &mut self.known {
            if !known.is_busy && known.due <= now {
                known.is_busy = true;
                due.push(name.clone());
            }
        }
        due
    }

    /// Records the result of reading a Secret; after an error, earlier contents are kept. Returns whether anything
    /// changed.
    pub(super) fn read(
        &mut self,
        name: &SecretName,
        secret: Result<Option<Secret>, String>,
        now: Moment,
    ) -> bool {
        let Some(known) = self.known.get_mut(name) else {
            return false;
        };
        known.is_busy = false;
        let secret = match secret {
            Ok(secret) => secret,
            Err(why) => {
                known.due = now + RETRY;
                if known.texts.is_some() {
                    return false;
                }
                let SecretName { namespace, name } = name;
                let problem = Some(format!("Secret {namespace}/{name} could not be read: {why}").into());
                let is_new = known.problem != problem;
                known.problem = problem;
                return is_new;
            }
        };
        let was_problem = known.problem.take().is_some();
        known.due = now + if secret.is_some() { self.refresh } else { RETRY };
        let texts = Some(secret.map(texts));
        let is_different = was_problem || known.texts != texts;
        known.texts = texts;
        is_different
    }

    /// Forgets Secrets that none of these pools names.
    pub(super) fn retain<'a>(&mut self, plans: impl Iterator<Item = &'a PoolPlan>) {
        let needed: BTreeSet<SecretName> = plans.flat_map(secrets_of).collect();
        self.known.retain(|name, _| needed.contains(name));
    }
}

/// The Secrets that a plan names.
pub(super) fn secrets_of(plan: &PoolPlan) -> BTreeSet<SecretName> {
    let keys = Role::ALL.into_iter().flat_map(|role| plan.secret_keys(role));
    let keys = keys.chain(plan.api_secret_keys());
    keys.map(|key| SecretName::of(&plan.id, key)).collect()
}

/// The values of a Secret that are text; others cannot be certificates or credentials.
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

    fn plan() -> PoolPlan {
        let yaml = "
apiVersion: separation.dev/v1beta1
kind: SeparationPool
metadata: {name: vocals, namespace: media}
spec:
  kafka: {bootstrapServers: 'k:1', sasl: {usernameSecretRef: {name: kafka-user}, passwordSecretRef: {name: kafka-user}}}
  storage: {s3: {credentialsSecretRef: {name: s3}}, stems: {bucket: stems}, staging: {s3: {}}}
  webhooks: {signingSecretRefs: [{name: webhooks}]}
";
        PoolPlan::from_pool(&from_yaml(yaml).unwrap()).unwrap()
    }

    fn name(name: &str) -> SecretName {
        SecretName {
            namespace: "media".to_owned(),
            name: name.to_owned(),
        }
    }

    fn secret(data: &[(&str, &str)]) -> Result<Option<Secret>, String> {
        let text = |text: &str| k8s_openapi::ByteString(text.as_bytes().to_vec());
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), text(value)));
        Ok(Some(Secret {
            data: Some(data.collect()),
            ..Secret::default()
        }))
    }

    /// A plan, and its Secrets after all were read.
    fn all_read() -> (PoolPlan, SecretCache) {
        let plan = plan();
        let mut secrets = SecretCache::new(Duration::from_secs(60));
        secrets.register(&plan);
        let now = Moment::default();
        assert_eq!(secrets.due(now), ["kafka-user", "s3", "webhooks"].map(name));
        assert_eq!(secrets.due(now), []);
        assert_eq!(secrets.hash(&plan, Role::Processor), None);
        let aws = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")];
        assert!(secrets.read(
            &name("kafka-user"),
            secret(&[("username", "u"), ("password", "p")]),
            now
        ));
        assert!(secrets.read(&name("s3"), secret(&aws), now));
        assert!(secrets.read(&name("webhooks"), secret(&[("secret", "w")]), now));
        (plan, secrets)
    }

    #[test]
    fn an_unreadable_secret_is_reported_unless_it_was_read_before() {
        let mut secrets = SecretCache::new(Duration::from_secs(60));
        secrets.register(&plan());
        let (name, now) = (name("kafka-user"), Moment::default());
        let refused = || Err("secrets is forbidden".to_owned());
        assert_eq!(secrets.state(&name), SecretState::NotYet);
        assert!(secrets.read(&name, refused(), now));
        assert!(!secrets.read(&name, refused(), now));
        let failed =
            SecretState::Failed("Secret media/kafka-user could not be read: secrets is forbidden".into());
        assert_eq!(secrets.state(&name), failed);
        assert!(secrets.read(&name, secret(&[("username", "u"), ("password", "p")]), now));
        assert_eq!(secrets.state(&name), SecretState::Done);
        // Contents are kept while the Secret cannot be read again.
        assert!(!secrets.read(&name, refused(), now));
        assert_eq!(secrets.state(&name), SecretState::Done);
    }

    #[test]
    fn changed_contents_change_the_hash_of_the_roles_that_use_them() {
        let (plan, mut secrets) = all_read();
        let hashes =
            |secrets: &SecretCache| Role::ALL.map(|role| secrets.hash(&plan, role).expect("all were read"));
        let before = hashes(&secrets);
        let now = Moment::default();
        // Secret keys that no worker reads do not change the hash.
        assert!(secrets.read(&name("webhooks"), secret(&[("secret", "w"), ("more", "x")]), now));
        assert_eq!(hashes(&secrets), before);
        assert!(secrets.read(&name("webhooks"), secret(&[("secret", "rotated")]), now));
        let after = hashes(&secrets);
        assert_eq!(after[0], before[0]);
        assert_ne!(after[1], before[1]);
        assert!(secrets.read(
            &name("kafka-user"),
            secret(&[("username", "u"), ("password", "q")]),
            now
        ));
        assert_ne!(hashes(&secrets)[0], before[0]);
    }

    #[test]
    fn a_secret_that_is_missing_gives_no_hash() {
        let (plan, mut secrets) = all_read();
        let now = Moment::default();
        assert!(secrets.read(&name("s3"), Ok(None), now));
        assert_eq!(secrets.hash(&plan, Role::Processor), None);
        // A missing Secret is read again soon, the others after `refresh`.
        assert_eq!(secrets.due(now + Duration::from_secs(5)), [name("s3")]);
        assert_eq!(
            secrets.due(now + Duration::from_secs(60)),
            ["kafka-user", "webhooks"].map(name)
        );
        secrets.retain(std::iter::empty());
        assert_eq!(secrets.due(now + Duration::from_secs(600)), []);
    }
}
