//! Extensions: signed by enough approvers, for a bounded time, for the leases that they name and no other.

use attestation::{Sha256Digest, UnixTime};
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::entry::{Entry, Extend};
use ledger::extension::{
    ApprovedExtension, EXTENSION_APPROVALS_MAX, EXTENSION_SECS_MAX, ExtendedLeases, Extension, ExtensionApproval,
    ExtensionError, ExtensionFile,
};
use ledger::names::{Name, Version};
use ledger::state::FoldError;

use crate::support::keys::Person;
use crate::support::world::{ALICE, BOB, CAROL, LEASE_SECS, World};

const HOUR: u64 = 3600;
const OTHER: Sha256Digest = Sha256Digest::from_bytes([0x44; 32]);

fn minilm() -> (Name, Version) {
    ("minilm".parse().unwrap(), "1.0".parse().unwrap())
}

pub(crate) fn all(world: &World) -> Extension {
    Extension::new(world.now, world.now.plus(HOUR), ExtendedLeases::All {}).unwrap()
}

fn statement(world: &World, extension: &Extension) -> ApprovalStatement {
    let statement = world.statement(ApprovalAction::Extend, extension.object());
    ApprovalStatement { not_after: extension.until, ..statement }
}

fn signed(person: u8, statement: &ApprovalStatement) -> ExtensionApproval {
    let statement = String::from_utf8(statement.encode()).unwrap();
    let signature = Person::new(person).sign(statement.as_bytes());
    ExtensionApproval { statement, signature }
}

pub(crate) fn approvals(world: &World, extension: &Extension, people: &[u8]) -> Vec<ExtensionApproval> {
    people.iter().map(|person| signed(*person, &statement(world, extension))).collect()
}

fn file(world: &World, extension: Extension, people: &[u8]) -> ExtensionFile {
    let approvals = approvals(world, &extension, people);
    ExtensionFile { policy: world.policy_text.clone(), extension, approvals }
}

fn verify(world: &World, file: &ExtensionFile) -> Result<ApprovedExtension, ExtensionError> {
    file.verify(world.genesis.vault_id(), world.policy().digest())
}

#[test]
fn enough_approvers_of_the_policy_in_force_extend_and_fewer_do_not() {
    let world = World::with_model();
    let good = file(&world, all(&world), &[ALICE, CAROL]);
    assert_eq!(ExtensionFile::parse(&good.encode()).as_ref(), Ok(&good));
    assert_eq!(verify(&world, &good).unwrap().extension(), &good.extension);
    let refusal = |file: ExtensionFile| verify(&world, &file).unwrap_err();
    let with = |approvals| ExtensionFile { approvals, ..good.clone() };
    assert_eq!(refusal(file(&world, all(&world), &[BOB])), ExtensionError::TooFew { given: 1, threshold: 2 });
    assert_eq!(refusal(with(Vec::new())), ExtensionError::TooFew { given: 0, threshold: 2 });
    let twice = ExtensionError::ApproverRepeated { approver: "bob".parse().unwrap() };
    assert_eq!(refusal(file(&world, all(&world), &[BOB, BOB])), twice);
    // A stranger beside enough approvers: nothing of what comes with it is believed.
    assert_eq!(refusal(file(&world, all(&world), &[ALICE, BOB, 9])).code(), "not-an-approver");
    let mut forged = good.approvals.clone();
    forged[0].statement = forged[0].statement.replacen("\"serial\":1", "\"serial\":2", 1);
    assert_eq!(refusal(with(forged)).code(), "sshsig-invalid");
}

#[test]
fn a_signature_is_for_one_extension_of_one_vault_under_one_policy() {
    let world = World::with_model();
    let good = file(&world, all(&world), &[ALICE, BOB]);
    let refusal = |change: fn(&mut ApprovalStatement)| {
        let mut changed = statement(&world, &good.extension);
        change(&mut changed);
        let approvals = [ALICE, BOB].map(|person| signed(person, &changed)).to_vec();
        verify(&world, &ExtensionFile { approvals, ..good.clone() }).unwrap_err()
    };
    assert_eq!(refusal(|s| s.vault = OTHER), ExtensionError::OtherVault);
    assert_eq!(refusal(|s| s.object = OTHER), ExtensionError::OtherObject);
    assert_eq!(refusal(|s| s.action = ApprovalAction::Policy), ExtensionError::OtherObject);
    assert_eq!(refusal(|s| s.previous = OTHER), ExtensionError::PolicyNotInForce);
    assert_eq!(refusal(|s| s.serial = 7), ExtensionError::PolicyNotInForce);
    assert_eq!(refusal(|s| s.not_after = s.not_after.plus(1)), ExtensionError::OtherEnd);
    // The same signatures under a longer time, or for other leases.
    for (until, leases) in [
        (world.now.plus(2 * HOUR), ExtendedLeases::All {}),
        (world.now.plus(HOUR), ExtendedLeases::Lease { lease: OTHER }),
    ] {
        let extension = Extension::new(world.now, until, leases).unwrap();
        let refused = verify(&world, &ExtensionFile { extension, ..good.clone() }).unwrap_err();
        assert_eq!(refused, ExtensionError::OtherObject);
    }
    // Another policy than the one that is known to be in force, though its approvers have signed.
    let policy = world.policy_text.replace("max_leases = 4", "max_leases = 8");
    let other = ExtensionFile { policy, ..good.clone() };
    assert_eq!(verify(&world, &other).unwrap_err(), ExtensionError::PolicyNotInForce);
    assert_eq!(good.verify(world.genesis.vault_id(), OTHER).unwrap_err(), ExtensionError::PolicyNotInForce);
    assert_eq!(good.verify(OTHER, world.policy().digest()).unwrap_err(), ExtensionError::OtherVault);
}

#[test]
fn an_extension_counts_for_its_leases_in_its_time_and_no_longer_than_seven_days() {
    let world = World::with_model();
    let (model, version) = minilm();
    let (from, to) = (world.now, world.now.plus(HOUR));
    let until = |leases: ExtendedLeases, now: UnixTime| {
        let extension = Extension::new(from, to, leases).unwrap();
        verify(&world, &file(&world, extension, &[ALICE, BOB])).unwrap().until(OTHER, &model, &version, now)
    };
    let of = |model: &str, version: Option<&str>| ExtendedLeases::Model {
        model: model.parse().unwrap(),
        version: version.map(|version| version.parse().unwrap()),
    };
    for covered in
        [ExtendedLeases::All {}, of("minilm", None), of("minilm", Some("1.0")), ExtendedLeases::Lease { lease: OTHER }]
    {
        assert_eq!(until(covered.clone(), from), Ok(to));
        assert_eq!(until(covered.clone(), to), Ok(to));
        assert_eq!(until(covered.clone(), to.plus(1)), Err(ExtensionError::Expired { until: to }));
        let before = UnixTime(from.seconds() - 1);
        assert_eq!(until(covered, before), Err(ExtensionError::NotYet { not_before: from }));
    }
    let lease = Sha256Digest::of(b"another lease");
    for other in [of("llama", None), of("minilm", Some("1.1")), ExtendedLeases::Lease { lease }] {
        assert_eq!(until(other, from), Err(ExtensionError::OtherLease));
    }
    let span = |secs| Extension::new(from, from.plus(secs), ExtendedLeases::All {}).map(drop);
    assert_eq!(span(EXTENSION_SECS_MAX), Ok(()));
    for secs in [0, EXTENSION_SECS_MAX + 1] {
        assert_eq!(span(secs), Err(ExtensionError::Span { not_before: from, until: from.plus(secs) }));
    }
}

#[test]
fn extensions_and_their_files_have_one_form() {
    let text = r#"{"v":1,"not_before":4,"until":9,"leases":{"by":"model","model":"minilm"}}"#;
    let extension = Extension::parse(text.as_bytes()).unwrap();
    assert_eq!(extension.encode(), text.as_bytes());
    // The vector of FORMAT.md §7.
    assert_eq!(
        extension.object().to_string(),
        "sha256:1cfa89bbc06f2ef38ad227000716d7736d357d82d7ad92501856679aa16d2138"
    );
    for wrong in [
        text.replace("\"v\":1", "\"v\":2"),
        text.replace("{\"v\"", "{ \"v\""),
        text.replace("}}", ",\"x\":1}}"),
        text.replace("\"by\":\"model\"", "\"by\":\"group\""),
        format!("{text}\n"),
        " ".repeat(2000),
    ] {
        assert_eq!(Extension::parse(wrong.as_bytes()), Err(ExtensionError::Malformed), "{wrong}");
    }
    let world = World::with_model();
    let good = file(&world, all(&world), &[ALICE]);
    let many = vec![good.approvals[0].clone(); EXTENSION_APPROVALS_MAX + 1];
    let long = ExtensionApproval { statement: "s".repeat(1025), ..good.approvals[0].clone() };
    for wrong in [
        ExtensionFile { approvals: many, ..good.clone() },
        ExtensionFile { approvals: vec![long], ..good.clone() },
        ExtensionFile { policy: "p".repeat((12 << 10) + 1), ..good.clone() },
    ] {
        assert_eq!(ExtensionFile::parse(&wrong.encode()), Err(ExtensionError::FileMalformed));
    }
    assert_eq!(ExtensionFile::parse(b"{}"), Err(ExtensionError::FileMalformed));
    assert_eq!(ExtensionFile::parse(&vec![b' '; (64 << 10) + 1]), Err(ExtensionError::FileMalformed));
}

fn entry(world: &World, extension: &Extension, people: &[u8], leases: u32) -> Entry {
    let approvals = approvals(world, extension, people);
    Entry::Extend(Extend { time: world.now, extension: extension.clone(), approvals, leases })
}

#[test]
fn an_extension_in_the_log_lets_leases_run_on_and_be_renewed_in_time() {
    let mut world = World::with_model();
    let lease = world.must_release(1);
    let extension = all(&world);
    // The keeper was away; the lease has just run out.
    world.pass(LEASE_SECS + 10);
    let late = world.renew(vec![world.renewal(lease)]);
    assert!(matches!(world.refusal(late), FoldError::LeaseLapsed { .. }));
    let few = entry(&world, &extension, &[ALICE], 1);
    assert_eq!(world.refusal(few), FoldError::Extension(ExtensionError::TooFew { given: 1, threshold: 2 }));
    let miscounted = entry(&world, &extension, &[ALICE, BOB], 2);
    assert_eq!(world.refusal(miscounted), FoldError::LeaseCountMismatch { expected: 1, found: 2 });
    let good = entry(&world, &extension, &[ALICE, BOB], 1);
    world.must(good.clone());
    let held = |world: &World| world.vault().lease(lease).map(|lease| (lease.renew_by, lease.extended)).unwrap();
    assert_eq!((world.leases(), held(&world)), (1, (extension.until, Some(extension.until))));
    // Once more it would extend nothing.
    assert_eq!(world.refusal(good), FoldError::LeaseCountMismatch { expected: 0, found: 1 });
    let renewed = world.renew(vec![world.renewal(lease)]);
    world.must(renewed);
    assert_eq!(held(&world), (world.now.plus(LEASE_SECS), None));
}

#[test]
fn an_extension_is_logged_in_its_time_and_for_its_time_alone() {
    let mut world = World::with_model();
    world.must_release(1);
    let ahead = Extension::new(world.now.plus(10), world.now.plus(HOUR), ExtendedLeases::All {}).unwrap();
    let early = entry(&world, &ahead, &[ALICE, BOB], 1);
    let not_yet = ExtensionError::NotYet { not_before: ahead.not_before };
    assert_eq!(world.refusal(early), FoldError::Extension(not_yet));
    let long = serde_json::from_str::<Extension>(&format!(
        r#"{{"v":1,"not_before":{},"until":{},"leases":{{"by":"all"}}}}"#,
        world.now.seconds(),
        world.now.seconds() + EXTENSION_SECS_MAX + 1
    ));
    let long = long.unwrap();
    let too_long = entry(&world, &long, &[ALICE, BOB], 1);
    assert_eq!(world.refusal(too_long).code(), "extension-span");
    let short = Extension::new(world.now, world.now.plus(5), ExtendedLeases::All {}).unwrap();
    let late = entry(&world, &short, &[ALICE, BOB], 1);
    world.pass(6);
    let Entry::Extend(late) = late else { unreachable!() };
    let late = Entry::Extend(Extend { time: world.now, ..late });
    assert_eq!(world.refusal(late), FoldError::Extension(ExtensionError::Expired { until: short.until }));
}
