//! What evidence shows, held against a rule.

use std::collections::BTreeMap;

use attestation::{Claims, EkEndorsement, EvidenceForm, MeasuredLog, Sha256Digest, SnpClaims, lv};

use super::DenialReason;
use crate::names::Name;
use crate::policy::{BareEks, GuestRule, PcrRule, SnpRule};

const MEASUREMENT_TAG: &[u8] = b"weightvault/v1 measurement\0";

/// What evidence shows, whether or not anything says for whom and when it was made. A decision takes it from [`Claims`],
/// which only a fresh binding makes; a tool may look at captured evidence with it.
#[derive(Debug, Clone, Copy)]
pub enum Shown<'a> {
    /// A quote of a TPM.
    Tpm {
        /// Platform id of its EK.
        platform: Sha256Digest,
        /// Who vouches for the EK.
        endorsement: EkEndorsement,
        /// What it quoted.
        pcrs: &'a BTreeMap<u32, [u8; 32]>,
        /// The events that led to it, where a log came along.
        boot: Option<&'a MeasuredLog>,
    },
    /// A report.
    Snp(&'a SnpClaims),
    /// A report beside a TPM that nothing binds to it, which neither helps nor harms.
    SnpUnboundTpm(&'a SnpClaims),
    /// A report, and a quote of the virtual TPM whose AK it endorses.
    AzureSnpVtpm {
        /// The report.
        report: &'a SnpClaims,
        /// What that TPM quoted.
        pcrs: &'a BTreeMap<u32, [u8; 32]>,
        /// The events that led to it, where a log came along.
        boot: Option<&'a MeasuredLog>,
    },
}

impl<'a> From<&'a Claims> for Shown<'a> {
    fn from(claims: &'a Claims) -> Self {
        match claims {
            Claims::Tpm { ek, quote } => {
                let (platform, endorsement) = (ek.platform(), ek.endorsement());
                Self::Tpm { platform, endorsement, pcrs: quote.pcrs(), boot: quote.boot() }
            }
            Claims::Snp(report) => Self::Snp(report),
            Claims::SnpUnboundTpm { report, .. } => Self::SnpUnboundTpm(report),
            Claims::SnpVtpm { report, quote } => Self::AzureSnpVtpm { report, pcrs: quote.pcrs(), boot: quote.boot() },
        }
    }
}

impl Shown<'_> {
    /// Its form.
    pub const fn form(&self) -> EvidenceForm {
        match self {
            Self::Tpm { .. } => EvidenceForm::Tpm,
            Self::Snp(_) => EvidenceForm::Snp,
            Self::SnpUnboundTpm(_) => EvidenceForm::SnpTpm,
            Self::AzureSnpVtpm { .. } => EvidenceForm::AzureSnpVtpm,
        }
    }

    /// Digest of what the guest booted or was launched with, as an `alarm` entry has it (FORMAT.md §8).
    pub fn measurement(&self) -> Sha256Digest {
        let launched = |snp: &SnpClaims| lv(&[b"snp", snp.measurement().as_slice()]);
        let booted = |pcrs: &BTreeMap<u32, [u8; 32]>| {
            let values = pcrs.iter().flat_map(|(index, value)| [index.to_be_bytes().as_slice(), value].concat());
            lv(&[b"tpm", &values.collect::<Vec<u8>>()])
        };
        let measured = match self {
            Self::Tpm { pcrs, .. } => booted(pcrs),
            Self::Snp(report) | Self::SnpUnboundTpm(report) => launched(report),
            Self::AzureSnpVtpm { report, pcrs, .. } => [launched(report), booted(pcrs)].concat(),
        };
        Sha256Digest::of(&[MEASUREMENT_TAG, &measured].concat())
    }

    /// The events that led to what was quoted, where a log came along.
    pub const fn boot(&self) -> Option<&MeasuredLog> {
        match self {
            Self::Tpm { boot, .. } | Self::AzureSnpVtpm { boot, .. } => *boot,
            Self::Snp(_) | Self::SnpUnboundTpm(_) => None,
        }
    }

    /// The form of the evidence, the platform and what it booted: all that a rule asks.
    pub fn check(&self, rule_name: &Name, rule: &GuestRule) -> Result<(), DenialReason> {
        match (rule, self) {
            (GuestRule::Tpm(tpm), Self::Tpm { platform, endorsement, pcrs, boot }) => {
                match (endorsement, tpm.bare_eks) {
                    (EkEndorsement::Enrolled, BareEks::Refused) => {
                        let (rule, platform) = (rule_name.clone(), *platform);
                        return Err(DenialReason::EkWithoutCertificate { rule, platform });
                    }
                    (EkEndorsement::Certificate, BareEks::Refused | BareEks::Enrolled)
                    | (EkEndorsement::Enrolled, BareEks::Enrolled) => {}
                }
                if !tpm.platforms.permits(platform) {
                    return Err(DenialReason::PlatformNotListed { rule: rule_name.clone(), platform: *platform });
                }
                check_pcrs(rule_name, &tpm.pcrs, pcrs, *boot)
            }
            (GuestRule::Snp(snp), Self::Snp(report) | Self::SnpUnboundTpm(report)) => {
                check_report(rule_name, snp, report)
            }
            (GuestRule::SnpParavisorVtpm { snp, pcrs }, Self::AzureSnpVtpm { report, pcrs: quoted, boot }) => {
                check_report(rule_name, snp, report)?;
                check_pcrs(rule_name, pcrs, quoted, *boot)
            }
            (GuestRule::Tpm(_), Self::Snp(_) | Self::SnpUnboundTpm(_) | Self::AzureSnpVtpm { .. })
            | (GuestRule::Snp(_), Self::Tpm { .. } | Self::AzureSnpVtpm { .. })
            | (GuestRule::SnpParavisorVtpm { .. }, Self::Tpm { .. } | Self::Snp(_) | Self::SnpUnboundTpm(_)) => {
                let (required, seen) = (rule.form(), self.form());
                Err(DenialReason::ProofMissing { rule: rule_name.clone(), required, seen })
            }
        }
    }
}

/// Values first, then events: these can be believed only where the log leads to the values.
fn check_pcrs(
    rule_name: &Name,
    rule: &PcrRule,
    quoted: &BTreeMap<u32, [u8; 32]>,
    boot: Option<&MeasuredLog>,
) -> Result<(), DenialReason> {
    rule.check(quoted).map_err(|mismatch| DenialReason::PcrNotAllowed {
        rule: rule_name.clone(),
        allowed: rule.allowed().get(&mismatch.index).cloned().unwrap_or_default(),
        mismatch,
    })?;
    match rule.boot() {
        Some(asked) => {
            asked.check(boot).map_err(|mismatch| DenialReason::BootNotAllowed { rule: rule_name.clone(), mismatch })
        }
        None => Ok(()),
    }
}

fn check_report(rule_name: &Name, rule: &SnpRule, report: &SnpClaims) -> Result<(), DenialReason> {
    rule.check(report).map_err(|mismatch| DenialReason::ReportNotAllowed { rule: rule_name.clone(), mismatch })
}
