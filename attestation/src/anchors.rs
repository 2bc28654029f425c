//! Whom the endorsement of a TPM, or of an SEV-SNP chip, may rest on.

mod tpm_roots;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;
use crate::encoding::{Sha256Digest, UnixTime};
use crate::error::{AnchorError, DecodeError};
use crate::snp::{self, AmdCertificate, SnpProduct};
use tpm_roots::TPM_ROOTS;
pub use tpm_roots::TpmRoot;

/// The most anchors that one [`TrustAnchors`] holds.
pub const ANCHORS_MAX: usize = 64;

const PEM_LABEL: &str = "CERTIFICATE";
const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// What an anchor vouches for. Ordered: emulated is less than hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// A software TPM or a soft SEV-SNP platform: whoever runs it can take every key out of it.
    Emulated,
    /// A TPM or a chip whose vendor vouches for it.
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

/// What an anchor may endorse. Its certificate says which, so that no name or switch beside it can say something else: a
/// root whose common name is `ARK-` and a product line, as all of AMD's are, endorses SEV-SNP chips and never a TPM;
/// every other one endorses TPMs and never a chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AnchorKind {
    /// TPMs, by their EK certificates.
    Tpm,
    /// AMD SEV-SNP chips, by their VCEK or VLEK.
    Snp,
}

/// An ARK of AMD's that is compiled in.
struct AmdRoot {
    name: &'static str,
    product: SnpProduct,
    /// SHA-256 of the DER SubjectPublicKeyInfo.
    key: Sha256Digest,
}

/// The ARKs that AMD's key service hands out under `https://kdsintf.amd.com/vcek/v1/PRODUCT/cert_chain`, each compared
/// with the file `src/certs/snp/builtin/PRODUCT/ark.pem` of the crate `sev`, 8.0.0. The keys are pinned and not the
/// certificates, which come with the evidence and are verified under them:
/// `openssl x509 -in ark.pem -noout -pubkey | openssl pkey -pubin -outform der | sha256sum`.
const AMD_ROOTS: [AmdRoot; 3] = [
    AmdRoot {
        name: "amd-milan",
        product: SnpProduct::Milan,
        key: pin("9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9"),
    },
    AmdRoot {
        name: "amd-genoa",
        product: SnpProduct::Genoa,
        key: pin("429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831"),
    },
    AmdRoot {
        name: "amd-turin",
        product: SnpProduct::Turin,
        key: pin("4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08"),
    },
];

/// An SEV-SNP root in force.
pub(crate) struct SnpRoot<'a> {
    pub(crate) name: &'a str,
    pub(crate) trust: Trust,
    /// The one product that a built-in root is for; one that a policy adds says its own by its name.
    pub(crate) pinned_for: Option<SnpProduct>,
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
    anchors: Vec<AddedAnchor>,
    tpm_roots: &'static [TpmRoot],
}

/// An anchor that was added, and its certificate as it was read.
#[derive(Clone, Debug)]
struct AddedAnchor {
    anchor: Anchor,
    certificate: Certificate,
    /// Where it is an SEV-SNP root.
    snp: Option<AmdCertificate>,
}

impl TrustAnchors {
    /// The hardware vendors whose roots are compiled in: AMD's for SEV-SNP, under the names `amd-milan`, `amd-genoa` and
    /// `amd-turin`, and those of makers of TPMs (`anchors/tpm_roots.rs` says which, and where they were had from). Of each the
    /// key is known and not the certificate, which comes with the evidence. A maker who is not here is trusted once a policy
    /// names its root under `[[anchors]]`.
    #[must_use]
    pub const fn built_in() -> Self {
        Self { anchors: Vec::new(), tpm_roots: &TPM_ROOTS }
    }

    /// The names of the anchors that are compiled in.
    pub fn built_in_names() -> impl ExactSizeIterator<Item = &'static str> {
        const NAMES: [&str; AMD_ROOTS.len() + TPM_ROOTS.len()] = built_in_names();
        NAMES.into_iter()
    }

    /// The roots of makers of TPMs that are compiled in, with where each was had from.
    #[must_use]
    pub const fn built_in_tpm_roots() -> &'static [TpmRoot] {
        &TPM_ROOTS
    }

    /// The built-in root of a maker of TPMs that this certificate is: by its key, and by its own signature, so that nothing
    /// in it was changed.
    pub(crate) fn built_in_tpm_root(&self, certificate: &Certificate) -> Option<&'static str> {
        let key = Sha256Digest::of(certificate.public_key_info());
        let root = self.tpm_roots.iter().find(|root| root.key == key)?;
        let is_whole = certificate.names_issuer(certificate) && certificate.check_signature(certificate).is_ok();
        is_whole.then_some(root.name)
    }

    /// Adds an anchor: an authority whose certificate may be used to endorse TPMs, or the root of an SEV-SNP platform
    /// ([`AnchorKind`]). When it is valid is checked where it is used, since no time is known here.
    ///
    /// Refuses a second anchor of the same name, or of the same key, which would leave open whose trust counts; those
    /// that are compiled in count too. Refuses an SEV-SNP root that is to count as hardware: AMD's are compiled in.
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
        let snp = read_snp_root(&anchor.certificate)?;
        let key = Sha256Digest::of(certificate.public_key_info());
        for (name, other) in self.names_and_keys() {
            if name == anchor.name {
                return Err(AnchorError::NameRepeated);
            }
            if other == key {
                return Err(AnchorError::KeyRepeated);
            }
        }
        if snp.is_some() && anchor.trust == Trust::Hardware {
            return Err(AnchorError::SnpNotHardware);
        }
        self.anchors.push(AddedAnchor { anchor, certificate, snp });
        Ok(self)
    }

    /// The anchors that were added, in the order in which they were, each with the last second that its certificate is
    /// valid.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Anchor, UnixTime)> {
        self.anchors.iter().map(|added| (&added.anchor, added.certificate.not_after()))
    }

    /// What the anchor of this name, built in or added, vouches for.
    #[must_use]
    pub fn trust_of(&self, name: &str) -> Option<Trust> {
        if Self::built_in_names().any(|built_in| built_in == name) {
            return Some(Trust::Hardware);
        }
        self.anchors.iter().find(|added| added.anchor.name == name).map(|added| added.anchor.trust)
    }

    /// Whether evidence that rests on an anchor of this kind can have this trust at all.
    #[must_use]
    pub fn can_yield(&self, kind: AnchorKind, trust: Trust) -> bool {
        let built_in = match kind {
            AnchorKind::Tpm | AnchorKind::Snp => trust == Trust::Hardware,
        };
        let is_kind = |added: &AddedAnchor| added.snp.is_some() == (kind == AnchorKind::Snp);
        built_in || self.anchors.iter().any(|added| is_kind(added) && added.anchor.trust == trust)
    }

    /// What the anchor of this name, built in or added, may endorse.
    #[must_use]
    pub fn kind_of(&self, name: &str) -> Option<AnchorKind> {
        if AMD_ROOTS.iter().any(|root| root.name == name) {
            return Some(AnchorKind::Snp);
        }
        if TPM_ROOTS.iter().any(|root| root.name == name) {
            return Some(AnchorKind::Tpm);
        }
        let added = self.anchors.iter().find(|added| added.anchor.name == name)?;
        Some(if added.snp.is_some() { AnchorKind::Snp } else { AnchorKind::Tpm })
    }

    /// The anchors of TPMs that have the name which `certificate` gives for its issuer. Whether they signed it is still
    /// open.
    pub(crate) fn issuers_named_by(&self, certificate: &Certificate) -> impl Iterator<Item = (&Anchor, &Certificate)> {
        self.anchors
            .iter()
            .filter(|added| added.snp.is_none() && certificate.names_issuer(&added.certificate))
            .map(|added| (&added.anchor, &added.certificate))
    }

    /// The SEV-SNP root with this key, by SHA-256 of its SubjectPublicKeyInfo.
    pub(crate) fn snp_root(&self, key: &Sha256Digest) -> Option<SnpRoot<'_>> {
        let built_in = AMD_ROOTS.iter().find(|root| &root.key == key).map(|root| SnpRoot {
            name: root.name,
            trust: Trust::Hardware,
            pinned_for: Some(root.product),
        });
        built_in.or_else(|| {
            let is_it = |added: &&AddedAnchor| added.snp.as_ref().is_some_and(|root| &root.key_digest() == key);
            let added = self.anchors.iter().find(is_it)?;
            Some(SnpRoot { name: &added.anchor.name, trust: added.anchor.trust, pinned_for: None })
        })
    }

    /// The certificates of the SEV-SNP roots that were added; of those that are compiled in only the keys are.
    pub(crate) fn snp_certificates(&self) -> impl Iterator<Item = &AmdCertificate> {
        self.anchors.iter().filter_map(|added| added.snp.as_ref())
    }

    fn names_and_keys(&self) -> impl Iterator<Item = (&str, Sha256Digest)> {
        let added = self
            .anchors
            .iter()
            .map(|added| (added.anchor.name.as_str(), Sha256Digest::of(added.certificate.public_key_info())));
        let tpm = self.tpm_roots.iter().map(|root| (root.name, root.key));
        AMD_ROOTS.iter().map(|root| (root.name, root.key)).chain(tpm).chain(added)
    }
}

/// An authority that is named like an ARK must be one; any other is for TPMs.
fn read_snp_root(der: &[u8]) -> Result<Option<AmdCertificate>, AnchorError> {
    if !snp::subject_common_name(der).is_some_and(|name| name.starts_with(snp::ROOT_PREFIX)) {
        return Ok(None);
    }
    let certificate = AmdCertificate::parse(der).map_err(AnchorError::Certificate)?;
    snp::check_root(&certificate).map_err(AnchorError::SnpRoot)?;
    Ok(Some(certificate))
}

const fn built_in_names() -> [&'static str; AMD_ROOTS.len() + TPM_ROOTS.len()] {
    let mut names = [""; AMD_ROOTS.len() + TPM_ROOTS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = if at < AMD_ROOTS.len() { AMD_ROOTS[at].name } else { TPM_ROOTS[at - AMD_ROOTS.len()].name };
        at += 1;
    }
    names
}

/// 64 hex digits, read when this is compiled.
const fn pin(digits: &str) -> Sha256Digest {
    let digits = digits.as_bytes();
    assert!(digits.len() == 64, "a SHA-256 has 64 hex digits");
    let mut bytes = [0; 32];
    let mut at = 0;
    while at < 32 {
        bytes[at] = nibble(digits[2 * at]) << 4 | nibble(digits[2 * at + 1]);
        at += 1;
    }
    Sha256Digest::from_bytes(bytes)
}

const fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => panic!("not a lower-case hex digit"),
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
    fn built_in_anchors_are_the_roots_of_amd_and_of_makers_of_tpms() {
        let anchors = TrustAnchors::built_in();
        assert_eq!(anchors.iter().len(), 0, "none was added");
        let names: Vec<_> = TrustAnchors::built_in_names().collect();
        assert_eq!(names[..4], ["amd-milan", "amd-genoa", "amd-turin", "globalsign-tpm-rsa"]);
        assert_eq!(names.len(), AMD_ROOTS.len() + TrustAnchors::built_in_tpm_roots().len());
        for root in TrustAnchors::built_in_tpm_roots() {
            let name = root.name;
            assert_eq!((anchors.kind_of(name), anchors.trust_of(name)), (Some(AnchorKind::Tpm), Some(Trust::Hardware)));
        }
        for root in &AMD_ROOTS {
            let found = anchors.snp_root(&root.key).unwrap();
            assert_eq!((found.name, found.trust), (root.name, Trust::Hardware));
            assert_eq!(found.pinned_for, Some(root.product));
            assert_eq!(anchors.kind_of(root.name), Some(AnchorKind::Snp));
        }
        assert!(anchors.snp_root(&Sha256Digest::of(b"another")).is_none());
        assert_eq!(anchors.kind_of("another"), None);
    }

    #[test]
    fn names_are_those_of_the_format() {
        assert!(is_name("ci-tpm") && is_name("0") && is_name("a._-9") && is_name(&"a".repeat(64)));
        for wrong in ["", "-a", ".a", "A", "a b", "\u{e9}", "a/b", &"a".repeat(65)] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
