//! A raw stream over TLS, by the rustls and the ring that our gRPC has: what it costs to send ciphertext so.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

use super::{BLOCK_BYTES, Failure};

const ADDRESS: &str = "127.0.0.1";

/// Writes `cert.pem` and `key.pem` of an authority of its own for this machine's own address.
pub(super) fn certify(directory: &Path) -> Result<(), Failure> {
    let made = rcgen::generate_simple_self_signed([ADDRESS.to_owned()])?;
    std::fs::write(directory.join("cert.pem"), made.cert.pem())?;
    Ok(std::fs::write(directory.join("key.pem"), made.signing_key.serialize_pem())?)
}

/// Both ends of a stream over TCP of this machine.
pub(super) struct TlsStream {
    listener: TcpListener,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl TlsStream {
    /// With a certificate made for it.
    pub(super) fn new() -> Result<Self, Failure> {
        let made = rcgen::generate_simple_self_signed([ADDRESS.to_owned()])?;
        let certificate: CertificateDer<'static> = made.cert.der().clone();
        let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes())?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone())?;
        let server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key)?;
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self { listener: TcpListener::bind((ADDRESS, 0))?, server: server.into(), client: client.into() })
    }

    /// Sends these files, and reads them into memory that is warm.
    pub(super) fn send(&self, files: &[PathBuf]) -> Result<(), Failure> {
        std::thread::scope(|scope| {
            let served = scope.spawn(|| self.serve(files));
            let connection = ClientConnection::new(Arc::clone(&self.client), ServerName::try_from(ADDRESS)?)?;
            let mut stream = StreamOwned::new(connection, TcpStream::connect(self.listener.local_addr()?)?);
            let mut block = vec![0; BLOCK_BYTES];
            while stream.read(&mut block)? > 0 {}
            Ok(served.join().map_err(|_| "the sending thread panicked")??)
        })
    }

    fn serve(&self, files: &[PathBuf]) -> io::Result<()> {
        let (stream, _) = self.listener.accept()?;
        let connection = ServerConnection::new(Arc::clone(&self.server)).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        let mut block = vec![0; BLOCK_BYTES];
        for file in files {
            let mut file = File::open(file)?;
            while let read @ 1.. = file.read(&mut block)? {
                stream.write_all(&block[..read])?;
            }
        }
        // Without it the other end takes the end for a cut.
        stream.conn.send_close_notify();
        stream.flush()
    }
}
