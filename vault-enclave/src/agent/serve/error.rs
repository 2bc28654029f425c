//! Why an agent does not do what it is asked for.

use std::fmt;

use tonic::{Code, Status};
use vault_proto::convert::{AGENT_MODELS_MAX, ModelName};

/// A refusal of an agent to somebody on its own machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ServeError {
    /// Neither user nor group are on the list.
    PeerNotAllowed { uid: u32, gid: u32 },
    /// It may read, and neither load nor unload.
    PeerNotController { uid: u32, gid: u32 },
    /// It may read, and not this model.
    ModelNotAllowed { uid: u32, gid: u32 },
    /// A model for others, of an agent whose sockets nobody else reaches.
    ReadersUnreachable,
    /// Who stands for everybody whom the agent's user namespace does not know is to be let in.
    AllowUnknown { what: &'static str, id: u32 },
    /// Not a request.
    RequestMalformed,
    /// A request without an end.
    RequestTooLong,
    /// A request that did not come in time.
    RequestLate,
    /// All places are taken, or all that this user may have.
    TooManyReaders,
    /// There is no such model here.
    ModelUnknown,
    /// It is there, or on its way.
    ModelThere(ModelName),
    /// Its memory was wiped, or it never came.
    ModelGone(String),
    /// As many models as there may be.
    TooManyModels,
}

impl ServeError {
    /// Stable name of the refusal.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::PeerNotAllowed { .. } => "peer-not-allowed",
            Self::PeerNotController { .. } => "peer-not-controller",
            Self::ModelNotAllowed { .. } => "model-not-allowed",
            Self::ReadersUnreachable => "readers-unreachable",
            Self::AllowUnknown { .. } => "allow-unknown",
            Self::RequestMalformed => "reader-malformed",
            Self::RequestTooLong => "reader-too-long",
            Self::RequestLate => "reader-late",
            Self::TooManyReaders => "too-many-readers",
            Self::ModelUnknown => "model-unknown",
            Self::ModelThere(_) => "model-there",
            Self::ModelGone(_) => "model-gone",
            Self::TooManyModels => "too-many-models",
        }
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerNotAllowed { uid, gid } => {
                write!(f, "neither user {uid} nor group {gid} may have models here: start the agent with --allow")
            }
            Self::PeerNotController { uid, gid } => {
                write!(f, "neither user {uid} nor group {gid} may load models here: start the agent with --control")
            }
            Self::ModelNotAllowed { uid, gid } => {
                write!(f, "neither user {uid} nor group {gid} is among the readers of this model: it was ordered for others")
            }
            Self::ReadersUnreachable => f.write_str(
                "nobody else reaches the sockets of this agent: start it with --allow, or with a model that has readers of its \
                 own",
            ),
            Self::AllowUnknown { what, id } => write!(
                f,
                "in this user namespace {what} {id} is everybody whom it does not know, so they all would be let in"
            ),
            Self::RequestMalformed => f.write_str("want a line `v1 list` or `v1 open MODEL@VERSION`"),
            Self::RequestTooLong => f.write_str("a request is one line of at most 256 bytes"),
            Self::RequestLate => f.write_str("no request came in time"),
            Self::TooManyReaders => {
                f.write_str("this user, or everybody together, has as many connections as there may be")
            }
            Self::ModelUnknown => f.write_str("the agent has no such model: `vault-enclave status` lists what it has"),
            Self::ModelThere(name) => {
                write!(f, "{}@{} is there or on its way: unload it first", name.model, name.version)
            }
            Self::ModelGone(why) => write!(f, "the model is gone: {why}"),
            Self::TooManyModels => write!(f, "an agent holds at most {AGENT_MODELS_MAX} models: unload one"),
        }
    }
}

impl std::error::Error for ServeError {}

impl From<ServeError> for Status {
    fn from(error: ServeError) -> Self {
        let code = match &error {
            ServeError::PeerNotAllowed { .. }
            | ServeError::PeerNotController { .. }
            | ServeError::ModelNotAllowed { .. } => Code::PermissionDenied,
            ServeError::AllowUnknown { .. } | ServeError::RequestMalformed | ServeError::RequestTooLong => {
                Code::InvalidArgument
            }
            ServeError::RequestLate => Code::DeadlineExceeded,
            ServeError::TooManyReaders | ServeError::TooManyModels => Code::ResourceExhausted,
            ServeError::ModelUnknown => Code::NotFound,
            ServeError::ModelThere(_) => Code::AlreadyExists,
            ServeError::ModelGone(_) | ServeError::ReadersUnreachable => Code::FailedPrecondition,
        };
        Self::new(code, format!("{error} ({})", error.code()))
    }
}
