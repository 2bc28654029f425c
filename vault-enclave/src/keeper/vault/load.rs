//! The load action: challenge, evidence, decision, entry, and only after the commit the keys.

use std::time::Instant;

use attestation::{
    ActivationSecret, Binding, Credential, EndorsedTpm, EventLog, Evidence, Expected, LoadChallenge, PcrSelection,
    RenewChallenge, Sha256Digest, TpmPart, Transcript, UnixTime, Verified,
};
use ledger::decide::{Denial, EvidencedGrant, ReleaseGrant, decide};
use ledger::lease::{LeaseStatement, grant_message};
use ledger::manifest::Selection;
use ledger::names::{Name, Version};
use ledger::policy::{BootRule, GuestRule, PcrRule, Policy};
use ledger::release_log::Logged;
use ledger::state::LoggedManifest;
use prost::Message;
use ring::rand::SecureRandom;
use vault_proto::convert::{
    AskedEvidence, AskedQuote, Challenge, ChallengeFor, ChallengeRequest, EvidenceSet, Grant, ReleaseRequest,
    SignedLease,
};
use vault_proto::v1::{self, keeper_reply::Response};

use super::{Outcome, Reply, Vault, opened};
use crate::derive::ModelContext;
use crate::keeper::challenges::{Asked, CHALLENGE_TTL_SECS, Pending, Redemption, SessionId};
use crate::keeper::refusal::Refusal;
use crate::keeper::service::Answer;
use crate::record;
use crate::unit_keys::UnitKeys;
use crate::wrap::{GrantInfo, wrap_unit_keys};

impl Vault {
    /// Issues a challenge to an endorsed TPM, for what a rule and the log name.
    pub(super) fn get_challenge(&mut self, request: v1::GetChallengeRequest) -> Result<Outcome, Refusal> {
        let request = ChallengeRequest::try_from(request)?;
        let now = self.now();
        let policy = self.opened()?.policy().clone();
        let policy_digest = policy.digest();
        let rule = policy
            .release_rule(&request.rule)
            .ok_or_else(|| Refusal::denied("rule-unknown", format!("the policy has no [release.{}]", request.rule)))?;
        let Prepared { expected, part, evidence } = self.prepare(&rule.guest, &request, &policy, now)?;
        let (session, nonce) = (self.random()?, self.random()?);
        let manifest = self.logged_manifest(&request.model, &request.version)?;
        let vault = self.vault_id();
        let mut workload = rule.workloads.asks();
        let (asked, units) = match request.action {
            ChallengeFor::Load(selection) => {
                let units = manifest.manifest().select(&selection)?;
                let challenge = LoadChallenge {
                    rule: request.rule.as_str().to_owned(),
                    model: request.model.as_str().to_owned(),
                    version: request.version.as_str().to_owned(),
                    session,
                    nonce,
                    vault,
                    policy: policy_digest,
                    manifest: manifest.manifest().digest(),
                    units: units.clone(),
                    tpm: part,
                };
                (Asked::Load(challenge), units)
            }
            ChallengeFor::Renew { lease_id } => {
                let lease = self.opened()?.lease(lease_id).ok_or_else(|| unknown_lease(lease_id))?;
                // As at its release: whether the rule still asks, or asks now, is for the decision.
                workload = lease.workload.is_some();
                let challenge = RenewChallenge {
                    rule: request.rule.as_str().to_owned(),
                    session,
                    nonce,
                    vault,
                    policy: policy_digest,
                    lease: lease_id,
                    lease_key: lease.lease_key.clone(),
                    tpm: part,
                };
                (Asked::Renew(challenge), manifest.manifest().select(&Selection::All)?)
            }
        };
        let events = rule.guest.pcrs().and_then(PcrRule::boot).map(BootRule::pcrs);
        self.challenges.issue(session, Pending { asked, expected, events }, Instant::now());
        let challenge = Challenge {
            session,
            nonce,
            asked: evidence,
            vault_id: vault,
            policy: policy_digest,
            manifest: manifest.manifest().digest(),
            units,
            workload,
            expires: now.plus(CHALLENGE_TTL_SECS),
        };
        Ok(Outcome::Now(Ok(Response::GetChallenge(challenge.into()))))
    }

    /// What the evidence will be checked against, and the TPM's part in the binding: as the rule's form asks.
    fn prepare(
        &self,
        rule: &GuestRule,
        request: &ChallengeRequest,
        policy: &Policy,
        now: UnixTime,
    ) -> Result<Prepared, Refusal> {
        let form = rule.form();
        if !request.forms.contains(&form) {
            let message =
                format!("the rule {} asks for evidence of the form {form}, which this guest can't show", request.rule);
            return Err(Refusal::denied("evidence-form-unavailable", message));
        }
        let expected = rule.expected(request.tpm.as_ref(), policy.trust_anchors(), self.platforms()?.eks(), now)?;
        let event_log = rule.pcrs().is_some_and(|rule| rule.boot().is_some());
        let quote = |pcrs: &PcrSelection| AskedQuote { pcrs: *pcrs, event_log };
        let (part, evidence) = match &expected {
            Expected::Tpm { tpm, pcrs } => {
                let (part, credential) = self.credential(tpm)?;
                (part, AskedEvidence::Tpm { credential, quote: quote(pcrs) })
            }
            Expected::SnpTpm { tpm, pcrs, .. } => {
                let (part, credential) = self.credential(tpm)?;
                (part, AskedEvidence::SnpTpm { credential, quote: quote(pcrs) })
            }
            Expected::Snp { .. } => (TpmPart::Absent, AskedEvidence::Snp),
            // The AK of an Azure guest comes with the evidence, and is then in the binding.
            Expected::AzureSnpVtpm { pcrs, .. } => {
                (TpmPart::Absent, AskedEvidence::AzureSnpVtpm { quote: quote(pcrs) })
            }
        };
        Ok(Prepared { expected, part, evidence })
    }

    fn credential(&self, tpm: &EndorsedTpm) -> Result<(TpmPart, Credential), Refusal> {
        let secret = ActivationSecret::generate(&self.rng)?;
        let credential = tpm.make_credential(&secret, &self.rng)?;
        Ok((TpmPart::Activated { ak_name: *tpm.ak().name(), secret }, credential))
    }

    /// Redeems a load challenge.
    pub(super) fn release_keys(&mut self, request: v1::ReleaseKeysRequest, reply: Reply) {
        let digest = Sha256Digest::of(&request.encode_to_vec());
        let Some((redemption, reply)) = self.redeem(&request.session, digest, reply) else { return };
        let session = redemption.session;
        let outcome =
            self.decide_load(redemption.pending, request).unwrap_or_else(|refusal| Outcome::Now(Err(refusal)));
        self.settle(outcome, Some(session), reply);
    }

    /// Consumes the challenge of a session; `None` where the reply was taken care of.
    pub(super) fn redeem(
        &mut self,
        session: &[u8],
        request: Sha256Digest,
        reply: Reply,
    ) -> Option<(Redemption, Reply)> {
        let Ok(session) = SessionId::try_from(session) else {
            self.settle(Outcome::Now(Err(Refusal::malformed("malformed-session", "session: 16 bytes"))), None, reply);
            return None;
        };
        self.challenges.redeem(session, request, reply, Instant::now())
    }

    fn decide_load(&mut self, pending: Pending, request: v1::ReleaseKeysRequest) -> Result<Outcome, Refusal> {
        let Asked::Load(mut challenge) = pending.asked else {
            return Err(Refusal::denied("challenge-action", "this challenge was made for another action"));
        };
        let ReleaseRequest { hpke_key, lease_key, evidence, workload, .. } = request.try_into()?;
        let (model, version) = (name(&challenge.model)?, version(&challenge.version)?);
        let blob = evidence.blob();
        name_reported_ak(&mut challenge.tpm, &evidence.evidence)?;
        let binding = challenge.bind_workload(hpke_key, lease_key, workload);
        let verified = self.verify(evidence, binding, &pending.expected, pending.events.as_ref())?;
        let manifest = self.logged_manifest(&model, &version)?;
        let now = self.now();
        let evidence = Sha256Digest::of(&blob);
        // Limits must count leases that were renewed since the last commit.
        self.stage_renewals();
        let grant = match decide(&self.state, verified, &manifest, now) {
            Ok(grant) => grant,
            Err(denial) => return self.deny(&denial, blob, now),
        };
        self.stage_alarm(&grant)?;
        let preimage = grant.preimage().to_vec();
        let ticket = self.stage(grant.with_evidence(evidence))?;
        self.pending.blobs.extend([blob, preimage]);
        Ok(Outcome::AfterCommit(Box::new(move |vault| match ticket.redeem() {
            Ok(logged) => vault.release(&logged, &manifest),
            Err(_) => Err(Refusal::unavailable("not-logged", "the entry is not in the log: try again")),
        })))
    }

    /// Refuses somebody whose evidence verified: that earns an entry where hardware vouched for it, rate-limited by
    /// platform.
    pub(super) fn deny(&mut self, denial: &Denial, evidence: Vec<u8>, now: UnixTime) -> Result<Outcome, Refusal> {
        let refusal = Refusal::from(denial);
        let Some(entry) = denial.entry(now, Sha256Digest::of(&evidence)) else { return Err(refusal) };
        if !self.denials.earns_entry(denial.request().platform) {
            return Err(refusal);
        }
        self.stage_entry(&entry)?;
        self.pending.blobs.push(evidence);
        Ok(Outcome::AfterCommit(Box::new(move |_| Err(refusal))))
    }

    /// The act itself. Its argument exists only because its entry is durable; the recipient is inside it. What a revocation
    /// in the same commit covers is not released: nobody watches that lease yet, to be told.
    fn release(&mut self, logged: &Logged<EvidencedGrant>, manifest: &LoggedManifest) -> Answer {
        let grant = logged.value().grant();
        if let Some(entry) = self.opened()?.lease(grant.lease()).and_then(|lease| lease.revoked) {
            return Err(Refusal::denied("revoked", format!("entry {entry} of the log has just revoked it")));
        }
        let keys = self.unit_keys(grant, manifest)?;
        let leaf = *logged.leaf_hash();
        let info = GrantInfo {
            vault: grant.vault(),
            session: *grant.session(),
            nonce: *grant.nonce(),
            evidence: logged.value().evidence(),
            policy: grant.policy(),
            manifest: grant.manifest(),
            units: grant.units(),
            lease_key: grant.lease_key(),
            lease: grant.lease(),
            renew_by: grant.renew_by(),
            leaf,
        };
        let wrapped = wrap_unit_keys(grant.recipient(), &info, &keys, &self.rng)
            .map_err(|error| Refusal::denied(error.code(), error))?;
        let message = grant_message(&leaf, &wrapped.enc, &wrapped.ciphertext);
        let response = Grant {
            entry: logged.entry().to_vec(),
            enc: wrapped.enc.try_into().map_err(|_| Refusal::unavailable("wrap", "HPKE gave another length"))?,
            wrapped_keys: wrapped.ciphertext,
            log_proof: logged.proof(),
            signature: self.keys.sign_identity(&message)?,
            lease: self.sign_lease(&grant.lease_statement())?,
        };
        Ok(Response::ReleaseKeys(response.into()))
    }

    /// The granted keys, from the DEK record that the model's entry names.
    fn unit_keys(&mut self, grant: &ReleaseGrant, manifest: &LoggedManifest) -> Result<UnitKeys, Refusal> {
        let record = self.dek_record(manifest.model().proposed.dek_record)?;
        let manifest = manifest.manifest();
        let kek = (self.keys.kek(), self.epoch.number);
        let dek = record::open_dek(kek, self.vault_id(), manifest.plan_digest(), &record)
            .map_err(|error| Refusal::unavailable(error.code(), error))?;
        UnitKeys::derive(&dek, ModelContext::from(manifest), grant.units().clone())
            .map_err(|error| Refusal::unavailable(error.code(), error))
    }

    /// Under the anchors of the policy in force: the decision asks whether it is still the challenge's. An event log is
    /// believed for the PCRs that the challenge was about; that one is missing is for the decision to say.
    pub(super) fn verify<S: Transcript>(
        &mut self,
        evidence: EvidenceSet,
        binding: Binding<S>,
        expected: &Expected,
        events: Option<&PcrSelection>,
    ) -> Result<Verified<S>, Refusal> {
        let now = self.now();
        let anchors = opened(&self.state)?.policy().trust_anchors();
        let EvidenceSet { evidence, event_log } = evidence;
        let verified = evidence.verify_keeping(&mut self.chains, binding, expected, anchors, now)?;
        match (event_log, events) {
            (Some(log), Some(pcrs)) => Ok(verified.with_event_log(EventLog::parse(&log)?.replay(), pcrs)?),
            // It would lie beside the log for ever, and nobody would have looked at it.
            (Some(_), None) => Err(Refusal::denied("event-log-unasked", "this rule does not ask for an event log")),
            (None, _) => Ok(verified),
        }
    }

    pub(super) fn sign_lease(&self, statement: &LeaseStatement) -> Result<SignedLease, Refusal> {
        let statement = statement.encode();
        let signature = self.keys.sign_identity(&LeaseStatement::message(&statement))?;
        Ok(SignedLease { statement, signature })
    }

    /// The manifest that the log names for a model; the host's copy has no other digest.
    pub(super) fn logged_manifest(&mut self, model: &Name, version: &Version) -> Result<LoggedManifest, Refusal> {
        let Some(published) = self.opened()?.model(model, version).cloned() else {
            return Err(unknown_model(model, version));
        };
        let digest = published.proposed.manifest;
        if let Some(known) = self.models.opened(digest).filter(|known| known.is_of(&published)) {
            return Ok(known);
        }
        let bytes = self.models.blob(&self.store, digest)?;
        let opened = self.state.open_manifest(model, version, &bytes);
        let opened = opened.map_err(|error| Refusal::unavailable(error.code(), error))?;
        self.models.keep_opened(&opened);
        Ok(opened)
    }

    pub(super) fn random<const N: usize>(&self) -> Result<[u8; N], Refusal> {
        let mut bytes = [0; N];
        self.rng.fill(&mut bytes).map_err(|_| Refusal::unavailable("random", "the system gave no random bytes"))?;
        Ok(bytes)
    }
}

/// How a challenge is made for a rule.
struct Prepared {
    expected: Expected,
    part: TpmPart,
    evidence: AskedEvidence,
}

/// Puts the AK that an Azure report endorses into the binding. It is taken from the request, as the HPKE key is: whether
/// the report endorses it is what the verification says.
pub(super) fn name_reported_ak(part: &mut TpmPart, evidence: &Evidence) -> Result<(), Refusal> {
    match evidence {
        Evidence::AzureSnpVtpm(azure) => {
            *part = TpmPart::Reported { ak_name: azure.ak_name()? };
            Ok(())
        }
        Evidence::Tpm(_) | Evidence::Snp(_) | Evidence::SnpTpm { .. } => Ok(()),
    }
}

pub(super) fn unknown_lease(lease: Sha256Digest) -> Refusal {
    Refusal::unknown("lease-unknown", format!("there is no lease {lease}, or it ended"))
}

fn unknown_model(model: &Name, version: &Version) -> Refusal {
    let message = format!("{model}@{version} is not in the log: sealed and approved models are in `vaultctl models`");
    Refusal::unknown("model-unknown", message)
}

pub(super) fn name(text: &str) -> Result<Name, Refusal> {
    Name::try_from(text.to_owned()).map_err(|error| Refusal::malformed(error.code(), error))
}

fn version(text: &str) -> Result<Version, Refusal> {
    Version::try_from(text.to_owned()).map_err(|error| Refusal::malformed(error.code(), error))
}
