//! From bytes to an endorsed report: the only code able to make an [`EndorsedReport`].

use subtle::ConstantTimeEq;

use super::certificate::AmdCertificate;
use super::chain::{VerifiedChain, kind_of_leaf};
use super::claims::SnpClaims;
use super::crl::{CrlRule, CrlStatus};
use super::extensions::LeafSubject;
use super::report::{Frame, Report};
use crate::anchors::TrustAnchors;
use crate::encoding::UnixTime;
use crate::error::SnpError;

/// The highest VMPL of a guest. A report that the host asked for has FFFFFFFFh, and shows nothing about a guest.
const VMPL_MAX: u32 = 3;

/// A report with what endorses it. Nothing in it is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpEvidence {
    /// ATTESTATION_REPORT, exactly 1184 bytes.
    pub report: Vec<u8>,
    /// X.509, exact DER, each at most 4 KiB: VCEK or VLEK, ASK or ASVK, ARK. The ARK may be left out if the policy has
    /// it as an anchor.
    pub certificates: Vec<Vec<u8>>,
    /// Revocation lists of the ARK, exact DER; at most 2, each at most 64 KiB.
    pub crls: Vec<Vec<u8>>,
}

impl SnpEvidence {
    /// Picks out of `certificates`, which are in any order, those that a verifier wants, and puts them in order. Made
    /// for whoever collects evidence: certificate tables hold more than one chain. What is not found is left out, and
    /// verification says that it is missing; nothing is verified here.
    #[must_use]
    pub fn select(report: Vec<u8>, certificates: &[Vec<u8>], crls: Vec<Vec<u8>>) -> Self {
        let signing_key = Frame::parse(&report).ok().map(|frame| frame.key_info().signing_key);
        let read: Vec<(&Vec<u8>, AmdCertificate)> =
            certificates.iter().filter_map(|der| Some((der, AmdCertificate::parse(der).ok()?))).collect();
        let leaf = read.iter().find(|(_, certificate)| match signing_key {
            Some(kind) => kind_of_leaf(certificate) == Some(kind),
            None => kind_of_leaf(certificate).is_some(),
        });
        let issuer_of = |of: &AmdCertificate| read.iter().find(|(_, certificate)| of.names_issuer(certificate));
        let intermediate = leaf.and_then(|(_, certificate)| issuer_of(certificate));
        let root = intermediate.and_then(|(_, certificate)| issuer_of(certificate));
        let chain = [leaf, intermediate, root].into_iter().flatten().map(|(der, _)| (*der).clone()).collect();
        Self { report, certificates: chain, crls }
    }
}

/// A report that an endorsed key of AMD's hardware signed, whose guest no host can read.
///
/// **When it was made, and for whom, is not shown by this type**: a report has no time in it. Only
/// [`EndorsedReport::check_report_data`] against a fresh challenge shows that.
///
/// ```
/// use attestation::{CrlRule, EndorsedReport, SnpError, SnpEvidence, TrustAnchors, UnixTime};
///
/// let evidence = SnpEvidence { report: vec![0; 1183], certificates: Vec::new(), crls: Vec::new() };
/// let now = UnixTime(1_782_864_000);
/// let endorsed = EndorsedReport::verify(&evidence, &TrustAnchors::built_in(), CrlRule::Required, now);
/// assert_eq!(endorsed.err(), Some(SnpError::ReportLength { found: 1183 }));
/// ```
#[derive(Clone, Debug)]
pub struct EndorsedReport {
    claims: SnpClaims,
}

impl EndorsedReport {
    /// Verifies `evidence` at `now`. In this order: size, version, algorithm and reserved bytes of the report; the
    /// chain to an anchor; dates and revocation lists; the signature over the bytes as sent; that the leaf is for this
    /// TCB and chip; and what no policy can allow: debugging, migration, a report that the host asked for.
    ///
    /// What is a matter of policy is given back as claims.
    pub fn verify(
        evidence: &SnpEvidence,
        anchors: &TrustAnchors,
        rule: CrlRule,
        now: UnixTime,
    ) -> Result<Self, SnpError> {
        Self::verify_anew(evidence, anchors, rule, now).map(|(endorsed, _)| endorsed)
    }

    /// [`EndorsedReport::verify`], and the chain for the next report under it.
    pub(super) fn verify_anew(
        evidence: &SnpEvidence,
        anchors: &TrustAnchors,
        rule: CrlRule,
        now: UnixTime,
    ) -> Result<(Self, VerifiedChain), SnpError> {
        // The report first: what is malformed costs no RSA.
        Frame::parse(&evidence.report)?;
        let chain = VerifiedChain::verify(evidence, anchors, rule, now)?;
        Ok((Self::verify_with_chain(evidence, &chain, anchors, rule, now)?, chain))
    }

    /// The same with a chain that was verified before, so that three RSA signatures need not be checked again. What
    /// time or policy may have changed since is checked again. The chain must be the one of `evidence`: keep chains
    /// under [`VerifiedChain::key`].
    pub fn verify_with_chain(
        evidence: &SnpEvidence,
        chain: &VerifiedChain,
        anchors: &TrustAnchors,
        rule: CrlRule,
        now: UnixTime,
    ) -> Result<Self, SnpError> {
        let frame = Frame::parse(&evidence.report)?;
        Self::endorse(frame, chain, chain.check(evidence, anchors, rule, now)?)
    }

    /// Checks that the guest put exactly `expected` into the report, in constant time.
    pub fn check_report_data(&self, expected: &[u8; 64]) -> Result<(), SnpError> {
        if bool::from(self.report().report_data().ct_eq(expected)) {
            return Ok(());
        }
        Err(SnpError::ReportDataMismatch)
    }

    /// The report.
    #[must_use]
    pub const fn report(&self) -> &Report {
        self.claims.report()
    }

    /// What the evidence shows.
    #[must_use]
    pub const fn claims(&self) -> &SnpClaims {
        &self.claims
    }

    /// What the evidence shows.
    #[must_use]
    pub fn into_claims(self) -> SnpClaims {
        self.claims
    }

    fn endorse(frame: Frame, chain: &VerifiedChain, crl: CrlStatus) -> Result<Self, SnpError> {
        let stated = frame.key_info().signing_key;
        if stated != chain.signing_key() {
            return Err(SnpError::SigningKeyMismatch { leaf: chain.signing_key(), report: stated });
        }
        let report = frame.with_product(Some(chain.product()))?;
        report.check_signature(chain.point())?;
        check_leaf(&report, chain)?;
        check_tcbs(&report)?;
        check_guest(&report)?;
        Ok(Self { claims: SnpClaims::new(report, chain, crl) })
    }
}

/// The leaf is for the TCB and the chip that the report states.
fn check_leaf(report: &Report, chain: &VerifiedChain) -> Result<(), SnpError> {
    if let Some(component) = chain.tcb().first_difference(&report.reported_tcb()) {
        return Err(SnpError::LeafTcbMismatch { component });
    }
    match chain.subject() {
        // All 64 bytes: those after the eighth are zero on Turin, in the leaf by its making.
        LeafSubject::Chip(chip) if chip == report.chip_id() => Ok(()),
        LeafSubject::Chip(_) if report.chip_id() == &[0; 64] => Err(SnpError::ChipMasked),
        LeafSubject::Chip(_) => Err(SnpError::ChipMismatch),
        // A VLEK is of no chip; whether its cloud is wanted is for a policy to say.
        LeafSubject::Csp(_) => Ok(()),
    }
}

/// What no firmware states: an older TCB than is claimed runs.
fn check_tcbs(report: &Report) -> Result<(), SnpError> {
    let current = report.current_tcb();
    if let Some(component) = current.first_below(&report.reported_tcb()) {
        return Err(SnpError::ReportedAboveCurrent { component });
    }
    if let Some(component) = current.first_below(&report.committed_tcb()) {
        return Err(SnpError::CommittedAboveCurrent { component });
    }
    Ok(())
}

/// What would let someone else read the guest's memory, or speak for it.
fn check_guest(report: &Report) -> Result<(), SnpError> {
    if report.policy().debug() {
        return Err(SnpError::Debug);
    }
    if report.policy().migrate_ma() {
        return Err(SnpError::MigrationAllowed);
    }
    if report.report_id_ma() != &[0xff; 32] {
        return Err(SnpError::MigrationAgent);
    }
    if report.vmpl() > VMPL_MAX {
        return Err(SnpError::VmplUnknown { found: report.vmpl() });
    }
    Ok(())
}
