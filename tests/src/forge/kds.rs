//! AMD's key server on loopback (VCEK Certificate and KDS Interface Specification, 57230), for soft platforms: plain HTTP/1.1,
//! one request a connection, with faults to order.
//!
//! `GET /vcek/v1/{product}/{hwid}?blSPL=..&teeSPL=..&snpSPL=..&ucodeSPL=..` (Turin: `fmcSPL` too) gives a VCEK in DER;
//! `/vcek/v1/{product}/cert_chain` ASK and ARK in PEM, `/vcek/v1/{product}/crl` a CRL in DER, the same below `/vlek` for VLEKs.
//! Of a VLEK there is no certificate: AMD gives it to the cloud alone.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::amd::{Authorities, Crl, Product, Tcb};
use super::platform::SoftPlatform;

/// How long a client may take over its request.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
const REQUEST_MAX: u64 = 16 * 1024;

/// What goes wrong with one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 429, with this `Retry-After`.
    Throttle {
        /// In seconds.
        retry_after: Option<u64>,
    },
    /// This status and no body.
    Status(u16),
    /// The right answer, after this long.
    Slow(Duration),
    /// The right answer is announced, but the connection ends after so many bytes of it.
    Truncate(usize),
    /// 200 with this instead of the right answer.
    Body(Vec<u8>),
    /// The connection ends without a byte.
    Close,
}

/// What the server knows. A test may change it at any time.
#[derive(Debug, Default)]
pub struct Shelf {
    /// The chips it has keys of.
    pub platforms: Vec<SoftPlatform>,
    /// Revocation lists by product; without one there is the empty list of the platform's authorities.
    pub crls: Vec<(Product, Crl)>,
    /// What goes wrong with the next answers, in this order; after them all goes well.
    pub faults: VecDeque<Fault>,
    /// What goes wrong with every answer to an address that has this text in it.
    pub always: HashMap<String, Fault>,
    /// What was asked for, path and query.
    pub requests: Vec<String>,
    /// The time, in seconds of Unix time, that revocation lists are made for.
    pub now: i64,
}

/// A running server. Dropping it ends it.
pub struct SoftKds {
    shelf: Arc<Mutex<Shelf>>,
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SoftKds {
    /// Starts a server on a free port of loopback.
    ///
    /// # Errors
    /// There is no port.
    pub fn start(platforms: Vec<SoftPlatform>, now: i64) -> io::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), platforms, now)
    }

    /// As [`SoftKds::start`], at this address.
    ///
    /// # Errors
    /// The address is taken.
    pub fn start_at(address: SocketAddr, platforms: Vec<SoftPlatform>, now: i64) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shelf = Arc::new(Mutex::new(Shelf { platforms, now, ..Shelf::default() }));
        let ends = Arc::new(AtomicBool::new(false));
        let (known, end) = (Arc::clone(&shelf), Arc::clone(&ends));
        let thread = std::thread::Builder::new().name("kds".to_owned()).spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), shelf) = (stream, Arc::clone(&known)) else { continue };
                // A slow answer must not keep others waiting. A client that went away has no use for an error.
                std::thread::spawn(move || drop(serve(stream, &shelf)));
            }
        })?;
        Ok(Self { shelf, address, ends, thread: Some(thread) })
    }

    /// `http://127.0.0.1:PORT`, in the place of AMD's.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it knows, to change or to read.
    pub fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SoftKds {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // Wakes it from `accept`.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Answer {
    status: u16,
    kind: &'static str,
    body: Vec<u8>,
}

impl Answer {
    const NOT_FOUND: Self = Self::empty(404);

    const fn empty(status: u16) -> Self {
        Self { status, kind: "text/plain", body: Vec::new() }
    }
}

fn serve(stream: TcpStream, shelf: &Mutex<Shelf>) -> io::Result<()> {
    stream.set_read_timeout(Some(REQUEST_WITHIN))?;
    stream.set_write_timeout(Some(REQUEST_WITHIN))?;
    let mut lines = BufReader::new(stream.try_clone()?.take(REQUEST_MAX)).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let target = first.strip_prefix("GET ").and_then(|rest| rest.split(' ').next());
    let (answer, fault) = {
        let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.requests.extend(target.map(str::to_owned));
        let always = shelf.always.iter().find(|(text, _)| target.is_some_and(|target| target.contains(*text)));
        let always = always.map(|(_, fault)| fault.clone());
        let fault = shelf.faults.pop_front().or(always);
        (target.map_or(Answer::empty(405), |target| shelf.find(target).unwrap_or(Answer::NOT_FOUND)), fault)
    };
    send(stream, answer, fault)
}

fn send(mut stream: TcpStream, mut answer: Answer, fault: Option<Fault>) -> io::Result<()> {
    let mut more = String::new();
    let mut sent = usize::MAX;
    match fault {
        None => {}
        Some(Fault::Throttle { retry_after }) => {
            answer = Answer::empty(429);
            more = retry_after.map(|seconds| format!("Retry-After: {seconds}\r\n")).unwrap_or_default();
        }
        Some(Fault::Status(status)) => answer = Answer::empty(status),
        Some(Fault::Slow(time)) => std::thread::sleep(time),
        Some(Fault::Truncate(len)) => sent = len,
        Some(Fault::Body(body)) => answer = Answer { status: 200, kind: answer.kind, body },
        Some(Fault::Close) => return Ok(()),
    }
    let Answer { status, kind, body } = answer;
    let len = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} \r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n{more}Connection: close\r\n\r\n"
    )?;
    stream.write_all(&body[..sent.min(len)])
}

impl Shelf {
    fn find(&self, target: &str) -> Option<Answer> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let ["", vek @ ("vcek" | "vlek"), "v1", line, what] = path.split('/').collect::<Vec<_>>()[..] else {
            return None;
        };
        let product = Product::from_name(line)?;
        let authorities = || self.authorities(product);
        let (kind, body) = match (vek, what) {
            ("vcek", "cert_chain") => ("application/x-pem-file", authorities().vcek_chain_pem().into_bytes()),
            ("vlek", "cert_chain") => ("application/x-pem-file", authorities().vlek_chain_pem().into_bytes()),
            (_, "crl") => ("application/pkix-crl", self.crl(product).der()),
            ("vcek", hwid) => ("application/pkix-cert", self.vcek(product, hwid, query)?),
            _ => return None,
        };
        Some(Answer { status: 200, kind, body })
    }

    fn authorities(&self, product: Product) -> Authorities {
        let platform = self.platforms.iter().find(|platform| platform.product == product);
        platform.map_or_else(|| Authorities::new(product), |platform| platform.authorities.clone())
    }

    fn crl(&self, product: Product) -> Crl {
        let listed = self.crls.iter().find(|(of, _)| *of == product);
        listed.map_or_else(|| self.authorities(product).crl(self.now), |(_, crl)| crl.clone())
    }

    /// A chip has a VCEK for every TCB up to the one that it has reached.
    fn vcek(&self, product: Product, hwid: &str, query: &str) -> Option<Vec<u8>> {
        let hwid = hex::decode(hwid).ok()?;
        let of_chip =
            |platform: &&SoftPlatform| platform.product == product && hwid == platform.chip_id[..product.hwid_len()];
        let platform = self.platforms.iter().find(of_chip)?;
        let spl = |name: &str| {
            let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            value.and_then(|value| value.parse::<u8>().ok())
        };
        let fmc = match product {
            Product::Milan | Product::Genoa => 0,
            Product::Turin => spl("fmcSPL")?,
        };
        let tcb = Tcb {
            fmc,
            bootloader: spl("blSPL")?,
            tee: spl("teeSPL")?,
            snp: spl("snpSPL")?,
            microcode: spl("ucodeSPL")?,
        };
        let own = SoftPlatform { vlek: None, ..platform.clone() };
        tcb.is_at_most(platform.current).then(|| own.vek_for(tcb).issued().der())
    }
}
