//! What a release says about itself so that a revocation finds it: labels, launch digest, PCRs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use attestation::Claims;
use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::decide::Shown;
use crate::names::Group;
use crate::policy::{ReleaseRule, Sha384};

/// Most labels that a release lists. One with more lists none, and is taken to have all that its rule gives.
pub const MARKED_GROUPS_MAX: usize = 32;
/// PCRs of a TPM (TCG PC Client Platform TPM Profile).
const PCRS: u32 = 24;

/// What the evidence of a release showed, and which labels its units have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marks {
    /// Ascending, none twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    groups: Option<BTreeSet<Group>>,
    /// MEASUREMENT of the report.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "launch_if_any")]
    launch: Option<Sha384>,
    /// What was quoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pcrs: Option<PcrValues>,
}

impl Marks {
    /// Those of verified evidence, for units with these labels. A TPM that nothing binds to a report says nothing.
    pub fn of(claims: &Claims, groups: BTreeSet<Group>) -> Self {
        let groups = (groups.len() <= MARKED_GROUPS_MAX).then_some(groups);
        Self { groups, ..Self::shown(&Shown::from(claims)) }
    }

    /// Those of evidence, for units whose labels are not known.
    pub fn shown(shown: &Shown<'_>) -> Self {
        let pcrs = |quoted: &BTreeMap<u32, [u8; 32]>| Some(PcrValues(quoted.clone()));
        let (launch, pcrs) = match shown {
            Shown::Tpm { pcrs: quoted, .. } => (None, pcrs(quoted)),
            Shown::Snp(report) | Shown::SnpUnboundTpm(report) => (Some(*report.measurement()), None),
            Shown::AzureSnpVtpm { report, pcrs: quoted, .. } => (Some(*report.measurement()), pcrs(quoted)),
        };
        Self { groups: None, launch, pcrs }
    }

    /// Whether these claims show the launch digest and the PCRs that it names. For an auditor; the labels are those of a unit
    /// set, of which evidence says nothing.
    pub fn are_shown_by(&self, claims: &Claims) -> bool {
        let shown = Self::of(claims, BTreeSet::new());
        (&self.launch, &self.pcrs) == (&shown.launch, &shown.pcrs)
    }

    /// The labels, if they are listed.
    pub fn groups(&self) -> Option<&BTreeSet<Group>> {
        self.groups.as_ref()
    }

    /// The launch digest, if a report was shown.
    pub fn launch(&self) -> Option<&Sha384> {
        self.launch.as_ref()
    }

    /// The PCRs, if some were quoted.
    pub fn pcrs(&self) -> Option<&PcrValues> {
        self.pcrs.as_ref()
    }

    /// Whether a release under this rule can have them.
    pub(crate) fn are_possible(&self, rule: &ReleaseRule) -> bool {
        let groups = self.groups.as_ref().is_none_or(|groups| {
            !groups.is_empty() && groups.len() <= MARKED_GROUPS_MAX && groups.iter().all(|group| rule.grants(group))
        });
        let launch = match (rule.guest.snp(), &self.launch) {
            (Some(snp), Some(launch)) => snp.measurements.contains(launch),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let pcrs = match (rule.guest.pcrs(), &self.pcrs) {
            (Some(rule), Some(pcrs)) => rule.check(&pcrs.0).is_ok(),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        groups && launch && pcrs
    }
}

/// Values of PCRs of the SHA-256 bank, at least one. In JSON an object: the index in decimal, ascending, and 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcrValues(BTreeMap<u32, [u8; 32]>);

impl PcrValues {
    /// In the order of the indices.
    pub fn iter(&self) -> impl Iterator<Item = (&u32, &[u8; 32])> {
        self.0.iter()
    }

    /// Whether `quoted` has each of them with this value.
    pub(crate) fn are_within(&self, quoted: &Self) -> bool {
        self.0.iter().all(|(index, value)| quoted.0.get(index) == Some(value))
    }

    fn from_texts<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let mut values = BTreeMap::new();
        for (index, digits) in pairs {
            let index = (0..PCRS).find(|known| known.to_string() == index)?;
            let mut value = [0; 32];
            hex::decode_to_slice(digits, &mut value).ok()?;
            if values.insert(index, value).is_some() {
                return None;
            }
        }
        (!values.is_empty()).then_some(Self(values))
    }
}

/// A text that names no PCRs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PcrValuesError;

impl fmt::Display for PcrValuesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write PCRs as `11=HEX` or `4=HEX,11=HEX`, with 64 hex digits each")
    }
}

impl std::error::Error for PcrValuesError {}

/// `11=HEX`, or several with commas between.
impl FromStr for PcrValues {
    type Err = PcrValuesError;

    fn from_str(text: &str) -> Result<Self, PcrValuesError> {
        let pairs: Option<Vec<_>> = text.split(',').map(|pair| pair.split_once('=')).collect();
        pairs.and_then(|pairs| Self::from_texts(pairs.into_iter())).ok_or(PcrValuesError)
    }
}

impl fmt::Display for PcrValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (index, value)) in self.0.iter().enumerate() {
            write!(f, "{}{index}={}", if place > 0 { "," } else { "" }, hex::encode(value))?;
        }
        Ok(())
    }
}

impl Serialize for PcrValues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (index, value) in &self.0 {
            map.serialize_entry(&index.to_string(), &hex::encode(value))?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for PcrValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A repeated index is dropped here, and with it the one spelling that the caller compares with.
        let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
        let pairs = texts.iter().map(|(index, value)| (index.as_str(), value.as_str()));
        Self::from_texts(pairs).ok_or_else(|| D::Error::custom("not PCRs with 64 hex digits each"))
    }
}

pub(crate) mod launch_if_any {
    use super::{Deserializer, Serializer, Sha384};
    use crate::entry::field;

    pub(crate) fn serialize<S: Serializer>(value: &Option<Sha384>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => field::hex::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Sha384>, D::Error> {
        field::hex::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcrs_on_a_command_line_come_back_in_order() {
        let (one, two) = ("11".repeat(32), "22".repeat(32));
        let values: PcrValues = format!("11={one},4={two}").parse().unwrap();
        assert_eq!(values.to_string(), format!("4={two},11={one}"));
        for wrong in ["", "11", "11=", "011=11", "24=11", &format!("4={one},4={one}"), &format!("4={one},")] {
            assert_eq!(wrong.parse::<PcrValues>(), Err(PcrValuesError), "{wrong}");
        }
    }
}
