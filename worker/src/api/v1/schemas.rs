//! Schemas of request bodies, and of types that other crates or other modules write. They only document: [`request`]
//! parses by hand, so that one response has all errors with their pointers.
//!
//! [`request`]: super::request
#![allow(dead_code, reason = "the types exist for their schemas only")]

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::super::requests::MAX_URL_BYTES;
use super::request::{MAX_METADATA_BYTES, MAX_METADATA_KEY_CHARS, MAX_METADATA_KEYS};

/// The JSON body of a new task.
pub(super) struct NewTaskSchema;

/// The multipart body of a new task.
pub(super) struct NewTaskFormSchema;

impl PartialSchema for NewTaskSchema {
    fn schema() -> RefOr<Schema> {
        let description = "The id of an upload whose file was sent";
        let upload = json!({"type": "string", "format": "uuid", "description": description});
        let link = url("Link to the song; fetched after the response");
        let either = |name: &str, schema: Value| {
            let properties = json!({(name): schema});
            json!({"type": "object", "additionalProperties": false, "required": [name], "properties": properties})
        };
        schema(json!({
            "type": "object",
            "description": "A task for a song behind a link, or in an upload",
            "additionalProperties": false,
            "required": ["input"],
            "properties": {
                "input": {
                    "description": "The song",
                    "oneOf": [either("url", link), either("upload_id", upload)]
                },
                "output": output(),
                "webhook_url": webhook_url(),
                "metadata": metadata()
            },
            "example": {
                "input": {"url": "https://example.com/song.mp3"},
                "output": {"format": "flac", "bit_depth": 24, "stems": ["vocals"]},
                "webhook_url": "https://example.com/hook",
                "metadata": {"order": "4711"}
            }
        }))
    }
}

impl ToSchema for NewTaskSchema {
    fn name() -> Cow<'static, str> {
        "NewTask".into()
    }
}

impl PartialSchema for NewTaskFormSchema {
    fn schema() -> RefOr<Schema> {
        schema(json!({
            "type": "object",
            "description": "A task for a song in the request: the part `task`, then the part `file`",
            "additionalProperties": false,
            "required": ["task", "file"],
            "properties": {
                "task": {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {"output": output(), "webhook_url": webhook_url(), "metadata": metadata()}
                },
                "file": {"type": "string", "format": "binary", "description": "The song"}
            }
        }))
    }
}

impl ToSchema for NewTaskFormSchema {
    fn name() -> Cow<'static, str> {
        "NewTaskForm".into()
    }
}

/// One schema for each format, because the bits per sample depend on it.
fn output() -> Value {
    let stems = json!({
        "type": "array",
        "items": {"type": "string", "enum": ["vocals", "instrumental"]},
        "minItems": 1,
        "maxItems": 2,
        "uniqueItems": true,
        "default": ["vocals", "instrumental"],
        "description": "The stems to store"
    });
    let depth = |bits: &[u8]| json!({"type": "integer", "enum": bits, "default": 16, "description": "Bits per sample"});
    let format = |name: &str| json!({"type": "string", "enum": [name]});
    let description = "The requested stems and their format; both stems as WAV with 16 bits if it is absent. An API \
                       without ffmpeg refuses mp3";
    json!({
        "description": description,
        "oneOf": [
            {
                "type": "object",
                "additionalProperties": false,
                "properties": {"format": format("wav"), "bit_depth": depth(&[16, 24, 32]), "stems": stems}
            },
            {
                "type": "object",
                "additionalProperties": false,
                "required": ["format"],
                "properties": {"format": format("flac"), "bit_depth": depth(&[16, 24]), "stems": stems}
            },
            {
                "type": "object",
                "additionalProperties": false,
                "required": ["format"],
                "properties": {"format": format("mp3"), "stems": stems}
            }
        ]
    })
}

fn url(description: &str) -> Value {
    json!({"type": "string", "pattern": "^https?://.+", "maxLength": MAX_URL_BYTES, "description": description})
}

fn webhook_url() -> Value {
    url("Receiver of a webhook when the task has succeeded, failed or was canceled")
}

fn metadata() -> Value {
    let description = format!(
        "The client's own data, returned with the task; names and values have at most {MAX_METADATA_BYTES} bytes together"
    );
    json!({
        "type": "object",
        "description": description,
        "propertyNames": {"type": "string", "minLength": 1, "maxLength": MAX_METADATA_KEY_CHARS},
        "additionalProperties": {"type": "string", "maxLength": MAX_METADATA_BYTES},
        "maxProperties": MAX_METADATA_KEYS
    })
}

fn schema(json: Value) -> RefOr<Schema> {
    serde_json::from_value(json).expect("the literals of this file are schemas")
}

/// The requested stems and their format
#[derive(ToSchema)]
#[schema(as = Output)]
pub(super) struct OutputSchema {
    /// Format of the stems
    format: FormatName,
    /// Bits per sample; absent for mp3
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 16)]
    bit_depth: Option<u8>,
    /// The stems
    #[schema(min_items = 1, max_items = 2)]
    stems: Vec<StemName>,
}

/// Format of stems
#[derive(ToSchema)]
#[schema(as = Format, rename_all = "snake_case")]
enum FormatName {
    Wav,
    Flac,
    Mp3,
}

/// A stem of a song
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum StemName {
    Vocals,
    Instrumental,
}

/// State of a webhook's delivery
#[derive(ToSchema)]
#[schema(as = WebhookState, rename_all = "snake_case")]
pub(super) enum WebhookStateName {
    Pending,
    Delivered,
    Failed,
}

/// Peaks of the stems' waveforms, to draw them
#[derive(ToSchema)]
#[schema(as = Peaks)]
pub(super) struct PeaksSchema {
    /// Version of the format
    #[schema(example = 1)]
    version: u32,
    /// Length of the song
    #[schema(example = 243.5)]
    duration_seconds: f64,
    /// By stem: the largest absolute sample of each of equal slices, from 0 to 1
    peaks: BTreeMap<String, Vec<f32>>,
}

/// A place for the file of a task
#[derive(ToSchema)]
#[schema(as = Upload)]
pub(super) struct UploadSchema {
    /// UUID to create the task with; it becomes the task's
    #[schema(format = Uuid, example = "0b6f1ac8-52a1-4b0c-9d4c-1a4a2a0ad1cf")]
    id: String,
    /// The request that sends the file
    upload: UploadRequestSchema,
    /// When the URL stops working
    #[schema(format = DateTime, example = "2026-01-31T13:00:00Z")]
    expires_at: String,
}

/// A request that sends a file
#[derive(ToSchema)]
#[schema(as = UploadRequest)]
struct UploadRequestSchema {
    /// HTTP method
    #[schema(example = "PUT")]
    method: String,
    /// Presigned URL: needs no API key
    url: String,
    /// Headers that the request must have
    headers: BTreeMap<String, String>,
}

/// An API key to sign in with
#[derive(ToSchema)]
#[schema(as = NewSession)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSessionSchema {
    /// API key
    #[schema(example = "sk_…")]
    key: String,
}
