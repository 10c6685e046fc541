//! The OpenAPI document.

use axum::Json;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::handlers;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Separation API",
        description = "Separates songs into vocals and instrumental. A song is posted as a link or as a file and queued; \
                       the webhook and the task's status contain links to the stems."
    ),
    paths(handlers::health, handlers::generate, handlers::upload, handlers::status),
    tags((name = "tasks", description = "Songs and the status of their tasks"), (name = "service", description = "The service itself")),
    security(("basic" = [])),
    modifiers(&BasicAuthScheme)
)]
struct ApiDescription;

struct BasicAuthScheme;

impl Modify for BasicAuthScheme {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        let basic = SecurityScheme::Http(Http::new(HttpAuthScheme::Basic));
        components.add_security_scheme("basic", basic);
    }
}

/// The OpenAPI document of the API.
pub fn document() -> Document {
    ApiDescription::openapi()
}

pub(super) async fn serve() -> Json<Document> {
    Json(document())
}
