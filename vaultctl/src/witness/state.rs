//! What a witness has cosigned, durable before it signs.
//!
//! `DIR/SHA-256(origin) in hex.checkpoint` is the newest checkpoint of a log, as the log signed it; `DIR/lock` is held by the
//! process that serves. A file is replaced whole: written beside, flushed, renamed, and the directory flushed.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use attestation::{Sha256Digest, UnixTime};
use ledger::checkpoint::Checkpoint;
use ledger::cosignature::CosignatureError;
use ledger::note::VerifierKey;
use ledger::witness::{AddCheckpoint, AddCheckpointError, REQUEST_BYTES_MAX, Step, recorded, step};

use super::SigningKey;
use crate::failure::{Failure, Kind};
use crate::session::read_text;

/// Key, logs, and what was cosigned of each.
pub struct State {
    key: SigningKey,
    logs: BTreeMap<String, Log>,
    directory: PathBuf,
    /// Closing it lets another process serve.
    _lock: File,
}

/// Why a checkpoint was not cosigned.
#[derive(Debug)]
pub enum AddFailure {
    /// The request.
    Refused(AddCheckpointError),
    /// The checkpoint could not be made durable: nothing was signed.
    Disk(io::Error),
    /// The clock has a time that no cosignature has.
    Clock(CosignatureError),
}

struct Log {
    key: VerifierKey,
    file: PathBuf,
    /// Held from the comparison until the signature: no two steps start at one checkpoint.
    newest: Mutex<Newest>,
}

#[derive(Default)]
struct Newest {
    checkpoint: Option<Checkpoint>,
    /// With the cosignature, for whoever monitors the log.
    cosigned: Option<String>,
}

/// A step that is on the disk.
struct Durable(Step);

impl State {
    /// Reads the state of these logs, and locks it.
    ///
    /// # Errors
    /// `witness-state-locked`, `witness-state-damaged`, `witness-log-repeated`, or the files.
    pub fn open(directory: &Path, key: SigningKey, logs: Vec<VerifierKey>) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::file("use", directory, &error);
        std::fs::create_dir_all(directory).map_err(failed)?;
        let lock = File::options().create(true).truncate(false).write(true).open(directory.join("lock"));
        let lock = lock.map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                Failure::new(Kind::Failed, "witness-state-locked", format!("{} is in use", directory.display()))
                    .why("another witness serves with this state; two could cosign two logs")
            }
            TryLockError::Error(error) => failed(error),
        })?;
        let mut state = Self { key, logs: BTreeMap::new(), directory: directory.to_owned(), _lock: lock };
        for key in logs {
            let origin = key.name().to_owned();
            let log = state.read(key)?;
            if state.logs.insert(origin.clone(), log).is_some() {
                let what = format!("{origin} is given twice");
                return Err(Failure::new(Kind::Usage, "witness-log-repeated", what));
            }
        }
        Ok(state)
    }

    /// Cosigns the next checkpoint of a log: the signature line. Blocks for the disk.
    ///
    /// # Errors
    /// [`AddFailure`]; nothing was signed.
    pub fn add(&self, body: &str) -> Result<String, AddFailure> {
        let request = AddCheckpoint::parse(body).map_err(AddFailure::Refused)?;
        let origin = request.origin().map_err(AddFailure::Refused)?;
        let log = self.logs.get(origin).ok_or(AddFailure::Refused(AddCheckpointError::OriginUnknown))?;
        // After a panic what is on the disk is never behind what was signed: memory follows a step that is durable.
        let mut newest = log.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let step = step(&log.key, newest.checkpoint, request).map_err(AddFailure::Refused)?;
        let durable = self.store(&log.file, step).map_err(AddFailure::Disk)?;
        newest.checkpoint = Some(durable.0.checkpoint());
        let line = self.sign(&durable).map_err(AddFailure::Clock)?;
        newest.cosigned = Some(format!("{}{line}", durable.0.note()));
        Ok(line)
    }

    /// The newest checkpoint of the log whose origin has this SHA-256, in hex, with the cosignature.
    pub fn newest(&self, origin_hash: &str) -> Option<String> {
        let log = self.logs.values().find(|log| hash(log.key.name()) == origin_hash)?;
        log.newest.lock().unwrap_or_else(PoisonError::into_inner).cosigned.clone()
    }

    /// Written beside, flushed, renamed, and the directory flushed.
    fn store(&self, file: &Path, step: Step) -> io::Result<Durable> {
        let mut written = tempfile::NamedTempFile::new_in(&self.directory)?;
        written.write_all(step.note().as_bytes())?;
        written.as_file().sync_all()?;
        written.persist(file).map_err(|error| error.error)?;
        File::open(&self.directory)?.sync_all()?;
        Ok(Durable(step))
    }

    fn sign(&self, durable: &Durable) -> Result<String, CosignatureError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.key.line(durable.0.text(), UnixTime(now))
    }

    fn read(&self, key: VerifierKey) -> Result<Log, Failure> {
        let file = self.directory.join(format!("{}.checkpoint", hash(key.name())));
        let mut newest = Newest::default();
        if file.try_exists().map_err(|error| Failure::file("read", &file, &error))? {
            let damaged = |why: &dyn std::fmt::Display| {
                Failure::new(Kind::NotVerified, "witness-state-damaged", format!("{} can't be used", file.display()))
                    .why(why)
                    .next("restore the newest state. Where it is lost, make a new key: an older one may cosign a fork")
            };
            let note = read_text(&file, REQUEST_BYTES_MAX).map_err(|error| damaged(&error))?;
            let durable = Durable(recorded(&key, note).map_err(|error| damaged(&error))?);
            newest.checkpoint = Some(durable.0.checkpoint());
            // It may have ended before it signed; it is the newest all the same.
            let line = self.sign(&durable).map_err(|error| damaged(&error))?;
            newest.cosigned = Some(format!("{}{line}", durable.0.note()));
        }
        Ok(Log { key, file, newest: Mutex::new(newest) })
    }
}

/// How C2SP tlog-witness names a log in addresses.
fn hash(origin: &str) -> String {
    hex::encode(Sha256Digest::of(origin.as_bytes()).as_bytes())
}
