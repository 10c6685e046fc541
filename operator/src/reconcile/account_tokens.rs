//! Requests tokens of service accounts, with which the operator authenticates to Kafka. Decides nothing.
//!
//! The fenced client sends the requests, so only the leader requests tokens.

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use separation_daemon::chain;
use separation_kafka::{
    FetchToken, ReadError, ReadErrorKind, SecretText, Token, msk_token, web_identity_credentials,
};

use super::api_writer::ApiWriter;
use super::identity::{AccountTokens, TokenKind};
use crate::lease::{api_error_text, fenced};

/// Audience of a service account's token for AWS.
const AWS_AUDIENCE: &str = "sts.amazonaws.com";

/// Lifetime of a service account's token for AWS, which is used once; the shortest that the API server accepts.
const AWS_EXPIRATION: Duration = Duration::from_secs(600);

/// Annotation of a service account: the AWS role that it may assume (IRSA).
const ROLE_ARN: &str = "eks.amazonaws.com/role-arn";

/// Name of the operator's sessions in AWS's audit log.
const SESSION_NAME: &str = "separation-operator";

/// Fetches tokens of one service account.
pub(super) struct AccountTokenFetcher {
    writer: ApiWriter,
    tokens: AccountTokens,
}

/// A service account's token, and when it expires.
type AccountToken = (SecretText, SystemTime);

impl fmt::Debug for AccountTokenFetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountTokenFetcher")
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl FetchToken for AccountTokenFetcher {
    async fn fetch(&self) -> Result<Token, ReadError> {
        match &self.tokens.token {
            TokenKind::ServiceAccount { audience, expiration } => {
                let (text, expires) = self.request(audience, *expiration).await?;
                let account = &self.tokens.account;
                Ok(Token {
                    text,
                    principal: format!("system:serviceaccount:{}:{}", account.namespace, account.name),
                    expires,
                })
            }
            TokenKind::AwsMskIam { region } => {
                let role = self.role().await?;
                let (token, _) = self.request(AWS_AUDIENCE, AWS_EXPIRATION).await?;
                let credentials =
                    web_identity_credentials(&role, token.expose(), region, SESSION_NAME).await?;
                msk_token(region, &credentials, SystemTime::now())
            }
        }
    }
}

impl AccountTokenFetcher {
    pub(super) fn new(writer: ApiWriter, tokens: AccountTokens) -> Self {
        Self { writer, tokens }
    }

    /// Requests a token of the service account.
    async fn request(&self, audience: &str, expiration: Duration) -> Result<AccountToken, ReadError> {
        let _permit = self.writer.others.acquire().await;
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(vec![audience.to_owned()]),
                expiration_seconds: i64::try_from(expiration.as_secs()).ok(),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let name = &self.tokens.account.name;
        let requested = self
            .accounts()
            .create_token_request(name, &PostParams::default(), &request)
            .await;
        let status = requested.map_err(|error| self.failure(&error))?.status;
        let token =
            status.and_then(|status| Some((status.token?.into(), status.expiration_timestamp?.0.into())));
        token.ok_or_else(|| {
            let why = "the API server's response to a TokenRequest has no token";
            ReadError::with_kind(why, ReadErrorKind::Malformed)
        })
    }

    /// The AWS role that the service account may assume.
    async fn role(&self) -> Result<String, ReadError> {
        let _permit = self.writer.others.acquire().await;
        let found = self.accounts().get_metadata(&self.tokens.account.name).await;
        let annotations = found.map_err(|error| self.failure(&error))?.metadata.annotations;
        let role = annotations.and_then(|mut annotations| annotations.remove(ROLE_ARN));
        role.ok_or_else(|| {
            let account = &self.tokens.account;
            let why = format!(
                "service account {account} has no annotation {ROLE_ARN}, so the operator cannot use its AWS role; fix: \
                 add it, or remove the account from {} of the operator's chart and add the brokers to \
                 identity.allowedBrokers",
                self.tokens.granted_by
            );
            ReadError::with_kind(why, ReadErrorKind::Unauthorized)
        })
    }

    fn accounts(&self) -> Api<ServiceAccount> {
        Api::namespaced(self.writer.client.clone(), &self.tokens.account.namespace)
    }

    /// The error for users: what an administrator or a user must correct is `Unauthorized`.
    fn failure(&self, error: &kube::Error) -> ReadError {
        let AccountTokens {
            account, granted_by, ..
        } = &self.tokens;
        if fenced(error).is_some() {
            return ReadError::with_kind("this replica no longer leads", ReadErrorKind::Unreachable);
        }
        let (why, kind) = match error {
            kube::Error::Api(status) if status.code == 403 => (
                format!(
                    "the operator may not use service account {account}: {}; fix: add it with {granted_by} of the \
                     operator's chart",
                    status.message
                ),
                ReadErrorKind::Unauthorized,
            ),
            kube::Error::Api(status) if status.code == 404 => (
                format!(
                    "service account {account} does not exist; fix: create it, or correct \
                     spec.processor.serviceAccountName"
                ),
                ReadErrorKind::Unauthorized,
            ),
            kube::Error::Api(status) if matches!(status.code, 400 | 422) => (
                format!(
                    "the API server refuses a token of service account {account}: {}",
                    api_error_text(error)
                ),
                ReadErrorKind::Unauthorized,
            ),
            _ => (
                format!(
                    "no token of service account {account} was issued: {}",
                    chain(error)
                ),
                ReadErrorKind::Unreachable,
            ),
        };
        ReadError::with_kind(why, kind)
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response, StatusCode};
    use kube::Client;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower::service_fn;

    use super::*;
    use crate::lease::Leadership;
    use crate::settings::ServiceAccountName;

    /// A fetcher with an API server that gives each request this response, after `check` has seen its path and body.
    fn fetcher(
        token: TokenKind,
        code: StatusCode,
        response: &Value,
        check: fn(&str, &Value),
    ) -> AccountTokenFetcher {
        let response = response.to_string();
        let service = service_fn(move |request: Request<Body>| {
            let response = response.clone();
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect_bytes().await?;
                check(&path, &serde_json::from_slice(&body).unwrap_or_default());
                let mut response = Response::new(Body::from(response.into_bytes()));
                *response.status_mut() = code;
                Ok::<_, tower::BoxError>(response)
            }
        });
        let writer = ApiWriter::new(Client::new(service, "default"), Leadership::always("one"));
        let account = ServiceAccountName {
            namespace: "media".to_owned(),
            name: "vocals".to_owned(),
        };
        AccountTokenFetcher::new(
            writer,
            AccountTokens {
                account,
                token,
                granted_by: "identity.serviceAccounts",
            },
        )
    }

    fn for_kafka() -> TokenKind {
        TokenKind::ServiceAccount {
            audience: "kafka".to_owned(),
            expiration: Duration::from_secs(3_600),
        }
    }

    #[tokio::test]
    async fn a_token_is_requested_with_audience_and_lifetime_and_expires_when_the_api_server_decides() {
        let issued = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": {"audiences": ["kafka"]},
            "status": {"token": "a.b.c", "expirationTimestamp": "2026-01-01T00:00:00Z"},
        });
        let fetcher = fetcher(for_kafka(), StatusCode::CREATED, &issued, |path, body| {
            assert_eq!(path, "/api/v1/namespaces/media/serviceaccounts/vocals/token");
            assert_eq!(
                body["spec"],
                json!({"audiences": ["kafka"], "expirationSeconds": 3600})
            );
        });
        let token = fetcher.fetch().await.expect("a token");
        assert_eq!(token.text.expose(), "a.b.c");
        assert_eq!(token.principal, "system:serviceaccount:media:vocals");
        let expires = token.expires.duration_since(SystemTime::UNIX_EPOCH);
        assert_eq!(expires.expect("a time").as_secs(), 1_767_225_600);
    }

    #[tokio::test]
    async fn a_refused_token_names_the_service_account_and_the_fix() {
        let aws = || TokenKind::AwsMskIam {
            region: "eu-central-1".to_owned(),
        };
        let status = |code: u16| json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": "R", "message": "why"});
        let account = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "vocals"}});
        for (token, code, response, expected) in [
            (
                for_kafka(),
                403,
                status(403),
                "the operator may not use service account media/vocals: why; fix: add it with identity.serviceAccounts \
                 of the operator's chart",
            ),
            (
                for_kafka(),
                404,
                status(404),
                "service account media/vocals does not exist; fix: create it, or correct spec.processor.serviceAccountName",
            ),
            (
                for_kafka(),
                422,
                status(422),
                "the API server refuses a token of service account media/vocals: why (422)",
            ),
            (
                aws(),
                200,
                account,
                "service account media/vocals has no annotation eks.amazonaws.com/role-arn, so the operator cannot use its \
                 AWS role; fix: add it, or remove the account from identity.serviceAccounts of the operator's chart and add \
                 the brokers to identity.allowedBrokers",
            ),
        ] {
            let code = StatusCode::from_u16(code).expect("a code");
            let refused = fetcher(token, code, &response, |_, _| {}).fetch().await;
            let refused = refused.expect_err("refused");
            assert_eq!(
                (refused.kind, &*refused.why),
                (ReadErrorKind::Unauthorized, expected)
            );
        }
    }
}
