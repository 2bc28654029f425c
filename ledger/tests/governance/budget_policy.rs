//! Budgets in a policy: what is taken, what is refused, and a change in words.

use ledger::names::Name;
use ledger::policy::{BUDGETS_MAX, BudgetPer, BudgetUnit, OverBudget, Permitted, Policy, PolicyError, describe_change};

use crate::support::policy_text::first;

/// One budget with every limit that it can have.
pub const DAILY: &str = r#"
[budget.daily]
per = "model"
models = ["minilm"]
bytes_per_day = "4KiB"
releases_per_hour = 3
platforms_per_day = 2
leases = 4
over = "refuse"
"#;

fn with(budgets: &str) -> Result<Policy, PolicyError> {
    Policy::parse(&(first() + budgets))
}

/// The refusal of [`DAILY`] with one thing changed.
#[track_caller]
fn refused(from: &str, to: &str, key: &str, code: &str) {
    assert_eq!(DAILY.matches(from).count(), 1, "{from:?} must stand there exactly once");
    let error = with(&DAILY.replace(from, to)).expect_err("must be refused");
    assert_eq!((error.key.as_str(), error.code()), (key, code), "{error}");
}

#[test]
fn a_budget_says_exactly_what_its_text_says() {
    assert!(with("").unwrap().budgets().is_empty());
    let policy = with(DAILY).unwrap();
    let (name, budget) = policy.budgets().first_key_value().unwrap();
    assert_eq!((name.as_str(), budget.per, budget.over), ("daily", BudgetPer::Model, OverBudget::Refuse));
    assert_eq!(budget.models, Permitted::Only(vec![Name::try_from("minilm").unwrap()]));
    assert!(budget.covers(&"minilm".parse().unwrap()) && !budget.covers(&"llama".parse().unwrap()));
    let limits: Vec<(BudgetUnit, u64)> = budget.limits.iter().map(|(unit, limit)| (*unit, *limit)).collect();
    let of = |unit, limit| (unit, limit);
    assert_eq!(
        limits,
        [
            of(BudgetUnit::Bytes, 4096),
            of(BudgetUnit::Releases, 3),
            of(BudgetUnit::Platforms, 2),
            of(BudgetUnit::Leases, 4)
        ]
    );
    for (text, bytes) in [("1B", 1), ("2MiB", 2 << 20), ("3GiB", 3 << 30), ("4TiB", 4 << 40)] {
        let policy = with(&DAILY.replace("4KiB", text)).unwrap();
        let budget = policy.budgets().first_key_value().unwrap().1;
        assert_eq!(budget.limits[&BudgetUnit::Bytes], bytes, "{text}");
    }
}

#[test]
fn nothing_of_a_budget_has_a_default() {
    refused("per = \"model\"\n", "", "budget.daily.per", "policy-key-missing");
    refused("models = [\"minilm\"]\n", "", "budget.daily.models", "policy-key-missing");
    refused("over = \"refuse\"\n", "", "budget.daily.over", "policy-key-missing");
    refused("leases = 4\n", "leases = 4\nburst = 4\n", "budget.daily.burst", "policy-key-unknown");
    refused("models = [\"minilm\"]", "models = []", "budget.daily.models", "policy-list-empty");
    refused("[budget.daily]", "[budget.Daily]", "budget.Daily", "policy-name-malformed");
    refused("per = \"model\"", "per = \"rule\"", "budget.daily.per", "policy-budget-per-unknown");
    refused("over = \"refuse\"", "over = \"warn\"", "budget.daily.over", "policy-over-budget-unknown");
}

#[test]
fn a_budget_limits_something_and_never_to_nothing() {
    let empty = "\n[budget.daily]\nper = \"vault\"\nmodels = \"any\"\nover = \"hold\"\n";
    let error = with(empty).unwrap_err();
    assert_eq!((error.key.as_str(), error.code()), ("budget.daily", "policy-budget-empty"));
    let error = with("[budget]\n").unwrap_err();
    assert_eq!((error.key.as_str(), error.code()), ("budget", "policy-budget-empty"));
    refused("\"4KiB\"", "\"0B\"", "budget.daily.bytes_per_day", "policy-budget-zero");
    refused("releases_per_hour = 3", "releases_per_hour = 0", "budget.daily.releases_per_hour", "policy-budget-zero");
    refused("platforms_per_day = 2", "platforms_per_day = 0", "budget.daily.platforms_per_day", "policy-budget-zero");
    refused("leases = 4", "leases = 0", "budget.daily.leases", "policy-budget-zero");
    refused("leases = 4", "leases = -1", "budget.daily.leases", "policy-wrong-type");
    let one = "budget.daily.platforms_per_day";
    refused("per = \"model\"", "per = \"platform\"", one, "policy-budget-of-one-platform");
}

#[test]
fn bytes_have_one_spelling() {
    for text in ["4", "04KiB", "4 KiB", "4KB", "4kib", "", "KiB", "-1B", "+1B", "1.5GiB", "16777216TiB"] {
        refused("\"4KiB\"", &format!("{text:?}"), "budget.daily.bytes_per_day", "policy-bytes-malformed");
    }
    refused("\"4KiB\"", "4096", "budget.daily.bytes_per_day", "policy-wrong-type");
}

#[test]
fn a_policy_has_a_bounded_number_of_budgets() {
    let many = |count: usize| {
        (0..count).fold(String::new(), |text, n| {
            text + &format!("[budget.b{n}]\nper = \"vault\"\nmodels = \"any\"\nleases = 1\nover = \"refuse\"\n")
        })
    };
    assert_eq!(with(&many(BUDGETS_MAX)).unwrap().budgets().len(), BUDGETS_MAX);
    let error = with(&many(BUDGETS_MAX + 1)).unwrap_err();
    assert_eq!((error.key.as_str(), error.code()), ("budget", "policy-too-many-budgets"));
}

/// One change loosens; taking it back tightens.
#[track_caller]
fn looser(from: &str, to: &str, said: &str, taken_back: &str) {
    assert_eq!(DAILY.matches(from).count(), 1, "{from:?} must stand there exactly once");
    let (old, new) = (with(DAILY).unwrap(), with(&DAILY.replace(from, to)).unwrap());
    assert_eq!(describe_change(&old, &new), [format!("LOOSER: {said}")]);
    assert_eq!(describe_change(&new, &old), [format!("stricter: {taken_back}")]);
}

#[test]
fn every_part_of_a_budget_is_named_when_it_changes() {
    looser(
        "\"4KiB\"",
        "\"8KiB\"",
        "budget.daily lets through 8192 bytes in 24 hours, before 4096",
        "budget.daily lets through 4096 bytes in 24 hours, before 8192",
    );
    looser(
        "releases_per_hour = 3\n",
        "",
        "budget.daily no longer limits releases in one hour, before 3",
        "budget.daily also limits releases in one hour: 3",
    );
    looser(
        "platforms_per_day = 2",
        "platforms_per_day = 3",
        "budget.daily lets through 3 platforms in 24 hours, before 2",
        "budget.daily lets through 2 platforms in 24 hours, before 3",
    );
    looser(
        "leases = 4",
        "leases = 5",
        "budget.daily lets through 5 leases at once, before 4",
        "budget.daily lets through 4 leases at once, before 5",
    );
    looser(
        "over = \"refuse\"",
        "over = \"hold\"",
        "what is over budget.daily can be let through by approvers, before by a policy alone",
        "what is over budget.daily can be let through by a policy alone, before by approvers",
    );
}

#[test]
fn a_budget_that_covers_less_or_counts_apart_is_looser() {
    let vault = DAILY.replace("per = \"model\"", "per = \"vault\"");
    let (old, new) = (with(&vault).unwrap(), with(DAILY).unwrap());
    assert_eq!(describe_change(&old, &new), ["LOOSER: budget.daily counts per model, before per vault"]);
    assert_eq!(describe_change(&new, &old), ["stricter: budget.daily counts per vault, before per model"]);

    let any = DAILY.replace("models = [\"minilm\"]", "models = \"any\"");
    let (old, new) = (with(&any).unwrap(), with(DAILY).unwrap());
    assert_eq!(describe_change(&old, &new), ["LOOSER: budget.daily.models is minilm, before any"]);
    assert_eq!(describe_change(&new, &old), ["stricter: budget.daily.models is any, before minilm"]);
    let other = with(&DAILY.replace("[\"minilm\"]", "[\"llama\"]")).unwrap();
    let said = "LOOSER: budget.daily.models no longer covers all that it did: it is minilm, before llama";
    assert_eq!(describe_change(&other, &new), [said]);

    let (none, some) = (with("").unwrap(), with(DAILY).unwrap());
    let in_words = "per model, models minilm, at most 4096 bytes in 24 hours, at most 3 releases in one hour, at most 2 \
                    platforms in 24 hours, at most 4 leases at once, over it: refuse";
    assert_eq!(describe_change(&none, &some), [format!("stricter: budget.daily is new: {in_words}")]);
    assert_eq!(describe_change(&some, &none), [format!("LOOSER: budget.daily is gone, before {in_words}")]);
}
