//! From a directory and a TPM to a run: made once, in the ceremony, and resumed at every start.

use std::sync::Arc;

use attestation::UnixTime;
use ledger::genesis::{Core, GenesisError, SealTo};
use ring::rand::{SecureRandom, SystemRandom};

use super::clock;
use super::hardware::{self, Devices, Hardware};
use super::joiner;
use super::recovery;
use super::refusal::Refusal;
use super::snapshots::{self, Snapshots};
use super::vault::{Outbox, Records, Run};
use crate::derive::{self, KeeperContext};
use crate::head::{Anchor, AnchorError};
use crate::keeper_dir::{KeeperDir, KeeperDirError};
use crate::record::open_epoch_secrets;
use crate::root::{self, EpochRecord, KeeperRoot, RootError, RootRecords, Seal};
use crate::secret::{CounterAuth, Root};
use crate::vault_keys::{VaultKeys, VaultKeysError};

/// File of the core in the keeper's directory.
pub(super) const CORE_FILE: &str = "core";

/// Why a keeper does not start.
#[derive(Debug)]
pub enum StartError {
    /// The root could not be had.
    Root(RootError),
    /// Head or counter.
    Anchor(AnchorError),
    /// The chip derived a key, but not the one that the head was written under.
    OtherGuest,
    /// The directory.
    Dir(KeeperDirError),
    /// The TPM.
    Tpm(Refusal),
    /// The keys could not be derived.
    Keys(VaultKeysError),
    /// There is a root, but no core beside it.
    CoreMissing,
    /// The core is not the one in the head.
    CoreChanged,
    /// The core can't be read.
    Core(GenesisError),
    /// It asks to take over a vault, and has no keys of it yet.
    Joining,
    /// The keys of the vault that it took over can't be read.
    VaultKeysDamaged,
    /// The secrets of the epoch, beside the root, can't be read.
    EpochDamaged,
}

impl StartError {
    /// Stable name of the refusal.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Root(error) => error.code(),
            Self::Anchor(error) => error.code(),
            Self::OtherGuest => "root-other-guest",
            Self::Dir(error) => error.code(),
            Self::Tpm(error) => error.code(),
            Self::Keys(error) => error.code(),
            Self::CoreMissing => "core-missing",
            Self::CoreChanged => "core-changed",
            Self::Core(error) => error.code(),
            Self::Joining => "keeper-joining",
            Self::VaultKeysDamaged => "vault-keys-damaged",
            Self::EpochDamaged => "epoch-secrets-damaged",
        }
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root(error) => error.fmt(f),
            Self::Anchor(error) => error.fmt(f),
            Self::OtherGuest => f.write_str(
                "the chip derives another key here than the one that the root was made with: start the keeper on the chip, \
                 with the guest image, guest policy and VMPL of its ceremony. If these are the same, the head is damaged: \
                 restore it from a copy",
            ),
            Self::Dir(error) => error.fmt(f),
            Self::Tpm(error) => error.fmt(f),
            Self::Keys(error) => error.fmt(f),
            Self::CoreMissing => f.write_str(
                "the keeper's directory has a root but no core: its ceremony was cut short. Clear the directory to begin again",
            ),
            Self::CoreChanged => f.write_str("the core in the keeper's directory is not the one that it was given"),
            Self::Core(error) => write!(f, "the core in the keeper's directory: {error}"),
            Self::Joining => f.write_str(
                "this keeper asks to take over a vault and has no keys of it yet: go on with `vault-enclave keeper-join`, or with \
                 `--recover` where that vault's keeper is lost",
            ),
            Self::EpochDamaged => f.write_str(
                "the secrets of the key epoch in `root.json` are damaged: restore the file from a copy, it is sealed to this machine",
            ),
            Self::VaultKeysDamaged => f.write_str(
                "the keys of the vault in the keeper's directory are missing or damaged: restore `vault-keys` from a copy, it is \
                 sealed to this machine",
            ),
        }
    }
}

impl std::error::Error for StartError {}

/// Makes root, AK, counter and instance under a core, once.
///
/// # Errors
/// The core's own, a TPM that the core's policy does not allow, or what TPM and disk say.
pub(super) fn begin(dir: &Arc<KeeperDir>, devices: &Devices, core_bytes: &[u8]) -> Result<Run, Refusal> {
    let core = Core::parse(core_bytes).map_err(|error| Refusal::malformed(error.code(), error))?;
    let rng = SystemRandom::new();
    let tpm = &devices.tpm;
    let pcrs = core.policy().keeper().tpm().pcrs.selection();
    // Hardware that the policy does not allow gets no root: the next core begins from nothing.
    hardware::check(devices, &tpm.ek_certificates().wait()?, core.policy(), clock::wall(UnixTime(0)))?;
    let seal = match core.seal_to() {
        SealTo::Tpm => Seal::Tpm(tpm),
        SealTo::SnpTpm => Seal::SnpTpm(tpm, devices.chip()?),
    };
    let root = root::create(dir, seal, pcrs, &rng).map_err(|error| Refusal::unavailable(error.code(), error))?;
    let hardware = Hardware::new(devices.clone(), root.ak.clone(), core.policy().keeper())?;
    let records = records(dir, &root).map_err(|error| Refusal::unavailable(error.code(), error))?;
    let mut instance = [0; 32];
    rng.fill(&mut instance).map_err(|_| Refusal::unavailable("random", "the system gave no random bytes"))?;
    let context = KeeperContext { instance, core: core.digest() };
    let keys = VaultKeys::derive(&root.root, &context)?;
    dir.replace(CORE_FILE, core_bytes).map_err(|error| Refusal::unavailable(error.code(), error))?;
    let anchor = Anchor::create(Arc::clone(dir), tpm.clone(), &root.root, core.anti_rollback(), Some(context))
        .map_err(|error| Refusal::unavailable(error.code(), error))?;
    let snapshots = snapshots(dir, &root.root, &core)?;
    let (outbox, recovery) = (Outbox::new(Arc::clone(dir)), None);
    Ok(Run { core, keys, instance, joined: false, hardware, anchor, records, snapshots, outbox, recovery })
}

fn snapshots(dir: &Arc<KeeperDir>, root: &Root, core: &Core) -> Result<Snapshots, VaultKeysError> {
    Ok(Snapshots::new(Arc::clone(dir), derive::snapshot_key(root)?, core.anti_rollback()))
}

fn records(dir: &Arc<KeeperDir>, root: &KeeperRoot) -> Result<Records, RootError> {
    RootRecords::new(Arc::clone(dir), root).map(Records::new)
}

/// Makes a keeper empty again whose ceremony came to nothing: a stranger gave it his core first, or the core had a mistake.
/// Its two NV indices go too, of which a TPM has few.
///
/// # Errors
/// `root-absent` where it is empty already; `head-not-empty` once a genesis was committed.
pub fn reset(dir: &KeeperDir, devices: &Devices) -> Result<(), StartError> {
    let root = root::open(dir, &devices.tpm, devices.snp.as_deref()).map_err(StartError::Root)?;
    Anchor::reset(dir, &devices.tpm, &root.root).map_err(StartError::Anchor)?;
    let joined = [joiner::KEYS_FILE, joiner::GENESIS_FILE, recovery::FILE];
    let files = [snapshots::FILE, Outbox::FILE, crate::head::FILE, CORE_FILE].into_iter().chain(joined);
    for file in files.chain([root::FILE]) {
        dir.remove(file).map_err(StartError::Dir)?;
    }
    Ok(())
}

/// What the directory holds; `None` where it is empty.
///
/// # Errors
/// [`StartError`].
pub(super) fn resume(dir: &Arc<KeeperDir>, devices: &Devices) -> Result<Option<Run>, StartError> {
    let tpm = &devices.tpm;
    let root = match root::open(dir, tpm, devices.snp.as_deref()) {
        Ok(root) => root,
        Err(RootError::Absent) => return Ok(None),
        Err(error) => return Err(StartError::Root(error)),
    };
    let (epoch_keys, auth) = match epoch_secrets(&root)? {
        Some((keys, auth)) => (Some(keys), auth),
        None => (None, derive::counter_auth(&root.root).map_err(|error| StartError::Keys(error.into()))?),
    };
    let anchor = Anchor::open_with(Arc::clone(dir), tpm.clone(), &root.root, auth)
        .map_err(|error| start_error(error, root.seal_to))?;
    let context = anchor.context().ok_or(StartError::CoreMissing)?;
    let genesis = dir.read(joiner::GENESIS_FILE).map_err(StartError::Dir)?;
    let joined = genesis.is_some();
    let core = match &genesis {
        Some(genesis) => joiner::core(&context, (genesis, anchor.size()))?,
        None => founded(dir, &context)?,
    };
    let keys = match (epoch_keys, joined) {
        (Some(keys), _) => keys,
        (None, true) => joiner::keys(dir, &root.root, &context)?,
        (None, false) => VaultKeys::derive(&root.root, &context).map_err(StartError::Keys)?,
    };
    let records = records(dir, &root).map_err(StartError::Root)?;
    let snapshots = snapshots(dir, &root.root, &core).map_err(StartError::Keys)?;
    let hardware = Hardware::new(devices.clone(), root.ak, core.policy().keeper()).map_err(StartError::Tpm)?;
    let recovery = recovery::read(dir).map_err(StartError::Dir)?;
    let (instance, outbox) = (context.instance, Outbox::new(Arc::clone(dir)));
    Ok(Some(Run { core, keys, instance, joined, hardware, anchor, records, snapshots, outbox, recovery }))
}

/// The keys of the epoch that this root was made for, and what authorises the counter.
fn epoch_secrets(root: &KeeperRoot) -> Result<Option<(VaultKeys, CounterAuth)>, StartError> {
    let Some(EpochRecord { number, secrets }) = root.epoch() else { return Ok(None) };
    let secrets = open_epoch_secrets(&root.root, *number, secrets).map_err(|_| StartError::EpochDamaged)?;
    VaultKeys::from_epoch_secrets(&secrets).map(Some).map_err(StartError::Keys)
}

/// Core of the keeper that a vault began with.
fn founded(dir: &KeeperDir, context: &KeeperContext) -> Result<Core, StartError> {
    let core = dir.read(CORE_FILE).map_err(StartError::Dir)?.ok_or(StartError::CoreMissing)?;
    let core = Core::parse(&core).map_err(StartError::Core)?;
    if core.digest() != context.core {
        return Err(StartError::CoreChanged);
    }
    Ok(core)
}

/// A derived key is none that can be checked by itself: the first thing that does not open under another one is the head.
fn start_error(error: AnchorError, seal_to: SealTo) -> StartError {
    match (error, seal_to) {
        (AnchorError::HeadDamaged, SealTo::SnpTpm) => StartError::OtherGuest,
        (error, SealTo::Tpm | SealTo::SnpTpm) => StartError::Anchor(error),
    }
}
