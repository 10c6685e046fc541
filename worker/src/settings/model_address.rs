//! The address of a model: a URL or an object, with the checksum of its content.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use separation_contract::environment as env;
use url::Url;

use super::{ObjectAddress, SettingError};

/// A model at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelAddress {
    /// Where its file is.
    pub location: ModelLocation,
    /// SHA-256 of its file.
    pub sha256: Sha256Hex,
}

/// The names of the settings of a model's address and its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressNames {
    /// That of the address.
    pub address: &'static str,
    /// That of the checksum.
    pub sha256: &'static str,
}

/// Where a model's file is. Its text has neither password nor query, which may contain a token.
#[derive(Clone, PartialEq, Eq)]
pub enum ModelLocation {
    /// An http(s) URL.
    Http(Url),
    /// An object.
    Object(ObjectAddress),
}

/// A SHA-256: 64 hexadecimal digits in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sha256Hex(String);

/// Not a valid SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256 of 64 hexadecimal digits")]
pub struct Sha256HexError;

impl ModelAddress {
    /// Whether a setting is an address rather than a name or a path.
    pub fn is_address(setting: &str) -> bool {
        ["https://", "http://", "s3://"]
            .iter()
            .any(|scheme| setting.starts_with(scheme))
    }

    /// Parses an address and the checksum of its content. Errors have the `names` of these settings.
    ///
    /// # Errors
    /// When one of them is invalid, or the checksum is missing.
    pub fn parse(address: &str, sha256: Option<&str>, names: AddressNames) -> Result<Self, SettingError> {
        let location = ModelLocation::parse(address, names)?;
        let fix = "set it to the SHA-256 of the model's file, as `sha256sum` prints it";
        let Some(sha256) = sha256 else {
            let problem = format!("not set, but the model is at an address, {location}");
            return Err(SettingError::new(names.sha256, problem, fix));
        };
        let invalid =
            |error: Sha256HexError| SettingError::new(names.sha256, format!("`{sha256}` is {error}"), fix);
        let sha256 = sha256.parse().map_err(invalid)?;
        Ok(Self { location, sha256 })
    }
}

impl AddressNames {
    /// The environment variables of a processor.
    pub const PROCESSOR: Self = Self {
        address: env::MODEL_URI,
        sha256: env::MODEL_SHA256,
    };

    /// The options of a command.
    pub const COMMAND: Self = Self {
        address: "--model",
        sha256: "--model-sha256",
    };
}

impl ModelLocation {
    fn parse(address: &str, names: AddressNames) -> Result<Self, SettingError> {
        let location = match ObjectAddress::is_address(address) {
            true => address
                .parse()
                .ok()
                .filter(|object: &ObjectAddress| !object.key.is_empty())
                .map(Self::Object),
            false => Url::parse(address)
                .ok()
                .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
                .filter(|url| !url.path().ends_with('/'))
                .map(Self::Http),
        };
        location.ok_or_else(|| {
            // The address may contain a password.
            let problem = "not the address of a file";
            let fix = "write it as https://host/path/model.onnx or s3://bucket/path/model.onnx";
            SettingError::new(names.address, problem, fix)
        })
    }

    /// The address of the model's sidecar: `NAME.json` next to `NAME.onnx`.
    pub fn sidecar(&self) -> Self {
        let renamed = |path: &str| Path::new(path).with_extension("json").display().to_string();
        match self {
            Self::Http(url) => {
                let mut url = url.clone();
                url.set_path(&renamed(url.path()));
                Self::Http(url)
            }
            Self::Object(object) => Self::Object(ObjectAddress {
                bucket: object.bucket.clone(),
                key: renamed(&object.key),
            }),
        }
    }
}

impl fmt::Display for ModelLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => {
                write!(f, "{}://{}", url.scheme(), url.host_str().unwrap_or_default())?;
                if let Some(port) = url.port() {
                    write!(f, ":{port}")?;
                }
                f.write_str(url.path())
            }
            Self::Object(object) => object.fmt(f),
        }
    }
}

impl fmt::Debug for ModelLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Sha256Hex {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Sha256Hex {
    type Err = Sha256HexError;

    fn from_str(text: &str) -> Result<Self, Sha256HexError> {
        let text = text.trim();
        let digits = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
        match digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            true => Ok(Self(digits)),
            false => Err(Sha256HexError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: &str = "BA7816BF8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn an_address_is_parsed_with_its_checksum_and_shown_without_secrets() {
        let parse = |address| {
            ModelAddress::parse(address, Some(SHA256), AddressNames::PROCESSOR).expect("an address")
        };
        let signed = parse("https://ann:secret@models.example:8443/a/m.onnx?sig=secret");
        let debug_text = format!("{signed:?}");
        assert!(
            !debug_text.contains("secret") && !debug_text.contains("ann"),
            "{debug_text}"
        );
        assert_eq!(
            signed.location.to_string(),
            "https://models.example:8443/a/m.onnx"
        );
        assert_eq!(signed.sha256.as_str(), SHA256.to_ascii_lowercase());
        match signed.location.sidecar() {
            ModelLocation::Http(url) => assert_eq!(
                url.as_str(),
                "https://ann:secret@models.example:8443/a/m.json?sig=secret"
            ),
            other => panic!("{other}"),
        }
        let object = parse("s3://models/a/m.onnx").location;
        assert_eq!(object.sidecar().to_string(), "s3://models/a/m.json");
    }

    #[test]
    fn an_address_without_a_checksum_or_a_file_is_refused() {
        let refused = |address, sha256| {
            let parse = |names| ModelAddress::parse(address, sha256, names).expect_err("invalid");
            let (error, of_command) = (parse(AddressNames::PROCESSOR), parse(AddressNames::COMMAND));
            let option = match error.name {
                env::MODEL_URI => "--model",
                _ => "--model-sha256",
            };
            assert_eq!((of_command.name, &of_command.problem), (option, &error.problem));
            (error.name, error.problem)
        };
        let (name, problem) = refused("https://user:secret@models.example/m.onnx", None);
        assert_eq!(name, env::MODEL_SHA256);
        assert!(problem.ends_with("https://models.example/m.onnx"), "{problem}");
        assert_eq!(refused("s3://models/m.onnx", Some("abc")).0, env::MODEL_SHA256);
        for address in [
            "s3://models",
            "https://",
            "https://models.example",
            "ftp://models.example/m.onnx",
            "spleeter",
        ] {
            assert_eq!(refused(address, Some(SHA256)).0, env::MODEL_URI, "{address}");
        }
    }
}
