//! The readers against quotes that hardware-backed vTPMs made (shared vectors, azure-snp-vtpm/README.md). Such a vTPM has
//! no EK chain here: only the AK, its signature and the quote are checked.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

use super::attest::{read_quote, verify_signature};
use super::{AttestationKey, PcrSelection};
use crate::encoding::Sha256Digest;
use crate::error::VerifyError;

struct Vector {
    ak: AttestationKey,
    attest: Vec<u8>,
    signature: Vec<u8>,
    pcrs: Vec<u8>,
    qualifying_data: String,
}

/// Nothing where the vectors are not; that is a failure only in CI.
fn vectors() -> Vec<Vector> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors");
    let root = std::env::var("WEIGHTVAULT_VECTORS").unwrap_or_else(|_| default.to_owned());
    let root = PathBuf::from(root).join("azure-snp-vtpm");
    if !root.is_dir() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "no vectors at {}", root.display());
        println!("skipped: there are no vectors at {}", root.display());
        return Vec::new();
    }
    let names = ["azure-genoa-v3", "azure-milan-v2", "azure-milan-v3", "azure-milan-v3-live"];
    names.map(|name| Vector::read(&root.join(name))).into()
}

impl Vector {
    fn read(folder: &Path) -> Self {
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
        let json = |name: &str| serde_json::from_slice::<Value>(&read(name)).unwrap();
        let runtime = json("runtime-data.json");
        let keys = runtime["keys"].as_array().unwrap();
        let ak = keys.iter().find(|key| key["kid"] == "HCLAkPub").unwrap();
        let modulus = BASE64_URL_SAFE_NO_PAD.decode(ak["n"].as_str().unwrap()).unwrap();
        let pcrs = json("tpm-pcrs.json");
        let pcrs = pcrs.as_array().unwrap().iter().flat_map(|pcr| hex::decode(pcr.as_str().unwrap()).unwrap());
        Self {
            ak: AttestationKey::parse(&public_area(&modulus)).unwrap(),
            attest: read("tpm-quote.msg"),
            // The vectors have the bare RSASSA signature; this is its TPMT_SIGNATURE.
            signature: [&[0x00, 0x14, 0x00, 0x0b, 0x01, 0x00], read("tpm-quote.sig").as_slice()].concat(),
            pcrs: pcrs.collect(),
            qualifying_data: json("expected.json")["azure"]["qualifying_data_hex"].as_str().unwrap().to_owned(),
        }
    }
}

/// The modulus in our own AK template: the vectors have no TPMT_PUBLIC.
fn public_area(modulus: &[u8]) -> Vec<u8> {
    let template = "0001000b00050472000000100014000b0800000000000100";
    [hex::decode(template).unwrap().as_slice(), modulus].concat()
}

#[test]
fn quotes_of_azure_vtpms_are_read_and_their_signatures_hold() {
    let all = PcrSelection::try_from((0..24).collect::<Vec<_>>().as_slice()).unwrap();
    for vector in vectors() {
        verify_signature(&vector.ak, &vector.attest, &vector.signature).unwrap();
        let quote = read_quote(&vector.attest).unwrap();
        assert_eq!(hex::encode(quote.extra_data), vector.qualifying_data);
        assert_eq!(quote.pcr_selection, all.tpml());
        assert_eq!(quote.pcr_digest, Sha256Digest::of(&vector.pcrs).as_bytes());
    }
}

#[test]
fn the_quote_of_one_azure_vtpm_is_refused_under_the_ak_of_another() {
    for (number, vector) in vectors().iter().enumerate() {
        for (other, stranger) in vectors().iter().enumerate().filter(|(other, _)| *other != number) {
            let refusal = verify_signature(&stranger.ak, &vector.attest, &vector.signature);
            assert_eq!(refusal, Err(VerifyError::SignatureInvalid), "{number} under {other}");
        }
    }
}
