//! The schemas of an OpenAPI document: their types as text with links, their fields, examples.

use serde_json::{Map, Value, json};

use super::html::{anchor, code, escape, inline, prose};

/// Depth at which examples end, in case that a schema contains itself.
const MAX_DEPTH: u8 = 8;

/// Keywords that combine schemas, with the word between their types.
const COMBINATIONS: [(&str, &str); 3] = [("oneOf", " or "), ("anyOf", " or "), ("allOf", " and ")];

/// Keywords of limits, with the words before and after the value.
const LIMITS: [(&str, &str, &str); 10] = [
    ("minimum", "at least", ""),
    ("maximum", "at most", ""),
    ("exclusiveMinimum", "more than", ""),
    ("minLength", "at least", " characters"),
    ("maxLength", "at most", " characters"),
    ("minItems", "at least", " elements"),
    ("maxItems", "at most", " elements"),
    ("maxProperties", "at most", " entries"),
    ("pattern", "matches", ""),
    ("default", "default", ""),
];

/// The named schemas of one document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schemas<'d> {
    /// Prefix of anchors.
    pub(super) api: &'static str,
    pub(super) named: &'d Map<String, Value>,
}

impl Schemas<'_> {
    /// A section for each named schema.
    pub(super) fn sections(&self) -> String {
        let section = |(name, schema): (&String, &Value)| {
            format!(
                "<section class=\"schema\" id=\"{}\">\n<h4>{}</h4>\n<p class=\"type\">{}</p>\n{}</section>\n",
                self.anchor(name),
                escape(name),
                self.kind(schema),
                self.details(schema)
            )
        };
        self.named.iter().map(section).collect()
    }

    /// The type, with links to named schemas.
    pub(super) fn kind(&self, schema: &Value) -> String {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = name_of(reference);
            return format!("<a href=\"#{}\">{}</a>", self.anchor(name), escape(name));
        }
        if let Some(value) = schema.get("const") {
            return literal(value);
        }
        if let Some(values) = schema["enum"].as_array() {
            return joined(values.iter().map(literal), " or ");
        }
        for (keyword, word) in COMBINATIONS {
            if let Some(parts) = schema[keyword].as_array() {
                return joined(parts.iter().map(|part| self.kind(part)), word);
            }
        }
        let types = match &schema["type"] {
            Value::String(only) => vec![only.as_str()],
            Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
            _ => vec!["any value"],
        };
        joined(types.into_iter().map(|name| self.plain(name, schema)), " or ")
    }

    fn plain(&self, name: &str, schema: &Value) -> String {
        let values = &schema["additionalProperties"];
        match (name, schema["format"].as_str()) {
            ("array", _) => format!("list of {}", self.kind(&schema["items"])),
            ("object", _) if values.is_object() => format!("object with values of {}", self.kind(values)),
            ("null", _) | (_, None) => escape(name),
            (_, Some(format)) => escape(&format!("{name} ({format})")),
        }
    }

    /// Description, limits and fields; those of named schemas are in their sections.
    pub(super) fn details(&self, schema: &Value) -> String {
        let mut html = prose(schema["description"].as_str().unwrap_or_default());
        html.push_str(&limits(schema));
        if let Some(fields) = schema["properties"].as_object() {
            let required = &schema["required"];
            let is_required = |name: &str| {
                let names = required.as_array().into_iter().flatten();
                names.filter_map(Value::as_str).any(|found| found == name)
            };
            let items = fields
                .iter()
                .map(|(name, field)| self.item(name, if is_required(name) { "required" } else { "" }, field));
            html.push_str(&format!(
                "<ul class=\"fields\">\n{}</ul>\n",
                items.collect::<String>()
            ));
        }
        if schema["additionalProperties"] == false {
            html.push_str("<p>Other fields are refused.</p>\n");
        }
        let combined = COMBINATIONS
            .iter()
            .filter_map(|(keyword, _)| schema[*keyword].as_array());
        for part in combined.flatten().chain(schema.get("items")) {
            html.push_str(&self.details(part));
        }
        html
    }

    /// A field or a parameter. `note` may be empty.
    pub(super) fn item(&self, name: &str, note: &str, schema: &Value) -> String {
        format!(
            "<li>{} <span class=\"type\">{}</span> <span class=\"note\">{}</span>\n{}</li>\n",
            code(name),
            self.kind(schema),
            inline(note),
            self.details(schema)
        )
    }

    /// An example: the document's, or one that is made of those of the fields.
    pub(super) fn example(&self, schema: &Value) -> Value {
        self.example_at(schema, 0)
    }

    fn example_at(&self, schema: &Value, depth: u8) -> Value {
        if depth > MAX_DEPTH {
            return Value::Null;
        }
        if let Some(example) = given_example(schema) {
            return example.clone();
        }
        if let Some(named) = schema["$ref"]
            .as_str()
            .and_then(|name| self.named.get(name_of(name)))
        {
            return self.example_at(named, depth + 1);
        }
        let part = |part: &Value| self.example_at(part, depth + 1);
        for keyword in ["oneOf", "anyOf"] {
            let mut parts = schema[keyword].as_array().into_iter().flatten();
            if let Some(first) = parts.find(|part| part["type"] != "null") {
                return part(first);
            }
        }
        if let Some(parts) = schema["allOf"].as_array() {
            let objects = parts.iter().map(part).filter_map(|example| match example {
                Value::Object(fields) => Some(fields),
                _ => None,
            });
            return Value::Object(objects.flatten().collect());
        }
        match type_of(schema) {
            "object" => self.object_example(schema, depth),
            "array" => Value::Array(vec![part(&schema["items"])]),
            "integer" | "number" => schema.get("minimum").cloned().unwrap_or_else(|| 0.into()),
            "boolean" => false.into(),
            "string" => match schema["format"].as_str() {
                Some("date-time") => json!("2026-01-02T03:04:05Z"),
                Some("uuid") => json!("0b6f1ac8-52a1-4b0c-9d4c-1a4a2a0ad1cf"),
                _ => json!("…"),
            },
            _ => Value::Null,
        }
    }

    /// The required fields, and the others that have an example of their own: optional fields may exclude one another.
    fn object_example(&self, schema: &Value, depth: u8) -> Value {
        let required: Vec<&Value> = schema["required"].as_array().into_iter().flatten().collect();
        let fields = schema["properties"].as_object().into_iter().flatten();
        let shown = fields.filter(|(name, field)| {
            required.iter().any(|found| *found == name.as_str()) || given_example(field).is_some()
        });
        let example = shown.map(|(name, field)| (name.clone(), self.example_at(field, depth + 1)));
        Value::Object(example.collect())
    }

    fn anchor(&self, name: &str) -> String {
        anchor(&format!("{} schema {name}", self.api))
    }
}

/// The schema's own example, or the value that is the only or the first possible one.
fn given_example(schema: &Value) -> Option<&Value> {
    let first = |list: &'static str| schema[list].get(0);
    schema
        .get("example")
        .or_else(|| first("examples"))
        .or_else(|| schema.get("const"))
        .or_else(|| schema.get("default"))
        .or_else(|| first("enum"))
}

/// The type; of several ones the first that is not `null`.
fn type_of(schema: &Value) -> &str {
    let several = schema["type"].as_array().into_iter().flatten();
    let mut all = several.chain(schema.get("type")).filter_map(Value::as_str);
    all.find(|name| *name != "null").unwrap_or_default()
}

fn limits(schema: &Value) -> String {
    let limits = LIMITS.iter().filter_map(|(keyword, before, after)| {
        let value = schema.get(*keyword)?;
        Some(format!("{before} {}{after}", literal(value)))
    });
    let limits: Vec<String> = limits.collect();
    match limits.is_empty() {
        true => String::new(),
        false => format!("<p class=\"limits\">{}</p>\n", limits.join(", ")),
    }
}

/// The last part of a reference: the name of a schema.
fn name_of(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or_default()
}

fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => code(text),
        value => code(&value.to_string()),
    }
}

fn joined(parts: impl Iterator<Item = String>, word: &str) -> String {
    parts.collect::<Vec<_>>().join(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named() -> Map<String, Value> {
        let schemas = json!({
            "Stem": {"type": "string", "enum": ["vocals", "instrumental"]},
            "Task": {
                "type": "object",
                "description": "A `task`",
                "required": ["stems"],
                "additionalProperties": false,
                "properties": {
                    "stems": {"type": "array", "maxItems": 2, "items": {"$ref": "#/components/schemas/Stem"}},
                    "error": {"type": ["string", "null"], "format": "uuid"},
                    "percent": {"type": "integer", "minimum": 1, "maximum": 100, "example": 5}
                }
            }
        });
        schemas.as_object().expect("an object").clone()
    }

    fn check(test: impl FnOnce(Schemas<'_>)) {
        let named = named();
        test(Schemas {
            api: "v1",
            named: &named,
        });
    }

    #[test]
    fn a_type_is_described_with_links_to_named_schemas() {
        check(|schemas| {
            let link = "<a href=\"#v1-schema-Stem\">Stem</a>";
            let stem = json!({"$ref": "#/components/schemas/Stem"});
            let list = json!({"type": "array", "items": stem});
            assert_eq!(schemas.kind(&list), format!("list of {link}"));
            let optional = json!({"oneOf": [{"type": "null"}, stem]});
            assert_eq!(schemas.kind(&optional), format!("null or {link}"));
            let map = json!({"type": "object", "additionalProperties": {"type": "string"}});
            assert_eq!(schemas.kind(&map), "object with values of string");
            let nullable = json!({"type": ["string", "null"], "format": "uri"});
            assert_eq!(schemas.kind(&nullable), "string (uri) or null");
            assert_eq!(schemas.kind(&json!({})), "any value");
            assert_eq!(schemas.kind(&json!({"const": "<"})), "<code>&lt;</code>");
        });
    }

    #[test]
    fn a_section_has_the_fields_with_their_limits() {
        check(|schemas| {
            let html = schemas.sections();
            for expected in [
                "id=\"v1-schema-Task\"",
                "<p>A <code>task</code></p>",
                "<code>stems</code> <span class=\"type\">list of <a href=\"#v1-schema-Stem\">Stem</a></span> \
                 <span class=\"note\">required</span>",
                "at most <code>2</code> elements",
                "at least <code>1</code>, at most <code>100</code>",
                "Other fields are refused.",
                "<code>vocals</code> or <code>instrumental</code>",
            ] {
                assert!(html.contains(expected), "{expected} is not in\n{html}");
            }
        });
    }

    #[test]
    fn an_example_has_the_required_fields_and_those_with_an_example() {
        check(|schemas| {
            let task = json!({"$ref": "#/components/schemas/Task"});
            assert_eq!(schemas.example(&task), json!({"stems": ["vocals"], "percent": 5}));
            let both = json!({"allOf": [task, {"type": "object", "required": ["at"],
                "properties": {"at": {"type": "string", "format": "date-time"}}}]});
            assert_eq!(
                schemas.example(&both),
                json!({"stems": ["vocals"], "percent": 5, "at": "2026-01-02T03:04:05Z"})
            );
        });
    }

    #[test]
    fn a_schema_that_contains_itself_has_an_example() {
        let node =
            json!({"type": "object", "required": ["next"], "properties": {"next": {"$ref": "#/x/Node"}}});
        let named: Map<String, Value> = [("Node".to_owned(), node)].into_iter().collect();
        let schemas = Schemas {
            api: "v1",
            named: &named,
        };
        assert!(schemas.example(&json!({"$ref": "#/x/Node"})).is_object());
    }
}
