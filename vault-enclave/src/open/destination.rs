//! The directory that plaintext is opened into, and what lies there afterwards.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use ledger::manifest::FilePath;
use rustix::fs::{
    AtFlags, FallocateFlags, FileType, Gid, Mode, OFlags, ResolveFlags, SeekFrom, Stat, StatxAttributes, StatxFlags,
    Uid,
};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

use super::directory::{Directory, DirectoryId};
use super::files::OpenedFile;
use super::{DestinationError, OpenModelError};
use crate::place::SafePlace;
use crate::region::FileMapping;

/// Mode of a file while it is opened: nobody can read it, since it may hold bytes that did not pass.
const HIDDEN: Mode = Mode::empty();
/// Mode of a file that passed. Nobody is to write to it: its bytes are the publisher's.
pub(super) const PUBLISHED: Mode = Mode::RUSR;
pub(super) const DIRECTORY: Mode = Mode::RWXU;
/// Reserved at a time: a signal undoes what was not finished.
const RESERVE_BYTES: u64 = 1 << 30;
/// statfs(2), `f_type`.
const TMPFS_MAGIC: u64 = 0x0102_1994;
const RAMFS_MAGIC: u64 = 0x8584_58f6;

/// An empty directory in a place that is safe for plaintext.
pub struct Destination {
    pub(super) directory: Directory,
    pub(super) place: SafePlace,
}

impl Destination {
    /// A directory that is empty, and in which nobody else takes files away; `place` is what its own facts were judged.
    ///
    /// # Errors
    /// [`DestinationError`].
    pub fn new(directory: Directory, place: SafePlace) -> Result<Self, DestinationError> {
        let failed = |action| move |errno| DestinationError::Directory { action, errno };
        Access::of(&directory).map_err(failed("look at"))?.check(rustix::process::geteuid().as_raw())?;
        let mut left = 0_usize;
        for entry in rustix::fs::Dir::read_from(&directory).map_err(failed("read"))? {
            let entry = entry.map_err(failed("read"))?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = rustix::fs::statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
            if !is_left_behind(&stat.map_err(failed("read"))?) {
                return Err(DestinationError::NotEmpty);
            }
            left += 1;
        }
        if left > 0 { Err(DestinationError::LeftBehind) } else { Ok(Self { directory, place }) }
    }

    /// One in which another process of this user left files, to be adopted.
    #[must_use]
    pub fn left(directory: Directory, place: SafePlace) -> Self {
        Self { directory, place }
    }

    /// The same one, open once more.
    ///
    /// # Errors
    /// [`DestinationError::Directory`].
    pub fn again(&self) -> Result<Self, DestinationError> {
        Ok(Self { directory: Directory::of(&self.directory)?, place: self.place })
    }

    /// Which directory it is.
    ///
    /// # Errors
    /// [`DestinationError::Directory`].
    pub fn id(&self) -> Result<DirectoryId, DestinationError> {
        self.directory.id()
    }
}

/// Whether it is as a load makes it, which is wiped with its load unless that is killed by SIGKILL.
fn is_left_behind(stat: &Stat) -> bool {
    let mode = Mode::from_raw_mode(stat.st_mode);
    let as_made = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => mode == HIDDEN || mode == PUBLISHED,
        FileType::Directory => mode == DIRECTORY,
        _ => false,
    };
    as_made && stat.st_uid == rustix::process::geteuid().as_raw()
}

/// Who can do what in a directory.
#[derive(Clone, Copy, Debug)]
struct Access {
    uid: u32,
    mode: u32,
    /// It is the root of a mount in memory.
    own_mount: bool,
}

impl Access {
    fn of(directory: &Directory) -> Result<Self, Errno> {
        let stat = rustix::fs::statx(directory, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        let is_root = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        let in_memory =
            matches!(rustix::fs::fstatfs(directory)?.f_type as u64 & 0xffff_ffff, TMPFS_MAGIC | RAMFS_MAGIC);
        Ok(Self { uid: stat.stx_uid, mode: u32::from(stat.stx_mode) & 0o7777, own_mount: is_root && in_memory })
    }

    /// Whoever may take files away in the directory can put his own in the place of the model's. Only its owner may; where
    /// it is sticky, nobody takes away files of others. A mount in memory that is its own root is let through although
    /// everybody may write to it: so are volumes of containers (Kubernetes' `emptyDir` is root's and 0777), and only those
    /// see it that it was given to.
    fn check(self, this: u32) -> Result<(), DestinationError> {
        let Self { uid, mode, own_mount } = self;
        if uid != this && uid != 0 {
            return Err(DestinationError::OtherOwner { uid });
        }
        let others_write = mode & 0o022 != 0;
        let sticky = mode & 0o1000 != 0;
        if others_write && !sticky && !own_mount {
            return Err(DestinationError::OthersWrite { mode });
        }
        Ok(())
    }
}

/// Plaintext files of a model. They are wiped and removed when this is dropped: `abort` and SIGKILL skip that, and then
/// only the end of the mount or the machine clears the memory.
pub struct OpenedModel {
    pub(super) destination: Destination,
    /// Sorted, and so each after the one that it lies in.
    pub(super) directories: BTreeSet<String>,
    pub(super) files: Vec<(FilePath, OwnedFd)>,
    /// Kept only where the place is safe as long as its pages are locked.
    pub(super) locked: Vec<FileMapping>,
    /// Bytes that were opened into huge pages by this process.
    pub(super) huge_bytes: u64,
}

impl OpenedModel {
    /// The files, each with an open descriptor.
    pub fn files(&self) -> impl Iterator<Item = (&FilePath, impl AsFd)> {
        self.files.iter().map(|(path, file)| (path, file.as_fd()))
    }

    /// Gives files and directories to the user whose command reads them, the outermost directory last: nobody gets in before.
    ///
    /// # Errors
    /// [`DestinationError::File`], [`DestinationError::Directory`].
    pub fn give(&self, uid: u32, gid: u32) -> Result<(), DestinationError> {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        for (path, file) in &self.files {
            rustix::fs::fchown(file, uid, gid).map_err(failed(path, "give away"))?;
        }
        for directory in self.directories.iter().map(String::as_str).chain(["."]) {
            let given = self.open_directory(directory).and_then(|directory| rustix::fs::fchown(directory, uid, gid));
            given.map_err(|errno| DestinationError::Directory { action: "give away a directory of", errno })?;
        }
        Ok(())
    }

    /// How much of the plaintext came to lie in huge pages, as far as the kernel tells. A mount can only ask for them.
    pub fn huge_bytes(&self) -> u64 {
        self.huge_bytes
    }

    /// Overwrites and removes the files. Whoever has one mapped reads zeros from then on.
    ///
    /// # Errors
    /// The first that was met; the rest has been wiped all the same.
    pub fn wipe(mut self) -> Result<(), DestinationError> {
        self.remove_all()
    }

    pub(super) fn begin(destination: Destination) -> Result<Self, OpenModelError> {
        raise_file_limit();
        Ok(Self { destination, directories: BTreeSet::new(), files: Vec::new(), locked: Vec::new(), huge_bytes: 0 })
    }

    /// Makes the files, each in its full length, and maps those that are not empty.
    pub(super) fn create_files(
        &mut self,
        files: &[OpenedFile<'_>],
    ) -> Result<Vec<Option<FileMapping>>, OpenModelError> {
        let mut mappings = Vec::new();
        for OpenedFile { path, length, .. } in files {
            let length = *length;
            let created = self.create_file(path, length)?;
            // From here on it is wiped and removed, whatever fails.
            self.files.push((path.clone(), created));
            let Some((_, created)) = self.files.last() else { continue };
            self.reserve(created, path, length)?;
            let mapping = (length > 0).then(|| self.map(created, length)).transpose();
            mappings.push(mapping.map_err(|error| OpenModelError::Memory { file: path.clone(), error })?);
        }
        Ok(mappings)
    }

    /// Has the memory of a file set aside, so that too little of it is found before anything is fetched. A
    /// file system that can't (a ramfs) is filled as it goes.
    fn reserve(&self, file: &OwnedFd, path: &FilePath, length: u64) -> Result<(), DestinationError> {
        let mut start = 0;
        while start < length {
            let bytes = (length - start).min(RESERVE_BYTES);
            match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, start, bytes) {
                Ok(()) => start += bytes,
                // Nothing of this step was kept.
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
                Err(Errno::NOSPC | Errno::NOMEM) => {
                    return Err(DestinationError::NoRoom { file: path.clone(), bytes: length - start });
                }
                Err(errno) => return Err(failed(path, "reserve memory for")(errno)),
            }
        }
        Ok(())
    }

    /// Lets the files be read.
    pub(super) fn publish(&mut self, mappings: Vec<Option<FileMapping>>) -> Result<(), OpenModelError> {
        if self.destination.place.keep_locked() {
            self.locked = mappings.into_iter().flatten().collect();
        }
        for (path, file) in &self.files {
            rustix::fs::fchmod(file, PUBLISHED).map_err(failed(path, "publish"))?;
        }
        Ok(())
    }

    fn map(&self, file: &OwnedFd, length: u64) -> Result<FileMapping, crate::region::RegionError> {
        let mapping = FileMapping::new(file, length, true)?;
        if self.destination.place.keep_locked() {
            mapping.lock()?;
        }
        Ok(mapping)
    }

    fn create_file(&mut self, path: &FilePath, length: u64) -> Result<OwnedFd, DestinationError> {
        for parent in path.parents() {
            if !self.directories.contains(parent) {
                let (outer, name) = split(parent);
                let outer = self.open_directory(outer).map_err(failed(path, "open the directory of"))?;
                rustix::fs::mkdirat(&outer, name, DIRECTORY).map_err(failed(path, "make the directory of"))?;
                self.directories.insert(parent.to_owned());
            }
        }
        let (parent, name) = split(path.as_str());
        let parent = self.open_directory(parent).map_err(failed(path, "open the directory of"))?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, name, flags, HIDDEN).map_err(failed(path, "make"))?;
        if let Err(errno) = rustix::fs::ftruncate(&file, length) {
            // Not yet among those that `remove_all` knows.
            let _ = rustix::fs::unlinkat(&parent, name, AtFlags::empty());
            return Err(failed(path, "size")(errno));
        }
        Ok(file)
    }

    /// A directory that was made here. Nothing outside can be reached, whatever else writes to the destination.
    pub(super) fn open_directory(&self, path: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        rustix::fs::openat2(&self.destination.directory, path, flags, Mode::empty(), resolve)
    }

    fn remove_all(&mut self) -> Result<(), DestinationError> {
        let mut result = Ok(());
        self.locked.clear();
        for (path, file) in std::mem::take(&mut self.files).into_iter().rev() {
            let wiped = wipe_file(&file).map_err(failed(&path, "wipe"));
            let (parent, name) = split(path.as_str());
            let removed =
                self.open_directory(parent).and_then(|parent| rustix::fs::unlinkat(&parent, name, AtFlags::empty()));
            result = result.and(wiped).and(removed.map_err(failed(&path, "remove")));
        }
        for directory in std::mem::take(&mut self.directories).iter().rev() {
            let (parent, name) = split(directory);
            let removed =
                self.open_directory(parent).and_then(|parent| rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR));
            result = result
                .and(removed.map_err(|errno| DestinationError::Directory { action: "remove a directory of", errno }));
        }
        result
    }
}

impl Drop for OpenedModel {
    fn drop(&mut self) {
        if let Err(error) = self.remove_all() {
            tracing::error!(%error, "plaintext could not be wiped");
        }
    }
}

/// One descriptor a file is kept: as many as the system lets this process have. Where that fails, so does a later open. How
/// many there may be.
pub(crate) fn raise_file_limit() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Overwrites what the file holds with zeros, and gives its memory back: whoever has it mapped would keep it otherwise.
fn wipe_file(file: &OwnedFd) -> Result<(), Errno> {
    overwrite(file)?;
    // A part of a page would be kept.
    let length = rustix::fs::fstat(file)?.st_size.unsigned_abs().next_multiple_of(rustix::param::page_size() as u64);
    if length > 0 {
        // Not every file system can; the zeros then stay until the last reader goes.
        let _ = rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, length);
    }
    Ok(())
}

/// Overwrites what the file holds with zeros, without filling its holes.
fn overwrite(file: &OwnedFd) -> Result<(), Errno> {
    let zeros = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // No data from here to the end.
            Err(Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
        at = start;
        while at < end {
            let wanted = (end - at).min(zeros.len() as u64) as usize;
            match rustix::io::pwrite(file, &zeros[..wanted], at) {
                Ok(0) => return Err(Errno::IO),
                Ok(written) => at += written as u64,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Directory and name of a relative path.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or((".", path))
}

fn failed(file: &FilePath, action: &'static str) -> impl FnOnce(Errno) -> DestinationError {
    let file = file.clone();
    move |errno| DestinationError::File { file, action, errno }
}

#[cfg(test)]
mod tests;
