use std::fmt;

use attestation::PcrSelection;

use crate::policy::{PcrMismatch, PolicyProblem};

/// Why a keeper is not sealed to a boot state, or an entry about it may not stand where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResealError {
    /// It is about another keeper than the one that the vault has.
    OtherKeeper {
        /// What differs first.
        field: &'static str,
    },
    /// Fewer, more or other PCRs than the first policy names for the keeper.
    OtherSelection {
        /// Those that it names.
        expected: PcrSelection,
    },
    /// What a machine shows that measured nothing, or that any program can set.
    Unmeasured(PolicyProblem),
    /// `[keeper]` of the policy in force would not let the keeper start there.
    PcrsNotAllowed(PcrMismatch),
    /// The root is sealed to a chip too, and the launch digest is not named.
    MeasurementMissing,
    /// A launch digest is named, and the root is sealed to a TPM alone.
    MeasurementUnexpected,
    /// `[keeper.snp]` of the policy in force does not list the launch digest.
    MeasurementNotAllowed,
    /// The root is sealed to this already.
    Already,
    /// Several keepers decide on one log, or did: another one is let in, and the old one leaves.
    Shared,
    /// What is said of the present boot state is not what the log says.
    PresentMismatch,
    /// The keeper is not sealed to the boot state that it is said to have started on.
    NotNext,
}

impl ResealError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OtherKeeper { .. } => "reseal-other-keeper",
            Self::OtherSelection { .. } => "reseal-pcr-selection",
            Self::Unmeasured(_) => "reseal-pcrs-unmeasured",
            Self::PcrsNotAllowed(_) => "reseal-pcrs-not-allowed",
            Self::MeasurementMissing => "reseal-measurement-missing",
            Self::MeasurementUnexpected => "reseal-measurement-unexpected",
            Self::MeasurementNotAllowed => "reseal-measurement-not-allowed",
            Self::Already => "reseal-already",
            Self::Shared => "reseal-shared-log",
            Self::PresentMismatch => "reseal-present-mismatch",
            Self::NotNext => "reseal-not-next",
        }
    }
}

impl fmt::Display for ResealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherKeeper { field } => write!(f, "it is about another keeper: {field} is not that of the vault's keeper"),
            Self::OtherSelection { expected } => {
                let pcrs: Vec<String> = expected.iter().map(|index| index.to_string()).collect();
                write!(f, "a keeper of this vault is sealed to exactly the PCRs {}", pcrs.join(", "))
            }
            Self::Unmeasured(problem) => write!(f, "not a boot state to seal to: {problem}"),
            Self::PcrsNotAllowed(mismatch) => write!(
                f,
                "{mismatch}, which `keeper.pcrs` of the policy in force does not allow: the keeper could not start there. \
                 Change the policy first"
            ),
            Self::MeasurementMissing => f.write_str(
                "the root is sealed to a chip too: name the launch digest of the keeper's guest, which must stay the same",
            ),
            Self::MeasurementUnexpected => f.write_str("the root is not sealed to a chip: name no launch digest"),
            Self::MeasurementNotAllowed => {
                f.write_str("`keeper.snp.measurements` of the policy in force does not list this launch digest")
            }
            Self::Already => f.write_str("the root is sealed to this already"),
            Self::Shared => f.write_str(
                "this vault has, or had, several keepers: let a new one in by `vault-enclave keeper-join`, then have the old one \
                 leave",
            ),
            Self::PresentMismatch => f.write_str("the keeper's present boot state is another than the log says"),
            Self::NotNext => f.write_str("no reseal to this boot state is in force"),
        }
    }
}

impl std::error::Error for ResealError {}
