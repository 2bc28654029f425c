use super::facts::{find_mount, memory_available, swap_is_on};
use super::*;

const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 22 0:26 / /dev/shm rw,nosuid,nodev shared:5 - tmpfs tmpfs rw,size=1024k
32 22 0:27 / /run/vault\\040one rw,nosuid - tmpfs tmpfs rw,noswap,huge=always
33 22 0:28 / /ram rw - ramfs none rw
";

fn facts(mount: u64) -> Facts {
    let mut mount = find_mount(MOUNTS, mount).unwrap();
    mount.free_bytes = Some(1000);
    Facts {
        mount,
        swap_is_on: true,
        cgroup_never_swaps: false,
        lockable_bytes: 0,
        available_memory: 1000,
        cgroup_memory: None,
    }
}

#[test]
fn memory_that_is_never_swapped_is_safe_as_it_is() {
    assert_eq!(judge(&facts(33), 1000, false), Ok(SafePlace(Kind::Ramfs)));
    assert_eq!(judge(&facts(32), 1000, false), Ok(SafePlace(Kind::TmpfsNoswap)));
}

#[test]
fn a_plain_tmpfs_needs_one_of_three_reasons() {
    let refused = PlaceError::Swappable { mount_point: "/dev/shm".into() };
    assert_eq!(judge(&facts(31), 1000, false), Err(refused.clone()));
    let place = |facts| judge(&facts, 1000, false).map(|place| place.0);
    assert_eq!(place(Facts { swap_is_on: false, ..facts(31) }), Ok(Kind::TmpfsWithoutSwap));
    assert_eq!(place(Facts { cgroup_never_swaps: true, ..facts(31) }), Ok(Kind::TmpfsInCgroupWithoutSwap));
    assert_eq!(place(Facts { lockable_bytes: 1000, ..facts(31) }), Ok(Kind::TmpfsLocked));
    assert_eq!(place(Facts { lockable_bytes: 999, ..facts(31) }), Err(refused));
}

#[test]
fn memory_of_a_process_needs_one_of_the_same_three_reasons() {
    let facts = || Facts { mount: MountFacts::own_memory(), ..facts(31) };
    let refused = PlaceError::MemorySwappable { needed: 1000, lockable: 0 };
    assert_eq!(refused.code(), "memory-swappable");
    assert_eq!(judge(&facts(), 1000, false), Err(refused));
    let place = |facts| judge(&facts, 1000, false);
    assert_eq!(place(Facts { swap_is_on: false, ..facts() }), Ok(SafePlace(Kind::MemoryWithoutSwap)));
    assert_eq!(place(Facts { cgroup_never_swaps: true, ..facts() }), Ok(SafePlace(Kind::MemoryInCgroupWithoutSwap)));
    let locked = place(Facts { lockable_bytes: 1000, ..facts() }).unwrap();
    assert!(locked == SafePlace(Kind::MemoryLocked) && locked.keep_locked());
    assert!(place(Facts { lockable_bytes: 999, ..facts() }).is_err());
    assert!(judge(&facts(), 1000, true).unwrap().is_insecure());
}

#[test]
fn only_locked_pages_must_be_kept_locked() {
    assert!(judge(&Facts { lockable_bytes: 1000, ..facts(31) }, 1000, false).unwrap().keep_locked());
    assert!(!judge(&facts(32), 1000, false).unwrap().keep_locked());
}

#[test]
fn a_disk_is_refused_unless_somebody_says_insecure() {
    let refused = PlaceError::OnDisk { mount_point: "/".into(), filesystem: "ext4".into() };
    assert_eq!(judge(&facts(22), 1000, false), Err(refused));
    let place = judge(&facts(22), 1000, true).unwrap();
    assert!(place.is_insecure());
    assert!(place.to_string().contains("INSECURE"));
    // The switch does not make a safe place insecure.
    assert!(!judge(&facts(32), 1000, true).unwrap().is_insecure());
    assert!(judge(&facts(31), 1000, true).unwrap().is_insecure());
}

#[test]
fn a_model_that_does_not_fit_is_refused_before_it_is_opened() {
    assert_eq!(judge(&facts(32), 1001, false), Err(PlaceError::FileSystemFull { needed: 1001, free: 1000 }));
    let small = Facts { available_memory: 999, ..facts(32) };
    assert_eq!(judge(&small, 1000, false), Err(PlaceError::MemoryFull { needed: 1000, free: 999 }));
    let cgroup = Some(CgroupMemory { free: 999, directory: "/sys/fs/cgroup/pod".into() });
    let small = Facts { cgroup_memory: cgroup, ..facts(32) };
    assert_eq!(small.free_memory(), 999);
    let refused = judge(&small, 1000, false).unwrap_err();
    assert_eq!(refused.code(), "cgroup-too-small");
    assert!(refused.to_string().contains("/sys/fs/cgroup/pod has 999 bytes"), "{refused}");
    let endless = Facts { mount: MountFacts { free_bytes: None, ..facts(33).mount }, ..facts(33) };
    assert!(judge(&endless, 1000, false).is_ok());
    assert_eq!(judge(&facts(22), 1001, true), Err(PlaceError::FileSystemFull { needed: 1001, free: 1000 }));
}

#[test]
fn mounts_are_read_as_the_kernel_writes_them() {
    let mount = find_mount(MOUNTS, 32).unwrap();
    assert_eq!((mount.mount_point.as_str(), mount.noswap, mount.huge), ("/run/vault one", true, true));
    let mount = find_mount(MOUNTS, 31).unwrap();
    assert_eq!((mount.filesystem.as_str(), mount.noswap, mount.huge), ("tmpfs", false, false));
    // Ids are whole fields: 3 is not the mount 31.
    assert_eq!(find_mount(MOUNTS, 3), None);
    assert_eq!(find_mount("31 22 garbage", 31), None);
}

#[test]
fn swap_is_on_where_a_line_says_so() {
    let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
    assert!(!swap_is_on(heading));
    assert!(!swap_is_on(""));
    assert!(swap_is_on(&format!("{heading}/dev/dm-1                               partition\t8388604\t\t0\t\t-2\n")));
}

#[test]
fn memory_is_read_in_bytes() {
    assert_eq!(memory_available("MemTotal:       24 kB\nMemAvailable:   20 kB\n"), Ok(20 * 1024));
    for wrong in ["", "MemAvailable: x kB\n", "MemAvailable: 20 MB\n"] {
        assert_eq!(memory_available(wrong).map_err(|error| error.code()), Err("place-unknown"));
    }
}

#[test]
fn this_machine_can_be_asked() {
    let directory = tempfile::tempdir().unwrap();
    let facts = Facts::gather(directory.path()).unwrap();
    assert!(facts.available_memory > 0);
    assert!(!facts.mount.filesystem.is_empty());
    let missing = Facts::gather(&directory.path().join("missing"));
    assert_eq!(missing.map_err(|error| error.code()), Err("place-unknown"));
}

/// A cgroup with a limit on memory. It is taken away when this is dropped.
struct LimitedCgroup(std::path::PathBuf);

impl LimitedCgroup {
    /// `None` where this test may make none.
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("weightvault-test-{}", std::process::id());
        let limits = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        limits.iter().find_map(|(root, limit)| {
            let cgroup = Self(std::path::Path::new(root).join(&name));
            // A directory that is no cgroup has no such file, and none may be made in it.
            std::fs::create_dir(&cgroup.0).ok()?;
            let file = cgroup.0.join(limit);
            (file.exists() && std::fs::write(file, bytes.to_string()).is_ok()).then_some(cgroup)
        })
    }
}

impl Drop for LimitedCgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn whoever_names_a_disk_is_told_to_mount_as_run_does() {
    let on_disk = judge(&facts(22), 1000, false).unwrap_err();
    assert_eq!(on_disk.code(), "place-on-disk");
    assert!(on_disk.to_string().contains("-o noswap,huge=within_size,mode=0700 tmpfs DIR"), "{on_disk}");
}

#[test]
fn limit_of_a_cgroup_is_found_and_named() {
    let Some(cgroup) = LimitedCgroup::new(1 << 30) else {
        eprintln!("skipped: no cgroup with a memory controller can be made here");
        return;
    };
    // In a process of its own, which enters the cgroup.
    let enter = "echo $$ > \"$1/cgroup.procs\" && exec \"$2\" --exact place::tests::limited --ignored --nocapture";
    let mut child = std::process::Command::new("sh");
    child.args(["-c", enter, "sh"]).arg(&cgroup.0).arg(std::env::current_exe().unwrap());
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(&format!("the cgroup {} has", cgroup.0.display())), "{said}");
}

#[test]
#[ignore = "run by the test above"]
fn limited() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let facts = Facts::gather(directory.path()).unwrap();
    let facts = Facts { swap_is_on: false, mount: MountFacts { free_bytes: None, ..facts.mount }, ..facts };
    let facts = Facts { available_memory: u64::MAX, ..facts };
    let refused = judge(&facts, 1 << 30, false).unwrap_err();
    assert_eq!(refused.code(), "cgroup-too-small");
    println!("{refused}");
    assert!(judge(&facts, 1 << 29, false).is_ok(), "{facts:?}");
}
