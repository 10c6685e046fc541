//! The OpenAPI document of v1. The error responses of each operation come from [`problems`].

use axum::Json;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, ObjectBuilder, OpenApi as Document, Ref, RefOr, ResponseBuilder, Type};
use utoipa::{Modify, OpenApi};

use super::paths;
use super::problem::{ProblemBody, ProblemCode};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Separation API v1",
        description = "Separates songs into vocals and instrumental. A client authenticates with an API key, as a Bearer token \
                       or as the password of HTTP Basic with its name, and sees its own tasks only. Clients must ignore \
                       unknown fields of responses."
    ),
    paths(
        paths::create_upload,
        paths::create_task,
        paths::read_task,
        paths::cancel_task,
        paths::delete_task,
        paths::read_stem,
        paths::read_peaks,
        paths::read_preview,
        paths::sign_in,
        paths::read_session,
        paths::sign_out,
        paths::read_openapi
    ),
    components(schemas(ProblemBody)),
    tags(
        (name = "tasks", description = "Songs to separate"),
        (name = "stems", description = "Results"),
        (name = "session", description = "Authentication of the API's own page"),
        (name = "service", description = "The service itself")
    ),
    security(("bearer" = []), ("basic" = [])),
    modifiers(&SecuritySchemes, &ErrorResponses)
)]
struct ApiDescription;

struct SecuritySchemes;

impl Modify for SecuritySchemes {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        for (name, scheme) in [
            ("bearer", HttpAuthScheme::Bearer),
            ("basic", HttpAuthScheme::Basic),
        ] {
            components.add_security_scheme(name, SecurityScheme::Http(Http::new(scheme)));
        }
    }
}

/// The reasons of error responses of an operation.
fn problems(operation_id: &str) -> Vec<ProblemCode> {
    use ProblemCode::{
        Expired, Forbidden, IdempotencyInProgress, IdempotencyKeyReused, InputNotAudio, InputTooLarge,
        Internal, InvalidRequest, NotFound, RangeNotSatisfiable, RequestTimeout, TaskAlreadyFinished,
        TooManyRequests, Unauthenticated, Unavailable, UnsupportedContentType, UrlNotAllowed,
    };
    let own: &[ProblemCode] = match operation_id {
        "create_task" => &[
            InvalidRequest,
            UrlNotAllowed,
            NotFound,
            RequestTimeout,
            IdempotencyInProgress,
            InputTooLarge,
            UnsupportedContentType,
            InputNotAudio,
            IdempotencyKeyReused,
            TooManyRequests,
        ],
        "create_upload" => &[NotFound, TooManyRequests],
        "read_task" | "delete_task" => &[NotFound],
        "cancel_task" => &[NotFound, TaskAlreadyFinished],
        "read_stem" | "read_preview" => &[NotFound, Expired, RangeNotSatisfiable],
        "read_peaks" => &[NotFound, Expired],
        "sign_in" => &[
            InvalidRequest,
            Unauthenticated,
            RequestTimeout,
            InputTooLarge,
            UnsupportedContentType,
        ],
        _ => &[],
    };
    let common: &[ProblemCode] = match operation_id {
        "read_openapi" => &[],
        "sign_in" | "sign_out" => &[Forbidden],
        "read_session" => &[Unauthenticated, Forbidden],
        _ => &[Unauthenticated, Forbidden, Internal, Unavailable],
    };
    [own, common].concat()
}

struct ErrorResponses;

impl Modify for ErrorResponses {
    fn modify(&self, document: &mut Document) {
        for item in document.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.post, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                add_errors(operation);
            }
        }
    }
}

fn add_errors(operation: &mut Operation) {
    use ProblemCode::{IdempotencyInProgress, TooManyRequests, Unauthenticated, Unavailable};
    let operation_id = operation.operation_id.as_deref().unwrap_or_default();
    let codes = problems(operation_id);
    for code in &codes {
        let (status, _) = code.status();
        let same_status = codes.iter().filter(|other| other.status().0 == status);
        let descriptions: Vec<String> = same_status
            .map(|code| format!("{} (`{}`)", code.status().1, code.name()))
            .collect();
        let mut response = ResponseBuilder::new()
            .description(descriptions.join("; or: "))
            .content(
                "application/problem+json",
                Content::new(Some(Ref::from_schema_name("Problem"))),
            );
        let header = match code {
            Unauthenticated => Some(("WWW-Authenticate", Type::String, "The scheme Bearer")),
            IdempotencyInProgress | TooManyRequests | Unavailable => {
                Some(("Retry-After", Type::Integer, "Seconds until a retry may succeed"))
            }
            _ => None,
        };
        if let Some((name, kind, description)) = header {
            let schema = ObjectBuilder::new().schema_type(kind);
            let header = HeaderBuilder::new()
                .schema(Some(schema))
                .description(Some(description));
            response = response.header(name, header.build());
        }
        let responses = &mut operation.responses.responses;
        responses.insert(status.as_str().to_owned(), RefOr::T(response.build()));
    }
}

/// The OpenAPI document of v1.
pub(in crate::api) fn document() -> Document {
    ApiDescription::openapi()
}

/// `GET /v1/openapi.json`.
pub(in crate::api) async fn serve() -> Json<Document> {
    Json(document())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn json() -> Value {
        serde_json::to_value(document()).expect("JSON")
    }

    /// Each operation with its path and its method.
    fn operations(document: &Value) -> Vec<(String, &Value)> {
        let paths = document["paths"].as_object().expect("paths");
        let operations = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().expect("methods");
            methods
                .iter()
                .map(move |(method, operation)| (format!("{method} {path}"), operation))
        });
        operations.collect()
    }

    #[test]
    fn every_operation_is_of_v1_and_has_its_error_responses() {
        let document = json();
        let operations = operations(&document);
        assert_eq!(operations.len(), 12);
        for (name, operation) in operations {
            assert!(name.contains(" /v1/"), "{name}");
            let id = operation["operationId"].as_str().expect("an id");
            for code in problems(id) {
                let (status, _) = code.status();
                let response = &operation["responses"][status.as_str()];
                let content = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(content, "#/components/schemas/Problem", "{name} {status}");
                let description = response["description"].as_str().expect("a text");
                assert!(description.contains(&code.name()), "{name} {status}");
            }
        }
    }

    #[test]
    fn every_reference_has_its_schema() {
        let document = json();
        let text = document.to_string();
        let references = text.split("#/components/schemas/").skip(1);
        let names: Vec<&str> = references
            .map(|rest| rest.split('"').next().expect("a name"))
            .collect();
        assert!(names.contains(&"Problem") && names.contains(&"Task"), "{names:?}");
        for name in names {
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }

    #[test]
    fn the_limits_of_a_new_task_are_in_its_schema() {
        let document = json();
        let task = &document["components"]["schemas"]["NewTask"];
        assert_eq!(task["additionalProperties"], false);
        let metadata = &task["properties"]["metadata"];
        assert_eq!(metadata["maxProperties"], 16);
        assert_eq!(metadata["propertyNames"]["maxLength"], 64);
        let formats = task["properties"]["output"]["oneOf"].as_array().expect("formats");
        let depths = formats
            .iter()
            .map(|format| &format["properties"]["bit_depth"]["enum"]);
        let depths: Vec<String> = depths.map(Value::to_string).collect();
        assert_eq!(depths, ["[16,24,32]", "[16,24]", "null"]);
        assert_eq!(formats[0]["properties"]["stems"]["uniqueItems"], true);
    }

    #[test]
    fn both_schemes_are_declared_and_public_operations_need_none() {
        let document = json();
        let schemes = &document["components"]["securitySchemes"];
        assert_eq!(schemes["bearer"]["scheme"], "bearer");
        assert_eq!(schemes["basic"]["scheme"], "basic");
        let public: BTreeSet<String> = operations(&document)
            .into_iter()
            .filter(|(_, operation)| operation["security"] == serde_json::json!([{}]))
            .map(|(name, _)| name)
            .collect();
        let expected = ["delete /v1/session", "get /v1/openapi.json", "post /v1/session"];
        assert!(public.iter().eq(expected), "{public:?}");
    }
}
