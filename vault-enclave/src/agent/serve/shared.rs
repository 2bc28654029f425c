//! The files of a model as others get them: descriptors by which nobody can write.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ledger::manifest::FilePath;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::agent::mount::ReadOnlyView;
use crate::failure::Failure;
use crate::open::OpenedModel;

/// Readable by whoever has a descriptor: some libraries open `/proc/self/fd/N` anew. Nobody reaches a file by its name.
const SHARED: Mode = Mode::RUSR.union(Mode::RGRP).union(Mode::ROTH);

/// A model to be handed out.
pub(super) struct Shared {
    files: Vec<SharedFile>,
    bytes: u64,
}

/// One of its files.
pub(super) struct SharedFile {
    path: FilePath,
    bytes: u64,
    file: OwnedFd,
}

impl Shared {
    /// Opens all files of `model` through the mount that has no way to write.
    ///
    /// # Errors
    /// `io`.
    pub(super) fn new(model: &OpenedModel, view: &ReadOnlyView) -> Result<Self, Failure> {
        let mut files = Vec::new();
        for (path, file) in model.files() {
            let failed = |errno: Errno| Failure::io(format!("{} can't be shared", path.as_str()), &errno.into());
            rustix::fs::fchmod(&file, SHARED).map_err(failed)?;
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
            let opened = rustix::fs::openat2(view, path.as_str(), flags, Mode::empty(), resolve);
            let opened = opened.map_err(failed)?;
            let bytes = rustix::fs::fstat(&opened).map_err(failed)?.st_size.unsigned_abs();
            files.push(SharedFile { path: path.clone(), bytes, file: opened });
        }
        // The order in which a directory is read is nobody's.
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let bytes = files.iter().map(|file| file.bytes).sum();
        Ok(Self { files, bytes })
    }

    /// So many files, of nothing.
    #[cfg(test)]
    pub(super) fn of_files(count: usize) -> Self {
        let file = |number: usize| SharedFile {
            path: format!("file-{number}").parse().unwrap(),
            bytes: 0,
            file: std::fs::File::open("/dev/null").unwrap().into(),
        };
        Self { files: (0..count).map(file).collect(), bytes: 0 }
    }

    /// The files, by path.
    pub(super) fn files(&self) -> &[SharedFile] {
        &self.files
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl SharedFile {
    /// Its path in the model.
    pub(super) fn path(&self) -> &str {
        self.path.as_str()
    }

    /// Its length.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is handed out.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
