//! Namespaces that `run` works in: mounts of its own, as root, or as any user where the system lets users have namespaces.

use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;
use rustix::thread::{CapabilitySet, UnshareFlags};

use crate::failure::{Failure, Kind};

/// How the namespace was had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Privilege {
    /// By a capability of this machine.
    Administrator,
    /// In a user namespace, which knows this user and no other.
    User,
}

/// Gives this process a mount namespace of its own, from which nothing comes out and into which nothing comes. Before any
/// thread is started: threads that exist keep the old one. Before the process is closed to its own user as well: who is
/// not root could not write down then whom its namespace knows.
///
/// # Errors
/// `namespace`: a kernel, a container or a setting of the system forbids it.
pub(super) fn enter() -> Result<Privilege, Failure> {
    let privilege = match unshare(UnshareFlags::NEWNS) {
        Ok(()) => Privilege::Administrator,
        Err(Errno::PERM) => {
            enter_as_user()?;
            Privilege::User
        }
        Err(errno) => return Err(refused(&errno.into())),
    };
    // Where a user namespace gives no rights (AppArmor), it is here that it shows.
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|errno| refused(&errno.into()))?;
    Ok(privilege)
}

/// In there this user is who it was, and nobody else is anybody: user_namespaces(7).
fn enter_as_user() -> Result<(), Failure> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).map_err(|errno| refused(&errno.into()))?;
    let write = |file: &str, line: String| std::fs::write(format!("/proc/self/{file}"), line);
    write("setgroups", "deny".to_owned())
        .and_then(|()| write("uid_map", format!("{uid} {uid} 1")))
        .and_then(|()| write("gid_map", format!("{gid} {gid} 1")))
        .map_err(|error| refused(&error))
}

/// Lets the next program of this thread mount, though it is not root's: execve(2) takes capabilities away from others.
pub(super) fn keep_mounting() -> rustix::io::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    sets.inheritable |= CapabilitySet::SYS_ADMIN;
    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::configure_capability_in_ambient_set(CapabilitySet::SYS_ADMIN, true)
}

/// Takes that back. (Linux before 4.3 knows no such thing.)
pub(super) fn stop_mounting() {
    let _ = rustix::thread::configure_capability_in_ambient_set(CapabilitySet::SYS_ADMIN, false);
}

pub(super) fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    #[expect(deprecated, reason = "deprecated for UnshareFlags::FILES alone, which is not asked for here")]
    rustix::thread::unshare(flags)
}

fn refused(error: &std::io::Error) -> Failure {
    Failure::new(Kind::Failed, "namespace", format!("no mount namespace of its own: {error}")).next(
        "run as root with CAP_SYS_ADMIN; or let users have namespaces (user.max_user_namespaces, \
         kernel.apparmor_restrict_unprivileged_userns = 0, in a container its seccomp profile); or have root run \
         `vault-enclave agent`, which gives files to other users over a socket; or use `vault-enclave load` into a directory on a \
         tmpfs",
    )
}
