use super::*;

fn code(stage: &watch::Receiver<Stage>) -> Option<String> {
    stage.borrow().result.as_ref().map(|result| match result {
        Ok(_) => "ok".to_owned(),
        Err(failure) => failure.code().to_owned(),
    })
}

#[test]
fn a_load_that_panics_is_told_and_nothing_is_lent() {
    let (shared, stage) = Shared::new();
    let handle = Handle::new(Arc::clone(&shared));
    assert_eq!(code(&stage), None);
    shared.run(|| panic!("a bug"));
    assert_eq!(code(&stage).as_deref(), Some("load-died"));
    assert!(shared.is_stopped() && handle.lend().is_err());
}

#[test]
fn a_load_that_does_not_stop_holds_back_no_word_of_its_lease_and_changes_none() {
    let (shared, stage) = Shared::new();
    shared.lose(LeaseLost::NotRenewed);
    assert_eq!(code(&stage).as_deref(), Some("lease-lost"));
    shared.run(|| Err(Failure::new(Kind::Failed, "source-stopped", "the load was given up")));
    assert_eq!(code(&stage).as_deref(), Some("lease-lost"));
}

#[test]
fn what_a_load_says_that_was_stopped_by_the_end_of_its_lease_is_not_the_reason() {
    for (lost, reason) in [(LeaseLost::NotRenewed, "lease-lost"), (LeaseLost::Revoked { entry: 7 }, "lease-revoked")] {
        let (shared, stage) = Shared::new();
        shared.state.send_replace(LeaseState::Lost(lost));
        shared.run(|| Err(Failure::new(Kind::Failed, "source-stopped", "the load was given up")));
        assert_eq!(code(&stage).as_deref(), Some(reason));
    }
}

#[test]
fn what_only_a_load_that_waits_still_has_is_not_held_by_the_program() {
    let (shared, _stage) = Shared::new();
    let handle = Handle::new(Arc::clone(&shared));
    assert!(shared.is_loads_alone(), "nothing is there");
    let plaintext = Arc::new(Plaintext::of_nothing());
    shared.begun(&plaintext);
    let lent = handle.lend().unwrap();
    shared.lose(LeaseLost::NotRenewed);
    assert!(!shared.is_loads_alone(), "the program has it");
    drop(lent);
    assert!(shared.is_loads_alone(), "the load has it");
    let kept = Arc::clone(&plaintext);
    shared.run(|| {
        drop(plaintext);
        Err(Failure::new(Kind::Failed, "source-stopped", "the load was given up"))
    });
    assert!(!shared.is_loads_alone(), "there is no load any more");
    drop(kept);
}

/// As where a source does not answer: whoever waits for what a task was to receive hears its end.
#[test]
fn threads_that_wait_for_a_source_wake_when_the_load_is_to_end() {
    for stopped_before in [false, true] {
        let (shared, _stage) = Shared::new();
        let runtime = Runtime::new().unwrap();
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<()>(1);
        runtime.spawn(async move {
            std::future::pending::<()>().await;
            drop(sender);
        });
        if stopped_before {
            shared.close();
            shared.receive_by(runtime);
        } else {
            shared.receive_by(runtime);
            shared.close();
        }
        assert_eq!(receiver.blocking_recv(), None);
    }
}
