//! Captured evidence: verified, or refused with code, expected and seen.

use std::fmt;

use attestation::{CrlRule, Sha256Digest, Trust, TrustAnchors, UnixTime, VerifyError};
use ledger::decide::DenialReason;
use ledger::names::Name;
use ledger::policy::{GuestRule, Policy, ReleaseRule};
use serde::Serialize;

use crate::captured::{Captured, Holds, MadeFor, load};
use crate::cli::{EvidenceKind, EvidenceVerifyArgs};
use crate::commands::policy::read_policy;
use crate::failure::{Failure, Kind};
use crate::print::moment;
use crate::words::{ChainFields, QuoteFields, Refused, ReportFields, tier_in_words};

const NOT_CHECKED: &str = "not checked";
const AK_UNBOUND: &str = "that this AK is in this EK's TPM is not shown: only a credential activated for a fresh challenge \
                          shows it";
const TPM_UNBOUND: &str = "the quote beside the report was not looked at: nothing binds that TPM to this guest";

/// The answer, either way.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    verified: bool,
    kind: &'static str,
    now: String,
    /// `none`, or the digest of the policy.
    policy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Name>,
    freshness: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<&'static str>,
    #[serde(flatten)]
    answer: Answer,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer {
    Claims { claims: Box<Shown> },
    Refusal(Refusal),
}

/// All claims.
#[derive(Debug, Serialize)]
struct Shown {
    tier: Trust,
    anchor: String,
    /// The last second that the chain is valid.
    not_after: String,
    platform: Sha256Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    snp: Option<SnpShown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tpm: Option<TpmShown>,
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
struct Refusal {
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
    let evidence = load(kind, args.report.as_deref(), &args.beside)?;
    let refused = Refused { evidence: evidence.as_ref().ok(), made_for };
    let answer = match judge(&evidence, made_for, wanted.as_ref(), now) {
        Ok(holds) => Answer::Claims { claims: Box::new(Shown::from(&holds)) },
        Err(Why::Evidence(error)) => Answer::Refusal(Refusal::of_evidence(refused, &error)),
        Err(Why::Policy(reason)) => Answer::Refusal(Refusal::of_policy(&reason)),
    };
    let verified = matches!(answer, Answer::Claims { .. });
    Ok(Verdict {
        verified,
        kind: kind.as_str(),
        now: moment(now),
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

/// What always holds, then what the evidence was made over, then the rule.
fn judge(
    evidence: &Result<Captured, VerifyError>,
    made_for: MadeFor<'_>,
    wanted: Option<&Wanted>,
    now: UnixTime,
) -> Result<Holds, Why> {
    let evidence = evidence.as_ref().map_err(|error| Why::Evidence(error.clone()))?;
    let Some(Wanted { policy, name }) = wanted else {
        return Ok(evidence.verify(made_for, &TrustAnchors::built_in(), CrlRule::IfPresent, now)?);
    };
    let rule = policy.release_rule(name).ok_or_else(|| DenialReason::RuleUnknown { rule: name.to_string() })?;
    if policy.is_expired(now) {
        return Err(DenialReason::PolicyExpired { not_after: policy.not_after(), now }.into());
    }
    let holds = evidence.verify(made_for, policy.trust_anchors(), crl_rule(rule), now)?;
    holds.shown().check(name, &rule.guest)?;
    Ok(holds)
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

impl From<&Holds> for Shown {
    fn from(holds: &Holds) -> Self {
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
                quote: QuoteFields::of(&quote.statement, &quote.pcrs),
            }),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, now) = (self.kind, &self.now);
        match &self.answer {
            Answer::Claims { claims } => {
                writeln!(f, "VERIFIED: {kind}, at {now}; {}, by {}", tier_in_words(claims.tier), claims.anchor)?;
            }
            Answer::Refusal(refusal) => {
                writeln!(f, "REFUSED: {kind}, at {now} [{}]", refusal.code)?;
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
            Answer::Refusal(_) => Ok(()),
        }
    }
}
