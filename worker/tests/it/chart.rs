//! The API accepts the settings that the Helm chart gives it.

use std::collections::BTreeMap;
use std::fs;

use clap::{CommandFactory as _, Parser};
use separation_testbed::Release;
use separation_worker::api::{ApiArguments, ApiPlan, ApiSettings};
use serde_json::{Value, json};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    api: ApiArguments,
}

/// The options equivalent to the chart's variables. Values from a Secret or the pod are replaced by `value`.
fn options(values: &Value, value: &str) -> Vec<String> {
    let objects = Release::default().render(values).expect("a chart");
    let api = objects.iter().find(|object| {
        object["kind"] == "Deployment" && object["metadata"]["labels"]["app.kubernetes.io/component"] == "api"
    });
    let container = &api.expect("an API")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["args"], json!(["api"]));
    let command = Line::command();
    let known: BTreeMap<&str, &str> = command
        .get_arguments()
        .filter_map(|argument| Some((argument.get_env()?.to_str()?, argument.get_long()?)))
        .collect();
    let mut options = vec!["api".to_owned()];
    for variable in container["env"].as_array().expect("variables") {
        let name = variable["name"].as_str().expect("a name");
        // A variable of the C library, not ours.
        if name == "TMPDIR" {
            continue;
        }
        let option = known
            .get(name)
            .unwrap_or_else(|| panic!("the API has no variable {name}"));
        let text = variable["value"].as_str().unwrap_or(value);
        options.push(format!("--{option}={text}"));
    }
    options
}

fn parsed_settings(values: &Value) -> ApiSettings {
    let line = Line::try_parse_from(options(values, "value-of-a-secret")).expect("options");
    ApiPlan::new(&line.api).expect("a plan");
    line.api.settings().expect("settings")
}

fn with_api(change: &Value) -> Value {
    let mut api = json!({
        "enabled": true,
        "kafka": {"bootstrapServers": "kafka.media.svc:9092"},
        "storage": {"s3": {"bucket": "stems"}, "work": {"s3Prefix": "staging/"}},
        "auth": {"secretRef": {"name": "api"}},
    });
    for (name, value) in change.as_object().expect("fields") {
        api[name] = value.clone();
    }
    json!({"api": api})
}

#[test]
fn the_api_accepts_the_minimal_chart() {
    let settings = parsed_settings(&with_api(&json!({})));
    assert_eq!(settings.address.to_string(), "0.0.0.0:8000");
    assert_eq!(settings.task_topic, "uvr_tasks");
    // The chart's explicit values equal the API's defaults.
    let line = Line::try_parse_from(["api", "--password=x"]).expect("options");
    let own = line.api.settings().expect("settings");
    assert_eq!(settings.input.max_bytes, own.input.max_bytes);
    assert_eq!(settings.input.total, own.input.total);
    assert_eq!(settings.input.idle, own.input.idle);
    assert_eq!(settings.max_concurrent_inputs, own.max_concurrent_inputs);
    assert_eq!(settings.processor_group, own.processor_group);
}

#[test]
fn the_api_accepts_every_setting_of_the_chart() {
    let values = with_api(&json!({
        "kafka": {
            "bootstrapServers": "kafka-0:9093,kafka-1:9093",
            "tls": {"caSecretRef": {"name": "ca"}, "clientCertificateSecretRef": {"name": "client"}},
            "sasl": {"mechanism": "SCRAM-SHA-256", "secretRef": {"name": "user"}},
        },
        "storage": {
            "s3": {
                "bucket": "stems",
                "endpoint": "http://s3:9000",
                "region": "us-east-1",
                "pathStyle": true,
                "publicUrl": "https://cdn.example/stems",
                "inputBuckets": ["uploads", "archive"],
                "secretRef": {"name": "s3"},
            },
            "work": {"persistentVolumeClaim": {"claimName": "work"}},
        },
        "outbound": {"allow": ["10.0.0.0/8", "minio.media.svc"]},
        "limits": {"maxInputBytes": 4_294_967_296_i64, "inputTimeoutSeconds": 900,
                   "inputIdleSeconds": 60, "maxConcurrentInputs": 3},
    }));
    // Certificate files must exist, so they are created in another directory here.
    let directory = tempfile::tempdir().expect("a directory");
    let options = options(&values, "value-of-a-secret").into_iter().map(|option| {
        let Some((name, path)) = option.split_once("=/etc/separation/") else {
            return option;
        };
        let path = directory.path().join(path.replace('/', "-"));
        fs::write(&path, "").expect("a file");
        format!("{name}={}", path.display())
    });
    let line = Line::try_parse_from(options).expect("options");
    ApiPlan::new(&line.api).expect("a plan");
    let settings = line.api.settings().expect("settings");
    assert_eq!(settings.input.max_bytes, 4_294_967_296);
    assert_eq!(settings.max_concurrent_inputs, 3);
    let staging = line.api.staging.settings();
    assert_eq!(staging.temp_dir.to_str(), Some("/shared/temp"));
    assert_eq!(staging.input_buckets, ["uploads", "archive"]);
    let kafka = line.api.kafka.settings().expect("settings");
    assert_eq!(kafka.security_protocol, "SASL_SSL");
    assert!(line.api.s3.settings().expect("settings").path_style);
}
