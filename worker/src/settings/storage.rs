//! Settings of storage: the object store, the staging area and scratch space.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use secrecy::SecretString;
use separation_contract::environment as env;
use url::Url;

use super::{DeleteInput, SettingError};

/// The longest retention: ten years.
const MAX_RETENTION_DAYS: i64 = 3_650;

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// Options for the connection to the object store.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "S3")]
pub struct S3ConnectionArguments {
    /// URL of the S3 server; empty means AWS
    #[arg(long, env = env::S3_ENDPOINT_URL, default_value = "", hide_default_value = true, value_name = "URL")]
    s3_endpoint_url: String,
    /// Access key ID; if unset, the AWS default credential chain is used
    #[arg(long, env = env::AWS_ACCESS_KEY_ID, hide_env_values = true, value_name = "KEY")]
    aws_access_key_id: Option<String>,
    /// Secret access key; prefer the environment variable
    #[arg(long, env = env::AWS_SECRET_ACCESS_KEY, hide_env_values = true, value_name = "SECRET")]
    aws_secret_access_key: Option<SecretString>,
    /// Session token of temporary credentials; prefer the environment variable
    #[arg(long, env = env::AWS_SESSION_TOKEN, hide_env_values = true, value_name = "TOKEN")]
    aws_session_token: Option<SecretString>,
    /// Region; auto uses that of the AWS profile or instance, and with other servers one that they accept
    #[arg(long, env = env::AWS_REGION, default_value = "auto", value_name = "REGION")]
    aws_region: String,
    /// Region if AWS_REGION is empty or auto, as in other AWS programs
    #[arg(long, env = env::AWS_DEFAULT_REGION, value_name = "REGION", hide = true)]
    aws_default_region: Option<String>,
    /// Address buckets as endpoint/bucket, not as bucket.endpoint [default: true if an endpoint is set]
    #[arg(long, env = env::S3_PATH_STYLE, value_name = "BOOL")]
    s3_path_style: Option<bool>,
}

/// Options for the object store.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "S3")]
pub struct S3Arguments {
    #[command(flatten)]
    connection: S3ConnectionArguments,
    /// Bucket of finished stems
    #[arg(long, env = env::S3_BUCKET_NAME, default_value = "", hide_default_value = true, value_name = "BUCKET")]
    s3_bucket_name: String,
    /// Prefix of the object keys of finished stems, such as stems/
    #[arg(long, env = env::S3_STEMS_PREFIX, default_value = "", hide_default_value = true, value_name = "PREFIX")]
    s3_stems_prefix: String,
    /// URL prefix of public links to stems
    #[arg(long, env = env::S3_PUBLIC_DOMAIN, default_value = "", hide_default_value = true, value_name = "URL")]
    s3_public_domain: String,
    /// URL of the S3 server as clients of the API reach it, for presigned links to stems and uploads; empty means none
    #[arg(long, env = env::S3_PUBLIC_ENDPOINT, default_value = "", hide_default_value = true, value_name = "URL")]
    s3_public_endpoint: String,
}

/// The object store.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// The server's URL, without username and password; none means AWS.
    pub endpoint: Option<Url>,
    /// None means the AWS default credential chain.
    pub credentials: Option<S3Credentials>,
    /// Region; none if it is unset or `auto`.
    pub region: Option<String>,
    /// Bucket of finished stems; none is an error for roles that write there.
    pub bucket: Option<String>,
    /// Prefix of the object keys of finished stems; empty or with a slash at its end.
    pub stems_prefix: String,
    /// URL prefix of public links, without a trailing slash.
    pub public_domain: Option<String>,
    /// The server's URL as clients of the API reach it; none means no presigned links.
    pub public_endpoint: Option<Url>,
    /// `endpoint/bucket/key` rather than `bucket.endpoint/key`.
    pub path_style: bool,
}

/// Credentials of the object store. Debug output shows none of them.
#[derive(Clone)]
pub struct S3Credentials {
    /// Access key ID.
    pub access_key: String,
    /// Secret access key.
    pub secret_key: SecretString,
    /// Session token of temporary credentials.
    pub session_token: Option<SecretString>,
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Credentials")
            .field("temporary", &self.session_token.is_some())
            .finish_non_exhaustive()
    }
}

/// Options for inputs and staging.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Songs and stems")]
pub struct StagingArguments {
    /// Shared directory of songs to separate; no song outside it is read
    #[arg(long, env = env::TEMP_DIR, default_value = "./temp", value_name = "DIR")]
    temp_dir: PathBuf,
    /// Shared directory of stems; nothing outside it is written
    #[arg(long, env = env::OUTPUT_DIR, default_value = "./output", value_name = "DIR")]
    output_dir: PathBuf,
    /// Staging area for songs and stems in place of the shared directories, s3://bucket/prefix
    #[arg(long, env = env::S3_STAGING, value_name = "S3-ADDRESS")]
    s3_staging: Option<ObjectAddress>,
    /// Additional buckets that tasks may name in audio_path
    #[arg(long, env = env::S3_INPUT_BUCKETS, value_delimiter = ',', value_name = "BUCKETS")]
    s3_input_buckets: Vec<String>,
    /// When a song is deleted, always after its result is committed: after-success, always or never
    #[arg(long, env = env::DELETE_INPUT, default_value_t, value_name = "WHEN")]
    delete_input: DeleteInput,
}

/// Locations of inputs and staged stems.
#[derive(Debug, Clone)]
pub struct StagingSettings {
    /// Directory that songs are read from.
    pub temp_dir: PathBuf,
    /// Directory that stems are written to.
    pub output_dir: PathBuf,
    /// Prefix that stems, and songs that the API stores, are staged under instead.
    pub s3_staging: Option<ObjectAddress>,
    /// Buckets that songs may be read from, the staging bucket included.
    pub input_buckets: Vec<String>,
    /// When a song is deleted.
    pub delete_input: DeleteInput,
}

/// Options for a worker's own files.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Scratch space")]
pub struct ScratchArguments {
    /// Directory for this worker's temporary files [default: the system's directory for temporary files]
    #[arg(long, env = env::SCRATCH_DIR, value_name = "DIR")]
    pub scratch_dir: Option<PathBuf>,
    /// Limit of one attempt's temporary files, in bytes
    #[arg(long, env = env::SCRATCH_LIMIT_BYTES, default_value = "8589934592", value_name = "BYTES")]
    pub scratch_limit_bytes: u64,
}

/// Options for deleting old files.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Retention")]
pub struct RetentionArguments {
    /// Days after which finished stems are deleted [default: never]
    #[arg(long, env = env::STEMS_RETENTION_DAYS, value_name = "DAYS",
          value_parser = clap::value_parser!(u16).range(1..=MAX_RETENTION_DAYS))]
    stems_retention_days: Option<u16>,
    /// Days after which songs that no task deleted are deleted [default: never]
    #[arg(long, env = env::INPUTS_RETENTION_DAYS, value_name = "DAYS",
          value_parser = clap::value_parser!(u16).range(1..=MAX_RETENTION_DAYS))]
    inputs_retention_days: Option<u16>,
}

/// Ages at which files are deleted; none: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionSettings {
    /// Of finished stems.
    pub stems: Option<Duration>,
    /// Of staged songs.
    pub inputs: Option<Duration>,
}

/// An address in an object store: `s3://bucket/key`. As a prefix, the object key is empty or ends with a slash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectAddress {
    /// The bucket.
    pub bucket: String,
    /// The object key.
    pub key: String,
}

/// Not a valid `s3://bucket/key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not of the form s3://bucket/key")]
pub struct ObjectAddressError;

impl ObjectAddress {
    /// Whether `text` is the address of an object rather than a path.
    pub fn is_address(text: &str) -> bool {
        text.starts_with("s3://")
    }

    /// The address of `name` under this prefix.
    pub fn join(&self, name: &str) -> Self {
        let slash = if self.key.is_empty() || self.key.ends_with('/') {
            ""
        } else {
            "/"
        };
        Self {
            bucket: self.bucket.clone(),
            key: format!("{}{slash}{name}", self.key),
        }
    }
}

impl fmt::Display for ObjectAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

impl FromStr for ObjectAddress {
    type Err = ObjectAddressError;

    fn from_str(text: &str) -> Result<Self, ObjectAddressError> {
        let rest = text.strip_prefix("s3://").ok_or(ObjectAddressError)?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let climbs = key.split('/').any(|part| part == "." || part == "..");
        if bucket.is_empty() || !bucket.chars().all(plain) || climbs || key.chars().any(char::is_control) {
            return Err(ObjectAddressError);
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        })
    }
}

impl S3ConnectionArguments {
    /// Validates the options. The settings have no bucket of finished stems.
    ///
    /// # Errors
    /// When the endpoint is not an http(s) URL, or only one of access key ID and secret access key is set.
    pub fn settings(&self) -> Result<S3Settings, SettingError> {
        let endpoint = server_address(env::S3_ENDPOINT_URL, &self.s3_endpoint_url)?;
        let credentials = match (&self.aws_access_key_id, &self.aws_secret_access_key) {
            (None, None) => None,
            (Some(key), Some(secret)) => Some(S3Credentials {
                access_key: key.clone(),
                secret_key: secret.clone(),
                session_token: self.aws_session_token.clone(),
            }),
            _ => {
                let problem = "access key ID and secret access key must be set together";
                let fix = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
                return Err(SettingError::new(env::AWS_ACCESS_KEY_ID, problem, fix));
            }
        };
        Ok(S3Settings {
            path_style: self.s3_path_style.unwrap_or(endpoint.is_some()),
            endpoint,
            credentials,
            region: [Some(&self.aws_region), self.aws_default_region.as_ref()]
                .into_iter()
                .flatten()
                .find_map(|region| non_empty(region).filter(|region| *region != "auto"))
                .map(str::to_owned),
            bucket: None,
            stems_prefix: String::new(),
            public_domain: None,
            public_endpoint: None,
        })
    }
}

impl S3Arguments {
    /// Validates the options.
    ///
    /// # Errors
    /// As [`S3ConnectionArguments::settings`], and when the public endpoint is not an http(s) URL.
    pub fn settings(&self) -> Result<S3Settings, SettingError> {
        let public_domain = non_empty(&self.s3_public_domain).map(|domain| {
            let domain = domain.trim_end_matches('/');
            if domain.contains("://") {
                domain.to_owned()
            } else {
                format!("https://{domain}")
            }
        });
        Ok(S3Settings {
            bucket: non_empty(&self.s3_bucket_name).map(str::to_owned),
            stems_prefix: directory_prefix(&self.s3_stems_prefix),
            public_domain,
            public_endpoint: server_address(env::S3_PUBLIC_ENDPOINT, &self.s3_public_endpoint)?,
            ..self.connection.settings()?
        })
    }
}

impl S3Settings {
    /// The bucket of finished stems.
    ///
    /// # Errors
    /// When it is not set.
    pub fn bucket(&self) -> Result<&str, SettingError> {
        let fix = "set it to the bucket for finished stems";
        let unset = || SettingError::new(env::S3_BUCKET_NAME, "not set", fix);
        self.bucket.as_deref().ok_or_else(unset)
    }
}

impl StagingArguments {
    /// The settings, with the staging bucket added to the input buckets.
    pub fn settings(&self) -> StagingSettings {
        let staging = self.s3_staging.iter().map(|staging| staging.bucket.clone());
        StagingSettings {
            temp_dir: self.temp_dir.clone(),
            output_dir: self.output_dir.clone(),
            s3_staging: self.s3_staging.clone(),
            input_buckets: self.s3_input_buckets.iter().cloned().chain(staging).collect(),
            delete_input: self.delete_input,
        }
    }
}

impl RetentionArguments {
    /// The options as durations.
    pub fn settings(&self) -> RetentionSettings {
        let days = |days: u16| Duration::from_secs(u64::from(days) * SECONDS_PER_DAY);
        RetentionSettings {
            stems: self.stems_retention_days.map(days),
            inputs: self.inputs_retention_days.map(days),
        }
    }
}

impl StagingSettings {
    /// Whether inputs or stems are stored in an object store.
    pub fn uses_s3(&self) -> bool {
        self.s3_staging.is_some() || !self.input_buckets.is_empty()
    }
}

/// The URL that `variable` is set to, without username and password: the SDK does not use them, and links and logs show
/// the URL. None if it is empty.
fn server_address(variable: &'static str, text: &str) -> Result<Option<Url>, SettingError> {
    let Some(text) = non_empty(text) else {
        return Ok(None);
    };
    let url = Url::parse(text).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let mut url = url.ok_or_else(|| {
        // It may contain a password.
        let problem = match text.contains('@') {
            true => "not an http(s) URL".to_owned(),
            false => format!("`{text}` is not an http(s) URL"),
        };
        SettingError::new(variable, problem, "write it as http://host:port")
    })?;
    // Neither can fail for a URL with a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    Ok(Some(url))
}

/// The prefix with one slash at its end, or none.
fn directory_prefix(text: &str) -> String {
    match text.trim().trim_matches('/') {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    }
}

fn non_empty(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        s3: S3Arguments,
    }

    fn s3(options: &[&str]) -> Result<S3Settings, SettingError> {
        let line = <Line as clap::Parser>::parse_from([&["test"], options].concat());
        line.s3.settings()
    }

    #[test]
    fn settings_in_logs_show_no_credentials() {
        let settings = s3(&[
            "--s3-endpoint-url=http://ann:pass-of-ann@s3:9000",
            "--aws-access-key-id=AKIAEXAMPLE",
            "--aws-secret-access-key=secret-of-ann",
            "--aws-session-token=token-of-ann",
        ])
        .expect("valid settings");
        let debug_text = format!("{settings:?}");
        for secret in [
            "AKIAEXAMPLE",
            "secret-of-ann",
            "token-of-ann",
            "ann:",
            "pass-of-ann",
        ] {
            assert!(!debug_text.contains(secret), "{secret} is in {debug_text}");
        }
        let endpoint = settings.endpoint.expect("one was given");
        assert_eq!(endpoint.as_str(), "http://s3:9000/");
        let refused = s3(&["--s3-endpoint-url=ann:pass-of-ann@s3:9000"]).expect_err("no address");
        assert!(!refused.to_string().contains("pass-of-ann"), "{refused}");
        let refused = s3(&["--s3-public-endpoint=s3.example"]).expect_err("no URL");
        assert!(refused.to_string().contains("S3_PUBLIC_ENDPOINT"), "{refused}");
    }

    #[test]
    fn auto_and_empty_are_not_a_region() {
        for (options, expected) in [
            (&["--aws-region=auto"][..], None),
            (&["--aws-region="], None),
            (
                &["--aws-region=auto", "--aws-default-region=eu-west-1"],
                Some("eu-west-1"),
            ),
            (
                &["--aws-region=eu-central-1", "--aws-default-region=eu-west-1"],
                Some("eu-central-1"),
            ),
        ] {
            let settings = s3(options).expect("valid settings");
            assert_eq!(settings.region.as_deref(), expected, "{options:?}");
        }
    }

    #[test]
    fn addresses_are_parsed_as_they_are_written() {
        let address: ObjectAddress = "s3://stems/staging/a b.wav".parse().expect("an address");
        assert_eq!(address.to_string(), "s3://stems/staging/a b.wav");
        let prefix: ObjectAddress = "s3://stems".parse().expect("a prefix");
        assert_eq!(prefix.join("a").to_string(), "s3://stems/a");
        for refused in [
            "",
            "stems/a",
            "s3:///a",
            "s3://a?b/c",
            "s3://a/../b",
            "s3://a/b/./c",
            "s3://a/b\n",
        ] {
            assert_eq!(
                refused.parse::<ObjectAddress>(),
                Err(ObjectAddressError),
                "{refused:?}"
            );
        }
    }

    #[derive(Debug, clap::Parser)]
    struct RetentionLine {
        #[command(flatten)]
        retention: RetentionArguments,
    }

    #[test]
    fn nothing_expires_unless_a_retention_of_1_to_3650_days_is_set() {
        let parse = |options: &[&str]| {
            let line = <RetentionLine as clap::Parser>::try_parse_from([&["test"], options].concat());
            line.map(|line| line.retention.settings())
        };
        let set = parse(&["--stems-retention-days=1", "--inputs-retention-days=3650"]).expect("valid");
        assert_eq!(set.stems, Some(Duration::from_secs(86_400)));
        assert_eq!(set.inputs, Some(Duration::from_secs(3_650 * 86_400)));
        let unset = parse(&[]).expect("valid");
        assert_eq!((unset.stems, unset.inputs), (None, None));
        for refused in ["--stems-retention-days=0", "--inputs-retention-days=3651"] {
            parse(&[refused]).expect_err(refused);
        }
    }
}
