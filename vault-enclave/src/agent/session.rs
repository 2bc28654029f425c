//! One exchange with the keeper, from challenge to unit keys.
//!
//! [`Session::start`] makes the evidence, [`Session::accept`] takes the grant; a session is moved through both, so that
//! its one-use HPKE key opens one grant and is then gone. Whatever the host put in between is caught here: the grant is
//! checked against what *this* session asked and bound, never against what the message says it is.

use attestation::{Binding, LeaseKey, Load, LoadChallenge, Sha256Digest, Workload};
use ledger::checkpoint::LogVerifier;
use ledger::entry::{Entry, Release};
use ledger::lease::{LeaseStatement, grant_message};
use ledger::manifest::{Manifest, Selection};
use ledger::names::{Name, Version};
use ledger::vault_file::VaultFile;
use ring::rand::SecureRandom;
use vault_proto::convert::{Challenge, EvidenceSet, Grant, ReleaseRequest, SignedLease};

use super::attester::Attester;
use super::error::SessionError;
use crate::unit_keys::UnitKeys;
use crate::wrap::{GrantInfo, HpkeKeyPair, WrappedKeys, unwrap_unit_keys};

/// What the agent wants: from its own configuration, and the manifest that the host delivered.
pub struct Wanted<'a> {
    /// The vault; from the measured image or `--vault`.
    pub vault: &'a VaultFile,
    /// The release rule.
    pub rule: &'a Name,
    /// The model.
    pub model: &'a Name,
    /// Its version.
    pub version: &'a Version,
    /// Its manifest. Not yet trusted: the grant names the digest of the one that the publisher signed.
    pub manifest: &'a Manifest,
    /// Which units.
    pub selection: &'a Selection,
    /// What is started with the weights: shown where the challenge asks for it.
    pub workload: Option<Workload>,
}

/// An exchange that waits for its grant.
pub struct Session<'a> {
    wanted: &'a Wanted<'a>,
    pair: HpkeKeyPair,
    binding: Binding<Load>,
    evidence: Sha256Digest,
}

/// What a session got.
pub struct Granted {
    /// Keys of exactly the units asked for.
    pub keys: UnitKeys,
    /// The log entry of this release.
    pub release: Release,
    /// Its exact bytes.
    pub entry: Vec<u8>,
    /// Its place in the log.
    pub index: u64,
    /// The lease as it was signed, for renewals.
    pub lease: SignedLease,
    /// What it says.
    pub statement: LeaseStatement,
}

impl<'a> Session<'a> {
    /// Answers a challenge: a one-use key pair, the credential activated where there is one, evidence over the binding.
    ///
    /// # Errors
    /// [`SessionError`]: the challenge is not for what was wanted, or the TPM refused.
    pub fn start(
        wanted: &'a Wanted<'a>,
        challenge: Challenge,
        agent: &Attester<'_>,
        lease_key: LeaseKey,
        rng: &dyn SecureRandom,
    ) -> Result<(Self, ReleaseRequest), SessionError> {
        wanted.check(&challenge)?;
        let tpm = agent.part(&challenge)?;
        let pair = HpkeKeyPair::generate(rng)?;
        let hpke_key = pair.public_key().clone();
        let session = challenge.session;
        let workload = wanted.workload.filter(|_| challenge.workload);
        let binding = LoadChallenge {
            rule: wanted.rule.as_str().to_owned(),
            model: wanted.model.as_str().to_owned(),
            version: wanted.version.as_str().to_owned(),
            session,
            nonce: challenge.nonce,
            vault: challenge.vault_id,
            policy: challenge.policy,
            manifest: challenge.manifest,
            units: challenge.units,
            tpm,
        }
        .bind_workload(hpke_key.clone(), lease_key.clone(), workload);
        let evidence = agent.evidence(&binding, &challenge.asked)?;
        let started = Self::bound(wanted, pair, binding, &evidence);
        Ok((started, ReleaseRequest { session, hpke_key, lease_key, evidence, workload }))
    }

    /// Checks a grant and opens its keys. The HPKE key is gone afterwards, whatever the outcome.
    ///
    /// # Errors
    /// [`SessionError`]: one variant for each check.
    pub fn accept(self, grant: Grant) -> Result<Granted, SessionError> {
        let vault = self.wanted.vault;
        let leaf = ledger::merkle::leaf_hash(&grant.entry);
        let message = grant_message(&leaf, grant.enc.as_slice(), &grant.wrapped_keys);
        vault.identity_key().verify(&message, &grant.signature).map_err(|_| SessionError::GrantSignature)?;
        let verifier = LogVerifier::of(vault.genesis());
        let (index, _checkpoint) = verifier.verify_proof(&grant.log_proof, &grant.entry)?;
        let Entry::Release(release) = Entry::parse(&grant.entry)? else { return Err(SessionError::NotARelease) };
        self.check_release(&release)?;
        let statement = verify_lease(vault, &grant.lease)?;
        check_lease(&release, &statement)?;
        let bound = self.binding.statement();
        let info = GrantInfo {
            vault: vault.id(),
            session: *bound.session(),
            nonce: *bound.nonce(),
            evidence: self.evidence,
            policy: bound.policy(),
            manifest: bound.manifest(),
            units: bound.units(),
            lease_key: bound.lease_key(),
            lease: bound.lease_id(),
            renew_by: release.renew_by,
            leaf,
        };
        let wrapped = WrappedKeys { enc: grant.enc.to_vec(), ciphertext: grant.wrapped_keys };
        let keys = unwrap_unit_keys(self.pair, &info, &wrapped)?;
        Ok(Granted { keys, release: *release, entry: grant.entry, index, lease: grant.lease, statement })
    }

    pub(super) fn bound(
        wanted: &'a Wanted<'a>,
        pair: HpkeKeyPair,
        binding: Binding<Load>,
        evidence: &EvidenceSet,
    ) -> Self {
        Self { wanted, pair, binding, evidence: Sha256Digest::of(&evidence.blob()) }
    }

    /// The entry must state this session's release and no other: each field that the agent knows itself is compared.
    fn check_release(&self, release: &Release) -> Result<(), SessionError> {
        let bound = self.binding.statement();
        let units = bound.units();
        let bytes = self.wanted.manifest.bytes_of(units)?;
        let same = [
            ("rule", release.rule.as_str() == bound.rule()),
            ("model", release.model.as_str() == bound.model()),
            ("version", release.version.as_str() == bound.version()),
            ("policy", release.policy == bound.policy()),
            ("manifest", release.manifest == bound.manifest()),
            ("unit set", release.units.digest == units.digest()),
            ("number of units", release.units.count as usize == units.len()),
            ("number of bytes", release.units.bytes == bytes),
            ("session", release.session == *bound.session()),
            ("key", release.hpke_key == Sha256Digest::of(bound.hpke_key().as_bytes())),
            ("lease", release.lease == bound.lease_id()),
            ("lease key", release.lease_key == *bound.lease_key()),
            ("workload", release.workload.as_ref() == bound.workload()),
            ("evidence", release.evidence == self.evidence),
            ("binding", release.binding == Sha256Digest::of(self.binding.preimage())),
        ];
        all(&same).map_err(|field| SessionError::OtherRelease { field })
    }
}

impl Wanted<'_> {
    /// A challenge that asks for something else is refused before the TPM is asked for anything.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn check(&self, challenge: &Challenge) -> Result<(), SessionError> {
        let (expected, found) = (self.vault.id(), challenge.vault_id);
        if expected != found {
            return Err(SessionError::OtherVault { expected, found });
        }
        let id = self.manifest.id();
        if id.vault != self.vault.id() || id.model != *self.model || id.version != *self.version {
            return Err(SessionError::OtherModel);
        }
        let (expected, found) = (challenge.manifest, self.manifest.digest());
        if expected != found {
            return Err(SessionError::OtherManifest { expected, found });
        }
        // A host that adds units would make this guest answer for more than it wants.
        if self.manifest.select(self.selection)? != challenge.units {
            return Err(SessionError::OtherUnits);
        }
        Ok(())
    }
}

/// A lease statement that the vault's identity key signed, for this vault.
///
/// # Errors
/// [`SessionError::LeaseSignature`], [`SessionError::LeaseMalformed`], [`SessionError::OtherLease`].
pub fn verify_lease(vault: &VaultFile, lease: &SignedLease) -> Result<LeaseStatement, SessionError> {
    let message = LeaseStatement::message(&lease.statement);
    vault.identity_key().verify(&message, &lease.signature).map_err(|_| SessionError::LeaseSignature)?;
    let statement = LeaseStatement::parse(&lease.statement).map_err(|_| SessionError::LeaseMalformed)?;
    if statement.vault == vault.id() { Ok(statement) } else { Err(SessionError::OtherLease { field: "vault" }) }
}

/// A signed lease that may take the place of `held`.
///
/// # Errors
/// As [`verify_lease`]; [`SessionError::LeaseNotNewer`].
pub fn verify_renewal(
    vault: &VaultFile,
    held: &LeaseStatement,
    renewed: &SignedLease,
) -> Result<LeaseStatement, SessionError> {
    let statement = verify_lease(vault, renewed)?;
    let same = [
        ("id", statement.lease == held.lease),
        ("key", statement.lease_key == held.lease_key),
        ("rule", statement.rule == held.rule),
    ];
    all(&same).map_err(|field| SessionError::OtherLease { field })?;
    // An old statement shown again must not pass for a renewal. Its end may be sooner: a new policy can have made leases
    // shorter.
    if statement.issued <= held.issued {
        return Err(SessionError::LeaseNotNewer);
    }
    Ok(statement)
}

fn check_lease(release: &Release, statement: &LeaseStatement) -> Result<(), SessionError> {
    let same = [
        ("id", statement.lease == release.lease),
        ("key", statement.lease_key == release.lease_key),
        ("rule", statement.rule == release.rule),
        ("policy", statement.policy == release.policy),
        ("issued", statement.issued == release.issued),
        ("renew_by", statement.renew_by == release.renew_by),
    ];
    all(&same).map_err(|field| SessionError::OtherLease { field })
}

fn all(same: &[(&'static str, bool)]) -> Result<(), &'static str> {
    same.iter().find(|(_, same)| !same).map_or(Ok(()), |(field, _)| Err(field))
}
