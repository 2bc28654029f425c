use std::os::unix::fs::{MetadataExt, symlink};

use rustix::fs::OFlags;
use rustix::mount::MountPropagationFlags;

use super::super::fixed::FixedDir;
use super::super::namespace;
use super::*;

fn point(at: &Path) -> MountPoint {
    MountPoint::at(&FixedDir::new(at).unwrap()).unwrap()
}

fn private(at: &Path, bytes: u64) -> PrivateMount {
    PrivateMount::new(point(at), bytes, 1, None).unwrap()
}

#[test]
fn nobody_writes_through_a_view_not_even_root_by_a_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("private");
    in_a_namespace(move || {
        let root = PrivateMount::for_directories(point(&at)).unwrap();
        let within = |name| MountPoint::within(&root, name).unwrap();
        let mount = PrivateMount::new(within("rw"), 1 << 20, 1, None).unwrap();
        std::fs::write(mount.path().join("file"), b"plaintext").unwrap();
        let view = mount.read_only(within("ro")).unwrap();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&view, "file", flags, Mode::empty()).unwrap();
        let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let writes = || {
            let opened = rustix::fs::open(&again, OFlags::RDWR, Mode::empty()).map(drop);
            [opened, rustix::fs::fchmod(&file, Mode::RWXU), rustix::fs::ftruncate(&file, 0)]
        };
        assert_eq!(writes(), [Err(Errno::ROFS), Err(Errno::ROFS), Err(Errno::INVAL)]);
        assert_eq!(std::fs::read(&again).unwrap(), b"plaintext");
        // Nor where both mounts are gone, as after the agent that had them.
        drop((view, mount));
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0, "nor are their directories there");
        assert_eq!(writes(), [Err(Errno::ROFS), Err(Errno::ROFS), Err(Errno::INVAL)]);
    });
}

/// In a thread of its own, which alone gets the namespace. Only root may make one.
fn in_a_namespace(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root makes mount namespaces");
        return;
    }
    let thread = std::thread::spawn(|| match namespace::enter() {
        Ok(_) => test(),
        Err(failure) => eprintln!("skipped: {failure}"),
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_mount_is_seen_in_its_namespace_alone() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("deep/weights");
    let at = outside.clone();
    let (mounted, wait) = std::sync::mpsc::channel();
    let (looked, go_on) = std::sync::mpsc::channel();
    let look = move || {
        // Nothing is sent where the test is skipped.
        if wait.recv() == Ok(()) {
            assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
            looked.send(()).unwrap();
        }
    };
    let looking = std::thread::spawn(look);
    in_a_namespace(move || {
        let mount = private(&at, 1 << 20);
        std::fs::write(mount.path().join("file"), b"plaintext").unwrap();
        mounted.send(()).unwrap();
        go_on.recv().unwrap();
        assert_eq!(std::fs::read_dir(&at).unwrap().count(), 1);
        drop(mount);
        assert_eq!(std::fs::read_dir(&at).unwrap().count(), 0);
    });
    looking.join().unwrap();
}

#[test]
fn a_mount_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("weights");
    in_a_namespace(move || {
        let mount = private(&at, 1 << 20);
        mount.give(Owner { uid: 1234, gid: 5678 }).unwrap();
        let metadata = std::fs::metadata(mount.path()).unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (1234, 5678, 0o700));
    });
}

/// As where somebody who may rename a directory above does so while a model is loaded.
#[test]
fn a_mount_is_given_and_taken_away_itself_wherever_its_path_leads_by_then() {
    let dir = tempfile::tempdir().unwrap();
    let above = dir.path().join("above");
    let (at, away, secret) = (above.join("weights"), dir.path().join("away"), dir.path().join("secret"));
    std::fs::create_dir(&secret).unwrap();
    in_a_namespace(move || {
        let before = std::fs::metadata(&secret).unwrap();
        let mut mount = private(&at, 1 << 20);
        std::fs::rename(&above, &away).unwrap();
        std::fs::create_dir(&above).unwrap();
        symlink(&secret, &at).unwrap();
        mount.give(Owner { uid: 1234, gid: 5678 }).unwrap();
        mount.share().unwrap();
        let base = PrivateMount::for_directories(point(&dir.path().join("beside"))).unwrap();
        let mut next = PrivateMount::new(MountPoint::within(&base, "2").unwrap(), 1 << 20, 1, None).unwrap();
        next.move_over(&mut mount).unwrap();
        let after = std::fs::metadata(&secret).unwrap();
        let facts = |of: &std::fs::Metadata| (of.uid(), of.gid(), of.mode(), of.dev(), of.ino());
        assert_eq!(facts(&after), facts(&before), "what the path leads to now is as it was");
        let given = rustix::fs::fstat(&mount).unwrap();
        assert_eq!((given.st_uid, given.st_gid, given.st_mode & 0o7777), (1234, 5678, 0o700));
        let shown = || std::fs::metadata(away.join("weights")).unwrap().dev();
        assert_eq!(shown(), next.device(), "the other version lies on the one before");
        drop(next);
        assert_eq!(shown(), mount.device(), "and is taken away from it");
    });
}

#[test]
fn another_version_takes_the_place_of_one_in_one_step_also_in_copies_of_the_namespace() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("weights");
    in_a_namespace(move || {
        let base = PrivateMount::for_directories(point(&dir.path().join("beside"))).unwrap();
        let first = private(&at, 1 << 20);
        std::fs::write(at.join("version"), "1").unwrap();
        first.share().unwrap();
        let (ask, asked) = std::sync::mpsc::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let path = at.join("version");
        // As the first process of a command's namespace does.
        let command = std::thread::spawn(move || {
            namespace::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
            let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
            rustix::mount::mount_change("/", downstream).unwrap();
            let open = std::fs::File::open(&path).unwrap();
            while asked.recv().is_ok() {
                tell.send(std::fs::read_to_string(&path).unwrap()).unwrap();
            }
            std::io::read_to_string(open).unwrap()
        });
        let seen = || ask.send(()).map(|()| told.recv().unwrap()).unwrap();
        let mut newest = first;
        for version in ["2", "3"] {
            let hidden = MountPoint::within(&base, version).unwrap();
            let mut next = PrivateMount::new(hidden, 1 << 20, 1, None).unwrap();
            let hidden = next.path().to_owned();
            std::fs::write(hidden.join("version"), version).unwrap();
            let before = seen();
            assert_ne!(before, version);
            assert_ne!(next.device(), newest.device());
            next.move_over(&mut newest).unwrap();
            assert_eq!(next.path(), at);
            assert_eq!((seen().as_str(), hidden.exists()), (version, false));
            drop(std::mem::replace(&mut newest, next));
            assert_eq!(seen(), version, "what lies beneath takes nothing away when it goes");
        }
        drop(ask);
        assert_eq!(command.join().unwrap(), "1", "what is open stays what it is");
    });
}

#[test]
fn memory_comes_from_the_nodes_that_were_named_or_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("weights");
    in_a_namespace(move || {
        let on = |numa: &str| PrivateMount::new(point(&at), 1 << 20, 1, Some(&numa.parse().unwrap()));
        match on("bind:0") {
            Ok(mount) => {
                let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
                let line = mounts.lines().find(|line| line.contains(mount.path().to_str().unwrap())).unwrap();
                assert!(line.contains("mpol=bind:0") && line.contains(" tmpfs "), "{line}");
            }
            Err(failure) => eprintln!("skipped: a kernel without NUMA: {failure}"),
        }
        assert_eq!(on("bind:1023").err().unwrap().code(), "mount", "no machine here has so many nodes");
    });
}

#[test]
fn what_lies_in_huge_pages_is_what_the_kernel_says_of_each_mapping() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("weights");
    in_a_namespace(move || {
        let mount = private(&at, 8 << 20);
        let file = std::fs::File::options().read(true).write(true).create_new(true).open(at.join("file")).unwrap();
        file.set_len(8 << 20).unwrap();
        let mut mapping = crate::region::FileMapping::new(&file, 8 << 20, true).unwrap();
        crate::region::prefault(mapping.bytes_mut()).unwrap();
        let mappings = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let of_each = mappings.lines().filter_map(|line| line.strip_prefix("ShmemPmdMapped:"));
        let kilobytes: u64 = of_each.map(|line| line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()).sum();
        assert_eq!(crate::region::huge_bytes(), kilobytes << 10);
        let is_huge = Facts::gather(mount.path()).unwrap().mount.huge;
        assert!(is_huge || kilobytes == 0, "huge pages that nobody asked for");
    });
}

#[test]
fn a_machine_without_the_memory_is_refused_before_anything_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("weights");
    in_a_namespace(move || {
        let refused = PrivateMount::new(point(&at), 1 << 60, 1, None).err().unwrap();
        assert_eq!(refused.code(), "memory-too-small");
        assert_eq!(std::fs::read_dir(&at).unwrap().count(), 0);
    });
}

#[test]
fn a_mount_has_room_for_the_model_and_not_for_much_more() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("weights");
    in_a_namespace(move || {
        let mount = private(&at, 8 << 20);
        if Facts::gather(mount.path()).unwrap().mount.filesystem == "tmpfs" {
            std::fs::write(mount.path().join("fits"), vec![1; 8 << 20]).unwrap();
            assert!(std::fs::write(mount.path().join("does-not"), vec![1; 32 << 20]).is_err());
        }
    });
}
