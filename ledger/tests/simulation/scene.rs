//! What every run begins with: a vault whose genesis is signed and whose model is published, its keys, its guests, its
//! witnesses.

use std::sync::OnceLock;

use attestation::{EndorsedTpm, IdentityKey, LogKey, Sha256Digest, Trust, UnixTime};
use ledger::checkpoint::LogVerifier;
use ledger::cosignature::{WitnessKey, WitnessPolicy};
use ledger::genesis::{AntiRollback, Core, Genesis, KeeperIdentity, SealTo};
use ledger::lease::LeaseStatement;
use ledger::manifest::Manifest;
use ledger::merkle::{Tree, leaf_hash};
use ledger::policy::Policy;
use ledger::state::State;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

use crate::bug::Bug;
use crate::common::authority::{Authority, NOW};
use crate::mail::Signed;
use crate::support::evidence::Guest;
use crate::support::policy_text;
use crate::support::world::{self, World};

/// What keeps an older copy of the keeper from coming back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// A TPM.
    Counter,
    /// Four witnesses, one of them faulty, three of them a quorum.
    Witnesses,
    /// Three witnesses, one of them faulty though the policy says that none may be; two are a quorum.
    OneFaultyOfThree,
}

/// The rule's limit of leases at once.
pub const LEASES_MAX: usize = 3;
/// The budget's limit, beside raises.
pub const RELEASES_PER_HOUR: usize = 6;
/// What one raise lets through.
pub const RAISE: u64 = 2;
/// Machines, one agent on each.
pub const GUESTS: usize = 5;

pub struct Scene {
    pub guard: Guard,
    /// The log up to the published model; nothing is ever added to this one.
    pub world: World,
    pub guests: Vec<Guest>,
    pub endorsed: Vec<EndorsedTpm>,
    pub manifest: Manifest,
    pub verifier: LogVerifier,
    pub identity_key: IdentityKey,
    pub witnesses: Vec<(WitnessKey, Ed25519KeyPair)>,
    identity: EcdsaKeyPair,
    log: Ed25519KeyPair,
}

impl Scene {
    pub fn of(guard: Guard) -> &'static Self {
        static COUNTER: OnceLock<Scene> = OnceLock::new();
        static WITNESSES: OnceLock<Scene> = OnceLock::new();
        static THREE: OnceLock<Scene> = OnceLock::new();
        let scene = match guard {
            Guard::Counter => &COUNTER,
            Guard::Witnesses => &WITNESSES,
            Guard::OneFaultyOfThree => &THREE,
        };
        scene.get_or_init(|| Self::new(guard))
    }

    fn new(guard: Guard) -> Self {
        let rng = SystemRandom::new();
        let algorithm = &ECDSA_P384_SHA384_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &rng).unwrap();
        let identity = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &rng).unwrap();
        let log = pair(90);
        let identity_key = IdentityKey::try_from(identity.public_key().as_ref()).unwrap();
        let log_key = LogKey::try_from(log.public_key().as_ref()).unwrap();
        let keeper = KeeperIdentity { identity_key: identity_key.clone(), log_key, ..world::keeper() };
        let witnesses: Vec<_> = (0..guard.witnesses()).map(witness).collect();
        let world = vault(guard, keeper, &witnesses);
        let guests: Vec<Guest> = (0..GUESTS).map(|number| guest(&world, number)).collect();
        let endorsed = guests.iter().map(Guest::endorsed).collect();
        let (manifest, verifier) = (world.manifest(), LogVerifier::of(&world.genesis));
        Self { guard, world, guests, endorsed, manifest, verifier, identity_key, witnesses, identity, log }
    }

    pub fn vault(&self) -> Sha256Digest {
        self.world.genesis.vault_id()
    }

    pub fn sign_identity(&self, message: &[u8]) -> [u8; 96] {
        self.identity.sign(&SystemRandom::new(), message).unwrap().as_ref().try_into().unwrap()
    }

    pub fn sign_lease(&self, statement: &LeaseStatement) -> Signed {
        let statement = statement.encode();
        let signature = self.sign_identity(&LeaseStatement::message(&statement));
        Signed { statement, signature }
    }

    pub fn sign_log(&self, text: &str) -> [u8; 64] {
        self.log.sign(text.as_bytes()).as_ref().try_into().unwrap()
    }

    /// Who has to have signed what leaves a keeper; `pair` is the two that suffice where half is a quorum.
    pub fn keepers_verifier(&self, bug: Option<Bug>, pair: [usize; 2]) -> LogVerifier {
        match bug {
            Some(Bug::ReleaseBeforeQuorum) => self.unwitnessed(),
            Some(Bug::HalfIsAQuorum) => self.two_of(pair),
            _ => self.verifier.clone(),
        }
    }

    /// What agents and readers of the log take.
    pub fn readers_verifiers(&self, bug: Option<Bug>) -> Vec<LogVerifier> {
        let all = 0..self.witnesses.len();
        match bug {
            Some(Bug::HalfIsAQuorum) => {
                all.clone().flat_map(|one| (0..one).map(move |other| self.two_of([other, one]))).collect()
            }
            _ => vec![self.verifier.clone()],
        }
    }

    fn unwitnessed(&self) -> LogVerifier {
        LogVerifier::new(self.vault(), self.world.genesis.keeper().log_key.clone())
    }

    fn two_of(&self, pair: [usize; 2]) -> LogVerifier {
        let keys = pair.map(|number| self.witnesses[number].0.clone()).to_vec();
        self.unwitnessed().witnessed_by(WitnessPolicy::new(keys, 2, 0).unwrap())
    }
}

impl Guard {
    fn witnesses(self) -> u8 {
        match self {
            Self::Counter => 0,
            Self::Witnesses => 4,
            Self::OneFaultyOfThree => 3,
        }
    }

    /// Witnesses that have to have cosigned what is released.
    pub fn quorum(self) -> usize {
        match self {
            Self::Counter => 0,
            Self::Witnesses => 3,
            Self::OneFaultyOfThree => 2,
        }
    }

    fn anti_rollback(self) -> AntiRollback {
        match self {
            Self::Counter => AntiRollback::Counter,
            Self::Witnesses | Self::OneFaultyOfThree => AntiRollback::Witnesses,
        }
    }
}

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn witness(number: u8) -> (WitnessKey, Ed25519KeyPair) {
    let pair = pair(100 + number);
    let key = LogKey::try_from(pair.public_key().as_ref()).unwrap();
    (WitnessKey::new(&format!("witness.example/{number}"), key).unwrap(), pair)
}

fn vault(guard: Guard, keeper: KeeperIdentity, witnesses: &[(WitnessKey, Ed25519KeyPair)]) -> World {
    let authority = Authority::root("ci");
    let budget = format!(
        "\n[budget.b]\nper = \"vault\"\nmodels = \"any\"\nover = \"hold\"\nreleases_per_hour = {RELEASES_PER_HOUR}\n"
    );
    let keys: Vec<String> = witnesses.iter().map(|(key, _)| format!("\"{key}\"")).collect();
    let faulty = u8::from(guard == Guard::Witnesses);
    let quorum = guard.quorum();
    let witnessed = match guard {
        Guard::Counter => String::new(),
        Guard::Witnesses | Guard::OneFaultyOfThree => {
            format!("\n[witnesses]\nkeys = [{}]\nquorum = {quorum}\nfaulty = {faulty}\n", keys.join(", "))
        }
    };
    let policy_text = policy_text::first()
        .replace("max_leases = 4", &format!("max_leases = {LEASES_MAX}"))
        .replace("on_lease_end = \"drain 30s\"", "on_lease_end = \"end\"")
        .replace("proposer_may_approve = false", "proposer_may_approve = true")
        + &budget
        + &witnessed
        + &policy_text::anchor("ci", Trust::Emulated, &authority);
    let seal_to = SealTo::proven_by(Policy::parse(&policy_text).unwrap().keeper());
    let core = Core::new(guard.anti_rollback(), seal_to, &policy_text).unwrap();
    let genesis = Genesis::build(NOW, &core, keeper).unwrap();
    let (mut state, mut tree) = (State::new(), Tree::new());
    state.apply(0, genesis.bytes()).unwrap();
    tree.push(leaf_hash(genesis.bytes()));
    let entries = vec![genesis.bytes().to_vec()];
    let now: UnixTime = NOW;
    World { authority, state, tree, entries, now, genesis, policy_text }.opened().published()
}

/// Each has an EK of its own.
fn guest(world: &World, number: usize) -> Guest {
    let mut guest = Guest::of(world);
    let other = crate::common::tpm::EkPublic::changed(|key| key[100] ^= u8::try_from(number).unwrap() + 1);
    guest.identity.ek_certificates = vec![world.authority.endorse(&other, |_| ())];
    guest
}
