//! A web server that serves ranges of a directory, over TLS if need be, or does worse.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use time::OffsetDateTime;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

const HEAD_BYTES_MAX: usize = 16 << 10;
/// Between the bytes of a server that is slow.
const TRICKLE: Duration = Duration::from_millis(500);

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// The range.
    Serve,
    /// The range, and as many bytes again behind it, announced or not.
    TooMuch {
        /// In `Content-Length`.
        announced: bool,
    },
    /// A bit of the byte in the middle of the range is another.
    Wrong,
    /// Half of the range, and the end of the connection.
    Dies,
    /// Half of the range, and then a byte now and then.
    Trickles,
    /// Half of the range, and then nothing as long as the server is there.
    Stops,
}

/// The server. It answers until this process ends.
pub struct Web {
    address: SocketAddr,
    is_tls: bool,
    asked: Arc<Asked>,
}

#[derive(Default)]
struct Asked {
    /// Path and length of each range.
    ranges: Mutex<Vec<(String, u64)>>,
}

impl Web {
    /// Serves `directory`; `behave` is told the path of each request.
    pub fn start(directory: &Path, behave: impl Fn(&str) -> Behaviour + Send + Sync + 'static) -> Self {
        Self::start_with(directory, None, behave)
    }

    /// The same over TLS.
    pub fn start_tls(directory: &Path, tls: Arc<ServerConfig>) -> Self {
        Self::start_with(directory, Some(tls), |_| Behaviour::Serve)
    }

    fn start_with(
        directory: &Path,
        tls: Option<Arc<ServerConfig>>,
        behave: impl Fn(&str) -> Behaviour + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let (address, is_tls) = (listener.local_addr().expect("a port"), tls.is_some());
        let served = Arc::new((directory.to_owned(), behave));
        let asked = Arc::<Asked>::default();
        let counted = Arc::clone(&asked);
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let (served, asked, tls) = (Arc::clone(&served), Arc::clone(&counted), tls.clone());
                // A client that goes away, or that does not believe us, is none of our business.
                thread::spawn(move || match tls {
                    None => answer(client, &served.0, &served.1, &asked),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
                        answer(StreamOwned::new(connection, client), &served.0, &served.1, &asked)
                    }
                });
            }
        });
        Self { address, is_tls, asked }
    }

    /// Its address, under this name.
    pub fn url(&self, name: &str) -> String {
        format!("{}://{name}:{}", if self.is_tls { "https" } else { "http" }, self.address.port())
    }

    /// Path and length of each range that it was asked for.
    pub fn ranges(&self) -> Vec<(String, u64)> {
        self.asked.ranges.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn answer(
    mut client: impl Read + Write,
    directory: &Path,
    behave: &dyn Fn(&str) -> Behaviour,
    asked: &Asked,
) -> io::Result<()> {
    let head = read_head(&mut client)?;
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let path = head.strip_prefix("GET /").and_then(|rest| rest.split(' ').next()).ok_or_else(malformed)?;
    let range =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let range = range.ok_or_else(malformed)?;
    let (first, last) = range.trim().split_once('-').ok_or_else(malformed)?;
    let number = |text: &str| text.parse::<usize>().map_err(|_| malformed());
    let (first, last) = (number(first)?, number(last)?);
    let Ok(content) = fs::read(directory.join(PathBuf::from(path))) else {
        return client.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let mut wanted = content.get(first..=last).ok_or_else(malformed)?.to_vec();
    asked.ranges.lock().unwrap_or_else(PoisonError::into_inner).push((path.to_owned(), wanted.len() as u64));
    send(&mut client, &mut wanted, (first, last, content.len()), behave(path))
}

fn send(
    client: &mut impl Write,
    wanted: &mut Vec<u8>,
    (first, last, total): (usize, usize, usize),
    behaviour: Behaviour,
) -> io::Result<()> {
    let (length, half) = (wanted.len(), wanted.len() / 2);
    let mut announced = length;
    match behaviour {
        Behaviour::TooMuch { announced: also } => {
            wanted.extend_from_within(..);
            announced = if also { wanted.len() } else { length };
        }
        Behaviour::Wrong => wanted[half] ^= 1,
        Behaviour::Serve | Behaviour::Dies | Behaviour::Trickles | Behaviour::Stops => {}
    }
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{total}\r\nContent-Length: {announced}\r\n\
         Connection: close\r\n\r\n"
    );
    client.write_all(head.as_bytes())?;
    match behaviour {
        Behaviour::Serve | Behaviour::TooMuch { .. } | Behaviour::Wrong => {
            client.write_all(wanted)?;
            return client.flush();
        }
        Behaviour::Dies | Behaviour::Trickles | Behaviour::Stops => client.write_all(&wanted[..half])?,
    }
    client.flush()?;
    for byte in &wanted[half..] {
        match behaviour {
            Behaviour::Trickles => client.write_all(&[*byte])?,
            Behaviour::Stops => {}
            _ => return Ok(()),
        }
        thread::sleep(TRICKLE);
    }
    Ok(())
}

fn read_head(client: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
        if head.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    String::from_utf8(head).map_err(io::Error::other)
}

/// An authority that nobody knows who was not given its file.
pub struct TlsAuthority(CertifiedIssuer<'static, KeyPair>);

impl TlsAuthority {
    /// A new one by this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut ca = CertificateParams::new(Vec::new()).expect("no names");
        ca.distinguished_name.push(DnType::CommonName, name);
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(ca, KeyPair::generate().expect("a key")).expect("it signs itself"))
    }

    /// Its certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server by this name, with a certificate that was good from a year ago until now and so many days more or less.
    pub fn server(&self, name: &str, days: i64) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let now = OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::days(365);
        params.not_after = now + time::Duration::days(days);
        let certificate = params.signed_by(&key, &self.0).expect("the authority signs");
        let chain = vec![CertificateDer::from_pem_slice(certificate.pem().as_bytes()).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key");
        let config = ServerConfig::builder_with_provider(default_provider().into());
        let config = config.with_safe_default_protocol_versions().expect("the provider has them");
        Arc::new(
            config.with_no_client_auth().with_single_cert(chain, key).expect("key and certificate belong together"),
        )
    }
}
