//! What becomes of a lease while its keeper does not renew it.

use super::extensions::Found;
use super::term::{BootTime, Term};
use crate::failure::{Failure, Kind};

/// Reasons against extensions that are remembered, so as to be said once.
const SAID_MAX: usize = 64;

/// What happened since the keeper's last good word.
#[derive(Default)]
pub(super) struct Outage {
    /// It said no: no extension counts against that.
    refused: bool,
    /// The file by which the lease runs on, for the keeper when it is back; and its term without that.
    extended: Option<(Vec<u8>, Term)>,
    /// What was said of extensions that do not count: each once.
    said: Vec<String>,
}

impl Outage {
    /// The file by which the lease runs on.
    pub(super) fn extension(&self) -> Option<&[u8]> {
        self.extended.as_ref().map(|(file, _)| file.as_slice())
    }

    /// The term of the lease after a renewal that failed. Where nobody could be asked, what `find` finds counts; where the
    /// keeper has refused, nothing does, not even what counted before.
    pub(super) fn after(
        &mut self,
        failure: &Failure,
        term: Term,
        find: impl FnOnce() -> (Option<Found>, Vec<Failure>),
    ) -> Term {
        match heard(failure) {
            Heard::Refusal => {
                self.refused = true;
                self.extended.take().map_or(term, |(_, before)| before)
            }
            Heard::Nothing if !self.refused => {
                let (found, failures) = find();
                self.say(&failures);
                found.map_or(term, |found| self.extend(term, found))
            }
            Heard::Nothing | Heard::NotNow => term,
        }
    }

    fn extend(&mut self, term: Term, Found { until, file }: Found) -> Term {
        let extended = term.extended(until);
        if extended != term {
            let left = BootTime::now().until(extended.deadline());
            eprintln!("no keeper: the lease runs on by an extension that approvers signed, for {} s", left.as_secs());
            let before = self.extended.take().map_or(term, |(_, before)| before);
            self.extended = Some((file, before));
        }
        extended
    }

    fn say(&mut self, failures: &[Failure]) {
        for why in failures.iter().map(ToString::to_string) {
            if self.said.len() < SAID_MAX && !self.said.contains(&why) {
                eprintln!("warning: an extension does not count: {why}");
                self.said.push(why);
            }
        }
    }
}

/// What a renewal that failed says of the keeper.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// It could not be asked.
    Nothing,
    /// It answered, and has not decided; or it was this machine that failed.
    NotNow,
    /// It said no; or something that it said does not verify.
    Refusal,
}

/// By the codes that an agent learns of a host, and those of a connection.
fn heard(failure: &Failure) -> Heard {
    match (failure.kind(), failure.code()) {
        (_, "unavailable" | "host-unavailable" | "host-unreachable" | "host-timeout") => Heard::Nothing,
        (Kind::Refused, "busy" | "try-again") | (Kind::Failed | Kind::Usage, _) => Heard::NotNow,
        (Kind::Refused | Kind::NotVerified, _) => Heard::Refusal,
    }
}

#[cfg(test)]
mod tests {
    use attestation::{LeaseKey, Sha256Digest, UnixTime};
    use ledger::lease::LeaseStatement;
    use ledger::policy::{LeaseEnd, UnitCheck};

    use super::*;

    fn term() -> Term {
        let lease = LeaseStatement {
            vault: Sha256Digest::of(b"vault"),
            lease: Sha256Digest::of(b"lease"),
            lease_key: LeaseKey::try_from([7; 32].as_slice()).unwrap(),
            rule: "serve".try_into().unwrap(),
            policy: Sha256Digest::of(b"policy"),
            issued: UnixTime(1_000),
            renew_by: UnixTime(1_900),
            lease_end: LeaseEnd::End,
            unit_check: UnitCheck::Hashed,
        };
        Term::first(BootTime::now(), &lease)
    }

    fn failure(kind: Kind, code: &str) -> Failure {
        Failure::new(kind, code, "")
    }

    fn found(until: u64) -> (Option<Found>, Vec<Failure>) {
        (Some(Found { until: UnixTime(until), file: until.to_string().into_bytes() }), Vec::new())
    }

    #[test]
    fn a_refusal_takes_back_what_ran_on_and_nothing_counts_against_it() {
        let (mut outage, granted) = (Outage::default(), term());
        let away = failure(Kind::Failed, "host-unreachable");
        let extended = outage.after(&away, granted, || found(9_000));
        assert!(extended.deadline() > granted.deadline());
        // A longer one: the term without any is not forgotten.
        let longer = outage.after(&away, extended, || found(10_000));
        assert!(longer.deadline() > extended.deadline());
        assert_eq!(outage.extension(), Some(b"10000".as_slice()));
        // Busy is no answer, and no reason to look for another.
        let busy = outage.after(&failure(Kind::Refused, "busy"), longer, || panic!("the keeper is there"));
        assert_eq!(busy, longer);
        let refused = outage.after(&failure(Kind::Refused, "denied"), longer, || panic!("it has refused"));
        assert_eq!((refused, outage.extension()), (granted, None));
        assert_eq!(outage.after(&away, refused, || panic!("it had refused")), granted);
    }

    #[test]
    fn only_a_keeper_that_was_not_reached_says_nothing() {
        let of = |kind, code| heard(&Failure::new(kind, code, ""));
        assert_eq!(of(Kind::Refused, "unavailable"), Heard::Nothing);
        for code in ["host-unavailable", "host-unreachable", "host-timeout"] {
            assert_eq!(of(Kind::Failed, code), Heard::Nothing);
        }
        for code in ["busy", "try-again"] {
            assert_eq!(of(Kind::Refused, code), Heard::NotNow);
        }
        // The TPM, for example: that no keeper was asked is no reason to go on without one.
        assert_eq!(of(Kind::Failed, "tpm-in-use"), Heard::NotNow);
        for code in ["denied", "unknown", "malformed"] {
            assert_eq!(of(Kind::Refused, code), Heard::Refusal);
        }
        assert_eq!(of(Kind::NotVerified, "lease-not-newer"), Heard::Refusal);
    }
}
