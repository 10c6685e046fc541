//! Strict reading of JSON objects: every unknown field and every wrong type is an error with a JSON pointer. No I/O.

use serde_json::{Map, Value};

use super::problem::{FieldError, Problem};

/// Maximum number of errors in a response, so that a body of 64 KiB gets a response of a few KiB.
const MAX_ERRORS: usize = 32;

/// The errors of a JSON body, in the order of reading.
#[derive(Debug, Default)]
pub(super) struct Errors(Vec<FieldError>);

/// A value is invalid, and [`Errors`] has the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Invalid;

/// An object of the body.
#[derive(Debug)]
pub(super) struct Fields<'j> {
    pointer: String,
    fields: &'j Map<String, Value>,
}

/// Parses a JSON body.
pub(super) fn parse_json(json: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(json).map_err(|error| {
        let detail = format!("not valid JSON: {error}");
        Problem::invalid(vec![FieldError::new("", detail)])
    })
}

impl Errors {
    /// Adds an error of the value at `pointer`.
    pub(super) fn add(&mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Invalid {
        if self.0.len() < MAX_ERRORS {
            self.0.push(FieldError::new(pointer, detail));
        }
        Invalid
    }

    /// The value, or the problem with all errors.
    pub(super) fn finish<T>(self, value: Result<T, Invalid>) -> Result<T, Problem> {
        match value {
            Ok(value) if self.0.is_empty() => Ok(value),
            _ => Err(Problem::invalid(self.0)),
        }
    }
}

impl<'j> Fields<'j> {
    /// The object at `pointer`, with no other fields than `known`.
    pub(super) fn new(
        value: &'j Value,
        pointer: String,
        known: &[&str],
        errors: &mut Errors,
    ) -> Result<Self, Invalid> {
        let fields = Self::of_any_names(value, pointer, errors)?;
        for name in fields.fields.keys() {
            if !known.contains(&name.as_str()) {
                let detail = format!("unknown field; the fields are {}", known.join(", "));
                errors.add(fields.pointer_to(name), detail);
            }
        }
        Ok(fields)
    }

    /// The object at `pointer`, with fields of any names.
    pub(super) fn of_any_names(
        value: &'j Value,
        pointer: String,
        errors: &mut Errors,
    ) -> Result<Self, Invalid> {
        match value {
            Value::Object(fields) => Ok(Self { pointer, fields }),
            _ => Err(errors.add(pointer, "must be an object")),
        }
    }

    /// The pointer to this object.
    pub(super) fn pointer(&self) -> &str {
        &self.pointer
    }

    /// The pointer to a field.
    pub(super) fn pointer_to(&self, name: &str) -> String {
        format!("{}/{}", self.pointer, name.replace('~', "~0").replace('/', "~1"))
    }

    /// A field. Null is a value, and none that any field may have.
    pub(super) fn get(&self, name: &str) -> Option<&'j Value> {
        self.fields.get(name)
    }

    /// A field that is a text, if it is present.
    pub(super) fn text(&self, name: &str, errors: &mut Errors) -> Result<Option<&'j str>, Invalid> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(errors.add(self.pointer_to(name), "must be a string")),
        }
    }

    /// A field that is a text and must be present.
    pub(super) fn required_text(&self, name: &str, errors: &mut Errors) -> Result<&'j str, Invalid> {
        let text = self.text(name, errors)?;
        text.ok_or_else(|| errors.add(self.pointer_to(name), "is required"))
    }

    /// A field that must be present.
    pub(super) fn required(&self, name: &str, errors: &mut Errors) -> Result<&'j Value, Invalid> {
        self.get(name)
            .ok_or_else(|| errors.add(self.pointer_to(name), "is required"))
    }

    /// All fields.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'j String, &'j Value)> + use<'j> {
        self.fields.iter()
    }
}
