//! Evidence in words, and as it is pasted into a policy.

use std::fmt;
use std::path::Path;

use attestation::{EkKind, EkPublic, Sha256Digest, TpmQuote, VerifyError};
use serde::Serialize;

use super::certificate::CertificateReport;
use crate::failure::plain;
use crate::tpm::{TpmClock, TpmObject, TpmProperties};

/// TPMA_OBJECT (TPM 2.0 Part 2, "TPMA_OBJECT"): the bits that a key can have set.
const ATTRIBUTES: [(u32, &str); 13] = [
    (1 << 1, "fixedTPM"),
    (1 << 2, "stClear"),
    (1 << 4, "fixedParent"),
    (1 << 5, "sensitiveDataOrigin"),
    (1 << 6, "userWithAuth"),
    (1 << 7, "adminWithPolicy"),
    (1 << 8, "firmwareLimited"),
    (1 << 10, "noDA"),
    (1 << 11, "encryptedDuplication"),
    (1 << 16, "restricted"),
    (1 << 17, "decrypt"),
    (1 << 18, "sign"),
    (1 << 19, "x509sign"),
];

/// What this machine would send.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    tpm: Maker,
    platform: Sha256Digest,
    ek: EkReport,
    ek_certificates: Vec<CertificateReport>,
    ak: AkReport,
    pcrs: Vec<Pcr>,
    clock_ms: u64,
    reset_count: u32,
    restart_count: u32,
    clock_safe: bool,
    quote: QuoteReport,
    /// How long the event log in the evidence set is; nothing where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_log_bytes: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Maker {
    manufacturer: String,
    vendor: String,
    firmware_version: String,
}

/// The endorsement key, with or without a certificate.
#[derive(Debug, Serialize)]
pub(super) struct EkReport {
    kind: &'static str,
    name: String,
    platform: Sha256Digest,
    /// TPMT_PUBLIC.
    public: String,
}

/// An attestation key of the kind that an agent makes.
#[derive(Debug, Serialize)]
pub(super) struct AkReport {
    name: String,
    attributes: Vec<&'static str>,
    /// The code by which a keeper would refuse it.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Pcr {
    index: u32,
    sha256: String,
}

#[derive(Debug, Serialize)]
struct QuoteReport {
    nonce: String,
    attest: String,
    signature: String,
    evidence: Sha256Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

impl EkReport {
    pub(super) fn new(ek: &EkPublic, public: &[u8]) -> Self {
        let kind = match ek.kind() {
            EkKind::Rsa2048 => "rsa-2048",
            EkKind::EccP256 => "ecc-p256",
            EkKind::EccP384 => "ecc-p384",
        };
        Self { kind, name: hex::encode(ek.name()), platform: ek.platform(), public: hex::encode(public) }
    }
}

impl AkReport {
    pub(super) fn new(ak: &TpmObject, accepted: Result<(), VerifyError>) -> Self {
        // TPMT_PUBLIC: type, nameAlg, objectAttributes.
        let bits = ak.public.get(4..8).and_then(|bits| bits.try_into().ok()).map_or(0, u32::from_be_bytes);
        Self {
            name: hex::encode(ak.name().as_bytes()),
            attributes: attributes(bits),
            refused: accepted.err().map(|error| error.code()),
        }
    }
}

fn attributes(bits: u32) -> Vec<&'static str> {
    ATTRIBUTES.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect()
}

impl Report {
    #[expect(clippy::too_many_arguments, reason = "each is one answer of the TPM")]
    pub(super) fn new(
        tpm: TpmProperties,
        ek: EkReport,
        ek_certificates: Vec<CertificateReport>,
        ak: AkReport,
        quote: &TpmQuote,
        clock: TpmClock,
        nonce: [u8; 32],
        evidence: Sha256Digest,
        file: Option<&Path>,
        event_log_bytes: Option<usize>,
    ) -> Self {
        Self {
            tpm: Maker {
                manufacturer: tpm.manufacturer,
                vendor: tpm.vendor,
                firmware_version: format!("{:#x}", tpm.firmware_version),
            },
            platform: ek.platform,
            ek,
            ek_certificates,
            ak,
            pcrs: quote.pcrs.iter().map(|(index, value)| Pcr { index: *index, sha256: hex::encode(value) }).collect(),
            clock_ms: clock.clock,
            reset_count: clock.reset_count,
            restart_count: clock.restart_count,
            clock_safe: clock.safe,
            quote: QuoteReport {
                nonce: hex::encode(nonce),
                attest: hex::encode(&quote.attest),
                signature: hex::encode(&quote.signature),
                evidence,
                file: file.map(|path| path.display().to_string()),
            },
            event_log_bytes,
        }
    }

    pub(super) fn print(&self, json: bool) {
        match serde_json::to_string_pretty(self) {
            Ok(text) if json => println!("{text}"),
            _ => println!("{}", plain(self.to_string().trim_end())),
        }
    }
}

/// `pcrs = { 0 = ["…"], 7 = ["…"] }`, TOML.
fn toml_pcrs(pcrs: &[Pcr]) -> String {
    let values: Vec<String> = pcrs.iter().map(|pcr| format!("{} = [\"{}\"]", pcr.index, pcr.sha256)).collect();
    format!("pcrs = {{ {} }}", values.join(", "))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Maker { manufacturer, vendor, firmware_version } = &self.tpm;
        writeln!(f, "TPM:       {manufacturer} {vendor}, firmware {firmware_version}")?;
        writeln!(f, "EK:        {} {}\n  key:     {}", self.ek.kind, self.ek.name, self.ek.platform)?;
        if self.ek_certificates.is_empty() {
            writeln!(f, "  no certificate: a rule takes it only where `vaultctl platform add` has enrolled it")?;
        }
        for (index, certificate) in self.ek_certificates.iter().enumerate() {
            writeln!(f, "{}", if index == 0 { "EK certificate" } else { "issued by" })?;
            writeln!(f, "  subject: {}\n  issuer:  {}", certificate.subject, certificate.issuer)?;
            writeln!(f, "  until:   {}\n  key:     {}", certificate.not_after, certificate.key)?;
        }
        writeln!(f, "AK:        {} (made for this call)", self.ak.name)?;
        writeln!(f, "  {}", self.ak.attributes.join(" "))?;
        if let Some(code) = self.ak.refused {
            writeln!(f, "  WARNING: a keeper would refuse this key ({code})")?;
        }
        let safe = if self.clock_safe { "" } else { ", clock not safe (it may have gone back)" };
        writeln!(
            f,
            "boot:      reset {}, restart {}, TPM powered for {} s{safe}",
            self.reset_count,
            self.restart_count,
            self.clock_ms / 1_000
        )?;
        writeln!(f, "quote:     over the nonce {}, evidence {}", self.quote.nonce, self.quote.evidence)?;
        if let Some(file) = &self.quote.file {
            writeln!(f, "  written: {file}")?;
        }
        match self.event_log_bytes {
            Some(bytes) => writeln!(f, "event log: {bytes} bytes, in the evidence")?,
            None => writeln!(f, "event log: none that can be read here; rules on events need it (--event-log FILE)")?,
        }
        if let Some(zero) = self.pcrs.iter().find(|pcr| pcr.sha256.bytes().all(|digit| digit == b'0')) {
            writeln!(f, "WARNING: PCR {} is zero: nothing was measured into it", zero.index)?;
        }
        writeln!(f, "\nFor a policy, if this is the machine and software that you mean:\n")?;
        writeln!(f, "{}", toml_pcrs(&self.pcrs))?;
        writeln!(f, "eks = [\"{}\"]", self.platform)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcrs_are_ready_for_a_policy() {
        let pcrs = [0, 11].map(|index| Pcr { index, sha256: hex::encode([index as u8; 32]) });
        let line = toml_pcrs(&pcrs);
        let table: toml::Table = line.parse().unwrap();
        assert_eq!(table["pcrs"]["11"][0].as_str(), Some(hex::encode([11; 32]).as_str()));
    }

    #[test]
    fn attributes_have_their_names() {
        assert_eq!(
            attributes(0x0005_0472),
            ["fixedTPM", "fixedParent", "sensitiveDataOrigin", "userWithAuth", "noDA", "restricted", "sign"]
        );
    }
}
