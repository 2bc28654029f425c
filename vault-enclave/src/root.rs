//! The root of a keeper's keys: a secret that its TPM seals to its boot state.
//!
//! [`create`] makes it, once; [`open`] gets it back at every start, and tells apart why it can't: this machine booted
//! something else, it is another TPM, or the file is damaged. There is no other way to it: where TPM or board is lost, so
//! is the vault, unless another keeper has it.

mod record;

use std::fmt;
use std::sync::Arc;

use attestation::PcrSelection;
use ring::rand::SecureRandom;

use crate::derive;
use crate::keeper_dir::{KeeperDir, KeeperDirError};
use crate::secret::{Root, SecretError, TpmSecret};
use crate::tpm::{PcrValues, SealedSecret, Tpm, TpmError, TpmName, TpmObject};
use record::RootRecord;

/// What a keeper has after it opened its directory.
pub struct KeeperRoot {
    /// The root of its keys.
    pub root: Root,
    /// Its attestation key.
    pub ak: TpmObject,
    /// The PCR values that open it.
    pub pcrs: PcrValues,
}

/// What a root is sealed to, as text of the core.
pub const SEAL_TO_TPM: &str = "tpm";

/// Makes a root and an attestation key, and stores them. It opens while `pcrs` have their present values.
///
/// # Errors
/// [`RootError::Exists`] where the directory has a root or a head; otherwise what TPM or disk say.
pub fn create(dir: &KeeperDir, tpm: &Tpm, pcrs: PcrSelection, rng: &dyn SecureRandom) -> Result<KeeperRoot, RootError> {
    if dir.read(FILE)?.is_some() || dir.read(crate::head::FILE)?.is_some() {
        return Err(RootError::Exists);
    }
    let srk_name = tpm.srk_name().wait()?;
    let secret = Arc::new(TpmSecret::generate(rng)?);
    let sealed = tpm.seal(Arc::clone(&secret), pcrs).wait()?;
    let ak = tpm.create_ak().wait()?;
    let root = derive::root(&secret, SEAL_TO_TPM)?;
    let pcrs = sealed.pcrs.clone();
    dir.replace(FILE, &RootRecord { srk_name, sealed, ak: ak.clone() }.encode())?;
    Ok(KeeperRoot { root, ak, pcrs })
}

/// Opens the root that [`create`] made.
///
/// # Errors
/// [`RootError`]: each reason is its own.
pub fn open(dir: &KeeperDir, tpm: &Tpm) -> Result<KeeperRoot, RootError> {
    let bytes = dir.read(FILE)?.ok_or(RootError::Absent)?;
    let RootRecord { srk_name, sealed, ak } = RootRecord::parse(&bytes).ok_or(RootError::Damaged)?;
    expect_tpm(tpm, srk_name)?;
    let secret = unseal(tpm, &sealed)?;
    let root = derive::root(&secret, SEAL_TO_TPM)?;
    Ok(KeeperRoot { root, ak, pcrs: sealed.pcrs })
}

/// The name in the file is not secret and proves nothing: it tells another TPM from a damaged file. The head, which
/// only this root opens, has it too.
fn expect_tpm(tpm: &Tpm, srk_name: TpmName) -> Result<(), RootError> {
    match tpm.srk_name().wait()? == srk_name {
        true => Ok(()),
        false => Err(RootError::OtherTpm),
    }
}

fn unseal(tpm: &Tpm, sealed: &SealedSecret) -> Result<TpmSecret, RootError> {
    tpm.unseal(sealed).wait().map_err(|error| match error {
        TpmError::PcrsChanged(pcrs) => RootError::PcrsChanged(pcrs),
        TpmError::ObjectRefused | TpmError::ObjectMalformed => RootError::Damaged,
        other => RootError::Tpm(other),
    })
}

/// Its file in the keeper's directory.
pub(crate) const FILE: &str = "root.json";

/// Why a keeper has no root.
#[derive(Debug)]
pub enum RootError {
    /// The directory has none.
    Absent,
    /// The directory has one already, or the head of one.
    Exists,
    /// This machine booted something else: these PCRs differ.
    PcrsChanged(Vec<u32>),
    /// It was sealed by another TPM, or by this one before its owner was cleared.
    OtherTpm,
    /// The file is not what was stored.
    Damaged,
    /// The TPM.
    Tpm(TpmError),
    /// The disk.
    Dir(KeeperDirError),
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
            Self::PcrsChanged(_) => "root-pcrs-changed",
            Self::OtherTpm => "root-other-tpm",
            Self::Damaged => "root-damaged",
            Self::Tpm(error) => error.code(),
            Self::Dir(error) => error.code(),
            Self::Secret(error) => error.code(),
        }
    }
}

impl fmt::Display for RootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(f, "the keeper's directory holds no root: it has not been given a core yet"),
            Self::Exists => write!(f, "the keeper's directory already holds a root or a head"),
            Self::PcrsChanged(pcrs) => write!(
                f,
                "the root is sealed to another boot state than this one: PCRs {pcrs:?} differ; boot what was booted then"
            ),
            Self::OtherTpm => {
                write!(f, "the root was sealed by another TPM, or by this one before it was cleared: it is lost here")
            }
            Self::Damaged => write!(f, "{FILE} is damaged: restore it from a copy, it is not secret"),
            Self::Tpm(error) => error.fmt(f),
            Self::Dir(error) => error.fmt(f),
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

impl From<SecretError> for RootError {
    fn from(error: SecretError) -> Self {
        Self::Secret(error)
    }
}
