//! Parses and validates requests, which are untrusted. Every error of a body is reported in one response.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use separation_contract::api_task::{AudioFormat, Output, StemKind};
use separation_contract::message::TaskId;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::super::requests::{MAX_JSON_BYTES, MAX_URL_BYTES, is_type, parse_address};
use super::fields::{Errors, Fields, Invalid, parse_json};
use super::problem::{FieldError, Problem};
use crate::model::hexadecimal;
use crate::outbound;

/// Name of the header by which a repeated request is recognized.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Longest Idempotency-Key.
const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;

/// Maximum number of entries of `metadata`.
pub(super) const MAX_METADATA_KEYS: usize = 16;

/// Longest name in `metadata`, in characters.
pub(super) const MAX_METADATA_KEY_CHARS: usize = 64;

/// Maximum size of all names and values of `metadata` together, in bytes of UTF-8.
pub(super) const MAX_METADATA_BYTES: usize = 2048;

/// Length of an upload's ID: a UUID with hyphens.
const UUID_CHARS: usize = 36;

/// A valid request for a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::api) struct NewTask {
    pub(in crate::api) input: NewInput,
    pub(in crate::api) output: Output,
    pub(in crate::api) webhook_url: Option<String>,
    pub(in crate::api) metadata: BTreeMap<String, String>,
}

/// Origin of a task's song.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum NewInput {
    /// A link.
    Url(String),
    /// The upload with this ID, which becomes the task's.
    Upload(TaskId),
    /// The part `file` of the form.
    File,
}

/// The form of a request for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum TaskForm {
    /// A JSON body, with `input`.
    Json,
    /// The part `task` of a multipart body: the same JSON without `input`.
    Multipart,
}

/// Reads a JSON body of at most [`MAX_JSON_BYTES`], which must arrive within `limit`.
pub(in crate::api) async fn read_json(
    headers: &HeaderMap,
    body: Body,
    limit: Duration,
) -> Result<Bytes, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !is_type(content_type, "application/json") {
        return Err(Problem::unsupported_content_type("must be application/json"));
    }
    match tokio::time::timeout(limit, to_bytes(body, MAX_JSON_BYTES)).await {
        Ok(Ok(body)) => Ok(body),
        // A body that ended early has no reader of the response.
        Ok(Err(_)) => Err(Problem::input_too_large(format!(
            "the JSON body is larger than {MAX_JSON_BYTES} bytes"
        ))),
        Err(_) => Err(Problem::request_timeout()),
    }
}

/// Parses a request for a task. `formats` are those that this service can write.
pub(in crate::api) fn parse_task(
    json: &[u8],
    form: TaskForm,
    formats: &[AudioFormat],
) -> Result<NewTask, Problem> {
    let value = parse_json(json)?;
    let mut errors = Errors::default();
    let task = task(&value, form, formats, &mut errors);
    errors.finish(task)
}

fn task(
    value: &Value,
    form: TaskForm,
    formats: &[AudioFormat],
    errors: &mut Errors,
) -> Result<NewTask, Invalid> {
    let known: &[&str] = match form {
        TaskForm::Json => &["input", "output", "webhook_url", "metadata"],
        TaskForm::Multipart => &["output", "webhook_url", "metadata"],
    };
    let fields = Fields::new(value, String::new(), known, errors)?;
    let input = match form {
        TaskForm::Json => input(&fields, errors),
        TaskForm::Multipart => Ok(NewInput::File),
    };
    let output = output(&fields, formats, errors);
    let webhook_url = url(&fields, "webhook_url", errors);
    let metadata = metadata(&fields, errors);
    Ok(NewTask {
        input: input?,
        output: output?,
        webhook_url: webhook_url?,
        metadata: metadata?,
    })
}

fn input(task: &Fields<'_>, errors: &mut Errors) -> Result<NewInput, Invalid> {
    let value = task.required("input", errors)?;
    let input = Fields::new(value, task.pointer_to("input"), &["url", "upload_id"], errors)?;
    let (url, upload_id) = (url(&input, "url", errors), input.text("upload_id", errors));
    match (url?, upload_id?) {
        (Some(url), None) => Ok(NewInput::Url(url)),
        (None, Some(id)) => {
            let id = Some(id).filter(|id| id.len() == UUID_CHARS);
            let id = id.and_then(|id| Uuid::parse_str(id).ok());
            let id = id.and_then(|id| TaskId::parse(&id.to_string()).ok());
            let invalid = || errors.add(input.pointer_to("upload_id"), "must be the id of an upload");
            id.map(NewInput::Upload).ok_or_else(invalid)
        }
        _ => Err(errors.add(input.pointer(), "must have either url or upload_id")),
    }
}

fn output(task: &Fields<'_>, formats: &[AudioFormat], errors: &mut Errors) -> Result<Output, Invalid> {
    let Some(value) = task.get("output") else {
        return Ok(Output::default());
    };
    let known = ["format", "bit_depth", "stems"];
    let output = Fields::new(value, task.pointer_to("output"), &known, errors)?;
    let stems = stems(&output, errors);
    let format = format(&output, formats, errors)?;
    let bit_depth = bit_depth(&output, format, errors)?;
    Ok(Output {
        format,
        bit_depth,
        stems: stems?,
    })
}

fn format(output: &Fields<'_>, formats: &[AudioFormat], errors: &mut Errors) -> Result<AudioFormat, Invalid> {
    let Some(name) = output.text("format", errors)? else {
        return Ok(Output::default().format);
    };
    let format = formats.iter().find(|format| format.extension() == name);
    format.copied().ok_or_else(|| {
        let names: Vec<&str> = formats.iter().map(|format| format.extension()).collect();
        let detail = format!("must be one of {}", names.join(", "));
        errors.add(output.pointer_to("format"), detail)
    })
}

/// The bits per sample that a format may have, the default first.
fn bit_depths(format: AudioFormat) -> &'static [u8] {
    match format {
        AudioFormat::Wav => &[16, 24, 32],
        AudioFormat::Flac => &[16, 24],
        AudioFormat::Mp3 => &[],
    }
}

fn bit_depth(output: &Fields<'_>, format: AudioFormat, errors: &mut Errors) -> Result<Option<u8>, Invalid> {
    let allowed = bit_depths(format);
    let Some(value) = output.get("bit_depth") else {
        return Ok(allowed.first().copied());
    };
    let bits = value.as_u64().and_then(|bits| u8::try_from(bits).ok());
    bits.filter(|bits| allowed.contains(bits))
        .map(Some)
        .ok_or_else(|| {
            let name = format.extension();
            let detail = match allowed {
                [] => format!("must be absent: {name} has no bit depth"),
                _ => {
                    let allowed: Vec<String> = allowed.iter().map(u8::to_string).collect();
                    format!("must be one of the integers {} for {name}", allowed.join(", "))
                }
            };
            errors.add(output.pointer_to("bit_depth"), detail)
        })
}

/// The requested stems, in the order of responses.
fn stems(output: &Fields<'_>, errors: &mut Errors) -> Result<Vec<StemKind>, Invalid> {
    let pointer = output.pointer_to("stems");
    let names = match output.get("stems") {
        None => return Ok(Output::default().stems),
        Some(Value::Array(names)) if !names.is_empty() => names,
        Some(_) => return Err(errors.add(pointer, "must be a list of at least one stem")),
    };
    let mut stems = Vec::new();
    let mut is_valid = Ok(());
    for (index, name) in names.iter().enumerate() {
        let pointer = format!("{pointer}/{index}");
        match name.as_str().and_then(StemKind::parse) {
            None => {
                let detail = format!(
                    "must be one of {}",
                    StemKind::ALL.map(StemKind::as_str).join(", ")
                );
                is_valid = Err(errors.add(pointer, detail));
            }
            Some(stem) if stems.contains(&stem) => {
                is_valid = Err(errors.add(pointer, "is repeated"));
            }
            Some(stem) => stems.push(stem),
        }
    }
    is_valid?;
    stems.sort_unstable();
    Ok(stems)
}

fn url(fields: &Fields<'_>, name: &'static str, errors: &mut Errors) -> Result<Option<String>, Invalid> {
    let Some(text) = fields.text(name, errors)? else {
        return Ok(None);
    };
    let has_scheme = ["http://", "https://"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    let url = parse_address(name, text).ok();
    let url = url.filter(|url| has_scheme && url == text).map(Some);
    url.ok_or_else(|| {
        let detail = format!("must be an http:// or https:// URL of at most {MAX_URL_BYTES} bytes");
        errors.add(fields.pointer_to(name), detail)
    })
}

fn metadata(task: &Fields<'_>, errors: &mut Errors) -> Result<BTreeMap<String, String>, Invalid> {
    let Some(value) = task.get("metadata") else {
        return Ok(BTreeMap::new());
    };
    let fields = Fields::of_any_names(value, task.pointer_to("metadata"), errors)?;
    let mut metadata = BTreeMap::new();
    let mut is_valid = Ok(());
    for (name, value) in fields.entries() {
        let pointer = fields.pointer_to(name);
        if !(1..=MAX_METADATA_KEY_CHARS).contains(&name.chars().count()) {
            let detail = format!("its name must have 1 to {MAX_METADATA_KEY_CHARS} characters");
            is_valid = Err(errors.add(&pointer, detail));
        }
        match value {
            Value::String(text) => _ = metadata.insert(name.clone(), text.clone()),
            _ => is_valid = Err(errors.add(pointer, "must be a string")),
        }
    }
    let count = fields.entries().count();
    if count > MAX_METADATA_KEYS {
        let detail = format!("has {count} entries; at most {MAX_METADATA_KEYS} are allowed");
        is_valid = Err(errors.add(fields.pointer(), detail));
    }
    let size: usize = metadata.iter().map(|(name, text)| name.len() + text.len()).sum();
    if size > MAX_METADATA_BYTES {
        let detail =
            format!("its names and values have {size} bytes; at most {MAX_METADATA_BYTES} are allowed");
        is_valid = Err(errors.add(fields.pointer(), detail));
    }
    is_valid.map(|()| metadata)
}

impl NewTask {
    /// Refuses addresses that could never be called; host names are resolved only when they are called.
    pub(in crate::api) fn check_urls(&self, outbound: &outbound::Client) -> Result<(), Problem> {
        let input = match &self.input {
            NewInput::Url(url) => Some(("/input/url", url)),
            NewInput::Upload(_) | NewInput::File => None,
        };
        let webhook = self.webhook_url.as_ref().map(|url| ("/webhook_url", url));
        let errors: Vec<FieldError> = [input, webhook]
            .into_iter()
            .flatten()
            .filter_map(|(pointer, url)| {
                let error = crate::work::chain(&outbound.check_url(url).err()?);
                // Responses do not show which addresses the service may call.
                tracing::info!(pointer, error, "An address in a request may not be called");
                Some(FieldError::new(
                    pointer,
                    "is not called by this service; use a public address",
                ))
            })
            .collect();
        match errors.is_empty() {
            true => Ok(()),
            false => Err(Problem::url_not_allowed(errors)),
        }
    }

    /// SHA-256 of the request's meaning, 64 hexadecimal digits: the same for the same task, however its JSON is
    /// written. `song_sha256` is that of the file of a multipart body.
    pub(in crate::api) fn fingerprint(&self, song_sha256: Option<&[u8; 32]>) -> String {
        let canonical = serde_json::to_vec(self).expect("strings and numbers always serialize");
        let digest = Sha256::new()
            .chain_update(canonical)
            .chain_update(song_sha256.map_or(&[][..], |sha256| &sha256[..]))
            .finalize();
        hexadecimal(&digest)
    }
}

/// The Idempotency-Key of a request.
pub(in crate::api) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).into_iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let bytes = value.as_bytes();
    let is_valid = (1..=MAX_IDEMPOTENCY_KEY_BYTES).contains(&bytes.len())
        && bytes.iter().all(u8::is_ascii_graphic)
        && values.next().is_none();
    if !is_valid {
        let detail = format!(
            "Idempotency-Key must be present once, with 1 to {MAX_IDEMPOTENCY_KEY_BYTES} visible ASCII characters"
        );
        return Err(Problem::invalid_request(detail));
    }
    Ok(value.to_str().ok().map(str::to_owned))
}

#[cfg(test)]
mod tests;
