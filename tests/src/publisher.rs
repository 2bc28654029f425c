//! A model sealed by the words of FORMAT.md §5 and §6, under keys that the test knows.

use std::fs;
use std::path::Path;

use attestation::{Sha256Digest, UnitSet, lv};
use ledger::manifest::{
    Blake3Digest, DEK_NAME, MANIFEST_NAME, Manifest, ModelId, PlanUnit, SIGNATURE_NAME, SealedDigests, unit_path,
};
use ledger::vault_file::VaultFile;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA512, KeyType, Prk};
use ring::rand::{SecureRandom, SystemRandom};
use vault_enclave::derive::ModelContext;
use vault_enclave::publisher::PublisherSigner;
use vault_enclave::seal::SourceModel;
use vault_enclave::secret::Dek;
use vault_enclave::unit_keys::UnitKeys;

use crate::memory::{Secrets, key_memory};

const CHUNK: usize = 16 << 10;
pub(crate) const COBBLESTONE: &[u8] = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";

/// Seals `source` as `demo@1` into `sealed`, as `vault-enclave publish` takes it; its DEK is noted as `dek`, its unit keys as
/// `unit 0`, `unit 1`, …. No other key may be alive in this process.
pub fn seal_known(source: &Path, sealed: &Path, vault: &VaultFile, publisher: &PublisherSigner) -> Secrets {
    let rng = SystemRandom::new();
    let scanned = SourceModel::scan(source, &ledger::safetensors::layer_group).expect("a model");
    let plan = scanned.plan().clone();
    let name = |text: &str| text.to_owned().try_into().expect("a name");
    let version = "1".to_owned().try_into().expect("a version");
    let id = ModelId { vault: vault.id(), model: name("demo"), version, publisher: publisher.public_key().digest() };
    let context = ModelContext { id: &id, plan: plan.digest() };

    let dek = Dek::generate(&rng).expect("locked memory");
    let mut secrets = Secrets::default();
    let Ok([known]) = <[Vec<u8>; 1]>::try_from(key_memory()) else { panic!("not the DEK alone is in key memory") };
    assert_eq!(known.len(), Dek::BYTES);
    secrets.note("dek", &known);
    let wrapped = vault_enclave::wrap::wrap_dek(vault.wrap_key(), context, &dek, &rng).expect("a wrap key");

    fs::create_dir_all(sealed.join("units")).expect("the directory is ours");
    let names = lv(&[id.vault.as_bytes(), b"demo", b"1"]);
    let mut digests = Vec::new();
    for (index, unit) in (0_u32..).zip(plan.units()) {
        let tail = [&index.to_be_bytes(), plan.digest().as_bytes().as_slice()].concat();
        let key = expand::<32>(&known, &[b"weightvault/v1 unit\0", &names, &tail]);
        secrets.note(&format!("unit {index}"), &key);
        let length = unit.length.to_be_bytes();
        let context = [b"weightvault/v1 unit ctx\0".as_slice(), &names, &tail, &length].concat();
        let message = cobblestone(&key, &context, &plaintext(source, unit), &rng);
        fs::write(sealed.join(unit_path(index)), &message).expect("the directory is ours");
        let blake3 = Blake3Digest::from_bytes(*blake3::hash(&message).as_bytes());
        digests.push(SealedDigests { sha256: Sha256Digest::of(&message), blake3 });
    }
    check_derivation(&dek, context, digests.len(), &secrets);
    let manifest = Manifest::build(id, plan, digests).expect("the digests of every unit");
    let files = manifest.signed_files(Sha256Digest::of(&wrapped)).into_iter().collect();
    let sign = |message: &[u8]| publisher.sign(message, &rng);
    let signature = ledger::model_signature::sign("demo", &files, publisher.public_key(), sign).expect("a signature");
    for (name, bytes) in [(MANIFEST_NAME, manifest.bytes()), (DEK_NAME, &wrapped), (SIGNATURE_NAME, &signature)] {
        fs::write(sealed.join(name), bytes).expect("the directory is ours");
    }
    secrets
}

/// The keys that `vault_enclave` derives are those that FORMAT.md says, and they are in key memory: what the search looks for
/// is what a keeper and an agent use.
fn check_derivation(dek: &Dek, context: ModelContext<'_>, units: usize, secrets: &Secrets) {
    let all = (0..u32::try_from(units).expect("few units")).collect::<Vec<_>>();
    let keys = UnitKeys::derive(dek, context, UnitSet::try_from(all).expect("units in order")).expect("locked memory");
    let own = secrets.found_in(std::process::id()).expect("our own memory");
    assert_eq!(own, secrets.names());
    assert_eq!(key_memory().iter().map(Vec::len).max(), Some(units * 32));
    drop(keys);
}

fn plaintext(source: &Path, unit: &PlanUnit) -> Vec<u8> {
    let file = fs::read(source.join(unit.file.as_str())).expect("the source");
    let from = usize::try_from(unit.offset).expect("a small model");
    file[from..from + usize::try_from(unit.length).expect("a small model")].to_vec()
}

/// salt ‖ commitment ‖ chunks with their tags; the last chunk is short, maybe empty.
fn cobblestone(key: &[u8], context: &[u8], plain: &[u8], rng: &SystemRandom) -> Vec<u8> {
    let mut salt = [0; 24];
    rng.fill(&mut salt).expect("randomness");
    let derived = expand::<76>(key, &[COBBLESTONE, &salt, context]);
    let (key, rest) = derived.split_at(32);
    let (base, commitment) = rest.split_at(12);
    let aead = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes"));
    let mut message = [salt.as_slice(), commitment].concat();
    for number in 0..=plain.len() / CHUNK {
        let mut chunk = plain[number * CHUNK..plain.len().min((number + 1) * CHUNK)].to_vec();
        let mut nonce: [u8; 12] = base.try_into().expect("12 bytes");
        nonce[4..].iter_mut().zip((number as u64).to_be_bytes()).for_each(|(byte, number)| *byte ^= number);
        let nonce = Nonce::assume_unique_for_key(nonce);
        aead.seal_in_place_append_tag(nonce, Aad::empty(), &mut chunk).expect("a chunk");
        message.extend(chunk);
    }
    message
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

pub(crate) fn expand<const N: usize>(key: &[u8], info: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    let prk = Prk::new_less_safe(HKDF_SHA512, key);
    prk.expand(info, Length(N)).and_then(|okm| okm.fill(&mut out)).expect("a short output");
    out
}
