//! The preimages of FORMAT.md §3, against values computed from its text by another program.

use attestation::{
    ActivationSecret, AkName, GenesisChallenge, IdentityKey, KeeperChallenge, LogKey, RenewChallenge, Sha256Digest,
    TpmPart, Transcript, lease_id, lv,
};

use crate::scene::{bind, challenge, hpke_key, lease_key};

fn name() -> AkName {
    AkName::try_from([&[0x00, 0x0b], [0x77; 32].as_slice()].concat().as_slice()).unwrap()
}

fn identity_key() -> IdentityKey {
    IdentityKey::try_from([&[4], [6; 96].as_slice()].concat().as_slice()).unwrap()
}

fn log_key() -> LogKey {
    LogKey::try_from([7; 32].as_slice()).unwrap()
}

fn part() -> TpmPart {
    TpmPart::Activated { ak_name: name(), secret: secret() }
}

fn secret() -> ActivationSecret {
    ActivationSecret::from_bytes([5; 32])
}

fn renew() -> RenewChallenge {
    let load = challenge(&name());
    RenewChallenge {
        rule: load.rule,
        session: load.session,
        nonce: load.nonce,
        vault: load.vault,
        policy: load.policy,
        lease: Sha256Digest::of(b"lease"),
        lease_key: lease_key(4),
        tpm: part(),
    }
}

fn genesis() -> GenesisChallenge {
    GenesisChallenge {
        nonce: [2; 32],
        instance: [8; 32],
        core: Sha256Digest::of(b"core"),
        wrap_key: hpke_key(3),
        identity_key: identity_key(),
        log_key: log_key(),
        tpm: part(),
    }
}

fn keeper() -> KeeperChallenge {
    KeeperChallenge {
        nonce: [2; 32],
        vault: Sha256Digest::of(b"vault"),
        wrap_key: hpke_key(3),
        identity_key: identity_key(),
        log_key: log_key(),
        policy: Sha256Digest::of(b"policy"),
        checkpoint: "weightvault.v1/00\n3\nAAAA\n".to_owned(),
        tpm: part(),
    }
}

#[test]
fn the_binding_of_a_load_is_the_frozen_one() {
    let binding = bind(&name());
    assert_eq!(binding.preimage().len(), 2000);
    assert_eq!(
        hex::encode(binding.digest()),
        "5692231513946243bf82b1fd5bfd7389a44aa50cd12b884c34120fe39270550d\
         40956353892f8865813592093e2385de453adbd8ab4c0e256c11f00c6bfe505c"
    );
    assert_eq!(binding.tpm_extra_data(), binding.digest()[..32]);
}

#[test]
fn the_binding_of_a_renewal_is_the_frozen_one() {
    let binding = renew().bind();
    assert_eq!(binding.preimage().len(), 316);
    assert_eq!(
        hex::encode(binding.digest()),
        "26d184154a418c728488a22d157fdbaf5c4640af49a7c1019bab7636514a1441\
         cc1fe7388ad98a61bea4237a3a072997fa3a5aaecbb181fe5e974e18b9345646"
    );
}

#[test]
fn the_binding_of_genesis_evidence_is_the_frozen_one() {
    let binding = genesis().bind();
    assert_eq!(binding.preimage().len(), 1973);
    assert_eq!(
        hex::encode(binding.digest()),
        "d24b364b38fb80a0465a48f523676bca275af681b88b64bc0ab9a72bb59c4667\
         26ab841f085006d2f55694d44dccbcd30161b67f2d2d70149cd163e6222a710b"
    );
}

#[test]
fn the_binding_of_keeper_evidence_is_the_frozen_one() {
    let binding = keeper().bind();
    assert_eq!(binding.preimage().len(), 2001);
    assert_eq!(
        hex::encode(binding.digest()),
        "3429b7640f2cbd7a5e84ef91068f703e57314c440dba89866d00d301d9a0863d\
         f2b14efcacafda6f04fcf9352180c6fb25c704bab48d7e7b0a27f1f1164a5d88"
    );
}

#[test]
fn a_lease_id_is_the_frozen_one() {
    let binding = bind(&name());
    let load = binding.statement();
    let expected = "sha256:0285fff408f7ff35e2e6f6afd5ae762a5bbe4706df0718b4dc98546eb04d493a";
    assert_eq!(load.lease_id().to_string(), expected);
    assert_eq!(lease_id(&load.vault(), load.session(), load.lease_key()), load.lease_id());
}

#[test]
fn a_preimage_is_its_tag_and_its_fields() {
    let [vault, policy, lease] = [b"vault".as_slice(), b"policy", b"lease"].map(Sha256Digest::of);
    let name = name();
    let fields: [&[u8]; 11] = [
        b"renew",
        b"serve",
        &[1; 16],
        &[2; 32],
        vault.as_bytes(),
        policy.as_bytes(),
        lease.as_bytes(),
        &[4; 32],
        name.as_bytes(),
        &[5; 32],
        b"",
    ];
    let expected = [b"weightvault/v1 bind\0".as_slice(), &lv(&fields)].concat();
    assert_eq!(renew().bind().preimage(), expected);
}

#[test]
fn a_statement_gives_back_what_was_bound() {
    let binding = bind(&name());
    let load = binding.statement();
    assert_eq!((load.rule(), load.model(), load.version()), ("serve", "minilm", "1.0"));
    assert_eq!((load.session(), load.nonce()), (&[1; 16], &[2; 32]));
    assert_eq!(load.vault(), Sha256Digest::of(b"vault"));
    assert_eq!(load.policy(), Sha256Digest::of(b"policy"));
    assert_eq!(load.manifest(), Sha256Digest::of(b"manifest"));
    assert_eq!(load.units().as_slice(), [0, 1, 2]);
    assert_eq!((load.hpke_key(), load.lease_key()), (&hpke_key(3), &lease_key(4)));
    assert_eq!(load.tpm().ak_name(), Some(&name()));

    let binding = renew().bind();
    let renew = binding.statement();
    assert_eq!((renew.rule(), renew.session(), renew.nonce()), ("serve", &[1; 16], &[2; 32]));
    assert_eq!((renew.vault(), renew.policy()), (Sha256Digest::of(b"vault"), Sha256Digest::of(b"policy")));
    assert_eq!((renew.lease(), renew.lease_key()), (Sha256Digest::of(b"lease"), &lease_key(4)));

    let binding = genesis().bind();
    let genesis = binding.statement();
    assert_eq!((genesis.nonce(), genesis.instance()), (&[2; 32], &[8; 32]));
    assert_eq!((genesis.core(), genesis.wrap_key()), (Sha256Digest::of(b"core"), &hpke_key(3)));
    assert_eq!((genesis.identity_key(), genesis.log_key()), (&identity_key(), &log_key()));

    let binding = keeper().bind();
    let keeper = binding.statement();
    assert_eq!((keeper.nonce(), keeper.vault()), (&[2; 32], Sha256Digest::of(b"vault")));
    assert_eq!((keeper.wrap_key(), keeper.identity_key()), (&hpke_key(3), &identity_key()));
    assert_eq!((keeper.log_key(), keeper.policy()), (&log_key(), Sha256Digest::of(b"policy")));
    assert_eq!(keeper.checkpoint(), "weightvault.v1/00\n3\nAAAA\n");
}
