//! One process at a time on a TPM that no resource manager minds.
//!
//! Whoever connects to such a TPM flushes what is loaded in it, since nobody else cleans up after a killed process; two
//! at once would flush each other's keys (0x911, "the handle references nothing"). So a process locks a file for as
//! long as it has the TPM open: `flock`, which the kernel lets go of however the process ends.
//!
//! The file is `weightvault-tpm-HEX.lock`, with the first 16 bytes of the SHA-256 of where the TPM is, in `/run/lock`,
//! or in `/tmp` where that is no directory in which everybody may make files. The place is the same for every user and in
//! every environment ($XDG_RUNTIME_DIR is not), or two users would not see each other. The file says nothing and is only ever
//! read: who holds it comes from the kernel. Whoever may run programs on this machine can hold the lock too, and so
//! refuse the TPM to others; not so where the kernel's resource manager (`/dev/tpmrm0`) needs no lock.

use std::fmt;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use attestation::Sha256Digest;
use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{TctiConfig, TpmError};
use crate::user_namespace;

/// How long others may take: an agent has its TPM open for seconds, a keeper for its life.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A wait that a person may notice is told. A thread of this process that closes its connection is quicker.
const SAY_AFTER: Duration = Duration::from_secs(1);
const PLACES: [&str; 2] = ["/run/lock", "/tmp"];
/// Longest name of a process that is shown, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The lock on one TPM. Held until it is dropped.
pub(super) struct TpmLock {
    file: OwnedFd,
    path: PathBuf,
}

/// Who has a TPM open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmHolder {
    /// Its process id, as this process sees it.
    pub process: u32,
    /// Program and first argument, if the system tells.
    pub name: Option<String>,
}

impl TpmLock {
    /// Waits for the lock of this TPM; `None` where a resource manager makes it unnecessary.
    pub(super) fn take(config: &TctiConfig) -> Result<Option<Self>, TpmError> {
        if config.has_resource_manager() {
            return Ok(None);
        }
        let place = PLACES.iter().map(Path::new).find(|place| is_for_everybody(place));
        let place = place.ok_or_else(|| TpmError::LockFile(format!("{} is no place for it", PLACES.join(" or "))))?;
        let digest = Sha256Digest::of(config.place().as_bytes());
        let name = hex::encode(digest.as_bytes().iter().take(16).copied().collect::<Vec<u8>>());
        Self::take_at(place.join(format!("weightvault-tpm-{name}.lock")), config, WAIT_MAX).map(Some)
    }

    fn take_at(path: PathBuf, config: &TctiConfig, wait_max: Duration) -> Result<Self, TpmError> {
        let begun = Instant::now();
        let mut said = false;
        loop {
            let file = open(&path)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Who held it before removed the file: the next one may be locked already.
                Ok(()) if !is_at(&file, &path) => {}
                Ok(()) => return Ok(Self { file, path }),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(error) => return Err(lock_file(&path, error)),
            }
            let waited = begun.elapsed();
            if waited >= wait_max {
                return Err(TpmError::InUse { tpm: config.to_string(), holder: holder(&file) });
            }
            if waited >= SAY_AFTER && !said {
                let by = holder(&file).map_or_else(|| "another process".to_owned(), |holder| holder.to_string());
                tracing::info!("{by} uses the TPM {config}: waiting for at most {} s", wait_max.as_secs());
                said = true;
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for TpmLock {
    fn drop(&mut self) {
        // Removed while it is locked: whoever locks it afterwards sees that it is not there any more. Where another user
        // made it, it stays.
        if is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl fmt::Display for TpmHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.process == std::process::id() {
            return write!(f, "this process itself");
        }
        match &self.name {
            Some(name) => write!(f, "process {} ({name})", self.process),
            None => write!(f, "process {}", self.process),
        }
    }
}

/// Everybody may make files, and remove none of others.
fn is_for_everybody(place: &Path) -> bool {
    const STICKY_AND_OPEN: u32 = 0o1777;
    let found = rustix::fs::lstat(place);
    found.is_ok_and(|found| {
        FileType::from_raw_mode(found.st_mode) == FileType::Directory
            && user_namespace::is_root(found.st_uid)
            && found.st_mode & 0o7777 == STICKY_AND_OPEN
    })
}

/// The file, made where it is missing. It may be another user's, who need not let us write: reading is enough to lock.
fn open(path: &Path) -> Result<OwnedFd, TpmError> {
    let failed = |error| lock_file(path, error);
    // A link or a pipe that somebody put there is not followed, and not waited for.
    let safely = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let everybody_reads = Mode::from_raw_mode(0o644);
    let file = loop {
        match rustix::fs::open(path, safely, Mode::empty()) {
            Ok(file) => break file,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(error)),
        }
        match rustix::fs::open(path, safely | OFlags::CREATE | OFlags::EXCL, everybody_reads) {
            Ok(file) => {
                // Whatever the umask took away.
                rustix::fs::fchmod(&file, everybody_reads).map_err(failed)?;
                break file;
            }
            // Another process was quicker.
            Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(error)),
        }
    };
    let found = rustix::fs::fstat(&file).map_err(failed)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(TpmError::LockFile(format!("{} is no file: remove it", path.display())));
    }
    Ok(file)
}

fn is_at(file: &OwnedFd, path: &Path) -> bool {
    let (Ok(opened), Ok(there)) = (rustix::fs::fstat(file), rustix::fs::lstat(path)) else { return false };
    (opened.st_dev, opened.st_ino) == (there.st_dev, there.st_ino)
}

/// Who holds the lock on this file, if the kernel lets this process know.
fn holder(file: &OwnedFd) -> Option<TpmHolder> {
    let found = rustix::fs::fstat(file).ok()?;
    let (major, minor) = (rustix::fs::major(found.st_dev), rustix::fs::minor(found.st_dev));
    let place = format!("{major:02x}:{minor:02x}:{}", found.st_ino);
    let process = holder_in(&fs::read_to_string("/proc/locks").ok()?, &place)?;
    Some(TpmHolder { process, name: name_of(process) })
}

/// Looks for a file in the lines of `/proc/locks` (proc(5)): `1: FLOCK  ADVISORY  WRITE 123 00:19:4567 0 EOF`.
fn holder_in(locks: &str, place: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (kind, process) = (fields.next()?, fields.nth(2)?);
        (kind == "FLOCK" && fields.next()? == place).then(|| process.parse().ok())?
    })
}

fn name_of(process: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{process}/cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = words.next()?;
    let program = program.rsplit('/').next()?.to_owned();
    let name = match words.next().filter(|word| !word.is_empty()) {
        Some(argument) => format!("{program} {argument}"),
        None => program,
    };
    // Any process may call itself anything.
    let name: String = name.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(NAME_BYTES_MAX).collect();
    Some(name).filter(|name| !name.is_empty())
}

fn lock_file(path: &Path, error: Errno) -> TpmError {
    TpmError::LockFile(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const AT_ONCE: Duration = Duration::ZERO;

    fn config() -> TctiConfig {
        "swtpm:host=127.0.0.1,port=2321".parse().unwrap()
    }

    fn take(path: &Path, wait_max: Duration) -> Result<TpmLock, TpmError> {
        TpmLock::take_at(path.to_owned(), &config(), wait_max)
    }

    #[test]
    fn a_tpm_is_open_once_and_the_refusal_says_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tpm.lock");
        let held = take(&path, AT_ONCE).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        let refusal = take(&path, AT_ONCE).err().unwrap();
        let TpmError::InUse { holder: Some(holder), .. } = &refusal else { panic!("{refusal}") };
        assert_eq!(holder.process, std::process::id());
        assert!(holder.name.is_some());
        assert_eq!(refusal.code(), "tpm-in-use");
        assert!(refusal.to_string().contains("this process itself"), "{refusal}");
        drop(held);
        assert!(!path.exists());
        take(&path, AT_ONCE).unwrap();
    }

    #[test]
    fn who_waits_gets_the_lock_when_it_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tpm.lock");
        let held = take(&path, AT_ONCE).unwrap();
        let waiter = thread::spawn({
            let path = path.clone();
            move || take(&path, WAIT_MAX)
        });
        thread::sleep(2 * LOOK_EVERY);
        drop(held);
        let held = waiter.join().unwrap().unwrap();
        // The waiter had the file open that the first holder removed: what it holds is the one that is there now.
        assert!(is_at(&held.file, &path));
        assert_eq!(take(&path, AT_ONCE).err().unwrap().code(), "tpm-in-use");
    }

    #[test]
    fn a_link_a_pipe_or_a_missing_place_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link, pipe) = (dir.path().join("target"), dir.path().join("link"), dir.path().join("pipe"));
        symlink(&target, &link).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
        for wrong in [&link, &pipe, &dir.path().join("missing/tpm.lock")] {
            assert_eq!(take(wrong, AT_ONCE).err().unwrap().code(), "tpm-lock-file", "{wrong:?}");
        }
        assert!(!target.exists() && link.is_symlink() && pipe.exists());
    }

    #[test]
    fn only_a_place_for_everybody_is_one_for_a_lock() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_for_everybody(dir.path()));
        assert!(!is_for_everybody(&dir.path().join("missing")));
        assert!(is_for_everybody(Path::new("/tmp")));
    }

    #[test]
    fn the_kernels_list_of_locks_is_searched_for_one_file() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:19:42 0 EOF\n2: FLOCK  ADVISORY  WRITE 9 00:19:42 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 8 00:19:43 0 EOF\n3: FLOCK\n4: FLOCK  ADVISORY  WRITE x 00:19:44 0 EOF\n";
        assert_eq!(holder_in(locks, "00:19:42"), Some(9));
        for unknown in ["00:19:43", "00:19:44", "00:19:4"] {
            assert_eq!(holder_in(locks, unknown), None, "{unknown}");
        }
    }

    #[test]
    fn one_tpm_has_one_name_and_others_have_others() {
        let place = |text: &str| text.parse::<TctiConfig>().unwrap().place();
        for same in ["localhost", "LocalHost", "127.0.0.1", "127.0.0.2", "::1"] {
            assert_eq!(place(&format!("swtpm:host={same},port=2321")), "swtpm:loopback:2321", "{same}");
        }
        assert_eq!(place("swtpm:host=Tpm.Example,port=1"), place("swtpm:port=1,host=tpm.example"));
        assert_ne!(place("swtpm:host=a,port=1"), place("swtpm:host=a,port=2"));
        let dir = tempfile::tempdir().unwrap();
        let (node, link) = (dir.path().join("tpm0"), dir.path().join("link"));
        fs::write(&node, "").unwrap();
        symlink(&node, &link).unwrap();
        assert_eq!(place(&format!("device:{}", link.display())), place(&format!("device:{}", node.display())));
    }

    #[test]
    fn the_kernels_resource_manager_needs_no_lock() {
        assert!(TpmLock::take(&"device:/dev/tpmrm0".parse().unwrap()).unwrap().is_none());
    }
}
