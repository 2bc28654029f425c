//! Refusals of the vault, which come as a trailer of a gRPC status.

use prost::Message;
use tonic::{Code, Status};
use vault_proto::v1;

use crate::failure::{Failure, Kind};

/// The trailer that carries a [`v1::Refusal`].
const TRAILER: &str = "weightvault-refusal-bin";
/// Characters that are kept of a text that somebody else wrote.
const TEXT_CHARS_MAX: usize = 2_000;

/// A failed call. With a trailer it is a refusal of the vault, with its exact code; without one the host, or something
/// on the way to it, failed.
pub fn refused(method: &str, address: &str, status: &Status) -> Failure {
    match refusal(status) {
        Some(refusal) => {
            let failure = Failure::new(Kind::Refused, cut(&refusal.code), format!("{method} was refused"))
                .why(cut(&refusal.message));
            if refusal.request_id.is_empty() {
                return failure;
            }
            let id = cut(&refusal.request_id);
            failure.next(format!("vaultctl explain {id} --vault FILE")).request_id(id)
        }
        None => Failure::new(Kind::Failed, code(status.code()), format!("{method} failed at {address}"))
            .why(cut(status.message()))
            .next(next(status.code())),
    }
}

fn refusal(status: &Status) -> Option<v1::Refusal> {
    let trailer = status.metadata().get_bin(TRAILER)?.to_bytes().ok()?;
    v1::Refusal::decode(trailer).ok()
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

fn code(code: Code) -> &'static str {
    match code {
        Code::Unavailable => "host-unavailable",
        Code::DeadlineExceeded | Code::Cancelled => "timeout",
        Code::Unimplemented => "method-unknown",
        Code::ResourceExhausted => "busy",
        _ => "call-failed",
    }
}

fn next(code: Code) -> &'static str {
    match code {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
            "check that vault-host and its keeper run; `vaultctl status --vault FILE` says what the host knows"
        }
        Code::Unimplemented => "check that vaultctl and vault-host are of the same version",
        Code::ResourceExhausted => "wait a moment and try again",
        _ => "the host's journal says more",
    }
}

#[cfg(test)]
mod tests {
    use tonic::metadata::{MetadataMap, MetadataValue};

    use super::*;

    fn with_trailer(refusal: &v1::Refusal) -> Status {
        let mut metadata = MetadataMap::new();
        metadata.insert_bin(TRAILER, MetadataValue::from_bytes(&refusal.encode_to_vec()));
        Status::with_metadata(Code::PermissionDenied, "denied", metadata)
    }

    #[test]
    fn a_trailer_gives_the_code_the_reason_and_the_request() {
        let refusal = v1::Refusal {
            code: "not-an-approver".to_owned(),
            request_id: "00".repeat(16),
            message: "signed by SHA256:x".to_owned(),
        };
        let failure = refused("SubmitApproval", "http://vault", &with_trailer(&refusal));
        assert_eq!((failure.kind(), failure.code()), (Kind::Refused, "not-an-approver"));
        let next = format!("vaultctl explain {} --vault FILE", "00".repeat(16));
        assert_eq!(failure.next_step(), Some(next.as_str()));
        assert!(crate::cli::tests::takes(&next));
        assert!(failure.to_string().contains("signed by SHA256:x"));
    }

    #[test]
    fn a_status_without_a_trailer_is_a_failure_and_no_refusal() {
        let failure = refused("Status", "http://vault", &Status::unavailable("gone"));
        assert_eq!((failure.kind(), failure.code()), (Kind::Failed, "host-unavailable"));
        let mut broken = Status::internal("x");
        broken.metadata_mut().insert_bin(TRAILER, MetadataValue::from_bytes(b"\xff\xff"));
        assert_eq!(refused("Status", "http://vault", &broken).kind(), Kind::Failed);
    }

    #[test]
    fn a_long_reason_is_cut() {
        let refusal = v1::Refusal { code: "x".repeat(9_999), ..Default::default() };
        assert_eq!(refused("Status", "h", &with_trailer(&refusal)).code().len(), TEXT_CHARS_MAX);
    }
}
