//! Whatever is released, and whatever is done to the clock: no window is passed, and what is counted is what was released.

use std::collections::BTreeSet;

use attestation::Sha256Digest;
use ledger::entry::{ClockJump, Entry};
use ledger::policy::BudgetUnit;
use ledger::state::{BudgetOf, State};
use proptest::prelude::*;

use crate::support::budget::platform;
use crate::support::world::World;

const BUDGETS: &str = r#"
[budget.all]
per = "vault"
models = "any"
bytes_per_day = "9000B"
releases_per_hour = 5
platforms_per_day = 3
leases = 4
over = "refuse"

[budget.each]
per = "platform"
models = ["minilm"]
bytes_per_day = "5KiB"
releases_per_hour = 3
leases = 2
over = "refuse"
"#;
const BYTES: u64 = 9000;

#[derive(Debug, Clone)]
enum Step {
    /// The keeper runs and measures it.
    Pass(u64),
    /// The host sets the clock ahead.
    Jump(u64),
    /// The keeper is away, then starts.
    Restart(u64),
    Release(u8, u64),
    End(usize),
    Renew(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u64..4000).prop_map(Step::Pass),
        1 => (0u64..40_000).prop_map(Step::Pass),
        2 => (1u64..200_000).prop_map(Step::Jump),
        1 => (0u64..200_000).prop_map(Step::Restart),
        12 => (0u8..5, 0u64..1600).prop_map(|(platform, bytes)| Step::Release(platform, bytes)),
        2 => (0usize..8).prop_map(Step::End),
        2 => (0usize..8).prop_map(Step::Renew),
    ];
    proptest::collection::vec(step, 0..80)
}

/// A release by the time that was really measured: the model that the fold must never disagree with.
#[derive(Debug, Clone)]
struct Seen {
    at: u64,
    platform: Sha256Digest,
    bytes: u64,
}

fn within(seen: &[Seen], measured: u64, span: u64) -> impl Iterator<Item = &Seen> {
    seen.iter().filter(move |release| release.at + span > measured)
}

fn check(world: &World, seen: &[Seen], measured: u64) {
    let day: Vec<&Seen> = within(seen, measured, 24 * 3600).collect();
    let hour: Vec<&Seen> = within(seen, measured, 3600).collect();
    let bytes: u64 = day.iter().map(|release| release.bytes).sum();
    let platforms: BTreeSet<Sha256Digest> = day.iter().map(|release| release.platform).collect();
    assert!(bytes <= BYTES && hour.len() <= 5 && platforms.len() <= 3);
    let leases = world.vault().leases(world.now).count();
    for line in world.vault().budget_uses(world.now).iter().filter(|line| line.of == BudgetOf::Vault) {
        let counted = match line.unit {
            BudgetUnit::Bytes => bytes,
            BudgetUnit::Releases => hour.len() as u64,
            BudgetUnit::Platforms => platforms.len() as u64,
            BudgetUnit::Leases => leases as u64,
        };
        assert_eq!(line.used, counted, "{line:?}");
    }
    for platform in platforms {
        let bytes: u64 = day.iter().filter(|release| release.platform == platform).map(|release| release.bytes).sum();
        assert!(bytes <= 5 << 10);
        assert!(hour.iter().filter(|release| release.platform == platform).count() <= 3);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_window_is_passed(steps in steps()) {
        let mut world = World::with_budgets(BUDGETS);
        let (mut seen, mut measured, mut leases, mut runs) = (Vec::new(), 0, Vec::new(), 0);
        for (n, step) in (0u32..).zip(steps) {
            match step {
                Step::Pass(seconds) => {
                    world.pass(seconds);
                    measured += seconds;
                }
                Step::Jump(seconds) => {
                    // Behind what was measured since the last entry.
                    world.pass(seconds);
                    let entry = Entry::Clock(ClockJump { time: world.now, unmeasured: seconds });
                    world.must(entry);
                }
                Step::Restart(seconds) => {
                    // What was measured since the last entry is lost with the run.
                    measured -= world.now.seconds() - world.state.time().seconds();
                    world.pass(seconds);
                    runs += 1;
                    let entry = world.start(runs);
                    world.must(entry);
                }
                Step::Release(to, bytes) => {
                    let mut release = world.release_to(n, platform(to));
                    release.units.bytes = bytes;
                    let (lease, platform) = (release.lease, release.platform);
                    let asked = world.vault().check_budgets(&release.model, platform, bytes, world.now).is_ok();
                    let taken = world.try_release(release).is_ok();
                    // A decision and the fold agree.
                    prop_assert_eq!(asked, taken);
                    if taken {
                        seen.push(Seen { at: measured, platform, bytes });
                        leases.push(lease);
                    }
                }
                Step::End(which) => {
                    let entry = leases.get(which).map(|lease| world.end(*lease));
                    entry.map(|entry| world.apply(&entry));
                }
                Step::Renew(which) => {
                    let entry = leases.get(which).map(|lease| world.renew(vec![world.renewal(*lease)]));
                    entry.map(|entry| world.apply(&entry));
                }
            }
            check(&world, &seen, measured);
        }
        // An auditor who folds the log has the same budgets.
        let mut again = State::new();
        for (index, entry) in (0u64..).zip(&world.entries) {
            prop_assert_eq!(again.apply(index, entry), Ok(()));
        }
        prop_assert_eq!(again.vault().unwrap().budget_uses(world.now), world.vault().budget_uses(world.now));
        prop_assert_eq!(format!("{again:?}"), format!("{:?}", world.state));
    }
}
