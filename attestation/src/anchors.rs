//! Whom the endorsement of a TPM may rest on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;
use crate::encoding::UnixTime;
use crate::error::{AnchorError, DecodeError};

/// The most anchors that one [`TrustAnchors`] holds.
pub const ANCHORS_MAX: usize = 64;

const PEM_LABEL: &str = "CERTIFICATE";
const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// What an anchor vouches for. Ordered: emulated is less than hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// A software TPM: whoever runs it can take every key out of it.
    Emulated,
    /// A TPM whose vendor vouches for it.
    Hardware,
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Emulated => "emulated",
            Self::Hardware => "hardware",
        })
    }
}

impl FromStr for Trust {
    type Err = DecodeError;

    fn from_str(text: &str) -> Result<Self, DecodeError> {
        match text {
            "emulated" => Ok(Self::Emulated),
            "hardware" => Ok(Self::Hardware),
            _ => Err(DecodeError::Trust),
        }
    }
}

/// A certificate authority that is trusted for itself: a root, or an intermediate that is as far as trust goes.
/// [`TrustAnchors::with`] checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// `[a-z0-9][a-z0-9._-]{0,63}`: what a person and the log call it.
    pub name: String,
    /// What it vouches for.
    pub trust: Trust,
    /// X.509, exact DER.
    pub certificate: Vec<u8>,
}

impl Anchor {
    /// Reads one PEM block `CERTIFICATE`; only white space may stand around it.
    pub fn from_pem(name: &str, trust: Trust, pem: &str) -> Result<Self, AnchorError> {
        let pem = pem.trim();
        if !pem.starts_with(PEM_BEGIN) {
            return Err(AnchorError::Pem);
        }
        match der::pem::decode_vec(pem.as_bytes()) {
            Ok((PEM_LABEL, certificate)) => Ok(Self { name: name.to_owned(), trust, certificate }),
            Ok(_) | Err(_) => Err(AnchorError::Pem),
        }
    }
}

/// The anchors in force: the built-in ones, and those that an approved policy adds. They are a value that is passed in:
/// there are no test roots, only another value.
#[derive(Clone, Debug)]
pub struct TrustAnchors {
    anchors: Vec<(Anchor, Certificate)>,
}

impl TrustAnchors {
    /// The hardware vendors whose roots are compiled in. **This version has none**: a TPM's vendor is trusted once a
    /// policy names its root under `[[anchors]]`.
    #[must_use]
    pub const fn built_in() -> Self {
        Self { anchors: Vec::new() }
    }

    /// Adds an anchor: an authority whose certificate may be used to endorse TPMs. When it is valid is checked where it
    /// is used, since no time is known here.
    ///
    /// Refuses a second anchor of the same name, or of the same key, which would leave open whose trust counts.
    pub fn with(mut self, anchor: Anchor) -> Result<Self, AnchorError> {
        if self.anchors.len() >= ANCHORS_MAX {
            return Err(AnchorError::TooMany);
        }
        if !is_name(&anchor.name) {
            return Err(AnchorError::Name);
        }
        let certificate = Certificate::parse(&anchor.certificate)
            .and_then(|certificate| certificate.check_authority(0).map(|()| certificate))
            .map_err(AnchorError::Certificate)?;
        for (other, issuer) in &self.anchors {
            if other.name == anchor.name {
                return Err(AnchorError::NameRepeated);
            }
            if issuer.public_key_info() == certificate.public_key_info() {
                return Err(AnchorError::KeyRepeated);
            }
        }
        self.anchors.push((anchor, certificate));
        Ok(self)
    }

    /// The anchors in the order in which they were added, each with the last second that its certificate is valid.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Anchor, UnixTime)> {
        self.anchors.iter().map(|(anchor, certificate)| (anchor, certificate.not_after()))
    }

    /// The anchors that have the name which `certificate` gives for its issuer. Whether they signed it is still open.
    pub(crate) fn issuers_named_by(&self, certificate: &Certificate) -> impl Iterator<Item = (&Anchor, &Certificate)> {
        self.anchors
            .iter()
            .filter(|(_, issuer)| certificate.names_issuer(issuer))
            .map(|(anchor, issuer)| (anchor, issuer))
    }
}

/// `[a-z0-9][a-z0-9._-]{0,63}` (FORMAT.md §1).
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let first = name.bytes().next().is_some_and(plain);
    first && name.len() <= 64 && name.bytes().all(|byte| plain(byte) || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_has_one_text_and_emulated_is_less() {
        for (trust, text) in [(Trust::Emulated, "emulated"), (Trust::Hardware, "hardware")] {
            assert_eq!(trust.to_string(), text);
            assert_eq!(text.parse(), Ok(trust));
            assert_eq!(serde_json::to_string(&trust).unwrap(), format!("\"{text}\""));
        }
        assert!(Trust::Emulated < Trust::Hardware);
        assert_eq!("Hardware".parse::<Trust>(), Err(DecodeError::Trust));
    }

    #[test]
    fn there_are_no_built_in_anchors_yet() {
        assert_eq!(TrustAnchors::built_in().iter().len(), 0);
    }

    #[test]
    fn names_are_those_of_the_format() {
        assert!(is_name("ci-tpm") && is_name("0") && is_name("a._-9") && is_name(&"a".repeat(64)));
        for wrong in ["", "-a", ".a", "A", "a b", "\u{e9}", "a/b", &"a".repeat(65)] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
