//! The description of the API, for machines.

use axum::Json;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::handlers;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Separation API",
        description = "Songs in, vocals and instrumental out. A song is posted as a link or as a file and waits in a queue; \
                       its stems are fetched from links that the webhook or the task's status tells."
    ),
    paths(handlers::health, handlers::generate, handlers::upload, handlers::status),
    tags((name = "tasks", description = "Songs and what became of them"), (name = "service", description = "The service itself")),
    security(("basic" = [])),
    modifiers(&BasicLogin)
)]
struct Described;

struct BasicLogin;

impl Modify for BasicLogin {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        let basic = SecurityScheme::Http(Http::new(HttpAuthScheme::Basic));
        components.add_security_scheme("basic", basic);
    }
}

/// The description of the API.
pub fn document() -> Document {
    Described::openapi()
}

pub(super) async fn serve() -> Json<Document> {
    Json(document())
}
