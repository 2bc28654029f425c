//! A keeper that asks to take over a vault: what it makes of its own, how it answers, and how it takes the keys.
//!
//! It makes its root, its attestation key and, where the vault counts, its counter as a founder does, under the vault's
//! genesis in the place of a core. Until it has the keys its head is of size 0 and its counter stands where its evidence says;
//! the head of the hand-over counts one more. So an older copy of its directory can't take the keys a second time, whoever
//! hands them over. Under witnesses it may, until it has started once: they see to it that no copy writes beside another.

use std::fmt;
use std::sync::Arc;

use attestation::{Binding, Credential, JoinChallenge, JoinerKeys, Sha256Digest, TpmIdentity, TpmPart, Transcript};
use ledger::escrow::LogPoint;
use ledger::genesis::{Core, Genesis, SealTo};
use ledger::keepers::NO_COUNTER;
use ledger::key_epoch::EpochKeys;
use ledger::vault_file::VaultFile;
use ring::rand::{SecureRandom, SystemRandom};
use vault_proto::convert::{self, EvidenceSet, HandOver, JoinRequest};

use super::hardware::{Devices, Hardware};
use super::recovery;
use super::refusal::Refusal;
use super::start::StartError;
use crate::container::OpenError;
use crate::derive::KeeperContext;
use crate::hand_over::{HandOverError, HandOverInfo, unwrap_vault_keys};
use crate::head::{Anchor, AnchorError};
use crate::keeper_dir::{KeeperDir, KeeperDirError};
use crate::record::{open_vault_keys, seal_vault_keys};
use crate::root::{self, RootError, Seal};
use crate::secret::{Root, Secret, SecretError, VaultSecrets};
use crate::vault_keys::{VaultKeys, VaultKeysError};
use crate::wrap::{HpkeKeyPair, WrapError, WrappedKeys};

/// File of the genesis of the vault that a keeper joins, in its directory.
pub(super) const GENESIS_FILE: &str = "genesis";
/// File of the vault's keys, sealed under the root.
pub(super) const KEYS_FILE: &str = root::HANDED_OVER_FILE;

/// A keeper that has no vault yet.
pub struct Joining {
    dir: Arc<KeeperDir>,
    hardware: Hardware,
    root: Root,
    anchor: Anchor,
    genesis: Genesis,
    vault_keys: EpochKeys,
    context: KeeperContext,
    pair: HpkeKeyPair,
    keys: JoinerKeys,
}

/// One run of the protocol, which the keeper that runs has the other half of. One use: not `Clone`.
pub struct JoinRun {
    session: [u8; 16],
    nonce: [u8; 32],
    policy: Sha256Digest,
    evidence: Sha256Digest,
}

impl Joining {
    /// Makes what a keeper needs, or goes on with it.
    ///
    /// # Errors
    /// [`JoiningError`].
    pub fn open(dir: KeeperDir, devices: &Devices, vault: &VaultFile) -> Result<Self, JoiningError> {
        Self::open_in(Arc::new(dir), devices, vault)
    }

    pub(super) fn open_in(dir: Arc<KeeperDir>, devices: &Devices, vault: &VaultFile) -> Result<Self, JoiningError> {
        let genesis = vault.genesis();
        let opened = match root::open(&dir, &devices.tpm, devices.snp.as_deref()) {
            Ok(root) => {
                let anchor = Anchor::open(Arc::clone(&dir), devices.tpm.clone(), &root.root)?;
                (root, anchor)
            }
            Err(RootError::Absent) => make(&dir, devices, genesis)?,
            Err(error) => return Err(error.into()),
        };
        Self::of(dir, devices, vault, opened)
    }

    fn of(
        dir: Arc<KeeperDir>,
        devices: &Devices,
        vault: &VaultFile,
        (root, anchor): (root::KeeperRoot, Anchor),
    ) -> Result<Self, JoiningError> {
        let (genesis, vault_keys) = (vault.genesis(), vault.keys().clone());
        let context = anchor.context().ok_or(JoiningError::OtherUse)?;
        if context.core != genesis.vault_id() {
            return Err(JoiningError::OtherUse);
        }
        if anchor.size() != 0 {
            return Err(JoiningError::Joined);
        }
        // Only a vault that counts has counters.
        let (counter_name, counter) =
            anchor.counter().map_or((NO_COUNTER, 0), |(counter, count)| (*counter.name.as_bytes(), count));
        let ikm = Secret::<64>::init_with(|ikm| {
            context.expand_key(&root.root, "join", ikm);
            Ok::<_, SecretError>(())
        })?;
        let pair = ikm.with_bytes(|ikm| HpkeKeyPair::derive(ikm))?;
        let keys =
            JoinerKeys { instance: context.instance, hpke_key: pair.public_key().clone(), counter_name, counter };
        let hardware = Hardware::new(devices.clone(), root.ak, genesis.policy().keeper())?;
        Ok(Self { dir, hardware, root: root.root, anchor, genesis: genesis.clone(), vault_keys, context, pair, keys })
    }

    /// The vault is in this epoch: its keys are to be handed over.
    pub fn expect_keys(&mut self, keys: &EpochKeys) {
        if keys.epoch > self.vault_keys.epoch {
            self.vault_keys = keys.clone();
        }
    }

    /// The same with a wrap key that nothing brings back: what is wrapped to it is gone when this is.
    pub(super) fn with_passing_key(mut self) -> Result<Self, JoiningError> {
        self.pair = HpkeKeyPair::generate(&SystemRandom::new())?;
        self.keys.hpke_key = self.pair.public_key().clone();
        Ok(self)
    }

    pub(super) fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    pub(super) fn pair(&self) -> &HpkeKeyPair {
        &self.pair
    }

    /// Evidence over the binding that `bind` makes.
    pub(super) fn evidence<S: Transcript>(
        &self,
        credential: &Credential,
        bind: impl FnOnce(TpmPart) -> Binding<S>,
    ) -> Result<EvidenceSet, Refusal> {
        let pcrs = self.genesis.policy().keeper().tpm().pcrs.selection();
        self.hardware.evidence(credential, pcrs, bind)
    }

    /// Keeps a vault's keys that custodians gave, with what is to follow in the log at `from`, and counts a head there. Cut
    /// short before the head, nothing has happened; after it, the next start goes on.
    pub(super) fn keep(&mut self, secrets: &VaultSecrets, act: &[u8], from: LogPoint) -> Result<(), JoiningError> {
        let record = seal_vault_keys(&self.root, &self.context, secrets, &SystemRandom::new())?;
        self.dir.replace(KEYS_FILE, &record)?;
        self.dir.replace(recovery::FILE, act)?;
        self.anchor.commit(from.size, *from.root.as_bytes())?;
        Ok(())
    }

    /// For the challenge.
    #[must_use]
    pub fn identity(&self) -> &TpmIdentity {
        &self.hardware.identity
    }

    /// What its evidence states.
    #[must_use]
    pub fn keys(&self) -> &JoinerKeys {
        &self.keys
    }

    /// Name of its attestation key, 34 bytes.
    #[must_use]
    pub fn ak_name(&self) -> &[u8; 34] {
        self.hardware.ak_name.as_bytes()
    }

    /// Evidence over this challenge, which is refused where it is of another vault.
    ///
    /// # Errors
    /// [`JoiningError::OtherVault`]; what TPM and chip say.
    pub fn answer(&self, challenge: convert::JoinChallenge) -> Result<(JoinRequest, JoinRun), JoiningError> {
        let convert::JoinChallenge { session, nonce, credential, vault_id, policy, .. } = challenge;
        let vault = self.genesis.vault_id();
        if vault_id != vault {
            return Err(JoiningError::OtherVault { found: vault_id });
        }
        let bind = |tpm: TpmPart| JoinChallenge { session, nonce, vault, policy, tpm }.bind(self.keys.clone());
        let evidence = self.evidence(&credential, bind)?;
        let run = JoinRun { session, nonce, policy, evidence: Sha256Digest::of(&evidence.blob()) };
        Ok((JoinRequest { session, joiner: self.keys.clone(), evidence }, run))
    }

    /// Takes the vault: checks who hands over and that these are the vault's keys, seals them, and counts the head of the
    /// log that the keeper before ended with. Cut short before the head, it is done again with a new run; after it, the
    /// next start finishes the increment.
    ///
    /// # Errors
    /// [`JoiningError`].
    pub fn take(mut self, run: &JoinRun, hand_over: HandOver) -> Result<(), JoiningError> {
        let HandOver { size, root, enc, wrapped_keys, signature } = hand_over;
        let info = HandOverInfo {
            vault: self.genesis.vault_id(),
            session: run.session,
            nonce: run.nonce,
            evidence: run.evidence,
            policy: run.policy,
            instance: self.context.instance,
            size,
            root,
        };
        let wrapped = WrappedKeys { enc: enc.to_vec(), ciphertext: wrapped_keys };
        let identity_key = &self.vault_keys.identity_key;
        let secrets = unwrap_vault_keys(&self.pair, identity_key, &info, (&wrapped, &signature))?;
        check_keys(&VaultKeys::from_secrets(&secrets)?, &self.genesis, &self.vault_keys)?;
        let record = seal_vault_keys(&self.root, &self.context, &secrets, &SystemRandom::new())?;
        self.dir.replace(KEYS_FILE, &record)?;
        self.anchor.commit(size, *root.as_bytes())?;
        Ok(())
    }
}

/// The founder's steps, under a genesis.
fn make(
    dir: &Arc<KeeperDir>,
    devices: &Devices,
    genesis: &Genesis,
) -> Result<(root::KeeperRoot, Anchor), JoiningError> {
    let rng = SystemRandom::new();
    let pcrs = genesis.policy().keeper().tpm().pcrs.selection();
    let seal = match genesis.core().seal_to() {
        SealTo::Tpm => Seal::Tpm(&devices.tpm),
        SealTo::SnpTpm => Seal::SnpTpm(&devices.tpm, devices.chip()?),
    };
    let root = root::create(dir, seal, pcrs, &rng)?;
    let mut instance = [0; 32];
    rng.fill(&mut instance).map_err(|_| SecretError::Random)?;
    dir.replace(GENESIS_FILE, genesis.bytes())?;
    let context = KeeperContext { instance, core: genesis.vault_id() };
    let anti_rollback = genesis.core().anti_rollback();
    let anchor = Anchor::create(Arc::clone(dir), devices.tpm.clone(), &root.root, anti_rollback, Some(context))?;
    Ok((root, anchor))
}

/// Core of a keeper that has taken over, at its starts.
pub(super) fn core(context: &KeeperContext, (genesis, size): (&[u8], u64)) -> Result<Core, StartError> {
    if Sha256Digest::of(genesis) != context.core {
        return Err(StartError::CoreChanged);
    }
    let genesis = Genesis::parse(genesis).map_err(StartError::Core)?;
    if size == 0 {
        return Err(StartError::Joining);
    }
    Ok(genesis.core().clone())
}

/// Its keys, as they were handed over.
pub(super) fn keys(dir: &KeeperDir, root: &Root, context: &KeeperContext) -> Result<VaultKeys, StartError> {
    let record = dir.read(KEYS_FILE).map_err(StartError::Dir)?.ok_or(StartError::VaultKeysDamaged)?;
    let secrets = open_vault_keys(root, context, &record).map_err(|_| StartError::VaultKeysDamaged)?;
    VaultKeys::from_secrets(&secrets).map_err(StartError::Keys)
}

pub(super) fn check_keys(keys: &VaultKeys, genesis: &Genesis, named: &EpochKeys) -> Result<(), JoiningError> {
    let same = *keys.identity_key() == named.identity_key
        && *keys.log_key() == genesis.keeper().log_key
        && *keys.wrap_key() == named.wrap_key;
    if same { Ok(()) } else { Err(JoiningError::OtherKeys) }
}

/// Why a keeper does not take over.
#[derive(Debug)]
pub enum JoiningError {
    /// The vault has no counter, which would keep a copy of the keeper that takes a lost one's place out.
    NoCounter,
    /// The directory is of a keeper with a vault of its own, or of one that joins another.
    OtherUse,
    /// It has the keys already.
    Joined,
    /// The keeper that answers is another vault's.
    OtherVault {
        /// Which.
        found: Sha256Digest,
    },
    /// What was handed over are not the keys that the vault file names.
    OtherKeys,
    /// It has the keys, and does not start.
    Start(Box<StartError>),
    /// The root.
    Root(RootError),
    /// Head or counter.
    Anchor(AnchorError),
    /// The directory.
    Dir(KeeperDirError),
    /// TPM or chip.
    Hardware(Refusal),
    /// The hand-over.
    HandOver(HandOverError),
    /// The keys could not be had.
    Keys(VaultKeysError),
    /// The keys could not be sealed.
    Seal(OpenError),
    /// Wrapping keys.
    Wrap(WrapError),
    /// Memory for secrets, or randomness.
    Secret(SecretError),
}

impl JoiningError {
    /// Stable name of the refusal.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::NoCounter => "recover-no-counter",
            Self::OtherUse => "joining-other-use",
            Self::Joined => "joining-done",
            Self::OtherVault { .. } => "joining-other-vault",
            Self::OtherKeys => "joining-other-keys",
            Self::Start(error) => error.code(),
            Self::Root(error) => error.code(),
            Self::Anchor(error) => error.code(),
            Self::Dir(error) => error.code(),
            Self::Hardware(refusal) => refusal.code(),
            Self::HandOver(error) => error.code(),
            Self::Keys(error) => error.code(),
            Self::Seal(error) => error.code(),
            Self::Wrap(error) => error.code(),
            Self::Secret(error) => error.code(),
        }
    }
}

impl fmt::Display for JoiningError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCounter => f.write_str("this vault has no counter: no keeper takes the place of a lost one"),
            Self::OtherUse => f.write_str(
                "this directory is of a keeper with a vault of its own, or of one that joins another: give --dir an empty one",
            ),
            Self::Joined => f.write_str("this keeper has the vault's keys: start it with `vault-enclave keeper`"),
            Self::OtherVault { found } => write!(f, "the keeper that answers has another vault, {found}: check --host"),
            Self::OtherKeys => f.write_str("what was handed over are not the keys that the vault file names"),
            Self::Start(error) => error.fmt(f),
            Self::Root(error) => error.fmt(f),
            Self::Anchor(error) => error.fmt(f),
            Self::Dir(error) => error.fmt(f),
            Self::Hardware(refusal) => refusal.fmt(f),
            Self::HandOver(error) => error.fmt(f),
            Self::Keys(error) => error.fmt(f),
            Self::Seal(error) => error.fmt(f),
            Self::Wrap(error) => error.fmt(f),
            Self::Secret(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for JoiningError {}

impl From<RootError> for JoiningError {
    fn from(error: RootError) -> Self {
        Self::Root(error)
    }
}

impl From<AnchorError> for JoiningError {
    fn from(error: AnchorError) -> Self {
        Self::Anchor(error)
    }
}

impl From<KeeperDirError> for JoiningError {
    fn from(error: KeeperDirError) -> Self {
        Self::Dir(error)
    }
}

impl From<Refusal> for JoiningError {
    fn from(error: Refusal) -> Self {
        Self::Hardware(error)
    }
}

impl From<HandOverError> for JoiningError {
    fn from(error: HandOverError) -> Self {
        Self::HandOver(error)
    }
}

impl From<VaultKeysError> for JoiningError {
    fn from(error: VaultKeysError) -> Self {
        Self::Keys(error)
    }
}

impl From<OpenError> for JoiningError {
    fn from(error: OpenError) -> Self {
        Self::Seal(error)
    }
}

impl From<WrapError> for JoiningError {
    fn from(error: WrapError) -> Self {
        Self::Wrap(error)
    }
}

impl From<SecretError> for JoiningError {
    fn from(error: SecretError) -> Self {
        Self::Secret(error)
    }
}
