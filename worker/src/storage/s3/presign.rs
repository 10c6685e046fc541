//! Presigned links: for a limited time, they allow clients without credentials to read or write one object.
//!
//! A signature contains the host, so links are signed for the endpoint that the clients reach.

use std::time::Duration;

use super::S3;
use super::response::response;
use super::signer::{ACTION, PresignedLink};
use crate::settings::ObjectAddress;
use crate::storage::StorageError;

impl S3 {
    /// A link to read an object for the time `valid`, at most a week, which is answered with this header
    /// `Content-Disposition`. None without a public endpoint. The object need not exist.
    ///
    /// # Errors
    /// When the credentials cannot be loaded.
    pub async fn presigned_get(
        &self,
        address: &ObjectAddress,
        content_disposition: &str,
        valid: Duration,
    ) -> Result<Option<PresignedLink>, StorageError> {
        let Some(signer) = &self.signer else {
            return Ok(None);
        };
        let terms = signer.terms(address, valid).await?;
        let request = signer.client.get_object();
        let request = request
            .bucket(&address.bucket)
            .key(&address.key)
            .response_content_disposition(content_disposition)
            .customize()
            .config_override(terms.signed_with());
        let signed = response(ACTION, address, request.presigned(terms.config())).await?;
        Ok(Some(terms.link(&signed)))
    }

    /// A link to write an object by PUT for the time `valid`, at most a week, of any content type. None without a public
    /// endpoint.
    ///
    /// # Errors
    /// When the credentials cannot be loaded.
    pub async fn presigned_put(
        &self,
        address: &ObjectAddress,
        valid: Duration,
    ) -> Result<Option<PresignedLink>, StorageError> {
        let Some(signer) = &self.signer else {
            return Ok(None);
        };
        let terms = signer.terms(address, valid).await?;
        let request = signer.client.put_object();
        let request = request
            .bucket(&address.bucket)
            .key(&address.key)
            .customize()
            .config_override(terms.signed_with());
        let signed = response(ACTION, address, request.presigned(terms.config())).await?;
        Ok(Some(terms.link(&signed)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::{SystemTime, UNIX_EPOCH};

    use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
    use clap::Parser as _;

    use super::*;
    use crate::settings::S3Arguments;
    use crate::storage::s3::signer::Signer;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        s3: S3Arguments,
    }

    /// A link that is signed for an hour with credentials that end at `end`, and the values of its query.
    async fn hour_link(end: Option<SystemTime>) -> (PresignedLink, HashMap<String, String>) {
        let line = Line::parse_from([
            "test",
            "--aws-access-key-id=a",
            "--aws-secret-access-key=b",
            "--s3-endpoint-url=http://s3.internal:9000",
        ]);
        let mut s3 = S3::connect(&line.s3.settings().expect("settings")).await;
        let token = Some("a token".to_owned());
        let credentials = Credentials::new("of a role", "a secret", token, end, "test");
        let public = s3.client.config().to_builder().endpoint_url("https://s3.example");
        s3.signer = Some(Signer::new(public, SharedCredentialsProvider::new(credentials)));
        let address = "s3://stems/a.wav".parse().expect("an address");
        let link = s3.presigned_put(&address, Duration::from_secs(3_600)).await;
        let link = link.expect("credentials").expect("a public endpoint");
        let url = link.url.as_str();
        assert!(url.starts_with("https://s3.example/stems/a.wav?"), "{url}");
        let query = link.url.query_pairs().into_owned().collect();
        (link, query)
    }

    #[tokio::test]
    async fn a_link_ends_with_its_credentials() {
        let end = SystemTime::now() + Duration::from_secs(600);
        let (link, query) = hour_link(Some(end)).await;
        assert!(query["X-Amz-Credential"].starts_with("of a role/"), "{query:?}");
        assert_eq!(query["X-Amz-Security-Token"], "a token");
        let valid: u64 = query["X-Amz-Expires"].parse().expect("seconds");
        assert!((540..=600).contains(&valid), "{valid}");
        let end = end.duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let expires_at = link.expires_at;
        assert!((end - 60..=end).contains(&expires_at), "{expires_at} of {end}");
        let (link, query) = hour_link(None).await;
        assert_eq!(query["X-Amz-Expires"], "3600");
        assert!(link.expires_at >= end + 2_940, "{}", link.expires_at);
    }
}
