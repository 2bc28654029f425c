//! Where a sealed model goes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ledger::manifest::{DEK_NAME, MANIFEST_NAME, SIGNATURE_NAME, unit_path};
use rustix::fs::{CWD, RenameFlags};
use tempfile::TempDir;

use super::abandoned::{self, InUse};

/// What the name of a directory begins with while it is not whole.
const PARTIAL: &str = ".weightvault-sealing-";

/// Takes a sealed model: its units, some at a time and begun in their order, then the rest.
pub trait SealTarget: Sync {
    /// Takes the bytes of one unit, in order.
    type Unit: Write;

    /// Begins a unit of `sealed_len` bytes. Called from several threads.
    ///
    /// # Errors
    /// Where it cannot be taken.
    fn begin_unit(&self, index: u32, sealed_len: u64) -> io::Result<Self::Unit>;

    /// Ends a unit, every byte of which was written: from now on it must not be lost.
    ///
    /// # Errors
    /// Where it was not kept.
    fn end_unit(&self, index: u32, unit: Self::Unit) -> io::Result<()>;

    /// Takes what belongs to all units, after the last of them. Only now the model is whole.
    ///
    /// # Errors
    /// Where it was not kept.
    fn finish(self, documents: SealedDocuments) -> io::Result<()>;
}

/// What lies beside the units, exact bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedDocuments {
    /// `manifest.json`.
    pub manifest: Vec<u8>,
    /// `dek.hpke`.
    pub dek: Vec<u8>,
    /// `model.sig`.
    pub signature: Vec<u8>,
}

/// A directory, which appears under its name when it is whole and on the disk. Until then it lies beside it under a name
/// of its own, and is removed if nothing comes of it: by the next seal there, where this one is killed.
pub struct DirectoryTarget {
    final_path: PathBuf,
    partial: TempDir,
    _in_use: InUse,
}

impl DirectoryTarget {
    /// Begins a directory at `path`, where nothing is yet. Its parent exists.
    ///
    /// # Errors
    /// Where something is there, or nothing can be made there.
    pub fn begin(path: &Path) -> io::Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let parent = parent_of(path);
        // Units without their key, which is lost: nobody can ever open them. What can't be removed is in nobody's way.
        let (partial, in_use) = abandoned::make_in(parent, PARTIAL, |left| drop(fs::remove_dir_all(left)))?;
        fs::create_dir(partial.path().join("units"))?;
        Ok(Self { final_path: path.to_owned(), partial, _in_use: in_use })
    }

    fn keep(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create_new(self.partial.path().join(name))?;
        file.write_all(bytes)?;
        file.sync_all()
    }
}

impl SealTarget for DirectoryTarget {
    type Unit = File;

    fn begin_unit(&self, index: u32, sealed_len: u64) -> io::Result<File> {
        let file = File::create_new(self.partial.path().join(unit_path(index)))?;
        // A full disk shows now and not after an hour; file systems that cannot reserve show it later.
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, sealed_len) {
            Err(rustix::io::Errno::NOSPC) => Err(io::ErrorKind::StorageFull.into()),
            Ok(()) | Err(_) => Ok(file),
        }
    }

    fn end_unit(&self, _: u32, unit: File) -> io::Result<()> {
        unit.sync_all()
    }

    fn finish(self, documents: SealedDocuments) -> io::Result<()> {
        self.keep(MANIFEST_NAME, &documents.manifest)?;
        self.keep(DEK_NAME, &documents.dek)?;
        self.keep(SIGNATURE_NAME, &documents.signature)?;
        // All of it is public; the temporary directory was its owner's alone.
        fs::set_permissions(self.partial.path(), fs::Permissions::from_mode(0o755))?;
        sync_directory(&self.partial.path().join("units"))?;
        sync_directory(self.partial.path())?;
        rustix::fs::renameat_with(CWD, self.partial.path(), CWD, &self.final_path, RenameFlags::NOREPLACE)?;
        // Nothing lies under the temporary name any more.
        let _ = self.partial.keep();
        sync_directory(parent_of(&self.final_path))
    }
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
