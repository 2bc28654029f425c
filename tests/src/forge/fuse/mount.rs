//! Mounting, with and without privileges.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType};

const DEVICE: &str = "/dev/fuse";
/// The program that may mount for everybody.
const HELPER: &str = "fusermount3";

/// A mount of ours.
pub(super) struct Mounted {
    at: PathBuf,
    by_helper: bool,
}

impl Mounted {
    /// Unmounts: whether the connection is surely at its end.
    pub(super) fn end(&self) -> bool {
        unmount(&self.at);
        !self.by_helper
    }
}

/// Takes away what is mounted there, if anything is.
pub fn unmount(at: &Path) {
    if rustix::mount::unmount(at, UnmountFlags::FORCE | UnmountFlags::DETACH) == Err(Errno::PERM) {
        let _ = Command::new(HELPER).args(["-u", "-z", "-q", "--"]).arg(at).status();
    }
}

/// The mount, and the device to serve it by.
pub(super) fn mount(at: &Path) -> io::Result<(Mounted, File)> {
    // Left there by a server that was killed.
    if std::fs::metadata(at).is_err_and(|error| Errno::from_io_error(&error) == Some(Errno::NOTCONN)) {
        unmount(at);
    }
    match mount_directly(at) {
        Ok(device) => Ok((Mounted { at: at.to_owned(), by_helper: false }, device)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let device = mount_by_helper(at).map_err(|error| {
                io::Error::new(error.kind(), format!("this process may not mount, and {HELPER} does not: {error}"))
            })?;
            Ok((Mounted { at: at.to_owned(), by_helper: true }, device))
        }
        Err(error) => Err(io::Error::new(error.kind(), format!("FUSE at {}: {error}", at.display()))),
    }
}

fn mount_directly(at: &Path) -> io::Result<File> {
    let device = File::options().read(true).write(true).open(DEVICE)?;
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let options = format!("fd={},rootmode=40000,user_id={uid},group_id={gid}", device.as_raw_fd());
    let options = CString::new(options).map_err(io::Error::other)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("soft-tsm", at, "fuse", flags, options.as_c_str())?;
    Ok(device)
}

/// `fusermount3` opens the device, mounts it, and sends it through the socket whose number `_FUSE_COMMFD` holds.
fn mount_by_helper(at: &Path) -> io::Result<File> {
    // Not closed by the child's exec, which is the point of it.
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None)?;
    let status = Command::new(HELPER)
        .args(["-o", "nosuid,nodev,noexec,fsname=soft-tsm", "--"])
        .arg(at)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .status()?;
    drop(theirs);
    if !status.success() {
        return Err(io::Error::other(status.to_string()));
    }
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut bytes = [io::IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(&ours, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let device = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    device.map(|device: OwnedFd| File::from(device)).ok_or_else(|| io::Error::other("it sent no device"))
}
