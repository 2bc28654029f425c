//! The machine: kernel, memory, swap, clock, and the place for plaintext.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use attestation::UnixTime;
use x509_cert::der::DateTime;

use super::Check;
use crate::place::{Facts, judge};
use crate::publish::{size, unix_now};

/// 2026-01-01: no machine that runs this program is older.
const CLOCK_MIN: UnixTime = UnixTime(1_767_225_600);
/// Keys of 16,384 units and what goes with them.
const LOCKED_BYTES_MIN: u64 = 4 << 20;
const SHMEM_ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// Asks the kernel. `bytes` is 0 where no size was given.
pub(super) fn checks(into: &Path, bytes: u64) -> Vec<Check> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut checks = vec![kernel(&release), clock(unix_now()), namespaces()];
    // A directory that is yet to be made lies where its nearest ancestor does.
    let existing = into.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    match Facts::gather(existing) {
        Ok(facts) => checks.extend(memory(&facts, into, bytes)),
        Err(error) => checks.push(Check::fail("place for plaintext", &error, "run on Linux with /proc mounted")),
    }
    checks
}

fn memory(facts: &Facts, into: &Path, bytes: u64) -> Vec<Check> {
    vec![
        swap(facts),
        locked(facts.lockable_bytes),
        huge_pages(facts.mount.huge, fs::read_to_string(SHMEM_ENABLED).ok().as_deref()),
        enough(facts.free_memory(), bytes),
        place(facts, into, bytes),
    ]
}

fn kernel(release: &str) -> Check {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
    let version = numbers.next().flatten().zip(numbers.next().flatten());
    match version {
        Some(version) if version >= (6, 4) => Check::ok("kernel", release),
        Some(version) if version >= (5, 14) => Check::warn(
            "kernel",
            format_args!("{release}: tmpfs has no noswap before 6.4"),
            "take a newer kernel, or switch swap off",
        ),
        Some(_) => Check::warn(
            "kernel",
            format_args!("{release}: before 5.14 a tmpfs that is full ends the process instead of the load"),
            "take a newer kernel",
        ),
        None => Check::warn("kernel", format_args!("{release}: can't tell its version"), "take Linux 6.4 or later"),
    }
}

fn clock(now: UnixTime) -> Check {
    if now >= CLOCK_MIN {
        return Check::ok("clock", in_words(now));
    }
    let found = "it stands before 2026: certificates and policies would be judged at a wrong time";
    Check::fail("clock", found, "set it: timedatectl set-ntp true")
}

fn in_words(time: UnixTime) -> String {
    let moment = DateTime::from_unix_duration(Duration::from_secs(time.seconds()));
    moment.map_or_else(|_| "after the year 9999".to_owned(), |moment| moment.to_string())
}

/// `run` gives a command a mount of its own.
fn namespaces() -> Check {
    const CHECK: &str = "mount namespaces";
    let may = |options: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(options).arg("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        unshare.status().map(|status| status.success())
    };
    match may(&["--mount"]) {
        Ok(true) => Check::ok(CHECK, "`run` can give a command a mount of its own"),
        Ok(false) if may(&["--user", "--mount"]).unwrap_or(false) => {
            Check::ok(CHECK, "`run` can give a command of this user a mount of its own")
        }
        Ok(false) => Check::warn(
            CHECK,
            "this process may make none, neither as root nor in a user namespace, as `run` must",
            "run as root, in a container with --cap-add SYS_ADMIN; or let users have namespaces (`load` works without)",
        ),
        Err(error) => Check::warn(CHECK, format_args!("unshare: {error}"), "install util-linux, and ask again"),
    }
}

fn swap(facts: &Facts) -> Check {
    match (facts.swap_is_on, facts.cgroup_never_swaps) {
        (false, _) => Check::ok("swap", "off"),
        (true, true) => Check::ok("swap", "on, but not for this cgroup"),
        (true, false) => Check::warn(
            "swap",
            "on: what lies in a plain tmpfs may reach a disk",
            "swapoff -a, or mount the place for plaintext with -o noswap, or systemd-run --scope -p MemorySwapMax=0",
        ),
    }
}

fn locked(bytes: u64) -> Check {
    match bytes {
        u64::MAX => Check::ok("locked memory", "no limit"),
        LOCKED_BYTES_MIN.. => Check::ok("locked memory", format_args!("up to {}", size(bytes))),
        _ => Check::fail(
            "locked memory",
            format_args!("up to {}; keys need {}", size(bytes), size(LOCKED_BYTES_MIN)),
            "ulimit -l unlimited; with systemd LimitMEMLOCK=infinity; in a container --ulimit memlock=-1",
        ),
    }
}

/// `enabled` is as the kernel writes it: the choice in brackets.
fn huge_pages(mount_is_huge: bool, enabled: Option<&str>) -> Check {
    const CHECK: &str = "huge pages";
    let chosen = enabled.and_then(|text| text.split_once('[')?.1.split_once(']').map(|(chosen, _)| chosen));
    match (mount_is_huge, chosen) {
        (_, Some("deny")) | (false, Some("never") | None) => Check::warn(
            CHECK,
            format_args!("shmem_enabled is {}: loading is slower", chosen.unwrap_or("absent")),
            format!("echo advise > {SHMEM_ENABLED}, or mount the tmpfs with -o huge=within_size"),
        ),
        (true, _) => Check::ok(CHECK, "the file system has them"),
        (false, Some(chosen)) => Check::ok(CHECK, format_args!("shmem_enabled is {chosen}")),
    }
}

fn enough(available: u64, bytes: u64) -> Check {
    let found = format!("{} to give", size(available));
    if available >= bytes {
        return Check::ok("memory", found);
    }
    let fix = "take a larger machine, raise memory.max, or load fewer groups";
    Check::fail("memory", format_args!("{found}, and the model has {}", size(bytes)), fix)
}

fn place(facts: &Facts, into: &Path, bytes: u64) -> Check {
    const CHECK: &str = "place for plaintext";
    // That memory is too small was told already.
    match judge(facts, bytes.min(facts.free_memory()), false) {
        Ok(place) => Check::ok(CHECK, format_args!("{}: {place}", into.display())),
        Err(error) => {
            // Its text is: what is wrong; what to do.
            let text = error.to_string();
            let (found, fix) = text.split_once("; ").unwrap_or((&text, "name another directory with --into"));
            Check::fail(CHECK, format_args!("{}: {found}", into.display()), fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use crate::place::MountFacts;

    fn facts() -> Facts {
        let mount = MountFacts {
            mount_point: "/dev/shm".into(),
            filesystem: "tmpfs".into(),
            noswap: false,
            huge: false,
            free_bytes: Some(1_000),
        };
        Facts {
            mount,
            swap_is_on: false,
            cgroup_never_swaps: false,
            lockable_bytes: 0,
            available_memory: 1_000,
            cgroup_memory: None,
        }
    }

    #[test]
    fn kernels_are_compared_by_number() {
        let level = |release| kernel(release).level;
        assert_eq!(["6.10.0-1", "6.4", "7.0.1"].map(level), [Level::Ok; 3]);
        assert_eq!(["6.1.0-25-amd64", "5.4.0", "x"].map(level), [Level::Warn; 3]);
    }

    #[test]
    fn a_clock_that_was_never_set_fails() {
        assert_eq!((clock(UnixTime(0)).level, clock(CLOCK_MIN).level), (Level::Fail, Level::Ok));
        assert_eq!(in_words(CLOCK_MIN), "2026-01-01T00:00:00Z");
    }

    #[test]
    fn swap_is_a_warning_unless_it_cannot_reach_this_cgroup() {
        let level = |swap_is_on, cgroup_never_swaps| swap(&Facts { swap_is_on, cgroup_never_swaps, ..facts() }).level;
        assert_eq!((level(false, false), level(true, true), level(true, false)), (Level::Ok, Level::Ok, Level::Warn));
    }

    #[test]
    fn too_little_locked_memory_fails() {
        assert_eq!([u64::MAX, 8 << 20, 64 << 10].map(|bytes| locked(bytes).level), [Level::Ok, Level::Ok, Level::Fail]);
    }

    #[test]
    fn huge_pages_are_read_as_the_kernel_writes_them() {
        let level = |mount, text| huge_pages(mount, text).level;
        assert_eq!(level(false, Some("always within_size [advise] never deny force\n")), Level::Ok);
        assert_eq!(level(false, Some("always within_size advise [never] deny force\n")), Level::Warn);
        assert_eq!(level(true, Some("always within_size advise [never] deny force\n")), Level::Ok);
        assert_eq!(level(true, Some("always within_size advise never [deny] force\n")), Level::Warn);
        assert_eq!(level(false, None), Level::Warn);
    }

    #[test]
    fn a_model_that_does_not_fit_fails() {
        let levels =
            |bytes| memory(&facts(), Path::new("/dev/shm"), bytes).iter().map(|check| check.level).collect::<Vec<_>>();
        assert_eq!(levels(1_000)[3..], [Level::Ok, Level::Ok]);
        assert_eq!(levels(1_001)[3..], [Level::Fail, Level::Ok]);
        let small = Facts { mount: MountFacts { free_bytes: Some(999), ..facts().mount }, ..facts() };
        assert_eq!(place(&small, Path::new("/dev/shm"), 1_000).level, Level::Fail);
    }

    #[test]
    fn a_place_on_a_disk_fails_with_the_fix() {
        let mut facts = facts();
        facts.mount.filesystem = "ext4".into();
        let check = place(&facts, Path::new("/srv"), 1);
        assert_eq!(check.level, Level::Fail);
        assert!(check.fix.unwrap_or_default().contains("mount -t tmpfs"));
    }
}
