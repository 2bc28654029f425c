//! What holds for every log: folding never panics, says the same each time, and no byte is without meaning.

use attestation::{Sha256Digest, UnixTime};
use ledger::approvals::ApprovalAction;
use ledger::entry::Entry;
use ledger::policy::Policy;
use ledger::state::State;
use proptest::prelude::*;

use crate::support::policy_text;
use crate::support::world::{ALICE, World};

/// Something that a keeper, honest or not, might try next.
#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Release(u32),
    Renew(Vec<usize>),
    End(usize),
    Start(u8),
    Propose(u8, u8),
    Approve(u8, usize),
    PolicyInForce(usize),
    ProposeModel,
    ApproveModel(u8),
    PublishModel,
    SetBack,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0u64..1000).prop_map(Step::Pass),
        6 => (0u32..12).prop_map(Step::Release),
        4 => proptest::collection::vec(0usize..12, 0..3).prop_map(Step::Renew),
        2 => (0usize..12).prop_map(Step::End),
        1 => (0u8..4).prop_map(Step::Start),
        2 => (1u8..5, 0u8..3).prop_map(|(person, text)| Step::Propose(person, text)),
        4 => (1u8..5, 0usize..6).prop_map(|(person, proposal)| Step::Approve(person, proposal)),
        2 => (0usize..6).prop_map(Step::PolicyInForce),
        1 => Just(Step::ProposeModel),
        3 => (1u8..4).prop_map(Step::ApproveModel),
        1 => Just(Step::PublishModel),
        1 => Just(Step::SetBack),
    ];
    proptest::collection::vec(step, 0..60)
}

/// Tries the steps; what the fold takes stays. Gives the world after them.
fn walk(mut world: World, steps: &[Step]) -> World {
    let mut leases: Vec<Sha256Digest> = Vec::new();
    let mut proposals: Vec<(u64, Sha256Digest)> = Vec::new();
    let mut model = (0, Sha256Digest::of(b""));
    for step in steps {
        let pick = |list: &[Sha256Digest], n: usize| list.get(n).copied().unwrap_or_else(|| Sha256Digest::of(b""));
        let proposed = |n: usize| proposals.get(n).copied().unwrap_or((0, Sha256Digest::of(b"")));
        let next = world.state.size();
        let entry = match step {
            Step::Pass(seconds) => {
                world.pass(*seconds);
                continue;
            }
            Step::SetBack => {
                world.now = UnixTime(world.now.seconds() - 1);
                continue;
            }
            Step::Release(n) => {
                let release = world.release(*n);
                leases.push(release.lease);
                Entry::Release(Box::new(release))
            }
            Step::Renew(which) => world.renew(which.iter().map(|n| world.renewal(pick(&leases, *n))).collect()),
            Step::End(n) => world.end(pick(&leases, *n)),
            Step::Start(run) => world.start(*run),
            Step::Propose(person, n) => {
                let lease = ["10m", "15m", "20m"][usize::from(*n)];
                let text = world.next_policy(|text| text.replace("lease = \"15m\"", &format!("lease = \"{lease}\"")));
                proposals.push((next, Sha256Digest::of(text.as_bytes())));
                world.propose(ledger::entry::Proposal::Policy(world.proposed_policy(*person, &text)))
            }
            Step::Approve(person, n) => world.approve(*person, ApprovalAction::Policy, proposed(*n).1),
            Step::PolicyInForce(n) => world.policy_in_force(proposed(*n).0, proposed(*n).1),
            Step::ProposeModel => {
                let proposed = world.proposed_model();
                model = (next, proposed.object);
                world.propose(ledger::entry::Proposal::Model(proposed))
            }
            Step::ApproveModel(person) => world.approve(*person, ApprovalAction::Model, model.1),
            Step::PublishModel => world.model_published(model.0, model.1),
        };
        let _ = world.apply(&entry);
        // What every state must hold.
        let vault = world.vault();
        let in_force = vault.leases(world.state.time()).count();
        let rule = crate::support::world::rule();
        assert_eq!(vault.lease_count(&rule, world.state.time()) as usize, in_force);
        assert!(in_force <= 4, "never more leases than max_leases");
        let later = world.state.time().plus(700);
        assert_eq!(vault.lease_count(&rule, later) as usize, vault.leases(later).count());
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_walk_folds_again_to_the_same_state(steps in steps()) {
        let world = walk(World::with_model(), &steps);
        let mut again = State::new();
        for (index, entry) in (0u64..).zip(&world.entries) {
            prop_assert_eq!(again.apply(index, entry), Ok(()));
        }
        prop_assert_eq!(again.digest(), world.state.digest());
        prop_assert_eq!(format!("{again:?}"), format!("{:?}", world.state));
    }

    #[test]
    fn a_vault_without_models_is_walked_too(steps in steps()) {
        walk(World::open(), &steps);
    }

    #[test]
    fn no_bytes_make_the_fold_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..2000) {
        let world = World::with_model();
        let _ = State::new().apply(0, &bytes);
        let _ = world.state.clone().apply(world.state.size(), &bytes);
        let genesis = world.genesis.bytes();
        let _ = State::new().apply(0, &genesis[..cut.min(genesis.len())]);
    }

    #[test]
    fn no_text_makes_the_policy_panic(at in 0usize..3000, with in "\\PC{0,8}", cut in 0usize..40) {
        let text = policy_text::first();
        let start = text.char_indices().map(|(index, _)| index).nth(at.min(text.len() - 1)).unwrap();
        let end = text.char_indices().map(|(index, _)| index).find(|index| *index >= start + cut).unwrap_or(text.len());
        let changed = format!("{}{with}{}", &text[..start], &text[end..]);
        match Policy::parse(&changed) {
            Ok(policy) => prop_assert_eq!(policy.digest(), Sha256Digest::of(changed.as_bytes())),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

/// Every type of entry in one log, each tried with each of its bytes changed, where it stands.
#[test]
fn a_change_of_any_byte_is_refused_or_shows() {
    let budget = crate::support::budget::budget("vault", "hold", "releases_per_hour = 9");
    let mut world = World::with_budgets(&budget);
    let lease = world.must_release(1);
    let entry = world.renew(vec![world.renewal(lease)]);
    world.must(entry);
    let entry = world.start(1);
    world.must(entry);
    let entry = world.end(lease);
    world.must(entry);
    world.must_raise(crate::support::budget::releases(1));
    world.jump(9);
    world.must_change_policy(|text| text);

    let mut before = State::new();
    for (index, entry) in (0u64..).zip(&world.entries) {
        let mut after = before.clone();
        after.apply(index, entry).unwrap();
        // Entries with a policy are long; a step that has no factor with it reaches every kind of byte.
        let step = if entry.len() > 4000 { 7 } else { 1 };
        for at in (0..entry.len()).step_by(step) {
            let mut changed = entry.clone();
            changed[at] ^= 1 << (at % 7);
            let mut other = before.clone();
            if other.apply(index, &changed).is_ok() {
                assert_ne!(other.digest(), after.digest());
                assert_ne!(Entry::parse(&changed).unwrap(), Entry::parse(entry).unwrap());
            } else {
                assert_eq!(other.digest(), before.digest());
            }
        }
        before = after;
    }
}

/// Nothing that was approved can be changed and stay approved.
#[test]
fn no_byte_of_a_signed_statement_or_its_signature_can_change() {
    let world = World::ceremony();
    let entry = world.approve_genesis(ALICE).encode().unwrap();
    let text = String::from_utf8(entry.clone()).unwrap();
    let (from, to) = (text.find("\"statement\"").unwrap(), text.find(",\"evidence\"").unwrap());
    for at in from..to {
        let mut changed = entry.clone();
        changed[at] ^= 1;
        assert!(world.state.clone().apply(1, &changed).is_err(), "byte {at} of {text}");
    }
}
