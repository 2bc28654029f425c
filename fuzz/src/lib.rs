//! What several targets need: evidence and a log that were recorded, read where they lie in the tree.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

/// Evidence of a software TPM (`attestation/tests/data/README.md`).
pub struct Recorded {
    /// When its certificates are valid.
    pub now: u64,
    /// The authority, DER.
    pub anchor: Vec<u8>,
    /// EK certificate, and its issuers.
    pub ek_certificates: Vec<Vec<u8>>,
}

impl Recorded {
    /// Reads it.
    pub fn read() -> Self {
        let text = include_str!("../../attestation/tests/data/swtpm.json");
        let recorded: Value = serde_json::from_str(text).expect("JSON");
        let bytes = |value: &Value| hex::decode(value.as_str().expect("a text")).expect("hex");
        Self {
            now: recorded["now"].as_u64().expect("a time"),
            anchor: bytes(&recorded["anchor"]),
            ek_certificates: recorded["ek_certificates"].as_array().expect("a list").iter().map(bytes).collect(),
        }
    }
}

/// The entries of the golden vault's log (`tests/golden/v1/README.md`).
pub fn recorded_entries() -> Vec<&'static [u8]> {
    let bundle = include_bytes!("../../tests/golden/v1/host/log/tile/entries/000.p/27");
    ledger::tiles::decode_bundle(bundle, 27).expect("a bundle of 27 entries")
}

/// The DER in blocks of PEM, one after the other.
pub fn from_pem(pem: &str) -> Vec<Vec<u8>> {
    let blocks =
        pem.split("-----END CERTIFICATE-----").filter_map(|block| block.split_once("-----BEGIN CERTIFICATE-----"));
    let text = |body: &str| body.split_whitespace().collect::<String>();
    blocks.map(|(_, body)| BASE64_STANDARD.decode(text(body)).expect("base64")).collect()
}
