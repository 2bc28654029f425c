//! What approvers send: armored SSH signatures, lines of `.pub` files, and statements.
#![no_main]

use ledger::approvals::{self, ApprovalAction, ApprovalStatement, ApproverKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(statement) = ApprovalStatement::parse(data) {
        assert_eq!(statement.encode(), data);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(key) = ApproverKey::parse(text) {
        let _ = key.fingerprint();
    }
    assert!(approvals::verify(&statement(), text, &[]).is_err());
});

fn statement() -> Vec<u8> {
    let digest = attestation::Sha256Digest::of(b"object");
    let statement = ApprovalStatement {
        action: ApprovalAction::Policy,
        object: digest,
        previous: digest,
        vault: digest,
        serial: 1,
        not_after: attestation::UnixTime(1_800_000_000),
    };
    statement.encode()
}
