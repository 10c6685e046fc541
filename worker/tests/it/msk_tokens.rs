//! Tokens for Amazon MSK, compared with those of AWS's own signer.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use aws_sdk_s3::config::Credentials;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use separation_kafka::msk_token;
use separation_testbed::Components;
use serde_json::{Value, json};
use url::Url;

/// Prints the signer's token and its expiry, in milliseconds since 1970, for each case of its argument.
const SIGN: &str = r"
import datetime, json, sys
import botocore.auth
from aws_msk_iam_sasl_signer import MSKAuthTokenProvider
from botocore.credentials import CredentialProvider, Credentials

class Given(CredentialProvider):
    def __init__(self, keys):
        self.keys = keys
    def load(self):
        return Credentials(*self.keys)

signed = []
for region, seconds, *keys in json.loads(sys.argv[1]):
    now = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).replace(tzinfo=None)
    botocore.auth.get_current_datetime = lambda: now
    signed.append(MSKAuthTokenProvider.generate_auth_token_from_credentials_provider(region, Given(keys)))
print(json.dumps(signed))
";

/// The one field that the signer adds after it has signed.
const USER_AGENT: &str = "User-Agent";

/// Host and path of a token, and its fields except [`USER_AGENT`], which must be the last one.
fn signed_parts(token: &str) -> (String, BTreeMap<String, String>) {
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(token).unwrap();
    let mut url = Url::parse(std::str::from_utf8(&decoded).unwrap()).unwrap();
    let mut fields: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let (last, _) = fields.pop().unwrap();
    assert_eq!(last, USER_AGENT);
    let count = fields.len();
    let fields: BTreeMap<_, _> = fields.into_iter().collect();
    assert_eq!(fields.len(), count, "a field occurs twice");
    url.set_query(None);
    (url.into(), fields)
}

fn signed_by_aws(cases: &Value) -> Vec<(String, u64)> {
    let mut python = Command::new(Components::msk_signer().unwrap());
    let output = python.args(["-c", SIGN]).arg(cases.to_string()).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_token_has_the_fields_and_the_signature_of_awss_signer() {
    let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    let session = "IQoJb3JpZ2luX2VjEA==/+with=every&character?of%20a#token~";
    let cases = [
        ("eu-central-1", 1_790_000_000, "AKIDEXAMPLE", None),
        ("us-gov-west-1", 1_709_164_799, "ASIAEXAMPLE", Some(session)),
        ("eu-central-1", 1_767_225_600, "ASIAEXAMPLE", Some(session)),
    ];
    let arguments = cases.map(|(region, seconds, key, token)| json!([region, seconds, key, secret, token]));
    let expected = signed_by_aws(&json!(arguments));
    assert_eq!(expected.len(), cases.len());
    for ((region, seconds, key, session), (token, expires_ms)) in cases.into_iter().zip(expected) {
        let credentials = Credentials::new(key, secret, session.map(str::to_owned), None, "tests");
        let now = UNIX_EPOCH + Duration::from_secs(seconds);
        let ours = msk_token(region, &credentials, now).unwrap();
        assert_eq!(signed_parts(ours.text.expose()), signed_parts(&token));
        assert_eq!(ours.expires, UNIX_EPOCH + Duration::from_millis(expires_ms));
    }
}
