//! The state in bytes, for [`crate::snapshot`]: every part of it has a form here or beside its struct.
//!
//! Integers are big-endian, texts and lists have their length before them in 8 bytes. [`stored`] names every field of a
//! struct, in the order of the bytes: one that is added does not compile before somebody has decided on it. Whoever adds
//! one, or changes what an entry does to the state, counts up the number in [`FOLD`](crate::snapshot::FOLD).
//!
//! What has rules of its own comes back through its constructor: names, keys, policies, the genesis.

mod collections;
mod parts;

use std::collections::BTreeMap;
use std::sync::Arc;

use attestation::Sha256Digest;

use crate::names::Name;
use crate::policy::Policy;
use crate::snapshot::SnapshotError;

/// Has one form in bytes.
pub(crate) trait Stored: Sized {
    fn store(&self, to: &mut Writer);
    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError>;
}

/// Implements [`Stored`] field by field.
macro_rules! stored {
    ($type:ident { $($field:ident),* $(,)? }) => {
        impl $crate::state::stored::Stored for $type {
            fn store(&self, to: &mut $crate::state::stored::Writer) {
                let Self { $($field),* } = self;
                $($crate::state::stored::Stored::store($field, to);)*
            }

            fn restore(
                from: &mut $crate::state::stored::Reader<'_>,
            ) -> Result<Self, $crate::snapshot::SnapshotError> {
                // Fields are read in the order in which they are written here.
                Ok(Self { $($field: $crate::state::stored::Stored::restore(from)?),* })
            }
        }
    };
}
pub(crate) use stored;

/// Bytes that grow. A name or a policy is written once and then only numbered.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    names: BTreeMap<Name, u64>,
    policies: Vec<Sha256Digest>,
}

impl Writer {
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes of any length.
    pub(crate) fn sized(&mut self, bytes: &[u8]) {
        bytes.len().store(self);
        self.put(bytes);
    }

    /// What entries carry in JSON is in JSON here too.
    pub(super) fn json<T: serde::Serialize>(&mut self, value: &T) {
        self.sized(&serde_json::to_vec(value).expect("parts of entries are JSON"));
    }
}

/// Bytes that were stored.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    names: Vec<Name>,
    policies: Vec<Arc<Policy>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, names: Vec::new(), policies: Vec::new() }
    }

    pub(crate) fn finish(self) -> Result<(), SnapshotError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(SnapshotError::Trailing { bytes: self.bytes.len() }) }
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], SnapshotError> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(SnapshotError::Cut)?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(crate) fn sized(&mut self) -> Result<&'a [u8], SnapshotError> {
        let length = usize::restore(self)?;
        self.take(length)
    }

    /// The number of things that follow, each of at least one byte.
    pub(super) fn count(&mut self) -> Result<usize, SnapshotError> {
        let count = usize::restore(self)?;
        if count > self.bytes.len() { Err(SnapshotError::Cut) } else { Ok(count) }
    }

    fn text(&mut self, what: &'static str) -> Result<&'a str, SnapshotError> {
        std::str::from_utf8(self.sized()?).map_err(|_| SnapshotError::Malformed { what })
    }

    pub(super) fn json<T: serde::de::DeserializeOwned>(&mut self, what: &'static str) -> Result<T, SnapshotError> {
        serde_json::from_slice(self.sized()?).map_err(|_| SnapshotError::Malformed { what })
    }
}

/// Numbers from 1 are those of what was there before; 0 says that it follows.
impl Stored for Name {
    fn store(&self, to: &mut Writer) {
        let known = to.names.get(self).copied().unwrap_or(0);
        known.store(to);
        if known == 0 {
            to.sized(self.as_str().as_bytes());
            let number = to.names.len() as u64 + 1;
            to.names.insert(self.clone(), number);
        }
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let malformed = SnapshotError::Malformed { what: "name" };
        match usize::restore(from)?.checked_sub(1) {
            Some(known) => from.names.get(known).cloned().ok_or(malformed),
            None => {
                let name = Self::try_from(from.text("name")?).map_err(|_| malformed)?;
                from.names.push(name.clone());
                Ok(name)
            }
        }
    }
}

/// As for names.
impl Stored for Arc<Policy> {
    fn store(&self, to: &mut Writer) {
        let known = to.policies.iter().position(|digest| *digest == self.digest()).map_or(0, |index| index + 1);
        known.store(to);
        if known == 0 {
            to.sized(self.text().as_bytes());
            to.policies.push(self.digest());
        }
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let malformed = SnapshotError::Malformed { what: "policy" };
        match usize::restore(from)?.checked_sub(1) {
            Some(known) => from.policies.get(known).map(Arc::clone).ok_or(malformed),
            None => {
                let policy = Arc::new(Policy::parse(from.text("policy")?).map_err(|_| malformed)?);
                from.policies.push(Arc::clone(&policy));
                Ok(policy)
            }
        }
    }
}
