//! A keeper's real keys and a real log, and a host that lies. Each test changes one thing in an exchange that is good.

use attestation::{
    ActivationSecret, AkName, HpkePublicKey, LeaseKey, LoadChallenge, Sha256Digest, TpmIdentity, TpmQuote, Trust,
    UnitSet, UnixTime, lv,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ledger::checkpoint::LogVerifier;
use ledger::entry::{Entry, Release, ReleasedUnits};
use ledger::genesis::{AntiRollback, Core, Genesis, KeeperIdentity, SealTo};
use ledger::lease::{LeaseStatement, grant_message};
use ledger::manifest::{Blake3Digest, Manifest, ModelId, Plan, PlanUnit, SealedDigests, Selection};
use ledger::policy::{LeaseEnd, UnitCheck};
use ledger::release_log::{Batch, ClosedLog, Log, Loggable, Writer};
use ledger::vault_file::VaultFile;
use ring::rand::SystemRandom;
use vault_proto::convert::{Challenge, EvidenceSet, Grant, SignedLease};

use super::error::SessionError;
use super::session::{Granted, Session, Wanted, verify_renewal};
use crate::derive::{KeeperContext, ModelContext, root};
use crate::secret::{Dek, TpmSecret};
use crate::unit_keys::UnitKeys;
use crate::vault_keys::{VaultKeys, VaultKeysError};
use crate::wrap::{GrantInfo, HpkeKeyPair, wrap_unit_keys};

const NOW: UnixTime = UnixTime(1_790_000_000);
const LEASE_SECS: u64 = 900;
const SESSION: [u8; 16] = [5; 16];
const INSTANCE: [u8; 32] = [6; 32];

/// A vault, as its keeper knows it.
struct Keeper {
    keys: VaultKeys,
    vault: VaultFile,
    log: Log,
}

/// What the tests change.
type Change<'a, T> = &'a dyn Fn(&mut T);

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
         lease = \"15m\"\non_lease_end = \"end\"\nmax_leases = 4\nverify_units = true\n[audit]\nreaders = \"any\"\n",
        pcrs("2"),
        pcrs("3"),
    )
}

impl Keeper {
    fn new(seed: u8) -> Self {
        let core = Core::new(AntiRollback::Counter, SealTo::Tpm, &policy()).unwrap();
        let context = KeeperContext { instance: INSTANCE, core: core.digest() };
        let keys = VaultKeys::derive(&root(&TpmSecret::known([seed; 64]), "tpm").unwrap(), &context).unwrap();
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
        let verifier = LogVerifier::new(genesis.vault_id(), keys.log_key().clone());
        let log = ClosedLog::empty().start(verifier, first, &mut Disk(&keys)).unwrap();
        let vault = VaultFile::new(genesis, vec!["http://vault:7440".to_owned()]).unwrap();
        Self { keys, vault, log }
    }

    fn manifest(&self, model: &str) -> Manifest {
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

    fn sign(&self, statement: &LeaseStatement) -> SignedLease {
        let statement = statement.encode();
        let signature = self.keys.sign_identity(&LeaseStatement::message(&statement)).unwrap();
        SignedLease { statement, signature }
    }
}

/// What a dishonest keeper, or a bug in an honest one, would change. (A host can change only what it relays.)
struct Changes<'a> {
    release: Change<'a, Release>,
    entry: Option<Entry>,
    info: &'a dyn Fn(&mut GrantInfo<'_>),
    statement: Change<'a, LeaseStatement>,
}

impl Changes<'_> {
    fn none() -> Self {
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
            issued: release.issued,
            renew_by: release.renew_by,
            lease_end: LeaseEnd::End,
            unit_check: UnitCheck::Hashed,
        }
    }
}

fn ak_name() -> AkName {
    AkName::try_from([&[0, 0x0b][..], &[3; 32]].concat().as_slice()).unwrap()
}

fn digest(text: &str) -> Sha256Digest {
    Sha256Digest::of(text.as_bytes())
}

fn evidence() -> EvidenceSet {
    let identity = TpmIdentity { ek_certificates: vec![vec![1]], ak_public: vec![2] };
    EvidenceSet { tpm: TpmQuote { identity, attest: vec![3], signature: vec![4], pcrs: vec![(0, [5; 32])] } }
}

/// One exchange: a session that waits, the grant that `changes` makes, and what `relay` makes of that on the way.
fn exchange(changes: &Changes<'_>, relay: Change<'_, Grant>) -> Result<Granted, SessionError> {
    let mut keeper = Keeper::new(1);
    let vault = keeper.vault.clone();
    let manifest = keeper.manifest("demo");
    let (rule, model, version) = ("demo".try_into().unwrap(), "demo".try_into().unwrap(), "1".try_into().unwrap());
    let selection = Selection::Units(vec![0, 2]);
    let wanted = Wanted {
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
        ak_name: ak_name(),
        secret: ActivationSecret::from_bytes([4; 32]),
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
        ak_name: ak_name(),
        reset_count: 1,
        restart_count: 0,
        tier: Trust::Emulated,
        evidence: Sha256Digest::of(&evidence().blob()),
        binding: Sha256Digest::of(binding.preimage()),
    };
    let session = Session::bound(&wanted, pair, binding, &evidence());
    let mut grant = keeper.grant(&Bound { manifest: manifest.clone(), load, release }, changes);
    relay(&mut grant);
    session.accept(grant)
}

fn refused_when_changed(changes: &Changes<'_>) -> SessionError {
    exchange(changes, &|_| {}).err().unwrap()
}

fn refused_when_relayed(relay: Change<'_, Grant>) -> SessionError {
    exchange(&Changes::none(), relay).err().unwrap()
}

#[test]
fn a_good_grant_gives_the_keys_of_the_units_asked_for() {
    let granted = exchange(&Changes::none(), &|_| {}).unwrap();
    assert_eq!(granted.keys.units().as_slice(), [0, 2]);
    assert_eq!((granted.index, granted.release.tier), (1, Trust::Emulated));
    assert_eq!(granted.statement.renew_by, NOW.plus(LEASE_SECS));
    let keeper = Keeper::new(1);
    let dek = Dek::known([9; 64]);
    let set = UnitSet::try_from(vec![0, 2]).unwrap();
    let same = UnitKeys::derive(&dek, ModelContext::from(&keeper.manifest("demo")), set).unwrap();
    granted.keys.with_bytes(|granted| same.with_bytes(|same| assert_eq!(granted, same)));
}

#[test]
fn a_host_that_changes_what_the_keeper_signed_is_caught() {
    let flips: [Change<'_, Grant>; 4] =
        [&|grant| grant.enc[1] ^= 1, &|grant| grant.wrapped_keys[0] ^= 1, &|grant| grant.signature[0] ^= 1, &|grant| {
            grant.entry[20] ^= 1
        }];
    for flip in flips {
        assert_eq!(refused_when_relayed(flip), SessionError::GrantSignature);
    }
}

#[test]
fn a_grant_of_another_vaults_keeper_is_refused() {
    let other = Keeper::new(2);
    let refusal = refused_when_relayed(&|grant| {
        let leaf = ledger::merkle::leaf_hash(&grant.entry);
        grant.signature = other.keys.sign_identity(&grant_message(&leaf, &*grant.enc, &grant.wrapped_keys)).unwrap();
    });
    assert_eq!(refusal, SessionError::GrantSignature);
}

#[test]
fn a_grant_without_its_place_in_the_log_is_refused() {
    let cuts: [Change<'_, Grant>; 3] = [
        &|grant| grant.log_proof = grant.log_proof.replace("index 1", "index 0"),
        &|grant| grant.log_proof = String::new(),
        &|grant| {
            let other = Keeper::new(2);
            grant.log_proof = ledger::proof::proof_text(1, &[], other.log.checkpoint());
        },
    ];
    for cut in cuts {
        assert!(matches!(refused_when_relayed(cut), SessionError::LogProof(_)));
    }
}

#[test]
fn an_entry_that_is_no_release_is_refused() {
    let end = ledger::entry::End { time: NOW, lease: digest("lease"), cause: ledger::entry::Cause::Agent };
    let changes = Changes { entry: Some(Entry::End(end)), ..Changes::none() };
    assert_eq!(refused_when_changed(&changes), SessionError::NotARelease);
}

#[test]
fn an_entry_that_states_another_release_is_refused() {
    let other: [(&str, Change<'_, Release>); 14] = [
        ("rule", &|release| release.rule = "other".try_into().unwrap()),
        ("model", &|release| release.model = "other".try_into().unwrap()),
        ("version", &|release| release.version = "2".try_into().unwrap()),
        ("policy", &|release| release.policy = digest("other")),
        ("manifest", &|release| release.manifest = digest("other")),
        ("unit set", &|release| release.units.digest = digest("other")),
        ("number of units", &|release| release.units.count = 3),
        ("number of bytes", &|release| release.units.bytes = 300),
        ("session", &|release| release.session = [1; 16]),
        ("key", &|release| release.hpke_key = digest("other")),
        ("lease", &|release| release.lease = digest("other")),
        ("lease key", &|release| release.lease_key = LeaseKey::try_from([1; 32].as_slice()).unwrap()),
        ("evidence", &|release| release.evidence = digest("other")),
        ("binding", &|release| release.binding = digest("other")),
    ];
    for (field, release) in other {
        let refusal = refused_when_changed(&Changes { release, ..Changes::none() });
        assert_eq!(refusal, SessionError::OtherRelease { field });
    }
}

#[test]
fn a_lease_that_differs_from_its_entry_is_refused() {
    let other: [(&str, Change<'_, LeaseStatement>); 6] = [
        ("vault", &|statement| statement.vault = digest("other")),
        ("id", &|statement| statement.lease = digest("other")),
        ("key", &|statement| statement.lease_key = LeaseKey::try_from([1; 32].as_slice()).unwrap()),
        ("rule", &|statement| statement.rule = "other".try_into().unwrap()),
        ("issued", &|statement| statement.issued = NOW.plus(1)),
        ("renew_by", &|statement| statement.renew_by = NOW.plus(LEASE_SECS + 1)),
    ];
    for (field, statement) in other {
        let refusal = refused_when_changed(&Changes { statement, ..Changes::none() });
        assert_eq!(refusal, SessionError::OtherLease { field });
    }
}

#[test]
fn a_lease_that_the_keeper_did_not_sign_is_refused() {
    let refusal = refused_when_relayed(&|grant| grant.lease.signature[5] ^= 1);
    assert_eq!(refusal, SessionError::LeaseSignature);
    let refusal = refused_when_relayed(&|grant| grant.lease.statement.push(b' '));
    assert_eq!(refusal, SessionError::LeaseSignature);
    let refusal = refused_when_relayed(&|grant| {
        let statement = b"{}".to_vec();
        let signature = Keeper::new(1).keys.sign_identity(&LeaseStatement::message(&statement)).unwrap();
        grant.lease = SignedLease { statement, signature };
    });
    assert_eq!(refusal, SessionError::LeaseMalformed);
}

#[test]
fn keys_that_were_wrapped_for_another_grant_do_not_open() {
    let other: [&dyn Fn(&mut GrantInfo<'_>); 5] = [
        &|info| info.nonce[0] ^= 1,
        &|info| info.session[0] ^= 1,
        &|info| info.leaf[0] ^= 1,
        &|info| info.vault = digest("other"),
        &|info| info.renew_by = NOW,
    ];
    for info in other {
        let refusal = refused_when_changed(&Changes { info, ..Changes::none() });
        assert!(matches!(refusal, SessionError::Wrap(_)), "{refusal:?}");
    }
}

/// A challenge that is for what was wanted, but for what `change` makes of it; and the manifest of `model`.
fn challenged(model: &str, change: Change<'_, Challenge>) -> Result<(), SessionError> {
    let keeper = Keeper::new(1);
    let manifest = keeper.manifest(model);
    let (rule, model, version) = ("demo".try_into().unwrap(), "demo".try_into().unwrap(), "1".try_into().unwrap());
    let selection = Selection::Units(vec![0, 2]);
    let wanted = Wanted {
        vault: &keeper.vault,
        rule: &rule,
        model: &model,
        version: &version,
        manifest: &manifest,
        selection: &selection,
    };
    let mut challenge = Challenge {
        session: SESSION,
        nonce: [8; 32],
        credential: attestation::Credential { id_object: vec![1], encrypted_secret: vec![2] },
        vault_id: keeper.vault.id(),
        policy: keeper.vault.policy().digest(),
        manifest: manifest.digest(),
        units: UnitSet::try_from(vec![0, 2]).unwrap(),
        pcrs: attestation::PcrSelection::try_from([0_u32].as_slice()).unwrap(),
        expires: NOW.plus(60),
    };
    change(&mut challenge);
    wanted.check(&challenge)
}

#[test]
fn a_challenge_for_something_else_is_refused_before_the_tpm_is_asked() {
    assert_eq!(challenged("demo", &|_| {}), Ok(()));
    let code = |change: Change<'_, Challenge>| challenged("demo", change).unwrap_err().code();
    assert_eq!(code(&|challenge| challenge.vault_id = digest("other")), "challenge-other-vault");
    assert_eq!(code(&|challenge| challenge.manifest = digest("other")), "manifest-mismatch");
    assert_eq!(code(&|challenge| challenge.units = UnitSet::try_from(vec![0, 1, 2]).unwrap()), "challenge-other-units");
}

#[test]
fn the_manifest_of_another_model_is_refused() {
    assert_eq!(challenged("other", &|_| {}), Err(SessionError::OtherModel));
}

#[test]
fn a_renewal_is_later_and_of_the_same_lease() {
    let keeper = Keeper::new(1);
    let held = LeaseStatement {
        vault: keeper.vault.id(),
        lease: digest("lease"),
        lease_key: LeaseKey::try_from([7; 32].as_slice()).unwrap(),
        rule: "demo".try_into().unwrap(),
        issued: NOW,
        renew_by: NOW.plus(LEASE_SECS),
        lease_end: LeaseEnd::End,
        unit_check: UnitCheck::Hashed,
    };
    let renewed = |change: Change<'_, LeaseStatement>| {
        let mut statement = held.clone();
        (statement.issued, statement.renew_by) = (NOW.plus(300), NOW.plus(300 + LEASE_SECS));
        change(&mut statement);
        verify_renewal(&keeper.vault, &held, &keeper.sign(&statement))
    };
    assert_eq!(renewed(&|_| {}).unwrap().renew_by, NOW.plus(300 + LEASE_SECS));
    // A new policy may have made the lease shorter.
    assert_eq!(renewed(&|lease| lease.renew_by = NOW.plus(400)).unwrap().renew_by, NOW.plus(400));
    let refused = |change: Change<'_, LeaseStatement>| renewed(change).unwrap_err();
    assert_eq!(refused(&|lease| lease.lease = digest("other")), SessionError::OtherLease { field: "id" });
    assert_eq!(refused(&|lease| lease.rule = "other".try_into().unwrap()), SessionError::OtherLease { field: "rule" });
    assert_eq!(refused(&|lease| lease.vault = digest("other")), SessionError::OtherLease { field: "vault" });
    let key = LeaseKey::try_from([1; 32].as_slice()).unwrap();
    assert_eq!(refused(&|lease| lease.lease_key = key.clone()), SessionError::OtherLease { field: "key" });
    // The statement that is held, shown again.
    assert_eq!(refused(&|lease| lease.issued = NOW), SessionError::LeaseNotNewer);
    let mut unsigned = keeper.sign(&held);
    unsigned.signature[0] ^= 1;
    assert_eq!(verify_renewal(&keeper.vault, &held, &unsigned), Err(SessionError::LeaseSignature));
}
