//! Interoperation with PyPI `cryptography`, which `cargo xtask setup` installs into `target/venv`.
//!
//! Python: `WEIGHTVAULT_PYTHON`, else `target/venv/bin/python` of the workspace. Without it the tests are skipped and say
//! so; in CI they fail.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ring::rand::SystemRandom;
use serde_json::{Value, json};

use crate::aead::{Bulk, Small};
use crate::container::{open_message, seal_message};
use crate::secret::Secret;
use crate::test_support::{hex_of, in_ci};
use crate::wrap::{ENC_BYTES, HpkeKeyPair, wrap};

const LENGTHS: [usize; 7] = [0, 1, 16_383, 16_384, 16_385, 50_000, 1 << 20];

#[test]
fn cobblestone_agrees_both_ways() {
    let (key, context) = ([3; 32], b"weightvault/v1 test\0");
    let plain = |length: usize| (0..length).map(|i| (i % 251) as u8).collect::<Vec<u8>>();
    let rng = SystemRandom::new();
    let mut jobs = Vec::new();
    for length in LENGTHS {
        let sealed = seal_message::<Bulk>(&key, context, &plain(length), &rng).unwrap();
        jobs.push(job("cobblestone_open", &key, context, &sealed));
        jobs.push(job("cobblestone_seal", &key, context, &plain(length)));
    }
    let Some(answers) = ask(&jobs) else { return };
    for (length, answers) in LENGTHS.iter().zip(answers.chunks(2)) {
        assert_eq!(answers[0], plain(*length), "opened by the other");
        for open in [open_message::<Bulk>, open_message::<Small>] {
            let mut opened = vec![0; *length];
            open(&key, context, &answers[1], &mut opened).unwrap();
            assert_eq!(opened, plain(*length), "sealed by the other");
        }
    }
}

#[test]
fn hpke_agrees_both_ways() {
    let (seed, info) = ([5; 32], b"weightvault/v1 release\0");
    let pair = HpkeKeyPair::from_seed(Secret::known(seed));
    let wrapped = wrap(pair.public_key(), info, b"unit keys", &SystemRandom::new()).unwrap();
    let sealed = [wrapped.enc, wrapped.ciphertext].concat();
    let jobs = [job("hpke_open", &seed, info, &sealed), job("hpke_seal", &seed, info, b"unit keys")];
    let Some(answers) = ask(&jobs) else { return };
    assert_eq!(answers[0], b"unit keys");
    let (enc, ciphertext) = answers[1].split_at(ENC_BYTES);
    let mut opened = [0; 9];
    pair.open(info, enc, ciphertext, &mut opened).unwrap();
    assert_eq!(&opened, b"unit keys");
}

#[test]
fn format_vectors_are_what_another_implementation_makes_of_the_same_inputs() {
    let Some(answers) = ask(&[json!({"job": "vectors", "path": crate::format_vectors::FILE})]) else { return };
    assert_eq!(answers[0], b"agrees");
}

fn job(job: &str, key: &[u8], context: &[u8], data: &[u8]) -> Value {
    json!({"job": job, "key": hex::encode(key), "context": hex::encode(context), "data": hex::encode(data)})
}

/// `None` where there is no such Python.
fn ask(jobs: &[Value]) -> Option<Vec<Vec<u8>>> {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let python =
        std::env::var_os("WEIGHTVAULT_PYTHON").map_or_else(|| package.join("../target/venv/bin/python"), PathBuf::from);
    if !python.exists() {
        assert!(!in_ci(), "{} is missing", python.display());
        eprintln!("skipped: {} is missing; `cargo xtask setup` makes it", python.display());
        return None;
    }
    let mut child = Command::new(python)
        .arg(package.join("tests/oracle.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(Value::from(jobs).to_string().as_bytes()).expect("python reads");
    drop(stdin);
    let output = child.wait_with_output().expect("python ends");
    assert!(output.status.success(), "python failed");
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a JSON array");
    Some(answers.iter().map(hex_of).collect())
}
