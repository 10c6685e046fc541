//! `separation-worker check`: whether a worker could do its work with these settings. Processes no task and joins no group.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use separation_contract::check::{CheckResult, Finding};
use tokio::sync::watch;

use super::failure::Failure;
use super::lag::RoleChoice;
use super::printing::json_out;
use super::processor_model::ProcessorModel;
use super::serve::dependency_of;
use crate::kafka::check_role_access;
use crate::onnx::{LoadError, Provider};
use crate::processor::ModelError;
use crate::settings::{
    ConsumedRole, ConsumerArguments, ConsumerSettings, KafkaArguments, KafkaSettings, ModelArguments,
    ObjectAddress, OutboundArguments, S3Arguments, S3Settings, ScratchArguments, StagingArguments,
    StagingSettings,
};
use crate::song::SongError;
use crate::storage::{S3, Scratch, Staging, TimeLimits};

/// Limit of one request to the object store: the objects are tiny.
const STORE_LIMIT: Duration = Duration::from_secs(15);

/// Limits of file system calls, which block indefinitely on a volume whose server does not respond. Scratch space waits 30 s
/// for another process that removes old files.
const STAGING: Limit = Limit {
    check: "staging",
    time: Duration::from_secs(60),
    fix: "check the server of the volume, and that this machine or pod can reach it",
};
const SCRATCH: Limit = Limit {
    check: "scratch",
    ..STAGING
};

/// Limit of downloading and loading the model: a gigabyte at 2 MB/s takes 500 s.
const MODEL: Limit = Limit {
    check: "model",
    time: Duration::from_secs(600),
    fix: "check the volume of MODEL_FILE_DIR, or the server of MODEL_URI and the network to it",
};

/// Time that the end waits for calls that exceeded their limits.
const END_LIMIT: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  separation-worker check processor                      # with the environment variables of a processor
  separation-worker check processor --provider cuda --bootstrap-servers kafka:9092
  separation-worker check uploader | jq 'select(.result != \"ok\")'

Prints a JSON object a line: check (kafka, topics, rights, staging, store, scratch, model, gpu), result (ok, warning,
problem), message and fix. Exits 0 without problems, 1 with problems, 2 if the settings are invalid. A volume that does not
respond for 60 s is a problem, and so is a model that is not loaded within 10 minutes. Loads the model, in addition to that
of a worker that runs beside it. separation-operator check --in-cluster runs it for the pools of a cluster.")]
pub(super) struct CheckArguments {
    /// Role to check
    #[arg(value_enum, value_name = "ROLE")]
    role: RoleChoice,
    #[command(flatten)]
    kafka: KafkaArguments,
    #[command(flatten)]
    consumer: ConsumerArguments,
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    staging: StagingArguments,
    #[command(flatten)]
    scratch: ScratchArguments,
    #[command(flatten)]
    s3: S3Arguments,
    #[command(flatten)]
    outbound: OutboundArguments,
}

/// Checks everything and prints each finding as soon as it is known.
pub(super) fn run(arguments: &CheckArguments) -> Result<(), Failure> {
    let role = arguments.role.role();
    let s3 = arguments.s3.settings()?;
    let model = match role {
        ConsumedRole::Processor => {
            let model = ProcessorModel::new(&arguments.model, &s3, &arguments.outbound)?;
            Some((model, arguments.model.runtime().provider))
        }
        ConsumedRole::Uploader => {
            s3.bucket()?;
            None
        }
    };
    let checks = Checks {
        kafka: arguments.kafka.settings()?,
        consumer: arguments.consumer.settings(role)?,
        staging: arguments.staging.settings(),
        scratch: arguments.scratch.clone(),
        s3: &s3,
        model,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let worst = runtime.block_on(checks.run());
    // Otherwise the process would wait for calls that never return. Leaving ONNX Runtime while it loads a model may crash
    // the process, after the findings are printed.
    runtime.shutdown_timeout(END_LIMIT);
    match worst? {
        CheckResult::Ok | CheckResult::Warning => Ok(()),
        CheckResult::Problem => Err(Failure::Reported),
    }
}

/// The time limit of a step, and the fix if the step exceeds it.
struct Limit {
    check: &'static str,
    time: Duration,
    fix: &'static str,
}

impl Limit {
    /// The result of a step, or a problem with the name of the step.
    async fn within<T>(&self, name: &str, step: impl Future<Output = T>) -> Result<T, Finding> {
        let ended = tokio::time::timeout(self.time, step).await;
        ended.map_err(|_| {
            let (seconds, fix) = (self.time.as_secs(), self.fix);
            Finding::problem(
                self.check,
                format!("{name} has not ended after {seconds} s; fix: {fix}"),
            )
        })
    }
}

struct Checks<'a> {
    kafka: KafkaSettings,
    consumer: ConsumerSettings,
    staging: StagingSettings,
    scratch: ScratchArguments,
    s3: &'a S3Settings,
    /// Of processors.
    model: Option<(ProcessorModel<'a>, Provider)>,
}

impl Checks<'_> {
    /// Returns the worst result.
    async fn run(&self) -> anyhow::Result<CheckResult> {
        let mut worst = print(&check_role_access(&self.kafka, &self.consumer).await)?;
        worst = worst.max(print(&self.storage().await)?);
        worst = worst.max(print(&[self.scratch().await])?);
        if let Some((model, provider)) = &self.model {
            worst = worst.max(print(&load(model, *provider).await)?);
        }
        Ok(worst)
    }

    /// Staging, the bucket of finished stems, and further buckets of songs.
    async fn storage(&self) -> Vec<Finding> {
        let times = TimeLimits {
            request: STORE_LIMIT,
            ..TimeLimits::default()
        };
        let store = match self.staging.uses_s3() || self.s3.bucket.is_some() {
            true => Some(S3::connect_within(self.s3, times).await),
            false => None,
        };
        let mut findings = self.staging(store.clone()).await;
        let Some(store) = store else { return findings };
        let stems = self.s3.bucket.as_ref().map(|bucket| ObjectAddress {
            bucket: bucket.clone(),
            key: self.s3.stems_prefix.clone(),
        });
        let staging = self.staging.s3_staging.as_ref();
        for prefix in staging.into_iter().chain(&stems) {
            findings.push(match store.try_operations(prefix).await {
                Ok(()) => Finding::ok(
                    "store",
                    format!("{prefix}: objects can be written, read and deleted"),
                ),
                Err(error) => problem("store", &error.into()),
            });
        }
        let staging = staging.map(|staging| &staging.bucket);
        for bucket in self
            .staging
            .input_buckets
            .iter()
            .filter(|name| Some(*name) != staging)
        {
            let all = ObjectAddress {
                bucket: bucket.clone(),
                key: String::new(),
            };
            findings.push(match store.check_access(&all).await {
                Ok(()) => Finding::ok("store", format!("{all}: objects can be read")),
                Err(error) => problem("store", &error.into()),
            });
        }
        findings
    }

    /// The directories of staging; none with staging in a bucket.
    async fn staging(&self, store: Option<S3>) -> Vec<Finding> {
        let StagingSettings {
            temp_dir, output_dir, ..
        } = &self.staging;
        let name = format!("opening {} and {}", temp_dir.display(), output_dir.display());
        match STAGING.within(&name, Staging::open(&self.staging, store)).await {
            Ok(Ok(_)) if self.staging.s3_staging.is_none() => {
                vec![directory(temp_dir).await, directory(output_dir).await]
            }
            Ok(Ok(_)) => Vec::new(),
            Ok(Err(error)) => vec![problem("staging", &error.into())],
            Err(late) => vec![late],
        }
    }

    async fn scratch(&self) -> Finding {
        let ScratchArguments {
            scratch_dir,
            scratch_limit_bytes,
        } = self.scratch.clone();
        let opening = tokio::task::spawn_blocking(move || {
            Scratch::open(scratch_dir.as_deref(), scratch_limit_bytes).map(drop)
        });
        let finding = match SCRATCH.within("opening the scratch directory", opening).await {
            Ok(Ok(Ok(()))) => return Finding::ok("scratch", "the scratch directory can be used"),
            Ok(Ok(Err(error))) => problem("scratch", &error.into()),
            Ok(Err(panicked)) => problem("scratch", &panicked.into()),
            Err(late) => late,
        };
        match self.consumer.role {
            ConsumedRole::Processor => finding,
            // Uploaders need it for previews only.
            ConsumedRole::Uploader => Finding {
                result: CheckResult::Warning,
                ..finding
            },
        }
    }
}

/// Whether files can be written to a shared directory.
async fn directory(path: &Path) -> Finding {
    let shown = path.display().to_string();
    let path = path.to_owned();
    let writing = tokio::task::spawn_blocking(move || tempfile::NamedTempFile::new_in(path).map(drop));
    match STAGING.within(&format!("writing to {shown}"), writing).await {
        Ok(Ok(Ok(()))) => Finding::ok("staging", format!("{shown}: files can be written")),
        Ok(Ok(Err(error))) => {
            let fix = "allow the worker's user to write to the volume, and free space on it";
            Finding::problem("staging", format!("{shown}: {error}; fix: {fix}"))
        }
        Ok(Err(panicked)) => problem("staging", &panicked.into()),
        Err(late) => late,
    }
}

/// Downloads and loads the model as a processor does; a checksum that differs is an error then.
async fn load(model: &ProcessorModel<'_>, provider: Provider) -> Vec<Finding> {
    let progress = watch::Sender::new(());
    match MODEL.within("loading the model", model.load(&progress)).await {
        Ok(Ok(separation)) => {
            let model = separation.provenance();
            let name = model.name.as_deref().unwrap_or("of unknown name");
            let mut findings = vec![Finding::ok(
                "model",
                format!("model {name} is loaded; SHA-256: {}", model.sha256),
            )];
            if provider == Provider::Cuda {
                findings.push(Finding::ok("gpu", "ONNX Runtime uses the GPU (CUDA)"));
            }
            findings
        }
        Ok(Err(error)) if is_of_provider(&error, provider) => vec![problem("gpu", &error)],
        Ok(Err(error)) => vec![problem("model", &error)],
        Err(late) => vec![late],
    }
}

/// Whether the GPU, and not the model, is why it was not loaded.
fn is_of_provider(error: &anyhow::Error, provider: Provider) -> bool {
    let Some(ModelError::Load(error)) = error.downcast_ref() else {
        return false;
    };
    provider == Provider::Cuda
        && matches!(
            error,
            SongError::Load(LoadError::Provider { .. } | LoadError::Library(_)) | SongError::GpuMemory { .. }
        )
}

/// A problem with the fix of its message, else that of the dependency that failed.
fn problem(check: &str, error: &anyhow::Error) -> Finding {
    let finding = Finding::problem(check, format!("{error:#}"));
    let fix = finding
        .fix
        .or_else(|| dependency_of(error).map(|dependency| dependency.fix.to_owned()));
    Finding { fix, ..finding }
}

/// Prints findings and returns the worst result.
fn print(findings: &[Finding]) -> anyhow::Result<CheckResult> {
    for finding in findings {
        json_out(finding).context("cannot print")?;
    }
    let results = findings.iter().map(|finding| finding.result);
    Ok(results.max().unwrap_or(CheckResult::Ok))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_step_that_never_ends_is_a_problem_with_a_fix() {
        for (limit, check, message, fix) in [
            (
                STAGING,
                "staging",
                "writing to /songs has not ended after 60 s",
                "the server of the volume",
            ),
            (
                SCRATCH,
                "scratch",
                "has not ended after 60 s",
                "the server of the volume",
            ),
            (MODEL, "model", "has not ended after 600 s", "MODEL_FILE_DIR"),
        ] {
            let finding = limit
                .within("writing to /songs", pending::<()>())
                .await
                .unwrap_err();
            assert_eq!((&*finding.check, finding.result), (check, CheckResult::Problem));
            assert!(finding.message.contains(message), "{finding:?}");
            assert!(
                finding.fix.as_deref().unwrap_or_default().contains(fix),
                "{finding:?}"
            );
        }
    }

    #[test]
    fn a_blocked_call_does_not_keep_the_process() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (release, blocks) = std::sync::mpsc::channel::<()>();
        let limit = Limit {
            time: Duration::from_millis(10),
            ..STAGING
        };
        let blocked = runtime.block_on(async {
            let call = tokio::task::spawn_blocking(move || blocks.recv());
            limit.within("a call", call).await.is_err()
        });
        assert!(blocked);
        runtime.shutdown_timeout(Duration::from_millis(10));
        drop(release);
    }
}
