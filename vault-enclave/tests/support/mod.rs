//! A small model, a vault and a publisher, all through the public interface.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test says so by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use attestation::{Sha256Digest, UnitSet};
use base64::Engine;
use ledger::manifest::{Manifest, Selection};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair};
use tempfile::TempDir;
use vault_enclave::derive::{KeeperContext, ModelContext, RootSource};
use vault_enclave::open::{
    Destination, Directory, GrantedModel, LocalUnits, OpenModelError, OpenedModel, ReadBy, UnitSource,
};
use vault_enclave::place::{self, Facts};
use vault_enclave::publisher::PublisherSigner;
use vault_enclave::seal::{DirectoryTarget, SealError, SealRequest, SourceModel};
use vault_enclave::secret::TpmSecret;
use vault_enclave::unit_keys::UnitKeys;
use vault_enclave::vault_keys::VaultKeys;

/// Bytes of one layer: two full chunks and a bit.
pub const LAYER_BYTES: usize = 33_000;

/// A vault with its keys, and a publisher.
pub struct World {
    pub rng: SystemRandom,
    pub vault: Sha256Digest,
    pub keys: VaultKeys,
    pub publisher: PublisherSigner,
    pub directory: TempDir,
}

impl World {
    pub fn new() -> Self {
        let rng = SystemRandom::new();
        let root = RootSource::Tpm(&TpmSecret::generate(&rng).unwrap()).root().unwrap();
        let context = KeeperContext { instance: [1; 32], core: Sha256Digest::of(b"core") };
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &rng).unwrap();
        let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", wrap_lines(&text));
        Self {
            publisher: PublisherSigner::from_pem(&pem, &rng).unwrap(),
            keys: VaultKeys::derive(&root, &context).unwrap(),
            vault: Sha256Digest::of(b"vault"),
            directory: tempfile::tempdir().unwrap(),
            rng,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn request(&self) -> SealRequest<'_> {
        SealRequest {
            vault: self.vault,
            wrap_key: self.keys.wrap_key(),
            model: "tiny".try_into().unwrap(),
            version: "1".try_into().unwrap(),
            publisher: &self.publisher,
            threads: 2,
        }
    }

    /// Seals `source` into the directory `name`.
    pub fn seal(&self, source: &Path, name: &str) -> Result<Manifest, SealError> {
        let source = SourceModel::scan(source, &ledger::safetensors::layer_group)?;
        let target = DirectoryTarget::begin(&self.path(name)).unwrap();
        self.request().seal(&source, target, &self.rng, &|_| {})
    }

    /// What a keeper does when a model is published, and then for a grant of `units`.
    pub fn grant(&self, manifest: &Manifest, sealed: &Path, units: UnitSet) -> UnitKeys {
        let wrapped = fs::read(sealed.join("dek.hpke")).unwrap();
        let context = ModelContext::from(manifest);
        let dek = self.keys.unwrap_dek(context, &wrapped).unwrap();
        UnitKeys::derive(&dek, context, units).unwrap()
    }

    pub fn grant_all(&self, manifest: &Manifest, sealed: &Path) -> UnitKeys {
        self.grant(manifest, sealed, manifest.select(&Selection::All).unwrap())
    }

    /// Opens from the directory `sealed` into a fresh directory `into`.
    pub fn open(
        &self,
        manifest: &Manifest,
        sealed: &Path,
        keys: &UnitKeys,
        verify_units: bool,
        into: &str,
    ) -> Result<OpenedModel, OpenModelError> {
        self.open_from(&LocalUnits::new(sealed, manifest, ReadBy::Probe).unwrap(), manifest, keys, verify_units, into)
    }

    pub fn open_from<S: UnitSource>(
        &self,
        source: &S,
        manifest: &Manifest,
        keys: &UnitKeys,
        verify_units: bool,
        into: &str,
    ) -> Result<OpenedModel, OpenModelError> {
        let model = GrantedModel { manifest, keys, verify_units };
        let place = place::judge(&Facts::gather(self.directory.path()).unwrap(), 1, true).unwrap();
        let destination = Destination::new(Directory::make(&self.path(into))?, place)?;
        model.open(source, destination, 2, &|_| {})
    }
}

/// A model of two safetensors files, two small files, an empty one, and a link as model hubs lay them.
pub fn write_model(directory: &Path) {
    fs::create_dir_all(directory.join("onnx/deep")).unwrap();
    fs::write(directory.join("model-1.safetensors"), safetensors(&["embed", "layers.0.a", "layers.0.b", "layers.1.a"]))
        .unwrap();
    fs::write(directory.join("model-2.safetensors"), safetensors(&["layers.2.a"])).unwrap();
    fs::write(directory.join("config.json"), b"{\"layers\": 3}").unwrap();
    fs::write(directory.join("empty"), b"").unwrap();
    fs::write(directory.join("onnx/deep/model.bin"), pattern(100_000, 9)).unwrap();
    let blob = directory.with_extension("blob");
    fs::write(&blob, b"tokens").unwrap();
    std::os::unix::fs::symlink(blob, directory.join("onnx/tokenizer.json")).unwrap();
}

/// A safetensors file of byte tensors with these names.
pub fn safetensors(names: &[&str]) -> Vec<u8> {
    let tensor = |(index, name): (usize, &&str)| {
        let (start, end) = (index * LAYER_BYTES, (index + 1) * LAYER_BYTES);
        format!("\"{name}\":{{\"dtype\":\"U8\",\"shape\":[{LAYER_BYTES}],\"data_offsets\":[{start},{end}]}}")
    };
    let header = format!("{{{}}}", names.iter().enumerate().map(tensor).collect::<Vec<_>>().join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    for index in 0..names.len() {
        file.extend(pattern(LAYER_BYTES, index as u8 + 1));
    }
    file
}

pub fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|i| (i as u8).wrapping_mul(seed).wrapping_add(seed)).collect()
}

/// Every file below a directory: path and content.
pub fn files_of(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if fs::metadata(&path).unwrap().is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
                files.push((name, fs::read(path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

pub fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

fn wrap_lines(text: &str) -> String {
    text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect::<Vec<_>>().join("\n")
}
