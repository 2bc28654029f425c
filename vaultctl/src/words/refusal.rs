//! What was expected of captured evidence, and what was seen.

use attestation::{
    CertificateError, HclError, QuoteStatement, Report, SnpCertificate, SnpError, SnpProduct, VerifyError,
};

use crate::captured::{Captured, MadeFor};

/// What a refusal is about: the evidence, and what the caller says that it must have been made over.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// Nothing where it could not even be read.
    pub evidence: Option<&'a Captured>,
    /// As the caller says.
    pub made_for: MadeFor<'a>,
}

/// Reads a report for showing. One of version 2 does not name its product; all that it can be from lay fields out alike.
pub fn read_report(bytes: &[u8]) -> Result<Report, SnpError> {
    match Report::parse(bytes, None) {
        Err(SnpError::ReportProductUnknown) => Report::parse(bytes, Some(SnpProduct::Milan)),
        read => read,
    }
}

impl Refused<'_> {
    /// What was expected, and what was seen.
    pub fn expected_and_seen(&self, error: &VerifyError) -> (String, String) {
        match error {
            VerifyError::Snp(error) => self.of_report(error),
            VerifyError::Hcl(error) => of_hcl(error),
            VerifyError::ExtraDataMismatch => {
                let attest = self.evidence.and_then(Captured::attest);
                let statement = attest.and_then(|attest| QuoteStatement::parse(attest).ok());
                let expected = self.made_for.extra_data.map(hex::encode).unwrap_or_default();
                (expected, statement.map(|statement| hex::encode(statement.extra_data)).unwrap_or_default())
            }
            error => (of_quote(error).to_owned(), error.to_string()),
        }
    }

    fn report(&self) -> Option<Report> {
        read_report(&self.evidence?.report()?.report).ok()
    }

    fn of_report(&self, error: &SnpError) -> (String, String) {
        use SnpError as E;
        let report = self.report();
        let seen = |read: &dyn Fn(&Report) -> String| report.as_ref().map_or_else(|| error.to_string(), read);
        let its = |expected: &str, seen: String| (expected.to_owned(), seen);
        match error {
            E::ReportDataMismatch => {
                let expected = self.made_for.report_data.map(hex::encode).unwrap_or_default();
                (expected, seen(&|report| hex::encode(report.report_data())))
            }
            E::LeafTcbMismatch { component } => {
                let part = |report: &Report| report.reported_tcb().component(*component).map(|level| level.to_string());
                let expected = format!("the {component} that the VCEK or VLEK was issued for");
                (expected, seen(&|report| part(report).unwrap_or_default()))
            }
            E::ChipMismatch => its("the chip id in the VCEK", seen(&|report| hex::encode(report.chip_id()))),
            E::ReportedAboveCurrent { .. } => {
                let expected = seen(&|report| format!("at most the current TCB: {}", report.current_tcb()));
                (expected, seen(&|report| report.reported_tcb().to_string()))
            }
            E::CommittedAboveCurrent { .. } => {
                let expected = seen(&|report| format!("at most the current TCB: {}", report.current_tcb()));
                (expected, seen(&|report| report.committed_tcb().to_string()))
            }
            E::Debug => its("guest policy without DEBUG (bit 19)", seen(&policy_bits)),
            E::MigrationAllowed => its("guest policy without MIGRATE_MA (bit 18)", seen(&policy_bits)),
            E::MigrationAgent => {
                its("REPORT_ID_MA all ones: no migration agent", seen(&|report| hex::encode(report.report_id_ma())))
            }
            E::ReportReservedNotZero { offset } => {
                let byte = self.evidence.and_then(|evidence| evidence.report()?.report.get(*offset));
                let seen = byte.map_or_else(|| "another value".to_owned(), |byte| format!("{byte:#04x}"));
                (format!("00h at offset {offset:#x}"), seen)
            }
            error => of_report_alone(error),
        }
    }
}

fn policy_bits(report: &Report) -> String {
    format!("{:#x}", report.policy().bits())
}

/// Refusals whose values are in the error.
fn of_report_alone(error: &SnpError) -> (String, String) {
    use SnpError as E;
    let its = |expected: &str, seen: String| (expected.to_owned(), seen);
    match *error {
        E::ReportLength { found } => its("1184 bytes", found.to_string()),
        E::ReportVersion { found } => its("2 to 5", found.to_string()),
        E::ReportSignatureAlgorithm { found } => its("1: ECDSA on P-384 with SHA-384", found.to_string()),
        E::KeyInfoUnknown { bits } => its("bits 5 to 31 zero", format!("{bits:#x}")),
        E::ReportUnsigned => its("0 (VCEK) or 1 (VLEK)", "7: no key".to_owned()),
        E::SigningKeyUnknown { found } => its("0 (VCEK) or 1 (VLEK)", found.to_string()),
        E::PolicyBitsUnknown { bits } => its("bits 26 to 63 zero", format!("{bits:#x}")),
        E::PolicyReservedBitClear => its("bit 17 one", "zero".to_owned()),
        E::PlatformInfoUnknown { bits } => its("bits 8 to 63 zero", format!("{bits:#x}")),
        E::CpuUnknown { family, model } => {
            its("Milan, Genoa or Turin", format!("family {family:#04x}, model {model:#04x}"))
        }
        E::ReportProductMismatch { chain, report } => (chain.to_string(), report.to_string()),
        E::LeafProductMismatch { issuers, leaf } => (issuers.to_string(), leaf.to_string()),
        E::SigningKeyMismatch { leaf, report } => (leaf.to_string(), report.to_string()),
        E::VmplUnknown { found } => its("0 to 3", found.to_string()),
        E::CertificatesTooMany { found } => its("at most 3", found.to_string()),
        E::CrlsTooMany { found } => its("at most 2", found.to_string()),
        E::CrlTooLarge { found } => its("at most 65536 bytes", found.to_string()),
        E::Certificate { certificate, error } => {
            (format!("{certificate}: {}", of_certificate(&error)), error.to_string())
        }
        ref error => (of_chain(error), error.to_string()),
    }
}

/// What a chain must be like.
fn of_chain(error: &SnpError) -> String {
    use SnpError as E;
    let expected = match error {
        E::ReportSignatureInvalid => "a signature of the VCEK or VLEK over these bytes",
        E::ReportProductUnknown => "a chain that says which processor a report of version 2 is from",
        E::RootUnknown => "an ARK whose key is AMD's, or an anchor of the policy",
        E::RootProduct => "the ARK of the product in its name",
        E::LeafKey => "a key on P-384",
        E::LeafIsAuthority => "a certificate that may not issue others",
        E::LeafKeyUsage => "a key for signing",
        E::ChipMasked => "the chip id in the report",
        E::CrlMissing | E::CrlNotYetValid | E::CrlStale => "a revocation list in force",
        E::CrlMalformed | E::CrlVersion | E::CrlExtension | E::CrlNextUpdateMissing => {
            "one whole X.509 revocation list of version 2, with a next update"
        }
        E::CrlIssuer | E::CrlPss | E::CrlSignatureInvalid => "a revocation list that this chain's ARK signed",
        E::ChainChanged => "the chain that was verified before",
        E::CertificateMissing(which) => return format!("the certificate of the {which} among those given"),
        E::CertificatePss(which) => return format!("{which}: RSA-PSS with SHA-384 and 48 bytes of salt"),
        E::CertificateRsaKey(which) => return format!("{which}: RSA-4096 with exponent 65537"),
        E::CertificateName(which) => return format!("{which}: {}", name_of(*which)),
        E::Revoked(which) => return format!("{which} that AMD has not revoked"),
        E::LeafExtensionMissing { extension }
        | E::LeafExtensionMalformed { extension }
        | E::LeafExtensionUnexpected { extension } => return format!("{extension} as AMD's scheme has it"),
        E::ReportLength { .. }
        | E::ReportVersion { .. }
        | E::ReportSignatureAlgorithm { .. }
        | E::KeyInfoUnknown { .. }
        | E::ReportUnsigned
        | E::SigningKeyUnknown { .. }
        | E::PolicyBitsUnknown { .. }
        | E::PolicyReservedBitClear
        | E::PlatformInfoUnknown { .. }
        | E::ReportReservedNotZero { .. }
        | E::CpuUnknown { .. }
        | E::ReportProductMismatch { .. }
        | E::CertificatesTooMany { .. }
        | E::Certificate { .. }
        | E::LeafProductMismatch { .. }
        | E::SigningKeyMismatch { .. }
        | E::CrlsTooMany { .. }
        | E::CrlTooLarge { .. }
        | E::LeafTcbMismatch { .. }
        | E::ChipMismatch
        | E::ReportedAboveCurrent { .. }
        | E::CommittedAboveCurrent { .. }
        | E::Debug
        | E::MigrationAllowed
        | E::MigrationAgent
        | E::VmplUnknown { .. }
        | E::ReportDataMismatch => "a report as AMD's firmware writes it",
    };
    expected.to_owned()
}

const fn name_of(which: SnpCertificate) -> &'static str {
    match which {
        SnpCertificate::Leaf => "SEV-VCEK or SEV-VLEK",
        SnpCertificate::Intermediate => "SEV-PRODUCT beside a VCEK, SEV-VLEK-PRODUCT beside a VLEK",
        SnpCertificate::Root => "ARK-PRODUCT",
    }
}

const fn of_certificate(error: &CertificateError) -> &'static str {
    use CertificateError as E;
    match error {
        E::Expired | E::NotYetValid => "valid at --now",
        E::Malformed | E::TooLarge { .. } | E::Version => "one X.509 v3 certificate in DER, at most 4 KiB",
        E::SignatureAlgorithmMismatch | E::SignatureAlgorithmUnsupported | E::KeyUnsupported => {
            "an algorithm that is known here"
        }
        E::ExtensionRepeated | E::ExtensionMalformed | E::CriticalExtensionUnknown => "extensions that are known here",
        E::IssuerMismatch | E::SignatureInvalid => "signed by its issuer",
        E::NotAuthority | E::NotCertificateSigner | E::PathTooLong => "an authority that may issue it",
        E::NotForEndorsement | E::EkIsAuthority | E::EkKeyUsage | E::EkSubjectAltName | E::EkKeyUnsupported => {
            "the certificate of an RSA-2048, P-256 or P-384 EK by the TCG's profile"
        }
        E::EkPoint => "04, x, y of a point on the curve that the key names",
    }
}

fn of_hcl(error: &HclError) -> (String, String) {
    use HclError as E;
    let its = |expected: &str, seen: String| (expected.to_owned(), seen);
    match *error {
        E::Version { found } => its("1 or 2", found.to_string()),
        E::ReportType { found } => its("2: SEV-SNP", found.to_string()),
        E::HashType { found } => its("1: SHA-256", found.to_string()),
        E::Vmpl { found } => its("0, where the paravisor runs", found.to_string()),
        E::KeysTooMany { found } => its("at most 8", found.to_string()),
        E::TooLarge { found } => its("at most 16384 bytes", found.to_string()),
        E::ReservedNotZero { offset } => (format!("00h at offset {offset:#x}"), "another value".to_owned()),
        E::RuntimeDataMismatch => its("REPORT_DATA = SHA-256 of the runtime data, then zeros", error.to_string()),
        E::Truncated | E::Signature | E::Length => its("one whole HCL report", error.to_string()),
        E::ReportChanged => its("the report in the HCL report", error.to_string()),
        E::RuntimeDataMalformed | E::KeyRepeated => its("JSON with each key named once", error.to_string()),
        E::AkMissing | E::AkUnsupported => its("an RSA-2048 signing key HCLAkPub", error.to_string()),
        E::AkMismatch => its("the AK that the report endorses", error.to_string()),
    }
}

const fn of_quote(error: &VerifyError) -> &'static str {
    use VerifyError as E;
    match error {
        E::EkCertificateMissing => "the certificate of the EK, with --chain",
        E::EkCertificatesTooMany { .. } => "at most 6 certificates",
        E::EkCertificate { error, .. } => of_certificate(error),
        E::EkNotEnrolled { .. } => "an EK with a certificate, or one that `vaultctl platform add` has enrolled",
        E::EkTemplateUnknown | E::EkPublicMalformed(_) => {
            "the public area of an EK by template L-1 (RSA-2048), L-2 (P-256) or H-3 (P-384)"
        }
        E::EkPublicKey(error) => of_certificate(error),
        E::EkPublicOtherKey => "the public area of the key that the certificate is for",
        E::EkAnchorUnknown => "an anchor that issued the chain, under [[anchors]] of --policy",
        E::AkMalformed(_)
        | E::AkTypeUnsupported { .. }
        | E::AkNameAlgorithm { .. }
        | E::AkNotFixedTpm
        | E::AkNotFixedParent
        | E::AkNotMadeByTpm
        | E::AkNotRestricted
        | E::AkNotSigning
        | E::AkDecrypts
        | E::AkAttributesUnknown { .. }
        | E::AkSymmetric { .. }
        | E::AkScheme { .. }
        | E::AkCurve { .. }
        | E::AkKdf { .. }
        | E::AkKeyBits { .. }
        | E::AkExponent { .. }
        | E::AkKeyMalformed => {
            "a restricted signing key that never leaves its TPM: ECDSA P-256 or RSASSA 2048, SHA-256"
        }
        E::FormMismatch => "evidence of the kind that --kind names",
        E::QuoteMissing => "a quote",
        E::IdentityChanged | E::AkNotBound => "a quote of the AK that was named",
        E::SignatureMalformed(_) | E::SignatureScheme { .. } | E::SignatureInvalid => {
            "a signature of the AK over the quote"
        }
        E::AttestMalformed(_) | E::AttestMagic | E::AttestNotQuote { .. } | E::AttestSigner => {
            "a quote that a TPM made"
        }
        E::ExtraDataMismatch => "the extraData that was asked for",
        E::PcrSelectionMismatch => "PCRs of the SHA-256 bank alone, all of them with a value",
        E::PcrValuesMismatch => "a value for each quoted PCR",
        E::PcrDigestMismatch => "PCR values whose digest was quoted",
        E::Snp(_) | E::Hcl(_) => "a report that verifies",
    }
}
