//! What a keeper's directory is, by the files that lie in it: nothing is opened, locked or believed.

use std::path::Path;

use super::start::CORE_FILE;
use super::{joiner, recovery};
use crate::{head, root};

/// What a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DirState {
    /// Nothing of a keeper lies there.
    Empty,
    /// A root, and the core that it was given.
    Founder,
    /// A root, and no keys yet of the vault that it is to have.
    Joining,
    /// The keys of a vault, which another keeper handed over.
    Joined,
    /// The keys of a vault, which custodians gave; no run has begun with them yet.
    Recovered,
    /// Files that belong together, and one of them is missing.
    Incomplete {
        /// Which.
        missing: &'static str,
    },
}

impl DirState {
    /// Looks at the names of files.
    pub(crate) fn of(dir: &Path) -> Self {
        let has = |name: &str| dir.join(name).symlink_metadata().is_ok();
        let [root, head, core] = [root::FILE, head::FILE, CORE_FILE].map(has);
        let [keys, genesis, act] = [joiner::KEYS_FILE, joiner::GENESIS_FILE, recovery::FILE].map(has);
        match (root, head) {
            (false, false) if !(core || keys || genesis || act) => Self::Empty,
            (false, _) => Self::Incomplete { missing: root::FILE },
            (true, false) => Self::Incomplete { missing: head::FILE },
            (true, true) => match (core, keys, genesis) {
                (true, _, _) => Self::Founder,
                (false, false, _) => Self::Joining,
                (false, true, _) if act => Self::Recovered,
                (false, true, true) => Self::Joined,
                (false, true, false) => Self::Incomplete { missing: joiner::GENESIS_FILE },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[&str]) -> DirState {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|name| std::fs::write(dir.path().join(name), b"x").unwrap());
        DirState::of(dir.path())
    }

    #[test]
    fn a_directory_is_what_its_files_say_and_one_that_is_missing_is_named() {
        let founder = [root::FILE, head::FILE, CORE_FILE];
        let joined = [root::FILE, head::FILE, joiner::KEYS_FILE, joiner::GENESIS_FILE];
        assert_eq!(of(&[]), DirState::Empty);
        assert_eq!(DirState::of(Path::new("/nonexistent")), DirState::Empty);
        assert_eq!(of(&founder), DirState::Founder);
        assert_eq!(of(&founder[..2]), DirState::Joining);
        assert_eq!(of(&joined), DirState::Joined);
        assert_eq!(of(&[&joined[..], &[recovery::FILE]].concat()), DirState::Recovered);
        for (files, missing) in [(&founder, root::FILE), (&founder, head::FILE)] {
            let rest: Vec<&str> = files.iter().copied().filter(|name| *name != missing).collect();
            assert_eq!(of(&rest), DirState::Incomplete { missing }, "{rest:?}");
        }
        assert_eq!(of(&joined[..3]), DirState::Incomplete { missing: joiner::GENESIS_FILE });
        assert_eq!(of(&[joined[0], joined[1], joined[3]]), DirState::Joining);
    }
}
