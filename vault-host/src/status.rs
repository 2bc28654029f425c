//! The one map from refusals to gRPC statuses.

use std::fmt;

use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use vault_proto::convert::WireError;
use vault_proto::v1::{Coarse, Refusal};

use crate::link::LinkError;
use crate::store::StoreError;
use crate::telemetry::{Audience, RequestId};

/// The trailer that carries a `weightvault.v1.Refusal`.
pub const REFUSAL_TRAILER: &str = "weightvault-refusal-bin";

/// Longest message to a caller: a trailer has to fit into a header block.
const MESSAGE_BYTES_MAX: usize = 1024;
const CODE_BYTES_MAX: usize = 64;

/// Why a call gets no answer: what the operator may know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// What an agent may know.
    pub(crate) coarse: Coarse,
    /// The exact reason, stable.
    pub(crate) code: String,
    /// The exact reason, for a person.
    pub(crate) message: String,
}

impl Refused {
    pub(crate) fn new(coarse: Coarse, code: &str, message: impl fmt::Display) -> Self {
        // An unknown kind of a newer keeper is a kind that says nothing.
        let coarse = if coarse == Coarse::Unspecified { Coarse::Unavailable } else { coarse };
        Self { coarse, code: cut(code, CODE_BYTES_MAX), message: cut(&message.to_string(), MESSAGE_BYTES_MAX) }
    }

    /// The status that the caller gets.
    pub(crate) fn status(&self, audience: Audience, id: &RequestId) -> Status {
        let (code, message) = match audience {
            Audience::Agent => (coarse_code(self.coarse).to_owned(), coarse_sentence(self.coarse).to_owned()),
            Audience::Engineer => (self.code.clone(), self.message.clone()),
        };
        let mut status = Status::new(grpc_code(self.coarse), format!("{code}: {message} (request {id})"));
        let refusal = Refusal { code, request_id: id.to_string(), message };
        status.metadata_mut().insert_bin(REFUSAL_TRAILER, MetadataValue::from_bytes(&refusal.encode_to_vec()));
        status
    }
}

impl From<WireError> for Refused {
    fn from(error: WireError) -> Self {
        Self::new(Coarse::Malformed, error.code(), error)
    }
}

impl From<LinkError> for Refused {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Refused(refusal) => Self::new(refusal.coarse(), &refusal.code, &refusal.message),
            LinkError::Unreachable { .. } | LinkError::Lost | LinkError::Late | LinkError::WrongReply => {
                Self::new(Coarse::Unavailable, error.code(), &error)
            }
        }
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        let coarse = match error {
            StoreError::DigestMismatch
            | StoreError::Range { .. }
            | StoreError::TooManyUnits
            | StoreError::UnitRepeated { .. }
            | StoreError::UploadTooLong => Coarse::Malformed,
            StoreError::UnitsMissing { .. } => Coarse::Denied,
            StoreError::NotFound { .. } => Coarse::Unknown,
            StoreError::UploadOffset { .. } => Coarse::TryAgain,
            StoreError::TooManyUploads | StoreError::UploadBusy => Coarse::Busy,
            StoreError::LogConflict { .. } | StoreError::CheckpointConflict { .. } => Coarse::TryAgain,
            StoreError::BlobSize { .. }
            | StoreError::Bucket(_)
            | StoreError::CallTooLarge
            | StoreError::CheckpointForm
            | StoreError::CheckpointRoot
            | StoreError::CheckpointSize { .. }
            | StoreError::Damaged { .. }
            | StoreError::DataDirInUse
            | StoreError::DiskFull { .. }
            | StoreError::EntrySize { .. }
            | StoreError::Io { .. }
            | StoreError::LogGap { .. }
            | StoreError::LogStopped
            | StoreError::NoConditions
            | StoreError::NotDurable { .. }
            | StoreError::Postgres(_)
            | StoreError::Refused { .. }
            | StoreError::SchemaNewer { .. }
            | StoreError::UnderCheckpoint { .. }
            | StoreError::UploadsFull { .. }
            | StoreError::UnitsElsewhere { .. }
            | StoreError::Unreachable { .. } => Coarse::Unavailable,
        };
        Self::new(coarse, error.code(), error)
    }
}

fn grpc_code(coarse: Coarse) -> Code {
    match coarse {
        Coarse::Malformed => Code::InvalidArgument,
        Coarse::Denied => Code::PermissionDenied,
        Coarse::Unknown => Code::NotFound,
        Coarse::TryAgain => Code::Aborted,
        Coarse::Busy => Code::ResourceExhausted,
        Coarse::Unavailable | Coarse::Unspecified => Code::Unavailable,
    }
}

fn coarse_code(coarse: Coarse) -> &'static str {
    match coarse {
        Coarse::Malformed => "malformed",
        Coarse::Denied => "denied",
        Coarse::Unknown => "unknown",
        Coarse::TryAgain => "try-again",
        Coarse::Busy => "busy",
        Coarse::Unavailable | Coarse::Unspecified => "unavailable",
    }
}

fn coarse_sentence(coarse: Coarse) -> &'static str {
    match coarse {
        Coarse::Malformed => "the request does not have the right form",
        Coarse::Denied => "the request was understood and refused",
        Coarse::Unknown => "there is no such model, lease or session",
        Coarse::TryAgain => "something moved meanwhile: ask for a new challenge",
        Coarse::Busy => "too much at once: wait, then try again",
        Coarse::Unavailable | Coarse::Unspecified => "the vault can't answer now: try again later",
    }
}

/// The first `max` bytes of a text, at a border of characters.
fn cut(text: &str, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use vault_proto::v1::KeeperRefusal;

    use super::*;

    fn refusal(status: &Status) -> Refusal {
        let bytes = status.metadata().get_bin(REFUSAL_TRAILER).unwrap().to_bytes().unwrap();
        Refusal::decode(bytes).unwrap()
    }

    fn denied() -> Refused {
        LinkError::Refused(KeeperRefusal {
            coarse: Coarse::Denied.into(),
            code: "pcr-mismatch".to_owned(),
            message: "PCR 11: expected a, saw b".to_owned(),
        })
        .into()
    }

    #[test]
    fn an_agent_learns_the_kind_and_the_request_id_only() {
        let id = RequestId::new();
        let status = denied().status(Audience::Agent, &id);
        assert_eq!(status.code(), Code::PermissionDenied);
        assert_eq!(refusal(&status).code, "denied");
        assert_eq!(refusal(&status).request_id, id.as_str());
        assert!(!format!("{status:?}").contains("PCR"));
    }

    #[test]
    fn an_engineer_learns_the_exact_code() {
        let status = denied().status(Audience::Engineer, &RequestId::new());
        assert_eq!(refusal(&status).code, "pcr-mismatch");
        assert_eq!(refusal(&status).message, "PCR 11: expected a, saw b");
    }

    #[test]
    fn every_kind_has_a_status_and_a_code_of_its_own() {
        let table = [
            (Coarse::Malformed, Code::InvalidArgument, "malformed"),
            (Coarse::Denied, Code::PermissionDenied, "denied"),
            (Coarse::Unknown, Code::NotFound, "unknown"),
            (Coarse::TryAgain, Code::Aborted, "try-again"),
            (Coarse::Busy, Code::ResourceExhausted, "busy"),
            (Coarse::Unavailable, Code::Unavailable, "unavailable"),
            (Coarse::Unspecified, Code::Unavailable, "unavailable"),
        ];
        for (coarse, code, name) in table {
            let status = Refused::new(coarse, "exact", "words").status(Audience::Agent, &RequestId::new());
            assert_eq!((status.code(), refusal(&status).code.as_str()), (code, name));
        }
    }

    #[test]
    fn a_long_message_is_cut_to_fit_a_trailer() {
        let refused = Refused::new(Coarse::Denied, &"c".repeat(100), "ä".repeat(5000));
        assert_eq!(refused.code.len(), CODE_BYTES_MAX);
        assert_eq!(refused.message.len(), MESSAGE_BYTES_MAX);
    }
}
