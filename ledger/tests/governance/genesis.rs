//! Core, genesis and vault file: what goes in comes out, and each part is checked.

use attestation::{AkName, HpkePublicKey, IdentityKey, LogKey, Sha256Digest, UnixTime, lv};
use ledger::genesis::{AntiRollback, Core, Genesis, GenesisError, KeeperIdentity, SealTo};
use ledger::vault_file::{VaultFile, VaultFileError};

use crate::support::policy_text::{first, snp, with_head, witnesses};

const BEGIN: UnixTime = UnixTime(1_790_000_000);
const DIGEST: &str = "sha256:4444444444444444444444444444444444444444444444444444444444444444";

pub fn core() -> Core {
    Core::new(AntiRollback::Counter, SealTo::Tpm, &first()).unwrap()
}

pub fn keeper() -> KeeperIdentity {
    KeeperIdentity {
        instance: [7; 32],
        wrap_key: HpkePublicKey::try_from([1; 1665].as_slice()).unwrap(),
        identity_key: IdentityKey::try_from([4; 97].as_slice()).unwrap(),
        log_key: LogKey::try_from([3; 32].as_slice()).unwrap(),
        platform: Sha256Digest::of(b"the keeper's EK"),
        ak_name: AkName::try_from([[0, 0x0b].as_slice(), &[9; 32]].concat().as_slice()).unwrap(),
    }
}

fn genesis() -> Genesis {
    Genesis::build(BEGIN, &core(), keeper()).unwrap()
}

fn vault_file() -> VaultFile {
    VaultFile::new(genesis(), vec!["http://localhost:7070".to_owned(), "https://[::1]:7071".to_owned()]).unwrap()
}

#[test]
fn a_core_is_its_tag_and_three_fields() {
    let bytes = core().encode();
    let fields = lv(&[b"counter", b"tpm", first().as_bytes()]);
    assert_eq!(bytes, [b"weightvault/v1 core\0".as_slice(), &fields].concat());
    let read = Core::parse(&bytes).unwrap();
    assert_eq!((read.anti_rollback(), read.seal_to()), (AntiRollback::Counter, SealTo::Tpm));
    assert_eq!((read.policy_text(), read.digest()), (first().as_str(), Sha256Digest::of(&bytes)));
    let none = Core::new(AntiRollback::None, SealTo::Tpm, &first()).unwrap();
    assert_eq!(Core::parse(&none.encode()).unwrap().anti_rollback(), AntiRollback::None);
    assert_ne!(none.digest(), read.digest());
}

#[test]
fn a_core_that_is_anything_else_is_refused() {
    let text = first();
    let of = |a: &[u8], s: &[u8], p: &[u8]| [b"weightvault/v1 core\0".as_slice(), &lv(&[a, s, p])].concat();
    let refusal = |bytes: &[u8]| Core::parse(bytes).unwrap_err();
    assert_eq!(refusal(&of(b"counters", b"tpm", text.as_bytes())), GenesisError::AntiRollbackUnknown);
    assert_eq!(refusal(&of(b"counter", b"snp", text.as_bytes())), GenesisError::SealToUnknown);
    assert_eq!(refusal(&of(b"counter", b"tpm", b"\xff")), GenesisError::CoreMalformed);
    let good = of(b"counter", b"tpm", text.as_bytes());
    for end in 0..good.len() {
        assert_eq!(refusal(&good[..end]), GenesisError::CoreMalformed, "cut at {end}");
    }
    assert_eq!(refusal(&[good.as_slice(), b"x"].concat()), GenesisError::CoreMalformed);
    assert_eq!(refusal(&[b"X", &good[1..]].concat()), GenesisError::CoreMalformed);
    assert_eq!(refusal(&of(b"counter", b"tpm", &[b'#'; 14 << 10])), GenesisError::CoreMalformed);
}

#[test]
fn a_keeper_seals_to_all_that_it_has_to_prove_and_nothing_else() {
    let both = Core::new(AntiRollback::Counter, SealTo::SnpTpm, &snp()).unwrap();
    let bytes = both.encode();
    let fields = lv(&[b"counter", b"snp,tpm", snp().as_bytes()]);
    assert_eq!(bytes, [b"weightvault/v1 core\0".as_slice(), &fields].concat());
    assert_eq!(Core::parse(&bytes).unwrap().seal_to(), SealTo::SnpTpm);
    let genesis = Genesis::build(BEGIN, &both, keeper()).unwrap();
    assert_eq!(Genesis::parse(genesis.bytes()).unwrap().core().digest(), both.digest());
    // A root that the chip had no part in would be had without the chip that approvers have seen; and the other way round.
    for (seal_to, text) in [(SealTo::Tpm, snp()), (SealTo::SnpTpm, first())] {
        let refused = Core::new(AntiRollback::Counter, seal_to, &text).unwrap_err();
        assert_eq!((&refused, refused.code()), (&GenesisError::SealToNotProven, "core-seal-to-not-proven"));
    }
    let text = String::from_utf8(genesis.bytes().to_vec()).unwrap();
    let other = text.replacen(r#""seal_to":"snp,tpm""#, r#""seal_to":"tpm""#, 1);
    assert_ne!(text, other);
    assert_eq!(Genesis::parse(other.as_bytes()).unwrap_err(), GenesisError::SealToNotProven);
}

#[test]
fn the_first_policy_is_a_first_policy_of_at_most_10_kib() {
    let refusal = |text: &str| Core::new(AntiRollback::Counter, SealTo::Tpm, text).unwrap_err();
    assert_eq!(refusal(&with_head(DIGEST, 2, DIGEST)), GenesisError::PolicyNotFirst { serial: 2 });
    assert_eq!(refusal("format = 1").code(), "policy-key-missing");
    let long = format!("{}#{}", first(), "x".repeat(10 << 10));
    assert_eq!(refusal(&long), GenesisError::PolicyTooLong { bytes: long.len() });
}

#[test]
fn a_genesis_comes_back_with_its_id() {
    let genesis = genesis();
    let read = Genesis::parse(genesis.bytes()).unwrap();
    assert_eq!(read.vault_id(), Sha256Digest::of(genesis.bytes()));
    assert_eq!((read.time(), read.keeper()), (BEGIN, &keeper()));
    assert_eq!(read.core().digest(), core().digest());
    assert_eq!(read.policy().digest(), Sha256Digest::of(first().as_bytes()));
}

#[test]
fn a_genesis_follows_every_rule_of_its_core() {
    let text = String::from_utf8(genesis().bytes().to_vec()).unwrap();
    let refusal = |from: &str, to: &str| {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        Genesis::parse(text.replacen(from, to, 1).as_bytes()).unwrap_err().code()
    };
    assert_eq!(refusal("serial = 1", "serial = 2"), "policy-lineage-mixed");
    assert_eq!(refusal("threshold = 2", "threshold = 0"), "policy-threshold-zero");
    assert_eq!(refusal("\"counter\"", "\"witness\""), "entry-malformed");
    assert_eq!(refusal("\"counter\"", "\"witnesses\""), "core-witnesses-missing");
    assert_eq!(refusal("\"type\":\"genesis\"", "\"type\":\"genesi\""), "entry-type-unknown");
    let end = format!(r#"{{"v":1,"type":"end","time":5,"lease":"{DIGEST}","cause":"agent"}}"#);
    assert_eq!(Genesis::parse(end.as_bytes()).unwrap_err(), GenesisError::NotAGenesis { found: "end" });
}

#[test]
fn a_genesis_after_the_end_of_its_policy_is_refused() {
    let not_after = core().policy().not_after();
    assert!(Genesis::build(not_after, &core(), keeper()).is_ok());
    let refused = Genesis::build(not_after.plus(1), &core(), keeper()).unwrap_err();
    assert_eq!(refused, GenesisError::PolicyExpired { not_after });
}

#[test]
fn a_vault_file_names_the_vault_its_keys_and_hosts() {
    let file = vault_file();
    let read = VaultFile::parse(&file.encode()).unwrap();
    assert_eq!(read.id(), genesis().vault_id());
    assert_eq!(read.hosts(), file.hosts());
    assert_eq!(read.identity_key(), &keeper().identity_key);
    assert_eq!(read.log_key(), &keeper().log_key);
    assert_eq!(read.wrap_key(), &keeper().wrap_key);
    assert_eq!(read.keeper_rule(), core().policy().keeper());
    assert_eq!(read.policy().digest(), core().policy().digest());
}

#[test]
fn a_vault_file_with_a_byte_changed_is_refused_or_of_the_same_vault() {
    let file = vault_file().encode();
    // Every fifth byte, with another bit each time: all kinds of places, and no second more than it takes.
    for at in (0..file.len()).step_by(5) {
        let mut changed = file.clone();
        changed[at] ^= 1 << (at % 8);
        if let Ok(read) = VaultFile::parse(&changed) {
            assert_eq!(read.id(), genesis().vault_id(), "byte {at}");
        }
    }
}

#[test]
fn a_vault_file_proves_itself() {
    let text = String::from_utf8(vault_file().encode()).unwrap();
    let id = genesis().vault_id().to_string();
    let refusal = |from: &str, to: &str| {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        VaultFile::parse(text.replacen(from, to, 1).as_bytes()).unwrap_err()
    };
    let wrong = refusal(&id, DIGEST);
    assert_eq!(wrong, VaultFileError::IdMismatch { named: DIGEST.parse().unwrap(), genesis: genesis().vault_id() });
    assert_eq!(refusal("{\"v\":1", "{\"v\":3"), VaultFileError::UnknownVersion { found: 3 });
    assert_eq!(refusal("{\"v\":1", "{\"v\":1,\"x\":1").code(), "vault-file-malformed");
    assert_eq!(refusal("\"hosts\":", "\"vault\":").code(), "vault-file-malformed");
    assert_eq!(refusal("\"genesis\":\"", "\"genesis\":\"AAAA").code(), "entry-malformed");
    assert_eq!(refusal("http://localhost", "file://localhost"), VaultFileError::HostMalformed { index: 0 });
    assert_eq!(refusal("https://[::1]:7071", "https://"), VaultFileError::HostMalformed { index: 1 });
    assert_eq!(refusal("localhost", "local host"), VaultFileError::HostMalformed { index: 0 });
    let long = vec![b' '; (512 << 10) + 1];
    assert_eq!(VaultFile::parse(&long).unwrap_err(), VaultFileError::TooLong { bytes: long.len() });
}

#[test]
fn a_vault_file_names_one_to_sixteen_hosts() {
    let hosts = |count: usize| vec!["http://h".to_owned(); count];
    assert!(VaultFile::new(genesis(), hosts(16)).is_ok());
    for count in [0, 17] {
        let refused = VaultFile::new(genesis(), hosts(count)).unwrap_err();
        assert_eq!(refused, VaultFileError::HostCount { count });
    }
    let long = vec![format!("http://{}", "h".repeat(250))];
    assert_eq!(VaultFile::new(genesis(), long).unwrap_err(), VaultFileError::HostMalformed { index: 0 });
}

#[test]
fn witnesses_stand_in_the_first_policy_exactly_where_the_core_asks_for_them() {
    let text = first() + &witnesses();
    let core = Core::new(AntiRollback::Witnesses, SealTo::Tpm, &text).unwrap();
    let read = Core::parse(&core.encode()).unwrap();
    assert_eq!((read.anti_rollback(), read.policy().witnesses().unwrap().quorum()), (AntiRollback::Witnesses, 2));
    for other in [AntiRollback::Counter, AntiRollback::None] {
        let refused = Core::new(other, SealTo::Tpm, &text).unwrap_err();
        assert_eq!((&refused, refused.code()), (&GenesisError::WitnessesUnexpected, "core-witnesses-unexpected"));
    }
    let refused = Core::new(AntiRollback::Witnesses, SealTo::Tpm, &first()).unwrap_err();
    assert_eq!((&refused, refused.code()), (&GenesisError::WitnessesMissing, "core-witnesses-missing"));
}
