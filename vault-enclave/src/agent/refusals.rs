//! What each refusal of an agent's parts means for whoever called it.

use crate::failure::{Failure, Kind};
use crate::open::OpenModelError;
use crate::tpm::TpmError;

use super::error::SessionError;

/// The warnings name the place, which the failure does not know.
const NOT_READ: &str = "see the warnings above, which name the place; load again, or name another place with --source; what \
                        the --cache has whole is not fetched again";
const NOT_WHAT_WAS_SEALED: &str = "the ciphertext at the place that the warnings above name is damaged or changed: name \
                                   another place with --source, or have the operator bring the host's copy back";

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        let kind = match &error {
            SessionError::Select(_) => Kind::Usage,
            SessionError::Tpm(_)
            | SessionError::AttestationKey(_)
            | SessionError::Secret(_)
            | SessionError::EventLogUnreadable { .. }
            | SessionError::EventLogLength { .. } => Kind::Failed,
            _ => Kind::NotVerified,
        };
        let failure = Self::new(kind, error.code(), &error);
        match error {
            SessionError::Tpm(TpmError::ObjectRefused) => {
                failure.next("where --state keeps the attestation key of another TPM, remove its ak.json")
            }
            _ => failure,
        }
    }
}

impl From<OpenModelError> for Failure {
    fn from(error: OpenModelError) -> Self {
        let kind = match &error {
            OpenModelError::Destination(_) | OpenModelError::Memory { .. } | OpenModelError::Source { .. } => {
                Kind::Failed
            }
            OpenModelError::UnknownUnit(_)
            | OpenModelError::Length { .. }
            | OpenModelError::Unit { .. }
            | OpenModelError::Header { .. }
            | OpenModelError::Digest(_) => Kind::NotVerified,
            OpenModelError::FilePartlyGranted { .. }
            | OpenModelError::NothingToOpen
            | OpenModelError::ViewPath { .. } => Kind::Usage,
        };
        let failure = Self::new(kind, error.code(), &error);
        match &error {
            OpenModelError::Source { .. } => failure.next(NOT_READ),
            OpenModelError::Length { .. } | OpenModelError::Unit { .. } | OpenModelError::Digest(_) => {
                failure.next(NOT_WHAT_WAS_SEALED)
            }
            _ => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_verify_has_an_exit_code_of_its_own() {
        let kind = |error: SessionError| Failure::from(error).kind();
        assert_eq!(kind(SessionError::GrantSignature), Kind::NotVerified);
        assert_eq!(kind(SessionError::LeaseSignature), Kind::NotVerified);
        assert_eq!(kind(SessionError::Tpm(TpmError::Busy)), Kind::Failed);
        assert_eq!(Failure::from(OpenModelError::Digest(3)).kind(), Kind::NotVerified);
    }

    #[test]
    fn what_can_be_had_elsewhere_says_where_and_what_is_damaged_says_so() {
        let next = |error: OpenModelError| Failure::from(error).next_step().unwrap_or_default().to_owned();
        let unread =
            OpenModelError::Source { unit: 3, kind: std::io::ErrorKind::TimedOut, message: "too slow".to_owned() };
        assert!(next(unread).contains("load again, or name another place with --source"));
        for damaged in [OpenModelError::Digest(3), OpenModelError::Length { unit: 3, expected: 9, found: 8 }] {
            assert!(next(damaged).contains("damaged or changed"));
        }
        assert_eq!(next(OpenModelError::NothingToOpen), "");
    }

    #[test]
    fn a_failure_crosses_from_the_loader_unchanged() {
        let failure = Failure::from(SessionError::Tpm(TpmError::ObjectRefused));
        let line = serde_json::to_string(&failure).unwrap();
        assert_eq!(serde_json::from_str::<Failure>(&line).unwrap(), failure);
    }
}
