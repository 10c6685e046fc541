//! All settings of `separation-operator run`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use separation_daemon::{LogArguments, LogSettings};

use super::lease::{is_label, is_object_name};
use super::{
    IdentityArguments, IdentitySettings, LeaseArguments, LeaseSettings, SettingError, WorkerArguments,
    WorkerSettings,
};

/// Longest shutdown: the default grace period of a pod is 30 s.
const MAX_SHUTDOWN_SECONDS: u32 = 25;

const EXAMPLES: &str = "\
Examples:
  separation-operator run --worker-image registry.example/separation-worker:1.0
      all namespaces, as in a pod: POD_NAME and POD_NAMESPACE identify this replica
  separation-operator run --worker-image … --watch-namespaces media,podcasts
      pools of two namespaces; needs permissions in these two only (deploy/operator/one-namespace)
  separation-operator run --worker-image … --health-address 127.0.0.1:0 --log-level info,separation_operator=debug
      from a laptop, with the kubeconfig's permissions; stands by while an operator in the cluster leads
  separation-operator run --worker-image … --allow-in-pod-template service-account,host-path
      pools may name a service account and mount files of the node
  separation-operator run --worker-image … --identity-brokers '*.kafka.eu-central-1.amazonaws.com@media'
      the operator authenticates to Amazon MSK with its own AWS identity, for pools of the namespace media";

/// Arguments of `run`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArguments {
    #[command(flatten)]
    workers: WorkerArguments,
    /// Namespaces whose pools are reconciled, comma separated [default: all]
    #[arg(
        long,
        env = "WATCH_NAMESPACES",
        value_delimiter = ',',
        value_name = "NAMESPACE",
        help_heading = "Pools"
    )]
    watch_namespaces: Vec<String>,
    /// Address of /healthz, /readyz and /metrics
    #[arg(
        long,
        env = "HEALTH_ADDRESS",
        default_value = "0.0.0.0:8080",
        value_name = "ADDRESS",
        help_heading = "Process"
    )]
    health_address: SocketAddr,
    /// Time for writes in progress to finish on shutdown, before the lease is released
    #[arg(
        long,
        env = "SHUTDOWN_SECONDS",
        default_value = "10",
        value_name = "SECONDS",
        help_heading = "Process"
    )]
    shutdown_seconds: u32,
    /// Time after which the offsets of a group without workers are committed again, so that brokers do not delete them
    /// (offsets.retention.minutes, a week by default)
    #[arg(
        long,
        env = "KEEP_OFFSETS_SECONDS",
        default_value = "21600",
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u32).range(1..=604_800),
        help_heading = "Kafka"
    )]
    keep_offsets_seconds: u32,
    /// Maximum age of the committed offsets of an idle group: offsets that a user rewinds are noticed within twice this
    #[arg(
        long,
        env = "OFFSET_REFRESH_SECONDS",
        default_value = "30",
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u32).range(1..=3_600),
        help_heading = "Kafka"
    )]
    offset_refresh_seconds: u32,
    /// Maximum age of the Secrets with Kafka credentials: a rotated Secret is used within this time
    #[arg(
        long,
        env = "SECRET_REFRESH_SECONDS",
        default_value = "60",
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u32).range(1..=3_600),
        help_heading = "Kafka"
    )]
    secret_refresh_seconds: u32,
    #[command(flatten)]
    identity: IdentityArguments,
    #[command(flatten)]
    lease: LeaseArguments,
    #[command(flatten)]
    logs: LogArguments,
}

/// Refresh intervals of objects that are read again only to notice changes by users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refresh {
    /// Secrets: a rotated Secret is used within this time.
    pub secrets: Duration,
    /// Committed offsets of a group without lag: a rewound group is noticed within twice this time.
    pub offsets: Duration,
}

/// All settings of `run`, validated together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSettings {
    /// Settings that apply to every pool.
    pub workers: WorkerSettings,
    /// Namespaces whose pools are reconciled.
    pub namespaces: Namespaces,
    /// Address of `/healthz`, `/readyz` and `/metrics`.
    pub health_address: SocketAddr,
    /// Time after which the offsets of a group without workers are committed again.
    pub keep_offsets_after: Duration,
    /// Maximum age of committed offsets and Secrets.
    pub refresh: Refresh,
    /// Identities that the operator may use for Kafka.
    pub identity: IdentitySettings,
    /// Time for writes in progress to finish on shutdown.
    pub shutdown: Duration,
    /// The lease that the replicas share.
    pub lease: LeaseSettings,
}

/// Namespaces whose pools are reconciled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    /// All namespaces.
    All,
    /// These namespaces, at least one.
    These(BTreeSet<String>),
}

impl RunArguments {
    /// Validates the arguments.
    ///
    /// # Errors
    /// The first invalid setting.
    pub fn settings(&self) -> Result<(RunSettings, LogSettings), SettingError> {
        let lease = self.lease.settings()?;
        let identity = self.identity.settings(&lease.namespace)?;
        let workers = self.workers.settings(&identity.audiences);
        if workers.image.trim().is_empty() || workers.image.contains(char::is_whitespace) {
            let problem = format!("{:?} is not an image name", workers.image);
            let fix = "name one as in registry.example/separation-worker:1.0";
            return Err(SettingError::new("--worker-image", problem, fix));
        }
        let mut secrets = workers.image_pull_secrets.iter();
        if let Some(wrong) = secrets.find(|name| !is_object_name(name)) {
            let problem = format!("{wrong:?} is not a valid name of a Secret");
            let fix = "name Secrets of type kubernetes.io/dockerconfigjson, as in registry,mirror";
            return Err(SettingError::new("--worker-image-pull-secrets", problem, fix));
        }
        if self.shutdown_seconds > MAX_SHUTDOWN_SECONDS {
            let problem = format!(
                "{} s is longer than a pod's grace period, and the lease would not be released",
                self.shutdown_seconds
            );
            let fix = format!("choose at most {MAX_SHUTDOWN_SECONDS}");
            return Err(SettingError::new("--shutdown-seconds", problem, fix));
        }
        let settings = RunSettings {
            workers,
            namespaces: Namespaces::named(&self.watch_namespaces)?,
            health_address: self.health_address,
            keep_offsets_after: Duration::from_secs(self.keep_offsets_seconds.into()),
            refresh: Refresh {
                secrets: Duration::from_secs(self.secret_refresh_seconds.into()),
                offsets: Duration::from_secs(self.offset_refresh_seconds.into()),
            },
            identity,
            shutdown: Duration::from_secs(self.shutdown_seconds.into()),
            lease,
        };
        let logs = self.logs.settings().map_err(|error| {
            let problem = format!("{:?} is not a valid filter: {error}", self.logs.log_level);
            SettingError::new("--log-level", problem, "use one such as info, or info,kube=debug")
        })?;
        Ok((settings, logs))
    }
}

impl Namespaces {
    /// The namespaces of `--watch-namespaces`.
    ///
    /// # Errors
    /// If a name is not a valid name of a namespace.
    pub fn named(names: &[String]) -> Result<Self, SettingError> {
        // An empty environment variable is parsed as a list of one empty name: it means unset.
        let named = names.iter().map(|name| name.trim());
        let named: BTreeSet<String> = named.filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if let Some(wrong) = named.iter().find(|name| name.len() > 63 || !is_label(name)) {
            let problem = format!("{wrong:?} is not a valid name of a namespace");
            let fix = "use names such as media,podcasts; omit the option for all";
            return Err(SettingError::new("--watch-namespaces", problem, fix));
        }
        Ok(if named.is_empty() {
            Self::All
        } else {
            Self::These(named)
        })
    }
}

impl RunSettings {
    /// Logs all settings; called once, after logging was started. None is secret.
    pub fn log(&self) {
        let namespaces = match &self.namespaces {
            Namespaces::All => "all".to_owned(),
            Namespaces::These(names) => listed(names),
        };
        let timings = self.lease.timings;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            worker_image = self.workers.image,
            worker_image_pull_secrets = listed(&self.workers.image_pull_secrets),
            allowed_in_pod_template = ?self.workers.allowed,
            namespaces,
            health_address = %self.health_address,
            keep_offsets_seconds = self.keep_offsets_after.as_secs(),
            offset_refresh_seconds = self.refresh.offsets.as_secs(),
            secret_refresh_seconds = self.refresh.secrets.as_secs(),
            identity_brokers = listed(&self.identity.brokers),
            identity_audiences = listed(&self.identity.audiences),
            token_service_accounts = listed(&self.identity.token_accounts),
            service_account = %self.identity.own,
            shutdown_seconds = self.shutdown.as_secs(),
            identity = self.lease.identity,
            lease = format!("{}/{}", self.lease.namespace, self.lease.name),
            lease_duration_seconds = timings.duration().as_secs(),
            lease_renew_deadline_seconds = timings.renew_deadline().as_secs_f64(),
            lease_retry_period_seconds = timings.retry_period().as_secs_f64(),
            "The operator starts"
        );
    }
}

/// Values as they are written in an option.
fn listed<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    values
        .into_iter()
        .map(|value| value.to_string())
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;
    use crate::settings::Allowance;

    #[derive(Debug, Parser)]
    #[command(args_override_self = true)]
    struct Command {
        #[command(flatten)]
        run: RunArguments,
    }

    fn settings(arguments: &str) -> Result<RunSettings, SettingError> {
        let named = "operator --worker-image w:1".split_whitespace();
        let arguments = named.chain(arguments.split_whitespace());
        let command = Command::try_parse_from(arguments).expect("arguments");
        command.run.settings().map(|(settings, _)| settings)
    }

    #[track_caller]
    fn refused(arguments: &str, expected: &str) {
        assert_eq!(settings(arguments).expect_err("unusable").to_string(), expected);
    }

    #[test]
    fn the_image_is_the_only_required_argument() {
        let found = settings("").expect("defaults");
        assert_eq!(found.namespaces, Namespaces::All);
        assert_eq!(found.health_address.port(), 8080);
        assert!(found.workers.allowed.is_empty());
        let without = Command::try_parse_from(["operator"]).expect_err("no image");
        assert!(without.to_string().contains("--worker-image"), "{without}");
    }

    #[test]
    fn every_argument_is_parsed() {
        let found = settings(
            "--watch-namespaces media,,podcasts --allow-in-pod-template host-path,root --health-address 127.0.0.1:0 \
             --shutdown-seconds 5 --lease-name other --lease-namespace tools --lease-duration-seconds 30 --log-format \
             json --log-level debug --identity-brokers kafka.svc,,*.example@media --identity-audiences kafka \
             --token-service-accounts media/vocals --service-account songs --worker-image-pull-secrets \
             registry,,mirror,registry",
        )
        .expect("settings");
        let names = ["media", "podcasts"].map(str::to_owned);
        assert_eq!(found.namespaces, Namespaces::These(names.into()));
        assert_eq!(
            found.workers.allowed,
            [Allowance::HostPath, Allowance::Root].into()
        );
        assert_eq!(found.workers.image_pull_secrets, ["registry", "mirror"]);
        assert_eq!(found.shutdown, Duration::from_secs(5));
        assert_eq!(found.lease.name, "other");
        assert_eq!(found.lease.timings.duration(), Duration::from_secs(30));
        let identity = &found.identity;
        assert_eq!(listed(&identity.brokers), "kafka.svc,*.example@media");
        assert_eq!(identity.audiences, ["kafka".to_owned()].into());
        assert_eq!(listed(&identity.token_accounts), "media/vocals");
        assert_eq!(identity.own.to_string(), "tools/songs");
        assert_eq!(
            settings("--watch-namespaces=").expect("settings").namespaces,
            Namespaces::All
        );
    }

    #[test]
    fn invalid_settings_are_refused_with_a_fix() {
        refused(
            "--worker-image=",
            "--worker-image: \"\" is not an image name; fix: name one as in registry.example/separation-worker:1.0",
        );
        refused(
            "--watch-namespaces a.b",
            "--watch-namespaces: \"a.b\" is not a valid name of a namespace; fix: use names such as media,podcasts; \
             omit the option for all",
        );
        refused(
            "--worker-image-pull-secrets Registry",
            "--worker-image-pull-secrets: \"Registry\" is not a valid name of a Secret; fix: name Secrets of type \
             kubernetes.io/dockerconfigjson, as in registry,mirror",
        );
        refused(
            "--shutdown-seconds 60",
            "--shutdown-seconds: 60 s is longer than a pod's grace period, and the lease would not be released; fix: \
             choose at most 25",
        );
        let error = settings("--log-level a=b=c").expect_err("no filter");
        assert_eq!(error.name, "--log-level");
    }

    #[test]
    fn help_names_every_variable_and_has_examples() {
        let help = Command::command().render_long_help().to_string();
        for word in [
            "WORKER_IMAGE",
            "WATCH_NAMESPACES",
            "HEALTH_ADDRESS",
            "POD_NAME",
            "IDENTITY_BROKERS",
            "TOKEN_SERVICE_ACCOUNTS",
            "LOG_FORMAT",
            "Examples:",
        ] {
            assert!(help.contains(word), "{word} is not in\n{help}");
        }
    }
}
