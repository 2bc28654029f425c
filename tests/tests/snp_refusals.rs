//! Every refusal of the SEV-SNP verifier, each reached by changing one thing in evidence that it takes.
//!
//! The evidence is the forge's, and signed anew after the change, so that the signature never hides what is looked for.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "snp_refusals/certificates.rs"]
mod certificates;
#[path = "snp_refusals/crls.rs"]
mod crls;
#[path = "snp_refusals/leaf.rs"]
mod leaf;
#[path = "snp_refusals/report.rs"]
mod report;
#[allow(dead_code, reason = "each test program uses its own part")]
#[path = "snp_forge/tlv.rs"]
mod tlv;
#[path = "snp_forge/vectors.rs"]
mod vectors;

use attestation::{Anchor, CrlRule, EndorsedReport, SnpError, SnpEvidence, Trust, TrustAnchors, UnixTime};
use vault_tests::forge::amd::{Authorities, Crl, Issued, Product, Vek};
use vault_tests::forge::keys::VekKey;
use vault_tests::forge::platform::{SoftGuest, SoftPlatform};
use vault_tests::forge::report::{REPORT_LEN, sign};

/// 2027-01-15.
const NOW: i64 = 1_800_000_000;
const REPORT_DATA: [u8; 64] = [9; 64];

/// What evidence is made of.
struct Input {
    platform: SoftPlatform,
    guest: SoftGuest,
    /// Signs the report; what the leaf says of its key is apart from it.
    key: VekKey,
    vek: Vek,
    crls: Vec<Crl>,
}

/// What a verifier gets.
struct Output {
    evidence: SnpEvidence,
    anchors: TrustAnchors,
    rule: CrlRule,
    now: UnixTime,
}

impl Input {
    fn new(product: Product) -> Self {
        Self::on(SoftPlatform::new(product))
    }

    fn leased() -> Self {
        Self::on(SoftPlatform::new(Product::Milan).with(|it| it.vlek = Some("CN=cloud.invalid".to_owned())))
    }

    fn on(platform: SoftPlatform) -> Self {
        let (key, vek, crls) = (platform.vek_key(), platform.vek(), vec![platform.authorities.crl(NOW)]);
        Self { platform, guest: SoftGuest::new([7; 48]), key, vek, crls }
    }

    fn report(&self, change: impl FnOnce(&mut [u8; REPORT_LEN])) -> Vec<u8> {
        let mut report = self.platform.report(&self.guest, REPORT_DATA).encode();
        change(&mut report);
        sign(&mut report, &self.key);
        report.to_vec()
    }

    fn output(&self, leaf: &Issued, report: Vec<u8>) -> Output {
        let Authorities { ark, .. } = &self.platform.authorities;
        let certificates = vec![leaf.der(), self.platform.signer().der(), ark.der()];
        let crls = self.crls.iter().map(Crl::der).collect();
        Output {
            evidence: SnpEvidence { report, certificates, crls },
            anchors: anchors(self.platform.product),
            rule: CrlRule::Required,
            now: UnixTime(NOW as u64),
        }
    }
}

impl Output {
    fn good(input: &Input) -> Self {
        input.output(&input.vek.issued(), input.report(|_| {}))
    }

    fn verify(&self) -> Result<EndorsedReport, SnpError> {
        EndorsedReport::verify(&self.evidence, &self.anchors, self.rule, self.now)
    }

    /// The refusal of evidence that must be refused.
    fn refusal(&self) -> SnpError {
        self.verify().unwrap_err()
    }
}

/// The soft root of a product line, as a policy may anchor it.
fn anchors(product: Product) -> TrustAnchors {
    let certificate = Authorities::new(product).ark.der();
    let anchor = Anchor { name: "soft".to_owned(), trust: Trust::Emulated, certificate };
    TrustAnchors::built_in().with(anchor).unwrap()
}

/// What becomes of good evidence of a Milan if what it is made of changes.
fn with_input(change: impl FnOnce(&mut Input)) -> SnpError {
    let mut input = Input::new(Product::Milan);
    assert!(Output::good(&input).verify().is_ok());
    change(&mut input);
    Output::good(&input).refusal()
}

/// What becomes of it if the platform changes, and the key and its certificate with it.
fn with_platform(change: impl FnOnce(&mut SoftPlatform)) -> SnpError {
    let good = Input::new(Product::Milan);
    assert!(Output::good(&good).verify().is_ok());
    Output::good(&Input::on(good.platform.with(change))).refusal()
}

/// What becomes of it if the report's bytes change before they are signed.
fn with_report(change: impl FnOnce(&mut [u8; REPORT_LEN])) -> SnpError {
    let input = Input::new(Product::Milan);
    assert!(Output::good(&input).verify().is_ok());
    input.output(&input.vek.issued(), input.report(change)).refusal()
}

/// What becomes of it if the leaf changes before it is signed.
fn with_leaf(change: impl FnOnce(&mut Issued)) -> SnpError {
    let input = Input::new(Product::Milan);
    assert!(Output::good(&input).verify().is_ok());
    let mut leaf = input.vek.issued();
    change(&mut leaf);
    input.output(&leaf, input.report(|_| {})).refusal()
}

/// What becomes of it if what is sent, or the verifier's side, changes.
fn with_output(change: impl FnOnce(&mut Output)) -> SnpError {
    let mut output = Output::good(&Input::new(Product::Milan));
    assert!(output.verify().is_ok());
    change(&mut output);
    output.refusal()
}

#[test]
fn good_evidence_of_every_kind_is_taken_and_emulated() {
    for product in Product::ALL {
        for vlek in [None, Some("CN=cloud.invalid".to_owned())] {
            for version in 2..=5 {
                let platform = SoftPlatform::new(product).with(|platform| {
                    platform.vlek.clone_from(&vlek);
                    platform.report_version = version;
                });
                let endorsed = Output::good(&Input::on(platform)).verify().unwrap();
                assert_eq!(endorsed.claims().trust(), Trust::Emulated);
                assert_eq!(endorsed.claims().product().as_str(), product.name());
                assert_eq!(endorsed.claims().csp_id(), vlek.as_deref());
                assert_eq!(endorsed.check_report_data(&REPORT_DATA), Ok(()));
                assert_eq!(endorsed.check_report_data(&[8; 64]), Err(SnpError::ReportDataMismatch));
            }
        }
    }
}
