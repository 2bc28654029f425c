//! What a TPM refuses, by response code (TPM 2.0 Part 2, "TPM_RC"), never by text.

use std::fmt;

use tss_esapi::constants::response_code::Tss2ResponseCode;

use super::TpmHolder;
use crate::region::RegionError;
use crate::secret::SecretError;

/// Why the TPM did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TpmError {
    /// No TPM answers there, or the connection to it broke. With what to check.
    Unavailable(String),
    /// The connection to it can't be closed to programs that this process starts: where it is, and why.
    Inherited(String),
    /// Another process has a TPM open that no resource manager minds, and kept it.
    InUse {
        /// Where the TPM is.
        tpm: String,
        /// Who has it, if the kernel tells.
        holder: Option<TpmHolder>,
    },
    /// The lock of a TPM without a resource manager can't be had at all: which file, and why.
    LockFile(String),
    /// No answer before the deadline.
    Timeout,
    /// Too many requests are waiting.
    Busy,
    /// The TPM is in dictionary-attack lockout.
    Lockout,
    /// PCRs differ from those that the secret was sealed to; which ones, where their old values are known.
    PcrsChanged(Vec<u32>),
    /// The object was made by another TPM, or before this one was cleared, or it is damaged.
    ObjectRefused,
    /// What was stored is not a TPM object of the kind wanted.
    ObjectMalformed,
    /// The TPM holds no certificate for the endorsement key that is used.
    EkCertificateMissing,
    /// What the TPM holds as certificate is not DER.
    EkCertificateMalformed,
    /// The certificate that the TPM holds is of another key than its own: from another TPM, or of another template.
    EkCertificateOtherKey,
    /// The credential was made for another TPM or another attestation key, or it is damaged.
    CredentialRefused,
    /// PCRs kept changing while they were quoted.
    PcrsMoving,
    /// There is no counter at this index.
    CounterMissing,
    /// Another counter than ours is at this index: its name or its authorisation differs.
    CounterReplaced,
    /// The counter does not stand where the step was to begin.
    CounterMoved {
        /// Where the step was to begin.
        expected: u64,
        /// What the TPM says.
        found: u64,
    },
    /// Another run has taken the counter.
    CounterClaimed,
    /// The increment was sent and its answer got lost: the TPM may have counted or not.
    CounterUncertain,
    /// No room for another counter.
    CounterSpace,
    /// There is no such NV index.
    NvMissing(u32),
    /// The NV index holds more than such a thing has.
    NvTooLong(u32),
    /// There is no key at this persistent handle.
    KeyMissing(u32),
    /// The owner or endorsement hierarchy has a password, which this program is not given.
    HierarchyAuth,
    /// No locked memory for the secret.
    Secret(SecretError),
    /// Any other answer.
    Response {
        /// The command, as TPM 2.0 Part 3 names it.
        command: &'static str,
        /// The response code, with the layer that gave it in bits 16 to 23 (0: the TPM).
        code: u32,
    },
}

impl TpmError {
    /// Stable name of the refusal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "tpm-unavailable",
            Self::Inherited(_) => "tpm-inherited",
            Self::InUse { .. } => "tpm-in-use",
            Self::LockFile(_) => "tpm-lock-file",
            Self::Timeout => "tpm-timeout",
            Self::Busy => "tpm-busy",
            Self::Lockout => "tpm-lockout",
            Self::PcrsChanged(_) => "tpm-pcrs-changed",
            Self::ObjectRefused => "tpm-object-refused",
            Self::ObjectMalformed => "tpm-object-malformed",
            Self::EkCertificateMissing => "tpm-ek-certificate-missing",
            Self::EkCertificateMalformed => "tpm-ek-certificate-malformed",
            Self::EkCertificateOtherKey => "tpm-ek-certificate-other-key",
            Self::CredentialRefused => "tpm-credential-refused",
            Self::PcrsMoving => "tpm-pcrs-moving",
            Self::CounterMissing => "tpm-counter-missing",
            Self::CounterReplaced => "tpm-counter-replaced",
            Self::CounterMoved { .. } => "tpm-counter-moved",
            Self::CounterClaimed => "tpm-counter-claimed",
            Self::CounterUncertain => "tpm-counter-uncertain",
            Self::CounterSpace => "tpm-counter-space",
            Self::NvMissing(_) => "tpm-nv-missing",
            Self::NvTooLong(_) => "tpm-nv-too-long",
            Self::KeyMissing(_) => "tpm-key-missing",
            Self::HierarchyAuth => "tpm-hierarchy-auth",
            Self::Secret(error) => error.code(),
            Self::Response { .. } => "tpm-response",
        }
    }

    /// What an error of `command` means, apart from what its caller makes of it.
    pub(super) fn of(command: &'static str, error: tss_esapi::Error) -> Self {
        let code = match error {
            tss_esapi::Error::Tss2Error(code) => number(code),
            // Refused by the library before or after the TPM saw it: a structure that does not fit.
            tss_esapi::Error::WrapperError(_) => return Self::Response { command, code: WRAPPER },
        };
        match code {
            LOCKOUT => Self::Lockout,
            code => Self::Response { command, code },
        }
    }

    /// This error, or `meaning` where the TPM answered with `rc`, whatever handle, session or parameter it blames.
    pub(super) fn meaning(self, rc: u32, meaning: Self) -> Self {
        match self {
            Self::Response { code, .. } if base(code) == rc => meaning,
            other => other,
        }
    }

    /// Whether connecting anew and flushing may help: the connection broke, or the TPM does not know what this process
    /// had loaded (a reset, another program), or is full of what others left.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            Self::Response { code, .. } => {
                code >> 16 != 0 && *code != WRAPPER
                    || (REFERENCE_FIRST..=REFERENCE_LAST).contains(code)
                    || [CONTEXT_GAP, OBJECT_MEMORY, SESSION_MEMORY, SESSION_HANDLES, INITIALIZE].contains(code)
            }
            Self::Unavailable(_) => true,
            _ => false,
        }
    }

    /// This error as the caller sees it, when connecting anew did not help.
    pub(super) fn settled(self) -> Self {
        match self {
            Self::Response { command, code } if code >> 16 != 0 && code != WRAPPER => {
                Self::Unavailable(format!("{command} failed on the way, code {code:#x}"))
            }
            other => other,
        }
    }
}

pub(super) const AUTH_FAIL: u32 = 0x08e;
pub(super) const BAD_AUTH: u32 = 0x0a2;
pub(super) const FAILURE: u32 = 0x101;
pub(super) const HANDLE: u32 = 0x08b;
pub(super) const INTEGRITY: u32 = 0x09f;
pub(super) const INSUFFICIENT: u32 = 0x09a;
pub(super) const ECC_POINT: u32 = 0x0a7;
pub(super) const POLICY_FAIL: u32 = 0x09d;
pub(super) const PCR_CHANGED: u32 = 0x128;
pub(super) const VALUE: u32 = 0x084;
pub(super) const SIZE: u32 = 0x095;
pub(super) const NV_DEFINED: u32 = 0x14c;
pub(super) const NV_SPACE: u32 = 0x14b;
const INITIALIZE: u32 = 0x100;
const CONTEXT_GAP: u32 = 0x901;
const OBJECT_MEMORY: u32 = 0x902;
const SESSION_MEMORY: u32 = 0x903;
const SESSION_HANDLES: u32 = 0x905;
const REFERENCE_FIRST: u32 = 0x910;
const REFERENCE_LAST: u32 = 0x91e;
const LOCKOUT: u32 = 0x921;
/// Stands for an error of the Rust wrapper, which has no code: the layer that libtss2 gives to applications.
const WRAPPER: u32 = 0x00ff_0000;

/// A format-one code without the handle, session or parameter that it names; any other as it is.
fn base(code: u32) -> u32 {
    if code >> 16 == 0 && code & 0x80 != 0 { code & 0xbf } else { code }
}

/// tss-esapi compares codes but does not give their number away: this asks for each, layer by layer.
fn number(code: Tss2ResponseCode) -> u32 {
    let layers = (0..=0xff_u32).map(|layer| layer << 16);
    let mut codes = layers.flat_map(|layer| (0..0x1000).map(move |code| layer | code));
    codes.find(|candidate| Tss2ResponseCode::from(*candidate) == code).unwrap_or(WRAPPER)
}

impl fmt::Display for TpmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(what) => write!(f, "the TPM is not available: {what}"),
            Self::Inherited(why) => write!(
                f,
                "the connection to the TPM can't be kept from programs that are started, which could use it: {why}; is /proc mounted, \
                 and are there descriptors left (ulimit -n)?"
            ),
            Self::InUse { tpm, holder } => {
                write!(f, "{tpm} is in use by ")?;
                match holder {
                    Some(holder) => holder.fmt(f)?,
                    None => f.write_str("another process")?,
                }
                f.write_str(
                    ", and no resource manager lets two share it: end that one, or give each a TPM of its own; on \
                     hardware name device:/dev/tpmrm0, which many share",
                )
            }
            Self::LockFile(what) => write!(f, "the TPM can't be locked against other processes: {what}"),
            Self::Timeout => write!(f, "the TPM did not answer in time"),
            Self::Busy => write!(f, "too many requests wait for the TPM"),
            Self::Lockout => write!(f, "the TPM is in dictionary-attack lockout"),
            Self::PcrsChanged(pcrs) if pcrs.is_empty() => {
                write!(f, "this machine's PCRs differ from those that the secret was sealed to")
            }
            Self::PcrsChanged(pcrs) => {
                write!(f, "PCRs {pcrs:?} of this machine differ from those that the secret was sealed to")
            }
            Self::ObjectRefused => {
                write!(
                    f,
                    "the TPM refuses the stored object: another TPM made it, this one was cleared, or it is damaged"
                )
            }
            Self::ObjectMalformed => write!(f, "what is stored is not the TPM object it should be"),
            Self::EkCertificateMissing => write!(f, "the TPM holds no certificate of its endorsement key"),
            Self::EkCertificateMalformed => write!(f, "the TPM's endorsement key certificate is not DER"),
            Self::EkCertificateOtherKey => {
                write!(f, "the endorsement key certificate that the TPM holds is of another key than its own")
            }
            Self::CredentialRefused => {
                write!(f, "the credential was made for another TPM or attestation key, or is damaged")
            }
            Self::PcrsMoving => write!(f, "PCRs kept changing while they were quoted"),
            Self::CounterMissing => write!(f, "the TPM no longer has the counter"),
            Self::CounterReplaced => write!(f, "the TPM has another counter in the place of ours"),
            Self::CounterMoved { expected, found } => {
                write!(f, "the TPM's counter stands at {found}, not at {expected}")
            }
            Self::CounterClaimed => write!(f, "another run of this keeper, or of a copy of it, has taken the counter"),
            Self::CounterUncertain => write!(f, "the answer to the counter's increment got lost"),
            Self::CounterSpace => write!(f, "the TPM has no room for another counter"),
            Self::NvMissing(index) => write!(f, "the TPM has no NV index {index:#010x}"),
            Self::NvTooLong(index) => write!(f, "the TPM's NV index {index:#010x} holds more than was expected"),
            Self::KeyMissing(handle) => write!(f, "the TPM has no key at {handle:#010x}"),
            Self::HierarchyAuth => write!(f, "the TPM's owner or endorsement hierarchy has a password"),
            Self::Secret(error) => error.fmt(f),
            Self::Response { command, code } => write!(f, "{command} was answered with code {code:#05x}"),
        }
    }
}

impl std::error::Error for TpmError {}

impl From<SecretError> for TpmError {
    fn from(error: SecretError) -> Self {
        Self::Secret(error)
    }
}

impl From<RegionError> for TpmError {
    fn from(error: RegionError) -> Self {
        Self::Secret(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u32) -> TpmError {
        TpmError::of("TPM2_Test", tss_esapi::Error::Tss2Error(Tss2ResponseCode::from(code)))
    }

    #[test]
    fn a_response_code_keeps_its_number_and_its_layer() {
        for code in [0x100, 0x14b, 0x128, 0x98e, 0x99d, 0x1df, 0x922, 0x000a_000a, 0x0007_0018] {
            assert_eq!(error(code), TpmError::Response { command: "TPM2_Test", code });
        }
        assert_eq!(error(0x921), TpmError::Lockout);
    }

    #[test]
    fn a_meaning_is_found_whatever_the_code_blames() {
        for code in [0x99d, 0x19d, 0x9d, 0x1dd] {
            assert_eq!(error(code).meaning(POLICY_FAIL, TpmError::PcrsMoving), TpmError::PcrsMoving);
        }
        assert_ne!(error(0x99e).meaning(POLICY_FAIL, TpmError::PcrsMoving), TpmError::PcrsMoving);
        // Layer 10 is the transport: its codes mean nothing in the TPM's list.
        assert_ne!(error(0x000a_009d).meaning(POLICY_FAIL, TpmError::PcrsMoving), TpmError::PcrsMoving);
    }

    #[test]
    fn what_is_lost_is_the_connection_or_what_was_loaded() {
        for code in [0x000a_000a, 0x910, 0x918, 0x901, 0x902, 0x903, 0x100] {
            assert!(error(code).is_lost(), "{code:#x}");
        }
        for code in [0x98e, 0x99d, 0x1df, 0x921, 0x922, 0x14b] {
            assert!(!error(code).is_lost(), "{code:#x}");
        }
    }
}
