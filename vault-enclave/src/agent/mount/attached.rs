//! A mount in the namespace of this thread, by a descriptor of its root: paths may lead elsewhere by the time they are used.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use super::point::MountPoint;

/// An option of a file system; a flag where it has no value.
pub(super) type FsOption<'a> = (&'a str, Option<&'a str>);

/// Shown as the device of the mount.
const SOURCE: &str = "weightvault";
const BOTH_BY_DESCRIPTOR: MoveMountFlags =
    MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH.union(MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH);

/// A mount. It is taken out of the namespace when this is dropped; what still has files of it open keeps them until it ends.
pub(super) struct Attached {
    root: OwnedFd,
    /// Another one lies on it, and would be taken away with it.
    is_beneath: bool,
}

impl Attached {
    /// A new file system, on `point`.
    pub(super) fn new(filesystem: &str, options: &[FsOption<'_>], point: &MountPoint) -> Result<Self, Errno> {
        let context = rustix::mount::fsopen(filesystem, FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&context, "source", SOURCE)?;
        for (name, value) in options {
            match value {
                Some(value) => rustix::mount::fsconfig_set_string(&context, *name, *value)?,
                None => rustix::mount::fsconfig_set_flag(&context, *name)?,
            }
        }
        rustix::mount::fsconfig_create(&context)?;
        let attributes =
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        Self::on(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?, point)
    }

    /// The same files on `point`, to be read alone.
    pub(super) fn read_only(&self, point: &MountPoint) -> Result<Self, Errno> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let copy = Self::on(rustix::mount::open_tree(&self.root, "", flags)?, point)?;
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount_remount(copy.name(), flags, c"")?;
        Ok(copy)
    }

    fn on(root: OwnedFd, point: &MountPoint) -> Result<Self, Errno> {
        rustix::mount::move_mount(&root, "", point, "", BOTH_BY_DESCRIPTOR)?;
        Ok(Self { root, is_beneath: false })
    }

    /// Comes to lie on `other`, which stays as long as the namespace does: what is mounted over it hangs on it.
    pub(super) fn move_over(&self, other: &mut Self) -> Result<(), Errno> {
        rustix::mount::move_mount(&self.root, "", &other.root, "", BOTH_BY_DESCRIPTOR)?;
        other.is_beneath = true;
        Ok(())
    }

    /// What is mounted over it from now on is mounted over it in namespaces that are copied from this one, too.
    pub(super) fn share(&self) -> Result<(), Errno> {
        rustix::mount::mount_change(self.name(), MountPropagationFlags::SHARED)
    }

    /// For calls that take paths alone: the kernel goes from there to what is open, and nowhere else (proc(5)).
    fn name(&self) -> String {
        format!("/proc/self/fd/{}", self.root.as_raw_fd())
    }
}

impl AsFd for Attached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // It goes with the namespace anyway.
        if !self.is_beneath
            && let Err(errno) = rustix::mount::unmount(self.name(), UnmountFlags::DETACH)
        {
            tracing::warn!(%errno, "not unmounted");
        }
    }
}
