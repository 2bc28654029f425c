//! Grants: what was decided, for whom, and the entry that must be in the log before anything is done.

use std::sync::Arc;

use attestation::{Claims, HpkePublicKey, LeaseKey, Load, Renew, Sha256Digest, UnitSet, UnixTime, Verified};

use super::{GrantedLoad, GrantedRenewal};
use crate::entry::{AlarmEntry, Entry, Machine, Release, ReleasedUnits, Renewal};
use crate::lease::LeaseStatement;
use crate::names::{Name, Version};
use crate::policy::ReleaseRule;
use crate::release_log::Loggable;
use crate::revocation::Marks;

/// Leave to wrap these unit keys for this recipient, once its entry is in the log. Made only by
/// [`decide`](super::decide); not `Clone`, not serialisable.
pub struct ReleaseGrant {
    rule_name: Name,
    rule: Arc<ReleaseRule>,
    model: Name,
    version: Version,
    units: ReleasedUnits,
    marks: Marks,
    issued: UnixTime,
    /// The alarm entry that has to stand before the release, if any rule rings.
    alarm: Option<AlarmEntry>,
    verified: Verified<Load>,
}

impl ReleaseGrant {
    pub(super) fn new(granted: GrantedLoad, verified: Verified<Load>) -> Self {
        let GrantedLoad { rule_name, rule, model, version, units, marks, issued, rings, measurement } = granted;
        let lease = verified.statement().lease_id();
        let alarm = (!rings.is_empty()).then_some(AlarmEntry { time: issued, lease, rules: rings, measurement });
        Self { rule_name, rule, model, version, units, marks, issued, alarm, verified }
    }

    /// The key inside the evidence: unit keys are wrapped to it and to no other.
    pub fn recipient(&self) -> &HpkePublicKey {
        self.load().hpke_key()
    }

    /// The units, ascending.
    pub fn units(&self) -> &UnitSet {
        self.load().units()
    }

    /// The model.
    pub fn model(&self) -> &Name {
        &self.model
    }

    /// Its version.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// SHA-256 of its manifest.
    pub fn manifest(&self) -> Sha256Digest {
        self.load().manifest()
    }

    /// The vault.
    pub fn vault(&self) -> Sha256Digest {
        self.load().vault()
    }

    /// SHA-256 of the policy in force.
    pub fn policy(&self) -> Sha256Digest {
        self.load().policy()
    }

    /// Name of the rule.
    pub fn rule_name(&self) -> &Name {
        &self.rule_name
    }

    /// The rule.
    pub fn rule(&self) -> &ReleaseRule {
        &self.rule
    }

    /// Names the challenge.
    pub fn session(&self) -> &[u8; 16] {
        self.load().session()
    }

    /// The nonce of the challenge.
    pub fn nonce(&self) -> &[u8; 32] {
        self.load().nonce()
    }

    /// Lease id.
    pub fn lease(&self) -> Sha256Digest {
        self.load().lease_id()
    }

    /// Signs renewals and the end of the lease.
    pub fn lease_key(&self) -> &LeaseKey {
        self.load().lease_key()
    }

    /// When it was decided.
    pub fn issued(&self) -> UnixTime {
        self.issued
    }

    /// Last moment of the lease without a renewal.
    pub fn renew_by(&self) -> UnixTime {
        self.issued.plus(self.rule.lease.seconds())
    }

    /// What the evidence showed.
    pub fn claims(&self) -> &Claims {
        self.verified.claims()
    }

    /// The preimage of the binding, which is kept beside the log.
    pub fn preimage(&self) -> &[u8] {
        self.verified.preimage()
    }

    /// The lease for the keeper to sign.
    pub fn lease_statement(&self) -> LeaseStatement {
        LeaseStatement {
            vault: self.vault(),
            lease: self.lease(),
            lease_key: self.lease_key().clone(),
            rule: self.rule_name.clone(),
            policy: self.policy(),
            issued: self.issued,
            renew_by: self.renew_by(),
            lease_end: self.rule.lease_end,
            unit_check: self.rule.unit_check,
        }
    }

    /// The `alarm` entry, where a rule rings: it goes into the log right before the release, which the fold refuses without.
    pub fn alarm(&self) -> Option<Entry> {
        self.alarm.clone().map(Entry::Alarm)
    }

    /// Names the blob of the evidence, after which the grant can go into the log.
    pub fn with_evidence(self, evidence: Sha256Digest) -> EvidencedGrant {
        EvidencedGrant { grant: self, evidence }
    }

    /// The `release` entry. Its time is that of the decision; `evidence` is the digest of the evidence blob.
    pub fn entry(&self, evidence: Sha256Digest) -> Entry {
        let claims = self.claims();
        Entry::Release(Box::new(Release {
            time: self.issued,
            rule: self.rule_name.clone(),
            model: self.model.clone(),
            version: self.version.clone(),
            policy: self.policy(),
            manifest: self.manifest(),
            units: self.units,
            session: *self.session(),
            hpke_key: Sha256Digest::of(self.recipient().as_bytes()),
            lease: self.lease(),
            lease_key: self.lease_key().clone(),
            issued: self.issued,
            renew_by: self.renew_by(),
            platform: claims.platform(),
            machine: Machine::of(claims),
            tier: claims.trust(),
            marks: Some(self.marks.clone()),
            workload: self.load().workload().copied(),
            evidence,
            binding: Sha256Digest::of(self.preimage()),
        }))
    }

    fn load(&self) -> &Load {
        self.verified.statement()
    }
}

/// A grant that names its evidence: what is staged for the log, and what comes back out of it as a
/// [`Logged`](crate::release_log::Logged).
pub struct EvidencedGrant {
    grant: ReleaseGrant,
    evidence: Sha256Digest,
}

impl EvidencedGrant {
    /// The grant.
    pub fn grant(&self) -> &ReleaseGrant {
        &self.grant
    }

    /// SHA-256 of the evidence blob.
    pub fn evidence(&self) -> Sha256Digest {
        self.evidence
    }
}

impl Loggable for EvidencedGrant {
    fn entry_bytes(&self) -> Vec<u8> {
        // Three names of at most 64 bytes, 32 labels of at most 128 (each byte twice, where it is escaped), 24 PCRs of 64
        // digits, and fields of fixed length: less than 13 KiB of the 16 that there are.
        self.grant.entry(self.evidence).encode().expect("a release entry fits")
    }
}

/// Leave to sign a longer lease. Made only by [`decide_renew`](super::decide_renew); not `Clone`, not serialisable.
pub struct RenewGrant {
    rule_name: Name,
    rule: Arc<ReleaseRule>,
    issued: UnixTime,
    verified: Verified<Renew>,
}

impl RenewGrant {
    pub(super) fn new(granted: GrantedRenewal, verified: Verified<Renew>) -> Self {
        let GrantedRenewal { rule_name, rule, issued } = granted;
        Self { rule_name, rule, issued, verified }
    }

    /// Lease id.
    pub fn lease(&self) -> Sha256Digest {
        self.verified.statement().lease()
    }

    /// When it was decided.
    pub fn issued(&self) -> UnixTime {
        self.issued
    }

    /// The new last moment.
    pub fn renew_by(&self) -> UnixTime {
        self.issued.plus(self.rule.lease.seconds())
    }

    /// What the evidence showed.
    pub fn claims(&self) -> &Claims {
        self.verified.claims()
    }

    /// The preimage of the binding, which is kept beside the log.
    pub fn preimage(&self) -> &[u8] {
        self.verified.preimage()
    }

    /// The lease for the keeper to sign.
    pub fn lease_statement(&self) -> LeaseStatement {
        LeaseStatement {
            vault: self.verified.statement().vault(),
            lease: self.lease(),
            lease_key: self.verified.statement().lease_key().clone(),
            rule: self.rule_name.clone(),
            policy: self.verified.statement().policy(),
            issued: self.issued,
            renew_by: self.renew_by(),
            lease_end: self.rule.lease_end,
            unit_check: self.rule.unit_check,
        }
    }

    /// Its part of a `renew` entry; `evidence` is the digest of the evidence blob.
    pub fn renewal(&self, evidence: Sha256Digest) -> Renewal {
        Renewal {
            lease: self.lease(),
            issued: self.issued,
            renew_by: self.renew_by(),
            evidence,
            binding: Sha256Digest::of(self.preimage()),
        }
    }
}
