//! Plaintext that goes from the process that opened it to the one that keeps and wipes it.
//!
//! The opening process is a child that ends as soon as it can, with all that its libraries know of keys. It
//! [leaves](OpenedModel::leave) the files; its parent [adopts](OpenedModel::adopt) them before that, so that there is no
//! moment at which nobody would wipe them, or at which pages that must be locked are not.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};

use ledger::manifest::FilePath;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::destination::{Destination, OpenedModel, PUBLISHED};
use super::{DestinationError, OpenModelError};
use crate::region::{FileMapping, prefault};

/// Deeper than any path of a manifest.
const DEPTH_MAX: usize = ledger::manifest::PATH_PARTS_MAX;
const OWNERS: Mode = Mode::RUSR.union(Mode::WUSR);

impl OpenedModel {
    /// Takes over what lies in `destination`, finished or not: from now on it is wiped when this is dropped. What no loader
    /// makes (links, devices, odd names) is left alone, so that it can't keep the rest from being wiped.
    ///
    /// # Errors
    /// [`OpenModelError`]: a file or directory that can't be opened, or pages that can't be locked where they must be. All that
    /// can be opened has been wiped then.
    pub fn adopt(destination: Destination) -> Result<Self, OpenModelError> {
        let mut adopted = Self::begin(destination)?;
        adopted.adopt_directory(".", 0)?;
        if adopted.destination.place.keep_locked() {
            adopted.lock()?;
        }
        Ok(adopted)
    }

    /// Keeps the files where they are: another process has adopted them.
    pub fn leave(mut self) {
        self.locked.clear();
        self.files.clear();
        self.directories.clear();
    }

    /// All that can be taken over; the first error of what can't.
    fn adopt_directory(&mut self, path: &str, depth: usize) -> Result<(), DestinationError> {
        let failed = |errno| DestinationError::Directory { action: "read", errno };
        let directory = self.open_directory(path).map_err(failed)?;
        let mut result = Ok(());
        for entry in rustix::fs::Dir::read_from(&directory).map_err(failed)? {
            // One that can't be taken over must not keep the others from being wiped.
            let adopted = match entry {
                Ok(entry) => self.adopt_entry(&directory, path, entry.file_name(), depth),
                Err(errno) => Err(failed(errno)),
            };
            result = result.and(adopted);
        }
        result
    }

    fn adopt_entry(
        &mut self,
        directory: &OwnedFd,
        path: &str,
        name: &CStr,
        depth: usize,
    ) -> Result<(), DestinationError> {
        if matches!(name.to_bytes(), b"." | b"..") {
            return Ok(());
        }
        let failed = |errno| DestinationError::Directory { action: "read", errno };
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let Some(inner) = inner_path(path, name) else { return Ok(()) };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let failed = |errno| DestinationError::File { file: inner.clone(), action: "take over", errno };
                let file = open_owned(directory, name, Mode::from_raw_mode(stat.st_mode)).map_err(failed)?;
                self.files.push((inner, file));
                Ok(())
            }
            FileType::Directory if depth < DEPTH_MAX => {
                let adopted = self.adopt_directory(inner.as_str(), depth + 1);
                self.directories.insert(inner.as_str().to_owned());
                adopted
            }
            _ => Ok(()),
        }
    }

    /// Locks the pages that hold data, and none of the holes. Pages that are there already must be touched through the
    /// mapping that locks them.
    fn lock(&mut self) -> Result<(), OpenModelError> {
        for (path, file) in &self.files {
            let failed = |error| OpenModelError::Memory { file: path.clone(), error };
            let unread = |errno| DestinationError::File { file: path.clone(), action: "size", errno };
            let length = rustix::fs::fstat(file).map_err(unread)?.st_size.unsigned_abs();
            if length == 0 {
                continue;
            }
            let mut mapping = FileMapping::new(file, length, true).map_err(failed)?;
            mapping.lock().map_err(failed)?;
            let mut at = 0;
            while let Some((start, end)) = next_data(file, at, length).map_err(unread)? {
                // Within the length that was just mapped, which fits the address space.
                prefault(&mut mapping.bytes_mut()[start as usize..end as usize]).map_err(failed)?;
                at = end;
            }
            self.locked.push(mapping);
        }
        Ok(())
    }
}

/// The next run of data at or after `at`, and its end.
fn next_data(file: &OwnedFd, at: u64, length: u64) -> Result<Option<(u64, u64)>, Errno> {
    if at >= length {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(length);
    Ok((start < end).then_some((start, end)))
}

/// Opens a file to be wiped later, whatever its mode: who is not root may not write to a file of mode 0400, not even the
/// owner. The mode is as before afterwards.
fn open_owned(directory: &OwnedFd, name: &CStr, mode: Mode) -> Result<OwnedFd, Errno> {
    let open = || {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(directory, name, flags, Mode::empty())
    };
    match open() {
        Err(Errno::ACCESS) => {}
        opened => return opened,
    }
    make_ours(directory, name)?;
    let file = open()?;
    rustix::fs::fchmod(&file, mode & PUBLISHED)?;
    Ok(file)
}

/// Lets the owner read and write a file. By name that would follow a link which took the file's place meanwhile, and open up
/// whatever it points to.
fn make_ours(directory: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(Errno::LOOP);
    }
    rustix::fs::chmod(format!("/proc/self/fd/{}", file.as_raw_fd()), OWNERS)
}

fn inner_path(outer: &str, name: &CStr) -> Option<FilePath> {
    let name = name.to_str().ok()?;
    let path = if outer == "." { name.to_owned() } else { format!("{outer}/{name}") };
    FilePath::try_from(path.as_str()).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    use super::super::Directory;
    use super::*;
    use crate::place::{Facts, MountFacts, SafePlace, judge};

    /// A temporary directory may lie on a disk: what these tests write is no secret.
    fn anywhere(directory: &Path) -> SafePlace {
        judge(&Facts::gather(directory).unwrap(), 0, true).unwrap()
    }

    fn empty(directory: &Path, place: SafePlace) -> Destination {
        Destination::new(Directory::open(directory).unwrap(), place).unwrap()
    }

    /// As where swap is on, and root may lock as much as it likes.
    fn locked() -> SafePlace {
        let mount = MountFacts {
            mount_point: "/".to_owned(),
            filesystem: "tmpfs".to_owned(),
            noswap: false,
            huge: false,
            free_bytes: None,
        };
        let facts = Facts {
            mount,
            swap_is_on: true,
            cgroup_never_swaps: false,
            lockable_bytes: u64::MAX,
            available_memory: u64::MAX,
            cgroup_memory: None,
        };
        judge(&facts, 0, false).unwrap()
    }

    fn write(path: &Path, bytes: &[u8], mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_adopted_is_wiped_with_its_directories() {
        let directory = tempfile::tempdir().unwrap();
        let destination = empty(directory.path(), anywhere(directory.path()));
        let (finished, hidden) = (directory.path().join("a/b/c"), directory.path().join("d"));
        write(&finished, b"plaintext", 0o400);
        let mut reader = fs::File::open(&finished).unwrap();
        write(&hidden, b"half", 0);
        let adopted = OpenedModel::adopt(destination).unwrap();
        let modes = [&finished, &hidden].map(|path| fs::metadata(path).unwrap().mode() & 0o777);
        assert_eq!(modes, [0o400, 0]);
        adopted.wipe().unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let mut seen = Vec::new();
        reader.read_to_end(&mut seen).unwrap();
        assert_eq!(seen, [0; 9]);
    }

    #[test]
    fn what_can_not_be_taken_over_keeps_nothing_else_from_being_wiped() {
        let directory = tempfile::tempdir().unwrap();
        let destination = empty(directory.path(), anywhere(directory.path()));
        let (in_use, inner) = (directory.path().join("b/in-use"), directory.path().join("b/inner"));
        let others = [directory.path().join("a"), inner.clone(), directory.path().join("c/d")];
        others.iter().for_each(|other| write(other, b"plaintext", 0o400));
        let readers = others.each_ref().map(|other| fs::File::open(other).unwrap());
        // Nobody may write to a program that runs, root neither.
        fs::copy("/bin/sleep", &in_use).unwrap();
        let mut running = std::process::Command::new(&in_use).arg("1000").spawn().unwrap();
        let again = destination.again().unwrap();
        let refused = OpenedModel::adopt(destination).err();
        let expected =
            DestinationError::File { file: "b/in-use".parse().unwrap(), action: "take over", errno: Errno::TXTBSY };
        assert_eq!(refused, Some(OpenModelError::Destination(expected)));
        for mut reader in readers {
            let mut seen = Vec::new();
            reader.read_to_end(&mut seen).unwrap();
            assert_eq!(seen, [0; 9]);
        }
        assert!(in_use.exists() && !inner.exists() && others.iter().all(|other| !other.exists()));
        running.kill().unwrap();
        running.wait().unwrap();
        OpenedModel::adopt(again).unwrap().wipe().unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_left_stays() {
        let directory = tempfile::tempdir().unwrap();
        let destination = empty(directory.path(), anywhere(directory.path()));
        let file = directory.path().join("a/b");
        write(&file, b"plaintext", 0o600);
        OpenedModel::adopt(destination).unwrap().leave();
        assert_eq!(fs::read(file).unwrap(), b"plaintext");
    }

    #[test]
    fn pages_are_locked_and_holes_take_none() {
        let Ok(directory) = tempfile::tempdir_in("/dev/shm") else {
            eprintln!("skipped: no /dev/shm here");
            return;
        };
        let destination = empty(directory.path(), locked());
        let path = directory.path().join("sparse");
        let file = fs::File::create(&path).unwrap();
        file.set_len(1 << 30).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[1; 4096], 1 << 20).unwrap();
        let before = locked_kilobytes();
        let adopted = match OpenedModel::adopt(destination) {
            Err(OpenModelError::Memory { error, .. }) => {
                eprintln!("skipped: {error}");
                return;
            }
            adopted => adopted.unwrap(),
        };
        assert!(fs::metadata(&path).unwrap().blocks() < 8192, "holes were filled");
        assert!(locked_kilobytes() > before, "nothing is locked");
        adopted.wipe().unwrap();
    }

    #[test]
    fn a_link_is_neither_followed_nor_in_the_way() {
        let directory = tempfile::tempdir().unwrap();
        let destination = empty(directory.path(), anywhere(directory.path()));
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::write(outside.path(), b"somebody else's").unwrap();
        symlink(outside.path(), directory.path().join("link")).unwrap();
        write(&directory.path().join("file"), b"plaintext", 0);
        OpenedModel::adopt(destination).unwrap().wipe().unwrap();
        assert!(!directory.path().join("file").exists());
        assert_eq!(fs::read(outside.path()).unwrap(), b"somebody else's");
    }

    /// As where somebody puts a link in the place of a file after it was looked at.
    #[test]
    fn a_link_that_took_a_files_place_opens_up_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        write(&outside, b"somebody else's", 0);
        symlink(&outside, directory.path().join("link")).unwrap();
        let opened = OFlags::RDONLY | OFlags::DIRECTORY;
        let at = rustix::fs::open(directory.path(), opened, Mode::empty()).unwrap();
        assert!(open_owned(&at, c"link", Mode::empty()).is_err());
        assert!(make_ours(&at, c"link").is_err());
        assert_eq!(fs::metadata(&outside).unwrap().mode() & 0o777, 0);
    }

    /// proc(5), VmLck of this process.
    fn locked_kilobytes() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}
