//! A simulation of the whole: keepers, a hostile host, agents, approvers, witnesses, and deaths at any step.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "a test has no outside")]

#[allow(dead_code, reason = "these tests need a part of it")]
#[path = "../../../attestation/tests/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "these tests need a part of it")]
#[path = "../governance/support/mod.rs"]
mod support;

mod agent;
mod bug;
mod clock;
mod commit;
mod decide;
mod devices;
mod fold;
mod host;
mod mail;
mod mood;
mod people;
mod rng;
mod run;
mod scene;
mod sim;
mod truth;
mod witness;

use bug::{ALL, Bug};
use scene::Guard;
use sim::{Counts, Outcome, Sim};

/// Seeds of each guard, unless WEIGHTVAULT_SIM_SEEDS says another number.
const SEEDS: u64 = 60;
/// A planted bug is found within so many.
const SEEDS_FOR_A_BUG: u64 = 400;

fn seeds(default: u64) -> u64 {
    std::env::var("WEIGHTVAULT_SIM_SEEDS")
        .map_or(default, |seeds| seeds.parse().expect("WEIGHTVAULT_SIM_SEEDS: a number"))
}

fn story(outcome: &Outcome) -> String {
    let (law, why) = outcome.violation.as_ref().unwrap();
    format!("seed {} breaks {law:?}: {why}\n{}", outcome.seed, outcome.trace.join("\n"))
}

fn no_law_is_broken(guard: Guard) {
    let mut all = Counts::default();
    for seed in 0..seeds(SEEDS) {
        let outcome = Sim::run(guard, None, seed);
        assert!(outcome.violation.is_none(), "{guard:?}, {}", story(&outcome));
        all = all.with(outcome.counts);
    }
    println!("{guard:?}: {all:?}");
    assert!(all.is_worth_something(), "{all:?}");
}

#[test]
fn no_law_is_broken_under_a_counter() {
    no_law_is_broken(Guard::Counter);
}

#[test]
fn no_law_is_broken_under_witnesses() {
    no_law_is_broken(Guard::Witnesses);
}

fn finds(bug: Bug) {
    let (_, guard, laws) = ALL.into_iter().find(|(one, _, _)| *one == bug).unwrap();
    let found = (0..seeds(SEEDS_FOR_A_BUG))
        .map(|seed| Sim::run(guard, Some(bug), seed))
        .find(|outcome| outcome.violation.is_some());
    let found = found.unwrap_or_else(|| panic!("{bug:?} was not found"));
    let (law, why) = found.violation.as_ref().unwrap();
    println!("{bug:?}: seed {} breaks {law:?} after {} lines: {why}", found.seed, found.trace.len());
    assert!(laws.contains(law), "{bug:?} was found by another law: {}", story(&found));
}

macro_rules! planted {
    ($($name:ident: $bug:ident,)*) => { $(
        #[test]
        fn $name() {
            finds(Bug::$bug);
        }
    )* };
}

planted! {
    a_release_before_its_entry_is_found: ReleaseBeforeAppend,
    a_counter_before_the_entries_is_found: CounterBeforeEntries,
    a_counter_before_the_head_is_found: CounterBeforeHead,
    a_run_that_serves_after_one_commit_is_found: OneCommitBeforeServing,
    a_counter_that_stays_behind_is_found: CounterStaysBehind,
    a_counter_without_a_run_is_found: NoRunRegister,
    a_quorum_of_half_is_found: HalfIsAQuorum,
    a_quorum_that_forgets_the_faulty_is_found: FaultyWitnessUncounted,
    a_release_before_its_quorum_is_found: ReleaseBeforeQuorum,
    a_restart_that_forgets_leases_is_found: RestartForgetsLeases,
    a_budget_that_a_restart_refills_is_found: BudgetRefillsOnRestart,
    a_clock_that_the_host_sets_is_found: HostSetsTheClock,
    entries_of_the_hosts_time_are_found: EntriesOfTheHostsTime,
    an_approval_that_counts_twice_is_found: ApprovalCountsTwice,
    a_renewal_of_what_was_revoked_is_found: RevocationNotAsked,
    a_release_that_its_commit_revokes_is_found: RevokedInTheSameCommit,
    renewals_that_a_commit_leaves_out_are_found: RenewalsLeftOut,
    a_term_from_the_answer_is_found: TermFromTheAnswer,
    an_extension_of_one_signature_is_found: OneSignatureExtends,
}
