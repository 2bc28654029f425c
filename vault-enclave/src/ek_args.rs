//! `--ek` and `--ek-chain`: which endorsement key, and who issued its certificate.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use x509_cert::der::Encode;

use crate::failure::{Failure, Kind};
use crate::tpm::{EkChoice, TctiConfig};

const CHAIN_BYTES_MAX: u64 = 64 << 10;

/// What is said of the TPM's endorsement key.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct EkArgs {
    /// The TPM's endorsement key: auto, rsa-2048, ecc-p256 or ecc-p384. `auto` takes the first of them that the TPM holds a
    /// certificate for.
    #[arg(long, value_name = "KEY", default_value = "auto", env = "WEIGHTVAULT_EK")]
    ek: EkChoice,
    /// PEM of the certificates that issued the EK's, in order towards the root, to be sent along: a TPM holds its own alone.
    /// Not needed where the policy names the direct issuer as an anchor.
    #[arg(long, value_name = "FILE", env = "WEIGHTVAULT_EK_CHAIN")]
    ek_chain: Option<PathBuf>,
}

impl EkArgs {
    /// This TPM, asked for that key.
    ///
    /// # Errors
    /// `ek-chain-malformed`, or what the file system says of the file.
    pub(crate) fn apply(&self, tpm: TctiConfig) -> Result<TctiConfig, Failure> {
        let tpm = tpm.with_ek(self.ek);
        let Some(path) = &self.ek_chain else { return Ok(tpm) };
        let failed = |error| Failure::io(path.display(), &error);
        let mut pem = Vec::new();
        File::open(path).map_err(failed)?.take(CHAIN_BYTES_MAX + 1).read_to_end(&mut pem).map_err(failed)?;
        let chain = if pem.len() as u64 > CHAIN_BYTES_MAX { None } else { certificates(&pem) };
        let malformed = || {
            Failure::new(
                Kind::Usage,
                "ek-chain-malformed",
                format!("{} is not a chain of certificates", path.display()),
            )
            .next("give PEM blocks CERTIFICATE: the issuer of the EK certificate first, at most 5")
        };
        Ok(tpm.with_ek_issuers(chain.ok_or_else(malformed)?))
    }
}

/// One to five blocks, exact DER each.
fn certificates(pem: &[u8]) -> Option<Vec<Vec<u8>>> {
    let chain = x509_cert::Certificate::load_pem_chain(pem).ok()?;
    let chain: Vec<Vec<u8>> = chain.iter().map(|certificate| certificate.to_der().ok()).collect::<Option<_>>()?;
    (1..=5).contains(&chain.len()).then_some(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_chain_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("chain.pem");
        let args = EkArgs { ek_chain: Some(file.clone()), ..EkArgs::default() };
        let apply = || args.apply("device:/dev/tpmrm0".parse().unwrap()).map(drop);
        assert!(apply().is_err(), "there is no such file");
        for wrong in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&file, wrong).unwrap();
            assert_eq!(apply().unwrap_err().code(), "ek-chain-malformed", "{wrong:?}");
        }
    }
}
