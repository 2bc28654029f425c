//! What a rule asks of an SEV-SNP report, besides what never holds: see [`attestation::SnpError`] for that.

use std::fmt;

use attestation::{
    CrlRule, FirmwareVersion, PlatformInfo, Sha256Digest, SigningKey, SnpClaims, SnpProduct, TcbVersion,
};

use super::rules::Permitted;
use super::snp_mismatch::{SnpMismatch, TcbField};

/// A SHA-384 digest, as a report has it.
pub type Sha384 = [u8; 48];

/// `[keeper.snp]` and `[release.NAME.snp]`. What is not optional stands in every policy, `any` spelled out; the optional
/// keys only narrow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnpRule {
    /// Launch digests (MEASUREMENT): at least one.
    pub measurements: Vec<Sha384>,
    /// Which chips, by platform id. Reports that a VLEK signed name no chip: they are held to [`csps`](Self::csps).
    pub chips: Permitted<Sha256Digest>,
    /// The clouds whose VLEK may sign, by the id in its certificate; none: only a chip's own VCEK may.
    pub csps: Vec<String>,
    /// The lowest TCB of each product; a product that is not here is refused.
    pub min_tcb: MinTcb,
    /// The privilege level that asked for the report, exactly.
    pub vmpl: u32,
    /// Lowest version of the report's format. Version 2 does not say of which generation the chip is.
    pub min_report_version: u32,
    /// Whether a revocation list is a must.
    pub crl: CrlRule,
    /// Whether two threads of a core may run, which opens side channels.
    pub smt: Allowed,
    /// Whether firmware may be in use that the host can still roll back.
    pub provisional_firmware: Allowed,
    /// HOST_DATA; absent: not looked at.
    pub host_data: Option<Vec<[u8; 32]>>,
    /// Digests of the keys that signed the ID block.
    pub id_keys: Option<Vec<Sha384>>,
    /// Digests of the keys that signed those keys.
    pub author_keys: Option<Vec<Sha384>>,
    /// Lowest GUEST_SVN.
    pub min_guest_svn: Option<u32>,
    /// Lowest version of the firmware in use, and of the one that can't be rolled back.
    pub min_firmware: Option<FirmwareVersion>,
    /// What the platform must have: bits of PLATFORM_INFO.
    pub platform: Vec<PlatformFeature>,
}

/// Whether something that weakens is allowed. Always written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// `true`.
    Yes,
    /// `false`.
    No,
}

/// The lowest TCB of each product that may be used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MinTcb {
    /// Third generation.
    pub milan: Option<TcbVersion>,
    /// Fourth.
    pub genoa: Option<TcbVersion>,
    /// Fifth.
    pub turin: Option<TcbVersion>,
}

impl MinTcb {
    /// Of one product.
    pub fn of(&self, product: SnpProduct) -> Option<&TcbVersion> {
        match product {
            SnpProduct::Milan => self.milan.as_ref(),
            SnpProduct::Genoa => self.genoa.as_ref(),
            SnpProduct::Turin => self.turin.as_ref(),
        }
    }

    /// The key of a product in a policy.
    pub(super) const fn key_of(product: SnpProduct) -> &'static str {
        match product {
            SnpProduct::Milan => "milan",
            SnpProduct::Genoa => "genoa",
            SnpProduct::Turin => "turin",
        }
    }

    /// The products that may be used, with their lowest TCB.
    pub fn iter(&self) -> impl Iterator<Item = (SnpProduct, &TcbVersion)> {
        [SnpProduct::Milan, SnpProduct::Genoa, SnpProduct::Turin]
            .into_iter()
            .filter_map(|product| self.of(product).map(|tcb| (product, tcb)))
    }
}

/// A feature that the platform reports (PLATFORM_INFO).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlatformFeature {
    /// Memory has ECC.
    Ecc,
    /// The whole memory is encrypted, not only that of guests.
    Tsme,
    /// The power sensor that programs can read is off.
    RaplDisabled,
    /// Ciphertext can't be read by the host.
    CiphertextHiding,
    /// Memory was checked for aliases (CVE-2024-21944, "BadRAM").
    AliasCheck,
}

impl PlatformFeature {
    /// All of them, with their names in a policy.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Ecc, "ecc"),
        (Self::Tsme, "tsme"),
        (Self::RaplDisabled, "rapl-disabled"),
        (Self::CiphertextHiding, "ciphertext-hiding"),
        (Self::AliasCheck, "alias-check"),
    ];

    fn is_in(self, info: PlatformInfo) -> bool {
        match self {
            Self::Ecc => info.ecc_en(),
            Self::Tsme => info.tsme_en(),
            Self::RaplDisabled => info.rapl_dis(),
            Self::CiphertextHiding => info.ciphertext_hiding_dram_en(),
            Self::AliasCheck => info.alias_check_complete(),
        }
    }
}

impl fmt::Display for PlatformFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::ALL.iter().find(|(feature, _)| feature == self);
        f.write_str(named.map_or("?", |(_, name)| name))
    }
}

impl SnpRule {
    /// Whether the report is all that the rule asks for.
    pub fn check(&self, report: &SnpClaims) -> Result<(), SnpMismatch> {
        self.check_signer(report)?;
        self.check_versions(report)?;
        if !self.measurements.contains(report.measurement()) {
            return Err(SnpMismatch::Measurement { seen: Box::new(*report.measurement()) });
        }
        if report.vmpl() != self.vmpl {
            return Err(SnpMismatch::Vmpl { expected: self.vmpl, seen: report.vmpl() });
        }
        if self.smt == Allowed::No && (report.policy().smt() || report.platform_info().smt_en()) {
            return Err(SnpMismatch::Smt);
        }
        if self.provisional_firmware == Allowed::No && report.is_provisional() {
            return Err(SnpMismatch::ProvisionalFirmware);
        }
        self.check_identity(report)?;
        match self.platform.iter().find(|feature| !feature.is_in(report.platform_info())) {
            Some(&missing) => Err(SnpMismatch::Platform { missing }),
            None => Ok(()),
        }
    }

    /// Whether evidence of this platform can fulfil the rule at all: for the fold, which has no report.
    pub fn permits_platform(&self, platform: Sha256Digest) -> bool {
        self.chips.permits(&platform) || self.csps.iter().any(|csp| attestation::csp_platform(csp) == platform)
    }

    fn check_signer(&self, report: &SnpClaims) -> Result<(), SnpMismatch> {
        match report.signing_key() {
            SigningKey::Vcek => match self.chips.permits(&report.platform()) {
                true => Ok(()),
                false => Err(SnpMismatch::Chip { seen: report.platform() }),
            },
            // Another cloud's key may sign for any of its machines: only a listed one will do, whatever `chips` says.
            SigningKey::Vlek => {
                let csp = report.csp_id().unwrap_or_default();
                match self.csps.iter().any(|listed| listed == csp) {
                    true => Ok(()),
                    false => Err(SnpMismatch::Csp { seen: csp.to_owned() }),
                }
            }
        }
    }

    fn check_versions(&self, report: &SnpClaims) -> Result<(), SnpMismatch> {
        if report.version() < self.min_report_version {
            return Err(SnpMismatch::ReportVersion { min: self.min_report_version, seen: report.version() });
        }
        let product = report.product();
        let min = self.min_tcb.of(product).ok_or(SnpMismatch::Product { seen: product })?;
        // Each by itself: the host chooses what is reported, and what was in use at launch may have leaked. What runs comes
        // first: nothing that is reported or committed is above it.
        for (field, tcb) in [
            (TcbField::Current, report.current_tcb()),
            (TcbField::Reported, report.reported_tcb()),
            (TcbField::Committed, report.committed_tcb()),
            (TcbField::Launch, report.launch_tcb()),
        ] {
            if !tcb.meets(min) {
                return Err(SnpMismatch::Tcb { field, product, min: *min, seen: tcb });
            }
        }
        let firmware = report.current_version().min(report.committed_version());
        match self.min_firmware.filter(|min| firmware < *min) {
            Some(min) => Err(SnpMismatch::Firmware { min, seen: firmware }),
            None => Ok(()),
        }
    }

    fn check_identity(&self, report: &SnpClaims) -> Result<(), SnpMismatch> {
        if self.host_data.as_ref().is_some_and(|listed| !listed.contains(report.host_data())) {
            return Err(SnpMismatch::HostData { seen: *report.host_data() });
        }
        if self.id_keys.as_ref().is_some_and(|listed| !listed.contains(report.id_key_digest())) {
            return Err(SnpMismatch::IdKey { seen: Box::new(*report.id_key_digest()) });
        }
        if self.author_keys.as_ref().is_some_and(|listed| !listed.contains(report.author_key_digest())) {
            return Err(SnpMismatch::AuthorKey { seen: Box::new(*report.author_key_digest()) });
        }
        match self.min_guest_svn.filter(|min| report.guest_svn() < *min) {
            Some(min) => Err(SnpMismatch::GuestSvn { min, seen: report.guest_svn() }),
            None => Ok(()),
        }
    }
}
