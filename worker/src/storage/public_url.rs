//! Public links to stems.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::settings::S3Settings;

/// Bytes of an object key that are encoded in a link: all except unreserved characters (RFC 3986, 2.3) and slashes.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// The link to the object `key` of `bucket`: `S3_PUBLIC_DOMAIN/key`, else `endpoint/bucket/key`, else AWS's
/// virtual-hosted form.
pub fn public_url(settings: &S3Settings, bucket: &str, key: &str) -> String {
    let key = encoded(key);
    if let Some(domain) = &settings.public_domain {
        return format!("{}/{key}", domain.trim_end_matches('/'));
    }
    if let Some(endpoint) = &settings.endpoint {
        return format!("{}/{bucket}/{key}", endpoint.as_str().trim_end_matches('/'));
    }
    match &settings.region {
        None => format!("https://{bucket}.s3.amazonaws.com/{key}"),
        Some(region) => format!("https://{bucket}.s3.{region}.amazonaws.com/{key}"),
    }
}

/// Percent-encodes an object key for a link.
pub(crate) fn encoded(key: &str) -> String {
    utf8_percent_encode(key, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(endpoint: Option<&str>, public_domain: Option<&str>, region: Option<&str>, expected: &str) {
        let settings = S3Settings {
            endpoint: endpoint.map(|text| text.parse().unwrap()),
            credentials: None,
            region: region.map(str::to_owned),
            bucket: Some("stems".into()),
            stems_prefix: String::new(),
            public_domain: public_domain.map(str::to_owned),
            public_endpoint: None,
            path_style: true,
        };
        assert_eq!(public_url(&settings, "stems", "t1_vocals.wav"), expected);
    }

    #[test]
    fn links_start_with_the_public_domain_the_endpoint_or_the_bucket_at_aws() {
        let s3 = Some("http://s3:9000");
        check(
            s3,
            Some("https://cdn.example/stems"),
            None,
            "https://cdn.example/stems/t1_vocals.wav",
        );
        check(s3, None, None, "http://s3:9000/stems/t1_vocals.wav");
        check(
            Some("http://s3:9000/base/"),
            None,
            None,
            "http://s3:9000/base/stems/t1_vocals.wav",
        );
        check(None, None, None, "https://stems.s3.amazonaws.com/t1_vocals.wav");
        check(
            None,
            None,
            Some("eu-central-1"),
            "https://stems.s3.eu-central-1.amazonaws.com/t1_vocals.wav",
        );
    }

    #[test]
    fn keys_are_encoded_byte_by_byte() {
        assert_eq!(encoded("a b/ä+?.wav"), "a%20b/%C3%A4%2B%3F.wav");
    }
}
