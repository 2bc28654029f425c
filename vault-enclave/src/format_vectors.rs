//! Vectors of FORMAT.md §5 and §6: fixed inputs, exact bytes, in `tests/data/vectors.json`. They never change; a format
//! that needs other bytes gets a new number. `oracle.rs` has another implementation recompute them.
//!
//! `WEIGHTVAULT_WRITE_VECTORS=1` writes the file instead of comparing it.

use attestation::{LeaseKey, Sha256Digest, UnitSet, UnixTime, lv};
use ledger::manifest::{ModelId, Plan, PlanUnit};
use serde_json::{Value, json};

use crate::aead::Bulk;
use crate::container::{Sealer, finish_message};
use crate::derive::{KeeperContext, ModelContext, RootSource, head_key};
use crate::record;
use crate::secret::{Dek, TpmSecret};
use crate::unit_keys::UnitKeys;
use crate::vault_keys::VaultKeys;
use crate::wrap::GrantInfo;

pub(crate) const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/vectors.json");

const VAULT: Sha256Digest = Sha256Digest::from_bytes([0x10; 32]);
const PUBLISHER: Sha256Digest = Sha256Digest::from_bytes([0x20; 32]);

#[test]
fn format_vectors() {
    let made = json!({"lv": lv_vector(), "keeper": keeper(), "model": model(), "grant": grant()});
    if std::env::var_os("WEIGHTVAULT_WRITE_VECTORS").is_some() {
        std::fs::write(FILE, format!("{made:#}\n")).unwrap();
    }
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap();
    assert_eq!(made, kept, "the bytes of format 1 changed");
}

fn lv_vector() -> Value {
    json!({"fields": ["6162", "", "63"], "bytes": hex::encode(lv(&[b"ab", b"", b"c"]))})
}

fn keeper() -> Value {
    let secret = TpmSecret::known([0x30; 64]);
    let root = RootSource::Tpm(&secret).root().unwrap();
    let context = KeeperContext { instance: [0x40; 32], core: Sha256Digest::of(b"core") };
    let keys = VaultKeys::derive(&root, &context).unwrap();
    json!({
        "tpm_secret": hex::encode([0x30; 64]),
        "seal_to": "tpm",
        "root": root.with_bytes(|bytes| hex::encode(bytes)),
        "head_key": head_key(&root).unwrap().with_bytes(|bytes| hex::encode(bytes)),
        "instance": hex::encode(context.instance),
        "core_digest": hex::encode(context.core.as_bytes()),
        "kek": keys.kek().with_bytes(|bytes| hex::encode(bytes)),
        "log_key": hex::encode(keys.log_key().as_bytes()),
        "identity_key": hex::encode(keys.identity_key().as_bytes()),
        "wrap_key_sha256": hex::encode(Sha256Digest::of(keys.wrap_key().as_bytes()).as_bytes()),
        "head_record_context": hex::encode(record::context("head", &[], 0, Sha256Digest::from_bytes([0; 32]))),
    })
}

fn model() -> Value {
    let unit = |file: &str, offset, length, group: &str| PlanUnit {
        file: file.try_into().unwrap(),
        offset,
        length,
        group: group.try_into().unwrap(),
    };
    let units = vec![
        unit("a/model.safetensors", 0, 128, "header"),
        unit("a/model.safetensors", 128, 16_385, "layer.0"),
        unit("config.json", 0, 0, "files"),
    ];
    let plan = Plan::new(units).unwrap();
    let id = ModelId {
        vault: VAULT,
        model: "minilm".try_into().unwrap(),
        version: "1.0".try_into().unwrap(),
        publisher: PUBLISHER,
    };
    let context = ModelContext { id: &id, plan: plan.digest() };
    let dek = Dek::known([0x50; 64]);
    let keys = UnitKeys::derive(&dek, context, UnitSet::try_from(vec![1]).unwrap()).unwrap();
    let plain: Vec<u8> = (0..16_385_u32).map(|i| (i % 251) as u8).collect();
    let unit_context = context.unit_context(1, plain.len() as u64);
    let sealed = keys.key(1).unwrap().with_bytes(|key| {
        let (sealer, header) = Sealer::with_salt(key, &unit_context, plain.len() as u64, [0x60; 24]).unwrap();
        finish_message::<Bulk>(&sealer, &header, &plain).unwrap()
    });
    json!({
        "vault": hex::encode(VAULT.as_bytes()),
        "publisher": hex::encode(PUBLISHER.as_bytes()),
        "model": "minilm",
        "version": "1.0",
        "units": plan.units().iter().map(|unit| json!({
            "file": unit.file.as_str(), "offset": unit.offset, "length": unit.length, "group": unit.group.as_str(),
        })).collect::<Vec<_>>(),
        "plan_digest": hex::encode(plan.digest().as_bytes()),
        "dek": hex::encode([0x50; 64]),
        "dek_info": hex::encode(context.dek_info()),
        "dek_record_context": hex::encode(record::context("dek", plan.digest().as_bytes(), 1, VAULT)),
        "unit_key_1": keys.with_bytes(|bytes| hex::encode(bytes)),
        "unit_context_1": hex::encode(unit_context),
        "salt": hex::encode([0x60; 24]),
        "sealed_unit_1": hex::encode(sealed),
    })
}

fn grant() -> Value {
    let units = UnitSet::try_from(vec![0, 1]).unwrap();
    let lease_key = LeaseKey::try_from([0x70; 32].as_slice()).unwrap();
    let info = GrantInfo {
        vault: VAULT,
        session: [1; 16],
        nonce: [2; 32],
        evidence: Sha256Digest::from_bytes([3; 32]),
        policy: Sha256Digest::from_bytes([4; 32]),
        manifest: Sha256Digest::from_bytes([5; 32]),
        units: &units,
        lease_key: &lease_key,
        lease: Sha256Digest::from_bytes([6; 32]),
        renew_by: UnixTime(1_800_000_000),
        leaf: [7; 32],
    };
    json!({"info": hex::encode(info.bytes())})
}
