//! Settings of the connection to Kafka.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};
use separation_contract::environment as env;
use separation_contract::kafka::{SaslMechanism, connection};
use separation_kafka::{ClientCertificate, ClusterSettings, ReadError, SecretText, Tls};

use super::SettingError;

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
          value_parser = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"])]
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
    /// PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
    #[arg(long = "sasl-mechanism", env = env::KAFKA_SASL_MECHANISM, value_name = "MECHANISM")]
    sasl_mechanism: Option<SaslMechanism>,
    /// SASL username
    #[arg(long = "sasl-username", env = env::KAFKA_SASL_USERNAME, value_name = "NAME")]
    sasl_username: Option<String>,
    /// SASL password; prefer the environment variable
    #[arg(long = "sasl-password", env = env::KAFKA_SASL_PASSWORD, hide_env_values = true, value_name = "PASSWORD")]
    sasl_password: Option<SecretString>,
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
}

/// SASL credentials.
#[derive(Debug, Clone)]
pub struct Sasl {
    /// The mechanism.
    pub mechanism: SaslMechanism,
    /// The username.
    pub username: String,
    /// The password.
    pub password: SecretString,
}

impl KafkaArguments {
    /// Validates the options.
    ///
    /// # Errors
    /// When they contradict each other, one needs another that is missing, or a file does not exist.
    pub fn settings(&self) -> Result<KafkaSettings, SettingError> {
        let (sasl, ssl_client) = (self.sasl()?, self.ssl_client()?);
        let wants_tls = self.ssl_ca.is_some() || ssl_client.is_some();
        let derived = match (sasl.is_some(), wants_tls) {
            (false, false) => "PLAINTEXT",
            (false, true) => "SSL",
            (true, false) => "SASL_PLAINTEXT",
            (true, true) => "SASL_SSL",
        };
        let security_protocol = self.security_protocol.clone().unwrap_or_else(|| derived.into());
        if security_protocol.starts_with("SASL") != sasl.is_some() {
            let problem = format!("{security_protocol} does not match the SASL settings");
            let fix = "use a SASL protocol with KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD, or neither";
            return Err(SettingError::new(env::KAFKA_SECURITY_PROTOCOL, problem, fix));
        }
        if wants_tls && !security_protocol.ends_with("SSL") {
            let problem = format!("{security_protocol} does not use the given certificates");
            let fix = "use SSL or SASL_SSL";
            return Err(SettingError::new(env::KAFKA_SECURITY_PROTOCOL, problem, fix));
        }
        self.check_files()?;
        Ok(KafkaSettings {
            bootstrap_servers: self.bootstrap_servers.clone(),
            client_id: self
                .client_id
                .clone()
                .unwrap_or_else(|| "separation-worker".into()),
            security_protocol,
            ssl_ca: self.ssl_ca.clone(),
            ssl_client,
            sasl,
        })
    }

    fn sasl(&self) -> Result<Option<Sasl>, SettingError> {
        match (&self.sasl_mechanism, &self.sasl_username, &self.sasl_password) {
            (None, None, None) => Ok(None),
            (mechanism, Some(username), Some(password)) => Ok(Some(Sasl {
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
        if let Some(sasl) = &self.sasl {
            settings.push(("sasl.mechanisms", sasl.mechanism.name().to_owned()));
            settings.push(("sasl.username", sasl.username.clone()));
            settings.push(("sasl.password", sasl.password.expose_secret().to_owned()));
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
        let sasl = self.sasl.as_ref().map(|sasl| separation_kafka::Sasl {
            mechanism: sasl.mechanism,
            username: sasl.username.clone().into(),
            password: sasl.password.expose_secret().to_owned().into(),
        });
        Ok(ClusterSettings {
            client_id: self.client_id.clone(),
            bootstrap_servers: self.bootstrap_servers.clone(),
            tls: self.security_protocol.ends_with("SSL").then_some(tls),
            sasl,
        })
    }
}

/// The text of a file in PEM format.
fn pem(path: &Path) -> Result<SecretText, ReadError> {
    let read = fs::read_to_string(path);
    read.map(SecretText::from)
        .map_err(|error| ReadError::new(format!("cannot read {}: {error}", path.display())))
}

/// The CA certificates of a file, or of the files of a directory.
fn trusted(location: &Path) -> Result<SecretText, ReadError> {
    match location.is_dir() {
        true => Ok(certificates_below(location).into()),
        false => pem(location),
    }
}

/// The files of a directory, one after the other. What cannot be read is left out: then brokers are not trusted, and the
/// client reports it.
fn certificates_below(directory: &Path) -> String {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    texts.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
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
            sasl: Some(separation_kafka::Sasl {
                mechanism: SaslMechanism::ScramSha512,
                username: text("ann"),
                password: text("x"),
            }),
        };
        assert_eq!(settings.cluster_settings(), Ok(expected));
    }
}
