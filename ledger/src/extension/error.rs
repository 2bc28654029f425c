use std::fmt;

use attestation::UnixTime;

use crate::approvals::ApprovalError;
use crate::names::Name;

/// Why an extension does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtensionError {
    /// The extension itself can't be read, or is not in its one spelling.
    Malformed,
    /// The file around it can't be read: longer than 64 KiB, more than 8 approvals, or another version.
    FileMalformed,
    /// It lasts for no time, or for longer than 7 days.
    Span {
        /// Its beginning.
        not_before: UnixTime,
        /// Its end.
        until: UnixTime,
    },
    /// Signed under another policy than the one that is known to be in force.
    PolicyNotInForce,
    /// A statement or signature, or a key that is no approver's.
    Approval(ApprovalError),
    /// A statement is about another vault.
    OtherVault,
    /// A statement is about something else.
    OtherObject,
    /// A statement counts until another moment than the extension.
    OtherEnd,
    /// An approver signs twice.
    ApproverRepeated {
        /// Who.
        approver: Name,
    },
    /// Fewer approvers than a policy takes.
    TooFew {
        /// Approvals that count.
        given: u32,
        /// How many it takes.
        threshold: u32,
    },
    /// It is about other leases.
    OtherLease,
    /// It does not count yet.
    NotYet {
        /// Its beginning.
        not_before: UnixTime,
    },
    /// It is over.
    Expired {
        /// Its end.
        until: UnixTime,
    },
}

impl ExtensionError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "extension-malformed",
            Self::FileMalformed => "extension-file-malformed",
            Self::Span { .. } => "extension-span",
            Self::PolicyNotInForce => "extension-policy-not-in-force",
            Self::Approval(error) => error.code(),
            Self::OtherVault => "extension-other-vault",
            Self::OtherObject => "extension-other-object",
            Self::OtherEnd => "extension-other-end",
            Self::ApproverRepeated { .. } => "extension-approver-repeated",
            Self::TooFew { .. } => "extension-too-few",
            Self::OtherLease => "extension-other-lease",
            Self::NotYet { .. } => "extension-not-yet",
            Self::Expired { .. } => "extension-expired",
        }
    }
}

impl fmt::Display for ExtensionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("not an extension of version 1, in its one spelling"),
            Self::FileMalformed => f.write_str("not an extension file: make it with `vaultctl extend`"),
            Self::Span { not_before, until } => {
                write!(f, "an extension from {not_before} to {until} lasts for no time, or longer than 7 days")
            }
            Self::PolicyNotInForce => f.write_str("signed under another policy than the one in force"),
            Self::Approval(error) => error.fmt(f),
            Self::OtherVault => f.write_str("signed for another vault"),
            Self::OtherObject => f.write_str("a signature is about something else than this extension"),
            Self::OtherEnd => f.write_str("a signature counts until another moment than the extension"),
            Self::ApproverRepeated { approver } => write!(f, "{approver} has signed twice"),
            Self::TooFew { given, threshold } => write!(f, "{given} of {threshold} approvals"),
            Self::OtherLease => f.write_str("the extension is about other leases"),
            Self::NotYet { not_before } => write!(f, "the extension counts from {not_before} on"),
            Self::Expired { until } => write!(f, "the extension counted until {until}"),
        }
    }
}

impl std::error::Error for ExtensionError {}
