//! AMD SEV-SNP: attestation reports, the certificates that endorse them, and the forms that clouds wrap them in.

mod azure;
mod certificate;
mod chain;
mod claims;
mod collateral;
mod collateral_check;
mod crl;
mod evidence;
mod extensions;
mod fields;
mod kept_chains;
mod report;
mod table;
mod tcb;

pub use azure::{AzureQuote, EndorsedVtpm, HclReport, VtpmState};
pub(crate) use certificate::{AmdCertificate, subject_common_name};
pub use chain::VerifiedChain;
pub(crate) use chain::{ROOT_PREFIX, check_root};
pub use claims::{SnpClaims, chip_platform, csp_platform};
pub use collateral::{ChainId, CollateralKey, VcekId};
pub use collateral_check::{CollateralChain, CrlWindow, LeafState};
pub use crl::{CRL_BYTES_MAX, CRLS_MAX, CrlRule, CrlStatus};
pub use evidence::{EndorsedReport, SnpEvidence};
pub use fields::{CpuId, FirmwareVersion, GuestPolicy, KeyInfo, PlatformInfo, SigningKey};
pub use kept_chains::{KEPT_CHAINS_MAX, KeptChains};
pub use report::{Report, SNP_REPORT_BYTES};
pub use table::{CertificateTable, TableEntry};
pub use tcb::{SnpProduct, TcbComponent, TcbVersion};
