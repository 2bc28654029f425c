//! Where the vectors are, and how one is read.

use std::path::{Path, PathBuf};

use attestation::{CrlRule, EndorsedReport, Report, SnpError, SnpEvidence, SnpProduct, TrustAnchors, UnixTime};
use serde_json::Value;

/// A time at which every certificate but the VLEK is valid: 2026-07-01.
pub(crate) const NOW: UnixTime = UnixTime(1_782_864_000);
/// A time at which the VLEK is valid: 2025-07-01.
pub(crate) const NOW_OF_VLEK: UnixTime = UnixTime(1_751_328_000);

/// One report with its chain, and what it must show.
#[derive(Clone)]
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) product: SnpProduct,
    pub(crate) evidence: SnpEvidence,
    pub(crate) expected: Value,
}

impl Vector {
    fn read(folder: &Path, roots: &Path) -> Self {
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
        let expected: Value = serde_json::from_slice(&read("expected.json")).unwrap();
        let is_vlek = expected["vek"] == "vlek";
        let product = product_of(expected["generation"].as_str().unwrap());
        let [ask, ark, asvk] = authorities(roots, product);
        let leaf = read(if is_vlek { "vlek.der" } else { "vcek.der" });
        Self {
            name: folder.file_name().unwrap().to_str().unwrap().to_owned(),
            product,
            evidence: SnpEvidence {
                report: read("report.bin"),
                certificates: vec![leaf, if is_vlek { asvk } else { ask }, ark],
                crls: Vec::new(),
            },
            expected,
        }
    }

    pub(crate) fn is_vlek(&self) -> bool {
        self.expected["vek"] == "vlek"
    }

    /// A time at which its chain is valid.
    pub(crate) fn now(&self) -> UnixTime {
        if self.is_vlek() { NOW_OF_VLEK } else { NOW }
    }

    /// Whether what it says is allowed by a production policy: one vector lets its host debug.
    pub(crate) fn is_debug(&self) -> bool {
        self.expected["fields"]["policy_bits"]["debug"] == 1
    }

    pub(crate) fn report(&self) -> Report {
        Report::parse(&self.evidence.report, Some(self.product)).unwrap()
    }

    pub(crate) fn verify(&self) -> Result<EndorsedReport, SnpError> {
        verify(&self.evidence, self.now())
    }
}

pub(crate) fn verify(evidence: &SnpEvidence, now: UnixTime) -> Result<EndorsedReport, SnpError> {
    EndorsedReport::verify(evidence, &TrustAnchors::built_in(), CrlRule::IfPresent, now)
}

/// At [`NOW`], under anchors of a policy.
pub(crate) fn verify_under(evidence: &SnpEvidence, anchors: &TrustAnchors) -> Result<EndorsedReport, SnpError> {
    EndorsedReport::verify(evidence, anchors, CrlRule::IfPresent, NOW)
}

/// Every report, those of Azure too; none where the vectors are not.
pub(crate) fn all() -> Vec<Vector> {
    let (Some(snp), Some(azure)) = (folder("snp"), folder("azure-snp-vtpm")) else { return Vec::new() };
    let roots = snp.join("amd-roots");
    let vectors: Vec<Vector> = [snp, azure]
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("report.bin").is_file())
        .map(|path| Vector::read(&path, &roots))
        .collect();
    assert_eq!(vectors.len(), 14, "10 in snp, 4 in azure-snp-vtpm");
    vectors
}

/// The vector of this name; nothing where the vectors are not.
pub(crate) fn named(name: &str) -> Option<Vector> {
    let found = all().into_iter().find(|vector| vector.name == name);
    assert!(found.is_some() || folder("snp").is_none(), "there is no vector {name}");
    found
}

/// Nothing where the vectors are not; that is a failure only in CI.
pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors");
    let root = std::env::var("WEIGHTVAULT_VECTORS").unwrap_or_else(|_| default.to_owned());
    let folder = PathBuf::from(root).join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "no vectors at {}", folder.display());
    println!("skipped: there are no vectors at {}", folder.display());
    None
}

/// ASK, ARK, ASVK of a product, in DER.
pub(crate) fn authorities(roots: &Path, product: SnpProduct) -> [Vec<u8>; 3] {
    let file = roots.join(format!("{}_ask_ark_asvk.pem", product.as_str().to_lowercase()));
    let text = std::fs::read_to_string(file).unwrap();
    let end = "-----END CERTIFICATE-----\n";
    let blocks: Vec<Vec<u8>> = text
        .split_inclusive(end)
        .filter(|block| block.contains("BEGIN"))
        .map(|block| der::pem::decode_vec(block.trim().as_bytes()).unwrap().1)
        .collect();
    blocks.try_into().unwrap()
}

pub(crate) fn product_of(generation: &str) -> SnpProduct {
    SnpProduct::ALL.into_iter().find(|product| product.as_str().eq_ignore_ascii_case(generation)).unwrap()
}
