//! Spec of the connection to Kafka.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Connection to Kafka.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.sasl) || self.sasl.mechanism != 'PLAIN' || has(self.tls)",
        "message": "PLAIN sends the password in clear text, and this connection is not encrypted; \
                    fix: add kafka.tls (tls: {} uses the system trust store), or use SCRAM-SHA-512"
    },
    {
        "rule": "!has(self.sasl) || !(self.sasl.mechanism in ['OAUTHBEARER', 'AWS_MSK_IAM']) || has(self.tls)",
        "message": "OAUTHBEARER and AWS_MSK_IAM send a token in clear text, and this connection is not encrypted; \
                    fix: add kafka.tls (tls: {} uses the system trust store)"
    },
    {
        "rule": "!has(self.sasl) || self.sasl.mechanism != 'AWS_MSK_IAM' || has(self.sasl.aws) || \
                 self.bootstrapServers.matches('[.]kafka(-serverless)?[.][a-z0-9-]+[.]amazonaws[.]com([.]cn)?:')",
        "message": "AWS_MSK_IAM needs the AWS region of the brokers, and their names do not contain it; \
                    fix: set kafka.sasl.aws.region",
        "fieldPath": ".sasl.aws"
    },
    {
        "rule": "(has(self.tls) ? !self.bootstrapServers.matches('(^|,)(SASL_)?PLAINTEXT://') \
                                : !self.bootstrapServers.matches('(^|,)(SASL_)?SSL://')) && \
                 (has(self.sasl) ? !self.bootstrapServers.matches('(^|,)(SSL|PLAINTEXT)://') \
                                 : !self.bootstrapServers.matches('(^|,)SASL_(SSL|PLAINTEXT)://')) && \
                 !(self.bootstrapServers.contains('://') && self.bootstrapServers.matches('(^|,)[^,/]+(,|$)'))",
        "message": "a prefix in bootstrapServers contradicts kafka.tls, kafka.sasl or a server without prefix; \
                    fix: write before each server SASL_SSL:// with both, SSL:// with tls, SASL_PLAINTEXT:// with \
                    sasl, PLAINTEXT:// with neither, or no prefix",
        "fieldPath": ".bootstrapServers"
    }
]))]
pub struct KafkaSpec {
    /// Brokers to connect to first, as host:port, comma separated, such as kafka.media.svc:9092. Use complete names:
    /// the operator resolves them from its own namespace. A prefix such as SASL_SSL:// is accepted if all servers have
    /// it and it agrees with tls and sasl.
    #[schemars(
        length(min = 3, max = 2048),
        regex(
            pattern = r"^((SASL_)?(SSL|PLAINTEXT)://)?[^,/\s]+:[0-9]+(,((SASL_)?(SSL|PLAINTEXT)://)?[^,/\s]+:[0-9]+)*$"
        )
    )]
    pub bootstrap_servers: String,
    /// Encrypts connections to Kafka. {} uses the system trust store; where CAs were set before, server-side apply needs
    /// {trustedCertificateSecretRefs: []}. Default: no encryption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
    /// SASL authentication, with a password or a token. Default: no authentication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl: Option<SaslSpec>,
    /// Producers of the workers and the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producer: Option<ProducerSpec>,
}

/// Producers of the workers and the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProducerSpec {
    /// Kafka enable.idempotence: whether brokers drop duplicates that a retry of a producer causes. Set it to false for
    /// brokers that do not support it. Default: true.
    #[serde(default = "idempotence")]
    pub idempotence: bool,
}

/// TLS: trusted CA certificates and the client certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsSpec {
    /// Secrets with the CA certificates (PEM) that broker certificates are verified with; certificates of any of them
    /// are trusted. Default: the system trust store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub trusted_certificate_secret_refs: Vec<CertificateSecretRef>,
    /// Secret with a client certificate and its private key (PEM), if the brokers require one. For a KafkaUser of
    /// Strimzi: its Secret, with certificateKey user.crt and privateKeyKey user.key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<ClientCertificateSecretRef>,
}

/// A Secret in the pool's namespace with CA certificates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSecretRef {
    /// Name of the Secret. For a Kafka of Strimzi: CLUSTER-cluster-ca-cert.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Secret key with the certificates. Default: ca.crt.
    #[serde(default = "ca_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A Secret in the pool's namespace with a client certificate, by default with the keys of a kubernetes.io/tls Secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificateSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Secret key with the certificate. Default: tls.crt.
    #[serde(default = "certificate_key")]
    #[schemars(length(min = 1, max = 253))]
    pub certificate_key: String,
    /// Secret key with the private key. Default: tls.key.
    #[serde(default = "private_key_key")]
    #[schemars(length(min = 1, max = 253))]
    pub private_key_key: String,
}

/// SASL authentication.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.mechanism in ['OAUTHBEARER', 'AWS_MSK_IAM'] || has(self.username) != has(self.usernameSecretRef)",
        "message": "the user name is written here or read from a Secret; \
                    fix: set exactly one of username and usernameSecretRef"
    },
    {
        "rule": "self.mechanism in ['OAUTHBEARER', 'AWS_MSK_IAM'] || has(self.passwordSecretRef)",
        "message": "PLAIN and SCRAM need a password; \
                    fix: set passwordSecretRef, or the mechanism OAUTHBEARER or AWS_MSK_IAM"
    },
    {
        "rule": "!(self.mechanism in ['OAUTHBEARER', 'AWS_MSK_IAM']) || \
                 !(has(self.username) || has(self.usernameSecretRef) || has(self.passwordSecretRef))",
        "message": "OAUTHBEARER and AWS_MSK_IAM use a token and no password; \
                    fix: remove username, usernameSecretRef and passwordSecretRef, or set the mechanism SCRAM-SHA-512"
    },
    {
        "rule": "(self.mechanism == 'OAUTHBEARER') == has(self.oauth)",
        "message": "the mechanism OAUTHBEARER needs oauth, and no other mechanism uses it; \
                    fix: set both, or remove oauth"
    },
    {
        "rule": "self.mechanism == 'AWS_MSK_IAM' || !has(self.aws)",
        "message": "only the mechanism AWS_MSK_IAM uses aws; fix: set that mechanism, or remove aws"
    }
]))]
pub struct SaslSpec {
    /// SCRAM-SHA-512, SCRAM-SHA-256, or PLAIN with a password; OAUTHBEARER with a token, by oauth; AWS_MSK_IAM with the
    /// pod's AWS identity. All but SCRAM only with kafka.tls. Default: SCRAM-SHA-512.
    #[serde(default)]
    pub mechanism: MechanismSpec,
    /// User name. With a password, set either this or usernameSecretRef.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub username: Option<String>,
    /// Secret with the user name. With a password, set either this or username.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username_secret_ref: Option<UsernameSecretRef>,
    /// Secret with the password, such as the Secret of a Strimzi KafkaUser.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<PasswordSecretRef>,
    /// Where the tokens of OAUTHBEARER come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oauth: Option<OauthSpec>,
    /// AWS region of the brokers, for AWS_MSK_IAM. Default: the region in the names of the brokers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsSpec>,
}

/// SASL mechanism.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MechanismSpec {
    /// The password is never sent.
    #[default]
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// The password is never sent.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The password is sent in clear text.
    #[serde(rename = "PLAIN")]
    Plain,
    /// A token is sent in clear text.
    #[serde(rename = "OAUTHBEARER")]
    OauthBearer,
    /// A token that is signed with AWS credentials, for Amazon MSK, is sent in clear text.
    #[serde(rename = "AWS_MSK_IAM")]
    AwsMskIam,
}

/// Tokens from an OAuth 2 token endpoint, or the token of the pods' service account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.tokenEndpoint) != has(self.serviceAccountToken)",
        "message": "tokens come from a token endpoint or are those of the pods' service account; \
                    fix: set exactly one of tokenEndpoint and serviceAccountToken"
    },
    {
        "rule": "!has(self.tokenEndpoint) || \
                 (has(self.clientID) != has(self.clientIDSecretRef) && has(self.clientSecretRef))",
        "message": "a token endpoint needs the ID and the secret of a client; \
                    fix: set exactly one of clientID and clientIDSecretRef, and clientSecretRef"
    },
    {
        "rule": "!has(self.serviceAccountToken) || has(self.tokenEndpoint) || !(has(self.clientID) || \
                 has(self.clientIDSecretRef) || has(self.clientSecretRef) || has(self.scope) || \
                 has(self.trustedCertificateSecretRefs))",
        "message": "serviceAccountToken needs no token endpoint; fix: remove clientID, clientIDSecretRef, \
                    clientSecretRef, scope and trustedCertificateSecretRefs, or set tokenEndpoint in its place"
    }
]))]
pub struct OauthSpec {
    /// URL of the token endpoint of an OAuth 2 authorization server, such as
    /// `https://login.example/realms/kafka/protocol/openid-connect/token`, for the grant client_credentials. Set either
    /// this or serviceAccountToken.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 2048))]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self.startsWith('https://')",
        "message": "the client secret is sent to the token endpoint, and this address is not encrypted; \
                    fix: write https://HOST/PATH"
    }]))]
    pub token_endpoint: Option<String>,
    /// Client ID for the token endpoint. Set either this or clientIDSecretRef.
    #[serde(rename = "clientID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub client_id: Option<String>,
    /// Secret with the client ID. Set either this or clientID.
    #[serde(rename = "clientIDSecretRef", skip_serializing_if = "Option::is_none")]
    pub client_id_secret_ref: Option<ClientIdSecretRef>,
    /// Secret with the client secret for the token endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret_ref: Option<ClientSecretRef>,
    /// Scope that is requested from the token endpoint. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub scope: Option<String>,
    /// Secrets with the CA certificates (PEM) that the certificate of the token endpoint is verified with. Default: the
    /// system trust store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub trusted_certificate_secret_refs: Vec<CertificateSecretRef>,
    /// Token of the pods' service account, which Kubernetes renews; the brokers must trust the cluster's issuer. Set
    /// either this or tokenEndpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_token: Option<ServiceAccountTokenSpec>,
    /// SASL extensions that the operator sends with each token, such as {logicalCluster: lkc-1}. Workers and the API
    /// cannot send extensions yet, so brokers must not require them. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "extensions")]
    pub extensions: BTreeMap<String, String>,
}

/// A token of the pods' service account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountTokenSpec {
    /// Audience of the token, which the brokers expect, such as kafka. The operator's settings must list it
    /// (identity.audiences of its chart).
    #[schemars(length(min = 1, max = 512))]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "!self.contains('kubernetes.default') && self != 'sts.amazonaws.com'",
        "message": "the Kubernetes API server or AWS accepts tokens of this audience, so the brokers could use them \
                    there; fix: choose an audience of its own for Kafka, such as kafka"
    }]))]
    pub audience: String,
    /// Lifetime of the token, in seconds. Kubernetes renews it after 80 % of it. Default: 3600.
    #[serde(default = "token_expiration_seconds")]
    #[schemars(range(min = 600, max = 86_400))]
    pub expiration_seconds: i32,
}

/// Location of brokers in AWS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsSpec {
    /// Region, such as eu-central-1.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[a-z0-9-]+$"))]
    pub region: String,
}

/// A Secret in the pool's namespace with a user name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsernameSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Secret key with the user name. Default: username.
    #[serde(default = "username_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A Secret in the pool's namespace with a password.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasswordSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Secret key with the password. Default: password.
    #[serde(default = "password_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A Secret in the pool's namespace with a client ID.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientIdSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Secret key with the client ID. Default: clientID.
    #[serde(default = "client_id_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A Secret in the pool's namespace with a client secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Secret key with the client secret. Default: clientSecret.
    #[serde(default = "client_secret_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn extensions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 1_024},
    })
}

fn idempotence() -> bool {
    true
}

fn token_expiration_seconds() -> i32 {
    3_600
}

fn client_id_key() -> String {
    "clientID".into()
}

fn client_secret_key() -> String {
    "clientSecret".into()
}

fn ca_key() -> String {
    "ca.crt".into()
}

fn certificate_key() -> String {
    "tls.crt".into()
}

fn private_key_key() -> String {
    "tls.key".into()
}

pub(super) fn username_key() -> String {
    "username".into()
}

pub(super) fn password_key() -> String {
    "password".into()
}
