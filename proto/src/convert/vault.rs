//! What an inference guest asks and gets: challenges, releases, ciphertext.

use std::collections::BTreeSet;

use attestation::{
    EvidenceForm, HPKE_PUBLIC_KEY_BYTES, HpkePublicKey, LeaseKey, Sha256Digest, TpmIdentity, UNITS_MAX, UnitSet,
    UnixTime, Workload,
};
use ledger::manifest::Selection;
use ledger::names::{Group, Name, Version};

use super::{
    AskedEvidence, EvidenceSet, Fault, SignedLease, WireError, bytes, check_size, digest, exact, key, name, present,
};
use super::{text, version};
use crate::limits::{ENTRY_BYTES_MAX, FORMS_MAX, GROUPS_MAX, LOG_PROOF_BYTES_MAX, RANGES_MAX};
use crate::v1;

/// Asks for a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChallengeRequest {
    /// Release rule.
    pub rule: Name,
    /// Model.
    pub model: Name,
    /// Its version.
    pub version: Version,
    /// What for.
    pub action: ChallengeFor,
    /// Who could quote, where it has a TPM that its EK endorses.
    pub tpm: Option<TpmIdentity>,
    /// What the requester can show.
    pub forms: BTreeSet<EvidenceForm>,
}

/// What a challenge is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChallengeFor {
    /// Keys for these units.
    Load(Selection),
    /// A longer lease.
    Renew {
        /// Which.
        lease_id: Sha256Digest,
    },
}

/// A challenge as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Names the challenge.
    pub session: [u8; 16],
    /// Makes the evidence fresh.
    pub nonce: [u8; 32],
    /// What the rule wants to see.
    pub asked: AskedEvidence,
    /// The vault that answers.
    pub vault_id: Sha256Digest,
    /// The policy in force.
    pub policy: Sha256Digest,
    /// The manifest of the model.
    pub manifest: Sha256Digest,
    /// What the selection means.
    pub units: UnitSet,
    /// Whether the requester has to show what it starts.
    pub workload: bool,
    /// When the challenge stops being good.
    pub expires: UnixTime,
}

/// Redeems a load challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseRequest {
    /// Of the challenge.
    pub session: [u8; 16],
    /// Where the keys are to be wrapped to.
    pub hpke_key: HpkePublicKey,
    /// Signs renewals and the end.
    pub lease_key: LeaseKey,
    /// Over the binding.
    pub evidence: EvidenceSet,
    /// What the requester starts.
    pub workload: Option<Workload>,
}

/// A grant. Not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The `release` entry, exact bytes.
    pub entry: Vec<u8>,
    /// HPKE encapsulated key.
    pub enc: Box<[u8; HPKE_PUBLIC_KEY_BYTES]>,
    /// HPKE ciphertext of the unit keys.
    pub wrapped_keys: Vec<u8>,
    /// C2SP tlog-proof of the entry.
    pub log_proof: String,
    /// By the identity key.
    pub signature: [u8; 96],
    /// For the first renewal.
    pub lease: SignedLease,
}

/// Names a model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelName {
    /// Model.
    pub model: Name,
    /// Its version.
    pub version: Version,
}

/// Asks for ciphertext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    /// Of which model.
    pub model: ModelName,
    /// In this order.
    pub ranges: Vec<Range>,
}

/// Bytes of a sealed unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Index of the unit.
    pub unit: u32,
    /// First byte.
    pub offset: u64,
    /// How many; 0 means to the end.
    pub length: u64,
}

impl TryFrom<v1::GetChallengeRequest> for ChallengeRequest {
    type Error = WireError;

    fn try_from(request: v1::GetChallengeRequest) -> Result<Self, WireError> {
        let unexpected = |code| WireError::new(code, Fault::Unexpected);
        let action = match v1::Action::try_from(request.action) {
            Ok(v1::Action::Load) if !request.lease_id.is_empty() => return Err(unexpected("malformed-lease-id")),
            Ok(v1::Action::Load) => ChallengeFor::Load(selection(present("malformed-units", request.units)?)?),
            Ok(v1::Action::Renew) if request.units.is_some() => return Err(unexpected("malformed-units")),
            Ok(v1::Action::Renew) => ChallengeFor::Renew { lease_id: digest("malformed-lease-id", &request.lease_id)? },
            Ok(v1::Action::Unspecified) | Err(_) => return Err(WireError::new("malformed-action", Fault::Value)),
        };
        let forms = forms(&request.forms)?;
        let has_ek = forms.contains(&EvidenceForm::Tpm) || forms.contains(&EvidenceForm::SnpTpm);
        if has_ek != request.tpm.is_some() {
            let fault = if has_ek { Fault::Missing } else { Fault::Unexpected };
            return Err(WireError::new("malformed-tpm-identity", fault));
        }
        Ok(Self {
            rule: name("malformed-rule", request.rule)?,
            model: name("malformed-model", request.model)?,
            version: version("malformed-version", request.version)?,
            action,
            tpm: request.tpm.map(TpmIdentity::try_from).transpose()?,
            forms,
        })
    }
}

impl From<ChallengeRequest> for v1::GetChallengeRequest {
    fn from(request: ChallengeRequest) -> Self {
        let (action, units, lease_id) = match request.action {
            ChallengeFor::Load(selection) => (v1::Action::Load, Some(wire_selection(selection)), Vec::new()),
            ChallengeFor::Renew { lease_id } => (v1::Action::Renew, None, lease_id.as_bytes().to_vec()),
        };
        Self {
            action: action.into(),
            rule: request.rule.to_string(),
            model: request.model.to_string(),
            version: request.version.to_string(),
            units,
            tpm: request.tpm.map(Into::into),
            lease_id,
            forms: request.forms.into_iter().map(|form| v1::EvidenceForm::from(form).into()).collect(),
        }
    }
}

impl TryFrom<v1::GetChallengeResponse> for Challenge {
    type Error = WireError;

    fn try_from(response: v1::GetChallengeResponse) -> Result<Self, WireError> {
        Ok(Self {
            session: exact("malformed-session", &response.session)?,
            nonce: exact("malformed-nonce", &response.nonce)?,
            asked: AskedEvidence::read(response.form, response.credential, &response.pcrs, response.event_log)?,
            vault_id: digest("malformed-vault-id", &response.vault_id)?,
            policy: digest("malformed-policy-digest", &response.policy_digest)?,
            manifest: digest("malformed-manifest-digest", &response.manifest_digest)?,
            units: UnitSet::try_from(response.units)
                .map_err(|error| WireError::new("malformed-units", Fault::Form(error)))?,
            workload: response.workload,
            expires: UnixTime(response.expires_unix),
        })
    }
}

impl From<Challenge> for v1::GetChallengeResponse {
    fn from(challenge: Challenge) -> Self {
        let quote = challenge.asked.quote();
        Self {
            session: challenge.session.to_vec(),
            nonce: challenge.nonce.to_vec(),
            credential: challenge.asked.credential().cloned().map(Into::into),
            vault_id: challenge.vault_id.as_bytes().to_vec(),
            policy_digest: challenge.policy.as_bytes().to_vec(),
            manifest_digest: challenge.manifest.as_bytes().to_vec(),
            units: challenge.units.as_slice().to_vec(),
            pcrs: quote.iter().flat_map(|quote| quote.pcrs.iter()).collect(),
            form: v1::EvidenceForm::from(challenge.asked.form()).into(),
            event_log: quote.is_some_and(|quote| quote.event_log),
            workload: challenge.workload,
            expires_unix: challenge.expires.seconds(),
        }
    }
}

impl TryFrom<v1::ReleaseKeysRequest> for ReleaseRequest {
    type Error = WireError;

    fn try_from(request: v1::ReleaseKeysRequest) -> Result<Self, WireError> {
        Ok(Self {
            session: exact("malformed-session", &request.session)?,
            hpke_key: key("malformed-hpke-public-key", &request.hpke_public_key)?,
            lease_key: key("malformed-lease-public-key", &request.lease_public_key)?,
            evidence: present("malformed-evidence", request.evidence)?.try_into()?,
            workload: request.workload.map(super::workload::read).transpose()?,
        })
    }
}

impl From<ReleaseRequest> for v1::ReleaseKeysRequest {
    fn from(request: ReleaseRequest) -> Self {
        Self {
            session: request.session.to_vec(),
            hpke_public_key: request.hpke_key.as_bytes().to_vec(),
            lease_public_key: request.lease_key.as_bytes().to_vec(),
            evidence: Some(request.evidence.into()),
            workload: request.workload.map(Into::into),
        }
    }
}

impl TryFrom<v1::ReleaseKeysResponse> for Grant {
    type Error = WireError;

    fn try_from(response: v1::ReleaseKeysResponse) -> Result<Self, WireError> {
        let wrapped_keys = bytes("malformed-wrapped-keys", response.wrapped_keys, 32 * UNITS_MAX + 16)?;
        // 32 bytes a unit, at least one unit, and a tag.
        if wrapped_keys.len() < 32 + 16 || wrapped_keys.len() % 32 != 16 {
            return Err(WireError::new("malformed-wrapped-keys", Fault::Value));
        }
        Ok(Self {
            entry: bytes("malformed-entry", response.entry, ENTRY_BYTES_MAX)?,
            enc: Box::new(exact("malformed-enc", &response.enc)?),
            wrapped_keys,
            log_proof: text("malformed-log-proof", response.log_proof, LOG_PROOF_BYTES_MAX)?,
            signature: exact("malformed-grant-signature", &response.signature)?,
            lease: present("malformed-lease", response.lease)?.try_into()?,
        })
    }
}

impl From<Grant> for v1::ReleaseKeysResponse {
    fn from(grant: Grant) -> Self {
        Self {
            entry: grant.entry,
            enc: grant.enc.to_vec(),
            wrapped_keys: grant.wrapped_keys,
            log_proof: grant.log_proof,
            signature: grant.signature.to_vec(),
            lease: Some(grant.lease.into()),
        }
    }
}

impl TryFrom<v1::GetManifestRequest> for ModelName {
    type Error = WireError;

    fn try_from(request: v1::GetManifestRequest) -> Result<Self, WireError> {
        model_name(request.model, request.version)
    }
}

impl From<ModelName> for v1::GetManifestRequest {
    fn from(name: ModelName) -> Self {
        Self { model: name.model.to_string(), version: name.version.to_string() }
    }
}

impl TryFrom<v1::FetchUnitsRequest> for FetchRequest {
    type Error = WireError;

    fn try_from(request: v1::FetchUnitsRequest) -> Result<Self, WireError> {
        check_size("malformed-ranges", request.ranges.len(), RANGES_MAX)?;
        let range = |range: v1::UnitRange| {
            if range.unit as usize >= UNITS_MAX {
                return Err(WireError::new("malformed-ranges", Fault::Value));
            }
            Ok(Range { unit: range.unit, offset: range.offset, length: range.length })
        };
        Ok(Self {
            model: model_name(request.model, request.version)?,
            ranges: request.ranges.into_iter().map(range).collect::<Result<_, _>>()?,
        })
    }
}

impl From<FetchRequest> for v1::FetchUnitsRequest {
    fn from(request: FetchRequest) -> Self {
        let range = |range: Range| v1::UnitRange { unit: range.unit, offset: range.offset, length: range.length };
        Self {
            model: request.model.model.to_string(),
            version: request.model.version.to_string(),
            ranges: request.ranges.into_iter().map(range).collect(),
        }
    }
}

/// At least one form, none twice.
fn forms(numbers: &[i32]) -> Result<BTreeSet<EvidenceForm>, WireError> {
    const CODE: &str = "malformed-evidence-form";
    check_size(CODE, numbers.len(), FORMS_MAX)?;
    let mut forms = BTreeSet::new();
    for number in numbers {
        if !forms.insert(super::evidence::form(*number)?) {
            return Err(WireError::new(CODE, Fault::Order));
        }
    }
    Ok(forms)
}

pub(super) fn model_name(model: String, version_text: String) -> Result<ModelName, WireError> {
    Ok(ModelName { model: name("malformed-model", model)?, version: version("malformed-version", version_text)? })
}

pub(super) fn selection(units: v1::UnitSelection) -> Result<Selection, WireError> {
    const CODE: &str = "malformed-units";
    match present(CODE, units.selection)? {
        v1::unit_selection::Selection::All(true) => Ok(Selection::All),
        v1::unit_selection::Selection::All(false) => Err(WireError::new(CODE, Fault::Value)),
        v1::unit_selection::Selection::Groups(list) => {
            check_size(CODE, list.groups.len(), GROUPS_MAX)?;
            let mut seen = BTreeSet::new();
            let mut groups = Vec::with_capacity(list.groups.len());
            for label in list.groups {
                let group = Group::try_from(label).map_err(|error| WireError::new(CODE, Fault::Name(error)))?;
                if !seen.insert(group.clone()) {
                    return Err(WireError::new(CODE, Fault::Order));
                }
                groups.push(group);
            }
            Ok(Selection::Groups(groups))
        }
        v1::unit_selection::Selection::Units(list) => {
            let units = UnitSet::try_from(list.units).map_err(|error| WireError::new(CODE, Fault::Form(error)))?;
            Ok(Selection::Units(units.as_slice().to_vec()))
        }
    }
}

pub(super) fn wire_selection(selection: Selection) -> v1::UnitSelection {
    use v1::unit_selection::Selection as Wire;
    let selection = match selection {
        Selection::All => Wire::All(true),
        Selection::Groups(groups) => {
            Wire::Groups(v1::GroupList { groups: groups.iter().map(ToString::to_string).collect() })
        }
        Selection::Units(units) => Wire::Units(v1::UnitList { units }),
    };
    v1::UnitSelection { selection: Some(selection) }
}
