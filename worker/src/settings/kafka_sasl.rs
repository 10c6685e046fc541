//! Settings of authentication at the brokers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};
use separation_contract::environment as env;
use separation_contract::kafka::{SaslMechanism, aws_region};
use separation_kafka::{ClientCredentials, TokenOrigin, TokenSettings, check_token_endpoint};

use super::SettingError;
use super::certificates::trusted;

/// The fix for settings of `OAUTHBEARER` that are incomplete or contradict each other.
const OAUTH_FIX: &str = "set KAFKA_OAUTH_TOKEN_ENDPOINT, KAFKA_OAUTH_CLIENT_ID and KAFKA_OAUTH_CLIENT_SECRET, or only \
                         KAFKA_OAUTH_TOKEN_FILE";

/// Options for authentication at the brokers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kafka")]
pub(super) struct SaslArguments {
    /// PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or AWS_MSK_IAM [default: SCRAM-SHA-512 with a username]
    #[arg(long, env = env::KAFKA_SASL_MECHANISM, value_name = "MECHANISM")]
    sasl_mechanism: Option<SaslMechanism>,
    /// SASL username
    #[arg(long, env = env::KAFKA_SASL_USERNAME, value_name = "NAME")]
    sasl_username: Option<String>,
    /// SASL password; prefer the environment variable
    #[arg(long, env = env::KAFKA_SASL_PASSWORD, hide_env_values = true, value_name = "PASSWORD")]
    sasl_password: Option<SecretString>,
    /// Token endpoint that issues tokens for client credentials, https only (OAUTHBEARER)
    #[arg(long, env = env::KAFKA_OAUTH_TOKEN_ENDPOINT, value_name = "URL")]
    oauth_token_endpoint: Option<String>,
    /// Client ID for the token endpoint
    #[arg(long, env = env::KAFKA_OAUTH_CLIENT_ID, value_name = "ID")]
    oauth_client_id: Option<String>,
    /// Client secret for the token endpoint; prefer the environment variable
    #[arg(long, env = env::KAFKA_OAUTH_CLIENT_SECRET, hide_env_values = true, value_name = "SECRET")]
    oauth_client_secret: Option<SecretString>,
    /// Scope to request from the token endpoint
    #[arg(long, env = env::KAFKA_OAUTH_SCOPE, value_name = "SCOPE")]
    oauth_scope: Option<String>,
    /// CA certificates (PEM) that verify the token endpoint [default: the system's trust store]
    #[arg(long, env = env::KAFKA_OAUTH_CA_LOCATION, value_name = "FILE")]
    oauth_ca: Option<PathBuf>,
    /// File with a token (JWT) that another process renews, in place of a token endpoint (OAUTHBEARER)
    #[arg(long, env = env::KAFKA_OAUTH_TOKEN_FILE, value_name = "FILE")]
    oauth_token_file: Option<PathBuf>,
    /// AWS region of the brokers (AWS_MSK_IAM) [default: that in the brokers' names, else AWS_REGION]
    #[arg(long, env = env::KAFKA_AWS_REGION, value_name = "REGION")]
    kafka_aws_region: Option<String>,
    /// AWS region of the brokers if their names contain none
    #[arg(long, env = env::AWS_REGION, value_name = "REGION", hide = true)]
    kafka_aws_default_region: Option<String>,
}

/// SASL credentials.
#[derive(Debug, Clone)]
pub enum Sasl {
    /// A username and a password.
    Password {
        /// `PLAIN` or a SCRAM mechanism.
        mechanism: SaslMechanism,
        /// The username.
        username: String,
        /// The password.
        password: SecretString,
    },
    /// A token that is renewed.
    Token(TokenSettings),
}

impl SaslArguments {
    /// Validates the options. `servers` are the brokers, whose names may contain an AWS region.
    ///
    /// # Errors
    /// When they contradict each other, one needs another that is missing, or a file does not exist.
    pub(super) fn settings(&self, servers: &str) -> Result<Option<Sasl>, SettingError> {
        self.check_unused()?;
        let origin = match self.sasl_mechanism {
            Some(SaslMechanism::OauthBearer) => self.oauth()?,
            Some(SaslMechanism::AwsMskIam) => TokenOrigin::AwsMskIam {
                region: self.region(servers)?,
            },
            Some(SaslMechanism::Plain | SaslMechanism::ScramSha256 | SaslMechanism::ScramSha512) | None => {
                return self.password();
            }
        };
        Ok(Some(Sasl::Token(TokenSettings {
            origin,
            extensions: BTreeMap::new(),
        })))
    }

    /// Refuses options that the mechanism does not use: they show that another one is meant.
    fn check_unused(&self) -> Result<(), SettingError> {
        let password = [
            (env::KAFKA_SASL_USERNAME, self.sasl_username.is_some()),
            (env::KAFKA_SASL_PASSWORD, self.sasl_password.is_some()),
        ];
        let oauth = [
            (
                env::KAFKA_OAUTH_TOKEN_ENDPOINT,
                self.oauth_token_endpoint.is_some(),
            ),
            (env::KAFKA_OAUTH_TOKEN_FILE, self.oauth_token_file.is_some()),
        ];
        let mechanism = self.sasl_mechanism.unwrap_or(SaslMechanism::ScramSha512);
        let unused = match mechanism {
            SaslMechanism::OauthBearer => password.to_vec(),
            SaslMechanism::AwsMskIam => [password, oauth].concat(),
            SaslMechanism::Plain | SaslMechanism::ScramSha256 | SaslMechanism::ScramSha512 => oauth.to_vec(),
        };
        match unused.iter().find(|(_, is_set)| *is_set) {
            None => Ok(()),
            Some(&(name, _)) => {
                let problem = format!("{} does not use it", mechanism.name());
                let fix = "set KAFKA_SASL_MECHANISM to a mechanism that uses it, or unset it";
                Err(SettingError::new(name, problem, fix))
            }
        }
    }

    fn password(&self) -> Result<Option<Sasl>, SettingError> {
        match (&self.sasl_mechanism, &self.sasl_username, &self.sasl_password) {
            (None, None, None) => Ok(None),
            (mechanism, Some(username), Some(password)) => Ok(Some(Sasl::Password {
                mechanism: mechanism.unwrap_or(SaslMechanism::ScramSha512),
                username: username.clone(),
                password: password.clone(),
            })),
            _ => {
                let problem = "username and password must be set together";
                let fix = "set KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD";
                Err(SettingError::new(env::KAFKA_SASL_USERNAME, problem, fix))
            }
        }
    }

    fn oauth(&self) -> Result<TokenOrigin, SettingError> {
        let credentials = (&self.oauth_client_id, &self.oauth_client_secret);
        match (&self.oauth_token_endpoint, credentials, &self.oauth_token_file) {
            (Some(endpoint), (Some(client_id), Some(client_secret)), None) => {
                let endpoint = check_token_endpoint(endpoint.trim()).map_err(|_| {
                    // It is not repeated: it may contain a password.
                    let problem = "it is not an https URL without user name, password and fragment";
                    let fix = "write it as https://host/path";
                    SettingError::new(env::KAFKA_OAUTH_TOKEN_ENDPOINT, problem, fix)
                })?;
                let ca = self.oauth_ca.as_deref().map(trusted).transpose();
                Ok(TokenOrigin::ClientCredentials(ClientCredentials {
                    endpoint: endpoint.into(),
                    client_id: client_id.clone().into(),
                    client_secret: client_secret.expose_secret().to_owned().into(),
                    scope: self.oauth_scope.clone().filter(|scope| !scope.is_empty()),
                    ca: ca.map_err(|error| {
                        let fix = "set it to a file in PEM format";
                        SettingError::new(env::KAFKA_OAUTH_CA_LOCATION, error.to_string(), fix)
                    })?,
                }))
            }
            (None, (None, None), Some(file)) if file.is_file() => Ok(TokenOrigin::File(file.clone())),
            (None, (None, None), Some(file)) => {
                let problem = format!("file {} does not exist", file.display());
                let fix = "set it to a file with a token";
                Err(SettingError::new(env::KAFKA_OAUTH_TOKEN_FILE, problem, fix))
            }
            (Some(_), _, None) => {
                let problem = "the token endpoint needs a client ID and a client secret";
                Err(SettingError::new(env::KAFKA_OAUTH_CLIENT_ID, problem, OAUTH_FIX))
            }
            _ => {
                let problem = "OAUTHBEARER needs either a token endpoint or a token file";
                Err(SettingError::new(
                    env::KAFKA_OAUTH_TOKEN_ENDPOINT,
                    problem,
                    OAUTH_FIX,
                ))
            }
        }
    }

    fn region(&self, servers: &str) -> Result<String, SettingError> {
        let named = |region: &Option<String>| {
            let region = region.as_deref().map(str::trim);
            let region = region.filter(|region| !region.is_empty() && *region != "auto");
            region.map(str::to_owned)
        };
        named(&self.kafka_aws_region)
            .or_else(|| aws_region(servers).map(str::to_owned))
            .or_else(|| named(&self.kafka_aws_default_region))
            .ok_or_else(|| {
                let problem = "the brokers' names contain no AWS region";
                let fix = "set it to the brokers' region, such as eu-central-1";
                SettingError::new(env::KAFKA_AWS_REGION, problem, fix)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        sasl: SaslArguments,
    }

    /// The origin of tokens, or the option that is named in the error.
    fn origin(options: &[&str], servers: &str) -> Result<TokenOrigin, &'static str> {
        let line = <Line as clap::Parser>::parse_from([&["test"], options].concat());
        match line.sasl.settings(servers) {
            Ok(Some(Sasl::Token(token))) => Ok(token.origin),
            Ok(other) => panic!("no token, but {other:?}"),
            Err(error) => Err(error.name),
        }
    }

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    const ENDPOINT: &str = "--oauth-token-endpoint=https://auth.example/token";
    const CREDENTIALS: [&str; 2] = ["--oauth-client-id=songs", "--oauth-client-secret=x"];

    #[track_caller]
    fn check_oauth(options: &[&str], expected: &Result<TokenOrigin, &'static str>) {
        let options = [&["--sasl-mechanism=OAUTHBEARER"], options].concat();
        assert_eq!(&origin(&options, "kafka:9092"), expected, "{options:?}");
    }

    #[test]
    fn tokens_come_from_an_https_endpoint_with_credentials_or_from_a_file() {
        let file = format!("--oauth-token-file={FILE}");
        check_oauth(&[&file], &Ok(TokenOrigin::File(FILE.into())));
        let ca = format!("--oauth-ca={FILE}");
        let text = |text: &str| text.to_owned().into();
        check_oauth(
            &[&[ENDPOINT, "--oauth-scope=kafka", &ca], &CREDENTIALS[..]].concat(),
            &Ok(TokenOrigin::ClientCredentials(ClientCredentials {
                endpoint: "https://auth.example/token".to_owned(),
                client_id: text("songs"),
                client_secret: text("x"),
                scope: Some("kafka".to_owned()),
                ca: Some(text(include_str!("../../Cargo.toml"))),
            })),
        );
        check_oauth(&[], &Err(env::KAFKA_OAUTH_TOKEN_ENDPOINT));
        check_oauth(&CREDENTIALS, &Err(env::KAFKA_OAUTH_TOKEN_ENDPOINT));
        check_oauth(&[ENDPOINT], &Err(env::KAFKA_OAUTH_CLIENT_ID));
        check_oauth(&[ENDPOINT, &file], &Err(env::KAFKA_OAUTH_TOKEN_ENDPOINT));
        check_oauth(
            &["--oauth-token-file=/missing"],
            &Err(env::KAFKA_OAUTH_TOKEN_FILE),
        );
        for address in [
            "http://auth.example/token",
            "auth.example",
            "https://a:b@auth.example/token",
        ] {
            let endpoint = format!("--oauth-token-endpoint={address}");
            check_oauth(
                &[&[endpoint.as_str()], &CREDENTIALS[..]].concat(),
                &Err(env::KAFKA_OAUTH_TOKEN_ENDPOINT),
            );
        }
    }

    #[test]
    fn the_region_of_the_brokers_precedes_that_of_other_aws_services() {
        let check = |options: &[&str], servers: &str, expected: Result<&str, &'static str>| {
            let options = [&["--sasl-mechanism=AWS_MSK_IAM"], options].concat();
            let expected = expected.map(|region| TokenOrigin::AwsMskIam {
                region: region.to_owned(),
            });
            assert_eq!(origin(&options, servers), expected, "{options:?}");
        };
        let msk = "b-1.songs.abc.c2.kafka.eu-west-1.amazonaws.com:9098";
        let of_aws = "--kafka-aws-default-region=us-east-1";
        check(&["--kafka-aws-region=eu-north-1", of_aws], msk, Ok("eu-north-1"));
        check(&[of_aws], msk, Ok("eu-west-1"));
        check(&[of_aws], "kafka:9098", Ok("us-east-1"));
        check(
            &["--kafka-aws-default-region=auto"],
            "kafka:9098",
            Err(env::KAFKA_AWS_REGION),
        );
    }

    #[test]
    fn options_of_another_mechanism_are_refused() {
        for (mechanism, option, name) in [
            ("OAUTHBEARER", "--sasl-username=ann", env::KAFKA_SASL_USERNAME),
            ("AWS_MSK_IAM", "--sasl-password=x", env::KAFKA_SASL_PASSWORD),
            ("AWS_MSK_IAM", ENDPOINT, env::KAFKA_OAUTH_TOKEN_ENDPOINT),
            ("PLAIN", ENDPOINT, env::KAFKA_OAUTH_TOKEN_ENDPOINT),
        ] {
            let mechanism = format!("--sasl-mechanism={mechanism}");
            assert_eq!(
                origin(&[&mechanism, option], "kafka:9092"),
                Err(name),
                "{mechanism}"
            );
        }
        assert_eq!(
            origin(&[ENDPOINT], "kafka:9092"),
            Err(env::KAFKA_OAUTH_TOKEN_ENDPOINT)
        );
    }

    #[test]
    fn debug_output_shows_no_secrets() {
        let endpoint = [
            ENDPOINT,
            "--sasl-mechanism=OAUTHBEARER",
            "--oauth-client-id=songs",
        ];
        let secret = "--oauth-client-secret=not-to-be-logged";
        let line = <Line as clap::Parser>::parse_from([&["test"], &endpoint[..], &[secret]].concat());
        let sasl = line.sasl.settings("kafka:9092").expect("valid settings");
        assert!(!format!("{sasl:?}").contains("not-to-be-logged"));
    }
}
