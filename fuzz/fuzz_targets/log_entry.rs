//! An entry of the log: alone, as the first of a log, and behind a recorded log. One entry has one text.
#![no_main]

use std::sync::LazyLock;

use ledger::entry::Entry;
use ledger::state::State;
use libfuzzer_sys::fuzz_target;

static RECORDED: LazyLock<State> = LazyLock::new(|| {
    let mut state = State::new();
    for (index, entry) in (0..).zip(weightvault_fuzz::recorded_entries()) {
        state.apply(index, entry).expect("the recorded log folds");
    }
    state
});

fuzz_target!(|data: &[u8]| {
    let Ok(entry) = Entry::parse(data) else { return };
    assert_eq!(entry.encode().as_deref(), Ok(data));
    let _ = State::new().apply(0, data);
    let mut state = RECORDED.clone();
    let before = state.digest();
    if state.apply(state.size(), data).is_err() {
        assert_eq!(state.digest(), before);
    }
});
