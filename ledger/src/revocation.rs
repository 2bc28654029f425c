//! Revocations (FORMAT.md §7): what may no longer be held or released, and what a release says so that it can be found.
//!
//! A revocation is an act of approvers like a policy is, but no policy undoes it: only a lift, which takes as many
//! approvals as a policy does.
//!
//! ```
//! use ledger::revocation::{RevocationAct, Scope};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let scope = Scope::Model { model: "llama".try_into()?, version: None };
//! let act = RevocationAct::Revoke { serial: 1, scope };
//! // Approvers sign a statement that names `act.object()`.
//! assert_eq!(act.encode(), br#"{"act":"revoke","serial":1,"scope":{"by":"model","model":"llama"}}"#);
//! assert_eq!(RevocationAct::parse(&act.encode())?, act);
//! # Ok(()) }
//! ```

mod error;
mod marks;
mod notice;

use std::fmt;

use attestation::{Sha256Digest, lv};
use serde::{Deserialize, Serialize};

pub use error::RevocationError;
pub(crate) use marks::launch_if_any;
pub use marks::{MARKED_GROUPS_MAX, Marks, PcrValues};
pub use notice::{Notice, NoticeError, RevokedLease, notice_message, watch_message};

use crate::approvals::ApprovalAction;
use crate::entry::field;
use crate::json;
use crate::names::{Group, Name, Version};
use crate::policy::{ReleaseRule, Sha384};

/// Longest act, in bytes.
pub const REVOCATION_BYTES_MAX: usize = 4 << 10;

const TAG: &[u8] = b"weightvault/v1 revocation\0";

/// What is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Scope {
    /// A model, or one version of it.
    Model {
        /// Its name.
        model: Name,
        /// `None`: every version, those that are published later included.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<Version>,
    },
    /// Units with this label, of every model.
    Group {
        /// The label. Every grant has `header`.
        group: Group,
    },
    /// A machine, or a cloud whose VLEK signs for all of its machines.
    Platform {
        /// Platform id.
        platform: Sha256Digest,
    },
    /// Whatever was launched with this digest.
    Launch {
        /// MEASUREMENT of the SNP report, in hex.
        #[serde(with = "field::hex")]
        launch: Sha384,
    },
    /// Whatever quotes all of these values.
    Pcrs {
        /// PCRs of the SHA-256 bank.
        pcrs: PcrValues,
    },
    /// One lease.
    Lease {
        /// Its id.
        lease: Sha256Digest,
    },
}

/// Something that is held or asked for, as revocations look at it.
#[derive(Debug, Clone, Copy)]
pub struct Holding<'a> {
    /// Lease id.
    pub lease: Sha256Digest,
    /// Model.
    pub model: &'a Name,
    /// Its version.
    pub version: &'a Version,
    /// Platform id of the guest.
    pub platform: Sha256Digest,
    /// The rule it is granted under.
    pub rule: &'a ReleaseRule,
    /// What its release says; `None`: it is as old as not to say so, and may be whatever the rule allows.
    pub marks: Option<&'a Marks>,
}

impl Scope {
    /// Whether it covers a holding. What the holding's release does not say is taken to be so wherever its rule allows it.
    pub fn covers(&self, held: &Holding) -> bool {
        match self {
            Self::Model { model, version } => {
                model == held.model && version.as_ref().is_none_or(|version| version == held.version)
            }
            Self::Group { group } => match held.marks.and_then(Marks::groups) {
                Some(groups) => groups.contains(group),
                None => held.rule.grants(group),
            },
            Self::Platform { platform } => *platform == held.platform,
            Self::Launch { launch } => match held.marks {
                Some(marks) => marks.launch() == Some(launch),
                None => held.rule.guest.snp().is_some_and(|snp| snp.measurements.contains(launch)),
            },
            Self::Pcrs { pcrs } => match held.marks {
                Some(marks) => marks.pcrs().is_some_and(|quoted| pcrs.are_within(quoted)),
                None => held.rule.guest.pcrs().is_some_and(|rule| {
                    let allows = |(index, value)| rule.allowed().get(index).is_some_and(|list| list.contains(value));
                    pcrs.iter().all(allows)
                }),
            },
            Self::Lease { lease } => *lease == held.lease,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model { model, version: Some(version) } => write!(f, "model {model}@{version}"),
            Self::Model { model, version: None } => write!(f, "model {model}, every version"),
            Self::Group { group } => write!(f, "group {group} of every model"),
            Self::Platform { platform } => write!(f, "platform {platform}"),
            Self::Launch { launch } => write!(f, "launch digest {}", hex::encode(launch)),
            Self::Pcrs { pcrs } => write!(f, "PCRs {pcrs}"),
            Self::Lease { lease } => write!(f, "lease {lease}"),
        }
    }
}

/// What approvers agree to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RevocationAct {
    /// Leases end, and nothing of it is released any more.
    Revoke {
        /// One more than the acts that the log has: an old signature revokes nothing again that was lifted since.
        serial: u64,
        /// What.
        scope: Scope,
    },
    /// It may be released again. Leases that ended stay ended.
    Lift {
        /// Index of the `revoke` entry: an old signature lifts no later revocation of the same.
        entry: u64,
    },
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActKind {
    /// It takes `revoke_threshold` approvals, the proposer's included.
    Revoke,
    /// It takes `threshold` approvals, as a policy does.
    Lift,
}

impl RevocationAct {
    /// Reads exact bytes; any spelling but the one that [`Self::encode`] writes is refused.
    ///
    /// # Errors
    /// [`RevocationError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, RevocationError> {
        if bytes.len() > REVOCATION_BYTES_MAX {
            return Err(RevocationError::TooLong { bytes: bytes.len() });
        }
        let act: Self = json::parse_object(bytes).map_err(RevocationError::Malformed)?;
        if act.encode() == bytes { Ok(act) } else { Err(RevocationError::NotCanonical) }
    }

    /// The one spelling.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts, integers and maps with text keys always serialise")
    }

    /// What approvals name: SHA-256(`"weightvault/v1 revocation\0"` ‖ lv(act)).
    #[must_use]
    pub fn object(&self) -> Sha256Digest {
        Sha256Digest::of(&[TAG, &lv(&[&self.encode()])].concat())
    }

    /// Which of the two it is.
    #[must_use]
    pub const fn kind(&self) -> ActKind {
        match self {
            Self::Revoke { .. } => ActKind::Revoke,
            Self::Lift { .. } => ActKind::Lift,
        }
    }
}

impl ActKind {
    /// The action of the statements that approve it, the proposer's too.
    #[must_use]
    pub const fn approval(self) -> ApprovalAction {
        match self {
            Self::Revoke => ApprovalAction::Revoke,
            Self::Lift => ApprovalAction::LiftRevocation,
        }
    }
}

impl fmt::Display for RevocationAct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revoke { scope, .. } => write!(f, "revoke {scope}"),
            Self::Lift { entry } => write!(f, "lift the revocation of entry {entry}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(text: &str) -> RevocationAct {
        let act = RevocationAct::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(act.encode(), text.as_bytes());
        act
    }

    const D: &str = "sha256:4444444444444444444444444444444444444444444444444444444444444444";

    fn samples() -> Vec<String> {
        let (launch, pcr) = ("55".repeat(48), "66".repeat(32));
        let scopes = [
            r#"{"by":"model","model":"llama"}"#.to_owned(),
            r#"{"by":"model","model":"llama","version":"2.1"}"#.to_owned(),
            r#"{"by":"group","group":"layer.0"}"#.to_owned(),
            format!(r#"{{"by":"platform","platform":"{D}"}}"#),
            format!(r#"{{"by":"launch","launch":"{launch}"}}"#),
            format!(r#"{{"by":"pcrs","pcrs":{{"4":"{pcr}","11":"{pcr}"}}}}"#),
            format!(r#"{{"by":"lease","lease":"{D}"}}"#),
        ];
        let revoke = |scope| format!(r#"{{"act":"revoke","serial":3,"scope":{scope}}}"#);
        scopes.into_iter().map(revoke).chain([r#"{"act":"lift","entry":17}"#.to_owned()]).collect()
    }

    #[test]
    fn every_act_has_one_spelling_and_an_object_of_its_own() {
        let objects: Vec<_> = samples().iter().map(|text| spelled(text).object()).collect();
        for (index, object) in objects.iter().enumerate() {
            assert!(!objects[..index].contains(object));
        }
    }

    #[test]
    fn any_other_spelling_of_an_act_is_refused() {
        for text in samples() {
            for changed in [
                text.replacen("{\"act\"", "{ \"act\"", 1),
                text.replacen("}", ",\"more\":1}", 1),
                text.replacen("\"act\":\"", "\"act\":\"un", 1),
                text.replacen("sha256:44", "sha256:AA", 1).replacen("5555", "BBBB", 1).replacen("\"4\"", "\"04\"", 1),
                format!("{text}\n"),
                format!("[{text}]"),
            ] {
                if changed != text {
                    let refused = RevocationAct::parse(changed.as_bytes()).expect_err(&changed);
                    assert!(
                        ["revocation-malformed", "revocation-not-canonical"].contains(&refused.code()),
                        "{changed}"
                    );
                }
            }
        }
        let pcr = "66".repeat(32);
        for pcrs in [
            "{}".to_owned(),
            format!(r#"{{"11":"{pcr}","4":"{pcr}"}}"#),
            format!(r#"{{"4":"{pcr}","4":"{pcr}"}}"#),
            format!(r#"{{"24":"{pcr}"}}"#),
            r#"{"4":"66"}"#.to_owned(),
        ] {
            let text = format!(r#"{{"act":"revoke","serial":3,"scope":{{"by":"pcrs","pcrs":{pcrs}}}}}"#);
            assert!(RevocationAct::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn an_act_has_a_limit() {
        let long = vec![b' '; REVOCATION_BYTES_MAX + 1];
        let refused = RevocationAct::parse(&long);
        assert_eq!(refused, Err(RevocationError::TooLong { bytes: REVOCATION_BYTES_MAX + 1 }));
    }

    /// The vectors of FORMAT.md §7.
    #[test]
    fn objects_are_those_of_the_format() {
        let revoke = spelled(r#"{"act":"revoke","serial":1,"scope":{"by":"model","model":"llama","version":"2.1"}}"#);
        let lift = spelled(r#"{"act":"lift","entry":17}"#);
        assert_eq!(
            revoke.object().to_string(),
            "sha256:5aae0517644e30451356f429a999fd8de4b6c02c8d1f4e1509689f80e47d517a"
        );
        assert_eq!(
            lift.object().to_string(),
            "sha256:683d37d44c92c0db2bf2be5a5013a37077fe5abea62e8eaa211ddaa1899bb646"
        );
    }
}
