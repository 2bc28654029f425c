//! The one map from the keeper's errors to what a caller, and the operator, learn.

use vault_proto::v1::{Coarse, KeeperRefusal};

/// A request that was not granted: a kind for the caller, a code and a sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    coarse: Coarse,
    code: String,
    message: String,
}

impl Refusal {
    /// The request has the wrong form.
    #[must_use]
    pub fn malformed(code: &str, message: impl std::fmt::Display) -> Self {
        Self::new(Coarse::Malformed, code, message)
    }

    /// The request was understood and refused.
    #[must_use]
    pub fn denied(code: &str, message: impl std::fmt::Display) -> Self {
        Self::new(Coarse::Denied, code, message)
    }

    /// There is no such thing.
    #[must_use]
    pub fn unknown(code: &str, message: impl std::fmt::Display) -> Self {
        Self::new(Coarse::Unknown, code, message)
    }

    /// Something moved between challenge and redemption.
    #[must_use]
    pub fn try_again(code: &str, message: impl std::fmt::Display) -> Self {
        Self::new(Coarse::TryAgain, code, message)
    }

    /// A bounded resource is full.
    #[must_use]
    pub fn busy(code: &str, message: impl std::fmt::Display) -> Self {
        Self::new(Coarse::Busy, code, message)
    }

    /// The keeper can't serve.
    #[must_use]
    pub fn unavailable(code: &str, message: impl std::fmt::Display) -> Self {
        Self::new(Coarse::Unavailable, code, message)
    }

    /// The keeper went away while the request waited.
    #[must_use]
    pub fn stopping() -> Self {
        Self::unavailable("keeper-stopping", "the keeper stopped before it answered: try again")
    }

    /// One commit has no room for another entry.
    #[must_use]
    pub fn batch_full() -> Self {
        Self::busy("batch-full", "too much waits for one commit: try again")
    }

    /// The stable code of the exact reason.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The sentence for the operator.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the request was understood and refused: asking again changes nothing.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.coarse == Coarse::Denied
    }

    fn new(coarse: Coarse, code: &str, message: impl std::fmt::Display) -> Self {
        Self { coarse, code: code.to_owned(), message: message.to_string() }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Refusal {}

/// Errors whose kind is the same wherever they come from.
macro_rules! refuse_as {
    ($($kind:ident: $($error:ty),+;)+) => { $($(
        impl From<$error> for Refusal {
            fn from(error: $error) -> Self {
                Self::$kind(error.code(), &error)
            }
        }
    )+)+ };
}

refuse_as! {
    malformed: vault_proto::convert::WireError, ledger::manifest::ManifestError, ledger::manifest::SelectError;
    denied: attestation::VerifyError, attestation::EventLogError, ledger::keeper_evidence::KeeperEvidenceError, ledger::model_signature::ModelSignatureError;
    unavailable: attestation::CredentialError, crate::vault_keys::VaultKeysError;
}

impl From<super::link::StoreError> for Refusal {
    fn from(error: super::link::StoreError) -> Self {
        Self::unavailable("host-storage", error)
    }
}

impl From<&ledger::decide::Denial> for Refusal {
    fn from(denial: &ledger::decide::Denial) -> Self {
        match denial.code() {
            // The caller did nothing wrong: the policy moved between challenge and release.
            "policy-changed" => Self::try_again("policy-changed", denial),
            "vault-not-open" => Self::unavailable("vault-not-open", denial),
            "lease-unknown" => Self::unknown("lease-unknown", denial),
            code => Self::denied(code, denial),
        }
    }
}

impl From<Refusal> for KeeperRefusal {
    fn from(refusal: Refusal) -> Self {
        Self { coarse: refusal.coarse.into(), code: refusal.code, message: refusal.message }
    }
}
