//! Vectors of FORMAT.md §2 to §6: fixed inputs, exact bytes, in `tests/data/vectors.json`. They never change; a format
//! that needs other bytes gets a new number. `oracle.rs` has another implementation recompute them.
//!
//! `WEIGHTVAULT_WRITE_VECTORS=1` writes the file instead of comparing it.

mod escrow;
mod workload;

use attestation::{
    ActivationSecret, AkName, Binding, HpkePublicKey, JoinChallenge, JoinerKeys, LeaseKey, Load, LoadChallenge,
    Sha256Digest, SnpProduct, TpmPart, UnitSet, UnixTime, Workload, chip_platform, csp_platform, lv,
};
use ledger::keepers::{Joiner, KeeperMachine};
use ledger::manifest::{ModelId, Plan, PlanUnit};
use ledger::reseal::Reseal;
use serde_json::{Value, json};

use crate::aead::Bulk;
use crate::container::{Sealer, finish_message};
use crate::derive::{KeeperContext, ModelContext, RootSource, head_key};
use crate::hand_over::HandOverInfo;
use crate::record;
use crate::secret::{Dek, SnpDerivedSecret, TpmSecret};
use crate::unit_keys::UnitKeys;
use crate::vault_keys::VaultKeys;
use crate::wrap::GrantInfo;

pub(crate) const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/vectors.json");

const VAULT: Sha256Digest = Sha256Digest::from_bytes([0x10; 32]);
const PUBLISHER: Sha256Digest = Sha256Digest::from_bytes([0x20; 32]);

#[test]
fn format_vectors() {
    let made = json!({"lv": lv_vector(), "keeper": keeper(), "model": model(), "grant": grant(), "snp": snp(), "reseal": reseal(), "join": join(), "escrow": escrow::vectors(), "workload": workload::vectors()});
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

/// A boot state of the keeper, on a TPM alone and beside a chip.
fn reseal() -> Value {
    let ak_name = AkName::try_from([[0x00, 0x0b].as_slice(), &[0x80; 32]].concat().as_slice()).unwrap();
    let tpm =
        Reseal { instance: [0x40; 32], ak_name, pcrs: [(4, [0x04; 32]), (11, [0x0b; 32])].into(), measurement: None };
    let snp = Reseal { measurement: Some([0x66; 48]), ..tpm.clone() };
    json!({
        "instance": hex::encode(tpm.instance),
        "ak_name": hex::encode(tpm.ak_name.as_bytes()),
        "pcrs": {"4": hex::encode([0x04; 32]), "11": hex::encode([0x0b; 32])},
        "measurement": hex::encode([0x66; 48]),
        "object_tpm": hex::encode(tpm.object(0).as_bytes()),
        "object_tpm_revision_1": hex::encode(tpm.object(1).as_bytes()),
        "object_snp_tpm": hex::encode(snp.object(0).as_bytes()),
        "boot_state": hex::encode(tpm.boot_state().as_bytes()),
    })
}

/// A keeper that asks to take over, and what it states.
fn join() -> Value {
    let name = [[0x00, 0x0b].as_slice(), &[0x80; 32]].concat();
    let ak_name = AkName::try_from(name.as_slice()).unwrap();
    let hpke_key = HpkePublicKey::try_from([0xa0; 1665].as_slice()).unwrap();
    let counter_name: [u8; 34] = [[0x00, 0x0b].as_slice(), &[0x81; 32]].concat().try_into().unwrap();
    let joiner = Joiner {
        machine: KeeperMachine { instance: [0x41; 32], platform: Sha256Digest::from_bytes([0x42; 32]), ak_name },
        hpke_key: Sha256Digest::of(hpke_key.as_bytes()),
        counter_name,
        counter: 17,
        pcrs: [(4, [0x04; 32]), (11, [0x0b; 32])].into(),
        measurement: None,
    };
    let challenge = JoinChallenge {
        session: [1; 16],
        nonce: [2; 32],
        vault: VAULT,
        policy: Sha256Digest::from_bytes([4; 32]),
        tpm: TpmPart::Activated { ak_name, secret: ActivationSecret::from_bytes([0x43; 32]) },
    };
    let keys = JoinerKeys { instance: [0x41; 32], hpke_key, counter_name, counter: 17 };
    let info = HandOverInfo {
        vault: VAULT,
        session: [1; 16],
        nonce: [2; 32],
        evidence: Sha256Digest::from_bytes([3; 32]),
        policy: Sha256Digest::from_bytes([4; 32]),
        instance: [0x41; 32],
        size: 16,
        root: Sha256Digest::from_bytes([5; 32]),
    };
    json!({
        "instance": hex::encode([0x41; 32]),
        "platform": hex::encode([0x42; 32]),
        "ak_name": hex::encode(&name),
        "counter_name": hex::encode(counter_name),
        "counter": 17,
        "revision": 3,
        "object": hex::encode(joiner.object(VAULT, 3).as_bytes()),
        "object_snp_tpm": hex::encode(Joiner { measurement: Some([0x66; 48]), ..joiner }.object(VAULT, 3).as_bytes()),
        "binding": hex::encode(challenge.bind(keys).digest()),
        "hand_over_info": hex::encode(info.bytes()),
    })
}

/// Ids of chips and clouds, the root of a keeper on one, and a load without a TPM and with a reported one.
fn snp() -> Value {
    let secret = TpmSecret::known([0x30; 64]);
    let derived = SnpDerivedSecret::known([0x31; 32]);
    let salt = [0x32; 32];
    let root = RootSource::SnpAndTpm(&derived, &salt, &secret).root().unwrap();
    let ak_name = AkName::try_from([[0x00, 0x0b].as_slice(), &[0x80; 32]].concat().as_slice()).unwrap();
    json!({
        "chip_id": hex::encode([0x90; 64]),
        "chip_platform_milan": hex::encode(chip_platform(SnpProduct::Milan, &[0x90; 64]).as_bytes()),
        "csp_id": "CN=cc-us-east-2.amazonaws.com",
        "csp_platform": hex::encode(csp_platform("CN=cc-us-east-2.amazonaws.com").as_bytes()),
        "tpm_secret": hex::encode([0x30; 64]),
        "derived_key": hex::encode([0x31; 32]),
        "salt": hex::encode(salt),
        "seal_to": "snp,tpm",
        "root": root.with_bytes(|bytes| hex::encode(bytes)),
        "load_preimage": hex::encode(load(TpmPart::Absent, None).preimage()),
        "load_binding": hex::encode(load(TpmPart::Absent, None).digest()),
        "ak_name": hex::encode(ak_name.as_bytes()),
        "load_binding_reported_ak": hex::encode(load(TpmPart::Reported { ak_name }, None).digest()),
    })
}

fn load(tpm: TpmPart, workload: Option<Workload>) -> Binding<Load> {
    let challenge = LoadChallenge {
        rule: "guest".to_owned(),
        model: "minilm".to_owned(),
        version: "1.0".to_owned(),
        session: [1; 16],
        nonce: [2; 32],
        vault: VAULT,
        policy: Sha256Digest::from_bytes([4; 32]),
        manifest: Sha256Digest::from_bytes([5; 32]),
        units: UnitSet::try_from(vec![0, 1]).unwrap(),
        tpm,
    };
    let hpke = HpkePublicKey::try_from([0x71; 1665].as_slice()).unwrap();
    challenge.bind_workload(hpke, LeaseKey::try_from([0x70; 32].as_slice()).unwrap(), workload)
}
