//! Whose identity the operator authenticates to Kafka with: the pool's or its own. Pure.
//!
//! A pool that names no Secret for Kafka has workers with an identity of their own, which the operator does not have. It
//! uses tokens of the workers' service account if its settings name that account, and otherwise its own identity, but
//! only for brokers that its settings allow: a user who can write a pool must not make the operator authenticate
//! anywhere else.

use std::fmt;
use std::time::Duration;

use separation_kafka::{ReadError, ReadErrorKind, bootstrap_hosts};

use crate::crd::PodFields;
use crate::observe::WorkloadTokens;
use crate::plan::{KafkaPlan, OauthPlan, OauthSource, PoolPlan, SaslPlan, ServiceAccountToken};
use crate::settings::{IdentitySettings, ServiceAccountName};

/// The identity with which the operator authenticates for a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// The pool's Secrets, or none for brokers without authentication.
    Secrets,
    /// The service account of the pool's processors.
    PoolAccount(AccountTokens),
    /// The operator's own service account.
    OwnAccount(AccountTokens),
    /// The AWS credentials of the operator's process.
    OwnAws,
}

/// The proof that a pool uses a consumer group, so that it may hold other pools that name the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupProof {
    /// The broker accepted credentials of the pool.
    Credentials,
    /// Its workers have been members: the broker accepted the operator's own credentials, which prove nothing about the
    /// pool.
    Members,
}

/// Tokens of a service account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AccountTokens {
    pub(super) account: ServiceAccountName,
    pub(super) token: TokenKind,
    /// The chart's value that grants the permission to request them.
    pub(super) granted_by: &'static str,
}

/// A token that Kafka accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// The service account's token itself.
    ServiceAccount {
        /// The audience, which the brokers require.
        audience: String,
        /// The requested lifetime.
        expiration: Duration,
    },
    /// A token of Amazon MSK, signed with credentials of the AWS role that the service account may assume.
    AwsMskIam {
        /// AWS region of the brokers.
        region: String,
    },
}

/// Identifies the tokens: pools with equal texts share a connection to Kafka.
impl fmt::Display for AccountTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let account = &self.account;
        match &self.token {
            TokenKind::ServiceAccount { audience, expiration } => {
                let seconds = expiration.as_secs();
                write!(f, "token of {account} for {seconds} s and audience {audience}")
            }
            TokenKind::AwsMskIam { region } => write!(f, "AWS role of {account} in {region}"),
        }
    }
}

impl Identity {
    /// The identity for a pool.
    ///
    /// # Errors
    /// When the settings do not allow it, with the setting that would.
    pub(super) fn of_pool(plan: &PoolPlan, settings: &IdentitySettings) -> Result<Self, ReadError> {
        let Some(token) = needed_token(&plan.kafka) else {
            return Ok(Self::Secrets);
        };
        let account = ServiceAccountName {
            namespace: plan.id.namespace.clone(),
            name: service_account(&plan.processor.pod).to_owned(),
        };
        if settings.token_accounts.contains(&account) {
            return Ok(Self::PoolAccount(AccountTokens {
                account,
                token,
                granted_by: "identity.serviceAccounts",
            }));
        }
        for host in bootstrap_hosts(&plan.kafka.bootstrap_servers)? {
            let mut brokers = settings.brokers.iter();
            if !brokers.any(|broker| broker.allows(&host, &account.namespace)) {
                return Err(refused(&format!(
                    "the operator must not use its own identity for broker {host} and pools of namespace {}; fix: add \
                     the host to identity.allowedBrokers of the operator's chart, or the pool's service account \
                     {account} to identity.serviceAccounts",
                    account.namespace
                )));
            }
        }
        match token {
            TokenKind::AwsMskIam { .. } => Ok(Self::OwnAws),
            TokenKind::ServiceAccount { audience, .. } if !settings.audiences.contains(&audience) => {
                Err(refused(&format!(
                    "the operator must not use tokens of its own service account with audience {audience}; fix: add it to \
                     identity.audiences of the operator's chart, or the pool's service account {account} to \
                     identity.serviceAccounts"
                )))
            }
            TokenKind::ServiceAccount { .. } => Ok(Self::OwnAccount(AccountTokens {
                account: settings.own.clone(),
                token,
                granted_by: "identity.audiences",
            })),
        }
    }

    /// The tokens for the settings of a cluster.
    pub(super) fn workload_tokens(&self) -> WorkloadTokens {
        match self {
            Self::Secrets => WorkloadTokens::None,
            Self::OwnAws => WorkloadTokens::OwnAws,
            Self::PoolAccount(tokens) | Self::OwnAccount(tokens) => WorkloadTokens::External {
                name: tokens.to_string(),
            },
        }
    }

    /// The service account's tokens that must be requested, if any.
    pub(super) fn into_account_tokens(self) -> Option<AccountTokens> {
        match self {
            Self::Secrets | Self::OwnAws => None,
            Self::PoolAccount(tokens) | Self::OwnAccount(tokens) => Some(tokens),
        }
    }
}

impl GroupProof {
    /// The proof that a pool needs.
    pub(super) fn for_pool(plan: &PoolPlan, settings: &IdentitySettings) -> Self {
        match Identity::of_pool(plan, settings) {
            Ok(Identity::Secrets | Identity::PoolAccount(_)) => Self::Credentials,
            Ok(Identity::OwnAccount(_) | Identity::OwnAws) | Err(_) => Self::Members,
        }
    }
}

/// The token that the workers authenticate with; none if they use Secrets or no credentials.
fn needed_token(kafka: &KafkaPlan) -> Option<TokenKind> {
    match kafka.sasl.as_ref()? {
        SaslPlan::Password(_)
        | SaslPlan::Oauth(OauthPlan {
            source: OauthSource::ClientCredentials(_),
            ..
        }) => None,
        SaslPlan::Oauth(OauthPlan {
            source: OauthSource::ServiceAccount(ServiceAccountToken { audience, expiration }),
            ..
        }) => Some(TokenKind::ServiceAccount {
            audience: audience.clone(),
            expiration: *expiration,
        }),
        SaslPlan::AwsIam { region } => Some(TokenKind::AwsMskIam {
            region: region.clone(),
        }),
    }
}

/// The service account of the pods with these fields: the template is merged over the typed fields.
fn service_account(fields: &PodFields) -> &str {
    let template = fields.pod_template.0.get("spec");
    let template = template.and_then(|spec| spec.get("serviceAccountName")?.as_str());
    let named = template.or(fields.service_account_name.as_deref());
    named.filter(|name| !name.is_empty()).unwrap_or("default")
}

fn refused(why: &str) -> ReadError {
    ReadError::with_kind(why, ReadErrorKind::Unauthorized)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use clap::Parser;

    use super::*;
    use crate::apply::Manifest;
    use crate::crd::from_yaml;
    use crate::plan::{Model, Role};
    use crate::settings::{Allowance, IdentityArguments, WorkerSettings};

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        identity: IdentityArguments,
    }

    fn settings(arguments: &str) -> IdentitySettings {
        let arguments = std::iter::once("operator").chain(arguments.split_whitespace());
        let command = Command::try_parse_from(arguments).expect("arguments");
        command.identity.settings("tools").expect("settings")
    }

    fn plan(servers: &str, sasl: &str, processor: &str) -> PoolPlan {
        let yaml = format!(
            "
apiVersion: separation.dev/v1beta1
kind: SeparationPool
metadata: {{name: vocals, namespace: media}}
spec:
  kafka: {{bootstrapServers: '{servers}', tls: {{}}, sasl: {sasl}}}
  storage: {{stems: {{bucket: stems}}, staging: {{s3: {{}}}}}}
  processor: {{{processor}}}
"
        );
        PoolPlan::from_pool(&from_yaml(&yaml).unwrap()).unwrap()
    }

    const PASSWORD: &str = "{username: u, passwordSecretRef: {name: kafka-user}}";
    const CLIENT_CREDENTIALS: &str = "{mechanism: OAUTHBEARER, oauth: {tokenEndpoint: 'https://sso.example/token', \
                                      clientID: c, clientSecretRef: {name: kafka-client}}}";
    const ACCOUNT: &str = "{mechanism: OAUTHBEARER, oauth: {serviceAccountToken: {audience: kafka}}}";
    const AWS: &str = "{mechanism: AWS_MSK_IAM, aws: {region: eu-central-1}}";

    #[track_caller]
    fn check(servers: &str, sasl: &str, arguments: &str, expected: Result<&str, &str>) {
        let plan = plan(servers, sasl, "serviceAccountName: vocals");
        let settings = settings(arguments);
        let found = Identity::of_pool(&plan, &settings).map(|identity| match identity {
            Identity::Secrets => "secrets".to_owned(),
            Identity::PoolAccount(tokens) => format!("pool: {tokens}"),
            Identity::OwnAccount(tokens) => format!("own: {tokens}"),
            Identity::OwnAws => "own AWS".to_owned(),
        });
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{arguments}"),
            (Err(refused), Err(expected)) => {
                assert_eq!(refused.kind, ReadErrorKind::Unauthorized);
                let message = refused.to_string();
                assert!(
                    message.starts_with(expected) && message.contains("; fix: add"),
                    "{message}"
                );
            }
            (found, _) => panic!("{servers} {sasl} {arguments} gave {found:?}"),
        }
    }

    #[test]
    fn the_operator_uses_its_own_identity_only_for_allowed_brokers_and_audiences() {
        let broker = |host: &str| {
            format!(
                "the operator must not use its own identity for broker {host} and pools of namespace media"
            )
        };
        let pool_token = "pool: token of media/vocals for 3600 s and audience kafka";
        let own_token = "own: token of tools/separation-operator for 3600 s and audience kafka";
        let both = "--identity-brokers a,*.svc@media --identity-audiences kafka";
        let account = "--token-service-accounts media/vocals";
        // Secrets of the pool need no permission.
        for sasl in [PASSWORD, CLIENT_CREDENTIALS] {
            check("a:1", sasl, "", Ok("secrets"));
        }
        check("a:1", AWS, "", Err(&broker("a")));
        check("a:1", ACCOUNT, "--identity-audiences kafka", Err(&broker("a")));
        check("a:1", AWS, "--identity-brokers a", Ok("own AWS"));
        check("a:1,b.svc:1", ACCOUNT, both, Ok(own_token));
        // Every bootstrap server must be allowed, and for this namespace.
        check("a:1,evil:1", AWS, both, Err(&broker("evil")));
        check("a:1", AWS, "--identity-brokers a@podcasts", Err(&broker("a")));
        let audience = "the operator must not use tokens of its own service account with audience kafka";
        for arguments in [
            "--identity-brokers a",
            "--identity-brokers a --identity-audiences another",
        ] {
            check("a:1", ACCOUNT, arguments, Err(audience));
        }
        // The pool's own service account precedes, and needs no broker.
        for others in ["", both] {
            let arguments = format!("{account} {others}");
            check("a:1", ACCOUNT, &arguments, Ok(pool_token));
            check(
                "a:1",
                AWS,
                &arguments,
                Ok("pool: AWS role of media/vocals in eu-central-1"),
            );
        }
        let others = "--token-service-accounts media/uploads,podcasts/vocals";
        check("a:1", ACCOUNT, others, Err(&broker("a")));
    }

    #[test]
    fn a_group_is_proven_by_credentials_of_the_pool_or_by_its_members() {
        let own = settings("--identity-brokers a --identity-audiences kafka");
        let pool = settings("--token-service-accounts media/default");
        for (sasl, settings, expected) in [
            (PASSWORD, &own, GroupProof::Credentials),
            (ACCOUNT, &pool, GroupProof::Credentials),
            (ACCOUNT, &own, GroupProof::Members),
            (AWS, &own, GroupProof::Members),
            (AWS, &IdentitySettings::default(), GroupProof::Members),
        ] {
            let found = GroupProof::for_pool(&plan("a:1", sasl, ""), settings);
            assert_eq!(found, expected, "{sasl}");
        }
    }

    #[test]
    fn only_an_identity_of_the_workers_own_needs_a_token() {
        let account = TokenKind::ServiceAccount {
            audience: "kafka".to_owned(),
            expiration: Duration::from_secs(3_600),
        };
        let aws = TokenKind::AwsMskIam {
            region: "eu-central-1".to_owned(),
        };
        for (sasl, expected) in [
            (PASSWORD, None),
            (CLIENT_CREDENTIALS, None),
            (ACCOUNT, Some(account)),
            (AWS, Some(aws)),
        ] {
            assert_eq!(needed_token(&plan("a:1", sasl, "").kafka), expected, "{sasl}");
        }
    }

    #[test]
    fn the_service_account_is_that_of_the_processors_pods() {
        let workers = Arc::new(WorkerSettings {
            image: "worker".to_owned(),
            image_pull_secrets: Vec::new(),
            model: Model::named("builtin"),
            allowed: BTreeSet::from([Allowance::ServiceAccount]),
            audiences: BTreeSet::new(),
        });
        for processor in [
            "",
            "serviceAccountName: vocals",
            "podTemplate: {spec: {serviceAccountName: songs}}",
            "serviceAccountName: vocals, podTemplate: {spec: {serviceAccountName: songs}}",
        ] {
            let plan = Arc::new(plan("a:1", PASSWORD, processor));
            let manifest = Manifest::new(Arc::clone(&plan), Role::Processor, Arc::clone(&workers));
            let pod = manifest.deployment(0).expect("a Deployment").spec.template.spec;
            let expected = pod.expect("a pod").service_account_name;
            assert_eq!(Some(service_account(&plan.processor.pod)), expected.as_deref());
        }
    }
}
