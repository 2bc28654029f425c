//! A vault that lives: its log grows by entries that a keeper would write, and tests change one thing in one of them.

use attestation::{AkName, HpkePublicKey, LeaseKey, LogKey, Sha256Digest, Trust, UnixTime, lease_id};
use ledger::approvals::{ApprovalAction, ApprovalStatement, model_object};
use ledger::entry::{
    Approve, BootId, Cause, End, Entry, GenesisWitness, Machine, ModelPublished, PlatformChange, PlatformInForce,
    PolicyInForce, Proposal, Propose, ProposedModel, ProposedPlatform, ProposedPolicy, Release, ReleasedUnits, Renew,
    Renewal, Start, TimeSource,
};
use ledger::genesis::{AntiRollback, Core, Genesis, KeeperIdentity, SealTo};
use ledger::manifest::{Blake3Digest, Manifest, ModelId, Plan, PlanUnit, SealedDigests};
use ledger::merkle::{Tree, leaf_hash};
use ledger::model_signature::PublisherKey;
use ledger::names::Name;
use ledger::policy::Policy;
use ledger::revocation::Marks;
use ledger::snapshot::{self, Folded};
use ledger::state::{FoldError, State, Vault};

use super::keys::{self, Person};
use super::policy_text::{self, PCR_0, PCR_11_GUEST, PUBLISHER_KEY};
use crate::common::authority::{Authority, NOW};

/// One lease of the good policy, in seconds.
pub const LEASE_SECS: u64 = 900;
pub const ALICE: u8 = 1;
pub const BOB: u8 = 2;
pub const CAROL: u8 = 3;
/// Of the identity key of the genesis.
pub const IDENTITY: u8 = 4;

/// A log and the state that it folds to.
pub struct World {
    pub authority: Authority,
    pub state: State,
    pub tree: Tree,
    pub entries: Vec<Vec<u8>>,
    pub now: UnixTime,
    pub genesis: Genesis,
    pub policy_text: String,
}

impl World {
    /// Entry 0 is there; nobody has signed.
    pub fn ceremony() -> Self {
        Self::with_policy(|text| text)
    }

    /// The same under a changed first policy.
    pub fn with_policy(change: impl FnOnce(String) -> String) -> Self {
        Self::counted_by(AntiRollback::Counter, change)
    }

    /// The same of a vault whose keeper notices an older copy so.
    pub fn counted_by(anti_rollback: AntiRollback, change: impl FnOnce(String) -> String) -> Self {
        let authority = Authority::root("ci");
        let anchor = policy_text::anchor("ci", Trust::Emulated, &authority);
        let policy_text = change(policy_text::first() + &anchor);
        let seal_to = SealTo::proven_by(Policy::parse(&policy_text).unwrap().keeper());
        let core = Core::new(anti_rollback, seal_to, &policy_text).unwrap();
        let genesis = Genesis::build(NOW, &core, keeper()).unwrap();
        let mut state = State::new();
        state.apply(0, genesis.bytes()).unwrap();
        let entries = vec![genesis.bytes().to_vec()];
        let mut tree = Tree::new();
        tree.push(leaf_hash(genesis.bytes()));
        Self { authority, state, tree, entries, now: NOW, genesis, policy_text }
    }

    /// Every approver has signed.
    pub fn open() -> Self {
        Self::ceremony().opened()
    }

    pub fn opened(mut self) -> Self {
        for person in [ALICE, BOB, CAROL] {
            let entry = self.approve_genesis(person);
            self.must(entry);
        }
        self
    }

    /// minilm 1.0 is published.
    pub fn with_model() -> Self {
        Self::open().published()
    }

    pub fn published(mut self) -> Self {
        let proposal = self.state.size();
        let proposed = self.proposed_model();
        let object = proposed.object;
        let entry = self.propose(Proposal::Model(proposed));
        self.must(entry);
        for person in [ALICE, BOB] {
            let entry = self.approve(person, ApprovalAction::Model, object);
            self.must(entry);
        }
        let entry = self.model_published(proposal, object);
        self.must(entry);
        self
    }

    pub fn vault(&self) -> &Vault {
        self.state.vault().expect("the vault is open")
    }

    pub fn policy(&self) -> &Policy {
        self.genesis_or_vault_policy()
    }

    fn genesis_or_vault_policy(&self) -> &Policy {
        self.state.vault().map_or(self.genesis.policy(), |vault| vault.policy())
    }

    /// Applies an entry as the next. The state then goes through a snapshot, so that every test of the fold shows that
    /// nothing of it is lost there.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), FoldError> {
        let bytes = entry.encode().unwrap();
        self.state.apply(self.state.size(), &bytes)?;
        self.tree.push(leaf_hash(&bytes));
        self.entries.push(bytes);
        let stored = snapshot::encode(&self.state, &self.tree).unwrap();
        let Folded { state, tree } = snapshot::decode(&stored).unwrap();
        assert_eq!(snapshot::encode(&state, &tree).unwrap(), stored);
        assert_eq!(format!("{state:?}"), format!("{:?}", self.state));
        (self.state, self.tree) = (state, tree);
        Ok(())
    }

    /// Applies an entry that must be good.
    #[track_caller]
    pub fn must(&mut self, entry: Entry) {
        if let Err(error) = self.apply(&entry) {
            panic!("{entry:?}: {error}");
        }
    }

    /// The refusal of an entry; it must leave the state alone.
    #[track_caller]
    pub fn refusal(&mut self, entry: Entry) -> FoldError {
        let before = (self.state.size(), self.state.digest(), self.state.time());
        let error = self.apply(&entry).expect_err("must be refused");
        assert_eq!((self.state.size(), self.state.digest(), self.state.time()), before);
        error
    }

    pub fn pass(&mut self, seconds: u64) {
        self.now = self.now.plus(seconds);
    }

    /// A statement that is right here and now.
    pub fn statement(&self, action: ApprovalAction, object: Sha256Digest) -> ApprovalStatement {
        let (previous, serial) = match action {
            ApprovalAction::Genesis => (self.genesis.core().digest(), 0),
            ApprovalAction::ProposePolicy
            | ApprovalAction::Policy
            | ApprovalAction::Model
            | ApprovalAction::ProposePlatform
            | ApprovalAction::Platform
            | ApprovalAction::ProposeReseal
            | ApprovalAction::Reseal
            | ApprovalAction::KeeperJoin
            | ApprovalAction::ProposeEscrow
            | ApprovalAction::Escrow
            | ApprovalAction::Recover
            | ApprovalAction::ProposeKeeperLeave
            | ApprovalAction::KeeperLeave
            | ApprovalAction::ProposeKeyEpoch
            | ApprovalAction::KeyEpoch
            | ApprovalAction::ProposeBudget
            | ApprovalAction::Budget
            | ApprovalAction::Revoke
            | ApprovalAction::LiftRevocation
            | ApprovalAction::Extend
            | ApprovalAction::ProposeStanding
            | ApprovalAction::Standing
            | ApprovalAction::ProposeBreakGlass
            | ApprovalAction::BreakGlass => (self.policy().digest(), self.policy().serial()),
        };
        let vault = self.genesis.vault_id();
        ApprovalStatement { action, object, previous, vault, serial, not_after: self.now.plus(3600) }
    }

    pub fn approve_genesis(&self, person: u8) -> Entry {
        let statement = self.statement(ApprovalAction::Genesis, self.genesis.vault_id());
        self.approve_genesis_saying(person, statement)
    }

    pub fn approve_genesis_saying(&self, person: u8, statement: ApprovalStatement) -> Entry {
        let witness = GenesisWitness { evidence: Sha256Digest::of(&[person]), binding: Sha256Digest::of(b"binding") };
        self.signed(person, statement, Some(witness))
    }

    pub fn approve(&self, person: u8, action: ApprovalAction, object: Sha256Digest) -> Entry {
        self.signed(person, self.statement(action, object), None)
    }

    pub fn signed(&self, person: u8, statement: ApprovalStatement, witness: Option<GenesisWitness>) -> Entry {
        let statement = String::from_utf8(statement.encode()).unwrap();
        let signature = Person::new(person).sign(statement.as_bytes());
        Entry::Approve(Approve { time: self.now, statement, signature, witness })
    }

    pub fn propose(&self, proposal: Proposal) -> Entry {
        Entry::Propose(Propose { time: self.now, proposal })
    }

    /// The next policy: the first with these three keys right, and `change` made to it.
    pub fn next_policy(&self, change: impl FnOnce(String) -> String) -> String {
        let policy = self.policy();
        let head = |vault: String, serial, prev| format!("vault = \"{vault}\"\nserial = {serial}\nprev = \"{prev}\"\n");
        let first = head("genesis".to_owned(), 1, "none".to_owned());
        let next = head(self.genesis.vault_id().to_string(), policy.serial() + 1, policy.digest().to_string());
        change(self.policy_text.replace(&first, &next))
    }

    pub fn proposed_policy(&self, proposer: u8, policy: &str) -> ProposedPolicy {
        let object = Sha256Digest::of(policy.as_bytes());
        self.proposed_policy_saying(proposer, policy, self.statement(ApprovalAction::ProposePolicy, object))
    }

    pub fn proposed_policy_saying(&self, proposer: u8, policy: &str, statement: ApprovalStatement) -> ProposedPolicy {
        let statement = String::from_utf8(statement.encode()).unwrap();
        let signature = Person::new(proposer).sign(statement.as_bytes());
        let object = Sha256Digest::of(policy.as_bytes());
        ProposedPolicy { object, policy: policy.to_owned(), statement, signature }
    }

    /// Alice proposes; gives index and object.
    pub fn must_propose_policy(&mut self, text: &str) -> (u64, Sha256Digest) {
        let index = self.state.size();
        let entry = self.propose(Proposal::Policy(self.proposed_policy(ALICE, text)));
        self.must(entry);
        (index, Sha256Digest::of(text.as_bytes()))
    }

    /// A change of a platform, proposed by this person.
    pub fn proposed_platform(&self, proposer: u8, change: PlatformChange) -> Entry {
        let statement = self.statement(ApprovalAction::ProposePlatform, change.object());
        self.proposed_platform_saying(proposer, change, statement)
    }

    pub fn proposed_platform_saying(
        &self,
        proposer: u8,
        change: PlatformChange,
        statement: ApprovalStatement,
    ) -> Entry {
        let statement = String::from_utf8(statement.encode()).unwrap();
        let signature = Person::new(proposer).sign(statement.as_bytes());
        self.propose(Proposal::Platform(ProposedPlatform::new(change, statement, signature)))
    }

    pub fn platform_in_force(&self, proposal: u64, change: &PlatformChange) -> Entry {
        let (object, act, platform) = (change.object(), change.act, change.platform);
        Entry::Platform(PlatformInForce { time: self.now, proposal, object, act, platform })
    }

    /// Alice proposes, Bob and Carol approve.
    pub fn must_change_platform(&mut self, change: &PlatformChange) {
        let index = self.state.size();
        let entry = self.proposed_platform(ALICE, change.clone());
        self.must(entry);
        for person in [BOB, CAROL] {
            let entry = self.approve(person, ApprovalAction::Platform, change.object());
            self.must(entry);
        }
        let entry = self.platform_in_force(index, change);
        self.must(entry);
    }

    pub fn policy_in_force(&self, proposal: u64, object: Sha256Digest) -> Entry {
        Entry::Policy(PolicyInForce { time: self.now, proposal, object, serial: self.policy().serial() + 1 })
    }

    /// Alice proposes, Bob and Carol approve.
    pub fn must_change_policy(&mut self, change: impl FnOnce(String) -> String) {
        let text = self.next_policy(change);
        let (index, object) = self.must_propose_policy(&text);
        for person in [BOB, CAROL] {
            let entry = self.approve(person, ApprovalAction::Policy, object);
            self.must(entry);
        }
        let entry = self.policy_in_force(index, object);
        self.must(entry);
    }

    /// The manifest of minilm 1.0 in this vault.
    pub fn manifest(&self) -> Manifest {
        let unit = |offset, length, group: &str| PlanUnit {
            file: "model.safetensors".parse().unwrap(),
            offset,
            length,
            group: group.parse().unwrap(),
        };
        let plan = vec![
            unit(0, 100, "header"),
            unit(100, 1000, "layer.0"),
            unit(1100, 500, "layer.1"),
            unit(1600, 7, "other"),
        ];
        let id = ModelId {
            vault: self.genesis.vault_id(),
            model: "minilm".parse().unwrap(),
            version: "1.0".parse().unwrap(),
            publisher: publisher(),
        };
        let sealed = SealedDigests { sha256: Sha256Digest::of(b"sealed"), blake3: Blake3Digest::from_bytes([5; 32]) };
        Manifest::build(id, Plan::new(plan).unwrap(), vec![sealed; 4]).unwrap()
    }

    pub fn proposed_model(&self) -> ProposedModel {
        let manifest = self.manifest();
        let model_sig = Sha256Digest::of(b"model.sig");
        let (model, version) = (manifest.id().model.clone(), manifest.id().version.clone());
        ProposedModel {
            object: model_object(&model, &version, manifest.digest(), model_sig),
            model,
            version,
            manifest: manifest.digest(),
            model_sig,
            dek_record: Sha256Digest::of(b"record"),
            publisher: publisher(),
            bytes: manifest.total_bytes(),
            units: 4,
            not_after: self.now.plus(3600),
        }
    }

    pub fn model_published(&self, proposal: u64, object: Sha256Digest) -> Entry {
        let (model, version) = ("minilm".parse().unwrap(), "1.0".parse().unwrap());
        Entry::Model(ModelPublished { time: self.now, proposal, object, model, version })
    }

    /// A release that is right here and now, of session `n`.
    pub fn release(&self, n: u32) -> Release {
        let (session, lease_key) = (session(n), lease_key());
        Release {
            time: self.now,
            rule: rule(),
            model: "minilm".parse().unwrap(),
            version: "1.0".parse().unwrap(),
            policy: self.policy().digest(),
            manifest: self.manifest().digest(),
            units: ReleasedUnits { count: 2, bytes: 1100, digest: Sha256Digest::of(b"units") },
            session,
            hpke_key: Sha256Digest::of(b"hpke key"),
            lease: lease_id(&self.genesis.vault_id(), &session, &lease_key),
            lease_key,
            issued: self.now,
            renew_by: self.now.plus(LEASE_SECS),
            platform: Sha256Digest::of(b"guest"),
            machine: Machine::Tpm(BootId { ak_name: ak_name(), reset_count: 7, restart_count: 1 }),
            tier: Trust::Emulated,
            marks: Some(marks(&["header", "layer.0"])),
            workload: None,
            evidence: Sha256Digest::of(b"evidence"),
            binding: Sha256Digest::of(b"binding"),
        }
    }

    /// Grants a lease; gives its id.
    pub fn must_release(&mut self, n: u32) -> Sha256Digest {
        let release = self.release(n);
        let lease = release.lease;
        self.must(Entry::Release(Box::new(release)));
        lease
    }

    pub fn renewal(&self, lease: Sha256Digest) -> Renewal {
        let (evidence, binding) = (Sha256Digest::of(b"evidence"), Sha256Digest::of(b"binding"));
        Renewal { lease, issued: self.now, renew_by: self.now.plus(LEASE_SECS), evidence, binding }
    }

    pub fn renew(&self, renewals: Vec<Renewal>) -> Entry {
        Entry::Renew(Renew { time: self.now, renewals })
    }

    pub fn end(&self, lease: Sha256Digest) -> Entry {
        Entry::End(End { time: self.now, lease, cause: Cause::Agent })
    }

    pub fn start(&self, run: u8) -> Entry {
        Entry::Start(Start {
            time: self.now,
            run: [run; 16],
            version: "0.1.0".parse().unwrap(),
            tier: Trust::Emulated,
            time_source: TimeSource::HostClock,
            keeper: None,
        })
    }

    pub fn leases(&self) -> u32 {
        self.vault().lease_count(&rule(), self.now)
    }
}

/// What a guest of the good policy shows, with these labels.
pub fn marks(groups: &[&str]) -> Marks {
    let (groups, pcrs) =
        (serde_json::to_string(groups).unwrap(), format!(r#"{{"0":"{PCR_0}","11":"{PCR_11_GUEST}"}}"#));
    serde_json::from_str(&format!(r#"{{"groups":{groups},"pcrs":{pcrs}}}"#)).unwrap()
}

pub fn rule() -> Name {
    "minilm".parse().unwrap()
}

pub fn session(n: u32) -> [u8; 16] {
    let mut session = [0xa5; 16];
    session[..4].copy_from_slice(&n.to_be_bytes());
    session
}

pub fn lease_key() -> LeaseKey {
    LeaseKey::try_from([8; 32].as_slice()).unwrap()
}

pub fn ak_name() -> AkName {
    AkName::try_from([[0, 0x0b].as_slice(), &[9; 32]].concat().as_slice()).unwrap()
}

pub fn publisher() -> Sha256Digest {
    PublisherKey::from_pem(PUBLISHER_KEY).unwrap().digest()
}

pub fn keeper() -> KeeperIdentity {
    KeeperIdentity {
        instance: [7; 32],
        wrap_key: HpkePublicKey::try_from([1; 1665].as_slice()).unwrap(),
        identity_key: keys::identity_key(IDENTITY),
        log_key: LogKey::try_from([3; 32].as_slice()).unwrap(),
        platform: Sha256Digest::of(b"the keeper's EK"),
        ak_name: ak_name(),
    }
}
