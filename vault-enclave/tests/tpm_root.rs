//! The sealed root against real software TPMs: what opens it, and why it does not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod tpm_support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ring::rand::SystemRandom;
use serde_json::{Value, json};
use tempfile::tempdir;
use tpm_support::{SoftTpm, pcrs};
use vault_enclave::derive::KeeperContext;
use vault_enclave::head::{Anchor, AntiRollback};
use vault_enclave::keeper_dir::KeeperDir;
use vault_enclave::root::{self, KeeperRoot, Place, RootError, RootRecords, Seal};
use vault_enclave::tpm::Tpm;
use vault_enclave::vault_keys::VaultKeys;

#[test]
fn the_same_root_opens_at_every_start_of_the_same_machine_and_program() {
    let dir = tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    std::fs::write(&one, "program").unwrap();
    std::fs::write(&two, "another").unwrap();
    let (tpm_dir, keeper) = (dir.path().join("tpm"), dir.path().join("keeper"));

    let soft = SoftTpm::start_measuring(&tpm_dir, &one);
    let made = create(&keeper, &soft.connect()).unwrap();
    // Only the same root opens the head that this one writes.
    let head = Arc::new(KeeperDir::open(&keeper).unwrap());
    Anchor::create(head, soft.connect(), &made.root, AntiRollback::None, None).unwrap();
    drop(soft);

    let soft = SoftTpm::start_measuring(&tpm_dir, &one);
    let tpm = soft.connect();
    let opened = open(&keeper, &tpm).unwrap();
    assert_eq!((&opened.ak, &opened.pcrs), (&made.ak, &made.pcrs));
    Anchor::open(Arc::new(KeeperDir::open(&keeper).unwrap()), tpm.clone(), &opened.root).unwrap();
    tpm.quote(&opened.ak, [0; 32], pcrs()).wait().unwrap();
    drop(soft);

    let soft = SoftTpm::start_measuring(&tpm_dir, &two);
    let error = open(&keeper, &soft.connect()).err().unwrap();
    assert!(matches!(&error, RootError::PcrsChanged { present, next: None } if *present == [11]), "{error}");
}

/// The record for the boot state to come opens the same root there, and neither record opens in the other's place.
#[test]
fn a_root_that_is_sealed_to_two_boot_states_opens_on_both_until_it_is_settled() {
    let dir = tempdir().unwrap();
    let [one, two, three] = ["one", "two", "three"].map(|name| {
        let path = dir.path().join(name);
        std::fs::write(&path, name).unwrap();
        path
    });
    let (tpm_dir, keeper) = (dir.path().join("tpm"), dir.path().join("keeper"));
    let soft = SoftTpm::start_measuring(&tpm_dir, &two);
    let next = soft.connect().read_pcrs(pcrs()).wait().unwrap();
    let next: BTreeMap<u32, [u8; 32]> = next.iter().map(|(index, value)| (index, *value)).collect();
    drop(soft);

    let soft = SoftTpm::start_measuring(&tpm_dir, &one);
    let tpm = soft.connect();
    let made = create(&keeper, &tpm).unwrap();
    let mut records = records(&keeper, &made);
    assert_eq!((records.place(), records.next()), (Place::Present, None));
    records.seal_next(&tpm, &next).unwrap();
    assert_eq!(records.next(), Some(ledger::reseal::boot_state(&next)));
    drop((records, tpm, soft));

    // A third one opens neither, and says what differs from which.
    let soft = SoftTpm::start_measuring(&tpm_dir, &three);
    let error = open(&keeper, &soft.connect()).err().unwrap();
    let differs = |pcrs: &[u32]| *pcrs == [11];
    assert!(
        matches!(&error, RootError::PcrsChanged { present, next: Some(next) } if differs(present) && differs(next)),
        "{error}"
    );
    drop(soft);

    for (image, place) in [(&one, Place::Present), (&two, Place::Next)] {
        let soft = SoftTpm::start_measuring(&tpm_dir, image);
        let opened = open(&keeper, &soft.connect()).unwrap();
        let mut records = self::records(&keeper, &opened);
        assert_eq!(records.place(), place);
        assert!(same(&opened, &made) && opened.ak == made.ak);
        if place == Place::Next {
            assert_eq!(records.present(), next);
            // Again it changes nothing.
            for _ in 0..2 {
                records.settle().unwrap();
                assert_eq!((records.place(), records.next()), (Place::Present, None));
            }
        }
    }
    let soft = SoftTpm::start_measuring(&tpm_dir, &one);
    assert_eq!(code(&keeper, &soft.connect()), "root-pcrs-changed");
    assert!(!keeper.join("root.next.json").exists());
}

fn records(keeper: &Path, root: &KeeperRoot) -> RootRecords {
    RootRecords::new(Arc::new(KeeperDir::open(keeper).unwrap()), root).unwrap()
}

/// Whether the same keys come out of both.
fn same(one: &KeeperRoot, other: &KeeperRoot) -> bool {
    let context = KeeperContext { instance: [1; 32], core: attestation::Sha256Digest::of(b"core") };
    let [one, other] = [one, other].map(|root| VaultKeys::derive(&root.root, &context).unwrap());
    one.log_key() == other.log_key() && one.identity_key() == other.identity_key()
}

#[test]
fn another_tpm_a_damaged_file_and_none_are_told_apart() {
    let dir = tempdir().unwrap();
    let keeper = dir.path().join("keeper");
    let (soft, other) = (SoftTpm::start(&dir.path().join("one")), SoftTpm::start(&dir.path().join("two")));
    let (tpm, stranger) = (soft.connect(), other.connect());
    assert_eq!(code(&keeper, &tpm), "root-absent");
    create(&keeper, &tpm).unwrap();
    assert_eq!(code(&keeper, &stranger), "root-other-tpm");

    let file = keeper.join("root.json");
    let good = std::fs::read(&file).unwrap();
    let parsed: Value = serde_json::from_slice(&good).unwrap();
    let damaged = |what: &str, change: &dyn Fn(&mut Value)| {
        let mut value = parsed.clone();
        change(&mut value);
        std::fs::write(&file, serde_json::to_vec(&value).unwrap()).unwrap();
        assert_eq!(code(&keeper, &tpm), "root-damaged", "{what}");
    };
    damaged("version", &|json| json["v"] = json!(2));
    damaged("seal_to", &|json| json["seal_to"] = json!("snp"));
    damaged("unknown field", &|json| json["more"] = json!(1));
    damaged("name", &|json| json["srk_name"] = json!("AAAA"));
    damaged("no PCRs", &|json| json["pcrs"] = json!({}));
    damaged("a PCR less", &|json| drop(json["pcrs"].as_object_mut().unwrap().remove("7")));
    damaged("a PCR out of range", &|json| json["pcrs"]["24"] = json!("00".repeat(32)));
    damaged("a PCR's value", &|json| json["pcrs"]["7"] = json!("00".repeat(32)));
    damaged("private area", &|json| json["secret"]["private"] = flip(&json["secret"]["private"]));
    damaged("public area", &|json| json["secret"]["public"] = flip(&json["secret"]["public"]));
    damaged("another object", &|json| json["secret"] = json["ak"].clone());
    damaged("too long", &|json| json["ak"]["private"] = json!("A".repeat(4096)));
    for length in [0, 1, good.len() / 2, good.len() - 1] {
        std::fs::write(&file, &good[..length]).unwrap();
        assert_eq!(code(&keeper, &tpm), "root-damaged", "{length} bytes");
    }
    std::fs::write(&file, &good).unwrap();
    open(&keeper, &tpm).unwrap();
}

#[test]
fn a_directory_with_a_root_or_a_head_gets_no_other() {
    let dir = tempdir().unwrap();
    let keeper = dir.path().join("keeper");
    let soft = SoftTpm::start(&dir.path().join("tpm"));
    let tpm = soft.connect();
    create(&keeper, &tpm).unwrap();
    assert!(matches!(create(&keeper, &tpm), Err(RootError::Exists)));
    std::fs::rename(keeper.join("root.json"), keeper.join("head")).unwrap();
    assert!(matches!(create(&keeper, &tpm), Err(RootError::Exists)));
}

fn create(keeper: &Path, tpm: &Tpm) -> Result<KeeperRoot, RootError> {
    root::create(&KeeperDir::open(keeper).unwrap(), Seal::Tpm(tpm), pcrs(), &SystemRandom::new())
}

fn open(keeper: &Path, tpm: &Tpm) -> Result<KeeperRoot, RootError> {
    root::open(&KeeperDir::open(keeper).unwrap(), tpm, None)
}

fn code(keeper: &Path, tpm: &Tpm) -> &'static str {
    open(keeper, tpm).err().unwrap().code()
}

/// Another letter in the middle of base64 text.
fn flip(text: &Value) -> Value {
    let mut bytes = text.as_str().unwrap().as_bytes().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] = if bytes[middle] == b'A' { b'B' } else { b'A' };
    json!(String::from_utf8(bytes).unwrap())
}
