//! A vault whose rule asks for approvals, and which has break-glass.

use attestation::Sha256Digest;
use ledger::entry::{Entry, PermitInForce, Proposal, ProposedPermit};
use ledger::permit::{Permit, PermitKind};

use super::keys::Person;
use super::world::{ALICE, BOB, CAROL, World, rule};

/// The good policy with two approvals for each release, break-glass, and room for many leases.
pub fn asking(text: String) -> String {
    text.replace("max_leases = 4\n", "max_leases = 1000\napprovals = 2\n")
        .replace("threshold = 2\n", "threshold = 2\nbreak_glass_threshold = 2\n")
}

impl World {
    /// minilm 1.0 is published under such a policy, with something more at its end.
    pub fn asking(more: &str) -> Self {
        Self::with_policy(|text| asking(text) + more).opened().published()
    }

    /// So many releases of minilm under its rule, for an hour.
    pub fn permit(&self, kind: PermitKind, releases: u64) -> Permit {
        let (model, until) = ("minilm".parse().unwrap(), self.now.plus(3600));
        let (version, platform, launch, pcrs) = (None, None, None, None);
        Permit { kind, rule: rule(), model, version, platform, launch, pcrs, releases, until }
    }

    /// Alice proposes it.
    pub fn proposed_permit(&self, permit: &Permit) -> ProposedPermit {
        let object = permit.object();
        let statement = self.statement(permit.kind.proposal(), object).encode();
        let signature = Person::new(ALICE).sign(&statement);
        ProposedPermit { object, permit: permit.clone(), statement: String::from_utf8(statement).unwrap(), signature }
    }

    /// Its effect.
    pub fn permitted(&self, proposal: u64, permit: &Permit) -> Entry {
        Entry::Permit(PermitInForce { time: self.now, proposal, object: permit.object(), kind: permit.kind })
    }

    /// Alice proposes, Bob and Carol approve; the approvals.
    pub fn must_permit(&mut self, permit: &Permit) -> Vec<Entry> {
        let index = self.state.size();
        let entry = self.propose(Proposal::Permit(self.proposed_permit(permit)));
        self.must(entry);
        let approvals = [BOB, CAROL].map(|person| self.approve(person, permit.kind.approval(), permit.object()));
        approvals.iter().for_each(|approval| self.must(approval.clone()));
        let entry = self.permitted(index, permit);
        self.must(entry);
        approvals.to_vec()
    }

    /// What is left of each permit.
    pub fn permits_left(&self) -> Vec<u64> {
        self.vault().permits().iter().map(|active| active.left).collect()
    }

    /// Whether the fold takes a release of session `n` to a platform.
    pub fn lets_through(&mut self, n: u32, platform: Sha256Digest) -> bool {
        self.try_release(self.release_to(n, platform)).is_ok()
    }
}
