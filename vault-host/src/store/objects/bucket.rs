//! Objects of one bucket below one prefix: whole, in ranges, in parts, and under a condition.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    BackoffConfig, Error, GetOptions, ObjectStore as _, ObjectStoreExt as _, PutMode, PutPayload, RetryConfig,
    UpdateVersion,
};
use tokio::runtime::Handle;
use tokio_stream::StreamExt;

mod config;
mod http;
mod units;

pub(crate) use config::RawS3;
pub use config::{BucketConfig, BucketError};
pub(super) use units::BucketUnits;

use config::Credentials;
use http::Http;

use super::place::{If, Listed, Objects, Tag, Written};
use crate::store::StoreError;

/// The longest that one operation may take with all its retries: the keeper waits 30 s for a call.
const OPERATION_TIME_MAX: Duration = Duration::from_secs(25);
const RETRY_TIME_MAX: Duration = Duration::from_secs(12);
const RETRIES_MAX: usize = 5;
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(3);

/// A bucket's objects. Every call blocks.
pub(super) struct Bucket {
    store: AmazonS3,
    bucket: String,
    prefix: String,
    runtime: Handle,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket(s3://{}/{})", self.bucket, self.prefix)
    }
}

impl Bucket {
    pub(super) fn open(config: &BucketConfig, runtime: Handle) -> Result<Self, BucketError> {
        let credentials = Credentials::read(config.credentials.as_deref())?;
        credentials.check(&config.region)?;
        let Credentials { key_id, secret, token } = credentials;
        let retry = RetryConfig {
            backoff: BackoffConfig { init_backoff: BACKOFF_FIRST, max_backoff: BACKOFF_MAX, base: 2. },
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIME_MAX,
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&config.bucket)
            .with_region(&config.region)
            .with_access_key_id(key_id)
            .with_secret_access_key(secret)
            .with_retry(retry)
            .with_http_connector(Http::new(config.ca.as_deref())?);
        if let Some(token) = token {
            builder = builder.with_token(token);
        }
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        let store = builder.build().map_err(|error| BucketError::Settings(error.to_string()))?;
        Ok(Self { store, bucket: config.bucket.clone(), prefix: config.prefix.clone(), runtime })
    }

    /// Reads a part of an object, all of it, and takes no more than that, whatever comes.
    pub(super) fn range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let (path, wanted) = (self.key(name), range.end - range.start);
        let options = GetOptions { range: Some(range.into()), ..GetOptions::default() };
        let read = async {
            let mut stream = self.store.get_opts(&path, options).await?.into_stream();
            let first = stream.next().await.transpose()?.unwrap_or_default();
            if first.len() as u64 >= wanted {
                return Ok(first);
            }
            let mut bytes = Vec::with_capacity(usize::try_from(wanted).unwrap_or_default());
            bytes.extend_from_slice(&first);
            while let Some(piece) = stream.next().await.transpose()? {
                bytes.extend_from_slice(&piece);
                if bytes.len() as u64 > wanted {
                    break;
                }
            }
            Ok(bytes.into())
        };
        let bytes = self.run(read).map_err(|failed| self.failed(name, failed))?;
        if bytes.len() as u64 == wanted { Ok(bytes) } else { Err(self.damaged(name, "not as long as was asked for")) }
    }

    /// Begins an object in parts.
    pub(super) fn begin_parts(&self, name: &str) -> Result<String, StoreError> {
        self.run(self.store.create_multipart(&self.key(name))).map_err(|failed| self.failed(name, failed))
    }

    /// Writes a part, durably; returns what completing asks for. `None` where no such object was begun.
    pub(super) fn put_part(
        &self,
        name: &str,
        id: &String,
        part: usize,
        bytes: Vec<u8>,
    ) -> Result<Option<String>, StoreError> {
        let path = self.key(name);
        let put = self.store.put_part(&path, id, part, PutPayload::from(bytes));
        self.unless_gone(name, self.run(put)).map(|part| part.map(|part| part.content_id))
    }

    /// Makes the object of its parts. False where no such object was begun, or it was made already.
    pub(super) fn complete_parts(&self, name: &str, id: &String, parts: &[String]) -> Result<bool, StoreError> {
        let path = self.key(name);
        let parts = parts.iter().map(|part| PartId { content_id: part.clone() }).collect();
        self.unless_gone(name, self.run(self.store.complete_multipart(&path, id, parts))).map(|done| done.is_some())
    }

    fn unless_gone<T>(&self, name: &str, done: Result<T, Failed>) -> Result<Option<T>, StoreError> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(Failed::Store(Error::NotFound { .. })) => Ok(None),
            Err(failed) => Err(self.failed(name, failed)),
        }
    }

    /// Gives up an object in parts.
    pub(super) fn abort_parts(&self, name: &str, id: &String) -> Result<(), StoreError> {
        match self.run(self.store.abort_multipart(&self.key(name), id)) {
            Ok(()) | Err(Failed::Store(Error::NotFound { .. })) => Ok(()),
            Err(failed) => Err(self.failed(name, failed)),
        }
    }

    fn missing_bucket(&self, name: &str) -> StoreError {
        StoreError::Refused { name: self.url(name), reason: "there is no such bucket".to_owned() }
    }

    fn key(&self, name: &str) -> Path {
        Path::from(format!("{}/{name}", self.prefix))
    }

    fn url(&self, name: &str) -> String {
        format!("s3://{}/{}", self.bucket, self.key(name))
    }

    fn run<T>(&self, operation: impl Future<Output = object_store::Result<T>>) -> Result<T, Failed> {
        let bounded = async { tokio::time::timeout(OPERATION_TIME_MAX, operation).await };
        self.runtime.block_on(bounded).map_err(|_| Failed::Late)?.map_err(Failed::Store)
    }

    /// The text of such an error has the URL and what the store answered, never a header.
    fn failed(&self, name: &str, failed: Failed) -> StoreError {
        let name = self.url(name);
        match failed {
            Failed::Late => {
                StoreError::Unreachable { name, reason: format!("no answer within {} s", OPERATION_TIME_MAX.as_secs()) }
            }
            Failed::Store(error @ (Error::PermissionDenied { .. } | Error::Unauthenticated { .. })) => {
                StoreError::Refused { name, reason: error.to_string() }
            }
            Failed::Store(error) => StoreError::Unreachable { name, reason: error.to_string() },
        }
    }
}

impl Objects for Bucket {
    fn get(&self, name: &str, max: usize) -> Result<Option<(Vec<u8>, Tag)>, StoreError> {
        let path = self.key(name);
        let read = async {
            let got = self.store.get_opts(&path, GetOptions::default()).await?;
            let (size, tag) = (got.meta.size, got.meta.e_tag.clone().unwrap_or_default());
            let mut bytes = Vec::new();
            let mut stream = got.into_stream();
            while let Some(piece) = stream.next().await {
                let piece = piece?;
                if bytes.len() + piece.len() > max {
                    return Ok(None);
                }
                bytes.extend_from_slice(&piece);
            }
            Ok((bytes.len() as u64 == size).then_some((bytes, tag)))
        };
        match self.run(read) {
            Ok(Some(found)) => Ok(Some(found)),
            Ok(None) => Err(self.damaged(name, "not as long as such an object is")),
            Err(Failed::Store(Error::NotFound { .. })) => Ok(None),
            Err(failed) => Err(self.failed(name, failed)),
        }
    }

    fn length(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let path = self.key(name);
        match self.run(self.store.head(&path)) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Failed::Store(Error::NotFound { .. })) => Ok(None),
            Err(failed) => Err(self.failed(name, failed)),
        }
    }

    fn put(&self, name: &str, bytes: Vec<u8>, condition: If<'_>) -> Result<Written, StoreError> {
        let always = matches!(condition, If::Always);
        let mode = match condition {
            If::Always => PutMode::Overwrite,
            If::Unchanged(None) => PutMode::Create,
            If::Unchanged(Some(tag)) => PutMode::Update(UpdateVersion { e_tag: Some(tag.clone()), version: None }),
        };
        let path = self.key(name);
        let put = self.store.put_opts(&path, PutPayload::from(bytes), mode.into());
        match self.run(put) {
            Ok(result) => Ok(Written::Yes(result.e_tag.unwrap_or_default())),
            Err(Failed::Store(Error::NotFound { .. })) if always => Err(self.missing_bucket(name)),
            // Whoever removed it has changed it too.
            Err(Failed::Store(Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotFound { .. })) => {
                Ok(Written::Changed)
            }
            Err(failed) => Err(self.failed(name, failed)),
        }
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.key(name);
        match self.run(self.store.delete(&path)) {
            Ok(()) | Err(Failed::Store(Error::NotFound { .. })) => Ok(()),
            Err(failed) => Err(self.failed(name, failed)),
        }
    }

    fn list(&self, dir: &str) -> Result<Vec<Listed>, StoreError> {
        let path = self.key(dir);
        let list = async {
            let mut listed = Vec::new();
            let mut stream = self.store.list(Some(&path));
            while let Some(meta) = stream.next().await {
                let meta = meta?;
                let name = meta.location.as_ref();
                let name = name.strip_prefix(&self.prefix).unwrap_or(name).trim_start_matches('/').to_owned();
                listed.push(Listed { name, written: meta.last_modified.into() });
            }
            Ok(listed)
        };
        self.run(list).map_err(|failed| self.failed(dir, failed))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.key(name).as_ref().into()
    }
}

enum Failed {
    Late,
    Store(Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "aws_access_key_id = a\naws_secret_access_key = b\naws_session_token = c\n";

    #[tokio::test]
    async fn settings_that_no_header_can_carry_are_refused_before_there_is_a_request() {
        let dir = tempfile::tempdir().unwrap();
        let open = |region: &str, credentials: &str| {
            let file = dir.path().join("credentials");
            std::fs::write(&file, credentials).unwrap();
            let config = BucketConfig {
                bucket: "vault".to_owned(),
                prefix: String::new(),
                endpoint: Some("http://127.0.0.1:9".to_owned()),
                region: region.to_owned(),
                ca: None,
                credentials: Some(file),
            };
            Bucket::open(&config, Handle::current()).err().map(|error| error.code())
        };
        assert_eq!(open("eu-west-1", GOOD), None);
        assert_eq!(open("eu\u{7}west-1", GOOD), Some("s3-settings"));
        assert_eq!(open("eu-west-1", &GOOD.replace("id = a", "id = a\u{7f}")), Some("s3-settings"));
        assert_eq!(open("eu-west-1", &GOOD.replace("token = c", "token = \u{e9}")), Some("s3-settings"));
    }
}
