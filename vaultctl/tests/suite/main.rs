//! The program against a vault in software: `ssh-keygen` signs, the keeper's TPM is the forge of `attestation`, and the
//! host is a gRPC server of this test that stores and relays, and lies where a test tells it to.
#![allow(clippy::unwrap_used, reason = "a surprise ends the test where it happens")]

#[path = "../../../attestation/tests/common/mod.rs"]
#[allow(dead_code, reason = "the forge serves several crates, and each uses a part of it")]
mod forge;

#[path = "../../../ledger/tests/governance/support/keys.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of the tests of `ledger`, which use more of it")]
mod keys;
#[path = "../../../ledger/tests/governance/support/security_key.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of the tests of `ledger`, which use more of it")]
mod security_key;

mod audit;
mod budget;
mod captured_evidence;
mod captured_log;
mod captured_policy;
mod captured_tpm;
mod ceremony;
mod evidence;
mod evidence_show;
mod governance;
mod keeper_evidence;
mod log;
mod measure;
mod peer;
mod permit;
mod policy_command;
mod revoke;
mod scene;
mod security_keys;
mod ssh;
mod status;
mod stored_evidence;
mod transport;
mod vectors;
mod witness;
