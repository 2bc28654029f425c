//! A child that outlives an agent which is killed, by as long as it takes to wipe what it shared. Readers that hold a
//! mapping would keep the plaintext otherwise: with the agent goes only its own hold on the memory.
//!
//! It has the mounts of the agent, and a pipe that ends when the agent does, however that is. It has no key.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use tokio::process::{Child, ChildStdin, Command};

use super::agent::MEMORY;
use crate::agent::load::{Signals, begin, runtime};
use crate::failure::{Failure, Kind};
use crate::open::{Destination, Directory, OpenedModel};
use crate::place::{Facts, judge};

/// Looks for files, of which a dying loader may still make some: so often.
const ROUNDS: u32 = 20;
const ROUND: std::time::Duration = std::time::Duration::from_millis(100);

/// Options of the hidden command.
#[derive(clap::Args, Debug)]
pub struct WiperArgs {
    /// Below which the agent mounts its memory.
    root: PathBuf,
}

/// The agent's end of it.
pub(super) struct Wiper {
    child: Child,
    agent_lives: ChildStdin,
}

impl Wiper {
    /// Starts it, in the mount namespace of this process.
    ///
    /// # Errors
    /// `io`.
    pub(super) fn start(root: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::io("the wiper can't be started", &error);
        let mut command = Command::new("/proc/self/exe");
        let mut child =
            command.arg("wiper").arg(root).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().map_err(failed)?;
        let agent_lives = child.stdin.take().ok_or_else(|| failed(std::io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { child, agent_lives })
    }

    /// Resolves where it ends before the agent.
    pub(super) async fn died(&mut self) -> Failure {
        let status = self.child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
        Failure::new(Kind::Failed, "wiper-died", format!("the process that wipes after a kill ended: {status}"))
    }

    /// Ends it, when nothing is left to wipe.
    pub(super) async fn finish(mut self) {
        drop(self.agent_lives);
        let _ = self.child.wait().await;
    }
}

/// Waits for the end of the agent, then wipes what it left.
#[must_use]
pub fn run(args: &WiperArgs) -> ExitCode {
    match wait_and_wipe(&args.root) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(false),
    }
}

fn wait_and_wipe(root: &Path) -> Result<(), Failure> {
    begin()?;
    // Whoever ends the agent by a signal to its group means the agent, and this process has to come after it.
    let _caught = runtime()?.block_on(async { Signals::new() })?;
    let mut nothing = [0];
    while matches!(std::io::stdin().read(&mut nothing), Ok(1..)) {}
    // Readers first learn of the end by their connections, and a loader has the time to die.
    std::thread::sleep(ROUND);
    let mut wiped = Ok(());
    for _ in 0..ROUNDS {
        match wipe_below(root) {
            Ok(0) if wiped.is_ok() => return Ok(()),
            Ok(_) => wiped = Ok(()),
            Err(failure) => wiped = Err(failure),
        }
        std::thread::sleep(ROUND);
    }
    wiped
}

/// Wipes all models below `root`: how many files there were.
fn wipe_below(root: &Path) -> Result<usize, Failure> {
    let failed = |error| Failure::io(root.display(), &error);
    let mut files = 0;
    let mut result = Ok(());
    for entry in std::fs::read_dir(root).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_name().to_string_lossy().starts_with(MEMORY) {
            continue;
        }
        match wipe_one(&entry.path()) {
            Ok(count) => files += count,
            Err(failure) => result = Err(failure),
        }
    }
    result.map(|()| files)
}

fn wipe_one(path: &Path) -> Result<usize, Failure> {
    // It is wiped wherever it is.
    let directory = Directory::open(path)?;
    let place = judge(&Facts::of(&directory)?, 0, true)?;
    let model = OpenedModel::adopt(Destination::left(directory, place))?;
    let files = model.files().count();
    model.wipe()?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn all_memory_is_wiped_and_views_of_it_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let directory = root.path().join(name);
            std::fs::create_dir(&directory).unwrap();
            std::fs::write(directory.join("weights"), b"plaintext").unwrap();
            std::fs::File::open(directory.join("weights")).unwrap()
        };
        let (one, two, view) = (write("memory-0"), write("memory-1"), write("view-0"));
        assert_eq!(wipe_below(root.path()).unwrap(), 2);
        let seen = |file: &std::fs::File| {
            let mut bytes = [1; 9];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        assert_eq!((seen(&one), seen(&two), &seen(&view)), ([0; 9], [0; 9], b"plaintext"));
        assert_eq!(wipe_below(root.path()).unwrap(), 0);
    }
}
