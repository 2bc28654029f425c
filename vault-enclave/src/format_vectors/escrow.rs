//! Vectors of an escrow and of a recovery.

use attestation::{ActivationSecret, AkName, HpkePublicKey, JoinerKeys, RecoverChallenge, Sha256Digest, TpmPart};
use ledger::escrow::{Custodian, EscrowPlan, LogPoint, Recovery, RecoveryMode, Rollback, ShareId, recovery_plan};
use ledger::keepers::{Joiner, KeeperMachine};
use serde_json::{Value, json};
use vsss_rs::Gf256;

use super::VAULT;
use crate::record;

pub(super) fn vectors() -> Value {
    let custodian = |id: &str, key: u8| Custodian { id: id.parse().unwrap(), key: Sha256Digest::from_bytes([key; 32]) };
    let custodians = vec![custodian("notary", 0x51), custodian("safe", 0x52), custodian("sister", 0x53)];
    let plan = EscrowPlan { number: 4, epoch: 1, threshold: 2, custodians };
    let record = Sha256Digest::from_bytes([0x5e; 32]);
    let id = ShareId::all(&plan, VAULT, record).remove(1);
    let hpke_key = HpkePublicKey::try_from([0xa0; 1665].as_slice()).unwrap();
    let name: [u8; 34] = [[0x00, 0x0b].as_slice(), &[0x80; 32]].concat().try_into().unwrap();
    let ak_name = AkName::try_from(name.as_slice()).unwrap();
    let joiner = Joiner {
        machine: KeeperMachine { instance: [0x41; 32], platform: Sha256Digest::from_bytes([0x42; 32]), ak_name },
        hpke_key: Sha256Digest::of(hpke_key.as_bytes()),
        counter_name: name,
        counter: 17,
        pcrs: [(4, [0x04; 32]), (11, [0x0b; 32])].into(),
        measurement: None,
    };
    let from = LogPoint { size: 99, root: Sha256Digest::from_bytes([0x54; 32]) };
    let recovery = Recovery { joiner, from, set: id.set, rollback: Rollback::Accepted };
    let object = recovery.object(VAULT, RecoveryMode::Recover);
    let digest = recovery_plan(RecoveryMode::Recover, from, id.set, Rollback::Accepted);
    let challenge = RecoverChallenge {
        nonce: [2; 32],
        vault: VAULT,
        policy: Sha256Digest::from_bytes([4; 32]),
        plan: digest,
        tpm: TpmPart::Activated { ak_name, secret: ActivationSecret::from_bytes([0x43; 32]) },
    };
    let keys = JoinerKeys { instance: [0x41; 32], hpke_key, counter_name: name, counter: 17 };
    // Points 1 and 3 of polynomials whose other coefficient is 57 83 01 (FIPS 197, 4.2, multiplies the first two).
    let shares = vec![vec![1, 0x57, 0x83, 0xff], vec![3, 0x57, 0x83, 0x01]];
    json!({
        "number": 4, "epoch": 1, "threshold": 2, "index": 2, "custodian": "safe",
        "object": hex::encode(plan.object(VAULT).as_bytes()),
        "set": hex::encode(id.set.as_bytes()),
        "record_context": hex::encode(record::context("escrow", plan.object(VAULT).as_bytes(), 1, VAULT)),
        "share_info": hex::encode(id.info()),
        "share_check": hex::encode(id.check(&[0x55; 32]).as_bytes()),
        "size": 99,
        "plan": hex::encode(digest.as_bytes()),
        "recover_object": hex::encode(object.as_bytes()),
        "drill_object": hex::encode(recovery.object(VAULT, RecoveryMode::Drill).as_bytes()),
        "contribution_info": hex::encode(id.contribution_info(object)),
        "binding": hex::encode(challenge.bind(keys).digest()),
        "shares": shares.iter().map(hex::encode).collect::<Vec<_>>(),
        "combined": hex::encode(Gf256::combine_bytes(&shares).unwrap()),
    })
}
