//! Evidence that lies beside the log, verified again: a blob with the quote, and the preimage of the binding that it was
//! made for. Pure.
//!
//! The preimage is not believed: the challenge is built anew from what the entry, the vault and the policy say, with only
//! nonce and secret from the preimage, and must then have exactly these bytes. What this can't show is that the nonce was
//! fresh: the order of the log stands for that.

mod join;
mod recover;

use std::fmt;

use attestation::{
    ActivationSecret, AkName, Binding, Claims, EnrolledEks, EventLog, EventLogError, Evidence, HpkePublicKey, LeaseKey,
    LoadChallenge, RenewChallenge, Sha256Digest, TpmIdentity, TpmPart, Transcript, UnitSet, UnixTime, VerifyError,
};
use ledger::decide::{DenialReason, check_claims};
use ledger::entry::{Machine, Release, Renewal};
use ledger::genesis::Genesis;
use ledger::keeper_evidence::{KeeperClaims, KeeperEvidenceError, KeeperRun, RecoveringError};
use ledger::keepers::JoinError;
use ledger::names::Name;
use ledger::policy::{PcrRule, Policy, ReleaseRule};
use ledger::state::Lease;
use ring::rand::SecureRandom;
use vault_proto::convert::{EvidenceSet, WireError};

pub use join::verify_join;
pub use recover::{approved_recovery, verify_recovery};

const BIND_TAG: &[u8] = b"weightvault/v1 bind\0";
const RECOVER_TAG: &[u8] = b"weightvault/v1 recover evidence\0";
const GENESIS_TAG: &[u8] = b"weightvault/v1 genesis\0";

/// The two blobs that an entry names. Their digests were checked.
#[derive(Debug, Clone, Copy)]
pub struct Blobs<'a> {
    /// The evidence set.
    pub evidence: &'a [u8],
    /// The preimage of the binding.
    pub preimage: &'a [u8],
}

/// Why stored evidence does not bear the entry that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredEvidenceError {
    /// The evidence blob.
    Blob(WireError),
    /// The preimage is not the tag and the fields of the entry's action.
    PreimageMalformed,
    /// The preimage says something else than the entry, the vault or the policy.
    PreimageMismatch,
    /// The quote or the EK chain.
    Evidence(VerifyError),
    /// The event log, or that it does not lead to what was quoted.
    EventLog(EventLogError),
    /// The keeper's evidence in the ceremony.
    Keeper(KeeperEvidenceError),
    /// What is shown of the keeper that took over, or asked to.
    Join(JoinError),
    /// What is shown of the keeper in the place of a lost one.
    Recovering(RecoveringError),
    /// The policy that the challenge was made under has no such rule.
    RuleUnknown,
    /// The evidence shows something that the rule does not allow.
    NotAllowed(Box<DenialReason>),
    /// The entry says something else than the evidence.
    EntryMismatch {
        /// What.
        field: &'static str,
    },
}

/// Verifies what an approver of the genesis saw, at the time of his approval.
pub fn verify_witness(
    genesis: &Genesis,
    time: UnixTime,
    blobs: Blobs<'_>,
    rng: &dyn SecureRandom,
) -> Result<Claims, StoredEvidenceError> {
    let EvidenceSet { evidence, .. } = stored(blobs)?;
    let identity = identity(&evidence).ok_or(VerifyError::QuoteMissing)?.clone();
    let [nonce, _, _, _, _, _, secret] = fields(GENESIS_TAG, blobs.preimage)?;
    let keeper = genesis.keeper();
    let claims = KeeperClaims {
        instance: keeper.instance,
        core: genesis.core().digest(),
        wrap_key: keeper.wrap_key.clone(),
        identity_key: keeper.identity_key.clone(),
        log_key: keeper.log_key.clone(),
    };
    let (nonce, secret) = (exactly(nonce)?, exactly(secret)?);
    let run = KeeperRun::replay(genesis.policy(), &identity, time, nonce, secret, rng)?;
    let seen = run.verify_genesis(claims, evidence)?;
    seen.check(genesis)?;
    check_preimage(seen.verified().preimage(), blobs.preimage)?;
    Ok(seen.verified().claims().clone())
}

/// Verifies what a release rests on. `policy` is the one that the entry names.
pub fn verify_release(
    vault: Sha256Digest,
    entry: &Release,
    policy: &Policy,
    enrolled: &EnrolledEks,
    blobs: Blobs<'_>,
) -> Result<Claims, StoredEvidenceError> {
    let [_, _, session, nonce, _, _, _, units, hpke, lease_key, ak_name, secret, _] = fields(BIND_TAG, blobs.preimage)?;
    let hpke = HpkePublicKey::try_from(hpke).map_err(|_| StoredEvidenceError::PreimageMalformed)?;
    let lease_key = LeaseKey::try_from(lease_key).map_err(|_| StoredEvidenceError::PreimageMalformed)?;
    let units = unit_set(units)?;
    let hpke_digest = Sha256Digest::of(hpke.as_bytes());
    let binding = LoadChallenge {
        rule: entry.rule.to_string(),
        model: entry.model.to_string(),
        version: entry.version.to_string(),
        session: exactly(session)?,
        nonce: exactly(nonce)?,
        vault,
        policy: entry.policy,
        manifest: entry.manifest,
        units,
        tpm: tpm_part(ak_name, secret)?,
    }
    .bind_workload(hpke, lease_key, entry.workload);
    let said = binding.statement();
    check_field("units", said.units().digest() == entry.units.digest)?;
    check_field("units", u32::try_from(said.units().len()) == Ok(entry.units.count))?;
    check_field("session", *said.session() == entry.session)?;
    check_field("hpke_key", hpke_digest == entry.hpke_key)?;
    check_field("lease_key", *said.lease_key() == entry.lease_key)?;
    check_field("lease", said.lease_id() == entry.lease)?;
    let rule = policy.release_rule(&entry.rule).ok_or(StoredEvidenceError::RuleUnknown)?;
    let claims = verify(binding, (&entry.rule, rule), (policy, enrolled), entry.time, blobs)?;
    check_field("platform", claims.platform() == entry.platform)?;
    check_field("machine", Machine::of(&claims) == entry.machine)?;
    check_field("tier", claims.trust() == entry.tier)?;
    check_field("marks", entry.marks.as_ref().is_none_or(|marks| marks.are_shown_by(&claims)))?;
    Ok(claims)
}

/// The units that were asked for, by the preimage of a release's binding.
pub fn released_units(preimage: &[u8]) -> Result<UnitSet, StoredEvidenceError> {
    let [_, _, _, _, _, _, _, units, _, _, _, _, _] = fields(BIND_TAG, preimage)?;
    unit_set(units)
}

/// Verifies what a renewal rests on: the same machine and boot as the release of its lease. `policies` are those that
/// have been in force: a renewal may stand in the log a little later than its decision.
pub fn verify_renewal<'a>(
    vault: Sha256Digest,
    renewal: &Renewal,
    lease: &Lease,
    mut policies: impl Iterator<Item = &'a Policy>,
    enrolled: &EnrolledEks,
    blobs: Blobs<'_>,
) -> Result<Claims, StoredEvidenceError> {
    let [_, _, session, nonce, _, policy, _, _, ak_name, secret, _] = fields(BIND_TAG, blobs.preimage)?;
    let policy = Sha256Digest::from_bytes(exactly(policy)?);
    let policy = policies.find(|known| known.digest() == policy).ok_or(StoredEvidenceError::PreimageMismatch)?;
    let binding = RenewChallenge {
        rule: lease.rule.to_string(),
        session: exactly(session)?,
        nonce: exactly(nonce)?,
        vault,
        policy: policy.digest(),
        lease: renewal.lease,
        lease_key: lease.lease_key.clone(),
        tpm: tpm_part(ak_name, secret)?,
    }
    .bind_workload(lease.workload);
    let rule = policy.release_rule(&lease.rule).ok_or(StoredEvidenceError::RuleUnknown)?;
    let claims = verify(binding, (&lease.rule, rule), (policy, enrolled), renewal.issued, blobs)?;
    check_field("platform", claims.platform() == lease.platform)?;
    check_field("machine", Machine::of(&claims) == lease.machine)?;
    Ok(claims)
}

fn verify<S: Transcript>(
    binding: Binding<S>,
    (rule_name, rule): (&Name, &ReleaseRule),
    (policy, enrolled): (&Policy, &EnrolledEks),
    time: UnixTime,
    blobs: Blobs<'_>,
) -> Result<Claims, StoredEvidenceError> {
    check_preimage(binding.preimage(), blobs.preimage)?;
    let EvidenceSet { evidence, event_log } = stored(blobs)?;
    let expected = rule.guest.expected(identity(&evidence), policy.trust_anchors(), enrolled, time)?;
    let mut verified = evidence.verify(binding, &expected, policy.trust_anchors(), time)?;
    if let (Some(log), Some(asked)) = (event_log, rule.guest.pcrs().and_then(PcrRule::boot)) {
        let replayed = EventLog::parse(&log).map(EventLog::replay);
        verified = replayed
            .and_then(|log| verified.with_event_log(log, &asked.pcrs()))
            .map_err(StoredEvidenceError::EventLog)?;
    }
    check_claims(rule_name, &rule.guest, verified.claims())
        .map_err(|reason| StoredEvidenceError::NotAllowed(Box::new(reason)))?;
    Ok(verified.claims().clone())
}

fn stored(blobs: Blobs<'_>) -> Result<EvidenceSet, StoredEvidenceError> {
    EvidenceSet::from_blob(blobs.evidence).map_err(StoredEvidenceError::Blob)
}

/// The TPM that an EK has to endorse.
fn identity(evidence: &Evidence) -> Option<&TpmIdentity> {
    match evidence {
        Evidence::Tpm(quote) | Evidence::SnpTpm { quote, .. } => Some(&quote.identity),
        Evidence::Snp(_) | Evidence::AzureSnpVtpm(_) => None,
    }
}

/// The TPM's part of a binding, from its two fields.
fn tpm_part(ak_name: &[u8], secret: &[u8]) -> Result<TpmPart, StoredEvidenceError> {
    match (ak_name, secret) {
        ([], []) => Ok(TpmPart::Absent),
        (ak_name, []) => Ok(TpmPart::Reported { ak_name: ak(ak_name)? }),
        (ak_name, secret) => {
            let secret = ActivationSecret::from_bytes(exactly(secret)?);
            Ok(TpmPart::Activated { ak_name: ak(ak_name)?, secret })
        }
    }
}

fn check_preimage(built: &[u8], stored: &[u8]) -> Result<(), StoredEvidenceError> {
    if built == stored { Ok(()) } else { Err(StoredEvidenceError::PreimageMismatch) }
}

fn check_field(field: &'static str, same: bool) -> Result<(), StoredEvidenceError> {
    if same { Ok(()) } else { Err(StoredEvidenceError::EntryMismatch { field }) }
}

/// The fields of `tag ‖ lv(…)`, exactly `N` of them (FORMAT.md §1).
fn fields<'a, const N: usize>(tag: &[u8], preimage: &'a [u8]) -> Result<[&'a [u8]; N], StoredEvidenceError> {
    let mut rest = preimage.strip_prefix(tag).ok_or(StoredEvidenceError::PreimageMalformed)?;
    let mut fields: [&[u8]; N] = [&[]; N];
    for field in &mut fields {
        (*field, rest) = length_value(rest).ok_or(StoredEvidenceError::PreimageMalformed)?;
    }
    if rest.is_empty() { Ok(fields) } else { Err(StoredEvidenceError::PreimageMalformed) }
}

fn length_value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StoredEvidenceError> {
    bytes.try_into().map_err(|_| StoredEvidenceError::PreimageMalformed)
}

fn ak(bytes: &[u8]) -> Result<AkName, StoredEvidenceError> {
    AkName::try_from(bytes).map_err(|_| StoredEvidenceError::PreimageMalformed)
}

/// be32 of each index, joined (FORMAT.md §2).
fn unit_set(bytes: &[u8]) -> Result<UnitSet, StoredEvidenceError> {
    let (indices, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(StoredEvidenceError::PreimageMalformed);
    }
    let indices: Vec<u32> = indices.iter().map(|index| u32::from_be_bytes(*index)).collect();
    UnitSet::try_from(indices).map_err(|_| StoredEvidenceError::PreimageMalformed)
}

impl StoredEvidenceError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Blob(error) => error.code(),
            Self::PreimageMalformed => "binding-preimage-malformed",
            Self::PreimageMismatch => "binding-preimage-mismatch",
            Self::Evidence(error) => error.code(),
            Self::EventLog(error) => error.code(),
            Self::Keeper(error) => error.code(),
            Self::Join(error) => error.code(),
            Self::Recovering(error) => error.code(),
            Self::RuleUnknown => "rule-unknown",
            Self::NotAllowed(reason) => reason.code(),
            Self::EntryMismatch { .. } => "entry-evidence-mismatch",
        }
    }
}

impl fmt::Display for StoredEvidenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(error) => write!(f, "the evidence blob: {error}"),
            Self::PreimageMalformed => f.write_str("the preimage is not a binding of the entry's action"),
            Self::PreimageMismatch => f.write_str("the preimage does not say what the entry, vault and policy say"),
            Self::Evidence(error) => error.fmt(f),
            Self::EventLog(error) => error.fmt(f),
            Self::Keeper(error) => error.fmt(f),
            Self::Join(error) => error.fmt(f),
            Self::Recovering(error) => error.fmt(f),
            Self::RuleUnknown => f.write_str("the policy has no such release rule"),
            Self::NotAllowed(reason) => reason.fmt(f),
            Self::EntryMismatch { field } => write!(f, "the entry's {field} is not that of the evidence"),
        }
    }
}

impl std::error::Error for StoredEvidenceError {}

impl From<VerifyError> for StoredEvidenceError {
    fn from(error: VerifyError) -> Self {
        Self::Evidence(error)
    }
}

impl From<KeeperEvidenceError> for StoredEvidenceError {
    fn from(error: KeeperEvidenceError) -> Self {
        Self::Keeper(error)
    }
}
