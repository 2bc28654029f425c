//! The first process of the PID namespace that `run` gives its command. However it ends, the kernel ends all that is in
//! there: what a command has started and forgotten does not outlive the lease, not even where `run` itself is killed.
//!
//! It also does what the first process of any system does: it waits for processes that nobody else waits for, and passes
//! signals on, since the kernel keeps those from a first process that does not handle them.

use std::process::ExitCode;

use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::Signal;
use rustix::thread::UnshareFlags;

use super::command::{EnterArgs, Exit, Running, parent_of_this};
use super::load::runtime;
use super::namespace;
use super::run::{Caught, EXIT_FAILED};
use crate::failure::{Failure, Kind};
use crate::region::harden_process;

/// Runs the command to its end, as the first process.
#[must_use]
pub fn init(args: &EnterArgs) -> ExitCode {
    match first(args) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn first(args: &EnterArgs) -> Result<Exit, Failure> {
    // A command of the same user could have it forget its parent.
    harden_process()?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| Failure::io("the end of the parent can't be watched", &errno.into()))?;
    // From in here the parent has no number: /proc is still that of outside.
    if parent_of_this() != rustix::process::Pid::from_raw(args.parent()) {
        return Err(Failure::new(Kind::Failed, "parent-gone", "the parent ended before the command began"));
    }
    if let Err(errno) = own_proc() {
        eprintln!(
            "warning: no /proc of its own: {errno}; the command sees the numbers of all processes of this machine"
        );
    }
    runtime()?.block_on(async {
        let mut caught = Caught::new()?;
        let running = Running::enter(args)?;
        Ok(caught.exit(&running).await)
    })
}

/// A /proc with the numbers that the command's processes have for each other, in a mount namespace in which it hides the
/// one of `run` from nobody else.
fn own_proc() -> rustix::io::Result<()> {
    namespace::unshare(UnshareFlags::NEWNS)?;
    // A version of the model that `run` puts over another one still comes in here; nothing goes out.
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", "/proc", "proc", flags, None)
}
