//! Signs presigned links with credentials whose end is known. A link is valid only as long as the credentials that it was
//! signed with.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_s3::config::{Builder, Credentials, ProvideCredentials as _, SharedCredentialsProvider};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use tokio::sync::Mutex;
use tokio::time::timeout;
use url::Url;

use crate::error::ErrorClass;
use crate::settings::ObjectAddress;
use crate::storage::StorageError;
use crate::work::chain;

/// The longest validity of a link: S3's limit.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The shortest validity of a link: S3's limit.
const SHORTEST: Duration = Duration::from_secs(1);

/// Credentials that end within this time are renewed before a link is signed. The sources of temporary credentials have
/// new ones by then.
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);

/// Time for the provider to load credentials, during which no other link is signed.
const LOAD_LIMIT: Duration = Duration::from_secs(5);

/// The operation in error messages.
pub(super) const ACTION: &str = "sign a link to";

/// A link that gives access to one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresignedLink {
    /// The link.
    pub url: Url,
    /// When it stops to be valid, in Unix seconds: with temporary credentials, at the latest when they end.
    pub expires_at: u64,
}

/// Signs links for the public endpoint; clones share the credentials.
#[derive(Debug, Clone)]
pub(super) struct Signer {
    pub(super) client: aws_sdk_s3::Client,
    credentials: Arc<LinkCredentials>,
}

/// The credentials that links are signed with.
#[derive(Debug)]
struct LinkCredentials {
    provider: SharedCredentialsProvider,
    /// Those of the last link, if they end.
    temporary: Mutex<Option<Credentials>>,
}

/// How one link is signed.
pub(super) struct Terms {
    credentials: Credentials,
    begins_at: SystemTime,
    /// Whole seconds.
    valid: Duration,
}

impl Signer {
    /// Signs for the endpoint of `config`, with credentials of `provider`.
    pub(super) fn new(config: Builder, provider: SharedCredentialsProvider) -> Self {
        Self {
            client: aws_sdk_s3::Client::from_conf(config.build()),
            credentials: Arc::new(LinkCredentials::new(provider)),
        }
    }

    /// The terms of a link to `address` for the time `valid`, at most a week.
    ///
    /// # Errors
    /// When the credentials cannot be loaded.
    pub(super) async fn terms(
        &self,
        address: &ObjectAddress,
        valid: Duration,
    ) -> Result<Terms, StorageError> {
        let now = SystemTime::now();
        let credentials = self.credentials.load(now).await;
        let credentials = credentials.map_err(|problem| StorageError::Objects {
            action: ACTION,
            location: address.to_string(),
            problem,
            code: "credentials".to_owned(),
            class: ErrorClass::Dependency,
        })?;
        Ok(Terms::new(credentials, now, valid))
    }
}

impl LinkCredentials {
    fn new(provider: SharedCredentialsProvider) -> Self {
        Self {
            provider,
            temporary: Mutex::default(),
        }
    }

    /// The credentials to sign with at `now`: they last for [`RENEW_BEFORE`], or are the newest of the provider.
    ///
    /// # Errors
    /// The reason why the provider has none that are valid at `now`.
    async fn load(&self, now: SystemTime) -> Result<Credentials, String> {
        let mut temporary = self.temporary.lock().await;
        if let Some(current) = temporary.as_ref()
            && ends_after(current, now + RENEW_BEFORE)
        {
            return Ok(current.clone());
        }
        let error = match timeout(LOAD_LIMIT, self.provider.provide_credentials()).await {
            Ok(Ok(new)) if new.expiry().is_none_or(|end| end > now) => {
                *temporary = new.expiry().is_some().then(|| new.clone());
                return Ok(new);
            }
            Ok(Ok(_)) => "the credentials of this worker have expired".to_owned(),
            Ok(Err(error)) => chain(&error),
            Err(_) => format!("no credentials after {} s", LOAD_LIMIT.as_secs()),
        };
        match temporary.as_ref() {
            Some(current) if ends_after(current, now) => {
                tracing::warn!(
                    error,
                    "Cannot renew the credentials of presigned links; signing with the old ones"
                );
                Ok(current.clone())
            }
            _ => Err(error),
        }
    }
}

fn ends_after(credentials: &Credentials, time: SystemTime) -> bool {
    credentials.expiry().is_some_and(|end| end > time)
}

impl Terms {
    fn new(credentials: Credentials, begins_at: SystemTime, valid: Duration) -> Self {
        let left = credentials.expiry().map_or(LONGEST, |end| {
            end.duration_since(begins_at).unwrap_or(Duration::ZERO)
        });
        let valid = valid.min(LONGEST).min(left).max(SHORTEST);
        Self {
            credentials,
            begins_at,
            valid: Duration::from_secs(valid.as_secs()),
        }
    }

    pub(super) fn signed_with(&self) -> Builder {
        Builder::new().credentials_provider(self.credentials.clone())
    }

    pub(super) fn config(&self) -> PresigningConfig {
        let config = PresigningConfig::builder().start_time(self.begins_at);
        let config = config.expires_in(self.valid).build();
        config.expect("it is at most a week")
    }

    pub(super) fn link(&self, signed: &PresignedRequest) -> PresignedLink {
        let begins_at = self.begins_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        PresignedLink {
            url: Url::parse(signed.uri()).expect("the SDK signs absolute URLs"),
            expires_at: begins_at.as_secs() + self.valid.as_secs(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use aws_credential_types::credential_fn::provide_credentials_fn;
    use aws_credential_types::provider::error::CredentialsError;

    use super::*;

    /// Access key ID and end of credentials; `None` if they cannot be loaded.
    type Loaded = Option<(&'static str, Option<SystemTime>)>;

    /// A provider that is called once for each of these.
    fn provider(script: impl IntoIterator<Item = Loaded>) -> SharedCredentialsProvider {
        let script = std::sync::Mutex::new(VecDeque::from_iter(script));
        SharedCredentialsProvider::new(provide_credentials_fn(move || {
            let next = script.lock().unwrap().pop_front().expect("no further call");
            let token = Some("a token".to_owned());
            std::future::ready(match next {
                Some((key, end)) => Ok(Credentials::new(key, "a secret", token, end, "test")),
                None => Err(CredentialsError::not_loaded("no response")),
            })
        }))
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[tokio::test]
    async fn temporary_credentials_are_renewed_five_minutes_before_they_end() {
        let credentials = LinkCredentials::new(provider([
            Some(("first", Some(at(3_600)))),
            Some(("second", Some(at(7_200)))),
            None,
            None,
            Some(("third", Some(at(9_000)))),
            Some(("expired", Some(at(8_700)))),
            Some(("expired", Some(at(9_000)))),
        ]));
        for (now, expected) in [
            (0, Ok("first")),
            (3_299, Ok("first")),
            (3_300, Ok("second")),
            (6_900, Ok("second")),
            (7_200, Err("no response")),
            (7_201, Ok("third")),
            (8_700, Ok("third")),
            (9_000, Err("have expired")),
        ] {
            let loaded = credentials.load(at(now)).await;
            match (loaded, expected) {
                (Ok(loaded), Ok(expected)) => assert_eq!(loaded.access_key_id(), expected, "at {now}"),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "at {now}: {error}"),
                (loaded, _) => panic!("{loaded:?} at {now}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_does_not_respond_costs_no_link_while_the_old_credentials_last() {
        let stalled = SharedCredentialsProvider::new(provide_credentials_fn(std::future::pending));
        let credentials = LinkCredentials::new(stalled);
        let old = Credentials::new("old", "a secret", None, Some(at(3_600)), "test");
        *credentials.temporary.lock().await = Some(old);
        let loaded = credentials.load(at(3_599)).await.expect("credentials");
        assert_eq!(loaded.access_key_id(), "old");
        let error = credentials.load(at(3_600)).await.expect_err("no credentials");
        assert_eq!(error, "no credentials after 5 s");
    }

    #[tokio::test]
    async fn permanent_credentials_may_change_at_any_time() {
        let credentials = LinkCredentials::new(provider([Some(("old", None)), Some(("new", None))]));
        for expected in ["old", "new"] {
            let loaded = credentials.load(at(0)).await.expect("credentials");
            assert_eq!(loaded.access_key_id(), expected);
        }
    }
}
