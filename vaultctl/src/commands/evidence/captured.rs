//! Captured evidence: verified, or refused with code, expected and seen.

use std::collections::BTreeMap;
use std::fmt;

use attestation::{
    CrlRule, EventLog, EventLogError, MeasuredLog, Sha256Digest, Trust, TrustAnchors, UnixTime, VerifyError,
};
use ledger::decide::DenialReason;
use ledger::names::Name;
use ledger::policy::{GuestRule, PcrRule, Policy, ReleaseRule};
use serde::Serialize;

use super::event_log::BootShown;
use crate::captured::{BootHolds, Captured, Given, Holds, MadeFor, load};
use crate::cli::{EvidenceKind, EvidenceVerifyArgs};
use crate::commands::policy::read_policy;
use crate::failure::{Failure, Kind};
use crate::print::moment;
use crate::words::{ChainFields, QuoteFields, Refused, ReportFields, of_event_log, tier_in_words};

const NOT_CHECKED: &str = "not checked";
const AK_UNBOUND: &str = "that this AK is in this EK's TPM is not shown: only a credential activated for a fresh challenge \
                          shows it";
const TPM_UNBOUND: &str = "the quote beside the report was not looked at: nothing binds that TPM to this guest";

/// The answer, either way.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    pub(super) verified: bool,
    pub(super) kind: &'static str,
    /// Nothing for an event log alone, which has no dates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) now: Option<String>,
    /// `none`, or the digest of the policy.
    pub(super) policy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rule: Option<Name>,
    pub(super) freshness: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<&'static str>,
    #[serde(flatten)]
    pub(super) answer: Answer,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Answer {
    Claims { claims: Box<Shown> },
    Log { boot: Box<BootShown> },
    Refusal(Refusal),
}

/// All claims.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    tier: Trust,
    anchor: String,
    /// The last second that the chain is valid.
    not_after: String,
    platform: Sha256Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    snp: Option<SnpShown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tpm: Option<TpmShown>,
    /// What the event log says, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<BootShown>,
}

#[derive(Debug, Serialize)]
struct SnpShown {
    #[serde(flatten)]
    report: ReportFields,
    #[serde(flatten)]
    chain: ChainFields,
}

#[derive(Debug, Serialize)]
struct TpmShown {
    /// Nothing where the AK came without its public area.
    ak_name: Option<String>,
    /// What says that the quote is of the machine that the rest is about.
    bound_by: &'static str,
    #[serde(flatten)]
    quote: QuoteFields,
}

#[derive(Debug, Serialize)]
pub(super) struct Refusal {
    code: &'static str,
    why: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<&'static str>,
    expected: String,
    seen: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_key: Option<String>,
}

/// The rule to check against, and whose anchors count.
struct Wanted {
    policy: Policy,
    name: Name,
}

impl Verdict {
    /// Whether all of it holds.
    pub(crate) const fn is_verified(&self) -> bool {
        self.verified
    }
}

/// Every failure is wrong use here: exit code 1 stands for refused evidence alone.
pub(crate) fn verify(kind: EvidenceKind, args: &EvidenceVerifyArgs) -> Result<Verdict, Failure> {
    let now = args.now.ok_or_else(|| Failure::new(Kind::Usage, "now-missing", "--now is missing"))?;
    check_arguments(kind, args)?;
    let wanted = args.policy.as_deref().map(|file| Wanted::read(file, args.rule.as_deref())).transpose()?;
    let made_for = MadeFor {
        report_data: args.report_data.as_ref().map(|data| &data.0),
        extra_data: args.extra_data.as_ref().map(|data| data.0.as_slice()),
    };
    let Given { evidence, event_log: log } = load(kind, args.report.as_deref(), &args.beside)?;
    let refused = Refused { evidence: evidence.as_ref().ok(), made_for };
    let answer = match judge(&evidence, log.as_deref(), made_for, wanted.as_ref(), now) {
        Ok((holds, boot)) => Answer::Claims { claims: Box::new(Shown::of(&holds, boot)) },
        Err(Why::Evidence(error)) => Answer::Refusal(Refusal::of_evidence(refused, &error)),
        Err(Why::Log { error, values }) => {
            Answer::Refusal(Refusal::of_log(&error, log.as_deref().unwrap_or_default(), &values))
        }
        Err(Why::Policy(reason)) => Answer::Refusal(Refusal::of_policy(&reason)),
    };
    let verified = matches!(answer, Answer::Claims { .. });
    Ok(Verdict {
        verified,
        kind: kind.as_str(),
        now: Some(moment(now)),
        policy: wanted.as_ref().map_or_else(|| "none".to_owned(), |wanted| wanted.policy.digest().to_string()),
        rule: wanted.map(|wanted| wanted.name),
        freshness: match (verified, args.report_data.is_some(), args.extra_data.is_some()) {
            (true, true, _) => "checked against --report-data",
            (true, false, true) => "checked against --extra-data",
            (true, false, false) | (false, _, _) => NOT_CHECKED,
        },
        notes: evidence.as_ref().map(notes).unwrap_or_default(),
        answer,
    })
}

/// Which of the two things that fresh evidence is made over an evidence has.
fn check_arguments(kind: EvidenceKind, args: &EvidenceVerifyArgs) -> Result<(), Failure> {
    let beside = &args.beside;
    if beside.pcrs.is_some() && beside.quote.is_none() {
        let next = "give --quote and --quote-signature, or leave --pcrs out: an evidence blob has its own";
        return Err(Failure::new(Kind::Usage, "evidence-arguments", "whose are --pcrs?").next(next));
    }
    if beside.event_log.is_some() && kind == EvidenceKind::Snp {
        let next = "leave --event-log out, or give a quote with --kind tpm or azure-snp-vtpm";
        return Err(Failure::new(Kind::Usage, "evidence-arguments", "a report does not bear an event log").next(next));
    }
    let (what, next) = match (kind, args.report_data.is_some(), args.extra_data.is_some()) {
        (EvidenceKind::Snp, _, true) => ("a report has no extraData", "give --report-data"),
        (EvidenceKind::AzureSnpVtpm | EvidenceKind::Tpm, true, _) => {
            ("the challenge of this kind is in the quote, not in the report", "give --extra-data")
        }
        (EvidenceKind::Snp, _, false) | (EvidenceKind::AzureSnpVtpm | EvidenceKind::Tpm, false, _) => return Ok(()),
    };
    Err(Failure::new(Kind::Usage, "evidence-arguments", what).next(next))
}

fn notes(evidence: &Captured) -> Vec<&'static str> {
    match evidence {
        Captured::Snp { unbound_tpm: true, .. } => vec![TPM_UNBOUND],
        Captured::Snp { unbound_tpm: false, .. } | Captured::Azure(_) => Vec::new(),
        Captured::Tpm(_) => vec![AK_UNBOUND],
    }
}

/// Why evidence was refused.
enum Why {
    Evidence(VerifyError),
    Log { error: EventLogError, values: BTreeMap<u32, [u8; 32]> },
    Policy(Box<DenialReason>),
}

impl From<VerifyError> for Why {
    fn from(error: VerifyError) -> Self {
        Self::Evidence(error)
    }
}

impl From<DenialReason> for Why {
    fn from(reason: DenialReason) -> Self {
        Self::Policy(Box::new(reason))
    }
}

/// What always holds, then what the evidence was made over, then whether the log leads to what was quoted, then the rule.
fn judge(
    evidence: &Result<Captured, VerifyError>,
    log: Option<&[u8]>,
    made_for: MadeFor<'_>,
    wanted: Option<&Wanted>,
    now: UnixTime,
) -> Result<(Holds, Option<BootHolds>), Why> {
    let evidence = evidence.as_ref().map_err(|error| Why::Evidence(error.clone()))?;
    let Some(Wanted { policy, name }) = wanted else {
        let holds = evidence.verify(made_for, &TrustAnchors::built_in(), CrlRule::IfPresent, now)?;
        let boot = replayed(&holds, log)?;
        return Ok((holds, boot));
    };
    let rule = policy.release_rule(name).ok_or_else(|| DenialReason::RuleUnknown { rule: name.to_string() })?;
    if policy.is_expired(now) {
        return Err(DenialReason::PolicyExpired { not_after: policy.not_after(), now }.into());
    }
    let holds = evidence.verify(made_for, policy.trust_anchors(), crl_rule(rule), now)?;
    let boot = replayed(&holds, log)?;
    let measured = measured(&holds, log, rule)?;
    holds.shown(measured.as_ref()).check(name, &rule.guest)?;
    Ok((holds, boot))
}

/// The log as the rule asks it: believed for the PCRs that the answers are in, and no others.
fn measured(holds: &Holds, log: Option<&[u8]>, rule: &ReleaseRule) -> Result<Option<MeasuredLog>, Why> {
    let asked = rule.guest.pcrs().and_then(PcrRule::boot);
    let (Some(log), Some(asked), Some(quote)) = (log, asked, holds.quote()) else { return Ok(None) };
    let replayed = EventLog::parse(log).map(EventLog::replay);
    match replayed.and_then(|log| log.against_captured(&quote.state, &asked.pcrs())) {
        Ok(measured) => Ok(Some(measured)),
        Err(error) => Err(Why::Log { error, values: quote.state.pcrs.clone() }),
    }
}

fn replayed(holds: &Holds, log: Option<&[u8]>) -> Result<Option<BootHolds>, Why> {
    let Some(log) = log else { return Ok(None) };
    let values = holds.quote().map(|quote| quote.state.pcrs.clone()).unwrap_or_default();
    match BootHolds::of(log, &values) {
        Ok(boot) => Ok(Some(boot)),
        Err(error) => Err(Why::Log { error, values }),
    }
}

/// A rule without a report refuses one whatever its revocation lists say.
fn crl_rule(rule: &ReleaseRule) -> CrlRule {
    match &rule.guest {
        GuestRule::Snp(snp) | GuestRule::SnpParavisorVtpm { snp, .. } => snp.crl,
        GuestRule::Tpm(_) => CrlRule::IfPresent,
    }
}

impl Wanted {
    fn read(file: &std::path::Path, rule: Option<&str>) -> Result<Self, Failure> {
        let (policy, _) = read_policy(file)?;
        let names: Vec<&Name> = policy.release_rules().keys().collect();
        let name = match (rule, names.as_slice()) {
            (Some(rule), names) => names.iter().find(|name| name.as_str() == rule).map(|name| (*name).clone()),
            (None, [only]) => Some((*only).clone()),
            (None, _) => None,
        };
        let listed: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        let name = name.ok_or_else(|| {
            Failure::new(Kind::Usage, "rule-unknown", "which release rule?")
                .why(format!("the policy has: {}", listed.join(", ")))
                .next("name one of them with --rule NAME")
        })?;
        Ok(Self { policy, name })
    }
}

impl Refusal {
    fn of_evidence(refused: Refused<'_>, error: &VerifyError) -> Self {
        let (expected, seen) = refused.expected_and_seen(error);
        Self { code: error.code(), why: error.to_string(), claim: None, expected, seen, policy_key: None }
    }

    pub(super) fn of_log(error: &EventLogError, log: &[u8], values: &BTreeMap<u32, [u8; 32]>) -> Self {
        let (expected, seen) = of_event_log(error, log, values);
        let claim = Some("event log");
        Self { code: error.code(), why: error.to_string(), claim, expected, seen, policy_key: None }
    }

    fn of_policy(reason: &DenialReason) -> Self {
        let explained = reason.explain();
        Self {
            code: reason.code(),
            why: "the evidence holds, and shows something that the rule does not allow".to_owned(),
            claim: Some(explained.claim),
            expected: explained.expected,
            seen: explained.seen,
            policy_key: explained.policy_key,
        }
    }
}

impl Shown {
    fn of(holds: &Holds, boot: Option<BootHolds>) -> Self {
        let bound_by = match holds {
            Holds::Snp(_) | Holds::Azure { .. } => "the report, which endorses the AK",
            Holds::Tpm { .. } => "nothing: the AK is not shown to be in the EK's TPM",
        };
        Self {
            tier: holds.trust(),
            anchor: holds.anchor().to_owned(),
            not_after: moment(holds.not_after()),
            platform: holds.platform(),
            snp: holds.report().map(|report| SnpShown {
                report: ReportFields::of(report.report(), true),
                chain: ChainFields::from(report),
            }),
            tpm: holds.quote().map(|quote| TpmShown {
                ak_name: quote.ak_name.map(|name| hex::encode(name.as_bytes())),
                bound_by,
                quote: QuoteFields::of(&quote.statement, &quote.state.pcrs),
            }),
            boot: boot.map(BootShown::from),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind;
        let at = self.now.as_ref().map(|now| format!(", at {now}")).unwrap_or_default();
        match &self.answer {
            Answer::Claims { claims } => {
                writeln!(f, "VERIFIED: {kind}{at}; {}, by {}", tier_in_words(claims.tier), claims.anchor)?;
            }
            Answer::Log { .. } => writeln!(f, "VERIFIED: {kind}; it leads to the PCR values that were given")?,
            Answer::Refusal(refusal) => {
                writeln!(f, "REFUSED: {kind}{at} [{}]", refusal.code)?;
                writeln!(f, "  why:      {}", refusal.why)?;
                let claim = refusal.claim.map(|claim| format!("{claim}: ")).unwrap_or_default();
                writeln!(f, "  expected: {claim}{}", refusal.expected)?;
                writeln!(f, "  seen:     {}", refusal.seen)?;
                if let Some(key) = &refusal.policy_key {
                    writeln!(f, "  asked by: {key}")?;
                }
            }
        }
        let rule = self.rule.as_ref().map(|rule| format!(" (rule {rule})")).unwrap_or_default();
        writeln!(f, "policy: {}{rule}, freshness: {}", self.policy, self.freshness)?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))?;
        match &self.answer {
            Answer::Claims { claims } => {
                writeln!(f, "{}", serde_json::to_string_pretty(claims).map_err(|_| fmt::Error)?)
            }
            Answer::Log { boot } => writeln!(f, "{}", serde_json::to_string_pretty(boot).map_err(|_| fmt::Error)?),
            Answer::Refusal(_) => Ok(()),
        }
    }
}
