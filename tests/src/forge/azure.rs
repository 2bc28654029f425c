//! What an Azure confidential VM shows: a report over a JSON text that names the AK of the paravisor's virtual TPM, in the
//! frame of NV index 01400001h, and a quote of that AK.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};

use super::attest::Attest;
use super::platform::{SoftGuest, SoftPlatform};
use super::report::REPORT_LEN;
use super::tpm::SoftTpm;

/// Bytes of the NV index; what is not used is zero.
const INDEX_LEN: usize = 2600;
const SNP: u32 = 2;
const SHA_256: u32 = 1;

/// The virtual TPM of a guest whose launch digest covers the paravisor.
pub struct SoftParavisor {
    /// Its RSA AK, and what it measured.
    pub tpm: SoftTpm,
    /// TPM resets.
    pub reset_count: u32,
    /// Resumes.
    pub restart_count: u32,
}

/// What TPM2_Quote gives, and the values of the PCRs.
pub struct Quoted {
    /// TPMS_ATTEST.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
    /// Index and value of each PCR.
    pub pcrs: Vec<(u32, [u8; 32])>,
}

impl SoftParavisor {
    /// One that has just booted.
    #[must_use]
    pub fn new() -> Self {
        Self { tpm: SoftTpm::rsa(), reset_count: 7, restart_count: 1 }
    }

    /// The runtime data: JSON with the AK, as the paravisor writes it.
    #[must_use]
    pub fn runtime_data(&self) -> Vec<u8> {
        let modulus = BASE64_URL_SAFE_NO_PAD.encode(&self.tpm.ak_public.unique[0]);
        format!(
            r#"{{"keys":[{{"kid":"HCLAkPub","key_ops":["sign"],"kty":"RSA","e":"AQAB","n":"{modulus}"}}],"vm-configuration":{{"secure-boot":true,"tpm-enabled":true}},"user-data":"{}"}}"#,
            "0".repeat(128)
        )
        .into_bytes()
    }

    /// The HCL report that the guest reads: made at boot, over the runtime data.
    #[must_use]
    pub fn hcl_report(&self, platform: &SoftPlatform, guest: &SoftGuest) -> Vec<u8> {
        let runtime_data = self.runtime_data();
        let mut report_data = [0; 64];
        report_data[..32].copy_from_slice(digest(&SHA256, &runtime_data).as_ref());
        hcl_report(&platform.signed_report(guest, report_data), &runtime_data)
    }

    /// TPM2_Quote over these PCRs.
    #[must_use]
    pub fn quote(&self, indices: &[u32], extra_data: &[u8]) -> Quoted {
        let pcrs = self.tpm.pcr_values(indices);
        let mut attest = Attest::quote(extra_data, &pcrs);
        attest.reset_count = self.reset_count;
        attest.restart_count = self.restart_count;
        let attest = attest.bytes();
        let signature = self.tpm.sign(&attest);
        Quoted { attest, signature, pcrs }
    }
}

impl Default for SoftParavisor {
    fn default() -> Self {
        Self::new()
    }
}

/// The frame around report and runtime data, with its padding. All numbers are little-endian.
#[must_use]
pub fn hcl_report(report: &[u8; REPORT_LEN], runtime_data: &[u8]) -> Vec<u8> {
    let length = runtime_data.len() as u32;
    let total = 32 + REPORT_LEN as u32 + 20 + length;
    let header: Vec<u8> = [2, total, SNP].iter().flat_map(|number: &u32| number.to_le_bytes()).collect();
    let runtime: Vec<u8> =
        [20 + length, 1, SNP, SHA_256, length].iter().flat_map(|number: &u32| number.to_le_bytes()).collect();
    let mut out = [b"HCLA", header.as_slice(), &[0; 16], report, &runtime, runtime_data].concat();
    out.resize(out.len().max(INDEX_LEN), 0);
    out
}
