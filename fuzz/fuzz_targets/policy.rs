//! The text of a policy, and what a change to it says to a person.
#![no_main]

use std::sync::LazyLock;

use ledger::policy::{Policy, describe_change};
use libfuzzer_sys::fuzz_target;

static GOOD: LazyLock<Policy> = LazyLock::new(|| {
    Policy::parse(include_str!("../../tests/golden/v1/host/log/policy.toml")).expect("the recorded policy is one")
});

fuzz_target!(|text: &str| {
    let Ok(policy) = Policy::parse(text) else { return };
    let _ = describe_change(&GOOD, &policy);
    let _ = describe_change(&policy, &GOOD);
    assert!(describe_change(&policy, &policy).is_empty());
});
