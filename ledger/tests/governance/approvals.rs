//! Approvals: statements, and SSH signatures as `ssh-keygen` and hardware keys make them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use attestation::{Sha256Digest, UnixTime};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ledger::approvals::{
    ApprovalAction, ApprovalError, ApprovalStatement, ApproverKey, KeyError, SSHSIG_BYTES_MAX, STATEMENT_BYTES_MAX,
    SshsigError, StatementError, model_object, verify,
};
use ledger::policy::Approver;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

use crate::support::keys::{Person, armor, ssh_string, sshsig};
use crate::support::security_key::{APPLICATION, mpint, sk_ecdsa, sk_ed25519};

/// How r and s become a signature.
type Spelling = dyn Fn(&[u8], &[u8]) -> Vec<u8>;

fn statement() -> ApprovalStatement {
    ApprovalStatement {
        action: ApprovalAction::Policy,
        object: Sha256Digest::of(b"object"),
        previous: Sha256Digest::of(b"previous"),
        vault: Sha256Digest::of(b"vault"),
        serial: 7,
        not_after: UnixTime(1_800_000_000),
    }
}

fn approver(id: &str, line: &str) -> Approver {
    Approver { id: id.parse().unwrap(), key: ApproverKey::parse(line).unwrap() }
}

fn refusal(statement: &[u8], signature: &str) -> ApprovalError {
    let approvers = [approver("alice", &Person::new(1).key_line()), approver("bob", &Person::new(2).key_line())];
    verify(statement, signature, &approvers).expect_err("must be refused")
}

#[test]
fn a_statement_is_written_in_the_form_of_the_format() {
    let [object, previous, vault] = [b"object".as_slice(), b"previous", b"vault"].map(Sha256Digest::of);
    let text = format!(
        "{{\"v\":1,\"action\":\"policy\",\"object\":\"{object}\",\"previous\":\"{previous}\",\"vault\":\"{vault}\",\
         \"serial\":7,\"not_after\":1800000000}}\n"
    );
    assert_eq!(String::from_utf8(statement().encode()).unwrap(), text);
    assert_eq!(ApprovalStatement::parse(text.as_bytes()), Ok(statement()));
    assert_eq!(ApprovalStatement::parse(text.trim_end().as_bytes()), Ok(statement()));
    let actions = [
        (ApprovalAction::Genesis, "genesis"),
        (ApprovalAction::ProposePolicy, "propose-policy"),
        (ApprovalAction::Policy, "policy"),
        (ApprovalAction::Model, "model"),
        (ApprovalAction::ProposePlatform, "propose-platform"),
        (ApprovalAction::Platform, "platform"),
        (ApprovalAction::Revoke, "revoke"),
        (ApprovalAction::LiftRevocation, "lift-revocation"),
        (ApprovalAction::Extend, "extend"),
    ];
    for (action, name) in actions {
        let said = ApprovalStatement { action, ..statement() }.encode();
        assert!(String::from_utf8(said.clone()).unwrap().contains(&format!("\"action\":\"{name}\"")));
        assert_eq!(ApprovalStatement::parse(&said).unwrap().action, action);
    }
}

#[test]
fn a_statement_of_any_other_form_is_refused() {
    let text = String::from_utf8(statement().encode()).unwrap();
    let refused = |text: &str| ApprovalStatement::parse(text.as_bytes()).unwrap_err();
    for around in [format!("{text}\n"), format!(" {text}"), format!("{text} "), String::new(), "\n".to_owned()] {
        assert_eq!(refused(&around), StatementError::Surrounded, "{around:?}");
    }
    assert_eq!(refused(&text.replace("\"v\":1", "\"v\":2")), StatementError::UnknownVersion { found: 2 });
    for (from, to) in [
        ("\"serial\":7", "\"serial\":7,\"x\":1"),
        ("\"serial\":7", "\"serial\":7,\"serial\":7"),
        ("\"serial\":7,", ""),
        ("\"serial\":7", "\"serial\":-7"),
        ("\"policy\"", "\"forget\""),
        ("sha256:", "sha512:"),
    ] {
        let wrong = text.replacen(from, to, 1);
        assert!(matches!(refused(&wrong), StatementError::Malformed(_)), "{wrong}");
    }
    let long = format!("{{{}}}", " ".repeat(STATEMENT_BYTES_MAX));
    assert_eq!(refused(&long), StatementError::TooLong { bytes: STATEMENT_BYTES_MAX + 2 });
}

#[test]
fn the_object_of_a_model_covers_all_that_is_approved() {
    let object = |model: &str, version: &str, manifest: &[u8], sig: &[u8]| {
        let (model, version) = (model.parse().unwrap(), version.parse().unwrap());
        model_object(&model, &version, Sha256Digest::of(manifest), Sha256Digest::of(sig))
    };
    let good = object("ab", "c", b"m", b"s");
    let mut preimage = b"weightvault/v1 model\0\0\0\0\x02ab\0\0\0\x01c".to_vec();
    for digest in [b"m", b"s"].map(|bytes| Sha256Digest::of(bytes)) {
        preimage.extend([&[0, 0, 0, 32], digest.as_bytes().as_slice()].concat());
    }
    assert_eq!(good, Sha256Digest::of(&preimage));
    let others = [
        object("a", "bc", b"m", b"s"),
        object("ab", "d", b"m", b"s"),
        object("ab", "c", b"n", b"s"),
        object("ab", "c", b"m", b"t"),
    ];
    assert!(others.iter().all(|other| *other != good));
}

#[test]
fn a_signature_is_found_among_the_approvers() {
    let bytes = statement().encode();
    let approvers = [approver("alice", &Person::new(1).key_line()), approver("bob", &Person::new(2).key_line())];
    let signed = verify(&bytes, &Person::new(2).sign(&bytes), &approvers).unwrap();
    assert_eq!((signed.approver().as_str(), signed.statement()), ("bob", &statement()));
    // A comment behind the key is not part of it.
    let commented = approver("bob", &format!("{} bob@laptop", Person::new(2).key_line()));
    assert!(verify(&bytes, &Person::new(2).sign(&bytes), &[commented]).is_ok());
}

#[test]
fn a_good_signature_of_a_stranger_is_refused_by_name() {
    let bytes = statement().encode();
    let stranger = ApproverKey::parse(&Person::new(9).key_line()).unwrap();
    let refused = refusal(&bytes, &Person::new(9).sign(&bytes));
    assert_eq!(refused, ApprovalError::NotAnApprover { fingerprint: stranger.fingerprint() });
}

#[test]
fn a_statement_altered_by_one_byte_is_not_what_was_signed() {
    let bytes = statement().encode();
    let signature = Person::new(1).sign(&bytes);
    let text = String::from_utf8(bytes.clone()).unwrap();
    for altered in [text.replace("\"serial\":7", "\"serial\":8"), text.trim_end().to_owned()] {
        assert_eq!(refusal(altered.as_bytes(), &signature), ApprovalError::Signature(SshsigError::SignatureInvalid));
    }
    for index in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[index] ^= 1;
        refusal(&altered, &signature);
    }
}

#[test]
fn a_signature_for_another_purpose_is_refused() {
    let bytes = statement().encode();
    let (pair, blob) = ed25519();
    let of = |namespace: &str, reserved: &[u8]| {
        sshsig(&blob, namespace, reserved, &bytes, |signed| {
            [ssh_string(b"ssh-ed25519"), ssh_string(pair.sign(signed).as_ref())].concat()
        })
    };
    for namespace in ["file", "git", "weightvault2", "WeightVault", ""] {
        let refused = refusal(&bytes, &of(namespace, b""));
        assert_eq!(refused, ApprovalError::Signature(SshsigError::NamespaceMismatch), "{namespace:?}");
    }
    assert_eq!(refusal(&bytes, &of("weightvault", b"x")), ApprovalError::Signature(SshsigError::ReservedNotEmpty));
    assert!(matches!(refusal(&bytes, &of("weightvault", b"")), ApprovalError::NotAnApprover { .. }));
}

#[test]
fn armor_has_nothing_around_it_and_an_end() {
    let bytes = statement().encode();
    let good = Person::new(1).sign(&bytes);
    let malformed = ApprovalError::Signature(SshsigError::Malformed);
    for wrong in [
        format!("{good}x"),
        format!("{good}\n"),
        format!("x{good}"),
        format!("x\n{good}"),
        format!("\n{good}"),
        format!("{good}{good}"),
        good.replace('\n', "\r\n"),
        good.replacen("U1NIU0lH", "U1NI\nU0lH", 1),
        good.replace("\n-----END", "\n\n-----END"),
        good.replace("\n-----END", "-----END"),
        good.replace("-----END SSH SIGNATURE-----\n", ""),
        good.replace("SSH SIGNATURE", "SSH SIGNATURES"),
        good.replacen("U1NIU0lH", "U1NIU0lI", 1),
        String::new(),
    ] {
        assert_eq!(refusal(&bytes, &wrong), malformed, "{wrong}");
    }
    let without_newline = good.trim_end();
    let approvers = [approver("alice", &Person::new(1).key_line())];
    assert!(verify(&bytes, without_newline, &approvers).is_ok());
    let long = good.replace("\n-----END", &format!("{}\n-----END", "\nAAAA".repeat(1000)));
    assert_eq!(refusal(&bytes, &long), ApprovalError::Signature(SshsigError::TooLong { bytes: long.len() }));
    assert!(long.len() > SSHSIG_BYTES_MAX);
}

#[test]
fn a_blob_has_no_other_version_and_nothing_behind_it() {
    use base64::Engine;
    let bytes = statement().encode();
    let text: String = Person::new(1).sign(&bytes).lines().filter(|line| !line.starts_with('-')).collect();
    let blob = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let malformed = ApprovalError::Signature(SshsigError::Malformed);
    assert_eq!(refusal(&bytes, &armor(&[blob.as_slice(), b"x"].concat())), malformed);
    for version in [0, 2, 255] {
        let mut other = blob.clone();
        other[9] = version;
        assert_eq!(refusal(&bytes, &armor(&other)), malformed, "version {version}");
    }
    for end in 0..blob.len() {
        assert!(matches!(refusal(&bytes, &armor(&blob[..end])), ApprovalError::Signature(_)), "cut at {end}");
    }
    let approvers = [approver("alice", &Person::new(1).key_line())];
    for index in 0..blob.len() {
        let mut other = blob.clone();
        other[index] ^= 1;
        assert!(verify(&bytes, &armor(&other), &approvers).is_err(), "byte {index}");
    }
}

fn ed25519() -> (Ed25519KeyPair, Vec<u8>) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
    let blob = [ssh_string(b"ssh-ed25519"), ssh_string(pair.public_key().as_ref())].concat();
    (pair, blob)
}

#[test]
fn the_message_is_hashed_with_sha2() {
    use base64::Engine;
    let bytes = statement().encode();
    let text: String = Person::new(1).sign(&bytes).lines().filter(|line| !line.starts_with('-')).collect();
    let mut blob = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let at = blob.windows(6).position(|window| window == b"sha512").unwrap();
    blob[at + 3..at + 6].copy_from_slice(b"384");
    assert_eq!(refusal(&bytes, &armor(&blob)), ApprovalError::Signature(SshsigError::HashUnsupported));
}

#[test]
fn a_signature_blob_has_nothing_behind_it() {
    let bytes = statement().encode();
    let (pair, blob) = ed25519();
    let longer = sshsig(&blob, "weightvault", b"", &bytes, |signed| {
        [ssh_string(b"ssh-ed25519"), ssh_string(pair.sign(signed).as_ref()), vec![0]].concat()
    });
    assert_eq!(refusal(&bytes, &longer), ApprovalError::Signature(SshsigError::Malformed));
    let key = sk_ed25519();
    for trailer in [vec![1, 0, 0, 1], vec![1, 0, 0, 1, 2, 3]] {
        let signature = [ssh_string(key.algorithm.as_bytes()), ssh_string(&[7; 64]), trailer].concat();
        let refused = refusal(&bytes, &sshsig(&key.blob, "weightvault", b"", &bytes, |_| signature));
        assert_eq!(refused, ApprovalError::Signature(SshsigError::Malformed));
    }
}

#[test]
fn ecdsa_signatures_have_one_spelling() {
    let bytes = statement().encode();
    let rng = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &rng).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &rng).unwrap();
    let name = ssh_string(b"ecdsa-sha2-nistp256");
    let blob = [name.clone(), ssh_string(b"nistp256"), ssh_string(pair.public_key().as_ref())].concat();
    let signed_as = |spell: &Spelling| {
        sshsig(&blob, "weightvault", b"", &bytes, |signed| {
            let fixed = pair.sign(&rng, signed).unwrap();
            let (r, s) = fixed.as_ref().split_at(32);
            [name.clone(), ssh_string(&spell(r, s))].concat()
        })
    };
    let refused = |spell: &Spelling| refusal(&bytes, &signed_as(spell));
    let stranger = refused(&|r, s| [mpint(r), mpint(s)].concat());
    assert!(matches!(stranger, ApprovalError::NotAnApprover { .. }), "the good spelling: {stranger}");
    let invalid = ApprovalError::Signature(SshsigError::SignatureInvalid);
    assert_eq!(refused(&|r, s| [mpint(r), mpint(s), vec![0]].concat()), invalid);
    assert_eq!(refused(&|r, s| [ssh_string(&[&[0, 0], r].concat()), mpint(s)].concat()), invalid);
    assert_eq!(refused(&|r, _| mpint(r)), invalid);
    assert_eq!(refused(&|r, _| [mpint(r), ssh_string(&[])].concat()), invalid);
    assert_eq!(refused(&|r, _| [mpint(r), ssh_string(&[0x80; 32])].concat()), invalid);
    assert_eq!(refused(&|r, _| [mpint(r), ssh_string(&[0x7f; 33])].concat()), invalid);
    assert_eq!(refused(&|r, s| [mpint(s), mpint(r)].concat()), invalid);
}

#[test]
fn a_signature_is_of_the_algorithm_of_its_key() {
    let bytes = statement().encode();
    let (_, blob) = ed25519();
    let ecdsa = [ssh_string(&[7; 32]), ssh_string(&[7; 32])].concat();
    let signature = [ssh_string(b"ecdsa-sha2-nistp256"), ssh_string(&ecdsa)].concat();
    let refused = refusal(&bytes, &sshsig(&blob, "weightvault", b"", &bytes, |_| signature));
    assert_eq!(refused, ApprovalError::Signature(SshsigError::AlgorithmMismatch));
}

#[test]
fn keys_that_are_not_verified_here_do_not_sign() {
    let bytes = statement().encode();
    let rsa = [ssh_string(b"ssh-rsa"), ssh_string(&[1, 0, 1]), ssh_string(&[vec![0x00], vec![0xc1; 256]].concat())];
    let signature = [ssh_string(b"rsa-sha2-512"), ssh_string(&[7; 256])].concat();
    let refused = refusal(&bytes, &sshsig(&rsa.concat(), "weightvault", b"", &bytes, |_| signature));
    assert_eq!(refused, ApprovalError::Signature(SshsigError::KeyUnsupported));
    assert_eq!(ApproverKey::parse(include_str!("data/rsa.pub").trim()), Err(KeyError::Unsupported));
    assert_eq!(ApproverKey::parse("ssh-ed25519"), Err(KeyError::Malformed));
    let neutral = [vec![1], vec![0; 31]].concat();
    for (algorithm, application) in [("ssh-ed25519", None), ("sk-ssh-ed25519@openssh.com", Some("ssh:"))] {
        let application = application.map(|text: &str| ssh_string(text.as_bytes())).unwrap_or_default();
        let weak = [ssh_string(algorithm.as_bytes()), ssh_string(&neutral), application].concat();
        let line = format!("{algorithm} {}", STANDARD.encode(&weak));
        assert_eq!(ApproverKey::parse(&line).map(drop).map_err(|error| error.code()), Err("ssh-key-weak"));
        let refused = refusal(&bytes, &sshsig(&weak, "weightvault", b"", &bytes, |_| Vec::new()));
        assert_eq!(refused, ApprovalError::Signature(SshsigError::KeyUnsupported));
    }
}

#[test]
fn security_keys_approve_with_a_touch() {
    let bytes = statement().encode();
    for key in [sk_ed25519(), sk_ecdsa()] {
        let approvers = [approver("alice", &key.line())];
        let check = |signature: &str| verify(&bytes, signature, &approvers).map(|signed| signed.approver().to_string());
        for flags in [0x01, 0x05] {
            assert_eq!(check(&key.sign(&bytes, flags, APPLICATION)), Ok("alice".to_owned()), "{}", key.algorithm);
        }
        for flags in [0x00, 0x04] {
            let untouched = check(&key.sign(&bytes, flags, APPLICATION));
            assert_eq!(untouched, Err(ApprovalError::Signature(SshsigError::UserNotPresent)));
        }
        let elsewhere = check(&key.sign(&bytes, 0x01, b"ssh:other"));
        assert_eq!(elsewhere, Err(ApprovalError::Signature(SshsigError::SignatureInvalid)));
        let other = check(&key.sign(b"another message", 0x01, APPLICATION));
        assert_eq!(other, Err(ApprovalError::Signature(SshsigError::SignatureInvalid)));
    }
}

#[test]
fn a_touch_cannot_be_written_in_afterwards() {
    use base64::Engine;
    let bytes = statement().encode();
    let key = sk_ed25519();
    let text: String = key.sign(&bytes, 0, APPLICATION).lines().filter(|line| !line.starts_with('-')).collect();
    let mut blob = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let flags = blob.len() - 5;
    assert_eq!(blob[flags], 0);
    blob[flags] = 1;
    let refused = verify(&bytes, &armor(&blob), &[approver("alice", &key.line())]);
    assert_eq!(refused, Err(ApprovalError::Signature(SshsigError::SignatureInvalid)));
}

/// Signatures that `ssh-keygen` (OpenSSH 9.2) made once; their private keys are gone.
#[test]
fn recorded_signatures_verify() {
    let bytes = include_bytes!("data/statement.json");
    let keys = [
        (include_str!("data/ed25519.pub"), include_str!("data/ed25519.sig")),
        (include_str!("data/ed25519.pub"), include_str!("data/ed25519-sha256.sig")),
        (include_str!("data/ecdsa256.pub"), include_str!("data/ecdsa256.sig")),
        (include_str!("data/ecdsa384.pub"), include_str!("data/ecdsa384.sig")),
    ];
    for (line, signature) in keys {
        let approvers = [approver("alice", line.trim())];
        let signed = verify(bytes, signature, &approvers).unwrap();
        assert_eq!(signed.statement(), &statement());
    }
    for (signature, error) in [
        (include_str!("data/ed25519-file.sig"), SshsigError::NamespaceMismatch),
        (include_str!("data/rsa.sig"), SshsigError::KeyUnsupported),
        (include_str!("data/ecdsa521.sig"), SshsigError::KeyUnsupported),
    ] {
        assert_eq!(refusal(bytes, signature), ApprovalError::Signature(error));
    }
}

/// `ssh-keygen` as an approver runs it; `cargo xtask setup` installs it.
#[test]
fn what_ssh_keygen_signs_here_and_now_verifies() {
    if Command::new("ssh-keygen").arg("-?").stderr(Stdio::null()).stdout(Stdio::null()).status().is_err() {
        assert!(std::env::var_os("CI").is_none(), "ssh-keygen is missing");
        println!("skipped: ssh-keygen is not installed (cargo xtask setup installs it)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let bytes = statement().encode();
    fs::write(dir.path().join("statement"), &bytes).unwrap();
    for (kind, bits) in [("ed25519", "256"), ("ecdsa", "256"), ("ecdsa", "384")] {
        let key = dir.path().join(format!("{kind}-{bits}"));
        ssh_keygen(&["-q", "-t", kind, "-b", bits, "-N", "", "-C", "approver", "-f", key.to_str().unwrap()]);
        let signature = sign(dir.path(), &key, "weightvault");
        let approvers = [approver("alice", fs::read_to_string(key.with_extension("pub")).unwrap().trim())];
        assert_eq!(verify(&bytes, &signature, &approvers).unwrap().approver().as_str(), "alice", "{kind} {bits}");
        let other = sign(dir.path(), &key, "file");
        let refused = verify(&bytes, &other, &approvers);
        assert_eq!(refused, Err(ApprovalError::Signature(SshsigError::NamespaceMismatch)));
    }
}

fn sign(dir: &Path, key: &Path, namespace: &str) -> String {
    let statement = dir.join("statement");
    ssh_keygen(&["-Y", "sign", "-n", namespace, "-f", key.to_str().unwrap(), statement.to_str().unwrap()]);
    let signature = dir.join("statement.sig");
    let text = fs::read_to_string(&signature).unwrap();
    fs::remove_file(signature).unwrap();
    text
}

fn ssh_keygen(arguments: &[&str]) {
    let output = Command::new("ssh-keygen").args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
