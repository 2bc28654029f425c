//! Which processes still use the files of a model: as long as one does, nobody takes them away under it.

use std::fs;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags};

/// Processes, other than this one, that have a file of a file system open or mapped. `device` is its `st_dev`: a mount of
/// `run` has one of its own. Processes that hide from this one are not seen; they are of other users.
pub(super) fn users_of(device: u64) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let own = std::process::id();
    ids.filter(|id| *id != own && uses(Path::new(&format!("/proc/{id}")), device)).collect()
}

fn uses(process: &Path, device: u64) -> bool {
    let is_open = fs::read_dir(process.join("fd"))
        .is_ok_and(|files| files.filter_map(Result::ok).any(|file| device_of(&file.path()) == Some(device)));
    is_open || fs::read_to_string(process.join("maps")).is_ok_and(|maps| is_mapped(&maps, device))
}

/// Without asking the file system that it lies on: one of somebody else's need not answer, and who waits for it ends no command.
fn device_of(file: &Path) -> Option<u64> {
    let stat = rustix::fs::statx(CWD, file, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE).ok()?;
    Some(rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor))
}

/// proc(5), maps: the fourth field is the device, as hexadecimal `major:minor`.
fn is_mapped(maps: &str, device: u64) -> bool {
    let wanted = format!("{:02x}:{:02x}", rustix::fs::major(device), rustix::fs::minor(device));
    maps.lines().any(|line| line.split(' ').nth(3) == Some(wanted.as_str()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_mapping_is_found_by_its_device() {
        let maps = "7f00-7f10 r--p 00000000 00:2f 12 /models/x\n7f10-7f20 rw-p 00000000 00:00 0 \n";
        assert!(is_mapped(maps, rustix::fs::makedev(0, 0x2f)));
        assert!(!is_mapped(maps, rustix::fs::makedev(0, 0x2e)));
    }

    #[test]
    fn a_process_that_has_a_file_open_uses_it() {
        let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        let device = file.as_file().metadata().unwrap().dev();
        let mut reader = Command::new("sleep").arg("60").stdin(Stdio::from(file.reopen().unwrap())).spawn().unwrap();
        assert!(users_of(device).contains(&reader.id()));
        reader.kill().unwrap();
        reader.wait().unwrap();
        assert!(!users_of(device).contains(&reader.id()));
    }
}
