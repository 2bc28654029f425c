//! The form of Azure's confidential VMs: the report is over a JSON text that names the AK of a vTPM inside the guest, and
//! the vTPM's quote carries the challenge.
//!
//! ```text
//! AMD root ─▶ VCEK ─▶ report ─▶ SHA-256(runtime data) ─▶ HCLAkPub ─▶ quote ─▶ challenge, PCRs
//! ```
//!
//! The report endorses the AK, so there is no EK and no credential. It is made once, at boot: alone it shows nothing about
//! now. The vTPM runs at VMPL 0 in the guest's own memory, in a paravisor that the measurement covers.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::claims::SnpClaims;
use super::evidence::EndorsedReport;
use super::report::SNP_REPORT_BYTES;
use crate::encoding::Sha256Digest;
use crate::error::{HclError, VerifyError};
use crate::tpm::{AttestationKey, PcrSelection, QuotingKey, captured};

/// The most bytes of an HCL report; the NV index that holds it has 2600.
const HCL_BYTES_MAX: usize = 16 * 1024;
const KEYS_MAX: usize = 8;
const AK_NAME: &str = "HCLAkPub";

const MAGIC: [u8; 4] = *b"HCLA";
const HEADER_BYTES: usize = 32;
const RUNTIME_HEADER_BYTES: usize = 20;
const RUNTIME_HEADER_OFFSET: usize = HEADER_BYTES + SNP_REPORT_BYTES;
const RUNTIME_OFFSET: usize = RUNTIME_HEADER_OFFSET + RUNTIME_HEADER_BYTES;

/// Both are in use.
const HEADER_VERSIONS: std::ops::RangeInclusive<u32> = 1..=2;
const RUNTIME_VERSION: u32 = 1;
const REPORT_TYPE_SNP: u32 = 2;
const HASH_TYPE_SHA256: u32 = 1;

/// What stands in NV index 01400001h of an Azure vTPM. Its frame is checked; nothing in it is trusted.
///
/// ```text
/// 000h  "HCLA", version u32, length u32 (of all but the padding), report type u32 = 2, 16 zero bytes
/// 020h  ATTESTATION_REPORT, 1184 bytes
/// 4C0h  length u32 (20 + n), version u32 = 1, report type u32 = 2, hash type u32 = 1, n u32
/// 4D4h  runtime data, n bytes of JSON
///       zeros up to the size of the index
/// ```
///
/// All numbers are little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HclReport {
    report: Vec<u8>,
    runtime_data: Vec<u8>,
}

impl HclReport {
    /// Reads exactly one HCL report; its padding may be there or not.
    pub fn parse(bytes: &[u8]) -> Result<Self, HclError> {
        if bytes.len() > HCL_BYTES_MAX {
            return Err(HclError::TooLarge { found: bytes.len() });
        }
        if bytes.len() < RUNTIME_OFFSET {
            return Err(HclError::Truncated);
        }
        if !bytes.starts_with(&MAGIC) {
            return Err(HclError::Signature);
        }
        let version = read_u32(bytes, 4)?;
        if !HEADER_VERSIONS.contains(&version) {
            return Err(HclError::Version { found: version });
        }
        check_report_type(read_u32(bytes, 12)?)?;
        check_zero(bytes, 16, HEADER_BYTES)?;
        let runtime_version = read_u32(bytes, RUNTIME_HEADER_OFFSET + 4)?;
        if runtime_version != RUNTIME_VERSION {
            return Err(HclError::Version { found: runtime_version });
        }
        check_report_type(read_u32(bytes, RUNTIME_HEADER_OFFSET + 8)?)?;
        let hash_type = read_u32(bytes, RUNTIME_HEADER_OFFSET + 12)?;
        if hash_type != HASH_TYPE_SHA256 {
            return Err(HclError::HashType { found: hash_type });
        }
        let runtime_data = read_runtime_data(bytes)?;
        check_zero(bytes, RUNTIME_OFFSET + runtime_data.len(), bytes.len())?;
        Ok(Self { report: bytes[HEADER_BYTES..RUNTIME_HEADER_OFFSET].to_vec(), runtime_data: runtime_data.to_vec() })
    }

    /// Joins a report and the runtime data that came apart from it. Whether they belong together is checked by
    /// [`HclReport::endorse`].
    pub fn from_parts(report: Vec<u8>, runtime_data: Vec<u8>) -> Result<Self, HclError> {
        let found = report.len().saturating_add(runtime_data.len());
        if found > HCL_BYTES_MAX {
            return Err(HclError::TooLarge { found });
        }
        Ok(Self { report, runtime_data })
    }

    /// The bytes of the report, for [`EndorsedReport::verify`].
    #[must_use]
    pub fn report(&self) -> &[u8] {
        &self.report
    }

    /// The JSON as received, which is what is hashed.
    #[must_use]
    pub fn runtime_data(&self) -> &[u8] {
        &self.runtime_data
    }

    /// Checks that `endorsed` is this very report, made at VMPL 0 over exactly this runtime data; only then reads the AK
    /// out of it.
    pub fn endorse(self, endorsed: EndorsedReport) -> Result<EndorsedVtpm, HclError> {
        if self.report != endorsed.report().as_bytes() {
            return Err(HclError::ReportChanged);
        }
        let vmpl = endorsed.report().vmpl();
        if vmpl != 0 {
            return Err(HclError::Vmpl { found: vmpl });
        }
        let mut expected = [0; 64];
        expected[..32].copy_from_slice(Sha256Digest::of(&self.runtime_data).as_bytes());
        endorsed.check_report_data(&expected).map_err(|_| HclError::RuntimeDataMismatch)?;
        let ak = QuotingKey::RsaSsa2048(Box::new(read_ak(&self.runtime_data)?));
        Ok(EndorsedVtpm { claims: endorsed.into_claims(), ak })
    }
}

/// A vTPM whose AK an endorsed report names: what that AK quotes, the guest's own vTPM has measured.
pub struct EndorsedVtpm {
    claims: SnpClaims,
    ak: QuotingKey,
}

/// A quote without the identity of its TPM, as a vTPM's is: raw, from the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureQuote {
    /// TPMS_ATTEST, exactly the bytes that were signed.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
    /// Index and value of each quoted PCR of the SHA-256 bank, ascending.
    pub pcrs: Vec<(u32, [u8; 32])>,
}

/// What a TPM has quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VtpmState {
    /// The quoted PCRs of the SHA-256 bank.
    pub pcrs: BTreeMap<u32, [u8; 32]>,
    /// TPMS_CLOCK_INFO.resetCount.
    pub reset_count: u32,
    /// TPMS_CLOCK_INFO.restartCount.
    pub restart_count: u32,
    /// TPMS_CLOCK_INFO.clock, in milliseconds.
    pub clock: u64,
    /// TPMS_CLOCK_INFO.safe.
    pub safe: bool,
    /// TPMS_ATTEST.firmwareVersion.
    pub firmware_version: u64,
}

impl EndorsedVtpm {
    /// What the report shows about the guest around the vTPM.
    #[must_use]
    pub const fn claims(&self) -> &SnpClaims {
        &self.claims
    }

    /// Checks that an AK with this public area is the one that the report names, so that its name may stand in a binding.
    pub fn check_ak(&self, ak: &AttestationKey) -> Result<(), HclError> {
        match (&self.ak, ak.key()) {
            (QuotingKey::RsaSsa2048(endorsed), QuotingKey::RsaSsa2048(claimed)) if endorsed == claimed => Ok(()),
            (QuotingKey::RsaSsa2048(_) | QuotingKey::EcdsaP256(_), _) => Err(HclError::AkMismatch),
        }
    }

    /// Verifies that the vTPM quoted exactly `expected_pcrs` for exactly `extra_data`. In this order: signature; magic,
    /// type and signer; extraData in constant time; PCR selection, indices and digest.
    pub fn verify_quote(
        &self,
        quote: &AzureQuote,
        extra_data: &[u8],
        expected_pcrs: &PcrSelection,
    ) -> Result<VtpmState, VerifyError> {
        captured::verify_quote(&self.ak, quote, extra_data, expected_pcrs)
    }
}

/// The lengths of the two headers must agree with each other, and with what is there.
fn read_runtime_data(bytes: &[u8]) -> Result<&[u8], HclError> {
    let to_usize = |number: u32| usize::try_from(number).map_err(|_| HclError::Length);
    let length = to_usize(read_u32(bytes, RUNTIME_HEADER_OFFSET + 16)?)?;
    let with_header = to_usize(read_u32(bytes, RUNTIME_HEADER_OFFSET)?)?;
    let total = to_usize(read_u32(bytes, 8)?)?;
    if with_header.checked_sub(RUNTIME_HEADER_BYTES) != Some(length)
        || total.checked_sub(RUNTIME_OFFSET) != Some(length)
    {
        return Err(HclError::Length);
    }
    bytes.get(RUNTIME_OFFSET..total).ok_or(HclError::Truncated)
}

fn read_u32(bytes: &[u8], offset: usize) -> Result<u32, HclError> {
    let number = bytes.get(offset..).and_then(<[u8]>::first_chunk).ok_or(HclError::Truncated)?;
    Ok(u32::from_le_bytes(*number))
}

fn check_report_type(found: u32) -> Result<(), HclError> {
    if found == REPORT_TYPE_SNP { Ok(()) } else { Err(HclError::ReportType { found }) }
}

fn check_zero(bytes: &[u8], from: usize, to: usize) -> Result<(), HclError> {
    match (from..to).find(|&offset| bytes.get(offset).is_some_and(|byte| *byte != 0)) {
        Some(offset) => Err(HclError::ReservedNotZero { offset }),
        None => Ok(()),
    }
}

/// What is read of the runtime data. A field that is read may stand only once; those that are not may change.
#[derive(Deserialize)]
struct RuntimeData {
    keys: Vec<Jwk>,
}

/// A JSON Web Key (RFC 7517) of RSA (RFC 7518 §6.3).
#[derive(Deserialize)]
struct Jwk {
    kid: String,
    kty: String,
    key_ops: Vec<String>,
    e: String,
    n: String,
}

/// The modulus of the AK: RSA-2048 with exponent 65537, for signing alone.
fn read_ak(runtime_data: &[u8]) -> Result<[u8; 256], HclError> {
    let parsed: RuntimeData = serde_json::from_slice(runtime_data).map_err(|_| HclError::RuntimeDataMalformed)?;
    if parsed.keys.len() > KEYS_MAX {
        return Err(HclError::KeysTooMany { found: parsed.keys.len() });
    }
    for (index, key) in parsed.keys.iter().enumerate() {
        if parsed.keys.iter().take(index).any(|earlier| earlier.kid == key.kid) {
            return Err(HclError::KeyRepeated);
        }
    }
    let ak = parsed.keys.iter().find(|key| key.kid == AK_NAME).ok_or(HclError::AkMissing)?;
    if ak.kty != "RSA" || ak.e != "AQAB" || ak.key_ops != ["sign"] {
        return Err(HclError::AkUnsupported);
    }
    let modulus = BASE64_URL_SAFE_NO_PAD.decode(&ak.n).map_err(|_| HclError::AkUnsupported)?;
    match <[u8; 256]>::try_from(modulus) {
        Ok(modulus) if modulus[0] & 0x80 != 0 => Ok(modulus),
        Ok(_) | Err(_) => Err(HclError::AkUnsupported),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An HCL report around a report of zeros.
    fn hcl(runtime_data: &[u8], padding: usize) -> Vec<u8> {
        let number = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
        let total = RUNTIME_OFFSET + runtime_data.len();
        let header = [number(1), number(total), number(2)].concat();
        let runtime = [number(20 + runtime_data.len()), number(1), number(2), number(1), number(runtime_data.len())];
        let (reserved, report) = ([0; 16], [0; SNP_REPORT_BYTES]);
        [&MAGIC, &header[..], &reserved, &report, &runtime.concat(), runtime_data, &vec![0; padding]].concat()
    }

    fn refusal(change: impl FnOnce(&mut Vec<u8>)) -> HclError {
        let mut bytes = hcl(b"{}", 8);
        change(&mut bytes);
        HclReport::parse(&bytes).unwrap_err()
    }

    #[test]
    fn frame_is_read_with_and_without_padding() {
        for padding in [0, 1, 1000] {
            let parsed = HclReport::parse(&hcl(b"{\"keys\":[]}", padding)).unwrap();
            assert_eq!((parsed.report().len(), parsed.runtime_data()), (SNP_REPORT_BYTES, &b"{\"keys\":[]}"[..]));
        }
    }

    #[test]
    fn every_field_of_the_frame_counts() {
        assert_eq!(refusal(|bytes| bytes[0] = b'h'), HclError::Signature);
        assert_eq!(refusal(|bytes| bytes[4] = 0), HclError::Version { found: 0 });
        assert_eq!(refusal(|bytes| bytes[4] = 3), HclError::Version { found: 3 });
        assert_eq!(refusal(|bytes| bytes[8] += 1), HclError::Length);
        assert_eq!(refusal(|bytes| bytes[12] = 4), HclError::ReportType { found: 4 });
        assert_eq!(refusal(|bytes| bytes[31] = 1), HclError::ReservedNotZero { offset: 31 });
        assert_eq!(refusal(|bytes| bytes[0x4c0] += 1), HclError::Length);
        assert_eq!(refusal(|bytes| bytes[0x4c4] = 2), HclError::Version { found: 2 });
        assert_eq!(refusal(|bytes| bytes[0x4c8] = 4), HclError::ReportType { found: 4 });
        assert_eq!(refusal(|bytes| bytes[0x4cc] = 2), HclError::HashType { found: 2 });
        assert_eq!(refusal(|bytes| bytes[0x4d0] += 1), HclError::Length);
        assert_eq!(refusal(|bytes| bytes[0x4d6] = 1), HclError::ReservedNotZero { offset: 0x4d6 });
        assert_eq!(refusal(|bytes| bytes.truncate(0x4d5)), HclError::Truncated);
        assert_eq!(refusal(|bytes| bytes.truncate(0x4d3)), HclError::Truncated);
        let found = HCL_BYTES_MAX + 1;
        assert_eq!(refusal(|bytes| bytes.resize(found, 0)), HclError::TooLarge { found });
        let parts = HclReport::from_parts(vec![0; SNP_REPORT_BYTES], vec![0; found - SNP_REPORT_BYTES]);
        assert_eq!(parts, Err(HclError::TooLarge { found }));
    }

    fn key(kid: &str, change: impl Fn(String) -> String) -> String {
        let modulus = BASE64_URL_SAFE_NO_PAD.encode([0x80; 256]);
        change(format!(r#"{{"kid":"{kid}","key_ops":["sign"],"kty":"RSA","e":"AQAB","n":"{modulus}"}}"#))
    }

    fn ak_of(keys: &[String]) -> Result<[u8; 256], HclError> {
        read_ak(format!(r#"{{"keys":[{}],"more":{{"x":[1]}}}}"#, keys.join(",")).as_bytes())
    }

    #[test]
    fn ak_is_the_one_key_of_its_name() {
        let (ak, other) = (key(AK_NAME, |key| key), key("HCLEkPub", |key| key));
        assert_eq!(ak_of(&[other.clone(), ak.clone()]), Ok([0x80; 256]));
        assert_eq!(ak_of(std::slice::from_ref(&other)), Err(HclError::AkMissing));
        assert_eq!(ak_of(&[ak.clone(), ak.clone()]), Err(HclError::KeyRepeated));
        assert_eq!(ak_of(&[other.clone(), ak, other]), Err(HclError::KeyRepeated));
        let many: Vec<String> = (0..9).map(|number| key(&number.to_string(), |key| key)).collect();
        assert_eq!(ak_of(&many), Err(HclError::KeysTooMany { found: 9 }));
    }

    #[test]
    fn ak_of_another_kind_is_refused() {
        let changed = |from: &str, to: &str| ak_of(&[key(AK_NAME, |key| key.replacen(from, to, 1))]);
        for (from, to) in [
            ("RSA", "EC"),
            ("AQAB", "Aw"),
            (r#"["sign"]"#, r#"["sign","encrypt"]"#),
            (r#"["sign"]"#, "[]"),
            ("gICA", "fICA"),
            ("gICA", "gI+A"),
            ("gICAgICA", "gICA"),
        ] {
            assert_eq!(changed(from, to), Err(HclError::AkUnsupported), "{from} to {to}");
        }
        for (from, to) in [(r#""e":"AQAB","#, ""), (r#""e":"AQAB""#, r#""e":"AQAB","e":"AQAB""#), ("{", "")] {
            assert_eq!(changed(from, to), Err(HclError::RuntimeDataMalformed), "{from} to {to}");
        }
        assert_eq!(read_ak(br#"{"keys":[],"keys":[]}"#), Err(HclError::RuntimeDataMalformed));
        assert_eq!(read_ak(br#"{"keys":[]} x"#), Err(HclError::RuntimeDataMalformed));
    }
}
