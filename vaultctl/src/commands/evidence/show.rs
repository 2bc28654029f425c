//! A file explained, field by field. Nothing of it is verified.

use std::fmt;
use std::path::Path;

use attestation::{
    AttestationKey, AzureEvidence, CertificateTable, EventLog, EventLogError, Evidence, HclReport, QuoteStatement,
    Sha256Digest, TableEntry, TpmQuote, VerifyError,
};
use serde::Serialize;
use vault_proto::limits::BLOB_BYTES_MAX;

use crate::captured::Detected;
use crate::failure::{Failure, Kind};
use crate::session::read;
use crate::words::{
    BootSays, Explained, Section, explain_boot, explain_events, explain_identity, explain_pcrs, explain_quote,
    explain_replay, explain_report, explain_runtime_data, read_report,
};

/// What a file says.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ShowReport {
    /// Always false: what it was made for is not in it.
    verified: bool,
    /// SHA-256 of the file.
    digest: String,
    /// What it is.
    form: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ek_certificates: Vec<Sha256Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ak_name: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pcrs: Vec<Pcr>,
    /// What an event log says.
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<BootSays>,
    sections: Vec<Section>,
    #[serde(skip)]
    next: &'static str,
}

#[derive(Debug, Serialize)]
struct Pcr {
    index: u32,
    sha256: String,
}

pub(crate) fn show(file: &Path) -> Result<ShowReport, Failure> {
    let bytes = read(file, BLOB_BYTES_MAX)?;
    let mut shown = ShowReport { digest: Sha256Digest::of(&bytes).to_string(), ..ShowReport::default() };
    let detected = Detected::of(&bytes).ok_or_else(|| unknown(file))?;
    let explained = match detected {
        Detected::Set(set) => {
            if let Some(log) = &set.event_log {
                shown.event_log(log).map_err(|error| broken(file, error.code(), &error))?;
            }
            shown.set(set.evidence)
        }
        Detected::Report(report) => shown.bare("an SNP report", KIND_SNP).report(report),
        Detected::Hcl(hcl) => shown.bare("an HCL report of Azure", KIND_AZURE).hcl(hcl),
        Detected::Table(table) => {
            shown.bare("a certificate table of a host", CHAIN).table(&table);
            Ok(())
        }
        Detected::Attest(attest) => shown.bare("a TPM quote", KIND_TPM).attest(attest),
        Detected::EventLog(log) => {
            shown
                .bare("a TCG event log", KIND_LOG)
                .event_log(log)
                .map_err(|error| broken(file, error.code(), &error))?;
            Ok(())
        }
    };
    explained.map_err(|error| broken(file, error.code(), &error))?;
    Ok(shown)
}

fn broken(file: &Path, code: &'static str, why: &dyn fmt::Display) -> Failure {
    Failure::new(Kind::Usage, code, format!("{} is not what it looks like", file.display())).why(why)
}

const KIND_SNP: &str = "`vaultctl evidence verify --kind snp --report FILE --chain FILE --now TIME` verifies it.";
const KIND_AZURE: &str = "`vaultctl evidence verify --kind azure-snp-vtpm --report FILE --chain FILE --quote FILE … --now \
                          TIME` verifies it.";
const KIND_TPM: &str = "`vaultctl evidence verify --kind tpm --quote FILE … --now TIME` verifies it.";
const KIND_LOG: &str = "`vaultctl evidence verify --kind tpm --quote FILE … --event-log FILE --now TIME` holds it against a \
                        quote.";
const CHAIN: &str = "`--chain FILE` of `vaultctl evidence verify` takes it.";
const SET: &str = "`vaultctl evidence verify --entry INDEX` verifies the evidence of an entry; with --kind and --report FILE \
                   all of it that needs no challenge.";

fn unknown(file: &Path) -> Failure {
    Failure::new(Kind::Usage, "evidence-unknown", format!("{} is nothing that is known here", file.display()))
        .why("it is no evidence set, SNP report, HCL report, certificate table, TPM quote or event log")
        .next("give the blob that an entry of the log names under `evidence`, or a file as the machine wrote it")
}

impl ShowReport {
    fn bare(&mut self, form: &str, next: &'static str) -> &mut Self {
        (self.form, self.next) = (form.to_owned(), next);
        self
    }

    fn set(&mut self, evidence: Evidence) -> Result<(), VerifyError> {
        (self.form, self.next) = (evidence.form().to_string(), SET);
        match evidence {
            Evidence::Tpm(quote) => self.tpm(&quote),
            Evidence::Snp(snp) => {
                self.report(&snp.report)?;
                self.certificates(&snp.certificates, &snp.crls);
                Ok(())
            }
            Evidence::SnpTpm { report, quote } => {
                self.report(&report.report)?;
                self.certificates(&report.certificates, &report.crls);
                self.tpm(&quote)
            }
            Evidence::AzureSnpVtpm(azure) => self.azure(&azure),
        }
    }

    fn report(&mut self, bytes: &[u8]) -> Result<(), VerifyError> {
        self.sections.push(explain_report(&read_report(bytes)?));
        Ok(())
    }

    fn hcl(&mut self, bytes: &[u8]) -> Result<(), VerifyError> {
        let hcl = HclReport::parse(bytes)?;
        self.report(hcl.report())?;
        self.sections.push(explain_runtime_data(&hcl));
        Ok(())
    }

    fn azure(&mut self, azure: &AzureEvidence) -> Result<(), VerifyError> {
        self.hcl(&azure.hcl_report)?;
        self.certificates(&azure.certificates, &azure.crls);
        self.ak(&azure.ak_public);
        self.quote(&azure.quote.attest, &azure.quote.pcrs)
    }

    fn tpm(&mut self, quote: &TpmQuote) -> Result<(), VerifyError> {
        self.sections.push(explain_identity(&quote.identity));
        self.ek_certificates = quote.identity.ek_certificates.iter().map(|der| Sha256Digest::of(der)).collect();
        self.ak(&quote.identity.ak_public);
        self.quote(&quote.attest, &quote.pcrs)
    }

    fn ak(&mut self, public: &[u8]) {
        self.ak_name = AttestationKey::parse(public).ok().map(|ak| hex::encode(ak.name().as_bytes()));
    }

    fn attest(&mut self, attest: &[u8]) -> Result<(), VerifyError> {
        self.sections.push(explain_quote(&QuoteStatement::parse(attest)?));
        Ok(())
    }

    fn event_log(&mut self, bytes: &[u8]) -> Result<(), EventLogError> {
        let log = EventLog::parse(bytes)?;
        self.sections.push(explain_events(&log));
        let says = BootSays::of(&log, |_| true);
        self.sections.extend(explain_replay(&log.replay()));
        self.sections.push(explain_boot(&says));
        self.boot = Some(says);
        Ok(())
    }

    fn quote(&mut self, attest: &[u8], pcrs: &[(u32, [u8; 32])]) -> Result<(), VerifyError> {
        let quote = QuoteStatement::parse(attest)?;
        self.sections.extend([explain_quote(&quote), explain_pcrs(pcrs, Some(&quote))]);
        self.pcrs = pcrs.iter().map(|(index, value)| Pcr { index: *index, sha256: hex::encode(value) }).collect();
        Ok(())
    }

    fn certificates(&mut self, certificates: &[Vec<u8>], crls: &[Vec<u8>]) {
        let field =
            |name: &'static str, meaning| move |der: &Vec<u8>| Explained::new(name, Sha256Digest::of(der), meaning);
        let mut fields: Vec<Explained> =
            certificates.iter().map(field("certificate", "leaf, issuer, root; SHA-256 of its DER")).collect();
        fields.extend(crls.iter().map(field("revocation list", "SHA-256 of its DER")));
        if certificates.is_empty() {
            let none = Explained::new("certificates", "none", "the chain of the key that signed the report");
            fields.push(none.look_if(true, "without a chain it can't be verified"));
        }
        self.sections.push(Section { title: "Chain".to_owned(), fields });
    }

    fn table(&mut self, table: &CertificateTable<'_>) {
        let fields = table.iter().map(|(kind, data)| {
            let (name, meaning) = match kind {
                TableEntry::Vcek => ("VCEK", "certificate of the chip's own key"),
                TableEntry::Vlek => ("VLEK", "certificate of the cloud's key"),
                TableEntry::Ask => ("ASK", "issuer of the leaf; beside a VLEK the ASVK"),
                TableEntry::Ark => ("ARK", "AMD's root"),
                TableEntry::Crl => ("CRL", "revocation list"),
            };
            let value = format!("{} bytes, {}", data.len(), Sha256Digest::of(data));
            Explained::new(name, value, meaning).look_if(data.is_empty(), "empty: the host has none")
        });
        let (title, fields) = ("Certificate table".to_owned(), fields.collect());
        self.sections.push(Section { title, fields });
    }
}

impl fmt::Display for ShowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "NOT VERIFIED. This is what the file says; anybody can write such a file.")?;
        writeln!(f, "{} ({})", self.form, self.digest)?;
        self.sections.iter().try_for_each(|section| write!(f, "\n{section}"))?;
        let looks = self.sections.iter().flat_map(|section| &section.fields).filter(|line| line.second_look.is_some());
        writeln!(f, "\nFields that deserve a second look: {} (marked !)", looks.count())?;
        writeln!(f, "{}", self.next)
    }
}
