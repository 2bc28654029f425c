//! Keeps the connection to the TPM from programs that this process starts.
//!
//! libtss2 opens devices and sockets to be inherited. Whoever has such a descriptor speaks to the TPM as this process does:
//! with the attestation key that it has loaded there, and for as long as it likes, on a TPM that is one program's at a time. So
//! what libtss2 opened is closed to others at once, and no child is started between the two.

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::sync::{Mutex, PoisonError};
use std::{fs, io};

use rustix::io::Errno;

use crate::region::{close_on_execution, is_inheritable};

/// Held by whoever connects, and by whoever starts a child.
static STARTS: Mutex<()> = Mutex::new(());

/// Starts a child, which gets no connection to a TPM: not while one is being made.
pub fn starting_child<T>(start: impl FnOnce() -> T) -> T {
    let _alone = STARTS.lock().unwrap_or_else(PoisonError::into_inner);
    start()
}

/// Does something that opens descriptors, and keeps those from children.
///
/// # Errors
/// What keeps them from being found, or closed to children.
pub(super) fn kept_from_children<T>(open: impl FnOnce() -> T) -> io::Result<T> {
    let _alone = STARTS.lock().unwrap_or_else(PoisonError::into_inner);
    let before = inheritable()?;
    let opened = open();
    for descriptor in inheritable()?.difference(&before) {
        match close_on_execution(*descriptor) {
            // One that is closed again meanwhile is nobody's.
            Ok(()) | Err(Errno::BADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(opened)
}

/// Descriptors that a program would have which this process executes.
fn inheritable() -> io::Result<BTreeSet<RawFd>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let number: Option<RawFd> = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        found.extend(number.filter(|descriptor| is_inheritable(*descriptor)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::super::TpmError;
    use super::super::device::Device;
    use super::*;

    /// A pipe answers the one question that libtss2 asks a device which it opens: with the question itself.
    #[test]
    fn a_child_does_not_have_its_parents_connection_to_the_tpm() {
        let directory = tempfile::tempdir().unwrap();
        let device = directory.path().join("tpmrm0");
        mknodat(CWD, &device, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let connected = Device::connect(&format!("device:{}", device.display()).parse().unwrap()).unwrap();
        let list = |of: &str| {
            let list = starting_child(|| Command::new("ls").args(["-l", &format!("/proc/{of}/fd")]).output()).unwrap();
            String::from_utf8(list.stdout).unwrap()
        };
        assert!(list(&std::process::id().to_string()).contains("/tpmrm0"), "it is open here");
        let seen = list("self");
        assert!(seen.contains("pipe:") && !seen.contains("/tpmrm0"), "{seen}");
        drop(connected);
    }

    /// Run by the test below, in a process of its own: the limit is that of all its threads.
    #[test]
    #[ignore = "a part of a_connection_that_can_not_be_kept_from_children_is_refused"]
    fn connects_without_descriptors() {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let leave = |count| setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum }).unwrap();
        let here = &"swtpm:host=127.0.0.1,port=1".parse().unwrap();
        leave(0);
        let before = Device::connect(here).map(drop);
        leave(64);
        let after = kept_from_children(|| leave(0)).map_err(|error| error.raw_os_error());
        leave(64);
        let without_answer = Device::connect(here).map(drop);
        println!("before: {}", before.as_ref().unwrap_err());
        assert!(matches!(before, Err(TpmError::Inherited(_))));
        assert_eq!(after, Err(Some(Errno::MFILE.raw_os_error())));
        assert!(matches!(without_answer, Err(TpmError::Unavailable(_))));
    }

    /// Without descriptors nobody can see which of them children would have: before libtss2 opened some, or after.
    #[test]
    fn a_connection_that_can_not_be_kept_from_children_is_refused() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--ignored", "--nocapture", "tpm::descriptors::tests::connects_without_descriptors"]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("can't be kept from programs that are started"), "{said}");
        assert_eq!(TpmError::Inherited(String::new()).code(), "tpm-inherited");
    }
}
