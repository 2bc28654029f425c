//! OpenSSH public keys that may approve or read: Ed25519, ECDSA on P-256 and P-384, and both kinds of security key.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, UnparsedPublicKey, VerificationAlgorithm,
};
use ssh_key::public::{EcdsaPublicKey, KeyData};
use ssh_key::{HashAlg, PublicKey};

use super::sshsig::take_string;
use super::{SshsigError, ed25519};

/// Longest key line, in bytes.
const KEY_LINE_BYTES_MAX: usize = 2 << 10;
/// Flag of an authenticator: a person touched it (OpenSSH PROTOCOL.u2f; CTAP authenticator data).
const USER_PRESENT: u8 = 0x01;
/// What follows the signature of a security key: flags (1) and counter (4).
const SK_TRAILER_BYTES: usize = 5;

/// A public key that this project verifies signatures of.
#[derive(Clone, PartialEq, Eq)]
pub struct ApproverKey {
    kind: Kind,
    point: Vec<u8>,
    data: KeyData,
}

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Ed25519,
    EcdsaP256,
    EcdsaP384,
    SkEd25519 { application: String },
    SkEcdsaP256 { application: String },
}

/// Why a text is not a usable OpenSSH public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    /// Not one line `algorithm base64 [comment]`.
    Malformed,
    /// RSA, DSA, P-521, a certificate, or something unknown.
    Unsupported,
    /// An Ed25519 key that nobody alone can sign with: a point of small order, or one that has another spelling.
    Weak,
}

impl KeyError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "ssh-key-malformed",
            Self::Unsupported => "ssh-key-unsupported",
            Self::Weak => "ssh-key-weak",
        }
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not an OpenSSH public key; write the line of a .pub file",
            Self::Unsupported => "use ssh-ed25519, ecdsa-sha2-nistp256 or nistp384, or a security key (sk-…)",
            Self::Weak => "anybody can sign for this Ed25519 key; make another with `ssh-keygen -t ed25519`",
        })
    }
}

impl std::error::Error for KeyError {}

impl ApproverKey {
    /// Reads one line of a `.pub` file: `algorithm base64 [comment]`.
    pub fn parse(line: &str) -> Result<Self, KeyError> {
        if line.len() > KEY_LINE_BYTES_MAX || line.trim() != line || line.contains(['\n', '\r']) {
            return Err(KeyError::Malformed);
        }
        let mut parts = line.splitn(3, ' ');
        let (Some(algorithm), Some(base64)) = (parts.next(), parts.next()) else {
            return Err(KeyError::Malformed);
        };
        let blob = STANDARD.decode(base64).map_err(|_| KeyError::Malformed)?;
        let key = Self::from_blob(&blob)?;
        if key.data.algorithm().as_str() != algorithm {
            return Err(KeyError::Malformed);
        }
        Ok(key)
    }

    /// Reads a key blob (RFC 4253 §6.6).
    pub(super) fn from_blob(blob: &[u8]) -> Result<Self, KeyError> {
        let key = PublicKey::from_bytes(blob).map_err(|_| KeyError::Malformed)?;
        // The decoder is lenient about inner lengths; one key has one blob.
        if key.to_bytes().ok().as_deref() != Some(blob) {
            return Err(KeyError::Malformed);
        }
        let data = key.key_data().clone();
        let (kind, point) = match &data {
            KeyData::Ed25519(key) => (Kind::Ed25519, key.0.to_vec()),
            KeyData::Ecdsa(key @ EcdsaPublicKey::NistP256(_)) => (Kind::EcdsaP256, key.as_sec1_bytes().to_vec()),
            KeyData::Ecdsa(key @ EcdsaPublicKey::NistP384(_)) => (Kind::EcdsaP384, key.as_sec1_bytes().to_vec()),
            KeyData::SkEd25519(key) => {
                (Kind::SkEd25519 { application: key.application().to_owned() }, key.public_key().0.to_vec())
            }
            KeyData::SkEcdsaSha2NistP256(key) => {
                (Kind::SkEcdsaP256 { application: key.application().to_owned() }, key.ec_point().as_bytes().to_vec())
            }
            _ => return Err(KeyError::Unsupported),
        };
        if matches!(kind, Kind::Ed25519 | Kind::SkEd25519 { .. }) && ed25519::is_weak(&point) {
            return Err(KeyError::Weak);
        }
        Ok(Self { kind, point, data })
    }

    /// Fingerprint as `ssh-keygen -l` shows it: `SHA256:` and unpadded base64.
    pub fn fingerprint(&self) -> String {
        self.data.fingerprint(HashAlg::Sha256).to_string()
    }

    /// The bare key. Two keys with the same point are held by the same person, whatever else their lines say.
    pub(crate) fn point(&self) -> &[u8] {
        &self.point
    }

    /// Checks a signature blob (RFC 4253 §6.6) over `message`, which is SSHSIG's signed data.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SshsigError> {
        let mut rest = signature;
        let algorithm = take_string(&mut rest).ok_or(SshsigError::Malformed)?;
        let bytes = take_string(&mut rest).ok_or(SshsigError::Malformed)?;
        if algorithm != self.data.algorithm().as_str().as_bytes() {
            return Err(SshsigError::AlgorithmMismatch);
        }
        match &self.kind {
            Kind::Ed25519 | Kind::EcdsaP256 | Kind::EcdsaP384 if !rest.is_empty() => Err(SshsigError::Malformed),
            Kind::Ed25519 => self.check(&ED25519, message, bytes),
            Kind::EcdsaP256 => self.check(&ECDSA_P256_SHA256_FIXED, message, &fixed::<32>(bytes)?),
            Kind::EcdsaP384 => self.check(&ECDSA_P384_SHA384_FIXED, message, &fixed::<48>(bytes)?),
            Kind::SkEd25519 { application } => self.check(&ED25519, &authenticated(application, message, rest)?, bytes),
            Kind::SkEcdsaP256 { application } => {
                let message = authenticated(application, message, rest)?;
                self.check(&ECDSA_P256_SHA256_FIXED, &message, &fixed::<32>(bytes)?)
            }
        }
    }

    fn check(
        &self,
        algorithm: &'static dyn VerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SshsigError> {
        UnparsedPublicKey::new(algorithm, &self.point)
            .verify(message, signature)
            .map_err(|_| SshsigError::SignatureInvalid)
    }
}

/// What an authenticator signs: SHA-256(application) ‖ flags ‖ counter ‖ SHA-256(message). Flags and counter are the
/// `trailer` of its signature (OpenSSH PROTOCOL.u2f).
fn authenticated(application: &str, message: &[u8], trailer: &[u8]) -> Result<Vec<u8>, SshsigError> {
    let trailer: &[u8; SK_TRAILER_BYTES] = trailer.try_into().map_err(|_| SshsigError::Malformed)?;
    // A key that signs without a touch is as good as a file: malware on the approver's machine could use it.
    if trailer[0] & USER_PRESENT == 0 {
        return Err(SshsigError::UserNotPresent);
    }
    let application = digest(&SHA256, application.as_bytes());
    let message = digest(&SHA256, message);
    Ok([application.as_ref(), trailer, message.as_ref()].concat())
}

/// `mpint r ‖ mpint s` (RFC 5656 §3.1.2) as r‖s of `N` bytes each.
fn fixed<const N: usize>(mut signature: &[u8]) -> Result<Vec<u8>, SshsigError> {
    let r = take_mpint::<N>(&mut signature).ok_or(SshsigError::SignatureInvalid)?;
    let s = take_mpint::<N>(&mut signature).ok_or(SshsigError::SignatureInvalid)?;
    if !signature.is_empty() {
        return Err(SshsigError::SignatureInvalid);
    }
    Ok([r, s].concat())
}

/// Takes a positive mpint (RFC 4251 §5) in its shortest form; gives it as `N` bytes, padded on the left.
fn take_mpint<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let value = match take_string(bytes)? {
        [0, rest @ ..] if rest.first().is_some_and(|byte| byte & 0x80 != 0) => rest,
        value if value.first().is_some_and(|byte| (1..0x80).contains(byte)) => value,
        _ => return None,
    };
    let mut padded = [0; N];
    padded.get_mut(N.checked_sub(value.len())?..)?.copy_from_slice(value);
    Some(padded)
}

impl fmt::Display for ApproverKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.data.algorithm().as_str(), self.fingerprint())
    }
}

impl fmt::Debug for ApproverKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApproverKey({self})")
    }
}
