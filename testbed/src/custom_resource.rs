//! The reference of a custom resource in Markdown, from the schema of its CRD: a table for each object.

use serde_json::Value;

use crate::reference::{table, title};

/// Fields with a type of Kubernetes, and the text in their type column. They get no table.
const KUBERNETES_TYPES: [(&str, &str); 4] = [
    (
        "affinity",
        "Kubernetes `Affinity`: `kubectl explain pod.spec.affinity`",
    ),
    (
        "podTemplate",
        "Kubernetes `PodTemplateSpec`: `kubectl explain deployment.spec.template`",
    ),
    (
        "valueFrom",
        "Kubernetes `EnvVarSource`: `kubectl explain pod.spec.containers.env.valueFrom`",
    ),
    (
        "conditions",
        "list of Kubernetes `Condition`: see [conditions](../operator.md#conditions)",
    ),
];

/// The reference of the custom resource that `crd` declares, with an example in YAML.
///
/// # Panics
/// If an object of the schema has neither fields nor an entry in `KUBERNETES_TYPES`.
pub fn custom_resource_reference(crd: &Value, example: &str) -> String {
    let (definition, version) = (&crd["spec"], &crd["spec"]["versions"][0]);
    let (names, schema) = (&definition["names"], &version["schema"]["openAPIV3Schema"]);
    let short_names = names["shortNames"].as_array().into_iter().flatten();
    let names_of_kubectl: Vec<_> = [&names["plural"], &names["singular"]]
        .into_iter()
        .chain(short_names)
        .map(code)
        .collect();
    let mut text = title(string(&names["kind"]));
    text += &format!("\n{}\n\n", description(schema));
    text += &format!(
        "- apiVersion: `{}/{}`, {}\n",
        string(&definition["group"]),
        string(&version["name"]),
        string(&definition["scope"]).to_lowercase()
    );
    text += &format!("- names for kubectl: {}\n", names_of_kubectl.join(", "));
    text += "- guide: [operator.md](../operator.md), with every condition and reason\n";
    text += &rules(schema);
    text += "\nIn the tables, required fields come first. Defaults in code style are set by the API server and visible \
             in the pool; the operator applies the others.\n";
    let columns = version["additionalPrinterColumns"]
        .as_array()
        .into_iter()
        .flatten();
    text += &format!("\n## Columns of `kubectl get {}`\n", string(&names["plural"]));
    text += &table(
        "| column | type | field | description |",
        columns.map(column).collect(),
    );
    text += "\n## Example\n\nOne of the [samples](../../deploy/samples); others have GPUs, a shared volume, and \
             secured Kafka.\n";
    text += &format!("\n```yaml\n{}\n```\n", example.trim_end());
    let mut sections = Sections::default();
    for part in ["spec", "status"] {
        sections.add(part, &schema["properties"][part]);
    }
    text += &sections.to_markdown();
    text
}

/// The tables of objects, each before the tables of its fields.
#[derive(Default)]
struct Sections(Vec<Section>);

struct Section {
    /// All objects with these fields.
    paths: Vec<String>,
    body: String,
}

impl Sections {
    /// Adds the object at `path`, and those below it. Returns the path in the heading of its section, which is another
    /// one if the two objects are equal.
    fn add(&mut self, path: &str, schema: &Value) -> String {
        let position = self.0.len();
        let properties = schema["properties"].as_object();
        let mut fields: Vec<_> = properties.into_iter().flatten().collect();
        let required: Vec<_> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .map(string)
            .collect();
        fields.sort_by_key(|(name, _)| !required.contains(&name.as_str()));
        let row = |(name, field): (&String, &Value)| {
            let type_ = self.field_type(&format!("{path}.{name}"), name, field);
            let [default, text] = default_and_description(field, required.contains(&name.as_str()));
            [format!("`{name}`"), type_, default, text + &pattern(field)]
        };
        let mut body = table(
            "| field | type | default | description |",
            fields.into_iter().map(row).collect(),
        );
        body += &rules(schema);
        if let Some(same) = self.0.iter_mut().find(|section| section.body == body) {
            same.paths.push(path.to_owned());
            return same.paths[0].clone();
        }
        let paths = vec![path.to_owned()];
        self.0.insert(position, Section { paths, body });
        path.to_owned()
    }

    fn field_type(&mut self, path: &str, name: &str, schema: &Value) -> String {
        match KUBERNETES_TYPES.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => (*text).to_owned(),
            None => self.type_of(path, schema),
        }
    }

    fn type_of(&mut self, path: &str, schema: &Value) -> String {
        if let Some(values) = schema["enum"].as_array() {
            return values.iter().map(code).collect::<Vec<_>>().join(", ");
        }
        if schema["x-kubernetes-int-or-string"] == true {
            return "quantity".to_owned();
        }
        let (items, values) = (&schema["items"], &schema["additionalProperties"]);
        match string(&schema["type"]) {
            "array" => {
                let items = self.type_of(&format!("{path}[]"), items);
                format!("list of {items}") + &bounds(&Value::Null, &schema["maxItems"], " items")
            }
            "object" if schema["properties"].is_object() => {
                format!("[object](#{})", anchor(&self.add(path, schema)))
            }
            "object" if values.is_object() => {
                let values = self.type_of(path, values);
                format!("map of {values}") + &bounds(&Value::Null, &schema["maxProperties"], " entries")
            }
            "object" => panic!("{path} has no fields; fix: add its type to KUBERNETES_TYPES"),
            "string" if schema["format"] == "date-time" => "time (RFC 3339)".to_owned(),
            "string" => {
                "string".to_owned() + &bounds(&schema["minLength"], &schema["maxLength"], " characters")
            }
            other => other.to_owned() + &bounds(&schema["minimum"], &schema["maximum"], ""),
        }
    }

    fn to_markdown(&self) -> String {
        let mut text = String::new();
        for Section { paths, body } in &self.0 {
            let level = if paths[0].contains('.') { "###" } else { "##" };
            text += &format!("\n{level} `{}`\n", paths[0]);
            let same: Vec<_> = paths[1..].iter().map(|path| format!("`{path}`")).collect();
            if !same.is_empty() {
                text += &format!("\nThe same fields: {}.\n", same.join(", "));
            }
            text += body;
        }
        text
    }
}

/// The anchor that Markdown renderers give a heading.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .replace(|letter: char| !letter.is_alphanumeric(), "")
}

fn bounds(least: &Value, most: &Value, unit: &str) -> String {
    match (least.as_f64(), most.as_f64()) {
        (Some(least), Some(most)) => format!(", {least} to {most}{unit}"),
        (Some(least), None) => format!(", at least {least}{unit}"),
        (None, Some(most)) => format!(", at most {most}{unit}"),
        (None, None) => String::new(),
    }
}

/// The default, and the description without the sentence that only repeats it.
///
/// Defaults that the schema does not set are only in descriptions.
fn default_and_description(schema: &Value, required: bool) -> [String; 2] {
    let text = description(schema);
    let (shorter, stated) = without_default(&text).unwrap_or((text.clone(), ""));
    match &schema["default"] {
        _ if required => ["required".to_owned(), text],
        Value::Null => [stated.to_owned(), shorter],
        Value::Object(_) => ["those of its fields".to_owned(), text],
        default if plain(default) == stated => [code(default), shorter],
        default => [code(default), text],
    }
}

/// The description without its sentence `Default: …`, and the default in that sentence.
fn without_default(text: &str) -> Option<(String, &str)> {
    let (before, rest) = text.split_once(" Default: ")?;
    match rest.split_once(". ") {
        Some((stated, after)) => Some((format!("{before} {after}"), stated)),
        None => Some((before.to_owned(), rest.strip_suffix('.')?)),
    }
}

fn pattern(schema: &Value) -> String {
    [schema, &schema["items"], &schema["additionalProperties"]]
        .into_iter()
        .find_map(|schema| schema["pattern"].as_str())
        .map(|pattern| format!(" Pattern: `{pattern}`"))
        .unwrap_or_default()
}

/// The rules of an object and of its fields without a table, as the API server prints them.
fn rules(schema: &Value) -> String {
    let fields = schema["properties"].as_object().into_iter().flatten();
    let fields = fields.filter(|(_, field)| !field["properties"].is_object());
    let of_fields = fields.flat_map(|(name, field)| rules_at(name, field));
    let lines: String = rules_at("", schema).into_iter().chain(of_fields).collect();
    match lines.is_empty() {
        true => lines,
        false => format!("\nRules:\n\n{lines}"),
    }
}

/// A line for each rule of `schema`, with the field that it checks: `field`, unless the rule names another one.
fn rules_at(field: &str, schema: &Value) -> Vec<String> {
    let rules = schema["x-kubernetes-validations"].as_array();
    let line = |rule: &Value| {
        let path = rule["fieldPath"].as_str().unwrap_or(field);
        let message = string(&rule["message"]);
        match path.trim_start_matches('.') {
            "" => format!("- {message}\n"),
            path => format!("- `{path}`: {message}\n"),
        }
    };
    rules.into_iter().flatten().map(line).collect()
}

fn column(column: &Value) -> [String; 4] {
    let wide = column["priority"].as_i64().is_some_and(|priority| priority > 0);
    let wide = if wide { " (`-o wide`)" } else { "" };
    [
        format!("{}{wide}", code(&column["name"])),
        string(&column["type"]).to_owned(),
        code(&column["jsonPath"]),
        description(column),
    ]
}

/// The description in one line.
fn description(value: &Value) -> String {
    let words: Vec<_> = string(&value["description"]).split_whitespace().collect();
    words.join(" ")
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A value as in YAML.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        other => other.to_string(),
    }
}

fn code(value: &Value) -> String {
    format!("`{}`", plain(value))
}
