//! One value of each kind, at its largest.

pub(crate) use std::collections::BTreeMap;

pub(crate) use attestation::{
    AzureEvidence, AzureQuote, Credential, Evidence, EvidenceForm, HpkePublicKey, IdentityKey, LeaseKey, LogKey,
};
pub(crate) use attestation::{
    PcrSelection, Sha256Digest, SnpEvidence, TpmIdentity, TpmQuote, Trust, UnitSet, UnixTime,
};
pub(crate) use ledger::approvals::raise_object;
pub(crate) use ledger::entry::{PlatformAct, PlatformChange, ProposedPermit, ProposedRaise, RaiseAmounts};
pub(crate) use ledger::manifest::Selection;
pub(crate) use ledger::permit::{Permit, PermitKind};
pub(crate) use ledger::policy::BudgetUnit;
pub(crate) use ledger::reseal::Reseal;
pub(crate) use ledger::state::{ActivePermit, Alarm, BudgetOf, BudgetUse};
pub(crate) use prost::Message;
pub(crate) use vault_proto::convert::*;
pub(crate) use vault_proto::{limits, v1};

pub(crate) fn digest(byte: u8) -> Sha256Digest {
    Sha256Digest::from_bytes([byte; 32])
}

pub(crate) fn identity() -> TpmIdentity {
    TpmIdentity { ek_certificates: vec![vec![1; 900], vec![2; 4096]], ek_public: Vec::new(), ak_public: vec![3; 1024] }
}

pub(crate) fn quote() -> TpmQuote {
    TpmQuote {
        identity: identity(),
        attest: vec![4; 1024],
        signature: vec![5; 600],
        pcrs: (0..24).map(|index| (index, [6; 32])).collect(),
    }
}

pub(crate) fn evidence() -> EvidenceSet {
    EvidenceSet { evidence: Evidence::Tpm(quote()), event_log: None }
}

pub(crate) fn report() -> SnpEvidence {
    SnpEvidence { report: vec![7; 1184], certificates: vec![vec![1; 4096]; 6], crls: vec![vec![2; 64 << 10]; 2] }
}

pub(crate) fn snp_evidence() -> EvidenceSet {
    EvidenceSet { evidence: Evidence::Snp(report()), event_log: None }
}

pub(crate) fn azure_evidence() -> EvidenceSet {
    let SnpEvidence { certificates, crls, .. } = report();
    let quote = AzureQuote { attest: vec![4; 1024], signature: vec![5; 600], pcrs: quote().pcrs };
    let azure = AzureEvidence { hcl_report: vec![8; 16 << 10], certificates, crls, ak_public: vec![3; 1024], quote };
    EvidenceSet { evidence: Evidence::AzureSnpVtpm(azure), event_log: None }
}

pub(crate) fn credential() -> Credential {
    Credential { id_object: vec![7; 256], encrypted_secret: vec![8; 514] }
}

pub(crate) fn hpke_key() -> HpkePublicKey {
    HpkePublicKey::try_from([9; 1665].as_slice()).unwrap()
}

pub(crate) fn lease() -> SignedLease {
    SignedLease { statement: vec![10; 2048], signature: [11; 96] }
}

pub(crate) fn challenge() -> Challenge {
    Challenge {
        session: [1; 16],
        nonce: [2; 32],
        asked: AskedEvidence::Tpm {
            credential: credential(),
            quote: AskedQuote { pcrs: PcrSelection::try_from([0, 7, 23].as_slice()).unwrap(), event_log: true },
        },
        vault_id: digest(3),
        policy: digest(4),
        manifest: digest(5),
        units: UnitSet::try_from(vec![0, 7, 16_383]).unwrap(),
        workload: true,
        expires: UnixTime(60),
    }
}

pub(crate) fn challenge_request(action: ChallengeFor) -> ChallengeRequest {
    ChallengeRequest {
        rule: "minilm".parse().unwrap(),
        model: "minilm".parse().unwrap(),
        version: "1.0+a".parse().unwrap(),
        action,
        tpm: Some(identity()),
        forms: [EvidenceForm::Tpm, EvidenceForm::AzureSnpVtpm].into(),
    }
}

pub(crate) fn grant() -> Grant {
    Grant {
        entry: vec![1; 16 << 10],
        enc: Box::new([2; 1665]),
        wrapped_keys: vec![3; 32 * 16_384 + 16],
        log_proof: "c2sp.org/tlog-proof@v1".to_owned(),
        signature: [4; 96],
        lease: lease(),
    }
}

pub(crate) fn keeper_identity(vault_id: Option<Sha256Digest>) -> KeeperIdentity {
    KeeperIdentity {
        tpm: identity(),
        instance: [1; 32],
        core_digest: digest(2),
        wrap_key: hpke_key(),
        identity_key: IdentityKey::try_from([4; 97].as_slice()).unwrap(),
        log_key: LogKey::try_from([5; 32].as_slice()).unwrap(),
        vault_id,
        pcrs: PcrSelection::try_from([0, 11].as_slice()).unwrap(),
    }
}

pub(crate) fn proposal(action: ProposalAction) -> Proposal {
    Proposal {
        action,
        object: digest(1),
        previous: digest(2),
        serial: 3,
        approved_by: vec!["alice".parse().unwrap(), "bob".parse().unwrap()],
        threshold: 2,
        effective: true,
        entry: 9,
        summary: "minilm@1, 90 MB".to_owned(),
    }
}

pub(crate) fn approval() -> Approval {
    let witness = GenesisWitness { evidence: evidence(), nonce: [1; 32], activation_secret: [2; 32] };
    Approval { statement: vec![3; 1024], signature: "s".repeat(4096), witness: Some(witness) }
}

/// To the wire, through bytes, and back.
pub(crate) fn comes_back<D, W>(value: D)
where
    D: Clone + PartialEq + std::fmt::Debug + TryFrom<W, Error = WireError>,
    W: Message + Default + From<D>,
{
    let wire = W::from(value.clone());
    let decoded = W::decode(wire.encode_to_vec().as_slice()).unwrap();
    assert_eq!(D::try_from(decoded), Ok(value));
}

pub(crate) fn key_epoch() -> KeyEpochSubmission {
    KeyEpochSubmission { statement: vec![b'x'; 1024], signature: "s".repeat(limits::SSHSIG_BYTES_MAX) }
}

pub(crate) fn key_epochs() -> KeyEpochLinks {
    let link = ledger::key_epoch::EpochLink { entry: vec![b'x'; 16 << 10], proof: "p".repeat(4 << 10) };
    KeyEpochLinks { links: vec![link; ledger::key_epoch::LINKS_MAX] }
}
