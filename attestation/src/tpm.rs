//! TPM 2.0: what a requester sends, and what can be made of it.

pub(crate) mod attest;
#[cfg(test)]
mod azure_vectors;
pub(crate) mod captured;
mod credential;
pub(crate) mod ek;
mod endorsement;
mod enrolled;
mod pcrs;
mod public;
mod reader;

pub use captured::{PcrBank, QuoteStatement};
pub use credential::{ActivationSecret, Credential};
pub use ek::{EkKind, EkPublic};
pub use endorsement::{EkEndorsement, EndorsedEk, EndorsedTpm, claimed_ek};
pub use enrolled::{EnrolledEk, EnrolledEks};
pub(crate) use pcrs::PCRS;
pub use pcrs::PcrSelection;
pub(crate) use public::QuotingKey;
pub use public::{AkName, AttestationKey};

/// Who a TPM says it is: raw, from the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmIdentity {
    /// X.509 DER: the EK certificate first, then its issuers towards the root. At most 6, each at most 4 KiB.
    pub ek_certificates: Vec<Vec<u8>>,
    /// TPMT_PUBLIC of the EK, without a size prefix; empty where it was not sent. Beside a certificate it must be of the
    /// same key.
    pub ek_public: Vec<u8>,
    /// TPMT_PUBLIC of the attestation key, without a size prefix.
    pub ak_public: Vec<u8>,
}

/// A quote and what is needed to check it: raw, from the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmQuote {
    /// Must be the identity that the credential was made for.
    pub identity: TpmIdentity,
    /// TPMS_ATTEST, exactly the bytes that were signed.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
    /// Index and value of each quoted PCR of the SHA-256 bank, ascending.
    pub pcrs: Vec<(u32, [u8; 32])>,
}

/// Algorithm identifiers of the TCG Algorithm Registry that a restricted signing key may have.
mod alg {
    pub(super) const RSA: u16 = 0x0001;
    pub(super) const SHA256: u16 = 0x000b;
    pub(super) const NULL: u16 = 0x0010;
    pub(super) const RSASSA: u16 = 0x0014;
    pub(super) const ECDSA: u16 = 0x0018;
    pub(super) const ECC: u16 = 0x0023;
    pub(super) const CURVE_P256: u16 = 0x0003;
}
