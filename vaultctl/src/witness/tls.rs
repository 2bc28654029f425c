//! The certificate of a witness that speaks HTTPS.

use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

use crate::failure::{Failure, Kind};

/// A certificate and its key. It proves nothing about what is cosigned: that is the witness's own signature.
#[derive(Clone)]
pub struct WitnessTls(TlsAcceptor);

impl WitnessTls {
    /// Reads both files, PEM.
    ///
    /// # Errors
    /// `witness-tls-file` where one has not what it should, `witness-tls-identity` where they do not belong together.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, Failure> {
        let unreadable = |path: &Path, what: &str| {
            let what = format!("{} has no {what} in PEM", path.display());
            Failure::new(Kind::Usage, "witness-tls-file", what)
        };
        let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| unreadable(certificate, "certificate"))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|_| unreadable(key, "private key"))?;
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
        let config = config.map_err(|error| {
            Failure::new(Kind::Usage, "witness-tls-identity", "--tls-cert and --tls-key do not belong together")
                .why(error)
        })?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}
