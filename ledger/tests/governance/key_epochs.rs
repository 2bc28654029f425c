//! Key epochs: asked for, made by the keeper, approved, begun, and followed by those who know an older key.

use attestation::{AkName, HpkePublicKey, LogKey, Sha256Digest, UnixTime};
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::checkpoint::{Checkpoint, LogVerifier};
use ledger::entry::{Entry, KeyEpoch, Proposal, ProposedEpoch};
use ledger::escrow::{EscrowError, EscrowPlan};
use ledger::key_epoch::{self, EpochError, EpochKeys, EpochLink, LINKS_MAX, NextEpoch};
use ledger::proof::proof_text;
use ledger::state::{FoldError, IndexedEntry, Succession};
use ledger::vault_file::VaultFile;
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::support::keys::{Person, identity_key, identity_sign};
use crate::support::policy_text::PCR_11_KEEPER;
use crate::support::world::{ALICE, BOB, CAROL, IDENTITY, World, keeper};
use crate::{beside, escrow, keepers, reseal};

const OTHER: Sha256Digest = Sha256Digest::from_bytes([0x44; 32]);
const RECORDS: Sha256Digest = Sha256Digest::from_bytes([0x55; 32]);

fn wrap_key(byte: u8) -> HpkePublicKey {
    HpkePublicKey::try_from([byte; 1665].as_slice()).unwrap()
}

/// The seed of the identity key of an epoch; that of the first is in the genesis.
fn seed(epoch: u32) -> u8 {
    if epoch == 1 { IDENTITY } else { 0x40 + u8::try_from(epoch).unwrap() }
}

fn keys(epoch: u32) -> EpochKeys {
    EpochKeys { epoch, wrap_key: wrap_key(seed(epoch)), identity_key: identity_key(seed(epoch)) }
}

/// What the keeper that has the vault makes for this epoch.
fn next(world: &World, epoch: u32) -> NextEpoch {
    let machine = world.vault().keepers().current();
    NextEpoch { instance: machine.instance, ak_name: machine.ak_name, keys: keys(epoch) }
}

fn request(world: &World, next: &NextEpoch) -> ApprovalStatement {
    let object = NextEpoch::request(world.genesis.vault_id(), next.keys.epoch, &next.instance);
    world.statement(ApprovalAction::ProposeKeyEpoch, object)
}

fn proposed_saying(world: &World, proposer: u8, next: &NextEpoch, statement: &ApprovalStatement) -> ProposedEpoch {
    let statement = String::from_utf8(statement.encode()).unwrap();
    let signature = Person::new(proposer).sign(statement.as_bytes());
    ProposedEpoch::new(next, world.genesis.vault_id(), statement, signature)
}

fn propose(world: &World, next: &NextEpoch) -> Entry {
    propose_saying(world, next, &request(world, next))
}

fn propose_saying(world: &World, next: &NextEpoch, statement: &ApprovalStatement) -> Entry {
    world.propose(Proposal::KeyEpoch(Box::new(proposed_saying(world, ALICE, next, statement))))
}

fn object(world: &World, epoch: u32) -> Sha256Digest {
    next(world, epoch).object(world.genesis.vault_id())
}

fn effect(world: &World, proposal: u64, epoch: u32) -> KeyEpoch {
    let EpochKeys { wrap_key, identity_key, .. } = keys(epoch);
    let signature = identity_sign(seed(epoch - 1), &keys(epoch).successor_message(world.genesis.vault_id()));
    let (time, object) = (world.now, object(world, epoch));
    KeyEpoch { time, proposal, object, epoch, wrap_key, identity_key, signature, records: RECORDS }
}

fn entry(effect: KeyEpoch) -> Entry {
    Entry::KeyEpoch(Box::new(effect))
}

pub(crate) fn must_propose(world: &mut World, epoch: u32) -> u64 {
    let index = world.state.size();
    let entry = propose(world, &next(world, epoch));
    world.must(entry);
    index
}

/// Alice asks for it, Bob and Carol approve; the index of the proposal.
fn approved(world: &mut World, epoch: u32) -> u64 {
    let index = must_propose(world, epoch);
    for person in [BOB, CAROL] {
        let entry = world.approve(person, ApprovalAction::KeyEpoch, object(world, epoch));
        world.must(entry);
    }
    index
}

pub(crate) fn must_begin(world: &mut World, epoch: u32) {
    let index = approved(world, epoch);
    let begun = entry(effect(world, index, epoch));
    world.must(begun);
}

#[track_caller]
fn refused(world: &mut World, entry: Entry) -> EpochError {
    match world.refusal(entry) {
        FoldError::Epoch(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn an_epoch_has_its_keys_from_its_entry_on() {
    let mut world = World::with_model();
    assert_eq!((world.vault().epochs().present(), world.vault().epochs().since()), (&keys_of_genesis(), world.now));
    assert!(world.vault().epochs().begun().is_none());
    world.pass(60);
    let index = must_propose(&mut world, 2);
    for (person, given) in [(BOB, 0), (CAROL, 1)] {
        let early = entry(effect(&world, index, 2));
        assert_eq!(world.refusal(early), FoldError::ThresholdNotReached { given, threshold: 2 });
        let entry = world.approve(person, ApprovalAction::KeyEpoch, object(&world, 2));
        world.must(entry);
    }
    assert_eq!(world.vault().due(world.now).unwrap().object(), object(&world, 2));
    let begins = world.state.size();
    let begun = entry(effect(&world, index, 2));
    world.must(begun.clone());
    let epochs = world.vault().epochs();
    assert_eq!((epochs.present(), epochs.since(), epochs.entries()), (&keys(2), world.now, [begins].as_slice()));
    assert_eq!(epochs.begun().map(|begun| (begun.object, begun.records)), Some((object(&world, 2), RECORDS)));
    assert!(world.vault().pending(world.now).next().is_none());
    // Models and leases of before are what they were.
    assert_eq!(world.vault().models().count(), 1);
    world.must_release(1);
    assert_eq!(world.refusal(begun), FoldError::ProposalUnknown);
    must_begin(&mut world, 3);
    assert_eq!(world.vault().epochs().present(), &keys(3));
}

#[test]
fn what_a_key_signed_while_it_was_the_vaults_goes_on_to_count() {
    let mut world = World::open();
    let (early, message) = (world.now, b"a lease".as_slice());
    world.pass(60);
    must_begin(&mut world, 2);
    let begun = world.now;
    world.pass(60);
    let signed = |by: u32, issued| world.vault().epochs().signed(message, &identity_sign(seed(by), message), issued);
    assert!(signed(1, early) && signed(1, begun));
    assert!(!signed(1, begun.plus(1)), "the key of before signs nothing new");
    assert!(signed(2, world.now) && !signed(3, early));
}

fn keys_of_genesis() -> EpochKeys {
    EpochKeys::from(&keeper())
}

#[test]
fn keys_are_the_keepers_own_of_the_next_epoch_and_never_were_the_vaults() {
    let mut world = World::open();
    let good = next(&world, 2);
    let with = |change: fn(&mut NextEpoch)| {
        let mut next = good.clone();
        change(&mut next);
        next
    };
    for (next, expected) in [
        (with(|next| next.instance = [9; 32]), EpochError::OtherKeeper { field: "the instance" }),
        (
            with(|next| next.ak_name = AkName::try_from([[0, 0x0b].as_slice(), &[1; 32]].concat().as_slice()).unwrap()),
            EpochError::OtherKeeper { field: "the attestation key" },
        ),
        (with(|next| next.keys.epoch = 1), EpochError::NotNext { present: 1, found: 1 }),
        (with(|next| next.keys.epoch = 3), EpochError::NotNext { present: 1, found: 3 }),
        (with(|next| next.keys.wrap_key = keeper().wrap_key), EpochError::KeyReused { key: "the wrap key" }),
        (
            with(|next| next.keys.identity_key = keeper().identity_key),
            EpochError::KeyReused { key: "the identity key" },
        ),
    ] {
        let entry = propose(&world, &next);
        assert_eq!(refused(&mut world, entry), expected);
    }
    must_begin(&mut world, 2);
    // Those of an epoch in between neither.
    let mut again = next(&world, 3);
    again.keys.wrap_key = keys(2).wrap_key;
    let again = propose(&world, &again);
    assert_eq!(refused(&mut world, again), EpochError::KeyReused { key: "the wrap key" });
}

#[test]
fn an_epoch_is_asked_for_by_an_approver_for_exactly_that() {
    type Change = fn(&mut ApprovalStatement);
    let expired = UnixTime(World::open().now.seconds() - 1);
    let changes: [(Change, FoldError); 7] = [
        (|s| s.action = ApprovalAction::KeyEpoch, FoldError::ActionMismatch),
        (|s| s.action = ApprovalAction::ProposeReseal, FoldError::ActionMismatch),
        (|s| s.object = OTHER, FoldError::ObjectMismatch),
        (|s| s.previous = OTHER, FoldError::PreviousMismatch),
        (|s| s.vault = OTHER, FoldError::VaultMismatch),
        (|s| s.serial = 2, FoldError::SerialMismatch { expected: 1, found: 2 }),
        (
            |s| s.not_after = UnixTime(World::open().now.seconds() - 1),
            FoldError::StatementExpired { not_after: expired },
        ),
    ];
    let mut world = World::open();
    let good = next(&world, 2);
    for (change, expected) in changes {
        let mut statement = request(&world, &good);
        change(&mut statement);
        let signed = proposed_saying(&world, ALICE, &good, &statement);
        let vetted = world.vault().vet_epoch_request(&signed.statement, &signed.signature, world.now);
        assert_eq!(vetted, Err(expected.clone()), "a keeper makes no keys for it");
        let entry = propose_saying(&world, &good, &statement);
        assert_eq!(world.refusal(entry), expected);
    }
    let statement = request(&world, &good);
    let stranger = Box::new(proposed_saying(&world, 9, &good, &statement));
    let vetted = world.vault().vet_epoch_request(&stranger.statement, &stranger.signature, world.now);
    assert_eq!(vetted.unwrap_err().code(), "not-an-approver");
    let entry = world.propose(Proposal::KeyEpoch(stranger));
    assert_eq!(world.refusal(entry).code(), "not-an-approver");
    let mut wrong = Box::new(proposed_saying(&world, ALICE, &good, &statement));
    wrong.object = OTHER;
    let entry = world.propose(Proposal::KeyEpoch(wrong));
    assert_eq!(world.refusal(entry), FoldError::ObjectMismatch);
    let signed = proposed_saying(&world, ALICE, &good, &statement);
    assert_eq!(world.vault().vet_epoch_request(&signed.statement, &signed.signature, world.now), Ok(()));
}

#[test]
fn one_waits_and_an_older_request_does_not_void_it() {
    let mut world = World::open();
    let good = next(&world, 2);
    let statement = request(&world, &good);
    must_propose(&mut world, 2);
    // The same request again, and one that counts no longer, whatever keys they bring.
    let mut other = good.clone();
    other.keys.wrap_key = wrap_key(9);
    for statement in
        [statement, ApprovalStatement { not_after: UnixTime(statement.not_after.seconds() - 1), ..statement }]
    {
        let entry = propose_saying(&world, &other, &statement);
        assert_eq!(refused(&mut world, entry).code(), "epoch-waits");
    }
    world.pass(1);
    let longer = propose(&world, &other);
    world.must(longer);
    let waits: Vec<_> = world.vault().pending(world.now).map(|proposal| proposal.object()).collect();
    assert_eq!(waits, [other.object(world.genesis.vault_id())]);
}

#[test]
fn an_approval_is_of_an_approver_for_these_keys_and_counts_once() {
    let mut world = World::open();
    let index = must_propose(&mut world, 2);
    let object = object(&world, 2);
    let own = world.approve(ALICE, ApprovalAction::KeyEpoch, object);
    assert_eq!(world.refusal(own).code(), "proposer-may-not-approve");
    let other_action = world.approve(BOB, ApprovalAction::Reseal, object);
    assert_eq!(world.refusal(other_action), FoldError::ActionMismatch);
    let stale = ApprovalStatement { previous: OTHER, ..world.statement(ApprovalAction::KeyEpoch, object) };
    let stale = world.signed(BOB, stale, None);
    assert_eq!(world.refusal(stale), FoldError::PreviousMismatch);
    let approval = world.approve(BOB, ApprovalAction::KeyEpoch, object);
    world.must(approval.clone());
    assert_eq!(world.refusal(approval.clone()).code(), "already-approved");
    let last = world.approve(CAROL, ApprovalAction::KeyEpoch, object);
    world.must(last);
    let begun = entry(effect(&world, index, 2));
    world.must(begun);
    // The same approval for the next epoch is of nothing that waits.
    must_propose(&mut world, 3);
    assert_eq!(world.refusal(approval), FoldError::ProposalUnknown);
    world.pass(3601);
    let late = entry(effect(&world, world.state.size() - 1, 3));
    assert_eq!(world.refusal(late).code(), "proposal-expired");
}

#[test]
fn an_effect_is_of_what_was_approved_and_signed_by_the_key_before() {
    let mut world = World::open();
    let index = approved(&mut world, 2);
    let good = effect(&world, index, 2);
    let with = |change: &dyn Fn(&mut KeyEpoch)| {
        let mut effect = good.clone();
        change(&mut effect);
        entry(effect)
    };
    let by_itself = identity_sign(seed(2), &keys(2).successor_message(world.genesis.vault_id()));
    let elsewhere = identity_sign(seed(1), &keys(2).successor_message(OTHER));
    for (changed, expected) in [
        (with(&|effect| effect.object = OTHER), FoldError::ObjectMismatch),
        (with(&|effect| effect.proposal += 1), FoldError::ProposalUnknown),
        (with(&|effect| effect.epoch = 3), FoldError::Epoch(EpochError::OtherKeys)),
        (with(&|effect| effect.wrap_key = wrap_key(9)), FoldError::Epoch(EpochError::OtherKeys)),
        (with(&|effect| effect.identity_key = identity_key(9)), FoldError::Epoch(EpochError::OtherKeys)),
        (with(&|effect| effect.signature = by_itself), FoldError::Epoch(EpochError::Signature)),
        (with(&|effect| effect.signature = elsewhere), FoldError::Epoch(EpochError::Signature)),
    ] {
        assert_eq!(world.refusal(changed), expected);
    }
    world.must(entry(good));
}

#[test]
fn no_epoch_begins_while_the_root_is_sealed_to_two_boot_states() {
    let images = format!("11 = [\"{PCR_11_KEEPER}\"");
    let two = |text: String| text.replacen(&images, &format!("{images}, \"{}\"", "2b".repeat(32)), 1);
    let mut world = World::with_policy(two).opened();
    let waiting = approved(&mut world, 2);
    let moved = reseal::on(0x2b);
    let index = reseal::approved(&mut world, &moved);
    let effect_of_reseal = reseal::in_force(&world, index, &moved, &reseal::present());
    world.must(effect_of_reseal);
    // Its root would be sealed to the boot state that is to end.
    let begun = entry(effect(&world, waiting, 2));
    assert_eq!(world.refusal(begun), FoldError::ProposalUnknown);
    let good = next(&world, 2);
    let statement = request(&world, &good);
    let signed = proposed_saying(&world, ALICE, &good, &statement);
    let vetted = world.vault().vet_epoch_request(&signed.statement, &signed.signature, world.now);
    assert_eq!(vetted, Err(FoldError::Epoch(EpochError::ResealWaits)));
    let early = propose(&world, &good);
    assert_eq!(refused(&mut world, early), EpochError::ResealWaits);
    let settled = reseal::resealed(&world, &moved);
    world.must(settled);
    must_begin(&mut world, 2);
}

#[test]
fn a_policy_voids_what_waits_and_one_past_its_end_permits_nothing() {
    let mut world = World::open();
    let old = request(&world, &next(&world, 2));
    must_propose(&mut world, 2);
    world.must_change_policy(|text| text.replace("max_leases = 4", "max_leases = 5"));
    assert_eq!(world.vault().pending(world.now).count(), 0);
    let replayed = propose_saying(&world, &next(&world, 2), &old);
    assert_eq!(world.refusal(replayed), FoldError::SerialMismatch { expected: 2, found: 1 });
    world.now = UnixTime(world.policy().not_after().seconds() + 1);
    let late = propose(&world, &next(&world, 2));
    assert_eq!(world.refusal(late).code(), "policy-expired");
}

fn entries(world: &World) -> Vec<IndexedEntry> {
    let mut succession = Succession::default();
    for (index, entry) in (0..).zip(&world.entries) {
        succession.see(index, entry).unwrap();
    }
    succession.into_entries()
}

fn first(world: &World) -> VaultFile {
    VaultFile::new(world.genesis.clone(), vec!["http://vault:7070".to_owned()]).unwrap()
}

#[test]
fn a_vault_file_leads_to_the_keys_of_the_last_epoch() {
    let mut world = World::with_model();
    assert_eq!(first(&world).keys(), &keys_of_genesis());
    must_begin(&mut world, 2);
    world.must_release(1);
    world.must_change_policy(|text| text.replace("max_leases = 4", "max_leases = 5"));
    must_begin(&mut world, 3);
    must_propose(&mut world, 4);
    let entries = entries(&world);
    let written = first(&world).with_policies(entries.clone()).unwrap();
    let again = VaultFile::parse(&written.encode()).unwrap();
    for file in [&written, &again] {
        assert_eq!(
            (file.keys(), file.identity_key(), file.wrap_key()),
            (&keys(3), &identity_key(seed(3)), &keys(3).wrap_key)
        );
        assert_eq!(file.log_key(), &keeper().log_key);
    }
    for without in 0..entries.len() {
        let mut fewer = entries.clone();
        fewer.remove(without);
        let led = first(&world).with_policies(fewer).map(|file| (file.keys().clone(), file.policy().digest()));
        assert_ne!(led, Ok((keys(3), world.policy().digest())), "without {without}");
    }
}

/// A log of two epochs after the first, its verifier, and the links between them.
fn links() -> (World, LogVerifier, Vec<EpochLink>) {
    let mut world = World::open();
    for epoch in [2, 3] {
        must_begin(&mut world, epoch);
    }
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let key = LogKey::try_from(pair.public_key().as_ref()).unwrap();
    let log = LogVerifier::new(world.genesis.vault_id(), key);
    let size = world.tree.len();
    let text = log.checkpoint_text(&Checkpoint { size, root: world.tree.root(size).unwrap() });
    let signature = pair.sign(text.as_bytes());
    let note = log.key().assemble(&text, signature.as_ref().try_into().unwrap()).unwrap();
    let link = |index: &u64| EpochLink {
        entry: world.entries[usize::try_from(*index).unwrap()].clone(),
        proof: proof_text(*index, &world.tree.inclusion(*index, size).unwrap(), &note),
    };
    let links = world.vault().epochs().entries().iter().map(link).collect();
    (world, log, links)
}

#[test]
fn whoever_knows_an_older_key_follows_the_entries_to_the_present_one() {
    let (_, log, links) = links();
    assert_eq!(key_epoch::follow(&keys_of_genesis(), &log, &links), Ok(keys(3)));
    assert_eq!(key_epoch::follow(&keys_of_genesis(), &log, &links[..1]), Ok(keys(2)));
    // What is known already is passed over, and nothing leads back.
    assert_eq!(key_epoch::follow(&keys(2), &log, &links), Ok(keys(3)));
    assert_eq!(key_epoch::follow(&keys(3), &log, &links), Ok(keys(3)));
    assert_eq!(key_epoch::follow(&keys(3), &log, &[]), Ok(keys(3)));
}

#[test]
fn a_link_that_the_key_before_did_not_sign_or_that_is_not_in_the_log_leads_nowhere() {
    let (world, log, links) = links();
    let follow = |links: &[EpochLink]| key_epoch::follow(&keys_of_genesis(), &log, links).unwrap_err();
    assert_eq!(follow(&links[1..]), EpochError::NotNext { present: 1, found: 3 });
    assert_eq!(follow(&vec![links[0].clone(); LINKS_MAX + 1]), EpochError::TooManyLinks { count: LINKS_MAX + 1 });
    let other = EpochLink { entry: world.entries[1].clone(), ..links[0].clone() };
    assert_eq!(follow(&[other]), EpochError::NotALink);
    let moved = EpochLink { proof: links[1].proof.clone(), ..links[0].clone() };
    assert!(matches!(follow(&[moved]), EpochError::Proof(_)));
    let Ok(Entry::KeyEpoch(mut forged)) = Entry::parse(&links[0].entry) else { panic!("not a key epoch") };
    forged.identity_key = identity_key(9);
    let forged = EpochLink { entry: Entry::KeyEpoch(forged).encode().unwrap(), ..links[0].clone() };
    assert_eq!(follow(&[forged]), EpochError::Signature);
    // The same links of another vault are signed by nobody that is known there.
    let elsewhere = LogVerifier::new(OTHER, LogKey::try_from([1; 32].as_slice()).unwrap());
    assert_eq!(key_epoch::follow(&keys_of_genesis(), &elsewhere, &links), Err(EpochError::Signature));
}

#[test]
fn objects_and_messages_are_those_of_format_md() {
    let vault = Sha256Digest::from_bytes([0x11; 32]);
    let machine = keeper();
    let next = NextEpoch { instance: machine.instance, ak_name: machine.ak_name, keys: keys(2) };
    let message = Sha256Digest::of(&next.keys.successor_message(vault));
    let request = NextEpoch::request(vault, 2, &machine.instance);
    assert_eq!(
        [next.object(vault), request, message].map(|digest| digest.to_string()),
        [
            "sha256:dc9e1f29200d981f51668a5c85e902ad72c031ebfebee49a375f2b6008b3cc68",
            "sha256:b1c670eb831250ef198585e9811e4cd38a7461b1b134d20ad9b4c92efd3c8325",
            "sha256:f4aba21d46fa332b30a83636f0e60c54cafbcbaa6920cc9ff3a76cb4e4227a67",
        ]
    );
}

#[test]
fn an_epoch_is_of_a_keeper_that_decides_alone() {
    let mut world = beside::witnessed();
    let waiting = approved(&mut world, 2);
    keepers::let_in(&mut world, &keepers::uncounted(1));
    // The other one would not have the keys.
    let begun = entry(effect(&world, waiting, 2));
    assert_eq!(world.refusal(begun), FoldError::ProposalUnknown);
    let good = next(&world, 2);
    let signed = proposed_saying(&world, ALICE, &good, &request(&world, &good));
    let vetted = world.vault().vet_epoch_request(&signed.statement, &signed.signature, world.now);
    assert_eq!(vetted, Err(FoldError::Epoch(EpochError::OtherKeepers)));
    let early = propose(&world, &good);
    assert_eq!(refused(&mut world, early), EpochError::OtherKeepers);
    let started = keepers::start(&world, 1, Some([1; 32]));
    world.must(started);
    let left = beside::may_leave(&mut world, [1; 32]);
    world.must(Entry::KeeperLeave(left));
    must_begin(&mut world, 2);
    // One that comes later gets the present keys, and a vault file leads to both.
    keepers::let_in(&mut world, &keepers::uncounted(2));
    let file = first(&world).with_policies(entries(&world)).unwrap();
    assert_eq!((file.keys(), file.keepers().len()), (&keys(2), 2));
}

#[test]
fn shares_are_of_the_keys_of_one_epoch() {
    let mut world = World::open();
    let old = escrow::split(&mut world);
    assert!(world.vault().is_recoverable());
    escrow::must_wait(&mut world);
    must_begin(&mut world, 2);
    // Those that waited would have split the keys of before, and those in force give no present ones.
    assert_eq!(world.vault().pending(world.now).count(), 0);
    assert!(!world.vault().is_recoverable());
    assert_eq!(world.vault().escrow_in_force().err(), Some(EscrowError::Epoch { present: 2 }));
    let stale = EscrowPlan { epoch: 1, number: 2, ..old };
    let entry = escrow::propose(&world, &stale);
    assert_eq!(escrow::escrow_error(world.refusal(entry)), EscrowError::Epoch { present: 2 });
    assert_eq!(escrow::split(&mut world).epoch, 2);
    let recovery = escrow::recovery(&world, 5);
    let waiting = must_propose(&mut world, 3);
    assert_eq!(waiting + 1, world.state.size());
    let recovery = ledger::escrow::Recovery {
        from: ledger::escrow::LogPoint { size: world.state.size(), ..recovery.from },
        ..recovery
    };
    let of = escrow::approved_recovery(&mut world, &recovery);
    let entry = Entry::Recover(escrow::recovered(&world, of));
    world.must(entry);
    let started = keepers::start(&world, 3, Some([5; 32]));
    world.must(started);
    // What the lost keeper was asked for is gone with it.
    assert_eq!(world.vault().pending(world.now).count(), 0);
    assert!(world.vault().is_recoverable());
    must_begin(&mut world, 3);
}
