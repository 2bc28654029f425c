//! Permits (FORMAT.md §7): what approvers let be released although something else asks for their word each time.
//!
//! A *standing* approval is what a release rule with `approvals` waits for: so many releases of a model, on what the permit
//! names, until some moment. *Break-glass* lets releases pass budgets, alarms that hold and missing standing approvals, for a
//! day at most; it takes a threshold of its own, and every release by it rings. Neither touches what a guest must prove, what
//! was revoked, or the log.
//!
//! ```
//! use attestation::UnixTime;
//! use ledger::permit::{Permit, PermitKind};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let permit = Permit {
//!     kind: PermitKind::Standing,
//!     rule: "serving".try_into()?,
//!     model: "llama".try_into()?,
//!     version: None,
//!     platform: None,
//!     launch: None,
//!     pcrs: None,
//!     releases: 64,
//!     until: UnixTime(1_800_000_000),
//! };
//! let text = br#"{"kind":"standing","rule":"serving","model":"llama","releases":64,"until":1800000000}"#;
//! assert_eq!(permit.encode(), text);
//! assert_eq!(Permit::parse(text)?, permit);
//! # Ok(()) }
//! ```

mod error;

use std::fmt;

use attestation::{Sha256Digest, UnixTime, lv};
use serde::{Deserialize, Serialize};

pub use error::PermitError;

use crate::approvals::ApprovalAction;
use crate::entry::Release;
use crate::json;
use crate::names::{Name, Version};
use crate::policy::Sha384;
use crate::revocation::{Marks, PcrValues, launch_if_any};

/// Longest permit, in bytes.
pub const PERMIT_BYTES_MAX: usize = 4 << 10;
/// The most releases of one permit.
pub const PERMIT_RELEASES_MAX: u64 = 1 << 16;
/// Longest time from its proposal to the end of a standing approval, in seconds: what is needed for longer is a policy.
pub const STANDING_SECS_MAX: u64 = 31 * 24 * 60 * 60;
/// Longest time from its proposal to the end of break-glass, in seconds.
pub const BREAK_GLASS_SECS_MAX: u64 = 24 * 60 * 60;

const TAG: &[u8] = b"weightvault/v1 permit\0";

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PermitKind {
    /// It takes as many approvals as its release rule says.
    Standing,
    /// It takes `approval.break_glass_threshold` approvals.
    BreakGlass,
}

/// What approvers let be released. In JSON the fields are in this order, and those without a value are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permit {
    /// Which of the two it is.
    pub kind: PermitKind,
    /// Releases under this rule.
    pub rule: Name,
    /// Of this model.
    pub model: Name,
    /// One version of it; `None`: every version, those that are published later included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// One machine, by its platform id; `None`: each that the rule takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Sha256Digest>,
    /// What was launched: MEASUREMENT of the SNP report; `None`: whatever the rule takes.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "launch_if_any")]
    pub launch: Option<Sha384>,
    /// What was booted: a guest quotes all of these values; `None`: whatever the rule takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcrs: Option<PcrValues>,
    /// How many releases; at least one.
    pub releases: u64,
    /// Its last moment, approved or not.
    pub until: UnixTime,
}

/// A release as permits look at it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PermitRequest<'a> {
    pub(crate) rule: &'a Name,
    pub(crate) model: &'a Name,
    pub(crate) version: &'a Version,
    pub(crate) platform: Sha256Digest,
    pub(crate) marks: Option<&'a Marks>,
    pub(crate) now: UnixTime,
}

impl<'a> From<&'a Release> for PermitRequest<'a> {
    fn from(release: &'a Release) -> Self {
        let Release { rule, model, version, platform, .. } = release;
        Self { rule, model, version, platform: *platform, marks: release.marks.as_ref(), now: release.time }
    }
}

impl Permit {
    /// Reads exact bytes; any spelling but the one that [`Self::encode`] writes is refused.
    ///
    /// # Errors
    /// [`PermitError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PermitError> {
        if bytes.len() > PERMIT_BYTES_MAX {
            return Err(PermitError::TooLong { bytes: bytes.len() });
        }
        let permit: Self = json::parse_object(bytes).map_err(PermitError::Malformed)?;
        if permit.encode() == bytes { Ok(permit) } else { Err(PermitError::NotCanonical) }
    }

    /// The one spelling.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts, integers and maps with text keys always serialise")
    }

    /// What approvals name: SHA-256(`"weightvault/v1 permit\0"` ‖ lv(permit)).
    #[must_use]
    pub fn object(&self) -> Sha256Digest {
        Sha256Digest::of(&[TAG, &lv(&[&self.encode()])].concat())
    }

    /// Whether it is for such a release. What the release does not say of itself it is not taken to be.
    pub(crate) fn covers(&self, asked: &PermitRequest) -> bool {
        let Self { kind: _, rule, model, version, platform, launch, pcrs, releases: _, until } = self;
        (rule, model) == (asked.rule, asked.model)
            && asked.now <= *until
            && version.as_ref().is_none_or(|version| version == asked.version)
            && platform.is_none_or(|platform| platform == asked.platform)
            && launch.as_ref().is_none_or(|launch| asked.marks.and_then(Marks::launch) == Some(launch))
            && pcrs
                .as_ref()
                .is_none_or(|pcrs| asked.marks.and_then(Marks::pcrs).is_some_and(|quoted| pcrs.are_within(quoted)))
    }
}

impl PermitKind {
    /// As entries spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standing => "standing",
            Self::BreakGlass => "break-glass",
        }
    }

    /// The action of the statement that proposes it.
    #[must_use]
    pub const fn proposal(self) -> ApprovalAction {
        match self {
            Self::Standing => ApprovalAction::ProposeStanding,
            Self::BreakGlass => ApprovalAction::ProposeBreakGlass,
        }
    }

    /// The action of the statements that approve it.
    #[must_use]
    pub const fn approval(self) -> ApprovalAction {
        match self {
            Self::Standing => ApprovalAction::Standing,
            Self::BreakGlass => ApprovalAction::BreakGlass,
        }
    }

    /// Longest time from its proposal to its end, in seconds.
    #[must_use]
    pub const fn secs_max(self) -> u64 {
        match self {
            Self::Standing => STANDING_SECS_MAX,
            Self::BreakGlass => BREAK_GLASS_SECS_MAX,
        }
    }
}

impl fmt::Display for PermitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Standing => "standing approval",
            Self::BreakGlass => "BREAK-GLASS",
        })
    }
}

/// Without its end, which each reader spells in its own way.
impl fmt::Display for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, rule, model, version, platform, launch, pcrs, releases, until: _ } = self;
        write!(f, "{kind} for at most {releases} releases of {model}")?;
        match version {
            Some(version) => write!(f, "@{version}")?,
            None => f.write_str(", every version,")?,
        }
        write!(f, " under rule {rule}")?;
        if let Some(platform) = platform {
            write!(f, " on platform {platform}")?;
        }
        if let Some(launch) = launch {
            write!(f, " with launch digest {}", hex::encode(launch))?;
        }
        if let Some(pcrs) = pcrs {
            write!(f, " with PCRs {pcrs}")?;
        }
        match (platform, launch, pcrs) {
            (None, None, None) => f.write_str(" on any guest that the rule takes"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:4444444444444444444444444444444444444444444444444444444444444444";

    fn samples() -> Vec<String> {
        let (launch, pcr) = ("55".repeat(48), "66".repeat(32));
        let spelled = |kind: &str, what: &str| {
            format!(r#"{{"kind":"{kind}","rule":"serving","model":"llama"{what},"releases":64,"until":1800000000}}"#)
        };
        vec![
            spelled("standing", ""),
            spelled("break-glass", ""),
            spelled("standing", r#","version":"2.1""#),
            spelled("standing", &format!(r#","platform":"{D}""#)),
            spelled("standing", &format!(r#","launch":"{launch}""#)),
            spelled("standing", &format!(r#","pcrs":{{"4":"{pcr}","11":"{pcr}"}}"#)),
        ]
    }

    #[test]
    fn every_permit_has_one_spelling_and_an_object_of_its_own() {
        let mut objects = Vec::new();
        for text in samples() {
            let permit = Permit::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(permit.encode(), text.as_bytes());
            assert!(!objects.contains(&permit.object()));
            objects.push(permit.object());
        }
    }

    #[test]
    fn any_other_spelling_of_a_permit_is_refused() {
        for text in samples() {
            for changed in [
                text.replacen("{\"kind\"", "{ \"kind\"", 1),
                text.replacen("1800000000}", "1800000000,\"more\":1}", 1),
                text.replacen("\"kind\":\"", "\"kind\":\"un", 1),
                text.replacen("\"releases\":64", "\"releases\":-1", 1),
                text.replacen("\"model\":\"llama\"", "\"model\":\"llama\",\"version\":null", 1),
                text.replacen(
                    "\"rule\":\"serving\",\"model\":\"llama\"",
                    "\"model\":\"llama\",\"rule\":\"serving\"",
                    1,
                ),
                format!("{text}\n"),
                format!("[{text}]"),
            ] {
                let refused = Permit::parse(changed.as_bytes()).expect_err(&changed);
                assert!(["permit-malformed", "permit-not-canonical"].contains(&refused.code()), "{changed}");
            }
        }
        let long = vec![b' '; PERMIT_BYTES_MAX + 1];
        assert_eq!(Permit::parse(&long), Err(PermitError::TooLong { bytes: PERMIT_BYTES_MAX + 1 }));
    }

    /// The vector of FORMAT.md §7.
    #[test]
    fn the_object_is_that_of_the_format() {
        let permit = Permit::parse(samples()[0].as_bytes()).unwrap();
        assert_eq!(
            permit.object().to_string(),
            "sha256:194b6b5ccffa06c5af2db317e8fddd500b6bc15535992ba0b885bef7723a5640"
        );
    }
}
