//! `vaultctl policy draft`: a strict release rule out of captured evidence.

mod boot;
mod render;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use attestation::{
    CrlRule, EventLogError, EvidenceForm, Report, Sha256Digest, SigningKey, TrustAnchors, VerifyError, chip_platform,
    csp_platform,
};
use ledger::names::Name;
use serde::Serialize;
use vault_proto::limits::BLOB_BYTES_MAX;

use self::boot::BootSource;
use super::read_policy;
use crate::captured::{Captured, Detected, Given, Holds, MadeFor, load};
use crate::cli::{EvidenceKind, PolicyDraftArgs};
use crate::failure::{Failure, Kind};
use crate::print::moment;
use crate::session::{Session, read};
use crate::words::read_report;

/// A rule to be pasted into a policy.
#[derive(Debug, Serialize)]
pub(crate) struct Draft {
    /// Whether the evidence verified. If not, the rule says what somebody claims.
    verified: bool,
    kind: &'static str,
    rule: Name,
    /// `[release.NAME]`, and hints for `[keeper]` as comments.
    toml: String,
}

/// What a rule is written from.
struct Source {
    kind: EvidenceKind,
    /// Where it verified: when, and under which anchor.
    verified: Option<String>,
    report: Option<SourceReport>,
    pcrs: BTreeMap<u32, [u8; 32]>,
    /// Of the EK, where a TPM is what proves.
    ek: Option<Sha256Digest>,
    /// What the event log shows, where one led to the quote.
    boot: Option<BootSource>,
}

struct SourceReport {
    report: Report,
    /// Of the chip; of the cloud, where its key signed.
    platform: Sha256Digest,
    csp: Option<String>,
}

pub(crate) fn draft(session: &Session, args: &PolicyDraftArgs) -> Result<Draft, Failure> {
    let rule: Name = args.name.parse().map_err(|error| {
        Failure::new(Kind::Usage, "name-malformed", format!("{:?} is not a name", args.name)).why(error)
    })?;
    let kind = match args.kind {
        Some(kind) => kind,
        None => detect(args.from.as_deref())?,
    };
    let anchors = match &args.policy {
        Some(file) => read_policy(file)?.0.trust_anchors().clone(),
        None => TrustAnchors::built_in(),
    };
    let Given { evidence, event_log } = load(kind, args.from.as_deref(), &args.beside)?;
    let evidence = evidence.map_err(|error| refused(&error))?;
    let source = if can_verify(&evidence, args) {
        let now = args.now.unwrap_or(session.now());
        let holds = evidence.verify(MadeFor::default(), &anchors, CrlRule::IfPresent, now);
        let holds = holds.map_err(|error| refused(&error))?;
        Source { boot: boot(&holds, event_log.as_deref(), args)?, ..verified(kind, &holds, moment(now)) }
    } else if event_log.is_some() {
        return Err(Failure::new(
            Kind::Usage,
            "event-log-unverified",
            "no rule is written from a log without a verified quote",
        )
        .next("give what verifies the quote: --chain, and for a TPM --policy with the anchor of its EK"));
    } else {
        claimed(kind, &evidence)?
    };
    let toml = source.render(&rule);
    Ok(Draft { verified: source.verified.is_some(), kind: kind.as_str(), rule, toml })
}

fn detect(from: Option<&Path>) -> Result<EvidenceKind, Failure> {
    let Some(path) = from else { return Ok(EvidenceKind::Tpm) };
    let form = match Detected::of(&read(path, BLOB_BYTES_MAX)?) {
        Some(Detected::Report(_)) => Some(EvidenceForm::Snp),
        Some(Detected::Hcl(_)) => Some(EvidenceForm::AzureSnpVtpm),
        Some(Detected::Set(set)) => Some(set.evidence.form()),
        Some(Detected::Table(_) | Detected::Attest(_) | Detected::EventLog(_)) | None => None,
    };
    match form {
        Some(EvidenceForm::Snp | EvidenceForm::SnpTpm) => Ok(EvidenceKind::Snp),
        Some(EvidenceForm::AzureSnpVtpm) => Ok(EvidenceKind::AzureSnpVtpm),
        Some(EvidenceForm::Tpm) => Ok(EvidenceKind::Tpm),
        None => {
            let what = format!("{} is not evidence that a rule can be written from", path.display());
            Err(Failure::new(Kind::Usage, "evidence-unknown", what).next(
                "give an evidence blob, an SNP report or an HCL report; `vaultctl evidence show` says what it is",
            ))
        }
    }
}

/// Whether there is something to verify it with. A chain that was given must hold.
fn can_verify(evidence: &Captured, args: &PolicyDraftArgs) -> bool {
    match evidence.report() {
        Some(report) => !report.certificates.is_empty() || !args.beside.chain.is_empty(),
        None => args.policy.is_some(),
    }
}

fn refused(error: &VerifyError) -> Failure {
    Failure::new(Kind::NotVerified, error.code(), "no rule is written from evidence that does not hold")
        .why(error)
        .next("`vaultctl evidence verify --kind …` says what was expected and seen")
}

fn boot(holds: &Holds, log: Option<&[u8]>, args: &PolicyDraftArgs) -> Result<Option<BootSource>, Failure> {
    let Some(log) = log else { return Ok(None) };
    let refused = |error: EventLogError| {
        Failure::new(Kind::NotVerified, error.code(), "no rule is written from a log that the quote does not bear")
            .why(error)
            .next("`vaultctl evidence verify --kind … --event-log FILE` says what was expected and seen")
    };
    let quote = holds.quote().ok_or_else(|| refused(EventLogError::QuoteMissing))?;
    BootSource::of(log, quote, args.command_line.as_deref()).map(Some).map_err(refused)
}

fn verified(kind: EvidenceKind, holds: &Holds, now: String) -> Source {
    let report = holds.report().map(|claims| SourceReport {
        report: claims.report().clone(),
        platform: claims.platform(),
        csp: claims.csp_id().map(str::to_owned),
    });
    let ek = match holds {
        Holds::Tpm { ek, .. } => Some(ek.platform),
        Holds::Snp(_) | Holds::Azure { .. } => None,
    };
    let pcrs = holds.quote().map(|quote| quote.state.pcrs.clone()).unwrap_or_default();
    let verified = Some(format!("{now} under {} ({})", holds.anchor(), holds.trust()));
    Source { kind, verified, report, pcrs, ek, boot: None }
}

/// What it says, unverified.
fn claimed(kind: EvidenceKind, evidence: &Captured) -> Result<Source, Failure> {
    let report = evidence.report().map(|report| claimed_report(&report.report)).transpose()?;
    let (pcrs, ek) = match evidence {
        Captured::Snp { .. } => (&[][..], None),
        Captured::Azure(azure) => (azure.quote.pcrs.as_slice(), None),
        Captured::Tpm(quote) => {
            let platform = quote.identity.claimed_platform().map_err(|error| refused(&error))?;
            (quote.pcrs.as_slice(), Some(platform))
        }
    };
    Ok(Source { kind, verified: None, report, pcrs: pcrs.iter().copied().collect(), ek, boot: None })
}

fn claimed_report(bytes: &[u8]) -> Result<SourceReport, Failure> {
    let report = read_report(bytes).map_err(|error| refused(&VerifyError::Snp(error)))?;
    let needs_chain = |why: &str| {
        Failure::new(Kind::Usage, "chain-missing", "the report alone does not say which platform it is from")
            .why(why)
            .next("give its certificates with --chain")
    };
    if report.version() == 2 {
        return Err(needs_chain("a report of version 2 does not name its processor"));
    }
    match report.key_info().signing_key {
        SigningKey::Vlek => Err(needs_chain("only the certificate of a VLEK names its cloud")),
        SigningKey::Vcek => {
            let platform = chip_platform(report.product(), report.chip_id());
            Ok(SourceReport { report, platform, csp: None })
        }
    }
}

impl SourceReport {
    /// What `chips` lists. Where a cloud's key signed it is the platform id of the cloud, which no chip has.
    fn chips(&self) -> Sha256Digest {
        self.csp.as_deref().map_or(self.platform, csp_platform)
    }
}

impl fmt::Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.toml)
    }
}
