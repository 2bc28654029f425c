//! A soft platform for a guest in another process, below one directory:
//!
//! | below DIR | is |
//! |---|---|
//! | `report/` | what is `/sys/kernel/config/tsm/report` elsewhere ([`super::tsm`]) |
//! | `derived-key` | a Unix stream socket, one request a connection: MSG_KEY_REQ (32 bytes, or 40 with LAUNCH_MIT_VECTOR), then the guest shuts its writing side down; the answer is MSG_KEY_RSP (64 bytes: status u32 little-endian, 28 zeros, the key) |
//! | `ark.pem` | the root, for a policy that anchors it as `emulated` |
//! | `chain.pem` | VCEK or VLEK, ASK or ASVK, ARK: what AMD's key server would give |

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::amd::pem;
use super::derived_key::{KeyRequest, response};
use super::fuse::FileSystem;
use super::plain::PlainTree;
use super::tsm::{SoftMachine, TsmTree};

/// How long a guest may take over a request, so that a silent one does not keep the others from their keys.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
const REQUEST_MAX: u64 = 64 * 1024;

/// A machine that is being served. Dropping it ends that.
pub struct Served {
    /// The platform and its guest; a change holds from the next request on.
    pub machine: Arc<Mutex<SoftMachine>>,
    directory: PathBuf,
    ends: Arc<AtomicBool>,
    _reports: Reports,
}

/// How the report tree is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As in Linux.
    Fuse,
    /// As files that a thread keeps: see [`super::plain`].
    Plain,
}

/// Kept for what its end does.
#[allow(dead_code, reason = "dropping it is its use")]
enum Reports {
    Fuse(FileSystem),
    Plain(PlainTree),
}

impl Served {
    /// Serves a machine below this directory, which is made if it is missing.
    ///
    /// # Errors
    /// The directory cannot be written, or FUSE is asked for and cannot be had.
    pub fn start(directory: &Path, machine: Arc<Mutex<SoftMachine>>, form: Form) -> io::Result<Self> {
        let reports = directory.join("report");
        fs::create_dir_all(directory)?;
        match fs::create_dir(&reports) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let tree = TsmTree::new(Arc::clone(&machine));
        let reports = match form {
            Form::Fuse => Reports::Fuse(FileSystem::mount(&reports, tree)?),
            Form::Plain => Reports::Plain(PlainTree::keep(&reports, tree)?),
        };
        let ends = Arc::new(AtomicBool::new(false));
        let served = Self { machine, directory: directory.to_owned(), ends, _reports: reports };
        served.write_certificates()?;
        served.listen()?;
        Ok(served)
    }

    /// Writes `ark.pem` and `chain.pem` anew, after a change of the platform.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn write_certificates(&self) -> io::Result<()> {
        let platform = self.machine.lock().unwrap_or_else(PoisonError::into_inner).platform.clone();
        let chain = platform.chain();
        fs::write(self.directory.join("ark.pem"), pem(&chain[2]))?;
        fs::write(self.directory.join("chain.pem"), chain.map(|certificate| pem(&certificate)).concat())
    }

    fn listen(&self) -> io::Result<()> {
        let socket = self.directory.join("derived-key");
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&socket)?;
        let (machine, ends) = (Arc::clone(&self.machine), Arc::clone(&self.ends));
        std::thread::Builder::new().name("derived-key".to_owned()).spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                // A guest that went away, or never wrote, got no key: nothing is left to do for it.
                let _ = stream.and_then(|mut stream| answer(&mut stream, &machine));
            }
        })?;
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let socket = self.directory.join("derived-key");
        self.ends.store(true, Ordering::SeqCst);
        // Wakes it from `accept`.
        let _ = UnixStream::connect(&socket);
        let _ = fs::remove_file(socket);
    }
}

fn answer(stream: &mut UnixStream, machine: &Mutex<SoftMachine>) -> io::Result<()> {
    stream.set_read_timeout(Some(REQUEST_WITHIN))?;
    stream.set_write_timeout(Some(REQUEST_WITHIN))?;
    let mut request = Vec::new();
    // What is too long is read as well, within bounds: closing over unread bytes would take the answer back.
    stream.take(REQUEST_MAX).read_to_end(&mut request)?;
    let machine = machine.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let key = KeyRequest::decode(&request).and_then(|request| machine.platform.derive_key(&machine.guest, &request));
    stream.write_all(&response(key))
}
