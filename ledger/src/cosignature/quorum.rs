//! Why no quorum of witnesses cosigned a checkpoint: what each of them came to.

use std::fmt;

use super::WitnessPolicy;

/// Characters that are kept of what a relay says.
const WHY_CHARS_MAX: usize = 160;

/// What asking a witness came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// No answer yet.
    Waiting,
    /// It cosigned the checkpoint.
    Cosigned,
    /// It said yes, and what came is not its signature over this checkpoint.
    NotCosigned,
    /// It cosigned a larger checkpoint before: this log, or this keeper's state, is an older copy.
    Ahead {
        /// Entries of that one.
        size: u64,
    },
    /// What it cosigned before is no beginning of this log.
    Forked,
    /// It was not asked: nobody gave the entries by which to show it that this log continues what it cosigned before.
    NotShown {
        /// Entries of that.
        size: u64,
    },
    /// It answered with another HTTP status.
    Refused {
        /// That.
        status: u16,
    },
    /// There is no answer from it.
    Unreached {
        /// Why, as the relay says.
        why: String,
    },
}

/// Fewer witnesses than the quorum cosigned a checkpoint: nothing in it counts yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoQuorum {
    quorum: usize,
    faulty: usize,
    witnesses: Vec<(String, Outcome)>,
}

impl Outcome {
    /// With as much of the reason as fits a line.
    pub(super) fn unreached(why: &str) -> Self {
        Self::Unreached { why: why.chars().filter(|c| !c.is_control()).take(WHY_CHARS_MAX).collect() }
    }
}

impl NoQuorum {
    pub(super) fn new(policy: &WitnessPolicy, outcomes: Vec<Outcome>) -> Self {
        let names = policy.witnesses().iter().map(|witness| witness.name().to_owned());
        Self { quorum: policy.quorum(), faulty: policy.faulty(), witnesses: names.zip(outcomes).collect() }
    }

    /// Each witness and what it came to, in the order of the policy.
    pub fn witnesses(&self) -> &[(String, Outcome)] {
        &self.witnesses
    }

    /// Stable code. That the state is old is said where more witnesses say so than may be faulty: fewer could lie, and
    /// more of them don't have to be believed for anything to be refused.
    pub fn code(&self) -> &'static str {
        let ahead = self.count(|outcome| matches!(outcome, Outcome::Ahead { .. }));
        let forked = self.count(|outcome| *outcome == Outcome::Forked);
        if ahead > 0 && ahead + forked > self.faulty {
            "state-older-than-witnesses"
        } else if forked > self.faulty {
            "log-forked-from-witnesses"
        } else {
            "witness-quorum-missing"
        }
    }

    fn count(&self, is_it: impl Fn(&Outcome) -> bool) -> usize {
        self.witnesses.iter().filter(|(_, outcome)| is_it(outcome)).count()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => f.write_str("did not answer in time"),
            Self::Cosigned => f.write_str("cosigned it"),
            Self::NotCosigned => f.write_str("answered with something that is not its cosignature of it"),
            Self::Ahead { size } => write!(f, "has cosigned {size} entries, which are more"),
            Self::Forked => f.write_str("has cosigned another log than this"),
            Self::NotShown { size } => {
                write!(f, "has cosigned {size} entries, and the host does not give the last of them as they were")
            }
            Self::Refused { status: 404 } => f.write_str("does not know this log: give its operator the log's vkey"),
            Self::Refused { status } => write!(f, "refused with HTTP status {status}"),
            Self::Unreached { why } => write!(f, "was not reached ({why})"),
        }
    }
}

impl fmt::Display for NoQuorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cosigned = self.count(|outcome| *outcome == Outcome::Cosigned);
        write!(f, "{cosigned} of {} witnesses cosigned the log, and it takes {}", self.witnesses.len(), self.quorum)?;
        for (name, outcome) in self.witnesses.iter().filter(|(_, outcome)| *outcome != Outcome::Cosigned) {
            write!(f, "; {name} {outcome}")?;
        }
        match self.code() {
            "state-older-than-witnesses" => {
                f.write_str(". This is an older copy of the keeper's state or of its log: restore the newest of both")
            }
            "log-forked-from-witnesses" => {
                f.write_str(". Another copy of this keeper has gone on: stop one of the two")
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for NoQuorum {}
