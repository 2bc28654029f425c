//! What a report lacks of a rule's `snp` section.

use std::fmt;

use attestation::{FirmwareVersion, Sha256Digest, SnpProduct, TcbVersion};

use super::snp::{MinTcb, PlatformFeature, Sha384};

/// Which TCB of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcbField {
    /// What the signing key was derived for.
    Reported,
    /// In use.
    Current,
    /// Can't be rolled back any more.
    Committed,
    /// When the guest was launched.
    Launch,
}

impl fmt::Display for TcbField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reported => "reported",
            Self::Current => "current",
            Self::Committed => "committed",
            Self::Launch => "launch",
        })
    }
}

/// A claim of a report that a rule does not allow. One variant for each key of the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnpMismatch {
    /// MEASUREMENT.
    Measurement {
        /// What was launched.
        seen: Box<Sha384>,
    },
    /// The chip.
    Chip {
        /// Its platform id.
        seen: Sha256Digest,
    },
    /// A VLEK signed, of a cloud that is not listed.
    Csp {
        /// The cloud's id.
        seen: String,
    },
    /// The product has no lowest TCB.
    Product {
        /// Which.
        seen: SnpProduct,
    },
    /// A TCB is below the lowest one, in at least one component.
    Tcb {
        /// Which.
        field: TcbField,
        /// Of which product.
        product: SnpProduct,
        /// The lowest.
        min: TcbVersion,
        /// What the report says.
        seen: TcbVersion,
    },
    /// The privilege level.
    Vmpl {
        /// The rule's.
        expected: u32,
        /// The report's.
        seen: u32,
    },
    /// The report's format is older.
    ReportVersion {
        /// The rule's.
        min: u32,
        /// The report's.
        seen: u32,
    },
    /// Two threads of a core may run.
    Smt,
    /// The firmware in use can still be rolled back.
    ProvisionalFirmware,
    /// HOST_DATA.
    HostData {
        /// What the host gave at launch.
        seen: [u8; 32],
    },
    /// The key that signed the ID block.
    IdKey {
        /// Its digest; zeros: there is no ID block.
        seen: Box<Sha384>,
    },
    /// The key that signed the ID key.
    AuthorKey {
        /// Its digest; zeros: there is none.
        seen: Box<Sha384>,
    },
    /// GUEST_SVN is lower.
    GuestSvn {
        /// The rule's.
        min: u32,
        /// The report's.
        seen: u32,
    },
    /// The firmware is older.
    Firmware {
        /// The rule's.
        min: FirmwareVersion,
        /// The older of the one in use and the committed one.
        seen: FirmwareVersion,
    },
    /// The platform lacks a feature.
    Platform {
        /// Which.
        missing: PlatformFeature,
    },
}

impl SnpMismatch {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Measurement { .. } => "snp-measurement-not-allowed",
            Self::Chip { .. } => "snp-chip-not-listed",
            Self::Csp { .. } => "snp-csp-not-listed",
            Self::Product { .. } => "snp-product-not-listed",
            Self::Tcb { field: TcbField::Reported, .. } => "snp-reported-tcb-below-minimum",
            Self::Tcb { field: TcbField::Current, .. } => "snp-current-tcb-below-minimum",
            Self::Tcb { field: TcbField::Committed, .. } => "snp-committed-tcb-below-minimum",
            Self::Tcb { field: TcbField::Launch, .. } => "snp-launch-tcb-below-minimum",
            Self::Vmpl { .. } => "snp-vmpl-not-allowed",
            Self::ReportVersion { .. } => "snp-report-version-below-minimum",
            Self::Smt => "snp-smt-not-allowed",
            Self::ProvisionalFirmware => "snp-provisional-firmware",
            Self::HostData { .. } => "snp-host-data-not-allowed",
            Self::IdKey { .. } => "snp-id-key-not-allowed",
            Self::AuthorKey { .. } => "snp-author-key-not-allowed",
            Self::GuestSvn { .. } => "snp-guest-svn-below-minimum",
            Self::Firmware { .. } => "snp-firmware-below-minimum",
            Self::Platform { .. } => "snp-platform-feature-missing",
        }
    }

    /// The key of the rule that asks for it, below `snp`.
    pub fn key(&self) -> String {
        match self {
            Self::Measurement { .. } => "measurements".to_owned(),
            Self::Chip { .. } => "chips".to_owned(),
            Self::Csp { .. } => "csps".to_owned(),
            Self::Product { .. } => "min_tcb".to_owned(),
            Self::Tcb { product, .. } => format!("min_tcb.{}", MinTcb::key_of(*product)),
            Self::Vmpl { .. } => "vmpl".to_owned(),
            Self::ReportVersion { .. } => "min_report_version".to_owned(),
            Self::Smt => "smt".to_owned(),
            Self::ProvisionalFirmware => "provisional_firmware".to_owned(),
            Self::HostData { .. } => "host_data".to_owned(),
            Self::IdKey { .. } => "id_keys".to_owned(),
            Self::AuthorKey { .. } => "author_keys".to_owned(),
            Self::GuestSvn { .. } => "min_guest_svn".to_owned(),
            Self::Firmware { .. } => "min_firmware".to_owned(),
            Self::Platform { .. } => "platform".to_owned(),
        }
    }

    /// Claim, expected, seen.
    pub fn words(&self) -> (&'static str, String, String) {
        match self {
            Self::Measurement { seen } => ("launch digest", "one that the rule lists".into(), hex::encode(**seen)),
            Self::Chip { seen } => ("chip", "one that the rule lists".into(), seen.to_string()),
            Self::Csp { seen } => ("signer", "a chip's own key, or a cloud that the rule lists".into(), seen.clone()),
            Self::Product { seen } => ("product", "one that the rule gives a TCB for".into(), seen.to_string()),
            Self::Tcb { field, min, seen, .. } => {
                let claim = match field {
                    TcbField::Reported => "reported TCB",
                    TcbField::Current => "current TCB",
                    TcbField::Committed => "committed TCB",
                    TcbField::Launch => "launch TCB",
                };
                (claim, format!("at least {min}, each part"), seen.to_string())
            }
            Self::Vmpl { expected, seen } => ("VMPL", expected.to_string(), seen.to_string()),
            Self::ReportVersion { min, seen } => ("report version", format!("at least {min}"), seen.to_string()),
            Self::Smt => ("SMT", "off, by the guest's policy and on the platform".into(), "allowed or on".into()),
            Self::ProvisionalFirmware => {
                ("firmware", "committed, so that the host can't roll it back".into(), "provisional".into())
            }
            Self::HostData { seen } => ("host data", "one that the rule lists".into(), hex::encode(seen)),
            Self::IdKey { seen } => ("ID key", "one that the rule lists".into(), hex::encode(**seen)),
            Self::AuthorKey { seen } => ("author key", "one that the rule lists".into(), hex::encode(**seen)),
            Self::GuestSvn { min, seen } => ("guest SVN", format!("at least {min}"), seen.to_string()),
            Self::Firmware { min, seen } => ("firmware", format!("at least {min}"), seen.to_string()),
            Self::Platform { missing } => ("platform", format!("has {missing}"), "it is off or not reported".into()),
        }
    }
}

impl fmt::Display for SnpMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (claim, expected, seen) = self.words();
        write!(f, "{claim}: expected {expected}, seen {seen}")
    }
}
