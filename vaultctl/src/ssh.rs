//! Signatures by `ssh-keygen`. This program never reads a private key: the key stays a file of OpenSSH's, in an agent, or
//! in a security key.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ledger::approvals::{ApproverKey, KeyError, SSHSIG_BYTES_MAX, SSHSIG_NAMESPACE};

use crate::failure::{Failure, Kind};

const PROGRAM: &str = "ssh-keygen";

/// Signs exact bytes: `ssh-keygen -Y sign -n weightvault -f KEY`. Gives the armored SSHSIG.
///
/// `key` may be a private key file, a public key whose private half an agent holds, or a security key. Prompts for a
/// passphrase or a touch go to the terminal.
pub fn sign(key: &Path, message: &[u8]) -> Result<String, Failure> {
    let mut child = Command::new(PROGRAM)
        .args(["-Y", "sign", "-n", SSHSIG_NAMESPACE, "-f"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| not_started(&error))?;
    let mut input = child.stdin.take().expect("stdin was piped above");
    // It may end without reading: the key is wrong. Its exit status says so, not this write.
    let written = input.write_all(message);
    drop(input);
    let output = child.wait_with_output().map_err(|error| not_started(&error))?;
    if !output.status.success() {
        return Err(not_signed(key).why(format!("{PROGRAM} ended with {}; its own words are above", output.status)));
    }
    written.map_err(|error| not_signed(key).why(error))?;
    match String::from_utf8(output.stdout) {
        Ok(signature) if signature.len() <= SSHSIG_BYTES_MAX => Ok(signature),
        _ => Err(not_signed(key).why(format!("{PROGRAM} gave something else than a signature of at most 4 KiB"))),
    }
}

/// The public half of a key: the file itself where its name ends in `.pub`, else the file beside it with `.pub` added.
/// Nothing where there is none: then whose signature it is shows after signing.
pub fn public_key(key: &Path) -> Result<Option<ApproverKey>, Failure> {
    let path = if key.extension().is_some_and(|extension| extension == "pub") {
        key.to_owned()
    } else {
        PathBuf::from(format!("{}.pub", key.display()))
    };
    let line = match std::fs::read_to_string(&path) {
        Ok(line) => line,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::file("read", &path, &error)),
    };
    match ApproverKey::parse(line.trim()) {
        Ok(key) => Ok(Some(key)),
        Err(KeyError::Malformed) => {
            Err(not_usable(&path, "ssh-key-malformed").why("it is not one line: algorithm, base64, comment"))
        }
        Err(KeyError::Unsupported) => Err(not_usable(&path, "ssh-key-unsupported")
            .why("approvers' keys are ssh-ed25519, ECDSA (P-256, P-384) or security keys (sk-…)")),
        Err(KeyError::Weak) => Err(not_usable(&path, "ssh-key-weak").why("anybody can sign for this key")),
    }
}

fn not_usable(path: &Path, code: &str) -> Failure {
    Failure::new(Kind::Usage, code, format!("can't use {}", path.display()))
        .next("make one with: ssh-keygen -t ed25519 -f FILE")
}

fn not_started(error: &std::io::Error) -> Failure {
    Failure::new(Kind::Failed, "ssh-keygen-missing", format!("could not run {PROGRAM}"))
        .why(error)
        .next("install the OpenSSH client (Debian, Ubuntu: apt install openssh-client)")
}

fn not_signed(key: &Path) -> Failure {
    Failure::new(Kind::Failed, "not-signed", format!("{} did not sign", key.display()))
        .next(format!("try it by hand: {PROGRAM} -Y sign -n {SSHSIG_NAMESPACE} -f {} FILE", key.display()))
}
