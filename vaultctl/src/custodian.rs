//! A custodian's own key, and the share of a vault's keys that it opens.
//!
//! HPKE in base mode with MLKEM1024-P384, HKDF-SHA384 and AES-256-GCM: the suite of everything that is wrapped here
//! (FORMAT.md §5). It is the one secret that this program reads: a share, which alone is worth nothing.
//!
//! Key file, mode 0600: JSON `{"v":1,"custodian":name,"seed":base64 of 32 bytes}` and a newline. Public file: the same with
//! `key`, base64 of 1665 bytes, in the place of `seed`.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use attestation::{HPKE_PUBLIC_KEY_BYTES, HpkePublicKey, Sha256Digest};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha384;
use hpke::kem::MlKem1024P384;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use ledger::escrow::{SHARE_BYTES, ShareFile, ShareId};
use ledger::names::Name;
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::failure::{Failure, Kind};

const VERSION: u64 = 1;
const FILE_BYTES_MAX: u64 = 8 << 10;
/// More than an encapsulation draws: 32 bytes for ML-KEM and 48 for each try at a P-384 scalar.
const RANDOM_BYTES: usize = 512;
const CIPHERTEXT_BYTES: usize = SHARE_BYTES + 16;

/// A custodian's private key.
pub struct CustodianKey {
    custodian: Name,
    seed: Zeroizing<[u8; 32]>,
}

/// What others know him by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustodianPublic {
    /// His name.
    pub custodian: Name,
    /// Shares are sealed to it.
    pub key: HpkePublicKey,
}

/// A share, for as long as it takes to give it away.
pub struct Share(Zeroizing<[u8; SHARE_BYTES]>);

/// A share sealed to a recovering keeper.
pub struct SealedShare {
    /// Encapsulated key.
    pub enc: Box<[u8; HPKE_PUBLIC_KEY_BYTES]>,
    /// Share and tag.
    pub ciphertext: [u8; CIPHERTEXT_BYTES],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretFields {
    v: u64,
    custodian: Name,
    seed: String,
}

impl Drop for SecretFields {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.seed);
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicFields {
    v: u64,
    custodian: Name,
    key: String,
}

impl CustodianKey {
    /// Makes a key and writes it to a new file that only its owner can read.
    ///
    /// # Errors
    /// The file, or the system's randomness.
    pub fn create(custodian: &Name, path: &Path, rng: &dyn SecureRandom) -> Result<Self, Failure> {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill(seed.as_mut()).map_err(|_| no_randomness())?;
        let key = Self { custodian: custodian.clone(), seed };
        let encoded = BASE64_STANDARD.encode(key.seed.as_ref());
        let fields = SecretFields { v: VERSION, custodian: custodian.clone(), seed: encoded };
        let mut text = Zeroizing::new(serde_json::to_vec(&fields).expect("every field is text or an integer"));
        text.push(b'\n');
        let file = |error| Failure::file("write", path, &error);
        let mut open = std::fs::File::options();
        let mut opened = open.write(true).create_new(true).mode(0o600).open(path).map_err(file)?;
        opened.write_all(&text).and_then(|()| opened.sync_all()).map_err(file)?;
        Ok(key)
    }

    /// Reads the file of a key. One that others can read is refused.
    ///
    /// # Errors
    /// `custodian-key-open`, `custodian-key-malformed`, or the file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let file = |error| Failure::file("read", path, &error);
        let opened = std::fs::File::open(path).map_err(file)?;
        if opened.metadata().map_err(file)?.permissions().mode() & 0o077 != 0 {
            return Err(Failure::new(Kind::Usage, "custodian-key-open", format!("{} is no secret", path.display()))
                .why("others than its owner may read or write it")
                .next("if nobody has, chmod 600 it; else have approvers make an escrow with a new key"));
        }
        let mut text = Zeroizing::new(Vec::new());
        opened.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(file)?;
        Self::parse(&text).ok_or_else(|| {
            Failure::new(Kind::Usage, "custodian-key-malformed", format!("{} is no custodian's key", path.display()))
                .next("give the file that `vaultctl custodian keygen` wrote")
        })
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let fields: SecretFields = serde_json::from_slice(text).ok()?;
        let decoded = Zeroizing::new(BASE64_STANDARD.decode(&fields.seed).ok()?);
        let mut seed = Zeroizing::new([0; 32]);
        if fields.v != VERSION || decoded.len() != seed.len() {
            return None;
        }
        seed.copy_from_slice(&decoded);
        Some(Self { custodian: fields.custodian.clone(), seed })
    }

    /// The public half.
    pub fn public(&self) -> CustodianPublic {
        let mut key = [0; HPKE_PUBLIC_KEY_BYTES];
        MlKem1024P384::sk_to_pk(&self.private()).write_exact(&mut key);
        let key = HpkePublicKey::try_from(key.as_slice()).expect("the KEM writes keys of this length");
        CustodianPublic { custodian: self.custodian.clone(), key }
    }

    /// Opens the share in a file.
    ///
    /// # Errors
    /// `share-refused`: it is somebody else's, or was changed.
    pub fn open(&self, file: &ShareFile) -> Result<Share, Failure> {
        let (enc, ciphertext) = file.sealed();
        self.open_for(&file.id().info(), enc, ciphertext).ok_or_else(|| {
            Failure::new(Kind::NotVerified, "share-refused", "the share does not open with this key")
                .why("it is another custodian's, or one of its fields was changed")
                .next("fetch it anew with `vaultctl escrow fetch`, and give the key that it was made for")
        })
    }

    fn open_for(&self, info: &[u8], enc: &[u8], ciphertext: &[u8]) -> Option<Share> {
        let enc = <MlKem1024P384 as Kem>::EncappedKey::from_bytes(enc).ok()?;
        let opened = hpke::single_shot_open::<AesGcm256, HkdfSha384, MlKem1024P384>(
            &OpModeR::Base,
            &self.private(),
            &enc,
            info,
            ciphertext,
            &[],
        );
        let opened = Zeroizing::new(opened.ok()?);
        let mut share = Zeroizing::new([0; SHARE_BYTES]);
        if opened.len() != share.len() {
            return None;
        }
        share.copy_from_slice(&opened);
        Some(Share(share))
    }

    fn private(&self) -> <MlKem1024P384 as Kem>::PrivateKey {
        Deserializable::from_bytes(self.seed.as_ref()).expect("any 32 bytes are a seed")
    }
}

impl CustodianPublic {
    /// Writes it to a new file.
    ///
    /// # Errors
    /// The file.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let key = BASE64_STANDARD.encode(self.key.as_bytes());
        let fields = PublicFields { v: VERSION, custodian: self.custodian.clone(), key };
        let mut text = serde_json::to_vec(&fields).expect("every field is text or an integer");
        text.push(b'\n');
        crate::session::write_new(path, &text)
    }

    /// Reads the public file of a custodian.
    ///
    /// # Errors
    /// `custodian-malformed`, or the file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = crate::session::read_text(path, usize::try_from(FILE_BYTES_MAX).unwrap_or(usize::MAX))?;
        Self::parse(text.as_bytes()).ok_or_else(|| {
            Failure::new(Kind::Usage, "custodian-malformed", format!("{} names no custodian", path.display()))
                .next("give the public file that `vaultctl custodian keygen` wrote")
        })
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let fields: PublicFields = serde_json::from_slice(text).ok()?;
        let key = HpkePublicKey::try_from(BASE64_STANDARD.decode(&fields.key).ok()?.as_slice()).ok()?;
        (fields.v == VERSION).then_some(Self { custodian: fields.custodian, key })
    }

    /// What people compare.
    pub fn digest(&self) -> Sha256Digest {
        Sha256Digest::of(self.key.as_bytes())
    }
}

impl Share {
    /// Whether it is the share that the log names.
    pub fn is(&self, id: &ShareId, check: Sha256Digest) -> bool {
        id.check(&self.0) == check
    }

    /// Seals it to a recovering keeper, for this recovery alone.
    ///
    /// # Errors
    /// The keeper's key is none; the system's randomness.
    pub fn seal(
        &self,
        id: &ShareId,
        recovery: Sha256Digest,
        to: &HpkePublicKey,
        rng: &dyn SecureRandom,
    ) -> Result<SealedShare, Failure> {
        let refused = || Failure::new(Kind::NotVerified, "hpke-public-key", "the keeper's key is no key");
        let to = <MlKem1024P384 as Kem>::PublicKey::from_bytes(to.as_bytes()).map_err(|_| refused())?;
        let mut drawn = Drawn { bytes: Zeroizing::new([0; RANDOM_BYTES]), used: 0 };
        rng.fill(drawn.bytes.as_mut()).map_err(|_| no_randomness())?;
        let (enc, ciphertext) = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha384, MlKem1024P384>(
            &OpModeS::Base,
            &to,
            &id.contribution_info(recovery),
            self.0.as_ref(),
            &[],
            &mut drawn,
        )
        .map_err(|_| refused())?;
        let mut sealed = SealedShare { enc: Box::new([0; HPKE_PUBLIC_KEY_BYTES]), ciphertext: [0; CIPHERTEXT_BYTES] };
        enc.write_exact(sealed.enc.as_mut());
        sealed.ciphertext.copy_from_slice(&ciphertext);
        Ok(sealed)
    }
}

fn no_randomness() -> Failure {
    Failure::new(Kind::Failed, "random", "the system gave no random bytes")
}

/// Randomness drawn beforehand, where drawing can fail: the crate's trait has no error.
struct Drawn {
    bytes: Zeroizing<[u8; RANDOM_BYTES]>,
    used: usize,
}

impl rand_core::TryRng for Drawn {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes).map(|()| u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes).map(|()| u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Infallible> {
        let rest = self.bytes.get(self.used..).and_then(|rest| rest.get(..dest.len()));
        dest.copy_from_slice(rest.expect("an encapsulation draws fewer bytes"));
        self.used += dest.len();
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Drawn {}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    fn id() -> ShareId {
        let digest = Sha256Digest::of(b"digest");
        let custodian = "notary".parse().unwrap();
        ShareId { vault: digest, epoch: 1, number: 1, threshold: 2, index: 1, custodian, set: digest }
    }

    fn key(seed: u8) -> CustodianKey {
        CustodianKey { custodian: "notary".parse().unwrap(), seed: Zeroizing::new([seed; 32]) }
    }

    #[test]
    fn a_share_is_opened_by_its_custodian_and_given_to_one_keeper() {
        let rng = SystemRandom::new();
        let (ours, keeper, recovery) = (key(1), key(2), Sha256Digest::of(b"recovery"));
        let share = Share(Zeroizing::new([7; 32]));
        assert!(share.is(&id(), id().check(&[7; 32])) && !share.is(&id(), id().check(&[8; 32])));
        let sealed = share.seal(&id(), recovery, &keeper.public().key, &rng).unwrap();
        let info = id().contribution_info(recovery);
        let opened = keeper.open_for(&info, sealed.enc.as_ref(), &sealed.ciphertext).unwrap();
        assert_eq!(opened.0.as_ref(), &[7; 32]);
        assert!(ours.open_for(&info, sealed.enc.as_ref(), &sealed.ciphertext).is_none());
        let other = id().contribution_info(Sha256Digest::of(b"another"));
        assert!(keeper.open_for(&other, sealed.enc.as_ref(), &sealed.ciphertext).is_none());
    }

    #[test]
    fn a_key_is_read_as_it_was_written_and_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (secret, public) = (dir.path().join("key"), dir.path().join("key.pub"));
        let made = CustodianKey::create(&"notary".parse().unwrap(), &secret, &SystemRandom::new()).unwrap();
        made.public().write(&public).unwrap();
        let read = CustodianKey::read(&secret).unwrap();
        assert_eq!(read.public(), made.public());
        assert_eq!(CustodianPublic::read(&public).unwrap(), made.public());
        assert_eq!(
            CustodianKey::read(&public).err().map(|failure| failure.code().to_owned()),
            Some("custodian-key-open".to_owned())
        );
        std::fs::set_permissions(&public, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(
            CustodianKey::read(&public).err().map(|failure| failure.code().to_owned()),
            Some("custodian-key-malformed".to_owned())
        );
        assert_eq!(
            CustodianPublic::read(&secret).err().map(|failure| failure.code().to_owned()),
            Some("custodian-malformed".to_owned())
        );
    }
}
