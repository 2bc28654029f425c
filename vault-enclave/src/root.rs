//! The root of a keeper's keys: a secret that its TPM seals to its boot state and, where the keeper proves its chip, a key
//! that the chip derives for this guest alone.
//!
//! [`create`] makes it, once; [`open`] gets it back at every start, and tells apart why it can't: this machine booted
//! something else, it is another TPM, or the file is damaged. [`RootRecords`] seals it to another boot state before the reboot
//! that brings it. There is no other way to it: where TPM or board is lost, so
//! is the vault, unless another keeper has it.

mod epoch;
mod record;
mod records;

use std::fmt;
use std::sync::Arc;

use attestation::PcrSelection;
use ledger::genesis::SealTo;
use ring::rand::SecureRandom;

use crate::chip::Chip;
use crate::container::OpenError;
use crate::derive::RootSource;
use crate::keeper_dir::{KeeperDir, KeeperDirError};
use crate::secret::{Root, SecretError, TpmSecret};
use crate::snp::{SealingError, SnpSealing};
use crate::tpm::{PcrValues, Tpm, TpmError, TpmName, TpmObject};
pub(crate) use record::EpochRecord;
use record::RootRecord;
pub use records::{Place, RootRecords};

/// What a keeper has after it opened its directory.
pub struct KeeperRoot {
    /// The root of its keys.
    pub root: Root,
    /// Its attestation key.
    pub ak: TpmObject,
    /// The PCR values that open it.
    pub pcrs: PcrValues,
    /// What it is sealed to.
    pub seal_to: SealTo,
    record: RootRecord,
    place: Place,
}

/// What a root is to be sealed to.
#[derive(Clone, Copy)]
pub enum Seal<'a> {
    /// This TPM.
    Tpm(&'a Tpm),
    /// Both: neither of them gives the root.
    SnpTpm(&'a Tpm, &'a Chip),
}

/// Makes a root and an attestation key, and stores them. It opens while `pcrs` have their present values, and on SNP while
/// this image runs on this chip.
///
/// # Errors
/// [`RootError::Exists`] where the directory has a root or a head; otherwise what TPM or disk say.
pub fn create(
    dir: &KeeperDir,
    seal: Seal<'_>,
    pcrs: PcrSelection,
    rng: &dyn SecureRandom,
) -> Result<KeeperRoot, RootError> {
    for file in [FILE, NEXT_FILE, EPOCH_FILE, crate::head::FILE] {
        if dir.read(file)?.is_some() {
            return Err(RootError::Exists);
        }
    }
    let (tpm, chip) = match seal {
        Seal::Tpm(tpm) => (tpm, None),
        Seal::SnpTpm(tpm, chip) => (tpm, Some(chip)),
    };
    let snp = match chip {
        Some(chip) => Some(chip.new_sealing(rng)?),
        None => None,
    };
    let srk_name = tpm.srk_name().wait()?;
    let secret = Arc::new(TpmSecret::generate(rng)?);
    let sealed = tpm.seal(Arc::clone(&secret), pcrs).wait()?;
    let ak = tpm.create_ak().wait()?;
    let root = root_of(&secret, snp.as_ref(), chip)?;
    let record = RootRecord { srk_name, sealed, ak, snp, epoch: None };
    dir.replace(FILE, &record.encode())?;
    Ok(KeeperRoot::of(root, record, Place::Present))
}

/// Opens the root that [`create`] made, by the record that the present boot state opens.
///
/// # Errors
/// [`RootError`]: each reason is its own.
pub fn open(dir: &KeeperDir, tpm: &Tpm, chip: Option<&Chip>) -> Result<KeeperRoot, RootError> {
    let mut changed = None;
    for place in [Place::Present, Place::Next] {
        let Some(bytes) = dir.read(place.file())? else { continue };
        let record = RootRecord::parse(&bytes).ok_or(RootError::Damaged(place))?;
        expect_tpm(tpm, record.srk_name)?;
        match (unseal(tpm, &record, place), changed.take()) {
            (Ok(secret), _) => {
                let root = root_of(&secret, record.snp.as_ref(), chip)?;
                return Ok(KeeperRoot::of(root, record, place));
            }
            (Err(RootError::PcrsChanged { present, .. }), None) => changed = Some(present),
            (Err(RootError::PcrsChanged { present: next, .. }), Some(present)) => {
                return Err(RootError::PcrsChanged { present, next: Some(next) });
            }
            (Err(error), _) => return Err(error),
        }
    }
    Err(changed.map_or(RootError::Absent, |present| RootError::PcrsChanged { present, next: None }))
}

impl KeeperRoot {
    /// The secrets of the epoch that it was made for.
    pub(crate) fn epoch(&self) -> Option<&EpochRecord> {
        self.record.epoch.as_ref()
    }

    fn of(root: Root, record: RootRecord, place: Place) -> Self {
        Self { root, ak: record.ak.clone(), pcrs: record.sealed.pcrs.clone(), seal_to: record.seal_to(), record, place }
    }
}

/// ROOT from its sources. Another chip or image derives another key, so another ROOT: the head, which then does not open,
/// says so.
fn root_of(secret: &TpmSecret, snp: Option<&SnpSealing>, chip: Option<&Chip>) -> Result<Root, RootError> {
    let Some(sealing) = snp else { return Ok(RootSource::Tpm(secret).root()?) };
    let derived = sealing.derive(chip.ok_or(RootError::ChipMissing)?.device())?;
    Ok(RootSource::SnpAndTpm(&derived, sealing.salt(), secret).root()?)
}

/// The name in the file is not secret and proves nothing: it tells another TPM from a damaged file. The head, which
/// only this root opens, has it too.
fn expect_tpm(tpm: &Tpm, srk_name: TpmName) -> Result<(), RootError> {
    match tpm.srk_name().wait()? == srk_name {
        true => Ok(()),
        false => Err(RootError::OtherTpm),
    }
}

fn unseal(tpm: &Tpm, record: &RootRecord, place: Place) -> Result<TpmSecret, RootError> {
    tpm.unseal(&record.sealed).wait().map_err(|error| match error {
        TpmError::PcrsChanged(present) => RootError::PcrsChanged { present, next: None },
        TpmError::ObjectRefused | TpmError::ObjectMalformed => RootError::Damaged(place),
        other => RootError::Tpm(other),
    })
}

/// Its file in the keeper's directory.
pub(crate) const FILE: &str = "root.json";
/// The file of the keys that a keeper which joined was handed.
pub(crate) const HANDED_OVER_FILE: &str = "vault-keys";
/// The file of the root of the epoch to come.
pub(crate) const EPOCH_FILE: &str = "root.epoch.json";
/// The file of the boot state to come.
pub(crate) const NEXT_FILE: &str = "root.next.json";

/// Why a keeper has no root.
#[derive(Debug)]
pub enum RootError {
    /// The directory has none.
    Absent,
    /// The directory has one already, or the head of one.
    Exists,
    /// This machine booted something else.
    PcrsChanged {
        /// These PCRs differ from the boot state of before.
        present: Vec<u32>,
        /// And these from the one to come, where the root is sealed to one.
        next: Option<Vec<u32>>,
    },
    /// It was sealed by another TPM, or by this one before its owner was cleared.
    OtherTpm,
    /// A file is not what was stored.
    Damaged(Place),
    /// The TPM.
    Tpm(TpmError),
    /// The disk.
    Dir(KeeperDirError),
    /// It is sealed to a chip too, and this keeper was started without an SNP device.
    ChipMissing,
    /// The secrets of an epoch could not be sealed.
    Epoch(OpenError),
    /// The chip derives no such key.
    Chip(SealingError),
    /// Memory for secrets, or randomness.
    Secret(SecretError),
}

impl RootError {
    /// Stable name of the refusal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Absent => "root-absent",
            Self::Exists => "root-exists",
            Self::PcrsChanged { .. } => "root-pcrs-changed",
            Self::OtherTpm => "root-other-tpm",
            Self::Damaged(_) => "root-damaged",
            Self::Tpm(error) => error.code(),
            Self::Dir(error) => error.code(),
            Self::ChipMissing => "root-chip-missing",
            Self::Epoch(error) => error.code(),
            Self::Chip(error) => error.code(),
            Self::Secret(error) => error.code(),
        }
    }
}

impl fmt::Display for RootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(f, "the keeper's directory holds no root: it has not been given a core yet"),
            Self::Exists => write!(f, "the keeper's directory already holds a root or a head"),
            Self::PcrsChanged { present, next: None } => write!(
                f,
                "the root is sealed to another boot state than this one: PCRs {present:?} differ; boot what was booted then. \
                 To move it, approve `vaultctl propose reseal` there first"
            ),
            Self::PcrsChanged { present, next: Some(next) } => write!(
                f,
                "the root is sealed to two boot states, and this is neither: PCRs {present:?} differ from the one of before, \
                 PCRs {next:?} from the approved one; boot one of them"
            ),
            Self::OtherTpm => {
                write!(f, "the root was sealed by another TPM, or by this one before it was cleared: it is lost here")
            }
            Self::Damaged(Place::Present) => {
                write!(f, "{FILE} is damaged: restore it from a copy, it is not secret")
            }
            Self::Damaged(Place::Next) => write!(
                f,
                "{NEXT_FILE} is damaged: restore it from a copy, or remove it and boot what was booted before: the keeper \
                 makes it again there"
            ),
            Self::Tpm(error) => error.fmt(f),
            Self::Dir(error) => error.fmt(f),
            Self::ChipMissing => write!(
                f,
                "the root is sealed to an SNP chip too: start the keeper on its guest, with --snp; `vault-enclave doctor` shows what there is"
            ),
            Self::Epoch(error) => error.fmt(f),
            Self::Chip(error) => error.fmt(f),
            Self::Secret(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RootError {}

impl From<TpmError> for RootError {
    fn from(error: TpmError) -> Self {
        Self::Tpm(error)
    }
}

impl From<KeeperDirError> for RootError {
    fn from(error: KeeperDirError) -> Self {
        Self::Dir(error)
    }
}

impl From<SealingError> for RootError {
    fn from(error: SealingError) -> Self {
        Self::Chip(error)
    }
}

impl From<SecretError> for RootError {
    fn from(error: SecretError) -> Self {
        Self::Secret(error)
    }
}
