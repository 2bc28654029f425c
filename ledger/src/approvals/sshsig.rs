//! SSHSIG, the signature of `ssh-keygen -Y sign` (OpenSSH PROTOCOL.sshsig).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, SHA512, digest};

use super::key::{ApproverKey, KeyError};

/// Longest armored signature, in bytes.
pub const SSHSIG_BYTES_MAX: usize = 4 << 10;
/// Approvals are signed with `ssh-keygen -Y sign -n weightvault`; a signature for anything else is not one.
pub const SSHSIG_NAMESPACE: &str = "weightvault";

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----\n";
const END: &str = "-----END SSH SIGNATURE-----\n";
const LINE_CHARS: usize = 70;
const MAGIC: &[u8] = b"SSHSIG";
const VERSION: [u8; 4] = [0, 0, 0, 1];

/// Why an armored signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SshsigError {
    /// Longer than 4 KiB.
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// Not exactly one armored SSHSIG of version 1.
    Malformed,
    /// The signer's key is of a kind that is not verified here.
    KeyUnsupported,
    /// Made for another purpose.
    NamespaceMismatch,
    /// The message was hashed with something other than SHA-256 or SHA-512.
    HashUnsupported,
    /// The reserved field, which this version gives no meaning, is not empty.
    ReservedNotEmpty,
    /// The signature is of another algorithm than the key.
    AlgorithmMismatch,
    /// A security key signed without a touch.
    UserNotPresent,
    /// Not a signature over these bytes by this key.
    SignatureInvalid,
}

/// Whose signature over `message` this is. The key comes out of the signature itself: it says nothing until it is found
/// among the approvers.
pub(crate) fn signer(message: &[u8], armored: &str) -> Result<ApproverKey, SshsigError> {
    let blob = unarmor(armored)?;
    let fields = Fields::of(&blob).ok_or(SshsigError::Malformed)?;
    if fields.namespace != SSHSIG_NAMESPACE.as_bytes() {
        return Err(SshsigError::NamespaceMismatch);
    }
    if !fields.reserved.is_empty() {
        return Err(SshsigError::ReservedNotEmpty);
    }
    let hash = match fields.hash_algorithm {
        b"sha256" => digest(&SHA256, message),
        b"sha512" => digest(&SHA512, message),
        _ => return Err(SshsigError::HashUnsupported),
    };
    let key = ApproverKey::from_blob(fields.public_key).map_err(|error| match error {
        KeyError::Malformed => SshsigError::Malformed,
        KeyError::Unsupported | KeyError::Weak => SshsigError::KeyUnsupported,
    })?;
    let signed: [&[u8]; 4] = [fields.namespace, fields.reserved, fields.hash_algorithm, hash.as_ref()];
    key.verify(&[MAGIC, &signed.map(string).concat()].concat(), fields.signature)?;
    Ok(key)
}

/// One signature has one text, but for the newline at its end.
fn unarmor(armored: &str) -> Result<Vec<u8>, SshsigError> {
    if armored.len() > SSHSIG_BYTES_MAX {
        return Err(SshsigError::TooLong { bytes: armored.len() });
    }
    let text = if armored.ends_with('\n') { armored.to_owned() } else { format!("{armored}\n") };
    let body = text.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)).ok_or(SshsigError::Malformed)?;
    let lines: Vec<&str> = body.split_terminator('\n').collect();
    let (last, full) = lines.split_last().ok_or(SshsigError::Malformed)?;
    let wrapped = full.iter().all(|line| line.len() == LINE_CHARS) && (1..=LINE_CHARS).contains(&last.len());
    if !wrapped || !body.ends_with('\n') {
        return Err(SshsigError::Malformed);
    }
    STANDARD.decode(lines.concat()).map_err(|_| SshsigError::Malformed)
}

/// The fields of an SSHSIG blob.
struct Fields<'a> {
    public_key: &'a [u8],
    namespace: &'a [u8],
    reserved: &'a [u8],
    hash_algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Fields<'a> {
    fn of(blob: &'a [u8]) -> Option<Self> {
        let mut rest = blob.strip_prefix(MAGIC)?.strip_prefix(&VERSION)?;
        let fields = Self {
            public_key: take_string(&mut rest)?,
            namespace: take_string(&mut rest)?,
            reserved: take_string(&mut rest)?,
            hash_algorithm: take_string(&mut rest)?,
            signature: take_string(&mut rest)?,
        };
        rest.is_empty().then_some(fields)
    }
}

/// Takes a `string` of RFC 4251 §5 off the front: 4 bytes of length, then the bytes.
pub(super) fn take_string<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (string, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *bytes = rest;
    Some(string)
}

fn string(bytes: &[u8]) -> Vec<u8> {
    // A signature is at most 4 KiB, and what it was decoded from with it.
    let length = u32::try_from(bytes.len()).expect("at most 4 KiB");
    [&length.to_be_bytes(), bytes].concat()
}

impl SshsigError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "sshsig-too-long",
            Self::Malformed => "sshsig-malformed",
            Self::KeyUnsupported => "sshsig-key-unsupported",
            Self::NamespaceMismatch => "sshsig-namespace-mismatch",
            Self::HashUnsupported => "sshsig-hash-unsupported",
            Self::ReservedNotEmpty => "sshsig-reserved-not-empty",
            Self::AlgorithmMismatch => "sshsig-algorithm-mismatch",
            Self::UserNotPresent => "sshsig-user-not-present",
            Self::SignatureInvalid => "sshsig-invalid",
        }
    }
}

impl fmt::Display for SshsigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong { bytes } => return write!(f, "a signature of {bytes} bytes is longer than 4 KiB"),
            Self::Malformed => "not an armored SSH signature; make it with `ssh-keygen -Y sign -n weightvault`",
            Self::KeyUnsupported => {
                "signed by a key of a kind that is not accepted; use ed25519, ecdsa (256 or 384), or a security key"
            }
            Self::NamespaceMismatch => "signed for another namespace; sign with `-n weightvault`",
            Self::HashUnsupported => "the message was hashed with something other than SHA-256 or SHA-512",
            Self::ReservedNotEmpty => "the reserved field of the signature is not empty",
            Self::AlgorithmMismatch => "the signature is of another algorithm than its key",
            Self::UserNotPresent => "the security key signed without a touch",
            Self::SignatureInvalid => "the signature is not over these bytes",
        })
    }
}

impl std::error::Error for SshsigError {}
