//! What went wrong: what happened, why, and what to do next.

use std::fmt;
use std::path::Path;

use serde::Serialize;

/// What a failure means for a caller: its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A file, the network, `ssh-keygen`: nothing was decided. Exit code 1.
    Failed,
    /// The command was given something that it can't use. Exit code 2, as for unknown arguments.
    Usage,
    /// The vault understood and refused. Exit code 3.
    Refused,
    /// Something that was checked does not hold: do not go on. Exit code 4.
    NotVerified,
}

impl Kind {
    /// The exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::NotVerified => 4,
        }
    }
}

/// The exit code where nothing failed, and what was asked about is not there yet: approvals are missing, or the vault is
/// not open.
pub const EXIT_NOT_YET: u8 = 5;

/// The exit code of `evidence verify --kind` where the evidence was judged and refused.
pub const EXIT_REFUSED_EVIDENCE: u8 = 1;

/// The exit code of `policy simulate` where a decision would be another.
pub const EXIT_DIFFERS: u8 = 1;

/// A failure, for a person and for a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Failure(Box<Details>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Details {
    kind: Kind,
    code: String,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

impl Failure {
    /// `code` is stable; `what` says what did not happen.
    pub fn new(kind: Kind, code: impl Into<String>, what: impl Into<String>) -> Self {
        let (code, what) = (code.into(), what.into());
        Self(Box::new(Details { kind, code, what, why: None, next: None, request_id: None }))
    }

    /// The same as wrong use, where exit code 1 has another meaning.
    #[must_use]
    pub fn into_usage(mut self) -> Self {
        self.0.kind = Kind::Usage;
        self
    }

    /// The cause.
    #[must_use]
    pub fn why(mut self, why: impl fmt::Display) -> Self {
        self.0.why = Some(why.to_string());
        self
    }

    /// What to do.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.0.next = Some(next.into());
        self
    }

    /// The name of a refusal in the host's journal.
    #[must_use]
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.0.request_id = Some(id.into());
        self
    }

    /// A file that can't be read or written.
    pub fn file(verb: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::new(Kind::Failed, "file", format!("could not {verb} {}", path.display())).why(error)
    }

    /// What it means for a caller.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The stable code.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// What to do.
    pub fn next_step(&self) -> Option<&str> {
        self.0.next.as_deref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { code, what, why, next, request_id, .. } = self.0.as_ref();
        write!(f, "{what} [{code}]")?;
        for (label, text) in [("why", why), ("next", next), ("request", request_id)] {
            if let Some(text) = text {
                write!(f, "\n  {label}: {}", text.replace('\n', "\n    "))?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_and_what_next() {
        let failure = Failure::new(Kind::Refused, "policy-changed", "the approval was refused")
            .why("serial 3 is in force")
            .next("run `vaultctl pending`")
            .request_id("00ff");
        let text = "the approval was refused [policy-changed]\n  why: serial 3 is in force\n  next: run `vaultctl \
                    pending`\n  request: 00ff";
        assert_eq!(failure.to_string(), text);
        assert_eq!(failure.kind().exit_code(), 3);
    }

    #[test]
    fn each_kind_has_its_own_exit_code() {
        let codes = [Kind::Failed, Kind::Usage, Kind::Refused, Kind::NotVerified].map(Kind::exit_code);
        assert_eq!(codes, [1, 2, 3, 4]);
        assert!(!codes.contains(&EXIT_NOT_YET));
    }
}
