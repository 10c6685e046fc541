//! Tokens from a file that another process renews, such as a projected service account token.

use std::path::PathBuf;

use async_trait::async_trait;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use super::token::{FetchToken, Token};
use crate::ReadError;

/// The largest file that is read: sixteen times the size of a large JWT.
const MAX_BYTES: u64 = 65_536;

/// A file with a JWT.
#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    async fn read(&self) -> std::io::Result<String> {
        let mut text = String::new();
        let file = File::open(&self.path).await?;
        file.take(MAX_BYTES + 1).read_to_string(&mut text).await?;
        Ok(text)
    }
}

#[async_trait]
impl FetchToken for TokenFile {
    async fn fetch(&self) -> Result<Token, ReadError> {
        let path = self.path.display();
        let text = self.read().await.map_err(|error| {
            ReadError::new(format!(
                "the token file {path} cannot be read: {error}; fix: mount the token there"
            ))
        })?;
        if text.len() as u64 > MAX_BYTES {
            return Err(ReadError::new(format!(
                "the token file {path} is larger than {MAX_BYTES} bytes; fix: name a file that contains only the token"
            )));
        }
        Token::from_jwt(text.trim().to_owned().into())
            .map_err(|error| ReadError::with_kind(format!("{path}: {error}"), error.kind))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// `{"sub": "vocals", "exp": 1715949296}`.
    const JWT: &str = "e30.eyJzdWIiOiAidm9jYWxzIiwgImV4cCI6IDE3MTU5NDkyOTZ9.c2ln";

    #[tokio::test]
    async fn each_fetch_reads_the_file_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let file = TokenFile::new(path.clone());
        let missing = file.fetch().await.unwrap_err().to_string();
        assert!(
            missing.contains(path.to_str().unwrap()) && missing.contains("; fix: "),
            "{missing}"
        );
        std::fs::write(&path, format!("{JWT}\n")).unwrap();
        let token = file.fetch().await.unwrap();
        assert_eq!(
            (token.text.expose(), token.principal.as_str(), token.expires),
            (JWT, "vocals", UNIX_EPOCH + Duration::from_secs(1_715_949_296))
        );
    }

    #[tokio::test]
    async fn other_contents_are_refused_by_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let file = TokenFile::new(path.clone());
        let too_large = "x".repeat(MAX_BYTES as usize + 1);
        for (text, why) in [
            ("", "not a JWT"),
            ("opaque", "not a JWT"),
            (too_large.as_str(), "larger than"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = file.fetch().await.unwrap_err().to_string();
            assert!(
                error.contains(path.to_str().unwrap()) && error.contains(why),
                "{error}"
            );
        }
    }
}
