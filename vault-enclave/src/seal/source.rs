//! The source directory, as it was when it was looked at.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use ledger::manifest::{FilePath, PATH_PARTS_MAX, Plan, PlanUnit, UNITS_MAX};
use ledger::names::Group;
use ledger::safetensors::Header;

use super::SealError;
use super::error::SourceError;

/// A directory of files and the plan to cut them.
pub struct SourceModel {
    /// Sorted by path.
    files: Vec<SourceFile>,
    plan: Plan,
}

/// One file.
pub(super) struct SourceFile {
    path: FilePath,
    on_disk: PathBuf,
    seen: Identity,
}

/// What tells that a file is still the one that was planned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl SourceModel {
    /// Looks at every file below `root` and plans the units. Links to regular files are followed, as model hubs lay
    /// them; anything else that is no regular file or directory is refused. `label` gives the group of a tensor:
    /// [`ledger::safetensors::layer_group`] is the usual one.
    ///
    /// # Errors
    /// [`SealError::Source`] and those of the plan.
    pub fn scan(root: &Path, label: &dyn Fn(&str) -> String) -> Result<Self, SealError> {
        Self::scan_files(root, label, &|_| None)
    }

    /// The same, where a file for whose path `file_label` gives a group is of that group as a whole: the adapter of one
    /// customer, the file of one rank. The header of a safetensors file stays `header`, which every grant has.
    ///
    /// # Errors
    /// As [`SourceModel::scan`].
    pub fn scan_files(
        root: &Path,
        label: &dyn Fn(&str) -> String,
        file_label: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SealError> {
        let mut files = Vec::new();
        walk(root, "", 1, &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut units = Vec::new();
        for file in &files {
            units.extend(file.cut(label, file_label(file.path.as_str()))?);
        }
        Ok(Self { files, plan: Plan::new(units).map_err(SealError::Manifest)? })
    }

    /// How the files will be cut.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The file that a unit of the plan lies in.
    pub(super) fn file(&self, unit: &PlanUnit) -> &SourceFile {
        let place = self.files.binary_search_by(|file| file.path.cmp(&unit.file));
        &self.files[place.expect("the plan was made of these files")]
    }
}

impl SourceFile {
    pub(super) fn open(&self) -> Result<File, SealError> {
        let file = File::open(&self.on_disk).map_err(|error| SealError::source(&self.on_disk, &error))?;
        self.check_unchanged(&file)?;
        Ok(file)
    }

    /// Reads exactly `buffer` at `offset`.
    pub(super) fn read(&self, file: &File, buffer: &mut [u8], offset: u64) -> Result<(), SealError> {
        match file.read_exact_at(buffer, offset) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(self.changed()),
            Err(error) => Err(SealError::source(&self.on_disk, &error)),
            Ok(()) => Ok(()),
        }
    }

    pub(super) fn check_unchanged(&self, file: &File) -> Result<(), SealError> {
        let now = file.metadata().map_err(|error| SealError::source(&self.on_disk, &error))?;
        if Identity::of(&now) == self.seen { Ok(()) } else { Err(self.changed()) }
    }

    fn changed(&self) -> SealError {
        SealError::Source { path: self.on_disk.clone(), error: SourceError::Changed }
    }

    /// `whole` is the group of all of it, where it has one.
    fn cut(&self, label: &dyn Fn(&str) -> String, whole: Option<String>) -> Result<Vec<PlanUnit>, SealError> {
        let length = self.seen.length;
        if !self.path.as_str().ends_with(".safetensors") {
            let mut units = PlanUnit::whole_file(self.path.clone(), length);
            if let Some(group) = whole {
                let group = self.whole_group(group)?;
                units.iter_mut().for_each(|unit| unit.group = group.clone());
            }
            return Ok(units);
        }
        let label = |tensor: &str| whole.clone().unwrap_or_else(|| label(tensor));
        let refused = |error| SealError::Safetensors { file: self.path.clone(), error };
        let file = self.open()?;
        let mut start = vec![0; length.min(8) as usize];
        self.read(&file, &mut start, 0)?;
        // At most 25 MiB, and not past the end of the file.
        start.resize(Header::bytes_needed(&start, length).map_err(refused)?, 0);
        self.read(&file, &mut start, 0)?;
        self.check_unchanged(&file)?;
        Header::parse(&start, length).and_then(|header| header.cut(&self.path, &label)).map_err(refused)
    }

    /// Every grant has what is labelled `header`.
    fn whole_group(&self, group: String) -> Result<Group, SealError> {
        let refused = |error| SealError::Source { path: self.on_disk.clone(), error };
        let group = Group::try_from(group).map_err(|error| refused(SourceError::Group(error)))?;
        if group.is_header() { Err(refused(SourceError::ReservedGroup)) } else { Ok(group) }
    }
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Gathers the files of one directory; `prefix` is its path below the root.
fn walk(directory: &Path, prefix: &str, depth: usize, files: &mut Vec<SourceFile>) -> Result<(), SealError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| SealError::source(&path, &error)
    };
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let entry = entry.map_err(failed(directory))?;
        let on_disk = entry.path();
        let refused = |error| SealError::Source { path: on_disk.clone(), error };
        let name = entry.file_name().into_string().map_err(|_| refused(SourceError::NotUtf8))?;
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let kind = entry.file_type().map_err(failed(&on_disk))?;
        if kind.is_dir() {
            if depth == PATH_PARTS_MAX {
                return Err(refused(SourceError::TooDeep));
            }
            walk(&on_disk, &path, depth + 1, files)?;
            continue;
        }
        // Follows a link.
        let metadata = fs::metadata(&on_disk).map_err(failed(&on_disk))?;
        if !metadata.is_file() {
            return Err(refused(if kind.is_symlink() { SourceError::LinkToNoFile } else { SourceError::NotRegular }));
        }
        if files.len() == UNITS_MAX {
            return Err(refused(SourceError::TooManyFiles));
        }
        let path = FilePath::try_from(path.as_str()).map_err(|error| refused(SourceError::Path(error)))?;
        files.push(SourceFile { path, seen: Identity::of(&metadata), on_disk });
    }
    Ok(())
}
