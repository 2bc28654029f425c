//! Objects of one bucket below one prefix: whole, in ranges, in parts, and under a condition.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::time::{Duration, SystemTime};

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

use super::config::Credentials;
use super::http::Http;
use super::{BucketConfig, BucketError};
use crate::store::StoreError;

/// The longest that one operation may take with all its retries: the keeper waits 30 s for a call.
const OPERATION_TIME_MAX: Duration = Duration::from_secs(25);
const RETRY_TIME_MAX: Duration = Duration::from_secs(12);
const RETRIES_MAX: usize = 5;
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(3);

/// What the store calls one content of an object.
pub(super) type Tag = String;

/// A condition of a write, which the store checks.
pub(super) enum If<'a> {
    /// None.
    Always,
    /// The object has this content still; `None` where there was no object.
    Unchanged(Option<&'a Tag>),
}

/// What a conditional write came to.
pub(super) enum Written {
    /// It is durable under this tag.
    Yes(Tag),
    /// The condition did not hold.
    Changed,
}

/// One name of a listing.
pub(super) struct Listed {
    /// The name below the prefix of the bucket.
    pub(super) name: String,
    /// When it was written, by the store's clock.
    pub(super) written: SystemTime,
}

/// A bucket's objects. Every call blocks.
pub(super) struct Objects {
    store: AmazonS3,
    bucket: String,
    prefix: String,
    runtime: Handle,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Objects(s3://{}/{})", self.bucket, self.prefix)
    }
}

impl Objects {
    pub(super) fn open(config: &BucketConfig, runtime: Handle) -> Result<Self, BucketError> {
        let Credentials { key_id, secret, token } = Credentials::read(config.credentials.as_deref())?;
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

    /// Reads an object of at most `max` bytes; `None` where there is none.
    pub(super) fn get(&self, name: &str, max: usize) -> Result<Option<(Vec<u8>, Tag)>, StoreError> {
        let path = self.path(name);
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

    /// Reads a part of an object, all of it.
    pub(super) fn range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let (path, wanted) = (self.path(name), range.end - range.start);
        let bytes = self.run(self.store.get_range(&path, range)).map_err(|failed| self.failed(name, failed))?;
        if bytes.len() as u64 == wanted { Ok(bytes) } else { Err(self.damaged(name, "shorter than it was written")) }
    }

    /// Length of an object; `None` where there is none.
    pub(super) fn length(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let path = self.path(name);
        match self.run(self.store.head(&path)) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Failed::Store(Error::NotFound { .. })) => Ok(None),
            Err(failed) => Err(self.failed(name, failed)),
        }
    }

    /// Writes an object, durably, if the condition holds.
    pub(super) fn put(&self, name: &str, bytes: Vec<u8>, condition: If<'_>) -> Result<Written, StoreError> {
        let mode = match condition {
            If::Always => PutMode::Overwrite,
            If::Unchanged(None) => PutMode::Create,
            If::Unchanged(Some(tag)) => PutMode::Update(UpdateVersion { e_tag: Some(tag.clone()), version: None }),
        };
        let path = self.path(name);
        let put = self.store.put_opts(&path, PutPayload::from(bytes), mode.into());
        match self.run(put) {
            Ok(result) => Ok(Written::Yes(result.e_tag.unwrap_or_default())),
            // Whoever removed it has changed it too.
            Err(Failed::Store(Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotFound { .. })) => {
                Ok(Written::Changed)
            }
            Err(failed) => Err(self.failed(name, failed)),
        }
    }

    /// Writes an object, durably, whatever was there.
    pub(super) fn write(&self, name: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        match self.put(name, bytes, If::Always)? {
            Written::Yes(_) => Ok(()),
            Written::Changed => Err(self.missing_bucket(name)),
        }
    }

    /// Removes an object if it is there.
    pub(super) fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path(name);
        match self.run(self.store.delete(&path)) {
            Ok(()) | Err(Failed::Store(Error::NotFound { .. })) => Ok(()),
            Err(failed) => Err(self.failed(name, failed)),
        }
    }

    /// All objects whose names begin with `dir` and a slash.
    pub(super) fn list(&self, dir: &str) -> Result<Vec<Listed>, StoreError> {
        let path = self.path(dir);
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

    /// Begins an object in parts.
    pub(super) fn begin_parts(&self, name: &str) -> Result<String, StoreError> {
        self.run(self.store.create_multipart(&self.path(name))).map_err(|failed| self.failed(name, failed))
    }

    /// Writes a part, durably; returns what completing asks for.
    pub(super) fn put_part(&self, name: &str, id: &String, part: usize, bytes: Vec<u8>) -> Result<String, StoreError> {
        let path = self.path(name);
        let put = self.store.put_part(&path, id, part, PutPayload::from(bytes));
        self.run(put).map(|part| part.content_id).map_err(|failed| self.failed(name, failed))
    }

    /// Makes the object of its parts.
    pub(super) fn complete_parts(&self, name: &str, id: &String, parts: &[String]) -> Result<(), StoreError> {
        let path = self.path(name);
        let parts = parts.iter().map(|part| PartId { content_id: part.clone() }).collect();
        self.run(self.store.complete_multipart(&path, id, parts)).map(drop).map_err(|failed| self.failed(name, failed))
    }

    /// Gives up an object in parts.
    pub(super) fn abort_parts(&self, name: &str, id: &String) -> Result<(), StoreError> {
        match self.run(self.store.abort_multipart(&self.path(name), id)) {
            Ok(()) | Err(Failed::Store(Error::NotFound { .. })) => Ok(()),
            Err(failed) => Err(self.failed(name, failed)),
        }
    }

    pub(super) fn damaged(&self, name: &str, what: &'static str) -> StoreError {
        StoreError::Damaged { path: self.path(name).as_ref().into(), what }
    }

    fn missing_bucket(&self, name: &str) -> StoreError {
        StoreError::Refused { name: self.url(name), reason: "there is no such bucket".to_owned() }
    }

    fn path(&self, name: &str) -> Path {
        Path::from(format!("{}/{name}", self.prefix))
    }

    fn url(&self, name: &str) -> String {
        format!("s3://{}/{}", self.bucket, self.path(name))
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

enum Failed {
    Late,
    Store(Error),
}
