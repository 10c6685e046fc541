//! The page at `/docs`: the OpenAPI documents as HTML. It is made once, loads nothing and runs no script.

mod html;
mod operations;
mod schemas;

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{Html, IntoResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use self::html::{escape, prose};
use self::operations::Document;
use self::schemas::Schemas;
use super::{openapi, v1};

const STYLE: &str = include_str!("style.css");

/// An API on the page.
struct Api {
    /// Prefix of its anchors.
    name: &'static str,
    /// Path of its OpenAPI document.
    path: &'static str,
    json: Value,
}

/// The page, and the `Content-Security-Policy` that allows only its own style.
static PAGE: LazyLock<(String, String)> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
        STANDARD.encode(Sha256::digest(STYLE))
    );
    (page(&apis()), policy)
});

pub(super) async fn serve() -> impl IntoResponse {
    let (page, policy) = &*PAGE;
    (
        [(header::CONTENT_SECURITY_POLICY, policy.as_str())],
        Html(page.as_str()),
    )
}

fn apis() -> [Api; 2] {
    let json = |document| serde_json::to_value(document).expect("a document has only texts as keys");
    [
        Api {
            name: "v1",
            path: "/v1/openapi.json",
            json: json(v1::openapi::document()),
        },
        Api {
            name: "drop-in",
            path: "/openapi.json",
            json: json(openapi::document()),
        },
    ]
}

fn page(apis: &[Api]) -> String {
    let sections: String = apis.iter().map(section).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>API reference</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>API reference</h1>\n\
         <p><a href=\"/\">Separate songs in the browser</a></p>\n</header>\n<main>\n{sections}</main>\n</body>\n</html>\n"
    )
}

fn section(api: &Api) -> String {
    let none = Map::new();
    let document = Document {
        json: &api.json,
        schemas: Schemas {
            api: api.name,
            named: api.json["components"]["schemas"].as_object().unwrap_or(&none),
        },
    };
    let info = &api.json["info"];
    let text = |field: &str| info[field].as_str().unwrap_or_default();
    format!(
        "<section id=\"{}\">\n<h2>{}</h2>\n{}<p>OpenAPI document: <a href=\"{path}\">{path}</a></p>\n\
         <nav aria-label=\"{}\">\n{}</nav>\n{}<h3>Schemas</h3>\n{}</section>\n",
        api.name,
        escape(text("title")),
        prose(text("description")),
        escape(text("title")),
        document.contents(),
        document.sections(),
        document.schemas.sections(),
        path = api.path,
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The values of an attribute.
    fn values<'p>(page: &'p str, attribute: &str) -> Vec<&'p str> {
        let start = format!(" {attribute}=\"");
        let after = page.split(start.as_str()).skip(1);
        after.filter_map(|rest| rest.split('"').next()).collect()
    }

    #[test]
    fn the_page_has_every_operation_and_every_schema() {
        for api in apis() {
            let page = page(std::slice::from_ref(&api));
            let mut count = 0;
            for (path, item) in api.json["paths"].as_object().expect("paths") {
                for method in item.as_object().expect("operations").keys() {
                    if method != "parameters" {
                        let heading = format!(
                            "<h4><code>{}</code> <code>{path}</code></h4>",
                            method.to_uppercase()
                        );
                        assert!(page.contains(&heading), "{method} {path}");
                        count += 1;
                    }
                }
            }
            assert!(count > 3, "{} has {count} operations", api.path);
            for name in api.json["components"]["schemas"]
                .as_object()
                .expect("schemas")
                .keys()
            {
                assert!(page.contains(&format!("<h4>{name}</h4>")), "{name}");
            }
        }
    }

    #[test]
    fn every_link_leads_to_a_place_on_the_page_or_to_a_route() {
        let (page, _) = &*PAGE;
        let ids = values(page, "id");
        let unique: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(ids.len(), unique.len(), "an anchor is ambiguous: {ids:?}");
        for link in values(page, "href") {
            match link.strip_prefix('#') {
                Some(anchor) => assert!(unique.contains(anchor), "{link}"),
                None => assert!(
                    ["/", "/openapi.json", "/v1/openapi.json"].contains(&link),
                    "{link}"
                ),
            }
        }
    }

    #[test]
    fn the_page_has_no_script_and_no_style_but_its_own() {
        let (page, policy) = &*PAGE;
        assert!(
            policy.starts_with("default-src 'none'; style-src 'sha256-"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        for forbidden in [
            "<script",
            "<link",
            "<img",
            "<iframe",
            " style=",
            " onclick=",
            " src=",
        ] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        assert_eq!(page.matches("<style>").count(), 1);
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"), "{STYLE}");
    }
}
