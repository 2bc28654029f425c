//! What a keeper does with a letter (`vault-enclave/src/keeper/vault/`: load, renew, provision, revoke, extend).

use attestation::{
    ActivationSecret, LeaseKey, LoadChallenge, PcrSelection, RenewChallenge, Sha256Digest, TpmPart, TpmQuote, UnitSet,
    Verified, verify_tpm,
};
use ledger::decide::{Denial, EvidencedGrant, decide, decide_renew};
use ledger::entry::{Approve, BudgetRaised, Cause, End, Entry, Extend, PolicyInForce, Propose, Revoke};
use ledger::extension::ExtensionFile;
use ledger::lease::{LeaseStatement, end_message, grant_message, renew_message};
use ledger::merkle::leaf_hash;
use ledger::release_log::Logged;
use ledger::revocation::{RevocationAct, notice_message};
use ledger::state::{Lease, Subject};

use crate::bug::Bug;
use crate::mail::{Body, Letter, SessionId, Signed, To};
use crate::run::{Challenged, Failure, Run};
use crate::scene::{Guard, Scene};
use crate::sim::Sim;
use crate::support::evidence::hpke_key;
use crate::support::world::rule;

const CHALLENGE_TTL_SECS: u64 = 60;
const UNCOUNTED_MAX: u64 = 300;

impl Run {
    pub fn handle(&mut self, sim: &mut Sim, letter: &Letter) {
        if self.is_cut() {
            return;
        }
        self.watch_clock(sim);
        let done = match &letter.body {
            Body::GetChallenge { agent, lease } => self.challenge(sim, letter.id, *agent, *lease),
            Body::Load { session, key, quote } => self.load(sim, letter.id, *session, key, quote),
            Body::Renew { session, lease, quote, shown, signature } => {
                self.renew(sim, letter.id, *session, *lease, quote, shown, signature)
            }
            Body::End { lease, signature } => self.end(sim, *lease, signature),
            Body::Propose(proposal) => {
                let time = self.time_of_entry(sim);
                let entry = Entry::Propose(Propose { time, proposal: proposal.clone() });
                self.stage_entry(sim, &entry).and_then(|()| self.effects(sim))
            }
            Body::Approve { statement, signature } => {
                let (time, statement, signature) = (self.time_of_entry(sim), statement.clone(), signature.clone());
                let entry = Entry::Approve(Approve { time, statement, signature, witness: None });
                self.stage_entry(sim, &entry).and_then(|()| self.effects(sim))
            }
            Body::Extension(file) => self.extension(sim, file),
            Body::Challenge { .. }
            | Body::Grant { .. }
            | Body::Renewed { .. }
            | Body::Notice { .. }
            | Body::Refused { .. } => Ok(()),
        };
        if let Err(why) = done {
            sim.say(format!("run {} refuses {}: {why}", self.number, letter.body.words()));
        }
    }

    fn time_of_entry(&mut self, sim: &Sim) -> attestation::UnixTime {
        match sim.bug {
            Some(Bug::EntriesOfTheHostsTime) => attestation::UnixTime(sim.time().wall),
            _ => self.now(sim),
        }
    }

    fn challenge(
        &mut self,
        sim: &mut Sim,
        request: u32,
        agent: usize,
        lease: Option<Sha256Digest>,
    ) -> Result<(), Failure> {
        let vault = self.vault().ok_or("vault-not-open")?;
        if let Some(lease) = lease {
            vault.lease(lease).ok_or("lease-unknown")?;
        }
        let (policy, nonce) = (vault.policy().digest(), sim.rng.bytes());
        let session: SessionId = sim.rng.bytes()[..16].try_into().unwrap();
        let expires = sim.now + CHALLENGE_TTL_SECS;
        self.challenges.retain(|_, known| known.expires > sim.now);
        self.challenges.insert(session, Challenged { agent, lease, nonce, policy, expires, used: None });
        sim.post(To::Agent(agent), Body::Challenge { request, session, nonce, policy });
        Ok(())
    }

    /// Consumes a challenge before anything of its redemption is looked at.
    fn redeem(&mut self, sim: &Sim, session: SessionId, letter: u32) -> Result<Challenged, Failure> {
        let known = self.challenges.get_mut(&session).filter(|known| known.expires > sim.now);
        let known = known.ok_or("challenge-unknown")?;
        if known.used.is_some() {
            return Err("challenge-consumed".to_owned());
        }
        known.used = Some(letter);
        let Challenged { agent, lease, nonce, policy, expires, used } = *known;
        Ok(Challenged { agent, lease, nonce, policy, expires, used })
    }

    fn load(
        &mut self,
        sim: &mut Sim,
        letter: u32,
        session: SessionId,
        key: &LeaseKey,
        quote: &TpmQuote,
    ) -> Result<(), Failure> {
        let challenged = self.redeem(sim, session, letter)?;
        let (scene, agent) = (sim.scene, challenged.agent);
        let challenge = load_challenge(scene, agent, session, challenged.nonce, challenged.policy);
        let verified = verify(scene, agent, quote, challenge.bind(hpke_key(), key.clone()))?;
        self.open_manifest(scene)?;
        let now = self.now(sim);
        if sim.bug != Some(Bug::RenewalsLeftOut) {
            self.stage_renewals();
        }
        let manifest = self.manifest.as_ref().expect("it was just opened");
        let decided = decide(&self.fold.state, verified, manifest, now);
        let decided = decided.map_err(Box::new).map_err(|denial| self.deny(sim, *denial, agent, session));
        let grant = decided?;
        if !self.fold.has_room(now) {
            return Err("too-many-leases".to_owned());
        }
        let ticket = self.stage(sim, grant.with_evidence(evidence(quote)))?;
        self.pending.grants.push((session, sim.now, ticket));
        Ok(())
    }

    fn open_manifest(&mut self, scene: &Scene) -> Result<(), Failure> {
        let (model, version) = ("minilm".parse().unwrap(), "1.0".parse().unwrap());
        if self.manifest.is_none() {
            let opened = self.fold.state.open_manifest(&model, &version, scene.manifest.bytes());
            self.manifest = Some(opened.map_err(|error| error.code().to_owned())?);
        }
        Ok(())
    }

    fn deny(&mut self, sim: &mut Sim, denial: Denial, agent: usize, session: SessionId) -> Failure {
        sim.post(To::Agent(agent), Body::Refused { session });
        if sim.rng.one_in(4)
            && let Some(entry) = denial.entry(self.now(sim), Sha256Digest::of(b"evidence"))
        {
            // A denial that the fold refuses is not written.
            let _ = self.stage_entry(sim, &entry);
        }
        denial.code().to_owned()
    }

    /// The act itself: its argument is there only because its entry is durable.
    pub fn release(&mut self, sim: &mut Sim, session: SessionId, decided: u64, logged: &Logged<EvidencedGrant>) {
        let grant = logged.value().grant();
        let revoked = self.vault().and_then(|vault| vault.lease(grant.lease())).and_then(|lease| lease.revoked);
        if revoked.is_some() && sim.bug != Some(Bug::RevokedInTheSameCommit) {
            return sim.say(format!("run {} releases nothing: the same commit has revoked it", self.number));
        }
        let (entry, proof) = (logged.entry().to_vec(), logged.proof());
        let signature = sim.scene.sign_identity(&grant_message(logged.leaf_hash(), b"enc", b"wrapped"));
        let statement = grant.lease_statement();
        let agent = self.challenges.get(&session).map(|known| known.agent);
        sim.key_leaves(self.number, (logged.index(), &entry), decided, &statement);
        let lease = sim.scene.sign_lease(&statement);
        sim.say(format!("run {} releases keys by entry {}", self.number, logged.index()));
        if let Some(agent) = agent {
            sim.post(To::Agent(agent), Body::Grant { session, entry, proof, signature, lease });
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of the message")]
    fn renew(
        &mut self,
        sim: &mut Sim,
        letter: u32,
        session: SessionId,
        lease: Sha256Digest,
        quote: &TpmQuote,
        shown: &Signed,
        signature: &[u8; 64],
    ) -> Result<(), Failure> {
        let challenged = self.redeem(sim, session, letter)?;
        if challenged.lease != Some(lease) {
            return Err("lease-mismatch".to_owned());
        }
        let (scene, agent, now) = (sim.scene, challenged.agent, self.now(sim));
        self.check_shown(scene, lease, shown, now)?;
        let key = self.vault().and_then(|vault| vault.lease(lease)).ok_or("lease-unknown")?.lease_key.clone();
        let challenge =
            renew_challenge(scene, agent, (session, challenged.nonce, challenged.policy), (lease, key.clone()));
        let binding = challenge.bind();
        key.verify(&renew_message(&session, &lease, binding.digest()), signature).map_err(|_| "lease-signature")?;
        let verified = verify(scene, agent, quote, binding)?;
        self.stage_renewals_of_another_time(sim);
        if self.renewals.iter().any(|renewal| renewal.lease == lease) && sim.bug != Some(Bug::RenewalsLeftOut) {
            self.stage_renewals();
        }
        let decided = match sim.bug {
            Some(Bug::RevocationNotAsked) => {
                decide_renew(&self.fold.without(|entry| matches!(entry, Entry::Revoke(_))), verified, now)
            }
            _ => decide_renew(&self.fold.state, verified, now),
        };
        let grant = decided.map_err(Box::new).map_err(|denial| self.deny(sim, *denial, agent, session))?;
        if self.oldest_renewal.is_some_and(|oldest| sim.now - oldest > UNCOUNTED_MAX)
            && sim.bug != Some(Bug::RenewalsLeftOut)
        {
            return Err("renewals-uncounted".to_owned());
        }
        let statement = grant.lease_statement();
        let signed_until = self.vault().and_then(|vault| vault.lease(lease)).map(Lease::signed_until);
        if signed_until.is_some_and(|until| statement.renew_by < until) && sim.bug != Some(Bug::RenewalShortensLease) {
            return Err("lease-not-due".to_owned());
        }
        self.check_own_run(sim)?;
        self.renewals.push(grant.renewal(evidence(quote)));
        self.oldest_renewal.get_or_insert(sim.now);
        if scene.guard == Guard::Counter {
            self.answer_renewal(sim, agent, session, &statement);
        } else {
            self.pending.renewed.push((agent, session, statement));
        }
        Ok(())
    }

    pub fn answer_renewal(&self, sim: &mut Sim, agent: usize, session: SessionId, statement: &LeaseStatement) {
        sim.lease_signed(statement);
        let lease = sim.scene.sign_lease(statement);
        sim.post(To::Agent(agent), Body::Renewed { session, lease });
    }

    /// An agent renews only with a signed lease that has not run out.
    fn check_shown(
        &self,
        scene: &Scene,
        lease: Sha256Digest,
        shown: &Signed,
        now: attestation::UnixTime,
    ) -> Result<(), Failure> {
        let message = LeaseStatement::message(&shown.statement);
        scene.identity_key.verify(&message, &shown.signature).map_err(|_| "lease-statement-signature")?;
        let stated = LeaseStatement::parse(&shown.statement).map_err(|_| "malformed-lease-statement")?;
        if stated.vault != scene.vault() || stated.lease != lease {
            return Err("lease-mismatch".to_owned());
        }
        let extended = self.vault().and_then(|vault| vault.lease(lease)).and_then(|lease| lease.extended);
        match stated.renew_by < now && extended.is_none_or(|until| until < now) {
            true => Err("lease-expired".to_owned()),
            false => Ok(()),
        }
    }

    fn end(&mut self, sim: &mut Sim, lease: Sha256Digest, signature: &[u8; 64]) -> Result<(), Failure> {
        let now = self.now(sim);
        let key = self.vault().and_then(|vault| vault.lease(lease)).ok_or("lease-unknown")?.lease_key.clone();
        key.verify(&end_message(&sim.scene.vault(), &lease), signature).map_err(|_| "lease-signature")?;
        if sim.bug != Some(Bug::RenewalsLeftOut) {
            self.stage_renewals();
        }
        self.stage_entry(sim, &Entry::End(End { time: now, lease, cause: Cause::Agent }))
    }

    /// What has reached its threshold takes effect.
    fn effects(&mut self, sim: &mut Sim) -> Result<(), Failure> {
        let time = self.now(sim);
        loop {
            let Some(vault) = self.vault() else { return Ok(()) };
            let Some(due) = vault.due(time) else { return Ok(()) };
            let (proposal, object) = (due.entry(), due.object());
            let entry = match due.subject() {
                Subject::Policy { policy, .. } => {
                    Entry::Policy(PolicyInForce { time, proposal, object, serial: policy.serial() })
                }
                Subject::Raise { raise, .. } => {
                    Entry::Budget(BudgetRaised { time, proposal, object, budget: raise.budget.clone() })
                }
                Subject::Revocation { act, .. } => {
                    let act = act.clone();
                    self.stage_renewals();
                    self.revoke(sim, proposal, object, &act)?;
                    continue;
                }
                Subject::Model(_)
                | Subject::Platform { .. }
                | Subject::Reseal { .. }
                | Subject::Join(_)
                | Subject::KeyEpoch { .. }
                | Subject::Escrow { .. }
                | Subject::Recover(_)
                | Subject::Leave { .. }
                | Subject::Permit { .. } => {
                    return Err("not in this simulation".to_owned());
                }
            };
            self.stage_renewals();
            self.stage_entry(sim, &entry)?;
        }
    }

    fn revoke(
        &mut self,
        sim: &mut Sim,
        proposal: u64,
        object: Sha256Digest,
        act: &RevocationAct,
    ) -> Result<(), Failure> {
        let (time, index) = (self.now(sim), self.fold.state.size());
        let leases = match act {
            RevocationAct::Revoke { scope, .. } => {
                self.vault().map(|vault| vault.leases_covered(scope, time)).unwrap_or_default()
            }
            RevocationAct::Lift { .. } => Vec::new(),
        };
        let count = u32::try_from(leases.len()).unwrap();
        self.stage_entry(sim, &Entry::Revoke(Revoke { time, proposal, object, act: act.kind(), leases: count }))?;
        if !leases.is_empty() {
            self.pending.revoked.push((index, leases));
        }
        Ok(())
    }

    /// Tells those who hold a lease that it is revoked.
    pub fn announce(&mut self, sim: &mut Sim, index: u64, leases: &[Sha256Digest]) {
        let Some(revoke) = self.vault().and_then(|vault| vault.revoke_entry(index)).cloned() else { return };
        let entry = Entry::Revoke(revoke).encode().unwrap();
        let Ok(proof) = self.log.proof(index) else { return };
        let message = notice_message(&sim.scene.vault(), index, &leaf_hash(&entry), leases);
        let signature = sim.scene.sign_identity(&message);
        for agent in 0..sim.agents.len() {
            let (entry, proof, leases) = (entry.clone(), proof.clone(), leases.to_vec());
            if sim.agents[agent].lease().is_some_and(|lease| leases.contains(&lease)) {
                sim.post(To::Agent(agent), Body::Notice { entry, proof, leases, signature });
            }
        }
    }

    fn extension(&mut self, sim: &mut Sim, file: &[u8]) -> Result<(), Failure> {
        let file = ExtensionFile::parse(file).map_err(|error| error.code().to_owned())?;
        let now = self.now(sim);
        let vault = self.vault().ok_or("vault-not-open")?;
        let approved = file.verify(vault.id(), vault.policy().digest()).map_err(|error| error.code().to_owned())?;
        if now > approved.extension().until {
            return Err("extension-expired".to_owned());
        }
        if vault.leases_extended(&approved, now).is_empty() {
            return Ok(());
        }
        self.stage_renewals();
        let vault = self.vault().ok_or("vault-not-open")?;
        let leases = u32::try_from(vault.leases_extended(&approved, now).len()).unwrap();
        let (extension, approvals) = (file.extension, file.approvals);
        self.stage_entry(sim, &Entry::Extend(Extend { time: now, extension, approvals, leases }))
    }
}

/// What both sides make of a challenge.
pub fn load_challenge(
    scene: &Scene,
    guest: usize,
    session: SessionId,
    nonce: [u8; 32],
    policy: Sha256Digest,
) -> LoadChallenge {
    LoadChallenge {
        rule: rule().to_string(),
        model: "minilm".to_owned(),
        version: "1.0".to_owned(),
        session,
        nonce,
        vault: scene.vault(),
        policy,
        manifest: scene.manifest.digest(),
        units: UnitSet::try_from(vec![0, 1]).unwrap(),
        tpm: tpm_part(scene, guest, nonce),
    }
}

pub fn renew_challenge(
    scene: &Scene,
    guest: usize,
    (session, nonce, policy): (SessionId, [u8; 32], Sha256Digest),
    (lease, lease_key): (Sha256Digest, LeaseKey),
) -> RenewChallenge {
    let (rule, vault, tpm) = (rule().to_string(), scene.vault(), tpm_part(scene, guest, nonce));
    RenewChallenge { rule, session, nonce, vault, policy, lease, lease_key, tpm }
}

/// The secret of the credential comes from the nonce: that it can't be known otherwise is not what is simulated.
fn tpm_part(scene: &Scene, guest: usize, nonce: [u8; 32]) -> TpmPart {
    let secret = ActivationSecret::from_bytes(*Sha256Digest::of(&nonce).as_bytes());
    TpmPart::Activated { ak_name: *scene.endorsed[guest].ak().name(), secret }
}

fn verify<S: attestation::Transcript>(
    scene: &Scene,
    guest: usize,
    quote: &TpmQuote,
    binding: attestation::Binding<S>,
) -> Result<Verified<S>, Failure> {
    let pcrs = PcrSelection::try_from([0, 11].as_slice()).unwrap();
    verify_tpm(quote.clone(), &scene.endorsed[guest], binding, &pcrs).map_err(|error| error.code().to_owned())
}

fn evidence(quote: &TpmQuote) -> Sha256Digest {
    Sha256Digest::of(&quote.attest)
}
