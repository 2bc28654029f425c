//! Options on where certificates come from that the host's table does not hold. The same for keeper and agent.

use std::path::PathBuf;
use std::sync::Arc;

use vault_proto::collateral::{Collateral, CollateralOptions, KdsChoice, Limits, SourceError};

/// `--collateral DIR`, `--kds URL`, `--kds-ca FILE`.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct CollateralArgs {
    /// Certificates and revocation lists of SNP chips, where the host does not give them: filled with `vaultctl collateral
    /// prefetch`, added to where it can be written.
    #[arg(long, value_name = "DIR", env = "WEIGHTVAULT_COLLATERAL")]
    pub(crate) collateral: Option<PathBuf>,
    /// Key service to fetch them from where the store has not got them: http://…, https://…, or amd for AMD's own. Can be
    /// given more than once: asked in order. Without it nothing is fetched.
    #[arg(long, value_name = "URL", env = "WEIGHTVAULT_KDS", value_delimiter = ',')]
    pub(crate) kds: Vec<KdsChoice>,
    /// PEM of the authorities that https key services are checked by [default: those of the system].
    #[arg(long, value_name = "FILE")]
    pub(crate) kds_ca: Option<PathBuf>,
}

impl CollateralArgs {
    /// Reads them.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn open(&self) -> Result<Arc<Collateral>, SourceError> {
        let options = CollateralOptions {
            store: self.collateral.clone(),
            kds: self.kds.clone(),
            ca: self.kds_ca.clone(),
            limits: Limits::default(),
            warn: |text| tracing::warn!("{text}"),
        };
        Collateral::new(options).map(Arc::new)
    }
}
