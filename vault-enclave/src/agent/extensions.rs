//! Extensions that lie beside the agent: read anew whenever a renewal fails because no keeper can be reached.

use std::path::{Path, PathBuf};

use attestation::{Sha256Digest, UnixTime};
use ledger::extension::{EXTENSION_FILE_BYTES_MAX, ExtensionFile};
use vault_proto::convert::ModelName;

use super::options::read_file;
use crate::failure::{Failure, Kind};

/// Files of a directory that are looked at.
const FILES_MAX: usize = 64;

/// Where extensions may be.
#[derive(Clone, Debug, Default)]
pub(super) struct Extensions {
    files: Vec<PathBuf>,
    dir: Option<PathBuf>,
}

/// The lease that an extension has to be about, by the policy that the keeper signed into it.
pub(super) struct Extended<'a> {
    pub(super) vault: Sha256Digest,
    pub(super) policy: Sha256Digest,
    pub(super) lease: Sha256Digest,
    pub(super) model: &'a ModelName,
    pub(super) now: UnixTime,
}

/// One that counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) until: UnixTime,
    /// The file, for the keeper when it is back.
    pub(super) file: Vec<u8>,
}

impl Extensions {
    pub(super) fn new(files: &[PathBuf], dir: Option<&Path>) -> Self {
        Self { files: files.to_vec(), dir: dir.map(Path::to_owned) }
    }

    /// The one that lasts longest, and why the others do not count.
    pub(super) fn longest(&self, of: &Extended) -> (Option<Found>, Vec<Failure>) {
        let (mut longest, mut failures) = (None::<Found>, Vec::new());
        let paths = match self.paths() {
            Ok(paths) => paths,
            Err(failure) => {
                failures.push(failure);
                self.files.clone()
            }
        };
        for path in paths {
            match one(&path, of) {
                Ok(found) if longest.as_ref().is_none_or(|longest| longest.until < found.until) => {
                    longest = Some(found)
                }
                Ok(_) => {}
                Err(failure) => failures.push(failure),
            }
        }
        (longest, failures)
    }

    fn paths(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut paths = self.files.clone();
        if let Some(dir) = &self.dir {
            let failed = |error| Failure::io(dir.display(), &error);
            let entries = std::fs::read_dir(dir).map_err(failed)?.take(FILES_MAX);
            let mut found =
                entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect::<Result<Vec<_>, Failure>>()?;
            found.retain(|path| path.is_file());
            found.sort();
            paths.extend(found);
        }
        Ok(paths)
    }
}

fn one(path: &Path, of: &Extended) -> Result<Found, Failure> {
    let file = read_file(path, EXTENSION_FILE_BYTES_MAX)?;
    let refused = |error: ledger::extension::ExtensionError| {
        Failure::new(Kind::NotVerified, error.code(), format!("{}: {error}", path.display()))
    };
    let approved = ExtensionFile::parse(&file).map_err(refused)?.verify(of.vault, of.policy).map_err(refused)?;
    let ModelName { model, version } = of.model;
    let until = approved.until(of.lease, model, version, of.now).map_err(refused)?;
    Ok(Found { until, file })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(model: &ModelName) -> Extended<'_> {
        let [vault, policy, lease] = [b"vault".as_slice(), b"policy", b"lease"].map(Sha256Digest::of);
        Extended { vault, policy, lease, model, now: UnixTime(5) }
    }

    #[test]
    fn what_does_not_count_is_said_and_hides_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let model = ModelName { model: "demo".try_into().unwrap(), version: "1".try_into().unwrap() };
        std::fs::write(dir.path().join("a"), b"no extension").unwrap();
        std::fs::write(dir.path().join("b"), vec![b' '; EXTENSION_FILE_BYTES_MAX + 1]).unwrap();
        std::fs::create_dir(dir.path().join("c")).unwrap();
        let missing = dir.path().join("missing");
        let extensions = Extensions::new(std::slice::from_ref(&missing), Some(dir.path()));
        let (found, failures) = extensions.longest(&of(&model));
        assert_eq!(found, None);
        assert_eq!(failures.len(), 3, "{failures:?}");
        assert_eq!(failures[1].code(), "extension-file-malformed");
        let (found, failures) = Extensions::new(&[], Some(&missing)).longest(&of(&model));
        assert_eq!((found, failures.len()), (None, 1));
        assert_eq!(Extensions::default().longest(&of(&model)), (None, Vec::new()));
    }
}
