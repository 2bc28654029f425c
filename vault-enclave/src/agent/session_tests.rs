//! A host that lies, and a keeper that is wrong. Each test changes one thing in an exchange that is good.

mod scene;

use attestation::{LeaseKey, Trust, UnitSet};
use ledger::checkpoint::CheckpointError;
use ledger::cosignature::CosignatureError;
use ledger::entry::{Entry, Release};
use ledger::lease::{LeaseStatement, grant_message};
use ledger::manifest::Selection;
use ledger::policy::{LeaseEnd, UnitCheck};
use ledger::proof::ProofError;
use vault_proto::convert::{AskedEvidence, Challenge, Grant, SignedLease};

use super::error::SessionError;
use super::session::{Wanted, verify_renewal};
use crate::derive::ModelContext;
use crate::secret::Dek;
use crate::unit_keys::UnitKeys;
use crate::wrap::GrantInfo;
use scene::{Change, Changes, Keeper, LEASE_SECS, NOW, SESSION, digest, exchange};

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
fn a_grant_whose_checkpoint_lacks_the_quorum_is_refused() {
    let refused = |change: fn(&str) -> String| {
        refused_when_relayed(&|grant| {
            let at = grant.log_proof.rfind("— witness.example/").expect("it is cosigned");
            let changed = change(&grant.log_proof[at..]);
            grant.log_proof.replace_range(at.., &changed);
        })
    };
    let quorum_missing = CosignatureError::QuorumMissing { counted: 1, quorum: 2 };
    let missing = SessionError::LogProof(ProofError::Checkpoint(CheckpointError::Witnesses(quorum_missing)));
    assert_eq!(missing.code(), "witness-quorum-missing");
    assert_eq!(refused(|_| String::new()), missing);
    assert_eq!(refused(|line| line.replace("witness.example/22", "witness.example/23")), missing);
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
    let other: [(&str, Change<'_, LeaseStatement>); 7] = [
        ("vault", &|statement| statement.vault = digest("other")),
        ("id", &|statement| statement.lease = digest("other")),
        ("key", &|statement| statement.lease_key = LeaseKey::try_from([1; 32].as_slice()).unwrap()),
        ("rule", &|statement| statement.rule = "other".try_into().unwrap()),
        ("policy", &|statement| statement.policy = digest("other")),
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
        workload: None,
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
        asked: AskedEvidence::Snp,
        vault_id: keeper.vault.id(),
        policy: keeper.vault.policy().digest(),
        manifest: manifest.digest(),
        units: UnitSet::try_from(vec![0, 2]).unwrap(),
        workload: false,
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
        policy: digest("policy"),
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
    // It says by which policy it was decided: nobody else does.
    assert_eq!(renewed(&|lease| lease.policy = digest("next policy")).unwrap().policy, digest("next policy"));
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
