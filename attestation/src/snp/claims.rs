//! What verified SEV-SNP evidence shows, for a policy to judge.

use super::chain::VerifiedChain;
use super::crl::CrlStatus;
use super::extensions::LeafSubject;
use super::fields::{CpuId, FirmwareVersion, GuestPolicy, PlatformInfo, SigningKey};
use super::report::Report;
use super::tcb::{SnpProduct, TcbVersion};
use crate::anchors::Trust;
use crate::encoding::{Sha256Digest, UnixTime, lv};

const CHIP_TAG: &[u8] = b"weightvault/v1 chip";
const CSP_TAG: &[u8] = b"weightvault/v1 csp";

/// The platform id of a chip: SHA-256(lv("weightvault/v1 chip", product, CHIP_ID (64 bytes))) (FORMAT.md §2).
#[must_use]
pub fn chip_platform(product: SnpProduct, chip_id: &[u8; 64]) -> Sha256Digest {
    Sha256Digest::of(&lv(&[CHIP_TAG, product.as_str().as_bytes(), chip_id]))
}

/// The platform id of all machines of a cloud whose VLEK signs: SHA-256(lv("weightvault/v1 csp", id of the cloud)).
#[must_use]
pub fn csp_platform(csp_id: &str) -> Sha256Digest {
    Sha256Digest::of(&lv(&[CSP_TAG, csp_id.as_bytes()]))
}

/// What an [`EndorsedReport`](super::EndorsedReport) shows. Only verification makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpClaims {
    report: Report,
    csp_id: Option<String>,
    anchor: String,
    trust: Trust,
    not_after: UnixTime,
    crl: CrlStatus,
}

impl SnpClaims {
    pub(crate) fn new(report: Report, chain: &VerifiedChain, crl: CrlStatus) -> Self {
        let csp_id = match chain.subject() {
            LeafSubject::Csp(name) => Some(name.clone()),
            LeafSubject::Chip(_) => None,
        };
        Self {
            report,
            csp_id,
            anchor: chain.anchor().to_owned(),
            trust: chain.trust(),
            not_after: chain.not_after(),
            crl,
        }
    }

    /// The platform id: of the chip, or of the cloud where its VLEK signed, which names no chip.
    #[must_use]
    pub fn platform(&self) -> Sha256Digest {
        match &self.csp_id {
            Some(csp_id) => csp_platform(csp_id),
            None => chip_platform(self.product(), self.report.chip_id()),
        }
    }

    /// The whole report.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// The processor line.
    #[must_use]
    pub const fn product(&self) -> SnpProduct {
        self.report.product()
    }

    /// The version of the report, 2 to 5. A report of version 2 is of old firmware and does not name its processor.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.report.version()
    }

    /// The processor; from version 3 on.
    #[must_use]
    pub fn cpuid(&self) -> Option<CpuId> {
        self.report.cpuid()
    }

    /// Which kind of key signed: a VCEK proves a chip, a VLEK only a cloud.
    #[must_use]
    pub const fn signing_key(&self) -> SigningKey {
        self.report.key_info().signing_key
    }

    /// The chip (on Turin 8 bytes and zeros); nothing where the host masks it, as clouds with a VLEK do. Beside a VCEK
    /// it equals the one in the VCEK.
    #[must_use]
    pub fn chip_id(&self) -> Option<&[u8; 64]> {
        Some(self.report.chip_id()).filter(|chip| *chip != &[0; 64])
    }

    /// The cloud that the VLEK was issued to, as AMD writes it (`CN=cc-us-east-2.amazonaws.com`); nothing for a VCEK.
    #[must_use]
    pub fn csp_id(&self) -> Option<&str> {
        self.csp_id.as_deref()
    }

    /// The TCB that the signing key was derived for.
    #[must_use]
    pub fn reported_tcb(&self) -> TcbVersion {
        self.report.reported_tcb()
    }

    /// The TCB that runs now.
    #[must_use]
    pub fn current_tcb(&self) -> TcbVersion {
        self.report.current_tcb()
    }

    /// The TCB that the host cannot go back below.
    #[must_use]
    pub fn committed_tcb(&self) -> TcbVersion {
        self.report.committed_tcb()
    }

    /// The TCB that ran when the guest was launched.
    #[must_use]
    pub fn launch_tcb(&self) -> TcbVersion {
        self.report.launch_tcb()
    }

    /// The firmware that runs now.
    #[must_use]
    pub fn current_version(&self) -> FirmwareVersion {
        self.report.current_version()
    }

    /// The firmware that the host cannot go back below.
    #[must_use]
    pub fn committed_version(&self) -> FirmwareVersion {
        self.report.committed_version()
    }

    /// Whether what runs now is not committed, so that the host can still go back.
    #[must_use]
    pub fn is_provisional(&self) -> bool {
        self.report.is_provisional()
    }

    /// What the guest's owner allows the host. DEBUG and MIGRATE_MA are off in every claim.
    #[must_use]
    pub fn policy(&self) -> GuestPolicy {
        self.report.policy()
    }

    /// How the host has set its machine up.
    #[must_use]
    pub fn platform_info(&self) -> PlatformInfo {
        self.report.platform_info()
    }

    /// Whether the ID key was signed by an author key.
    #[must_use]
    pub const fn author_key_en(&self) -> bool {
        self.report.key_info().author_key_en
    }

    /// Whether the host keeps its chip's key from guests.
    #[must_use]
    pub const fn mask_chip_key(&self) -> bool {
        self.report.key_info().mask_chip_key
    }

    /// The privilege level that asked for the report, 0 (most privileged) to 3.
    #[must_use]
    pub fn vmpl(&self) -> u32 {
        self.report.vmpl()
    }

    /// What the guest put in.
    #[must_use]
    pub fn report_data(&self) -> &[u8; 64] {
        self.report.report_data()
    }

    /// Digest of what was launched.
    #[must_use]
    pub fn measurement(&self) -> &[u8; 48] {
        self.report.measurement()
    }

    /// What the host put in at launch.
    #[must_use]
    pub fn host_data(&self) -> &[u8; 32] {
        self.report.host_data()
    }

    /// Digest of the key that signed the ID block; all zero without one.
    #[must_use]
    pub fn id_key_digest(&self) -> &[u8; 48] {
        self.report.id_key_digest()
    }

    /// Digest of the key that signed the ID key; all zero without one.
    #[must_use]
    pub fn author_key_digest(&self) -> &[u8; 48] {
        self.report.author_key_digest()
    }

    /// Out of the ID block.
    #[must_use]
    pub fn family_id(&self) -> &[u8; 16] {
        self.report.family_id()
    }

    /// Out of the ID block.
    #[must_use]
    pub fn image_id(&self) -> &[u8; 16] {
        self.report.image_id()
    }

    /// Security version of the guest, out of the ID block.
    #[must_use]
    pub fn guest_svn(&self) -> u32 {
        self.report.guest_svn()
    }

    /// Of this guest, made anew at each launch.
    #[must_use]
    pub fn report_id(&self) -> &[u8; 32] {
        self.report.report_id()
    }

    /// Mitigations in force at launch; from version 5 on.
    #[must_use]
    pub fn launch_mit_vector(&self) -> Option<u64> {
        self.report.launch_mit_vector()
    }

    /// Mitigations in force now; from version 5 on.
    #[must_use]
    pub fn current_mit_vector(&self) -> Option<u64> {
        self.report.current_mit_vector()
    }

    /// The name of the anchor that the chain ends at.
    #[must_use]
    pub fn anchor(&self) -> &str {
        &self.anchor
    }

    /// What the anchor vouches for.
    #[must_use]
    pub const fn trust(&self) -> Trust {
        self.trust
    }

    /// The last second that the whole chain is valid.
    #[must_use]
    pub const fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// What was there of revocation lists.
    #[must_use]
    pub const fn crl(&self) -> CrlStatus {
        self.crl
    }
}
