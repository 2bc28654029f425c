//! Where ciphertext lies between sealing and upload. Any place will do: it is safe to lose, and safe to be seen.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::progress::size;
use crate::failure::{Failure, Kind};
use crate::seal::abandoned::{self, InUse};

/// What the name of a temporary directory begins with.
const TEMPORARY: &str = ".weightvault-sealed-";
/// The sealed model, in a temporary directory.
const SEALED: &str = "sealed";

/// A directory for sealed models: the one that was named, or a temporary one.
pub(super) struct Workplace {
    path: PathBuf,
    temporary: Option<(TempDir, InUse)>,
}

impl Workplace {
    /// `out`, where nothing may be yet; or a directory beside the source, or else in the current directory, where there
    /// is room for `bytes`.
    pub(super) fn find(source: &Path, out: Option<&Path>, bytes: u64) -> Result<Self, Failure> {
        if let Some(out) = out {
            if out.symlink_metadata().is_ok() {
                return Err(Failure::new(Kind::Usage, "out-exists", format!("{} is there already", out.display()))
                    .next("name a directory that is not there yet with --out"));
            }
            check_room(parent(out), bytes)?;
            return Ok(Self { path: out.to_owned(), temporary: None });
        }
        let beside = source.canonicalize().ok().and_then(|source| source.parent().map(Path::to_owned));
        let mut last = None;
        for directory in beside.into_iter().chain([PathBuf::from(".")]) {
            match temporary_in(&directory, bytes) {
                Ok(temporary) => {
                    return Ok(Self { path: temporary.0.path().join(SEALED), temporary: Some(temporary) });
                }
                Err(failure) => last = Some(failure),
            }
        }
        Err(last
            .unwrap_or_else(|| Failure::new(Kind::Failed, "no-room", "no place for the sealed model"))
            .next("name a place with --out DIR; ciphertext is safe anywhere"))
    }

    /// Where the sealed model will lie. Its parent exists, it does not.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps what was sealed for a later upload, and says where it is.
    pub(super) fn keep(self) -> PathBuf {
        if let Some((temporary, _)) = self.temporary {
            let _ = temporary.keep();
        }
        self.path
    }
}

fn temporary_in(directory: &Path, bytes: u64) -> Result<(TempDir, InUse), Failure> {
    let made = abandoned::make_in(directory, TEMPORARY, take_away);
    let made = made.map_err(|error| Failure::file("make a directory in", directory, &error))?;
    // What is taken away makes room.
    check_room(directory, bytes)?;
    Ok(made)
}

/// What an earlier run left. A model that is whole is a person's to publish or to remove.
fn take_away(left: &Path) {
    let sealed = left.join(SEALED);
    if sealed.exists() {
        eprintln!("{}", left_by_an_earlier_run(&sealed));
    } else {
        let _ = std::fs::remove_dir_all(left);
    }
}

fn left_by_an_earlier_run(sealed: &Path) -> String {
    let sealed = sealed.display();
    format!(
        "note: {sealed} is a sealed model that an earlier run left: `vault-enclave publish {sealed} --vault FILE`, or \
         remove it"
    )
}

fn check_room(directory: &Path, bytes: u64) -> Result<(), Failure> {
    let space = rustix::fs::statvfs(directory).map_err(|errno| Failure::file("use", directory, &errno.into()))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    // A file system without a limit of its own counts no blocks.
    if space.f_blocks == 0 || free >= bytes {
        return Ok(());
    }
    let message =
        format!("{} has {} free, and the sealed model needs {}", directory.display(), size(free), size(bytes));
    Err(Failure::new(Kind::Failed, "no-room", message).next("make room, or name another place with --out DIR"))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(found: Result<Workplace, Failure>) -> Option<String> {
        found.err().map(|failure| failure.code().to_owned())
    }

    #[test]
    fn what_an_earlier_run_left_is_published_by_the_command_that_is_printed() {
        #[derive(clap::Parser)]
        struct Publish {
            #[command(flatten)]
            _args: crate::publish::PublishArgs,
        }
        let said = left_by_an_earlier_run(Path::new("/srv/left/sealed"));
        let command = said.split('`').nth(1).and_then(|command| command.strip_prefix("vault-enclave ")).unwrap();
        assert_eq!(command, "publish /srv/left/sealed --vault FILE");
        <Publish as clap::Parser>::try_parse_from(command.split(' ')).unwrap();
    }

    #[test]
    fn a_temporary_place_lies_beside_the_source_and_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let source = parent.path().join("model");
        std::fs::create_dir(&source).unwrap();
        let place = Workplace::find(&source, None, 1).unwrap();
        assert!(place.path().starts_with(parent.path().canonicalize().unwrap()));
        let directory = super::parent(place.path()).to_owned();
        assert!(directory.is_dir());
        drop(place);
        assert!(!directory.exists());
    }

    #[test]
    fn what_a_killed_run_left_goes_unless_it_is_a_whole_model_or_in_use() {
        let parent = tempfile::tempdir().unwrap();
        let source = parent.path().join("model");
        let [dead, whole] = ["dead", "whole"].map(|name| parent.path().join(format!("{TEMPORARY}{name}")));
        for directory in [&source, &dead.join(".weightvault-sealing-x/units"), &whole.join(SEALED)] {
            std::fs::create_dir_all(directory).unwrap();
        }
        let running = Workplace::find(&source, None, 1).unwrap();
        let another = Workplace::find(&source, None, 1).unwrap();
        assert!(!dead.exists() && whole.join(SEALED).exists());
        assert!(super::parent(running.path()).exists() && super::parent(another.path()).exists());
    }

    #[test]
    fn what_is_kept_stays() {
        let parent = tempfile::tempdir().unwrap();
        let source = parent.path().join("model");
        std::fs::create_dir(&source).unwrap();
        let path = Workplace::find(&source, None, 1).unwrap().keep();
        assert!(super::parent(&path).is_dir());
    }

    #[test]
    fn a_place_that_is_taken_or_too_small_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        assert_eq!(code(Workplace::find(parent.path(), Some(parent.path()), 1)).as_deref(), Some("out-exists"));
        let out = parent.path().join("out");
        assert_eq!(code(Workplace::find(parent.path(), Some(&out), u64::MAX)).as_deref(), Some("no-room"));
        assert_eq!(code(Workplace::find(parent.path(), Some(&out.join("below")), 1)).as_deref(), Some("file"));
    }
}
