//! What a challenge asks for, each form of evidence with what it takes to show it.

use attestation::{Credential, EvidenceForm, PcrSelection};

use super::{Fault, WireError, optional_pcrs, present};
use crate::v1;

/// The form of evidence that a rule wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskedEvidence {
    /// A quote of the TPM that was named.
    Tpm {
        /// Only that TPM can open it.
        credential: Credential,
        /// What it quotes.
        quote: AskedQuote,
    },
    /// A report.
    Snp,
    /// A report, and a quote of the TPM that was named.
    SnpTpm {
        /// Only that TPM can open it.
        credential: Credential,
        /// What it quotes.
        quote: AskedQuote,
    },
    /// A report, and a quote of the virtual TPM whose AK it endorses.
    AzureSnpVtpm {
        /// What it quotes.
        quote: AskedQuote,
    },
}

/// What is to be quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedQuote {
    /// Exactly these.
    pub pcrs: PcrSelection,
    /// Whether the event log has to come along.
    pub event_log: bool,
}

impl AskedEvidence {
    /// Its form.
    #[must_use]
    pub const fn form(&self) -> EvidenceForm {
        match self {
            Self::Tpm { .. } => EvidenceForm::Tpm,
            Self::Snp => EvidenceForm::Snp,
            Self::SnpTpm { .. } => EvidenceForm::SnpTpm,
            Self::AzureSnpVtpm { .. } => EvidenceForm::AzureSnpVtpm,
        }
    }

    /// The credential, where the form has one.
    #[must_use]
    pub const fn credential(&self) -> Option<&Credential> {
        match self {
            Self::Tpm { credential, .. } | Self::SnpTpm { credential, .. } => Some(credential),
            Self::Snp | Self::AzureSnpVtpm { .. } => None,
        }
    }

    /// What is to be quoted, where the form has a quote.
    #[must_use]
    pub const fn quote(&self) -> Option<AskedQuote> {
        match self {
            Self::Tpm { quote, .. } | Self::SnpTpm { quote, .. } | Self::AzureSnpVtpm { quote } => Some(*quote),
            Self::Snp => None,
        }
    }

    /// Reads the fields of a challenge that say so. Each is there exactly where the form has it.
    pub(super) fn read(
        form: i32,
        credential: Option<v1::Credential>,
        pcrs: &[u32],
        event_log: bool,
    ) -> Result<Self, WireError> {
        let form = super::evidence::form(form)?;
        let credential = credential.map(Credential::try_from).transpose()?;
        let quote = optional_pcrs(pcrs)?.map(|pcrs| AskedQuote { pcrs, event_log });
        let credential_of_form = || present("malformed-credential", credential.clone());
        let quote_of_form = || present("malformed-pcrs", quote);
        let asked = match form {
            EvidenceForm::Tpm => Self::Tpm { credential: credential_of_form()?, quote: quote_of_form()? },
            EvidenceForm::Snp => Self::Snp,
            EvidenceForm::SnpTpm => Self::SnpTpm { credential: credential_of_form()?, quote: quote_of_form()? },
            EvidenceForm::AzureSnpVtpm => Self::AzureSnpVtpm { quote: quote_of_form()? },
        };
        let unlike = |code| Err(WireError::new(code, Fault::Value));
        if asked.credential() != credential.as_ref() {
            return unlike("malformed-credential");
        }
        if asked.quote() != quote {
            return unlike("malformed-pcrs");
        }
        if event_log && quote.is_none() {
            return unlike("malformed-event-log");
        }
        Ok(asked)
    }
}
