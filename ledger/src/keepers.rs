//! More than one keeper over time (FORMAT.md §7, `keeper-join`): who a keeper is, and which keeper may take over.
//!
//! A keeper proves its machine to one that runs, and approvers let exactly that machine in. Under a counter a vault has one
//! keeper at a time: another one takes over by a hand-over, and the last commit of the one before names it as its successor.
//! Witnesses see to it that there is one log, whoever writes it: under them the new keeper gets the keys and decides beside
//! the others, until approvers have one leave.

mod error;

use std::collections::BTreeMap;

use attestation::{AkName, Claims, Join, JoinerKeys, Sha256Digest, UnixTime, Verified, lv};

pub use error::JoinError;

use crate::entry::{KeeperRetire, ProposedJoin};
use crate::genesis::{AntiRollback, KeeperIdentity};
use crate::keeper_evidence::check_claims;
use crate::policy::KeeperRule;
use crate::release_log::Loggable;
use crate::state::Vault;

const JOIN_TAG: &[u8] = b"weightvault/v1 keeper join\0";
const LEAVE_TAG: &[u8] = b"weightvault/v1 keeper leave\0";

/// How long a proposed keeper waits for approvals, and an approved one may wait until it takes over.
pub const JOIN_SECS_MAX: u64 = 7 * 24 * 3600;
/// Most keepers that decide beside one another.
pub const KEEPERS_MAX: usize = 8;
/// What stands for the name of the counter of a keeper that has none.
pub const NO_COUNTER: [u8; 34] = [0; 34];

/// The machine of a keeper, and what it made there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeeperMachine {
    /// 32 random bytes, made with the root key.
    pub instance: [u8; 32],
    /// Platform id (FORMAT.md §2): of its TPM or, where it proves one, its chip.
    pub platform: Sha256Digest,
    /// Name of its attestation key.
    pub ak_name: AkName,
}

/// A keeper that asks to take over, as approvers let it in. [`AdmittedJoiner`] says whether it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joiner {
    /// Its machine.
    pub machine: KeeperMachine,
    /// SHA-256 of the HPKE key that the vault's keys are wrapped to.
    pub hpke_key: Sha256Digest,
    /// Name of its NV counter; [`NO_COUNTER`] where the vault has none.
    pub counter_name: [u8; 34],
    /// What the counter reads before the first head of this vault; 0 where there is none.
    pub counter: u64,
    /// The PCRs that it quoted: those that `[keeper]` of the first policy names.
    pub pcrs: BTreeMap<u32, [u8; 32]>,
    /// The launch digest of its guest, where it proves its chip too.
    pub measurement: Option<[u8; 48]>,
}

/// What approvals name that have a keeper leave: SHA-256(`"weightvault/v1 keeper leave\0"` ‖ lv(vault id, be64(revision),
/// instance)). The revision makes approvals of before the last change of keepers worth nothing.
pub fn leave_object(vault: Sha256Digest, revision: u64, instance: [u8; 32]) -> Sha256Digest {
    Sha256Digest::of(&[LEAVE_TAG, &lv(&[vault.as_bytes(), &revision.to_be_bytes(), &instance])].concat())
}

impl From<&KeeperIdentity> for KeeperMachine {
    fn from(keeper: &KeeperIdentity) -> Self {
        Self { instance: keeper.instance, platform: keeper.platform, ak_name: keeper.ak_name }
    }
}

impl Joiner {
    /// What approvals name: SHA-256(`"weightvault/v1 keeper join\0"` ‖ lv(vault id, be64(revision), instance, platform, AK
    /// name, HPKE key digest, counter name, be64(counter), PCRs, measurement)), with PCRs and measurement as in a reseal.
    /// The revision makes approvals of before the last change of keepers worth nothing.
    pub fn object(&self, vault: Sha256Digest, revision: u64) -> Sha256Digest {
        let pcrs: Vec<u8> =
            self.pcrs.iter().flat_map(|(index, value)| index.to_be_bytes().into_iter().chain(*value)).collect();
        let fields = lv(&[
            vault.as_bytes(),
            &revision.to_be_bytes(),
            &self.machine.instance,
            self.machine.platform.as_bytes(),
            self.machine.ak_name.as_bytes(),
            self.hpke_key.as_bytes(),
            &self.counter_name,
            &self.counter.to_be_bytes(),
            &pcrs,
            self.measurement.as_ref().map_or(&[][..], |digest| digest.as_slice()),
        ]);
        Sha256Digest::of(&[JOIN_TAG, &fields].concat())
    }

    /// What evidence shows, and what the keeper states beside it.
    pub fn of(verified: &Verified<Join>) -> Result<Self, JoinError> {
        Self::shown(verified.claims(), verified.statement().joiner())
    }

    /// The same of evidence for another transcript.
    pub(crate) fn shown(claims: &Claims, stated: &JoinerKeys) -> Result<Self, JoinError> {
        let quote = claims.quote().ok_or(JoinError::OtherForm)?;
        Ok(Self {
            machine: KeeperMachine {
                instance: stated.instance,
                platform: claims.platform(),
                ak_name: *quote.ak_name(),
            },
            hpke_key: Sha256Digest::of(stated.hpke_key.as_bytes()),
            counter_name: stated.counter_name,
            counter: stated.counter,
            pcrs: quote.pcrs().clone(),
            measurement: claims.report().map(|report| *report.measurement()),
        })
    }
}

/// A keeper whose evidence verified, for a challenge of this vault, and that `[keeper]` of the policy in force permits.
pub struct AdmittedJoiner {
    joiner: Joiner,
    verified: Verified<Join>,
    evidence: Sha256Digest,
}

impl AdmittedJoiner {
    /// Holds what was verified against the policy in force. `evidence` is the SHA-256 of the evidence blob.
    pub fn admit(
        vault: &Vault,
        verified: Verified<Join>,
        evidence: Sha256Digest,
        now: UnixTime,
    ) -> Result<Self, JoinError> {
        let statement = verified.statement();
        if statement.vault() != vault.id() {
            return Err(JoinError::OtherVault);
        }
        if statement.policy() != vault.policy().digest() {
            return Err(JoinError::PolicyChanged);
        }
        if vault.policy().is_expired(now) {
            return Err(JoinError::PolicyExpired { not_after: vault.policy().not_after() });
        }
        check_claims(vault.policy().keeper(), verified.claims()).map_err(JoinError::Evidence)?;
        let joiner = Joiner::of(&verified)?;
        match vault.keepers().waiting(&joiner) {
            Some(_) => vault.check_joiner_rules(&joiner)?,
            None => vault.check_joiner(&joiner)?,
        }
        Ok(Self { joiner, verified, evidence })
    }

    /// The keeper.
    pub fn joiner(&self) -> &Joiner {
        &self.joiner
    }

    /// What verified.
    pub fn verified(&self) -> &Verified<Join> {
        &self.verified
    }

    /// SHA-256 of the evidence blob.
    pub fn evidence(&self) -> Sha256Digest {
        self.evidence
    }

    /// What is proposed to the approvers of `vault`.
    pub fn proposed(&self, vault: &Vault, now: UnixTime) -> ProposedJoin {
        let revision = vault.keepers().revision();
        let binding = Sha256Digest::of(self.verified.preimage());
        ProposedJoin::new(&self.joiner, vault.id(), revision, (self.evidence, binding), now.plus(JOIN_SECS_MAX))
    }

    /// The `keeper-join` entry by which approvers let exactly this keeper in beside the others. The keys go over behind it
    /// alone, and until the keeper has started.
    pub fn let_in(&self, vault: &Vault, now: UnixTime) -> Result<LetIn, JoinError> {
        let waiting = vault.keepers().waiting(&self.joiner).ok_or(JoinError::NotApproved)?;
        waiting.check_time(now)?;
        Ok(LetIn { object: waiting.object(), entry: waiting.entry(), instance: self.joiner.machine.instance })
    }

    /// The last entry of the keeper that runs, where approvers let exactly this keeper in.
    pub fn retires(&self, vault: &Vault, now: UnixTime) -> Result<Retirement, JoinError> {
        let approved = vault.keepers().approved().filter(|approved| *approved.joiner() == self.joiner);
        let approved = approved.ok_or(JoinError::NotApproved)?;
        approved.check_time(now)?;
        Ok(Retirement {
            entry: KeeperRetire {
                time: now,
                object: approved.object(),
                instance: self.joiner.machine.instance,
                counter_name: self.joiner.counter_name,
                counter: self.joiner.counter,
                evidence: self.evidence,
                binding: Sha256Digest::of(self.verified.preimage()),
            },
        })
    }
}

/// A keeper that was let in beside others, and has not started yet. Only [`AdmittedJoiner::let_in`] makes one.
#[derive(Debug)]
pub struct LetIn {
    object: Sha256Digest,
    entry: u64,
    instance: [u8; 32],
}

impl LetIn {
    /// What the approvals named.
    pub fn object(&self) -> Sha256Digest {
        self.object
    }

    /// Index of its `keeper-join` entry.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// The keeper.
    pub fn instance(&self) -> [u8; 32] {
        self.instance
    }
}

/// The entry by which a keeper names its successor. Only [`AdmittedJoiner::retires`] makes one.
pub struct Retirement {
    entry: KeeperRetire,
}

impl Loggable for Retirement {
    fn entry_bytes(&self) -> Vec<u8> {
        let entry = crate::entry::Entry::KeeperRetire(self.entry.clone());
        entry.encode().expect("digests and numbers fit an entry")
    }
}

impl Vault {
    /// Whether this keeper could be let in, signatures and evidence apart.
    ///
    /// # Errors
    /// [`JoinError`].
    pub fn check_joiner(&self, joiner: &Joiner) -> Result<(), JoinError> {
        if self.keepers().knows(&joiner.machine) {
            return Err(JoinError::KeeperAlready);
        }
        if self.keepers().all().count() >= KEEPERS_MAX {
            return Err(JoinError::TooMany);
        }
        self.check_joiner_rules(joiner)
    }

    fn check_joiner_rules(&self, joiner: &Joiner) -> Result<(), JoinError> {
        let counted = (joiner.counter_name, joiner.counter) != (NO_COUNTER, 0);
        match (self.genesis().core().anti_rollback(), counted) {
            (AntiRollback::Counter, true) | (AntiRollback::Witnesses | AntiRollback::None, false) => {}
            (AntiRollback::Counter, false) => return Err(JoinError::CounterMissing),
            (AntiRollback::Witnesses | AntiRollback::None, true) => return Err(JoinError::CounterUnexpected),
        }
        let selection = self.genesis().policy().keeper().tpm().pcrs.selection();
        if !selection.iter().eq(joiner.pcrs.keys().copied()) {
            return Err(JoinError::OtherSelection { expected: selection });
        }
        let rule = self.policy().keeper();
        rule.tpm().pcrs.check(&joiner.pcrs).map_err(JoinError::PcrsNotAllowed)?;
        match (rule, joiner.measurement) {
            (KeeperRule::Tpm(tpm), None) if !tpm.platforms.permits(&joiner.machine.platform) => {
                Err(JoinError::PlatformNotListed { platform: joiner.machine.platform })
            }
            (KeeperRule::Snp { snp, .. }, Some(digest)) if !snp.measurements.contains(&digest) => {
                Err(JoinError::MeasurementNotAllowed)
            }
            (KeeperRule::Tpm(_), None) | (KeeperRule::Snp { .. }, Some(_)) => Ok(()),
            (KeeperRule::Tpm(_), Some(_)) | (KeeperRule::Snp { .. }, None) => Err(JoinError::OtherForm),
        }
    }
}
