//! The witness's own key.
//!
//! File, mode 0600: `PRIVATE+KEY+` ‖ name ‖ `+` ‖ key id in hex ‖ `+` ‖ base64(`04` ‖ 32 bytes of seed) ‖ newline. It is the
//! form in which other programs for signed notes keep their keys.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use attestation::{LogKey, UnixTime};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use ledger::cosignature::{CosignatureError, WitnessKey};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

use crate::failure::{Failure, Kind};

const PREFIX: &str = "PRIVATE+KEY+";
const COSIGNATURE_V1: u8 = 0x04;
const FILE_BYTES_MAX: u64 = 1 << 10;

/// Signs cosignatures. `ring` does not wipe what it keeps of the key, which lives as long as the witness.
pub struct SigningKey {
    public: WitnessKey,
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// Makes a key and writes it to a new file that only its owner can read.
    ///
    /// # Errors
    /// `note-key-name`, or the file.
    pub fn create(name: &str, path: &Path, rng: &SystemRandom) -> Result<Self, Failure> {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill(seed.as_mut()).map_err(|_| Failure::new(Kind::Failed, "random", "the system gave no random bytes"))?;
        let key = Self::new(name, &seed)?;
        let file = |error| Failure::file("write", path, &error);
        let text = text(&key.public, &seed);
        let mut open = std::fs::File::options();
        let mut opened = std::os::unix::fs::OpenOptionsExt::mode(open.write(true).create_new(true), 0o600)
            .open(path)
            .map_err(file)?;
        opened.write_all(text.as_bytes()).and_then(|()| opened.sync_all()).map_err(file)?;
        Ok(key)
    }

    /// Reads the file of a key. One that others can read is refused.
    ///
    /// # Errors
    /// `witness-key-open`, `witness-key-malformed`, or the file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        use std::io::Read;
        let file = |error| Failure::file("read", path, &error);
        let opened = std::fs::File::open(path).map_err(file)?;
        if opened.metadata().map_err(file)?.permissions().mode() & 0o077 != 0 {
            return Err(Failure::new(Kind::Usage, "witness-key-open", format!("{} is no secret", path.display()))
                .why("others than its owner may read or write it")
                .next("if nobody has, chmod 600 it; else make a new key"));
        }
        let mut text = Zeroizing::new(String::new());
        opened.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(file)?;
        parse(&text).ok_or_else(|| {
            Failure::new(Kind::Usage, "witness-key-malformed", format!("{} is not a witness's key", path.display()))
                .next("make one with `vaultctl witness keygen`")
        })
    }

    /// Name and public key.
    pub fn public(&self) -> &WitnessKey {
        &self.public
    }

    /// The cosignature line of a checkpoint's text.
    ///
    /// # Errors
    /// A time that no cosignature has: the clock is wrong.
    pub(super) fn line(&self, text: &str, time: UnixTime) -> Result<String, CosignatureError> {
        let signature = self.pair.sign(&WitnessKey::message(text, time));
        let signature = signature.as_ref().try_into().map_err(|_| CosignatureError::Length)?;
        self.public.line(text, time, signature)
    }

    fn new(name: &str, seed: &[u8; 32]) -> Result<Self, Failure> {
        let refuse = |code: &'static str| Failure::new(Kind::Usage, code, format!("{name} can't be a witness's name"));
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed is any 32 bytes");
        let public = LogKey::try_from(pair.public_key().as_ref()).expect("a public key has 32 bytes");
        let public = WitnessKey::new(name, public).map_err(|error| refuse(error.code()).why(error))?;
        Ok(Self { public, pair })
    }
}

fn text(public: &WitnessKey, seed: &[u8; 32]) -> Zeroizing<String> {
    let mut secret = Zeroizing::new([COSIGNATURE_V1; 33]);
    secret[1..].copy_from_slice(seed);
    let secret = Zeroizing::new(BASE64_STANDARD.encode(secret.as_ref()));
    // The base64 of a key may have a plus too: the id ends at the second one.
    let vkey = public.to_string();
    let id = vkey.split('+').nth(1).expect("a vkey has three parts");
    Zeroizing::new(format!("{PREFIX}{}+{id}+{}\n", public.name(), *secret))
}

fn parse(text: &str) -> Option<SigningKey> {
    let mut parts = text.strip_suffix('\n')?.strip_prefix(PREFIX)?.splitn(3, '+');
    let (name, id, secret) = (parts.next()?, parts.next()?, parts.next()?);
    let secret = Zeroizing::new(BASE64_STANDARD.decode(secret).ok()?);
    let [COSIGNATURE_V1, seed @ ..] = secret.as_slice() else { return None };
    let key = SigningKey::new(name, seed.try_into().ok()?).ok()?;
    // The id binds name and key: neither was changed alone.
    let vkey = key.public.to_string();
    (vkey.strip_prefix(name)?.split('+').nth(1)? == id).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_as_it_was_written() {
        for first in 0..=u8::MAX {
            let seed = [first; 32];
            let Ok(key) = SigningKey::new("witness.example/w1", &seed) else { panic!("its name is one") };
            let read = parse(&text(&key.public, &seed)).map(|read| read.public);
            assert_eq!(read, Some(key.public), "{first}");
        }
    }
}
