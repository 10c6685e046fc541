//! The operations of an OpenAPI document, grouped by tag.

use serde_json::{Map, Value};

use super::html::{anchor, code, escape, inline, prose};
use super::schemas::Schemas;

/// Methods, in the order of their operations at one path.
const METHODS: [&str; 7] = ["get", "post", "put", "patch", "delete", "head", "options"];

/// Name of the group of operations without a tag.
const UNTAGGED: &str = "other";

/// An OpenAPI document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Document<'d> {
    pub(super) json: &'d Value,
    pub(super) schemas: Schemas<'d>,
}

#[derive(Debug, Clone, Copy)]
struct Operation<'d> {
    path: &'d str,
    method: &'d str,
    json: &'d Value,
    /// Parameters of all operations at the path.
    shared: &'d Value,
}

impl<'d> Document<'d> {
    /// A list of links to all operations.
    pub(super) fn contents(&self) -> String {
        let link = |operation: Operation<'d>| {
            format!(
                "<li><a href=\"#{}\">{} {}</a> {}</li>\n",
                self.anchor(operation),
                code(&operation.method.to_uppercase()),
                code(operation.path),
                inline(text(operation.json, "summary"))
            )
        };
        let links: String = self.operations().into_iter().map(link).collect();
        format!("<ul>\n{links}</ul>\n")
    }

    /// A section for each tag, with its operations.
    pub(super) fn sections(&self) -> String {
        let tags = self.json["tags"].as_array().into_iter().flatten();
        let mut groups: Vec<(&str, &str)> = tags
            .map(|tag| (text(tag, "name"), text(tag, "description")))
            .collect();
        let operations = self.operations();
        for operation in &operations {
            let tag = operation.tag();
            if !groups.iter().any(|(name, _)| *name == tag) {
                groups.push((tag, ""));
            }
        }
        let mut html = String::new();
        for (name, description) in groups {
            let of_group: String = operations
                .iter()
                .filter(|operation| operation.tag() == name)
                .map(|operation| self.operation(*operation))
                .collect();
            html.push_str(&format!(
                "<h3>{}</h3>\n{}{of_group}",
                escape(name),
                prose(description)
            ));
        }
        html
    }

    fn operations(&self) -> Vec<Operation<'d>> {
        let paths = self.json["paths"].as_object().into_iter().flatten();
        let at_path = |(path, item): (&'d String, &'d Value)| {
            METHODS.iter().filter_map(move |method| {
                Some(Operation {
                    path,
                    method,
                    json: item.get(*method)?,
                    shared: &item["parameters"],
                })
            })
        };
        paths.flat_map(at_path).collect()
    }

    fn anchor(&self, operation: Operation<'_>) -> String {
        let (api, path, method) = (self.schemas.api, operation.path, operation.method);
        anchor(&format!("{api} {method} {path}"))
    }

    fn operation(&self, operation: Operation<'d>) -> String {
        let json = operation.json;
        let mut html = format!(
            "<section class=\"operation\" id=\"{}\">\n<h4>{} {}</h4>\n",
            self.anchor(operation),
            code(&operation.method.to_uppercase()),
            code(operation.path)
        );
        html.push_str(&prose(text(json, "summary")));
        html.push_str(&prose(text(json, "description")));
        if is_public(json) {
            html.push_str("<p class=\"note\">No authentication.</p>\n");
        }
        let parameters = [operation.shared, &json["parameters"]];
        let parameters = parameters.into_iter().filter_map(Value::as_array).flatten();
        let items: String = parameters
            .map(|parameter| self.parameter(self.resolved(parameter)))
            .collect();
        if !items.is_empty() {
            html.push_str(&format!(
                "<h5>Parameters</h5>\n<ul class=\"fields\">\n{items}</ul>\n"
            ));
        }
        let body = self.resolved(&json["requestBody"]);
        if body.is_object() {
            html.push_str("<h5>Request body</h5>\n");
            html.push_str(&prose(text(body, "description")));
            html.push_str(&self.contents_of(body, Composed::Shown));
        }
        html.push_str("<h5>Responses</h5>\n<ul class=\"fields\">\n");
        for (status, response) in json["responses"].as_object().into_iter().flatten() {
            html.push_str(&self.response(status, self.resolved(response)));
        }
        html.push_str("</ul>\n</section>\n");
        html
    }

    fn parameter(&self, parameter: &Value) -> String {
        let place = text(parameter, "in");
        let note = match parameter["required"] == true {
            true => format!("{place}, required"),
            false => place.to_owned(),
        };
        // The description of a parameter is beside its schema.
        let mut schema = parameter["schema"].clone();
        if let (Some(fields), Some(description)) = (schema.as_object_mut(), parameter.get("description")) {
            fields.insert("description".to_owned(), description.clone());
        }
        self.schemas.item(text(parameter, "name"), &note, &schema)
    }

    fn response(&self, status: &str, response: &Value) -> String {
        let description = inline(text(response, "description"));
        let mut html = format!("<li>{} {description}\n", code(status));
        let headers = response["headers"].as_object().into_iter().flatten();
        let headers: String = headers
            .map(|(name, header)| self.header(name, self.resolved(header)))
            .collect();
        if !headers.is_empty() {
            html.push_str(&format!("<ul class=\"fields\">\n{headers}</ul>\n"));
        }
        // Each error has the same body.
        let composed = match status.starts_with('2') {
            true => Composed::Shown,
            false => Composed::Omitted,
        };
        html.push_str(&self.contents_of(response, composed));
        html.push_str("</li>\n");
        html
    }

    fn header(&self, name: &str, header: &Value) -> String {
        let description = inline(text(header, "description"));
        let kind = self.schemas.kind(&header["schema"]);
        format!(
            "<li>{} <span class=\"type\">{kind}</span> {description}</li>\n",
            code(name)
        )
    }

    /// The content types of a request body or a response, each with its schema and its examples.
    fn contents_of(&self, body: &Value, composed: Composed) -> String {
        let mut html = String::new();
        for (content_type, content) in body["content"].as_object().into_iter().flatten() {
            let schema = &content["schema"];
            let kind = match schema.is_null() {
                true => String::new(),
                false => self.schemas.kind(schema),
            };
            html.push_str(&format!(
                "<p>{} <span class=\"type\">{kind}</span></p>\n",
                code(content_type)
            ));
            html.push_str(&self.schemas.details(schema));
            for example in self.examples(content_type, content, composed) {
                html.push_str(&format!("<pre>{}</pre>\n", escape(&shown(&example))));
            }
        }
        html
    }

    fn examples(&self, content_type: &str, content: &Value, composed: Composed) -> Vec<Value> {
        if let Some(example) = content.get("example") {
            return vec![example.clone()];
        }
        let named = content["examples"].as_object().into_iter().flatten();
        let named: Vec<Value> = named
            .map(|(_, example)| self.resolved(example)["value"].clone())
            .collect();
        let schema = content
            .get("schema")
            .filter(|_| named.is_empty() && composed == Composed::Shown);
        match schema {
            Some(schema) if content_type.ends_with("json") => vec![self.schemas.example(schema)],
            _ => named,
        }
    }

    /// The component that a reference names, or the value itself.
    fn resolved<'v>(&'v self, value: &'v Value) -> &'v Value {
        let reference = value["$ref"]
            .as_str()
            .and_then(|reference| reference.strip_prefix('#'));
        let found = reference.and_then(|pointer| self.json.pointer(pointer));
        found.unwrap_or(value)
    }
}

impl<'d> Operation<'d> {
    fn tag(&self) -> &'d str {
        self.json["tags"][0].as_str().unwrap_or(UNTAGGED)
    }
}

/// Whether an example is made of those of the fields if the document has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Composed {
    Shown,
    Omitted,
}

/// Whether an operation needs no authentication: its own list is empty, or has an empty alternative.
fn is_public(operation: &Value) -> bool {
    let alternatives = operation["security"].as_array();
    alternatives
        .is_some_and(|all| all.is_empty() || all.iter().any(|one| one.as_object().is_some_and(Map::is_empty)))
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

fn shown(example: &Value) -> String {
    match example {
        Value::String(text) => text.clone(),
        example => serde_json::to_string_pretty(example).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn html(json: &Value) -> String {
        let document = Document {
            json,
            schemas: Schemas {
                api: "v1",
                named: json["components"]["schemas"].as_object().expect("schemas"),
            },
        };
        document.contents() + &document.sections()
    }

    #[test]
    fn an_operation_has_its_parameters_bodies_and_responses() {
        let task = json!({"schema": {"$ref": "#/components/schemas/Task"}});
        let given = json!({"schema": {"$ref": "#/components/schemas/Task"}, "example": {"id": "<1>"}});
        let location = json!({"schema": {"type": "string"}, "description": "its URL"});
        let id = json!({
            "name": "id", "in": "path", "required": true, "schema": {"type": "string"}, "description": "of the `task`"
        });
        let json = json!({
            "tags": [{"name": "tasks", "description": "Songs"}],
            "paths": {"/v1/tasks/{id}": {
                "parameters": [{"$ref": "#/components/parameters/Id"}],
                "post": {
                    "tags": ["tasks"], "summary": "Creates a task", "security": [{}],
                    "requestBody": {"content": {"application/json": task}},
                    "responses": {
                        "201": {
                            "description": "Created", "headers": {"Location": location},
                            "content": {"application/json": given}
                        },
                        "404": {"$ref": "#/components/responses/NotFound"}
                    }
                }
            }},
            "components": {
                "schemas": {"Task": {
                    "type": "object", "required": ["id"], "properties": {"id": {"type": "string", "example": "abc"}}
                }},
                "parameters": {"Id": id},
                "responses": {"NotFound": {"description": "No such task"}}
            }
        });
        let html = html(&json);
        for expected in [
            "<a href=\"#v1-post-v1-tasks-id\"><code>POST</code> <code>/v1/tasks/{id}</code></a> Creates a task",
            "<section class=\"operation\" id=\"v1-post-v1-tasks-id\">",
            "<h3>tasks</h3>\n<p>Songs</p>",
            "No authentication.",
            "<span class=\"note\">path, required</span>\n<p>of the <code>task</code></p>",
            "<code>application/json</code> <span class=\"type\"><a href=\"#v1-schema-Task\">Task</a></span>",
            "&quot;id&quot;: &quot;abc&quot;",
            "&quot;id&quot;: &quot;&lt;1&gt;&quot;",
            "<code>Location</code> <span class=\"type\">string</span> its URL",
            "<code>404</code> No such task",
        ] {
            assert!(html.contains(expected), "{expected} is not in\n{html}");
        }
    }

    #[test]
    fn operations_are_in_the_order_of_tags_and_those_without_a_tag_are_last() {
        let json = json!({
            "tags": [{"name": "b"}, {"name": "a"}],
            "paths": {
                "/1": {"get": {"responses": {}}},
                "/2": {"get": {"tags": ["a"], "responses": {}}},
                "/3": {"get": {"tags": ["b"], "responses": {}}, "delete": {"tags": ["b"], "responses": {}}}
            },
            "components": {"schemas": {}}
        });
        let html = html(&json);
        let sections = html.split("<h3>").skip(1);
        let found: Vec<Vec<&str>> = sections
            .map(|section| {
                section
                    .split("<h4>")
                    .map(|part| part.lines().next().unwrap_or_default())
                    .collect()
            })
            .collect();
        let operation = |method: &str, path: &str| format!("<code>{method}</code> <code>{path}</code></h4>");
        let (get, delete) = (operation("GET", "/3"), operation("DELETE", "/3"));
        let (second, first) = (operation("GET", "/2"), operation("GET", "/1"));
        let expected = [
            vec!["b</h3>", get.as_str(), &delete],
            vec!["a</h3>", second.as_str()],
            vec!["other</h3>", first.as_str()],
        ];
        assert_eq!(found, expected);
    }
}
