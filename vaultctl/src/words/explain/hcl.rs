//! The runtime data of Azure's paravisor.

use attestation::{HclReport, SNP_REPORT_BYTES, Sha256Digest};
use serde_json::Value;

use super::{Explained, Section};

const REPORT_DATA: usize = 0x50;
const VALUE_CHARS_MAX: usize = 200;

/// What the runtime data says, and whether the report is over it.
pub fn explain_runtime_data(hcl: &HclReport) -> Section {
    let digest = Sha256Digest::of(hcl.runtime_data());
    let own = hcl.report().len() == SNP_REPORT_BYTES && hcl.report()[REPORT_DATA..].starts_with(digest.as_bytes());
    let mut fields = vec![
        Explained::new("bytes", hcl.runtime_data().len(), "JSON, hashed as it was received"),
        Explained::new("SHA-256", hex::encode(digest.as_bytes()), "must be the first half of report_data")
            .look_if(!own, "it is not: this runtime data is not the one of the report"),
    ];
    match serde_json::from_slice::<Value>(hcl.runtime_data()) {
        Ok(runtime) => fields.extend(says(&runtime)),
        Err(_) => fields.push(
            Explained::new("text", "not JSON", "names the AK of the virtual TPM")
                .look_if(true, "no AK can be read out of it"),
        ),
    }
    Section { title: "Runtime data of Azure's paravisor".to_owned(), fields }
}

fn says(runtime: &Value) -> Vec<Explained> {
    let keys = runtime["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ids: Vec<&str> = keys.iter().filter_map(|key| key["kid"].as_str()).collect();
    let mut fields = vec![
        Explained::new("keys", shortened(&ids.join(", ")), "keys of the virtual TPM; HCLAkPub signs its quotes")
            .look_if(ids.iter().filter(|id| **id == "HCLAkPub").count() != 1, "HCLAkPub must stand there once"),
    ];
    let configuration = runtime["vm-configuration"].as_object();
    for (name, value) in configuration.into_iter().flatten() {
        let bad = matches!(
            (name.as_str(), value.as_bool()),
            ("secure-boot" | "tpm-enabled", Some(false)) | ("console-enabled", Some(true))
        );
        fields.push(
            Explained::new(shortened(name), shortened(&value.to_string()), "configuration of the virtual machine")
                .look_if(bad, "weakens the guest: Secure Boot or TPM off, or a console open to the host"),
        );
    }
    if let Some(user_data) = runtime["user-data"].as_str() {
        fields.push(Explained::new("user-data", shortened(user_data), "what the guest wrote into NV 01400002h"));
    }
    fields
}

/// What a stranger wrote, at most a line of it.
fn shortened(text: &str) -> String {
    let mut chars = text.chars();
    let head: String = chars.by_ref().take(VALUE_CHARS_MAX).collect();
    if chars.next().is_none() { head } else { format!("{head}…") }
}
