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
