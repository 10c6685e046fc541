//! Validated SASL authentication: a password, a token of an authorization server or of a service account, or AWS IAM.

use std::collections::BTreeMap;
use std::time::Duration;

use separation_contract::kafka::{SaslMechanism, aws_region, is_aws_region};
use separation_kafka::check_token_endpoint;

use super::checks::Checks;
use super::storage::SecretKey;
use crate::crd::{MechanismSpec, OauthSpec, SaslSpec, ServiceAccountTokenSpec};

const FIELD: &str = "kafka.sasl";
const OAUTH: &str = "kafka.sasl.oauth";

/// The audience of tokens that AWS exchanges for the credentials of a role.
const AWS_AUDIENCE: &str = "sts.amazonaws.com";

/// SASL authentication.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SaslPlan {
    /// A user name and a password.
    Password(PasswordPlan),
    /// A token (`OAUTHBEARER`).
    Oauth(OauthPlan),
    /// A token that is signed with the AWS identity of the process.
    AwsIam {
        /// AWS region of the brokers.
        region: String,
    },
}

/// A user name and a password.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PasswordPlan {
    /// `PLAIN` or a SCRAM mechanism.
    pub mechanism: SaslMechanism,
    /// The user name.
    pub username: Username,
    /// The password.
    pub password: SecretKey,
}

/// A name, such as that of a user or the ID of an OAuth 2 client.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Username {
    /// Written in the pool.
    Text(String),
    /// Read from a Secret.
    Secret(SecretKey),
}

/// Tokens of `OAUTHBEARER`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OauthPlan {
    /// Where they come from.
    pub source: OauthSource,
    /// SASL extensions that the operator sends with each token.
    pub extensions: BTreeMap<String, String>,
}

/// Where tokens come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OauthSource {
    /// A token endpoint.
    ClientCredentials(ClientCredentialsPlan),
    /// The service account of the process.
    ServiceAccount(ServiceAccountToken),
}

/// OAuth 2 client credentials.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientCredentialsPlan {
    /// URL of the token endpoint, with `https`.
    pub endpoint: String,
    /// The client ID.
    pub client_id: Username,
    /// The client secret.
    pub client_secret: SecretKey,
    /// The requested scope.
    pub scope: Option<String>,
    /// CA certificates that the certificate of the token endpoint is verified with; none means the system trust store.
    pub cas: Vec<SecretKey>,
}

/// A token of a service account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAccountToken {
    /// Audience of the token.
    pub audience: String,
    /// Its lifetime.
    pub expiration: Duration,
}

impl Username {
    fn from_spec(text: Option<&String>, secret: Option<SecretKey>) -> Option<Self> {
        match (text, secret) {
            (Some(text), None) => Some(Self::Text(text.clone())),
            (None, Some(key)) => Some(Self::Secret(key)),
            _ => None,
        }
    }

    fn secret_key(&self) -> Option<&SecretKey> {
        match self {
            Self::Text(_) => None,
            Self::Secret(key) => Some(key),
        }
    }
}

impl SaslPlan {
    /// The mechanism.
    pub fn mechanism(&self) -> SaslMechanism {
        match self {
            Self::Password(password) => password.mechanism,
            Self::Oauth(_) => SaslMechanism::OauthBearer,
            Self::AwsIam { .. } => SaslMechanism::AwsMskIam,
        }
    }

    /// All Secret keys that it names.
    pub(super) fn secret_keys(&self) -> Vec<&SecretKey> {
        match self {
            Self::Password(plan) => plan
                .username
                .secret_key()
                .into_iter()
                .chain([&plan.password])
                .collect(),
            Self::Oauth(plan) => match &plan.source {
                OauthSource::ClientCredentials(client) => {
                    let id = client.client_id.secret_key().into_iter();
                    id.chain([&client.client_secret]).chain(&client.cas).collect()
                }
                OauthSource::ServiceAccount(_) => Vec::new(),
            },
            Self::AwsIam { .. } => Vec::new(),
        }
    }

    /// Validates the authentication with the brokers at `addresses`.
    pub(super) fn from_spec(spec: &SaslSpec, addresses: &str, checks: &mut Checks) -> Option<Self> {
        let mechanism = mechanism(spec.mechanism);
        if (mechanism == SaslMechanism::OauthBearer) != spec.oauth.is_some() {
            let problem = "the mechanism OAUTHBEARER needs oauth, and no other mechanism uses it";
            return checks.refuse(FIELD, problem, "set both, or remove oauth");
        }
        if mechanism != SaslMechanism::AwsMskIam && spec.aws.is_some() {
            let problem = "only the mechanism AWS_MSK_IAM uses aws";
            return checks.refuse(FIELD, problem, "set that mechanism, or remove aws");
        }
        let has_user = spec.username.is_some() || spec.username_secret_ref.is_some();
        match mechanism {
            SaslMechanism::OauthBearer | SaslMechanism::AwsMskIam
                if has_user || spec.password_secret_ref.is_some() =>
            {
                let problem = format!("{} uses a token and no password", mechanism.name());
                let fix = "remove username, usernameSecretRef and passwordSecretRef, or set the mechanism \
                           SCRAM-SHA-512";
                checks.refuse(FIELD, problem, fix)
            }
            SaslMechanism::OauthBearer => {
                let plan = oauth_plan(spec.oauth.as_ref()?, checks)?;
                Some(Self::Oauth(plan))
            }
            SaslMechanism::AwsMskIam => {
                let written = spec.aws.as_ref().map(|aws| aws.region.as_str());
                let region = region(written, addresses, checks)?;
                Some(Self::AwsIam { region })
            }
            SaslMechanism::Plain | SaslMechanism::ScramSha256 | SaslMechanism::ScramSha512 => {
                password_plan(mechanism, spec, checks).map(Self::Password)
            }
        }
    }
}

fn mechanism(spec: MechanismSpec) -> SaslMechanism {
    match spec {
        MechanismSpec::Plain => SaslMechanism::Plain,
        MechanismSpec::ScramSha256 => SaslMechanism::ScramSha256,
        MechanismSpec::ScramSha512 => SaslMechanism::ScramSha512,
        MechanismSpec::OauthBearer => SaslMechanism::OauthBearer,
        MechanismSpec::AwsMskIam => SaslMechanism::AwsMskIam,
    }
}

fn password_plan(mechanism: SaslMechanism, spec: &SaslSpec, checks: &mut Checks) -> Option<PasswordPlan> {
    let secret = spec.username_secret_ref.as_ref();
    let secret = secret.map(|secret| SecretKey::new(&secret.name, &secret.key));
    let username = Username::from_spec(spec.username.as_ref(), secret);
    let username = username.or_else(|| {
        let problem = "the user name is written in the pool or read from a Secret";
        let fix = "set exactly one of username and usernameSecretRef";
        checks.refuse(FIELD, problem, fix)
    });
    let password = spec.password_secret_ref.as_ref();
    let password = password.map(|secret| SecretKey::new(&secret.name, &secret.key));
    let password = password.or_else(|| {
        let problem = format!("{} needs a password", mechanism.name());
        let fix = "set passwordSecretRef, or the mechanism OAUTHBEARER or AWS_MSK_IAM";
        checks.refuse(FIELD, problem, fix)
    });
    Some(PasswordPlan {
        mechanism,
        username: username?,
        password: password?,
    })
}

fn region(written: Option<&str>, addresses: &str, checks: &mut Checks) -> Option<String> {
    match written.or_else(|| aws_region(addresses)) {
        Some(region) if is_aws_region(region) => Some(region.to_owned()),
        Some(region) => {
            let problem = format!("`{region}` is not the name of an AWS region");
            checks.refuse("kafka.sasl.aws.region", problem, "write it as in eu-central-1")
        }
        None => {
            let problem =
                "AWS_MSK_IAM needs the AWS region of the brokers, and their names do not contain one region";
            checks.refuse("kafka.sasl.aws", problem, "set kafka.sasl.aws.region")
        }
    }
}

fn oauth_plan(spec: &OauthSpec, checks: &mut Checks) -> Option<OauthPlan> {
    let extensions = extensions(&spec.extensions, checks);
    let source = match (&spec.token_endpoint, &spec.service_account_token) {
        (Some(endpoint), None) => {
            client_credentials(endpoint, spec, checks).map(OauthSource::ClientCredentials)
        }
        (None, Some(token)) => service_account_token(token, spec, checks).map(OauthSource::ServiceAccount),
        _ => {
            let problem = "tokens come from a token endpoint or are those of the pods' service account";
            let fix = "set exactly one of tokenEndpoint and serviceAccountToken";
            checks.refuse(OAUTH, problem, fix)
        }
    };
    Some(OauthPlan {
        source: source?,
        extensions: extensions?,
    })
}

fn client_credentials(
    endpoint: &str,
    spec: &OauthSpec,
    checks: &mut Checks,
) -> Option<ClientCredentialsPlan> {
    let is_valid = check_token_endpoint(endpoint).is_ok();
    if !is_valid {
        let problem = "the client secret is sent to the token endpoint, and this is not an encrypted address";
        let fix = "write https://HOST/PATH, without user name, password and fragment";
        let _: Option<()> = checks.refuse("kafka.sasl.oauth.tokenEndpoint", problem, fix);
    }
    let secret = spec.client_id_secret_ref.as_ref();
    let secret = secret.map(|secret| SecretKey::new(&secret.name, &secret.key));
    let client_id = Username::from_spec(spec.client_id.as_ref(), secret);
    let Some((client_id, client_secret)) = client_id.zip(spec.client_secret_ref.as_ref()) else {
        let problem = "a token endpoint needs the ID and the secret of a client";
        let fix = "set exactly one of clientID and clientIDSecretRef, and clientSecretRef";
        return checks.refuse(OAUTH, problem, fix);
    };
    let cas = spec.trusted_certificate_secret_refs.iter();
    is_valid.then(|| ClientCredentialsPlan {
        endpoint: endpoint.to_owned(),
        client_id,
        client_secret: SecretKey::new(&client_secret.name, &client_secret.key),
        scope: spec.scope.clone(),
        cas: cas.map(|ca| SecretKey::new(&ca.name, &ca.key)).collect(),
    })
}

fn service_account_token(
    token: &ServiceAccountTokenSpec,
    spec: &OauthSpec,
    checks: &mut Checks,
) -> Option<ServiceAccountToken> {
    let has_client = spec.client_id.is_some()
        || spec.client_id_secret_ref.is_some()
        || spec.client_secret_ref.is_some()
        || spec.scope.is_some()
        || !spec.trusted_certificate_secret_refs.is_empty();
    if has_client {
        let problem = "serviceAccountToken needs no token endpoint";
        let fix = "remove clientID, clientIDSecretRef, clientSecretRef, scope and trustedCertificateSecretRefs, or set \
                   tokenEndpoint in its place";
        return checks.refuse(OAUTH, problem, fix);
    }
    let ServiceAccountTokenSpec {
        audience,
        expiration_seconds,
    } = token;
    // Other audiences of the API server are unknown here: the operator's settings list those that pods may have.
    if audience.is_empty() || audience.contains("kubernetes.default") || audience == AWS_AUDIENCE {
        let problem = "the Kubernetes API server or AWS accepts tokens of this audience, so the brokers could use them \
                       there";
        let fix = "choose an audience of its own for Kafka, such as kafka";
        return checks.refuse("kafka.sasl.oauth.serviceAccountToken.audience", problem, fix);
    }
    let field = "kafka.sasl.oauth.serviceAccountToken.expirationSeconds";
    let seconds = checks.integer(field, (*expiration_seconds).into(), 600..=86_400)?;
    Some(ServiceAccountToken {
        audience: audience.clone(),
        expiration: Duration::from_secs(seconds),
    })
}

/// Names of SASL extensions have only letters, and `auth` is the token itself (RFC 7628).
fn extensions(written: &BTreeMap<String, String>, checks: &mut Checks) -> Option<BTreeMap<String, String>> {
    let is_valid = |(name, value): (&String, &String)| {
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
        let is_value = !value.is_empty() && value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        is_name && is_value && name != "auth"
    };
    match written.iter().find(|extension| !is_valid(*extension)) {
        None => Some(written.clone()),
        Some((name, _)) => {
            let problem = format!("`{name}` is not a valid SASL extension");
            let fix = "use letters for its name, but not auth, and printable ASCII for its value";
            checks.refuse("kafka.sasl.oauth.extensions", problem, fix)
        }
    }
}
