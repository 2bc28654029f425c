//! Requests to an S3 service, signed as AWS Signature Version 4 says ("Authenticating Requests: Using the Authorization
//! Header").
//!
//! An agent only reads objects, so a signature is all that it needs beside HTTP: the client that the host has would bring 24
//! crates into the process that has the keys.

use std::path::Path;

use attestation::UnixTime;
use ring::digest::{SHA256, digest};
use ring::hmac::{self, HMAC_SHA256};
use time::OffsetDateTime;

use crate::failure::{Failure, Kind};

/// SHA-256 of nothing: a GET has no body.
const NO_BODY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const CREDENTIALS_BYTES_MAX: usize = 64 << 10;

/// Signs requests for one service in one region. It has no `Debug`: the secret is in it.
#[derive(Clone)]
pub(in crate::agent) struct Signer {
    host: String,
    region: String,
    credentials: Credentials,
}

/// Who we are to the service.
#[derive(Clone)]
pub(in crate::agent) struct Credentials {
    key_id: String,
    secret: String,
    token: Option<String>,
}

impl Signer {
    /// For requests whose `Host` is `host`.
    pub(in crate::agent) fn new(host: String, region: String, credentials: Credentials) -> Self {
        Self { host, region, credentials }
    }

    /// What goes along with a GET of `path`, which needs no escapes, at `now`.
    pub(in crate::agent) fn headers(&self, path: &str, now: UnixTime) -> Vec<(&'static str, String)> {
        let Self { host, region, credentials: Credentials { key_id, secret, token } } = self;
        let (day, time) = date(now);
        let mut headers = vec![("x-amz-content-sha256", NO_BODY.to_owned()), ("x-amz-date", time.clone())];
        headers.extend(token.iter().map(|token| ("x-amz-security-token", token.clone())));
        // In the order of their names, which `host` begins.
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let names: String = headers.iter().map(|(name, _)| format!(";{name}")).collect();
        let request = format!("GET\n{path}\n\nhost:{host}\n{lines}\nhost{names}\n{NO_BODY}");
        let scope = format!("{day}/{region}/s3/aws4_request");
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex::encode(digest(&SHA256, request.as_bytes())));
        let mut key = format!("AWS4{secret}").into_bytes();
        for step in [day.as_str(), region, "s3", "aws4_request", &text] {
            key = hmac::sign(&hmac::Key::new(HMAC_SHA256, &key), step.as_bytes()).as_ref().to_vec();
        }
        let signature = hex::encode(&key);
        headers.push((
            "authorization",
            format!("AWS4-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders=host{names}, Signature={signature}"),
        ));
        headers
    }
}

impl Credentials {
    /// Of a file in the form of `~/.aws/credentials` where one is named, else of the environment.
    pub(in crate::agent) fn read(file: Option<&Path>) -> Result<Self, Failure> {
        let missing = |of: String| {
            Failure::new(Kind::Usage, "s3-credentials", format!("{of} has no credentials for the bucket")).next(
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file with aws_access_key_id and \
                 aws_secret_access_key: --s3-credentials",
            )
        };
        let Some(path) = file else {
            let set = |name: &str| std::env::var(name.to_uppercase()).ok().filter(|value| !value.is_empty());
            return Self::of(set).ok_or_else(|| missing("the environment".to_owned()));
        };
        let bytes = super::super::options::read(path, CREDENTIALS_BYTES_MAX)?;
        let text = String::from_utf8_lossy(&bytes);
        Self::of(|name| in_file(&text, name)).ok_or_else(|| missing(path.display().to_string()))
    }

    fn of(get: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let (key_id, secret) = (get("aws_access_key_id")?, get("aws_secret_access_key")?);
        Some(Self { key_id, secret, token: get("aws_session_token") })
    }
}

/// The value of a key under `[default]`, or before any section.
fn in_file(text: &str, name: &str) -> Option<String> {
    let mut section = "default";
    text.lines().map(str::trim).find_map(|line| {
        if let Some(named) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = named.trim();
        }
        let (key, value) = line.split_once('=')?;
        (section == "default" && key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// `YYYYMMDD`, and `YYYYMMDDThhmmssZ`.
fn date(now: UnixTime) -> (String, String) {
    let seconds = i64::try_from(now.seconds()).unwrap_or(i64::MAX);
    let now = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let day = format!("{:04}{:02}{:02}", now.year(), u8::from(now.month()), now.day());
    let time = format!("{day}T{:02}{:02}{:02}Z", now.hour(), now.minute(), now.second());
    (day, time)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example "GET Object" of AWS's documentation has a `Range` that is signed; this is the same without it, computed by
    /// the steps of that page. That a service takes it, the tests with one show.
    #[test]
    fn a_signature_depends_on_every_part_of_the_request() {
        let signer = |secret: &str, region: &str, token: Option<&str>| {
            let credentials =
                Credentials { key_id: "AKID".to_owned(), secret: secret.to_owned(), token: token.map(str::to_owned) };
            Signer::new("examplebucket.s3.amazonaws.com".to_owned(), region.to_owned(), credentials)
        };
        let signature = |signer: Signer, path: &str, now: u64| signer.headers(path, UnixTime(now)).pop().unwrap();
        let (name, one) = signature(signer("secret", "us-east-1", None), "/test.txt", 1_369_353_600);
        assert_eq!(name, "authorization");
        let start = "AWS4-HMAC-SHA256 Credential=AKID/20130524/us-east-1/s3/aws4_request, \
                     SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=";
        assert!(one.starts_with(start) && one.len() == start.len() + 64, "{one}");
        let others = [
            signature(signer("secre", "us-east-1", None), "/test.txt", 1_369_353_600),
            signature(signer("secret", "us-east-2", None), "/test.txt", 1_369_353_600),
            signature(signer("secret", "us-east-1", Some("token")), "/test.txt", 1_369_353_600),
            signature(signer("secret", "us-east-1", None), "/test.tx", 1_369_353_600),
            signature(signer("secret", "us-east-1", None), "/test.txt", 1_369_353_601),
        ];
        let tail = |text: &str| text.rsplit_once('=').map(|(_, signature)| signature.to_owned()).unwrap();
        assert!(others.iter().all(|(_, other)| tail(other) != tail(&one)));
    }

    #[test]
    fn credentials_are_those_of_the_default_section() {
        let text = "aws_access_key_id = a\n[other]\naws_access_key_id = b\naws_session_token=c\n[default]\naws_secret_access_key=d=e\n";
        let read = Credentials::of(|name| in_file(text, name)).unwrap();
        assert_eq!((read.key_id.as_str(), read.secret.as_str(), read.token), ("a", "d=e", None));
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = Credentials::read(Some(file.path())).err().unwrap();
        assert_eq!(refused.code(), "s3-credentials");
    }
}
