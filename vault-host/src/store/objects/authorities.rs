//! Whom the TLS clients of the store believe.

use std::path::{Path, PathBuf};

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Where systems keep the authorities that they trust: Debian and its kin, Red Hat and its kin, SUSE.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// A client that believes the authorities of `ca` and no others, else those of the system. The error is the file that
/// has none.
pub(super) fn tls_client(ca: Option<&Path>) -> Result<ClientConfig, PathBuf> {
    let system = || SYSTEM_ROOTS.into_iter().map(PathBuf::from).find(|path| path.exists());
    let path = ca.map(Path::to_owned).or_else(system);
    let mut roots = RootCertStore::empty();
    if let Some(path) = path {
        let Ok(certificates) = CertificateDer::pem_file_iter(&path) else { return Err(path) };
        for certificate in certificates {
            // A system's bundle may have one that this library can't use.
            let Ok(certificate) = certificate else { return Err(path) };
            let _ = roots.add(certificate);
        }
        if roots.is_empty() {
            return Err(path);
        }
    }
    Ok(ClientConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_root_certificates(roots)
        .with_no_client_auth())
}
