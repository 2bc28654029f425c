//! A keeper's real keys and a real log, one exchange that is good, and the places where a test changes one thing in it.

use attestation::{
    ActivationSecret, AkName, Evidence, HpkePublicKey, LeaseKey, LoadChallenge, LogKey, Sha256Digest, TpmIdentity,
    TpmPart, TpmQuote, Trust, UnitSet, UnixTime, lv,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ledger::checkpoint::LogVerifier;
use ledger::cosignature::{Answer, Gathering, WitnessKey};
use ledger::entry::{BootId, Entry, Machine, Release, ReleasedUnits};
use ledger::genesis::{AntiRollback, Core, Genesis, KeeperIdentity, SealTo};
use ledger::lease::{LeaseStatement, grant_message};
use ledger::manifest::{Blake3Digest, Manifest, ModelId, Plan, PlanUnit, SealedDigests, Selection};
use ledger::policy::{LeaseEnd, UnitCheck};
use ledger::release_log::{Batch, ClosedLog, Log, Loggable, Writer};
use ledger::vault_file::VaultFile;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use vault_proto::convert::{EvidenceSet, Grant, SignedLease};

use crate::agent::error::SessionError;
use crate::agent::session::{Granted, Session, Wanted};
use crate::derive::{KeeperContext, ModelContext, RootSource};
use crate::secret::{Dek, TpmSecret};
use crate::unit_keys::UnitKeys;
use crate::vault_keys::{VaultKeys, VaultKeysError};
use crate::wrap::{GrantInfo, HpkeKeyPair, wrap_unit_keys};

pub(super) const NOW: UnixTime = UnixTime(1_790_000_000);
pub(super) const LEASE_SECS: u64 = 900;
pub(super) const SESSION: [u8; 16] = [5; 16];
const INSTANCE: [u8; 32] = [6; 32];

/// A vault, as its keeper knows it.
pub(super) struct Keeper {
    pub(super) keys: VaultKeys,
    pub(super) vault: VaultFile,
    pub(super) log: Log,
}

/// What the tests change.
pub(super) type Change<'a, T> = &'a dyn Fn(&mut T);

/// Seeds of the witnesses' keys; two must have cosigned.
const WITNESSES: [u8; 2] = [21, 22];

fn witness(seed: u8) -> (Ed25519KeyPair, WitnessKey) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let key = LogKey::try_from(pair.public_key().as_ref()).unwrap();
    (pair, WitnessKey::new(&format!("witness.example/{seed}"), key).unwrap())
}

fn cosignature(seed: u8, note: &str) -> String {
    let (pair, key) = witness(seed);
    let text = note.split_once("\n\n").unwrap().0.to_owned() + "\n";
    let signature = pair.sign(&WitnessKey::message(&text, NOW));
    key.line(&text, NOW, signature.as_ref().try_into().unwrap()).unwrap()
}

struct Disk<'a>(&'a VaultKeys);

impl Writer for Disk<'_> {
    type Error = VaultKeysError;
    fn append(&mut self, _: u64, _: &[Vec<u8>]) -> Result<(), Self::Error> {
        Ok(())
    }
    fn commit(&mut self, _: u64, _: [u8; 32]) -> Result<(), Self::Error> {
        Ok(())
    }
    fn sign(&mut self, text: &str) -> Result<[u8; 64], Self::Error> {
        self.0.sign_log(text.as_bytes())
    }
    fn cosign(&mut self, gathering: &mut Gathering<'_>) -> Result<(), Self::Error> {
        for ask in gathering.asks() {
            let (_, note) = ask.body.split_once("\n\n").expect("a proof and a checkpoint");
            let body = cosignature(WITNESSES[ask.witness], note).into_bytes();
            gathering.answer(ask.witness, Answer::Response { status: 200, body });
        }
        Ok(())
    }
    fn publish(&mut self, _: &str, _: u64) -> Result<(), Self::Error> {
        Ok(())
    }
}

struct Written(Vec<u8>);

impl Loggable for Written {
    fn entry_bytes(&self) -> Vec<u8> {
        self.0.clone()
    }
}

fn policy() -> String {
    let key = lv(&[b"ssh-ed25519", &[7; 32]]);
    let key = format!("ssh-ed25519 {}", STANDARD.encode(key));
    let pcrs = |digit: &str| format!("pcrs = {{ 0 = [\"{}\"], 11 = [\"{}\"] }}", "1".repeat(64), digit.repeat(64));
    format!(
        "format = 1\nvault = \"genesis\"\nserial = 1\nprev = \"none\"\nnot_after = \"2100-01-01T00:00:00Z\"\n\
         [approval]\nthreshold = 1\nproposer_may_approve = true\napprovers = [{{ id = \"alice\", key = \"{key}\" }}]\n\
         [keeper]\nrequire = [\"tpm\"]\n{}\neks = \"any\"\n\
         [release.demo]\nmodels = [\"demo\"]\ngroups = \"any\"\nrequire = [\"tpm\"]\n{}\neks = \"any\"\n\
         lease = \"15m\"\non_lease_end = \"end\"\nmax_leases = 4\nverify_units = true\n[audit]\nreaders = \"any\"\n\
         [witnesses]\nkeys = [\"{}\", \"{}\"]\nquorum = 2\nfaulty = 0\n",
        pcrs("2"),
        pcrs("3"),
        witness(WITNESSES[0]).1,
        witness(WITNESSES[1]).1,
    )
}

impl Keeper {
    pub(super) fn new(seed: u8) -> Self {
        let core = Core::new(AntiRollback::Witnesses, SealTo::Tpm, &policy()).unwrap();
        let context = KeeperContext { instance: INSTANCE, core: core.digest() };
        let keys =
            VaultKeys::derive(&RootSource::Tpm(&TpmSecret::known([seed; 64])).root().unwrap(), &context).unwrap();
        let identity = KeeperIdentity {
            instance: INSTANCE,
            wrap_key: keys.wrap_key().clone(),
            identity_key: keys.identity_key().clone(),
            log_key: keys.log_key().clone(),
            platform: Sha256Digest::of(b"keeper"),
            ak_name: ak_name(),
        };
        let genesis = Genesis::build(NOW, &core, identity).unwrap();
        let mut first = Batch::new();
        first.add(genesis.bytes().to_vec()).unwrap();
        let verifier = LogVerifier::of(&genesis);
        let log = ClosedLog::empty().start(verifier, first, &mut Disk(&keys)).unwrap();
        let vault = VaultFile::new(genesis, vec!["http://vault:7440".to_owned()]).unwrap();
        Self { keys, vault, log }
    }

    pub(super) fn manifest(&self, model: &str) -> Manifest {
        let id = ModelId {
            vault: self.vault.id(),
            model: model.try_into().unwrap(),
            version: "1".try_into().unwrap(),
            publisher: Sha256Digest::of(b"publisher"),
        };
        let unit = |file: &str| PlanUnit {
            file: file.try_into().unwrap(),
            offset: 0,
            length: 100,
            group: "files".try_into().unwrap(),
        };
        let sealed = SealedDigests { sha256: Sha256Digest::of(b"unit"), blake3: Blake3Digest::from_bytes([1; 32]) };
        let plan = Plan::new(["a", "b", "c"].map(unit).to_vec()).unwrap();
        Manifest::build(id, plan, vec![sealed; 3]).unwrap()
    }

    /// Grants what `session` asked for, except for what is changed before it is logged, wrapped and signed.
    fn grant(&mut self, bound: &Bound, changes: &Changes<'_>) -> Grant {
        let load = &bound.load;
        let mut release = bound.release.clone();
        (changes.release)(&mut release);
        let entry = match &changes.entry {
            Some(entry) => entry.encode().unwrap(),
            None => Entry::Release(Box::new(release.clone())).encode().unwrap(),
        };
        let mut batch = Batch::new();
        let ticket = batch.stage(Written(entry)).unwrap();
        self.log.commit(batch, &mut Disk(&self.keys)).unwrap();
        let Ok(logged) = ticket.redeem() else { panic!("it was committed") };
        let dek = Dek::known([9; 64]);
        let keys = UnitKeys::derive(&dek, ModelContext::from(&bound.manifest), load.units.clone()).unwrap();
        let mut info = GrantInfo {
            vault: self.vault.id(),
            session: SESSION,
            nonce: load.nonce,
            evidence: release.evidence,
            policy: release.policy,
            manifest: release.manifest,
            units: &load.units,
            lease_key: &load.lease_key,
            lease: release.lease,
            renew_by: release.renew_by,
            leaf: *logged.leaf_hash(),
        };
        (changes.info)(&mut info);
        let wrapped = wrap_unit_keys(&load.hpke_key, &info, &keys, &SystemRandom::new()).unwrap();
        let message = grant_message(logged.leaf_hash(), &wrapped.enc, &wrapped.ciphertext);
        let mut statement = bound.statement(&release);
        (changes.statement)(&mut statement);
        Grant {
            entry: logged.entry().to_vec(),
            enc: Box::new(wrapped.enc.try_into().unwrap()),
            wrapped_keys: wrapped.ciphertext,
            log_proof: logged.proof(),
            signature: self.keys.sign_identity(&message).unwrap(),
            lease: self.sign(&statement),
        }
    }

    pub(super) fn sign(&self, statement: &LeaseStatement) -> SignedLease {
        let statement = statement.encode();
        let signature = self.keys.sign_identity(&LeaseStatement::message(&statement)).unwrap();
        SignedLease { statement, signature }
    }
}

/// What a dishonest keeper, or a bug in an honest one, would change. (A host can change only what it relays.)
pub(super) struct Changes<'a> {
    pub(super) release: Change<'a, Release>,
    pub(super) entry: Option<Entry>,
    pub(super) info: &'a dyn Fn(&mut GrantInfo<'_>),
    pub(super) statement: Change<'a, LeaseStatement>,
}

impl Changes<'_> {
    pub(super) fn none() -> Self {
        Self { release: &|_| {}, entry: None, info: &|_| {}, statement: &|_| {} }
    }
}

struct LoadFields {
    nonce: [u8; 32],
    units: UnitSet,
    hpke_key: HpkePublicKey,
    lease_key: LeaseKey,
}

/// What both sides know of one exchange.
struct Bound {
    manifest: Manifest,
    load: LoadFields,
    release: Release,
}

impl Bound {
    fn statement(&self, release: &Release) -> LeaseStatement {
        LeaseStatement {
            vault: self.manifest.id().vault,
            lease: release.lease,
            lease_key: release.lease_key.clone(),
            rule: release.rule.clone(),
            policy: release.policy,
            issued: release.issued,
            renew_by: release.renew_by,
            lease_end: LeaseEnd::End,
            unit_check: UnitCheck::Hashed,
        }
    }
}

pub(super) fn ak_name() -> AkName {
    AkName::try_from([&[0, 0x0b][..], &[3; 32]].concat().as_slice()).unwrap()
}

pub(super) fn digest(text: &str) -> Sha256Digest {
    Sha256Digest::of(text.as_bytes())
}

fn evidence() -> EvidenceSet {
    let identity = TpmIdentity { ek_certificates: vec![vec![1]], ek_public: Vec::new(), ak_public: vec![2] };
    let quote = TpmQuote { identity, attest: vec![3], signature: vec![4], pcrs: vec![(0, [5; 32])] };
    EvidenceSet { evidence: Evidence::Tpm(quote), event_log: None }
}

/// One exchange: a session that waits, the grant that `changes` makes, and what `relay` makes of that on the way.
pub(super) fn exchange(changes: &Changes<'_>, relay: Change<'_, Grant>) -> Result<Granted, SessionError> {
    let mut keeper = Keeper::new(1);
    let vault = keeper.vault.clone();
    let manifest = keeper.manifest("demo");
    let (rule, model, version) = ("demo".try_into().unwrap(), "demo".try_into().unwrap(), "1".try_into().unwrap());
    let selection = Selection::Units(vec![0, 2]);
    let wanted = Wanted {
        workload: None,
        vault: &vault,
        rule: &rule,
        model: &model,
        version: &version,
        manifest: &manifest,
        selection: &selection,
    };
    let units = manifest.select(&selection).unwrap();
    let pair = HpkeKeyPair::generate(&SystemRandom::new()).unwrap();
    let load = LoadFields {
        nonce: [8; 32],
        units: units.clone(),
        hpke_key: pair.public_key().clone(),
        lease_key: LeaseKey::try_from([7; 32].as_slice()).unwrap(),
    };
    let binding = LoadChallenge {
        rule: "demo".to_owned(),
        model: "demo".to_owned(),
        version: "1".to_owned(),
        session: SESSION,
        nonce: load.nonce,
        vault: vault.id(),
        policy: vault.policy().digest(),
        manifest: manifest.digest(),
        units: units.clone(),
        tpm: TpmPart::Activated { ak_name: ak_name(), secret: ActivationSecret::from_bytes([4; 32]) },
    }
    .bind(load.hpke_key.clone(), load.lease_key.clone());
    let release = Release {
        time: NOW,
        rule: rule.clone(),
        model: model.clone(),
        version: version.clone(),
        policy: vault.policy().digest(),
        manifest: manifest.digest(),
        units: ReleasedUnits { count: 2, bytes: 200, digest: units.digest() },
        session: SESSION,
        hpke_key: Sha256Digest::of(load.hpke_key.as_bytes()),
        lease: binding.statement().lease_id(),
        lease_key: load.lease_key.clone(),
        issued: NOW,
        renew_by: NOW.plus(LEASE_SECS),
        platform: digest("guest"),
        machine: Machine::Tpm(BootId { ak_name: ak_name(), reset_count: 1, restart_count: 0 }),
        tier: Trust::Emulated,
        marks: None,
        workload: None,
        evidence: Sha256Digest::of(&evidence().blob()),
        binding: Sha256Digest::of(binding.preimage()),
    };
    let session = Session::bound(&wanted, pair, binding, &evidence());
    let mut grant = keeper.grant(&Bound { manifest: manifest.clone(), load, release }, changes);
    relay(&mut grant);
    session.accept(grant)
}
