//! Runs the blocks of docs/guides that are marked `runs-here`, each guide from nothing to stems.

use std::fs;

use anyhow::ensure;
use separation_scenarios::{STEP_TIMEOUT, System, free_port, paste};
use separation_testbed::{
    AUTHORIZER, ClusterOptions, Kafka, KafkaOptions, Mark, TempDirectory, eventually, guide, song,
};
use serde_json::{Deserializer, Value, json};

use crate::is_skipped;

/// Password of the API's user.
const PASSWORD: &str = "trial";

/// File with objects that Strimzi would create.
const SECRETS: &str = "secrets.yaml";

#[tokio::test]
async fn the_blocks_of_the_guides_lead_to_stems() {
    if is_skipped() {
        return;
    }
    let settings = AUTHORIZER.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let kafka = KafkaOptions {
        secure: true,
        settings: settings.into(),
        ..KafkaOptions::default()
    };
    let options = ClusterOptions {
        kafka,
        ..ClusterOptions::default()
    };
    let system = System::start(options).await.unwrap();
    let kafka = &system.cluster.kafka;
    let authenticated = json!({
        "bootstrapServers": kafka.bootstrap_sasl_ssl(),
        "sasl": {"username": kafka.security().username()},
    });
    follow(&system, "gke-strimzi.md", &authenticated).await;
    // Its topics exist now.
    let plain = json!({"bootstrapServers": kafka.bootstrap()});
    follow(&system, "spot.md", &plain).await;
    // These have no pool that runs here.
    for name in ["eks-msk.md", "gpu.md"] {
        follow(&system, name, &Value::Null).await;
    }
}

/// Runs a guide with the addresses of this cluster in its pools, waits for the stems of the song that it posts, and
/// deletes the namespace.
async fn follow(system: &System, name: &str, brokers: &Value) {
    let cluster = &system.cluster;
    let home = TempDirectory::new().unwrap();
    fs::write(home.join("song.wav"), song(1.0, 0)).unwrap();
    fs::write(home.join(SECRETS), strimzi_secrets(&cluster.kafka).to_string()).unwrap();
    let (mut commands, mut bucket) = (String::new(), None);
    for block in guide(name).unwrap() {
        let mut objects = block.documents().unwrap();
        for object in &objects {
            create_in_kafka(&cluster.kafka, object).await;
        }
        if block.mark != Some(Mark::RunsHere) {
            continue;
        }
        let Some(file) = block.file_name() else {
            commands.push_str(&block.text);
            continue;
        };
        let pools = objects
            .iter_mut()
            .filter(|object| object["kind"] == "SeparationPool");
        for pool in pools {
            bucket = Some(prepare_pool(system, pool, brokers).await);
        }
        // JSON is also YAML.
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        fs::write(home.join(file), list.to_string()).unwrap();
    }
    let commands = filled_in(system, &commands);
    let printed = paste(cluster, home.path(), &commands, STEP_TIMEOUT * 3)
        .await
        .unwrap();
    if let Some(bucket) = bucket {
        assert!(printed.contains("vocals"), "{printed}");
        wait_for_stems(system, &bucket, &printed).await;
    }
    let namespace = ["namespace", "media", "--ignore-not-found"];
    let delete = [&["delete", "--wait=false"][..], &namespace].concat();
    cluster.kubectl(&delete).await.unwrap();
    eventually("the end of the namespace", STEP_TIMEOUT, async || {
        anyhow::Ok(cluster.get("/api/v1/namespaces/media").await?.is_null())
    })
    .await;
}

/// The commands with this cluster's credentials, and with a free port in place of 8000.
fn filled_in(system: &System, commands: &str) -> String {
    let s3 = &system.cluster.s3;
    let commands = commands
        .replace("KEY_ID=…", &format!("KEY_ID={}", s3.access_key()))
        .replace("ACCESS_KEY=…", &format!("ACCESS_KEY={}", s3.secret_key()))
        .replace("password=…", &format!("password={PASSWORD}"))
        .replace("admin:…", &format!("admin:{PASSWORD}"))
        .replace("8000", &free_port().unwrap().to_string())
        .replace("apply -f pool.yaml", &format!("apply -f {SECRETS} -f pool.yaml"));
    assert!(!commands.contains('…'), "{commands}");
    commands
}

/// The Secrets that Strimzi writes for a Kafka and a KafkaUser.
fn strimzi_secrets(kafka: &Kafka) -> Value {
    let ca = fs::read_to_string(kafka.security().ca()).unwrap();
    let secret = |name: &str, data: Value| {
        json!({"apiVersion": "v1", "kind": "Secret", "stringData": data,
               "metadata": {"name": name, "namespace": "media"}})
    };
    let items = [
        secret("media-cluster-ca-cert", json!({"ca.crt": ca})),
        secret("separation", json!({"password": kafka.security().password()})),
    ];
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// Does what Strimzi does for a KafkaTopic and a KafkaUser.
async fn create_in_kafka(kafka: &Kafka, object: &Value) {
    let spec = &object["spec"];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    if object["kind"] == "KafkaTopic" {
        let partitions = spec["partitions"].as_i64().unwrap().try_into().unwrap();
        kafka
            .create_topic(&text(&spec["topicName"]), partitions)
            .await
            .unwrap();
    }
    let acls = spec["authorization"]["acls"].as_array();
    for acl in acls.into_iter().flatten() {
        let resource = &acl["resource"];
        assert_eq!(resource["patternType"], "prefix");
        let user = format!("User:{}", kafka.security().username());
        let kind = format!("--{}", text(&resource["type"]));
        let name = text(&resource["name"]);
        let mut arguments = vec!["--add", "--allow-principal", &user];
        arguments.extend(["--resource-pattern-type", "prefixed", &kind, &name]);
        for operation in acl["operations"].as_array().unwrap() {
            arguments.extend(["--operation", operation.as_str().unwrap()]);
        }
        kafka.change_acls(&arguments).await.unwrap();
    }
}

/// Writes the addresses of this cluster into a pool, and creates its bucket and the labels of nodes that it selects.
/// Returns the bucket.
async fn prepare_pool(system: &System, pool: &mut Value, brokers: &Value) -> String {
    let cluster = &system.cluster;
    let here = json!({
        "kafka": brokers,
        "storage": {"s3": {"endpoint": cluster.s3.endpoint()}},
        "processor": {
            "model": {"name": "builtin"},
            // By default one core each, and a test machine may have only two.
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        },
    });
    json_patch::merge(&mut pool["spec"], &here);
    let labels = pool["spec"]["processor"]["nodeSelector"].as_object();
    for (name, value) in labels.into_iter().flatten() {
        let label = format!("{name}={}", value.as_str().unwrap());
        let node = cluster.node.name();
        cluster.kubectl(&["label", "node", &node, &label]).await.unwrap();
    }
    let bucket = pool["spec"]["storage"]["stems"]["bucket"].as_str().unwrap();
    cluster.s3.create_bucket(bucket).await.unwrap();
    bucket.to_owned()
}

/// Waits for the stems of the task that curl printed.
async fn wait_for_stems(system: &System, bucket: &str, printed: &str) {
    let response = &printed[printed.find('{').unwrap()..];
    let task = Deserializer::from_str(response)
        .into_iter::<Value>()
        .next()
        .unwrap()
        .unwrap();
    let prefix = format!("v1/stems/{}/", task["id"].as_str().unwrap());
    eventually("both stems", STEP_TIMEOUT, async || {
        let stored = system.cluster.s3.list(bucket, &prefix).await?;
        let has = |stem: &str| stored.iter().any(|object| object.key.contains(stem));
        ensure!(has("vocals") && has("instrumental"), "{stored:?}");
        anyhow::Ok(true)
    })
    .await;
}
