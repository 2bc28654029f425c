//! Signed notes (C2SP signed-note): a text, an empty line, and lines of signatures.
//!
//! Only Ed25519 (type `01`) is known. Signatures of other keys are ignored, as the specification says; a signature of our
//! key that does not verify refuses the whole note.
//!
//! ```
//! use ledger::note::VerifierKey;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = VerifierKey::parse("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")?;
//! let note = "This is an example message.\n\n— example.com/foo \
//!     Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
//! assert_eq!(key.verify(note)?, "This is an example message.\n");
//! # Ok(()) }
//! ```

use std::fmt;

use attestation::{LogKey, Sha256Digest};
use base64::prelude::{BASE64_STANDARD, Engine as _};

/// Longest note, in bytes: room for 16 signatures of 5 kB, which a verifier must accept.
pub const NOTE_BYTES_MAX: usize = 128 << 10;
/// Most signature lines of a note.
pub const SIGNATURES_MAX: usize = 32;

const ED25519: u8 = 0x01;
pub(crate) const KEY_ID_BYTES: usize = 4;

/// The public key of a note's signer, with the name that it signs under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; KEY_ID_BYTES],
    key: LogKey,
}

/// Why a key or a note is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteError {
    /// The key's name is empty or has a space or a `+`.
    KeyName,
    /// The key's text is not name, id in lower-case hex and key in base64.
    KeyText,
    /// The key is not an Ed25519 key for this use.
    KeyType,
    /// The key's id is not that of its name and bytes.
    KeyId,
    /// More than 128 KiB.
    TooLarge,
    /// A control character other than a newline.
    ControlCharacter,
    /// No empty line before the signatures, or no newline at the end.
    NoSignatures,
    /// More than 32 signature lines.
    TooManySignatures,
    /// A signature line is not em dash, name and base64.
    SignatureLine,
    /// No signature of the expected key.
    NotSigned,
    /// A signature of the expected key does not verify.
    Signature,
}

impl VerifierKey {
    /// A key under a name.
    pub fn new(name: &str, key: LogKey) -> Result<Self, NoteError> {
        if !is_key_name(name) {
            return Err(NoteError::KeyName);
        }
        Ok(Self { name: name.to_owned(), id: key_id(name, ED25519, &key), key })
    }

    /// Reads `name+id+key`, the specification's vkey. Exactly one text is taken for each key.
    pub fn parse(vkey: &str) -> Result<Self, NoteError> {
        let (name, id, key) = parse_vkey(vkey, ED25519)?;
        Ok(Self { name: name.to_owned(), id, key })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key itself.
    pub fn key(&self) -> &LogKey {
        &self.key
    }

    /// Checks that this key signed the note, and returns its text with the final newline.
    pub fn verify<'a>(&self, note: &'a str) -> Result<&'a str, NoteError> {
        let (text, signatures) = split(note)?;
        let mut signed = false;
        for (count, line) in signatures.split_terminator('\n').enumerate() {
            if count == SIGNATURES_MAX {
                return Err(NoteError::TooManySignatures);
            }
            let (name, id, signature) = parse_signature_line(line)?;
            if name != self.name || id != self.id {
                continue;
            }
            self.key.verify(text.as_bytes(), &signature).map_err(|_| NoteError::Signature)?;
            signed = true;
        }
        if !signed {
            return Err(NoteError::NotSigned);
        }
        Ok(text)
    }

    /// The note of a text, which ends in a newline, and this key's signature over it. The signature is checked, so that a
    /// faulty signer is found before others see the note.
    pub fn assemble(&self, text: &str, signature: &[u8; 64]) -> Result<String, NoteError> {
        let signature = BASE64_STANDARD.encode([self.id.as_slice(), signature].concat());
        let note = format!("{text}\n— {} {signature}\n", self.name);
        if self.verify(&note)? != text {
            return Err(NoteError::NoSignatures);
        }
        Ok(note)
    }
}

impl fmt::Display for VerifierKey {
    /// The specification's vkey.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&vkey(&self.name, self.id, ED25519, &self.key))
    }
}

/// Four bytes that tell the keys of one name apart: SHA-256(name ‖ `0A` ‖ type ‖ key).
pub(crate) fn key_id(name: &str, kind: u8, key: &LogKey) -> [u8; KEY_ID_BYTES] {
    let preimage = [name.as_bytes(), b"\n", &[kind], key.as_bytes()].concat();
    *Sha256Digest::of(&preimage).as_bytes().first_chunk().expect("a digest is longer than a key id")
}

/// The specification's vkey: `name+id+key`.
pub(crate) fn vkey(name: &str, id: [u8; KEY_ID_BYTES], kind: u8, key: &LogKey) -> String {
    let key = BASE64_STANDARD.encode([&[kind], key.as_bytes().as_slice()].concat());
    format!("{name}+{}+{key}", hex::encode(id))
}

/// Name, id and key of a vkey of this type of Ed25519 keys. Exactly one text is taken for each.
pub(crate) fn parse_vkey(vkey: &str, kind: u8) -> Result<(&str, [u8; KEY_ID_BYTES], LogKey), NoteError> {
    let mut parts = vkey.splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(NoteError::KeyText);
    };
    let key = BASE64_STANDARD.decode(key).map_err(|_| NoteError::KeyText)?;
    let key = match key.as_slice() {
        [found, key @ ..] if *found == kind => LogKey::try_from(key).map_err(|_| NoteError::KeyType)?,
        _ => return Err(NoteError::KeyType),
    };
    if !is_key_name(name) {
        return Err(NoteError::KeyName);
    }
    let expected = key_id(name, kind, &key);
    if id != hex::encode(expected) {
        return Err(NoteError::KeyId);
    }
    Ok((name, expected, key))
}

/// The text and the signature lines, which the last empty line separates.
pub(crate) fn split(note: &str) -> Result<(&str, &str), NoteError> {
    if note.len() > NOTE_BYTES_MAX {
        return Err(NoteError::TooLarge);
    }
    if note.bytes().any(|b| b < 0x20 && b != b'\n') {
        return Err(NoteError::ControlCharacter);
    }
    let at = note.rfind("\n\n").ok_or(NoteError::NoSignatures)?;
    let (text, signatures) = note.split_at(at + 1);
    let signatures = signatures.strip_prefix('\n').ok_or(NoteError::NoSignatures)?;
    if !signatures.ends_with('\n') {
        return Err(NoteError::NoSignatures);
    }
    Ok((text, signatures))
}

/// Name, key id and signature of one line.
pub(crate) fn parse_signature_line(line: &str) -> Result<(&str, [u8; KEY_ID_BYTES], Vec<u8>), NoteError> {
    let parsed = line.strip_prefix("— ").and_then(|rest| rest.split_once(' ')).and_then(|(name, signature)| {
        let signature = BASE64_STANDARD.decode(signature).ok()?;
        let (id, signature) = signature.split_first_chunk::<KEY_ID_BYTES>()?;
        (is_key_name(name) && !signature.is_empty()).then(|| (name, *id, signature.to_vec()))
    });
    parsed.ok_or(NoteError::SignatureLine)
}

pub(crate) fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c == '+' || c.is_control())
}

impl NoteError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            NoteError::KeyName => "note-key-name",
            NoteError::KeyText => "note-key-text",
            NoteError::KeyType => "note-key-type",
            NoteError::KeyId => "note-key-id",
            NoteError::TooLarge => "note-too-large",
            NoteError::ControlCharacter => "note-control-character",
            NoteError::NoSignatures => "note-no-signatures",
            NoteError::TooManySignatures => "note-too-many-signatures",
            NoteError::SignatureLine => "note-signature-line",
            NoteError::NotSigned => "note-not-signed",
            NoteError::Signature => "note-signature",
        }
    }
}

impl fmt::Display for NoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoteError::KeyName => "a key name is empty or has a space or '+'",
            NoteError::KeyText => "a verifier key is name+id+key",
            NoteError::KeyType => "the verifier key is not an Ed25519 key of the type that is wanted here",
            NoteError::KeyId => "the verifier key has the id of another key",
            NoteError::TooLarge => "the note has more than 128 KiB",
            NoteError::ControlCharacter => "the note has a control character",
            NoteError::NoSignatures => "the note has no signatures",
            NoteError::TooManySignatures => "the note has more than 32 signatures",
            NoteError::SignatureLine => "a signature line is malformed",
            NoteError::NotSigned => "the note is not signed by the expected key",
            NoteError::Signature => "the signature of the expected key does not verify",
        })
    }
}

impl std::error::Error for NoteError {}
