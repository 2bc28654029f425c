//! Why the disk did not do what was asked.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::{BucketError, PostgresError};

/// A failure of the store. `code()` is stable; the text is for an operator and names the file where there is one.
#[derive(Debug)]
pub enum StoreError {
    /// The disk is full. Nothing that was stored is lost.
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// Uploads may not use what is left of the disk: it is for the log.
    UploadsFull {
        /// Where they go.
        dir: PathBuf,
    },
    /// The system refused.
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// Another process has this data directory.
    DataDirInUse,
    /// The store did not answer, or not with what was asked for, after all retries.
    Unreachable {
        /// What was being read or written.
        name: String,
        /// Its reason.
        reason: String,
    },
    /// The store does not let us in.
    Refused {
        /// What was being read or written.
        name: String,
        /// Its reason.
        reason: String,
    },
    /// The bucket can't be used as it is configured.
    Bucket(BucketError),
    /// The database can't be used as it is configured.
    Postgres(PostgresError),
    /// The database is set to lose what it acknowledged when its machine stops.
    NotDurable {
        /// The setting that is off.
        setting: &'static str,
    },
    /// A later version of this program made the tables of the database.
    SchemaNewer {
        /// Their version.
        found: i32,
        /// The newest that this one knows.
        known: i32,
    },
    /// The place of the units is not that of this database.
    UnitsElsewhere {
        /// Whether another database has it; else nobody, though this one has models already.
        claimed: bool,
    },
    /// The bucket ignores the conditions of writes: two hosts could write over each other.
    NoConditions,
    /// Another host wrote entries where these were to go. Nothing was overwritten.
    LogConflict {
        /// Where they were to go.
        first: u64,
    },
    /// Another host published a checkpoint meanwhile. Nothing was overwritten.
    CheckpointConflict {
        /// The size of the one that was to be published.
        size: u64,
    },
    /// Entries were to go beyond the end of the log.
    LogGap {
        /// Where they were to go.
        first: u64,
        /// Where the log ends.
        size: u64,
    },
    /// Entries were to replace some that are under a checkpoint.
    UnderCheckpoint {
        /// Where they were to go.
        first: u64,
        /// The size of the checkpoint.
        committed: u64,
    },
    /// An entry is empty or longer than 16 KiB.
    EntrySize {
        /// How long it is.
        bytes: usize,
    },
    /// More entries or bytes in one call than the protocol allows.
    CallTooLarge,
    /// Stored bytes are not what was written. Nothing is repaired silently: the log comes back from a copy.
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// An earlier failure could not be undone; the process has to be started again.
    LogStopped,
    /// A checkpoint does not have the form of one.
    CheckpointForm,
    /// A checkpoint covers entries that are not here, or fewer than the one before.
    CheckpointSize {
        /// Its size.
        size: u64,
        /// The size of the one before.
        committed: u64,
        /// Entries stored.
        stored: u64,
    },
    /// The root of a checkpoint is not that of the stored entries.
    CheckpointRoot,
    /// A blob or a unit does not have the digest that names it.
    DigestMismatch,
    /// A blob is longer than 8 MiB.
    BlobSize {
        /// How long it is.
        bytes: usize,
    },
    /// There is no such file.
    NotFound {
        /// What was asked for.
        what: &'static str,
    },
    /// Somebody is uploading this unit now.
    UploadBusy,
    /// An upload does not begin where the stored bytes end.
    UploadOffset {
        /// Where it begins.
        offset: u64,
        /// Where it has to.
        stored: u64,
    },
    /// An upload brought more bytes than it announced.
    UploadTooLong,
    /// Too many models are being uploaded at once.
    TooManyUploads,
    /// More units of one model were uploaded than a model has.
    TooManyUnits,
    /// Not every unit of the manifest was uploaded.
    UnitsMissing {
        /// How many are missing.
        missing: usize,
        /// The first of them.
        first: u32,
    },
    /// Two units of a manifest have one digest: no sealed model has that.
    UnitRepeated {
        /// The second of them.
        unit: u32,
    },
    /// A range does not lie inside its unit.
    Range {
        /// The unit.
        unit: u32,
        /// Its sealed length.
        bytes: u64,
    },
}

impl StoreError {
    /// Attaches the path to an error of the system, and tells a full disk apart.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { path, source },
        }
    }

    /// Stable name of the reason.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::DiskFull { .. } => "disk-full",
            Self::UploadsFull { .. } => "uploads-full",
            Self::Io { .. } => "disk-error",
            Self::DataDirInUse => "data-dir-in-use",
            Self::Unreachable { .. } => "store-unreachable",
            Self::Refused { .. } => "store-refused",
            Self::Bucket(error) => error.code(),
            Self::Postgres(error) => error.code(),
            Self::NotDurable { .. } => "store-not-durable",
            Self::SchemaNewer { .. } => "store-schema-newer",
            Self::UnitsElsewhere { .. } => "units-elsewhere",
            Self::NoConditions => "store-no-conditions",
            Self::LogConflict { .. } => "log-conflict",
            Self::CheckpointConflict { .. } => "checkpoint-conflict",
            Self::LogGap { .. } => "log-gap",
            Self::UnderCheckpoint { .. } => "log-under-checkpoint",
            Self::EntrySize { .. } => "log-entry-size",
            Self::CallTooLarge => "store-call-too-large",
            Self::Damaged { .. } => "store-damaged",
            Self::LogStopped => "log-stopped",
            Self::CheckpointForm => "checkpoint-form",
            Self::CheckpointSize { .. } => "checkpoint-size",
            Self::CheckpointRoot => "checkpoint-root",
            Self::DigestMismatch => "digest-mismatch",
            Self::BlobSize { .. } => "blob-size",
            Self::NotFound { .. } => "not-found",
            Self::UploadBusy => "upload-busy",
            Self::UploadOffset { .. } => "upload-offset",
            Self::UploadTooLong => "upload-too-long",
            Self::TooManyUploads => "too-many-uploads",
            Self::TooManyUnits => "too-many-units",
            Self::UnitsMissing { .. } => "units-missing",
            Self::UnitRepeated { .. } => "unit-repeated",
            Self::Range { .. } => "unit-range",
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskFull { path } => {
                write!(f, "no space left for {}: free some, then try again; nothing stored was lost", path.display())
            }
            Self::UploadsFull { dir } => write!(
                f,
                "no space left for uploads in {}, which leave `keep_free_mib` free for the log: free some, then try again; \
                 nothing stored was lost",
                dir.display()
            ),
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::DataDirInUse => f.write_str("another process has this data directory open: stop it first"),
            Self::Unreachable { name, reason } => {
                write!(f, "{name}: {reason}: see that the address is right and the server runs and can be reached, then try again")
            }
            Self::Refused { name, reason } => {
                write!(f, "{name}: {reason}: see that names and credentials are right, and that they may read, write, list and delete")
            }
            Self::Bucket(error) => error.fmt(f),
            Self::Postgres(error) => error.fmt(f),
            Self::NotDurable { setting } => write!(
                f,
                "the database has {setting} = off, so that what it acknowledged is lost when its machine stops: set it to \
                 on, for the server or for this role"
            ),
            Self::SchemaNewer { found, known } => write!(
                f,
                "the database has tables of version {found}, and this program knows {known}: take the version of the other \
                 hosts"
            ),
            Self::UnitsElsewhere { claimed: true } => {
                f.write_str("the place that units names has the units of another database: give each its own")
            }
            Self::UnitsElsewhere { claimed: false } => f.write_str(
                "the place that units names is not the one where the models of this database are: see that it is mounted, \
                 or bring its file store-id back",
            ),
            Self::NoConditions => f.write_str(
                "this store ignores If-Match or If-None-Match on writes, so two hosts could write over each other: take \
                 one that keeps them",
            ),
            Self::LogConflict { first } => write!(
                f,
                "another host wrote entries at index {first} meanwhile; nothing was overwritten: the keeper reads the \
                 log again, then tries again"
            ),
            Self::CheckpointConflict { size } => write!(
                f,
                "another host published a checkpoint beside this one of size {size}; nothing was overwritten: the \
                 keeper reads the log again, then tries again"
            ),
            Self::LogGap { first, size } => write!(f, "entries for index {first}, but the log ends at {size}"),
            Self::UnderCheckpoint { first, committed } => {
                write!(f, "entries for index {first}, but {committed} are under a checkpoint")
            }
            Self::EntrySize { bytes } => write!(f, "an entry of {bytes} bytes, not 1 to 16384"),
            Self::CallTooLarge => f.write_str("more entries or bytes than one call may carry"),
            Self::Damaged { path, what } => {
                write!(f, "{}: {what}: bring this file back from a copy", path.display())
            }
            Self::LogStopped => f.write_str("an earlier write could not be undone: start the host again"),
            Self::CheckpointForm => f.write_str("not a checkpoint"),
            Self::CheckpointSize { size, committed, stored } => {
                write!(f, "a checkpoint of size {size}, after one of {committed}, with {stored} entries stored")
            }
            Self::CheckpointRoot => f.write_str("the checkpoint's root is not that of the stored entries"),
            Self::DigestMismatch => f.write_str("the bytes do not have the digest that names them"),
            Self::BlobSize { bytes } => write!(f, "a blob of {bytes} bytes, more than 8 MiB"),
            Self::NotFound { what } => write!(f, "no such {what}"),
            Self::UploadBusy => f.write_str("this unit is being uploaded by somebody else: try again later"),
            Self::UploadOffset { offset, stored } => {
                write!(f, "the upload begins at {offset}, but {stored} bytes are stored: ask GetUpload, go on there")
            }
            Self::UploadTooLong => f.write_str("more bytes came than the unit has"),
            Self::TooManyUploads => f.write_str("too many models are being uploaded: publish or wait"),
            Self::TooManyUnits => f.write_str("more units of this model were uploaded than a model has"),
            Self::UnitsMissing { missing, first } => {
                write!(f, "{missing} units are not uploaded yet, the first is unit {first}")
            }
            Self::UnitRepeated { unit } => write!(f, "unit {unit} has the digest of an earlier unit"),
            Self::Range { unit, bytes } => write!(f, "a range that is not inside unit {unit} of {bytes} bytes"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
