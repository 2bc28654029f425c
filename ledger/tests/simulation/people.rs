//! The approvers: Alice and Bob are honest and agree, Carol wants more than they do, and has everything that was ever sent.

use attestation::{Sha256Digest, UnixTime};
use ledger::approvals::{ApprovalAction, ApprovalStatement, raise_object};
use ledger::entry::{Proposal, ProposedPolicy, ProposedRaise, ProposedRevocation, RaiseAmounts};
use ledger::extension::{ExtendedLeases, Extension, ExtensionApproval, ExtensionFile};
use ledger::revocation::{RevocationAct, Scope};

use crate::mail::{Body, To};
use crate::run::Run;
use crate::scene::RAISE;
use crate::sim::Sim;
use crate::support::keys::Person;
use crate::support::world::{ALICE, BOB, CAROL};

/// The policy that somebody knows to be in force.
#[derive(Clone, Copy)]
pub struct Known {
    policy: Sha256Digest,
    serial: u64,
    next_revocation: u64,
    /// A revocation of the model that is in force.
    revoked: Option<u64>,
    now: UnixTime,
}

impl Known {
    pub fn of(run: &Run, sim: &Sim) -> Option<Self> {
        let vault = run.vault()?;
        let now = run.clock.shown(sim.time(), run.fold.state.time());
        let (policy, serial) = (vault.policy().digest(), vault.policy().serial());
        let revoked = vault.revocations().map(|(index, _)| index).next();
        Some(Self { policy, serial, next_revocation: vault.next_revocation(), revoked, now })
    }
}

impl Sim {
    /// Somebody wants something, and those who agree sign.
    pub fn people_act(&mut self, known: Known) {
        let carol = self.rng.one_in(3);
        let people: &[u8] = if carol { &[CAROL] } else { &[ALICE, BOB] };
        let who = if carol { "Carol wants" } else { "Alice and Bob want" };
        match self.rng.below(8) {
            0..=1 => {
                self.say(format!("{who} a raise"));
                self.raise(known, people);
            }
            2..=3 => {
                self.say(format!("{who} another policy"));
                self.policy(known, people);
            }
            4 => {
                self.say(format!("{who} a lease revoked"));
                self.revocation(known, people);
            }
            5 => {
                self.say(format!("{who} to lift a revocation"));
                self.lift(known, people);
            }
            _ => {
                self.say(format!("{who} leases to run on"));
                self.extension(known, people);
            }
        }
    }

    fn sign(&mut self, person: u8, known: Known, action: ApprovalAction, object: Sha256Digest) -> (String, String) {
        self.sign_until(person, known, action, object, known.now.plus(3600))
    }

    fn sign_until(
        &mut self,
        person: u8,
        known: Known,
        action: ApprovalAction,
        object: Sha256Digest,
        not_after: UnixTime,
    ) -> (String, String) {
        let (previous, serial, vault) = (known.policy, known.serial, self.scene.vault());
        let statement = ApprovalStatement { action, object, previous, vault, serial, not_after };
        let statement = String::from_utf8(statement.encode()).unwrap();
        let signature = Person::new(person).sign(statement.as_bytes());
        self.truth.signs_object(person, object);
        (statement, signature)
    }

    fn approve(&mut self, people: &[u8], known: Known, action: ApprovalAction, object: Sha256Digest) {
        for person in people {
            let (statement, signature) = self.sign(*person, known, action, object);
            self.post(To::Keeper, Body::Approve { statement, signature });
        }
    }

    fn raise(&mut self, known: Known, people: &[u8]) {
        let amounts = RaiseAmounts { releases: RAISE, ..RaiseAmounts::default() };
        // No two of them are the same, though the keeper's clock may stand still.
        self.wishes += 1;
        let (budget, until) = ("b".parse().unwrap(), known.now.plus(3600 + self.wishes));
        let object = raise_object(&budget, amounts, until);
        let (statement, signature) = self.sign(people[0], known, ApprovalAction::ProposeBudget, object);
        let RaiseAmounts { bytes, releases, platforms, leases } = amounts;
        let raise = ProposedRaise { object, budget, bytes, releases, platforms, leases, until, statement, signature };
        self.post(To::Keeper, Body::Propose(Proposal::Budget(raise)));
        self.approve(people, known, ApprovalAction::Budget, object);
    }

    fn policy(&mut self, known: Known, people: &[u8]) {
        let policy = self.next_policy(known);
        let object = Sha256Digest::of(policy.as_bytes());
        self.policies.insert(object, policy.clone());
        let (statement, signature) = self.sign(people[0], known, ApprovalAction::ProposePolicy, object);
        let proposed = ProposedPolicy { object, policy, statement, signature };
        self.post(To::Keeper, Body::Propose(Proposal::Policy(proposed)));
        self.approve(people, known, ApprovalAction::Policy, object);
    }

    /// The first one with another lease.
    fn next_policy(&mut self, known: Known) -> String {
        let head = |vault: String, serial, prev| format!("vault = \"{vault}\"\nserial = {serial}\nprev = \"{prev}\"\n");
        let first = head("genesis".to_owned(), 1, "none".to_owned());
        let next = head(self.scene.vault().to_string(), known.serial + 1, known.policy.to_string());
        let minutes = self.rng.of(&[10, 15, 20]);
        let text = self.scene.world.policy_text.replace(&first, &next);
        text.replace("lease = \"15m\"", &format!("lease = \"{minutes}m\""))
    }

    fn revocation(&mut self, known: Known, people: &[u8]) {
        let some = self.rng.below(self.agents.len());
        let held = self.agents[some].lease();
        let scope = match held {
            Some(lease) if !self.rng.one_in(4) => Scope::Lease { lease },
            _ => Scope::Model { model: "minilm".parse().unwrap(), version: None },
        };
        self.propose_act(known, people, RevocationAct::Revoke { serial: known.next_revocation, scope });
    }

    fn lift(&mut self, known: Known, people: &[u8]) {
        let Some(entry) = known.revoked else { return };
        self.propose_act(known, people, RevocationAct::Lift { entry });
    }

    fn propose_act(&mut self, known: Known, people: &[u8], revocation: RevocationAct) {
        let (action, object) = (revocation.kind().approval(), revocation.object());
        let (statement, signature) = self.sign(people[0], known, action, object);
        let proposed = ProposedRevocation { object, revocation, statement, signature };
        self.post(To::Keeper, Body::Propose(Proposal::Revocation(proposed)));
        self.approve(people, known, action, object);
    }

    /// It lies beside the agents, and is sent to a keeper too.
    fn extension(&mut self, known: Known, people: &[u8]) {
        let days = self.rng.of(&[1, 1, 7]);
        let until = known.now.plus(days * 24 * 3600);
        let extension = Extension::new(known.now, until, ExtendedLeases::All {}).unwrap();
        let object = extension.object();
        let approvals = people
            .iter()
            .map(|person| {
                let (statement, signature) = self.sign_until(*person, known, ApprovalAction::Extend, object, until);
                ExtensionApproval { statement, signature }
            })
            .collect();
        let Some(policy) = self.policies.get(&known.policy).cloned() else { return };
        let file = ExtensionFile { policy, extension, approvals }.encode();
        self.post(To::Keeper, Body::Extension(file.clone()));
        self.extensions.push(file);
    }
}
