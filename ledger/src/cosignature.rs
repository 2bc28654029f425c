//! Cosignatures of witnesses (C2SP tlog-cosignature, `cosignature/v1`: Ed25519 with a time), and the quorum of them that
//! stands for "nobody was shown another log".
//!
//! ```text
//! cosignature/v1
//! time 1679315147
//! weightvault.v1/5feceb66…      the checkpoint as its log signed it
//! 3
//! sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=
//! ```
//!
//! The line of a cosignature stands beside the log's own under the checkpoint: `— name base64(key id ‖ time ‖ signature)`,
//! time in 8 bytes big-endian. Whoever wants a quorum asks a [`WitnessPolicy`]; what it found is a [`CosignedCheckpoint`],
//! which nothing else makes.
//!
//! ```
//! use attestation::{LogKey, UnixTime};
//! use ledger::cosignature::{WitnessKey, WitnessPolicy};
//! # use ring::signature::{Ed25519KeyPair, KeyPair};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).map_err(|_| "seed")?;
//! let witness = WitnessKey::new("witness.example/w1", LogKey::try_from(pair.public_key().as_ref())?)?;
//! let text = "example.com/log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n";
//! let time = UnixTime(1_679_315_147);
//! let signature = pair.sign(&WitnessKey::message(text, time)).as_ref().try_into()?;
//! assert!(witness.line(text, time, &signature)?.starts_with("— witness.example/w1 "));
//!
//! // One witness that is never wrong; a vault has more.
//! let policy = WitnessPolicy::new(vec![witness], 1, 0)?;
//! assert_eq!(policy.quorum(), 1);
//! # Ok(()) }
//! ```

mod error;
mod gather;
mod policy;
mod quorum;

use std::fmt;

use attestation::{LogKey, UnixTime};
use base64::prelude::{BASE64_STANDARD, Engine as _};

pub use error::{CosignatureError, WitnessPolicyError};
pub(crate) use gather::LastSizes;
pub use gather::{ANSWER_BYTES_MAX, Answer, Ask, Gathering, NoQuorum, Outcome};
pub use policy::{Cosignature, CosignedCheckpoint, WITNESSES_MAX, WitnessPolicy};

use crate::note::{KEY_ID_BYTES, NoteError, is_key_name, key_id, parse_vkey, vkey};

/// Signature type of `cosignature/v1` keys (C2SP signed-note).
const COSIGNATURE_V1: u8 = 0x04;
const TIME_BYTES: usize = 8;
const SIGNATURE_BYTES: usize = 64;
/// The last second of the year 9999: a later time is a mistake, and would stop every clock that it is taken for.
const TIME_MAX: UnixTime = UnixTime(253_402_300_799);

/// The public key of a witness, with the name that it signs under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessKey {
    name: String,
    id: [u8; KEY_ID_BYTES],
    key: LogKey,
}

impl WitnessKey {
    /// An Ed25519 key under a name.
    ///
    /// # Errors
    /// [`NoteError::KeyName`].
    pub fn new(name: &str, key: LogKey) -> Result<Self, NoteError> {
        if !is_key_name(name) {
            return Err(NoteError::KeyName);
        }
        Ok(Self { name: name.to_owned(), id: key_id(name, COSIGNATURE_V1, &key), key })
    }

    /// Reads a vkey of type `04`: `name+id+key`. Exactly one text is taken for each key.
    ///
    /// # Errors
    /// [`NoteError`]: what of the vkey is wrong; [`NoteError::KeyType`] for a log's own key.
    pub fn parse(vkey: &str) -> Result<Self, NoteError> {
        let (name, id, key) = parse_vkey(vkey, COSIGNATURE_V1)?;
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

    /// The bytes that a witness signs: two lines, then the whole text of the checkpoint, its extension lines included.
    pub fn message(text: &str, time: UnixTime) -> Vec<u8> {
        format!("cosignature/v1\ntime {}\n{text}", time.0).into_bytes()
    }

    /// The signature line of a cosignature, with its newline. It is checked, so that a faulty signer is found before others
    /// see it.
    ///
    /// # Errors
    /// [`CosignatureError`], as whoever reads the line would have it.
    pub fn line(
        &self,
        text: &str,
        time: UnixTime,
        signature: &[u8; SIGNATURE_BYTES],
    ) -> Result<String, CosignatureError> {
        let bytes = [time.0.to_be_bytes().as_slice(), signature].concat();
        self.verify(text, &bytes)?;
        Ok(format!("— {} {}\n", self.name, BASE64_STANDARD.encode([self.id.as_slice(), &bytes].concat())))
    }

    /// Whether a signature line is meant for this key.
    pub(crate) fn is_named(&self, name: &str, id: [u8; KEY_ID_BYTES]) -> bool {
        self.name == name && self.id == id
    }

    /// Checks time ‖ signature over a checkpoint's text: when this witness saw it as the largest.
    pub(crate) fn verify(&self, text: &str, bytes: &[u8]) -> Result<UnixTime, CosignatureError> {
        let (time, signature) = bytes.split_first_chunk::<TIME_BYTES>().ok_or(CosignatureError::Length)?;
        if signature.len() != SIGNATURE_BYTES {
            return Err(CosignatureError::Length);
        }
        let time = UnixTime(u64::from_be_bytes(*time));
        if time == UnixTime(0) || time > TIME_MAX {
            return Err(CosignatureError::Time);
        }
        self.key.verify(&Self::message(text, time), signature).map_err(|_| CosignatureError::Signature)?;
        Ok(time)
    }
}

impl fmt::Display for WitnessKey {
    /// The specification's vkey.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&vkey(&self.name, self.id, COSIGNATURE_V1, &self.key))
    }
}
