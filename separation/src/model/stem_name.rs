//! Names of stems, which become parts of file names and object keys.

use std::fmt;

/// The name of a stem: lower-case letters, digits and `_`, such as `vocals` or `no_bass`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StemName(String);

/// A stem name that cannot be part of a file name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a stem's name is 1 to {} letters, digits, spaces, '-' or '_', found {found:?}",
    StemName::MAX_LENGTH
)]
pub struct StemNameError {
    found: String,
}

impl StemName {
    /// The longest name: file names may have 255 bytes, and the song's name needs most of them.
    const MAX_LENGTH: usize = 32;

    /// Normalizes a name: case, spaces and hyphens do not matter.
    ///
    /// # Errors
    /// If it is empty, too long, or has characters that are not allowed in a file name.
    pub fn new(text: &str) -> Result<Self, StemNameError> {
        let name: String = text
            .trim()
            .chars()
            .map(|c| {
                if c == ' ' || c == '-' {
                    '_'
                } else {
                    c.to_ascii_lowercase()
                }
            })
            .collect();
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || name.len() > Self::MAX_LENGTH || !name.chars().all(allowed) {
            let found = text.chars().take(2 * Self::MAX_LENGTH).collect();
            return Err(StemNameError { found });
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the rest of a song without this stem.
    pub fn complement(&self) -> Self {
        Self(match self.0.as_str() {
            "vocals" => "instrumental".into(),
            "instrumental" => "vocals".into(),
            name => name
                .strip_prefix("no_")
                .filter(|rest| !rest.is_empty())
                .map_or_else(|| format!("no_{name}"), str::to_owned),
        })
    }
}

impl fmt::Display for StemName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::str::FromStr for StemName {
    type Err = StemNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, name: &str, complement: &str) {
        let stem = StemName::new(text).unwrap();
        assert_eq!(stem.as_str(), name);
        assert_eq!(stem.complement().as_str(), complement);
    }

    #[test]
    fn stems_get_their_usual_names() {
        check("Vocals", "vocals", "instrumental");
        check("Instrumental", "instrumental", "vocals");
        check("Bass", "bass", "no_bass");
        check("No Reverb", "no_reverb", "reverb");
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        for text in ["", " ", "../etc", "a/b", "Gesang\0", "näh", &"a".repeat(33)] {
            assert!(StemName::new(text).is_err(), "{text:?}");
        }
    }
}
