//! One commit: what must be durable, in which order, before anything leaves the keeper (DESIGN: "The log is the state").

use std::ops::Range;

use attestation::Sha256Digest;
use ledger::cosignature::Gathering;
use ledger::merkle::BUNDLE_LEAVES;
use ledger::release_log::Writer;
use vault_proto::v1::{
    AppendLog, EntryList, GetBlob, GetCheckpoint, PutBlob, PutCheckpoint, ReadLog, store_call::Call, store_result,
};

use super::fold::FoldError;
use super::link::{Store, StoreError};
use super::newest::NewestError;
use crate::head::{Anchor, AnchorError};
use crate::vault_keys::{VaultKeys, VaultKeysError};

/// Entries in one `ReadLog`.
const READ_ENTRIES_MAX: u32 = 1024;

/// Why a commit did not happen. Whatever it was, the keeper stops and folds the log anew.
#[derive(Debug)]
pub(super) enum CommitError {
    /// The host's disk.
    Store(StoreError),
    /// Head or counter.
    Anchor(AnchorError),
    /// A key of the vault.
    Keys(VaultKeysError),
    /// How far other keepers are.
    Newest(NewestError),
    /// What other keepers wrote.
    Fold(FoldError),
}

impl std::fmt::Display for CommitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Anchor(error) => error.fmt(f),
            Self::Keys(error) => error.fmt(f),
            Self::Newest(error) => error.fmt(f),
            Self::Fold(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CommitError {}

/// Writes commits: blobs and entries to the host, head and counter to the keeper's own disk and TPM.
pub(super) struct Committer<'a> {
    /// The host.
    pub store: &'a Store,
    /// Head and counter.
    pub anchor: &'a mut Anchor,
    /// Signs the checkpoint.
    pub keys: &'a VaultKeys,
    /// Durable before the entries that name them.
    pub blobs: Vec<Vec<u8>>,
    /// Whether other keepers write to the log: then what witnesses are asked about is kept by the host beforehand, for the
    /// keeper that has to bring it to its end if this one does not.
    pub shared: bool,
}

impl Writer for Committer<'_> {
    type Error = CommitError;

    fn append(&mut self, first: u64, entries: &[Vec<u8>]) -> Result<(), CommitError> {
        let blobs = std::mem::take(&mut self.blobs);
        if !blobs.is_empty() {
            self.store.write_all(blobs.into_iter().map(put_blob).collect()).map_err(CommitError::Store)?;
        }
        if entries.is_empty() {
            return Ok(());
        }
        let call = Call::AppendLog(AppendLog { first, entries: entries.to_vec() });
        self.store.write_all(vec![call]).map_err(CommitError::Store)
    }

    fn commit(&mut self, size: u64, root: [u8; 32]) -> Result<(), CommitError> {
        self.anchor.commit(size, root).map_err(CommitError::Anchor)
    }

    fn sign(&mut self, note_body: &str) -> Result<[u8; 64], CommitError> {
        self.keys.sign_log(note_body.as_bytes()).map_err(CommitError::Keys)
    }

    fn cosign(&mut self, gathering: &mut Gathering<'_>) -> Result<(), CommitError> {
        if self.shared {
            self.store.propose(gathering.note(), gathering.size()).map_err(CommitError::Store)?;
        }
        self.store.ask_witnesses(gathering).map_err(CommitError::Store)
    }

    fn publish(&mut self, checkpoint: &str, size: u64) -> Result<(), CommitError> {
        let call = Call::PutCheckpoint(PutCheckpoint { checkpoint: checkpoint.to_owned(), size });
        self.store.write_all(vec![call]).map_err(CommitError::Store)
    }
}

impl Store {
    /// Stores blobs durably, outside a commit.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_blobs(&self, blobs: Vec<Vec<u8>>) -> Result<(), StoreError> {
        self.write_all(blobs.into_iter().map(put_blob).collect())
    }

    /// Reads a blob and compares its digest: the host may answer anything.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn blob(&self, digest: Sha256Digest) -> Result<Vec<u8>, StoreError> {
        let call = Call::GetBlob(GetBlob { digest: digest.as_bytes().to_vec() });
        match self.call_all(vec![call])?.pop() {
            Some(store_result::Result::Blob(blob)) if Sha256Digest::of(&blob) == digest => Ok(blob),
            Some(store_result::Result::Blob(_)) => Err(StoreError::WrongDigest),
            _ => Err(StoreError::WrongAnswer),
        }
    }

    /// The checkpoint that the host published last: a note that the caller verifies.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn checkpoint(&self) -> Result<String, StoreError> {
        match self.call_all(vec![Call::GetCheckpoint(GetCheckpoint {})])?.pop() {
            Some(store_result::Result::Checkpoint(note)) => Ok(note),
            _ => Err(StoreError::WrongAnswer),
        }
    }

    /// Reads entries in order; the caller compares the root that they make. The host looks up the next while those before
    /// are taken.
    ///
    /// # Errors
    /// What `take` says, or [`StoreError`]; [`StoreError::ShortLog`] where the host has fewer.
    pub fn read_log<E: From<StoreError>>(
        &self,
        range: Range<u64>,
        mut take: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let ask = |next: u64| {
            let count = u32::try_from(range.end - next).unwrap_or(u32::MAX).min(READ_ENTRIES_MAX);
            self.ask(Call::ReadLog(ReadLog { first: next, count }))
        };
        let mut next = range.start;
        let mut asked = if next < range.end { Some(ask(next)?) } else { None };
        while let Some(waiting) = asked {
            let store_result::Result::Entries(EntryList { entries }) = waiting.answer()? else {
                return Err(StoreError::WrongAnswer.into());
            };
            // An empty answer would loop for ever; more than asked is not what was asked.
            if entries.is_empty() || entries.len() as u64 > range.end - next {
                return Err(StoreError::ShortLog { wanted: range.end, has: next }.into());
            }
            next += entries.len() as u64;
            asked = if next < range.end { Some(ask(next)?) } else { None };
            entries.into_iter().try_for_each(&mut take)?;
        }
        Ok(())
    }

    /// The entries of a bundle of the log; the caller compares the root that they make.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn bundle(&self, bundle: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        let (first, mut entries) = (bundle * BUNDLE_LEAVES, Vec::new());
        self.read_log(first..first + BUNDLE_LEAVES, |entry| {
            entries.push(entry);
            Ok::<_, StoreError>(())
        })?;
        Ok(entries)
    }
}

fn put_blob(blob: Vec<u8>) -> Call {
    Call::PutBlob(PutBlob { digest: Sha256Digest::of(&blob).as_bytes().to_vec(), blob })
}
