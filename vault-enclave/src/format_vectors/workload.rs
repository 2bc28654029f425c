//! Vectors of a workload: its digests, and what they are as runtime claims of a load and of a renewal.

use attestation::{
    LeaseKey, RenewChallenge, Sha256Digest, TpmPart, Workload, arguments_digest, environment_digest, script_program,
};
use serde_json::{Value, json};

use super::{VAULT, load};

pub(super) fn vectors() -> Value {
    let (script, interpreter) = (Sha256Digest::of(b"#!/bin/sh\n"), Sha256Digest::of(b"\x7fELF"));
    // No text: arguments and variables are bytes.
    let arguments: [&[u8]; 4] = [b"serve", b"", b"--name=\xff\n", b"a b"];
    let environment: [&[u8]; 3] = [b"PATH=/bin", b"LANG=", b"A=b=\xc3"];
    let workload = Workload {
        program: script_program(&script, &interpreter),
        arguments: arguments_digest(&arguments),
        environment: environment_digest(&environment),
        image: Some(Sha256Digest::from_bytes([0x77; 32])),
    };
    let unnamed = Workload { image: None, ..workload };
    let claims = |workload: &Workload| hex::encode(Workload::runtime_claims(Some(workload)));
    let listed = |fields: &[&[u8]]| fields.iter().map(hex::encode).collect::<Vec<_>>();
    json!({
        "script": hex::encode(script.as_bytes()),
        "interpreter": hex::encode(interpreter.as_bytes()),
        "program": hex::encode(workload.program.as_bytes()),
        "argv": listed(&arguments),
        "arguments": hex::encode(workload.arguments.as_bytes()),
        "variables": listed(&environment),
        "environment": hex::encode(workload.environment.as_bytes()),
        "image": hex::encode([0x77; 32]),
        "claims": claims(&workload),
        "claims_without_image": claims(&unnamed),
        "load_binding": hex::encode(load(TpmPart::Absent, Some(workload)).digest()),
        "renew_binding": hex::encode(renewal().bind_workload(Some(workload)).digest()),
        "renew_binding_without_image": hex::encode(renewal().bind_workload(Some(unnamed)).digest()),
    })
}

fn renewal() -> RenewChallenge {
    RenewChallenge {
        rule: "guest".to_owned(),
        session: [1; 16],
        nonce: [2; 32],
        vault: VAULT,
        policy: Sha256Digest::from_bytes([4; 32]),
        lease: Sha256Digest::from_bytes([6; 32]),
        lease_key: LeaseKey::try_from([0x70; 32].as_slice()).unwrap(),
        tpm: TpmPart::Absent,
    }
}
