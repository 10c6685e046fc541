//! Settings of the connection to Kafka.

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args};
use secrecy::ExposeSecret as _;
use separation_contract::environment as env;
use separation_contract::kafka::{SECURITY_PROTOCOLS, SaslMechanism, connection, strip_protocols};
use separation_kafka::{ClientCertificate, ClusterSettings, Password, ReadError, Tls, TokenCache};

use super::SettingError;
use super::certificates::{certificates_below, pem, trusted};
use super::kafka_sasl::{Sasl, SaslArguments};

/// Options for the connection to the brokers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaArguments {
    /// Brokers, host:port, comma separated
    #[arg(long = "bootstrap-servers", env = env::KAFKA_BOOTSTRAP_SERVERS, default_value = "localhost:9092", value_name = "SERVERS")]
    bootstrap_servers: String,
    /// Kafka client.id; workers of a pool use the pod's name [default: separation-worker]
    #[arg(long = "client-id", env = env::KAFKA_CLIENT_ID, value_name = "NAME")]
    client_id: Option<String>,
    /// PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL [default: derived from the other options]
    #[arg(long = "security-protocol", env = env::KAFKA_SECURITY_PROTOCOL, value_name = "PROTOCOL",
          value_parser = SECURITY_PROTOCOLS)]
    security_protocol: Option<String>,
    /// CA certificates (PEM) that verify the brokers [default: the system's trust store]
    #[arg(long = "ssl-ca", env = env::KAFKA_SSL_CA_LOCATION, value_name = "FILE")]
    ssl_ca: Option<PathBuf>,
    /// This client's certificate (PEM)
    #[arg(long = "ssl-certificate", env = env::KAFKA_SSL_CERTIFICATE_LOCATION, value_name = "FILE")]
    ssl_certificate: Option<PathBuf>,
    /// This client's private key (PEM)
    #[arg(long = "ssl-key", env = env::KAFKA_SSL_KEY_LOCATION, value_name = "FILE")]
    ssl_key: Option<PathBuf>,
    #[command(flatten)]
    sasl: SaslArguments,
    /// Whether producers are idempotent; false for brokers that refuse it
    #[arg(long, env = env::KAFKA_ENABLE_IDEMPOTENCE, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    enable_idempotence: bool,
}

/// The connection to Kafka.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// Brokers, `host:port`, comma separated.
    pub bootstrap_servers: String,
    /// Kafka `client.id`.
    pub client_id: String,
    /// `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
    pub security_protocol: String,
    /// CA certificates that verify the brokers; none means the system's trust store.
    pub ssl_ca: Option<PathBuf>,
    /// The client's certificate and private key.
    pub ssl_client: Option<(PathBuf, PathBuf)>,
    /// SASL credentials.
    pub sasl: Option<Sasl>,
    /// The tokens of [`Sasl::Token`], which all clients of this process share.
    pub tokens: Option<TokenCache>,
    /// Whether producers are idempotent.
    pub idempotent_producer: bool,
}

impl KafkaArguments {
    /// Validates the options.
    ///
    /// # Errors
    /// When they contradict each other, one needs another that is missing, or a file does not exist.
    pub fn settings(&self) -> Result<KafkaSettings, SettingError> {
        let (bootstrap_servers, prefix) = strip_protocols(&self.bootstrap_servers).map_err(|error| {
            let fix = "write host:port, comma separated";
            SettingError::new(env::KAFKA_BOOTSTRAP_SERVERS, error.to_string(), fix)
        })?;
        let sasl = self.sasl.settings(&bootstrap_servers)?;
        let ssl_client = self.ssl_client()?;
        let security_protocol = self.security_protocol(prefix, sasl.as_ref())?;
        self.check_files()?;
        Ok(KafkaSettings {
            bootstrap_servers,
            client_id: self
                .client_id
                .clone()
                .unwrap_or_else(|| "separation-worker".into()),
            security_protocol,
            ssl_ca: self.ssl_ca.clone(),
            ssl_client,
            tokens: token_cache(sasl.as_ref())?,
            sasl,
            idempotent_producer: self.enable_idempotence,
        })
    }

    /// The protocol that is set, as an option or as `prefix` of the brokers, or else follows from the other options.
    fn security_protocol(&self, prefix: Option<&str>, sasl: Option<&Sasl>) -> Result<String, SettingError> {
        let fails =
            |problem: String, fix: &str| Err(SettingError::new(env::KAFKA_SECURITY_PROTOCOL, problem, fix));
        let wants_tls = self.ssl_ca.is_some() || self.ssl_certificate.is_some();
        let derived = match (sasl, wants_tls) {
            (None, false) => "PLAINTEXT",
            (None, true) => "SSL",
            (Some(Sasl::Password { .. }), false) => "SASL_PLAINTEXT",
            // A token without TLS is readable by others, so that must be set explicitly.
            (Some(Sasl::Password { .. }), true) | (Some(Sasl::Token(_)), _) => "SASL_SSL",
        };
        let option = self.security_protocol.as_deref();
        if let (Some(option), Some(prefix)) = (option, prefix)
            && option != prefix
        {
            let problem = format!("{option} is not the protocol of the brokers, {prefix}://");
            return fails(problem, "write the brokers as host:port");
        }
        let protocol = option.or(prefix).unwrap_or(derived);
        if protocol.starts_with("SASL") != sasl.is_some() {
            let problem = format!("{protocol} does not match the SASL settings");
            let fix = "use a SASL protocol with KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD, or with a \
                       KAFKA_SASL_MECHANISM that uses tokens; or neither";
            return fails(problem, fix);
        }
        if wants_tls && !protocol.ends_with("SSL") {
            let problem = format!("{protocol} does not use the given certificates");
            return fails(problem, "use SSL or SASL_SSL");
        }
        Ok(protocol.to_owned())
    }

    /// The client's certificate and private key.
    fn ssl_client(&self) -> Result<Option<(PathBuf, PathBuf)>, SettingError> {
        match (&self.ssl_certificate, &self.ssl_key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some((certificate.clone(), key.clone()))),
            _ => {
                let problem = "certificate and private key must be set together";
                let fix = "set KAFKA_SSL_CERTIFICATE_LOCATION and KAFKA_SSL_KEY_LOCATION";
                Err(SettingError::new(
                    env::KAFKA_SSL_CERTIFICATE_LOCATION,
                    problem,
                    fix,
                ))
            }
        }
    }

    fn check_files(&self) -> Result<(), SettingError> {
        for (name, file) in [
            (env::KAFKA_SSL_CA_LOCATION, &self.ssl_ca),
            (env::KAFKA_SSL_CERTIFICATE_LOCATION, &self.ssl_certificate),
            (env::KAFKA_SSL_KEY_LOCATION, &self.ssl_key),
        ] {
            let is_ca = name == env::KAFKA_SSL_CA_LOCATION;
            let exists = |file: &Path| file.is_file() || is_ca && file.is_dir();
            if let Some(missing) = file.as_ref().filter(|file| !exists(file)) {
                let problem = format!("file {} does not exist", missing.display());
                return Err(SettingError::new(name, problem, "set it to a file in PEM format"));
            }
        }
        Ok(())
    }
}

impl KafkaSettings {
    /// The librdkafka settings of any client.
    pub fn client_settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = connection(&self.bootstrap_servers, &self.client_id);
        settings.push(("security.protocol", self.security_protocol.to_lowercase()));
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        if self.security_protocol.ends_with("SSL") {
            settings.push(match &self.ssl_ca {
                // librdkafka bundles its own OpenSSL, which does not know the location of this system's trust store.
                None => ("ssl.ca.location", "probe".to_owned()),
                // OpenSSL reads only files of a directory that are named by the hash of their certificate.
                Some(ca) if ca.is_dir() => ("ssl.ca.pem", certificates_below(ca)),
                Some(ca) => ("ssl.ca.location", path(ca)),
            });
        }
        if let Some((certificate, key)) = &self.ssl_client {
            settings.push(("ssl.certificate.location", path(certificate)));
            settings.push(("ssl.key.location", path(key)));
        }
        match &self.sasl {
            None => {}
            Some(Sasl::Password {
                mechanism,
                username,
                password,
            }) => {
                settings.push(("sasl.mechanisms", mechanism.wire_name().to_owned()));
                settings.push(("sasl.username", username.clone()));
                settings.push(("sasl.password", password.expose_secret().to_owned()));
            }
            // Clients request tokens by a callback.
            Some(Sasl::Token(_)) => {
                let mechanism = SaslMechanism::OauthBearer.wire_name();
                settings.push(("sasl.mechanisms", mechanism.to_owned()));
            }
        }
        settings
    }

    /// The settings of a client without librdkafka.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn cluster_settings(&self) -> Result<ClusterSettings, ReadError> {
        let client = |(certificate, key): &(PathBuf, PathBuf)| -> Result<_, ReadError> {
            Ok(ClientCertificate {
                certificate: pem(certificate)?,
                private_key: pem(key)?,
            })
        };
        let tls = Tls {
            ca: self.ssl_ca.as_deref().map(trusted).transpose()?,
            client: self.ssl_client.as_ref().map(client).transpose()?,
        };
        let sasl = self.sasl.as_ref().map(|sasl| match sasl {
            Sasl::Password {
                mechanism,
                username,
                password,
            } => separation_kafka::Sasl::Password(Password {
                mechanism: *mechanism,
                username: username.clone().into(),
                password: password.expose_secret().to_owned().into(),
            }),
            Sasl::Token(token) => separation_kafka::Sasl::Token(token.clone()),
        });
        Ok(ClusterSettings {
            client_id: self.client_id.clone(),
            bootstrap_servers: self.bootstrap_servers.clone(),
            tls: self.security_protocol.ends_with("SSL").then_some(tls),
            sasl,
        })
    }
}

/// The cache of the tokens to authenticate with, if there are any.
fn token_cache(sasl: Option<&Sasl>) -> Result<Option<TokenCache>, SettingError> {
    let Some(Sasl::Token(token)) = sasl else {
        return Ok(None);
    };
    let fetcher = separation_kafka::fetcher(&token.origin).map_err(|error| {
        let fix = "correct the variables of the mechanism";
        SettingError::new(env::KAFKA_SASL_MECHANISM, error.to_string(), fix)
    })?;
    Ok(Some(TokenCache::new(fetcher)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use separation_kafka::SecretText;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        kafka: KafkaArguments,
    }

    #[track_caller]
    fn check_ca(options: &[&str], expected: Option<&str>) {
        let line = <Line as clap::Parser>::parse_from([&["test"], options].concat());
        let settings = line.kafka.settings().expect("valid settings").client_settings();
        let found = settings.iter().find(|(name, _)| *name == "ssl.ca.location");
        assert_eq!(found.map(|(_, value)| value.as_str()), expected, "{options:?}");
    }

    #[test]
    fn without_a_file_brokers_are_verified_with_the_system_trust_store() {
        let credentials = ["--sasl-username=ann", "--sasl-password=x"];
        check_ca(&[], None);
        check_ca(&credentials, None);
        check_ca(&["--security-protocol=SSL"], Some("probe"));
        check_ca(
            &[&credentials[..], &["--security-protocol=SASL_SSL"]].concat(),
            Some("probe"),
        );
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        check_ca(&["--ssl-ca", file], Some(file));
    }

    const TOKEN: [&str; 2] = [
        "--sasl-mechanism=OAUTHBEARER",
        concat!("--oauth-token-file=", env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
    ];

    #[track_caller]
    fn check_protocol(options: &[&str], expected: Result<&str, &'static str>) {
        let line = <Line as clap::Parser>::parse_from([&["test"], options].concat());
        let found = line.kafka.settings();
        let found = found.as_ref().map(|settings| settings.security_protocol.as_str());
        assert_eq!(found.map_err(|error| error.name), expected, "{options:?}");
    }

    #[test]
    fn the_protocol_follows_from_the_credentials_and_tokens_require_tls_unless_it_is_named() {
        let password = ["--sasl-username=ann", "--sasl-password=x"];
        check_protocol(&[], Ok("PLAINTEXT"));
        check_protocol(&password, Ok("SASL_PLAINTEXT"));
        check_protocol(&TOKEN, Ok("SASL_SSL"));
        for named in [
            "--security-protocol=SASL_PLAINTEXT",
            "--bootstrap-servers=SASL_PLAINTEXT://a:1,SASL_PLAINTEXT://b:1",
        ] {
            check_protocol(&[&TOKEN[..], &[named]].concat(), Ok("SASL_PLAINTEXT"));
        }
        let tls = "--security-protocol=SSL";
        check_protocol(&[&TOKEN[..], &[tls]].concat(), Err(env::KAFKA_SECURITY_PROTOCOL));
        check_protocol(
            &["--security-protocol=SASL_SSL"],
            Err(env::KAFKA_SECURITY_PROTOCOL),
        );
        check_protocol(
            &[tls, "--bootstrap-servers=PLAINTEXT://a:1"],
            Err(env::KAFKA_SECURITY_PROTOCOL),
        );
        check_protocol(
            &["--bootstrap-servers=SSL://a:1,b:1"],
            Err(env::KAFKA_BOOTSTRAP_SERVERS),
        );
    }

    #[test]
    fn producers_are_idempotent_unless_it_is_disabled() {
        for (options, expected) in [(&[][..], true), (&["--enable-idempotence=false"], false)] {
            let line = <Line as clap::Parser>::parse_from([&["test"], options].concat());
            let settings = line.kafka.settings().expect("valid settings");
            assert_eq!(settings.idempotent_producer, expected, "{options:?}");
        }
    }

    #[test]
    fn clients_get_brokers_without_a_protocol_and_the_mechanism_of_tokens() {
        let brokers = "--bootstrap-servers=SASL_SSL://a:1,SASL_SSL://b:1";
        let line = <Line as clap::Parser>::parse_from([&["test", brokers], &TOKEN[..]].concat());
        let settings = line.kafka.settings().expect("valid settings");
        let of_librdkafka = settings.client_settings();
        for expected in [
            ("bootstrap.servers", "a:1,b:1"),
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanisms", "OAUTHBEARER"),
        ] {
            let expected = (expected.0, expected.1.to_owned());
            assert!(of_librdkafka.contains(&expected), "{expected:?}");
        }
        let cluster = settings.cluster_settings().expect("readable files");
        assert_eq!(cluster.bootstrap_servers, "a:1,b:1");
        assert!(matches!(cluster.sasl, Some(separation_kafka::Sasl::Token(_))));
        assert!(settings.tokens.is_some());
    }

    #[test]
    fn the_certificates_of_a_directory_are_all_trusted() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["1.crt", "0.crt"] {
            fs::write(directory.path().join(name), name).unwrap();
        }
        fs::create_dir(directory.path().join("..data")).unwrap();
        let path = directory.path().to_str().unwrap();
        let line = <Line as clap::Parser>::parse_from(["test", "--ssl-ca", path]);
        let settings = line.kafka.settings().expect("valid settings");
        let expected = ("ssl.ca.pem", "0.crt\n1.crt".to_owned());
        assert!(settings.client_settings().contains(&expected));
        let tls = settings.cluster_settings().unwrap().tls.unwrap();
        assert_eq!(tls.ca.as_ref().map(SecretText::expose), Some("0.crt\n1.crt"));
    }

    #[test]
    fn a_client_without_librdkafka_gets_the_same_settings() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let options = [
            "--client-id=lag",
            "--ssl-ca",
            file,
            "--sasl-username=ann",
            "--sasl-password=x",
        ];
        let line = <Line as clap::Parser>::parse_from([&["test"], &options[..]].concat());
        let settings = line.kafka.settings().expect("valid settings");
        let text = |text: &str| SecretText::from(text.to_owned());
        let expected = ClusterSettings {
            client_id: "lag".to_owned(),
            bootstrap_servers: settings.bootstrap_servers.clone(),
            tls: Some(Tls {
                ca: Some(text(include_str!("../../Cargo.toml"))),
                client: None,
            }),
            sasl: Some(separation_kafka::Sasl::Password(Password {
                mechanism: SaslMechanism::ScramSha512,
                username: text("ann"),
                password: text("x"),
            })),
        };
        assert_eq!(settings.cluster_settings(), Ok(expected));
    }
}
