//! The directory of an agent's sockets. Who may take files away in it could put a socket of his own in their place, and
//! have readers believe what he sends.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use tokio::net::UnixListener;

use crate::agent::fixed::FixedDir;
use crate::failure::{Failure, Kind};

const LOCK: &str = "agent.lock";

/// The directory, which one agent has.
pub(super) struct SocketDir {
    path: PathBuf,
    sockets: Vec<PathBuf>,
    /// Holds the lock as long as it is open.
    _lock: File,
}

impl SocketDir {
    /// Takes one for this user to write and everybody to pass, which nobody else can replace as a whole either.
    ///
    /// # Errors
    /// `socket-dir-owner`, `socket-dir-writable`, `agent-running`, `io`.
    pub(super) fn open(directory: &FixedDir) -> Result<Self, Failure> {
        let path = directory.path();
        let failed = |error| Failure::io(path.display(), &error);
        let metadata = path.metadata().map_err(failed)?;
        let this = rustix::process::geteuid().as_raw();
        if metadata.uid() != this && metadata.uid() != 0 {
            let message = format!("{} is of user {}, who could replace its sockets", path.display(), metadata.uid());
            return Err(Failure::new(Kind::Failed, "socket-dir-owner", message).next("name another with --sockets"));
        }
        if metadata.mode() & 0o022 != 0 {
            let message = format!("others may write to {} and could replace its sockets", path.display());
            return Err(Failure::new(Kind::Failed, "socket-dir-writable", message).next("chmod go-w it"));
        }
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path.join(LOCK));
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), sockets: Vec::new(), _lock: lock }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
            Err(TryLockError::WouldBlock) => {
                let message = format!("another agent has {}", path.display());
                Err(Failure::new(Kind::Failed, "agent-running", message).next("end it, or name another with --sockets"))
            }
        }
    }

    /// Listens on a socket in it, which others may connect to where `others` says so.
    ///
    /// # Errors
    /// `io`.
    pub(super) fn listen(&mut self, name: &str, others: bool) -> Result<UnixListener, Failure> {
        let path = self.path.join(name);
        let failed = |error| Failure::io(path.display(), &error);
        // One that a killed agent left behind: a live one has the lock.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(failed)?;
        self.sockets.push(path.clone());
        let mode = if others { 0o666 } else { 0o600 };
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(failed)?;
        Ok(listener)
    }
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        for socket in &self.sockets {
            // Gone or not: nobody listens.
            let _ = std::fs::remove_file(socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn open(path: &Path) -> Result<SocketDir, Failure> {
        SocketDir::open(&FixedDir::new(path)?)
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn a_directory_is_one_agents_and_its_sockets_go_with_it() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("weightvault");
        let mut directory = open(&path).unwrap();
        assert_eq!(mode(&path), 0o755);
        assert_eq!(open(&path).err().unwrap().code(), "agent-running");
        let listeners = [directory.listen("own.sock", false).unwrap(), directory.listen("all.sock", true).unwrap()];
        assert_eq!((mode(&path.join("own.sock")), mode(&path.join("all.sock"))), (0o600, 0o666));
        drop((directory, listeners));
        assert!(!path.join("own.sock").exists() && !path.join("all.sock").exists());
        // One that was left by a kill is replaced.
        drop(UnixListener::bind(path.join("own.sock")).unwrap());
        open(&path).unwrap().listen("own.sock", false).unwrap();
    }

    #[test]
    fn a_directory_in_which_others_could_replace_sockets_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        for others in [0o777, 0o770, 0o707] {
            std::fs::set_permissions(temporary.path(), Permissions::from_mode(others)).unwrap();
            assert_eq!(open(temporary.path()).err().unwrap().code(), "socket-dir-writable");
            // Nor may others write to one above it.
            assert_eq!(open(&temporary.path().join("weightvault")).err().unwrap().code(), "path-others-write");
        }
        if rustix::process::geteuid().is_root() {
            std::fs::set_permissions(temporary.path(), Permissions::from_mode(0o755)).unwrap();
            let his = temporary.path().join("his");
            std::fs::create_dir(&his).unwrap();
            std::os::unix::fs::chown(&his, Some(1234), None).unwrap();
            assert_eq!(open(&his).err().unwrap().code(), "socket-dir-owner");
        }
    }
}
