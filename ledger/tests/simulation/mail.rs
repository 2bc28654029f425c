//! Messages between agents, approvers and keepers: the host carries them, when it likes, as often as it likes.

use attestation::{LeaseKey, Sha256Digest, TpmQuote};
use ledger::entry::Proposal;

pub type SessionId = [u8; 16];

/// A lease statement with the signature of the identity key.
#[derive(Clone)]
pub struct Signed {
    pub statement: Vec<u8>,
    pub signature: [u8; 96],
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum To {
    Keeper,
    Agent(usize),
}

pub struct Letter {
    pub id: u32,
    pub to: To,
    pub body: Body,
}

pub enum Body {
    GetChallenge { agent: usize, lease: Option<Sha256Digest> },
    Load { session: SessionId, key: LeaseKey, quote: TpmQuote },
    Renew { session: SessionId, lease: Sha256Digest, quote: TpmQuote, shown: Signed, signature: [u8; 64] },
    End { lease: Sha256Digest, signature: [u8; 64] },
    Propose(Proposal),
    Approve { statement: String, signature: String },
    Extension(Vec<u8>),

    Challenge { request: u32, session: SessionId, nonce: [u8; 32], policy: Sha256Digest },
    Grant { session: SessionId, entry: Vec<u8>, proof: String, signature: [u8; 96], lease: Signed },
    Renewed { session: SessionId, lease: Signed },
    Notice { entry: Vec<u8>, proof: String, leases: Vec<Sha256Digest>, signature: [u8; 96] },
    Refused { session: SessionId },
}

impl Body {
    pub fn words(&self) -> &'static str {
        match self {
            Self::GetChallenge { lease: None, .. } => "a request for a challenge to load",
            Self::GetChallenge { lease: Some(_), .. } => "a request for a challenge to renew",
            Self::Load { .. } => "a request for keys",
            Self::Renew { .. } => "a request for a renewal",
            Self::End { .. } => "the end of a lease",
            Self::Propose(_) => "a proposal",
            Self::Approve { .. } => "an approval",
            Self::Extension(_) => "an extension",
            Self::Challenge { .. } => "a challenge",
            Self::Grant { .. } => "a grant",
            Self::Renewed { .. } => "a renewed lease",
            Self::Notice { .. } => "a notice of a revocation",
            Self::Refused { .. } => "a refusal",
        }
    }
}
