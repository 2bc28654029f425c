//! Directories in whose place nobody can put another.
//!
//! Root mounts plaintext at a path, gives it to a user, and listens there. Who may write to a directory above it could rename
//! one on the way and put another there meanwhile: a command would find other files in the model's place, readers somebody
//! else's socket, and root would change what it never meant to.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::failure::{Failure, Kind};
use crate::open::DirectoryId;
use crate::user_namespace;

/// Of directories that are made: others have to pass through them.
const MADE: Mode = Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP).union(Mode::ROTH).union(Mode::XOTH);
const OPENED: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Bits of a mode: others may write; and in a sticky directory nobody takes away what is somebody else's.
const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// A directory that root and the user of this process alone could take away, or anything above it. Made by
/// [`FixedDir::new`] alone.
#[derive(Clone, Debug)]
pub(super) struct FixedDir {
    path: PathBuf,
    id: DirectoryId,
}

/// Why a directory is not fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FixedDirError {
    /// One on the way is another user's, who may rename what is in it, or is itself in a directory for everybody.
    OtherOwner { directory: PathBuf, uid: u32 },
    /// Others may write to one on the way.
    OthersWrite { directory: PathBuf, mode: u32 },
    /// Another directory is there now.
    Replaced { directory: PathBuf },
    /// It can't be opened or made.
    Io { directory: PathBuf, errno: Errno },
}

impl FixedDir {
    /// The directory at `path`, made where it is missing, with all above it. Before this process enters a user namespace,
    /// which knows no owners but one.
    ///
    /// # Errors
    /// [`FixedDirError`].
    pub(super) fn new(path: &Path) -> Result<Self, FixedDirError> {
        let path = resolve(path)?;
        let mut walked = PathBuf::from("/");
        let failed = |path: &Path| {
            let directory = path.to_owned();
            move |errno| FixedDirError::Io { directory, errno }
        };
        let mut directory = rustix::fs::open("/", OPENED, Mode::empty()).map_err(failed(&walked))?;
        let names = path.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        for name in names {
            let above = Above::of(&directory).map_err(failed(&walked))?;
            above.check(&walked)?;
            walked.push(name);
            // In a directory that nobody else changes, what has a name keeps it. No link is followed.
            let inner = make(&directory, name).map_err(failed(&walked))?;
            let owner = Above::of(&inner).map_err(failed(&walked))?.uid;
            if above.others_write() && !is_ours(owner) {
                return Err(FixedDirError::OtherOwner { directory: walked, uid: owner });
            }
            directory = inner;
        }
        let id = DirectoryId::of(&directory).map_err(failed(&walked))?;
        Ok(Self { path: walked, id })
    }

    /// By its path from the root, without links.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it, in the mount namespace that this thread has by now.
    ///
    /// # Errors
    /// [`FixedDirError::Replaced`], [`FixedDirError::Io`].
    pub(super) fn open(&self) -> Result<OwnedFd, FixedDirError> {
        let failed = |errno| FixedDirError::Io { directory: self.path.clone(), errno };
        let resolve = ResolveFlags::NO_SYMLINKS;
        let opened = rustix::fs::openat2(CWD, &self.path, OPENED, Mode::empty(), resolve).map_err(failed)?;
        if DirectoryId::of(&opened).map_err(failed)? == self.id {
            Ok(opened)
        } else {
            Err(FixedDirError::Replaced { directory: self.path.clone() })
        }
    }
}

/// What is asked of a directory above.
#[derive(Clone, Copy)]
struct Above {
    uid: u32,
    mode: u32,
}

impl Above {
    fn of(directory: impl AsFd) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(directory)?;
        Ok(Self { uid: stat.st_uid, mode: stat.st_mode & 0o7777 })
    }

    /// Its owner may rename what is in it, and so may everybody who may write to it. In a sticky one only the owner of each
    /// entry may, beside its own: who that is, is asked of the entry.
    fn check(self, path: &Path) -> Result<(), FixedDirError> {
        let directory = || path.to_owned();
        if !is_ours(self.uid) {
            return Err(FixedDirError::OtherOwner { directory: directory(), uid: self.uid });
        }
        if self.others_write() && self.mode & STICKY == 0 {
            return Err(FixedDirError::OthersWrite { directory: directory(), mode: self.mode });
        }
        Ok(())
    }

    /// The bits of the group are those of all who an access control list names, too.
    fn others_write(self) -> bool {
        self.mode & OTHERS_WRITE != 0
    }
}

fn is_ours(uid: u32) -> bool {
    uid == rustix::process::geteuid().as_raw() || user_namespace::is_root(uid)
}

fn make(above: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(above, name, MADE) {
        Ok(()) | Err(Errno::EXIST) => rustix::fs::openat(above, name, OPENED, Mode::empty()),
        Err(errno) => Err(errno),
    }
}

/// From the root, with the links of what is there followed; what is missing comes behind that.
fn resolve(path: &Path) -> Result<PathBuf, FixedDirError> {
    let failed = |error: std::io::Error| FixedDirError::Io {
        directory: path.to_owned(),
        errno: Errno::from_io_error(&error).unwrap_or(Errno::INVAL),
    };
    let whole = std::path::absolute(path).map_err(failed)?;
    let (mut there, mut missing) = (whole.as_path(), Vec::new());
    loop {
        match there.canonicalize() {
            Ok(found) => return Ok(missing.iter().rev().fold(found, |path, name| path.join(name))),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            Err(error) => {
                let (Some(above), Some(name)) = (there.parent(), there.file_name()) else { return Err(failed(error)) };
                missing.push(name);
                there = above;
            }
        }
    }
}

impl FixedDirError {
    /// Stable name of the refusal.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::OtherOwner { .. } => "path-other-owner",
            Self::OthersWrite { .. } => "path-others-write",
            Self::Replaced { .. } => "path-replaced",
            Self::Io { .. } => "io",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::OtherOwner { .. } => {
                "name a directory below those of root or of the user of this command alone".to_owned()
            }
            Self::OthersWrite { directory, .. } => format!(
                "chmod go-w {}, or name a directory below those that nobody else may write to",
                directory.display()
            ),
            Self::Replaced { .. } => "see who moves directories there, and start again".to_owned(),
            Self::Io { .. } => "name a directory that is there, or whose parent can be written".to_owned(),
        }
    }
}

impl fmt::Display for FixedDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherOwner { directory, uid } => {
                write!(f, "{} is of user {uid}, who could put another directory there", directory.display())
            }
            Self::OthersWrite { directory, mode } => write!(
                f,
                "others may write to {} (mode {mode:04o}), and could put another directory in the place of one in it",
                directory.display()
            ),
            Self::Replaced { directory } => {
                write!(f, "another directory has taken the place of {} since this command began", directory.display())
            }
            Self::Io { directory, errno } => write!(f, "{}: {errno}", directory.display()),
        }
    }
}

impl std::error::Error for FixedDirError {}

impl From<FixedDirError> for Failure {
    fn from(error: FixedDirError) -> Self {
        Self::new(Kind::Failed, error.code(), &error).next(error.next_step())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    use super::*;

    const STRANGER: u32 = 54_321;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    /// `above/middle/at`, in a directory of nobody else's.
    fn three() -> (tempfile::TempDir, PathBuf, PathBuf, PathBuf) {
        let outer = tempfile::tempdir().unwrap();
        let above = outer.path().canonicalize().unwrap().join("above");
        let (middle, at) = (above.join("middle"), above.join("middle/at"));
        fs::create_dir_all(&at).unwrap();
        [&above, &middle, &at].into_iter().for_each(|path| chmod(path, 0o755));
        (outer, above, middle, at)
    }

    fn refused(path: &Path) -> (FixedDirError, &'static str) {
        let refused = FixedDir::new(path).unwrap_err();
        let code = refused.code();
        (refused, code)
    }

    #[test]
    fn what_is_missing_is_made_and_links_are_followed_before() {
        let (_outer, above, middle, _) = three();
        symlink(&middle, above.join("link")).unwrap();
        let made = FixedDir::new(&above.join("link/new/at")).unwrap();
        assert_eq!(made.path(), middle.join("new/at"));
        assert_eq!(fs::metadata(made.path()).unwrap().mode() & 0o7777 & !0o022, 0o755);
        assert_eq!(DirectoryId::of(made.open().unwrap()), Ok(made.id));
        // A link to nothing, something that is no directory, and what only seems to lie in one.
        symlink(above.join("nowhere"), above.join("dangling")).unwrap();
        fs::write(above.join("file"), "").unwrap();
        for no in ["dangling", "file", "file/at", "none/.."] {
            assert_eq!(refused(&above.join(no)).1, "io", "{no}");
        }
    }

    #[test]
    fn who_may_write_to_a_directory_above_could_put_another_there() {
        let (_outer, above, middle, at) = three();
        for mode in [0o777, 0o775, 0o757, 0o2775] {
            for directory in [&above, &middle] {
                chmod(directory, mode);
                let expected = FixedDirError::OthersWrite { directory: directory.clone(), mode };
                assert_eq!(refused(&at), (expected, "path-others-write"));
                chmod(directory, 0o755);
            }
        }
        // In it nobody can change what leads to it.
        chmod(&at, 0o777);
        assert_eq!(FixedDir::new(&at).unwrap().path(), at);
        // Nor can he in a sticky directory what is not his.
        chmod(&middle, 0o1777);
        assert_eq!(FixedDir::new(&at).unwrap().path(), at);
    }

    #[test]
    fn what_another_user_owns_he_may_rename() {
        let (_outer, above, middle, at) = three();
        if !is_root() {
            eprintln!("skipped: only root gives directories away");
            return;
        }
        for directory in [&above, &middle] {
            chown(directory, Some(STRANGER), None).unwrap();
            let expected = FixedDirError::OtherOwner { directory: directory.clone(), uid: STRANGER };
            assert_eq!(refused(&at), (expected, "path-other-owner"));
            chown(directory, Some(0), None).unwrap();
        }
        // He can't rename the last one, unless it lies where everybody may rename what is his own.
        chown(&at, Some(STRANGER), None).unwrap();
        assert_eq!(FixedDir::new(&at).unwrap().path(), at);
        chmod(&middle, 0o1777);
        let expected = FixedDirError::OtherOwner { directory: at.clone(), uid: STRANGER };
        assert_eq!(refused(&at), (expected, "path-other-owner"));
    }

    #[test]
    fn a_user_has_directories_of_his_own_and_those_below_roots() {
        if !is_root() {
            eprintln!("skipped: only root becomes somebody else");
            return;
        }
        let (outer, above, middle, at) = three();
        chmod(outer.path(), 0o755);
        // The kernel knows users by thread; a test that is root's has others beside it.
        let as_stranger = |path: &Path| {
            let path = path.to_owned();
            let thread = std::thread::spawn(move || {
                let uid = rustix::thread::Uid::from_raw(STRANGER);
                rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
                FixedDir::new(&path).map(|fixed| fixed.path)
            });
            thread.join().unwrap()
        };
        assert_eq!(as_stranger(&at), Ok(at.clone()));
        let mine = above.join("mine");
        let failed = FixedDirError::Io { directory: mine.clone(), errno: Errno::ACCESS };
        assert_eq!(as_stranger(&mine.join("at")), Err(failed));
        chown(&middle, Some(STRANGER), None).unwrap();
        assert_eq!(as_stranger(&middle.join("mine/at")), Ok(middle.join("mine/at")));
        chown(&middle, Some(STRANGER + 1), None).unwrap();
        let other = FixedDirError::OtherOwner { directory: middle, uid: STRANGER + 1 };
        assert_eq!(as_stranger(&at), Err(other));
    }

    #[test]
    fn a_directory_that_was_moved_meanwhile_is_not_opened() {
        let (_outer, above, middle, at) = three();
        let fixed = FixedDir::new(&at).unwrap();
        fs::rename(&middle, above.join("away")).unwrap();
        fs::create_dir_all(&at).unwrap();
        let refused = fixed.open().unwrap_err();
        assert_eq!((refused.code(), &refused), ("path-replaced", &FixedDirError::Replaced { directory: at.clone() }));
        fs::remove_dir_all(&middle).unwrap();
        symlink(above.join("away"), &middle).unwrap();
        assert_eq!(fixed.open().unwrap_err(), FixedDirError::Io { directory: at, errno: Errno::LOOP });
    }
}
