//! Memory that is too small, or is taken by somebody else: a clear word before anything is asked or fetched, nothing
//! half-written, and nothing lost of a load that has its memory.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use vault_tests::memory::children;
use vault_tests::relay::{self, Hold, Way};
use vault_tests::sealed::loader;
use vault_tests::serve::{is_root, wait_until};
use vault_tests::{Running, Sealed, run, signal};

/// More than these tests leave free where there is to be too little.
const MODEL: &str = "64M";
/// Of everything else that a load takes.
const LOADER_BYTES: u64 = 24 << 20;
/// TPM 2.0 part 2, TPM_CC_Quote; its place in a command.
const QUOTE: [u8; 4] = [0, 0, 1, 0x58];
const COMMAND_CODE: std::ops::Range<usize> = 6..10;

/// What a load runs in that has its place on a tmpfs of so many MiB, which nobody else sees. It says what is left there.
fn on_tmpfs(scene: &Sealed, mib: u32, load: &Command) -> Command {
    let script = format!(
        "mount -t tmpfs -o size={mib}m,mode=0700 tmpfs \"$0\" || exit 99; \"$@\"; code=$?; echo \"left: $(ls -A \"$0\").\"; exit $code"
    );
    let _ = fs::create_dir(scene.place());
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]).arg(scene.place()).arg(load.get_program()).args(load.get_args());
    command
}

/// That place, seen from outside.
fn inside(load: &Running, place: &Path) -> PathBuf {
    Path::new(&format!("/proc/{}/root", load.pid())).join(place.strip_prefix("/").expect("it is absolute"))
}

/// Takes what is free in a directory's file system, under no name, until it is dropped.
fn fill(directory: &Path) -> File {
    let path = directory.join("filler");
    let mut file = File::create_new(&path).expect("root may");
    fs::remove_file(&path).expect("root may");
    let bytes = vec![1; 1 << 20];
    loop {
        match file.write(&bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return file,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The machine's TPM by a way on which its quote is held: by then the loader has looked at its place, and has no keys yet.
fn held_quote(scene: &Sealed) -> (std::sync::Arc<Hold>, String) {
    let (hold, gate) = Hold::at(|way, bytes| way == Way::Up && bytes.get(COMMAND_CODE) == Some(&QUOTE));
    let tcti = relay::tpm(&scene.guest.tcti, gate);
    (hold, tcti)
}

#[test]
fn place_that_is_too_small_is_refused_before_anything_is_asked() {
    if !is_root() {
        return;
    }
    let scene = Sealed::of_size(MODEL);
    let (code, said) = run(&mut on_tmpfs(&scene, 8, &scene.command(&[])));
    assert!(code == Some(1) && said.contains("(place-full)") && said.contains("make it larger"), "{code:?} {said}");
    assert!(said.contains("left: ."), "{said}");
    if let Some(group) = Group::new(48 << 20) {
        let said = scene.refused_by(&mut group.command(&scene.command(&[])), "(cgroup-too-small)");
        assert!(said.contains("raise its limit"), "{said}");
    }
    assert_eq!(scene.entries("release"), 0, "nothing was released for a load that can't be");
    scene.loads(&[]);
}

#[test]
fn place_that_is_filled_after_it_was_looked_at_is_refused_before_anything_is_fetched() {
    if !is_root() {
        return;
    }
    let scene = Sealed::of_size(MODEL);
    let (hold, tcti) = held_quote(&scene);
    let load = scene.start(&mut on_tmpfs(&scene, 80, &scene.command_of(&tcti, &scene.place(), &[])));
    hold.wait();
    let filler = fill(&inside(&load, &scene.place()));
    hold.release();
    let (code, said) = load.wait();
    drop(filler);
    assert!(code == Some(1) && said.contains("(destination-full)") && said.contains("free memory"), "{code:?} {said}");
    assert!(said.contains("left: ."), "{said}");
    assert_eq!(scene.entries("release"), 1);
    scene.assert_no_lease();
    scene.loads(&[]);
}

#[test]
fn load_that_has_its_memory_is_not_disturbed_by_a_place_that_gets_full() {
    if !is_root() {
        return;
    }
    /// More than manifest and grant, less than the units.
    const HELD_AFTER: usize = 8 << 20;
    let scene = Sealed::of_size(MODEL);
    let between = scene.world.path("between.sock");
    let (hold, gate) = Hold::after(HELD_AFTER);
    relay::unix(&between, &scene.world.path("host.sock"), gate);
    let load = scene.command(&["--host", &format!("unix:{}", between.display())]);
    let mut running = scene.start(&mut on_tmpfs(&scene, 80, &load));
    hold.wait();
    let place = inside(&running, &scene.place());
    let filler = fill(&place);
    hold.release();
    running.wait_for("ready");
    scene.assert_opened(&place);
    let [load] = children(running.pid()).try_into().expect("the load");
    signal(load, rustix::process::Signal::TERM);
    let (_, said) = running.wait();
    drop(filler);
    assert!(said.contains("left: ."), "{said}");
    scene.assert_no_lease();
}

#[test]
fn loader_whose_cgroup_runs_out_of_memory_ends_alone_and_its_parent_wipes() {
    if !is_root() {
        return;
    }
    let scene = Sealed::of_size(MODEL);
    let Some(group) = Group::new(512 << 20) else { return };
    let (hold, tcti) = held_quote(&scene);
    let load = scene.start(&mut group.command(&scene.command_of(&tcti, &scene.place(), &[])));
    hold.wait();
    // Both are in it, and as large as each other.
    let loader = loader(load.pid());
    group.limit(group.used() + LOADER_BYTES);
    hold.release();
    let (code, said) = load.wait();
    assert!(!Path::new(&format!("/proc/{loader}")).exists());
    assert!(code == Some(1) && said.contains("loader-died") && said.contains("memory.events"), "{code:?} {said}");
    assert!(!scene.has_files(), "{said}");
    scene.assert_no_lease();
    scene.loads(&[]);
}

/// A cgroup with so much memory; it goes with the test.
struct Group {
    directory: PathBuf,
    limit: &'static str,
    used: &'static str,
}

impl Group {
    /// `None` where this system lets nobody make one.
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("weightvault-{}", std::process::id());
        let of = |root: &str, limit, used| {
            let group = Self { directory: Path::new(root).join(&name), limit, used };
            fs::create_dir(&group.directory).ok()?;
            group.directory.join(limit).exists().then_some(group)
        };
        let made = of("/sys/fs/cgroup", "memory.max", "memory.current")
            .or_else(|| of("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"));
        match &made {
            Some(group) => group.limit(bytes),
            None => println!("skipped: no cgroup with a limit can be made here"),
        }
        made
    }

    fn limit(&self, bytes: u64) {
        fs::write(self.directory.join(self.limit), bytes.to_string()).expect("root may");
    }

    fn used(&self) -> u64 {
        let used = fs::read_to_string(self.directory.join(self.used)).expect("root may");
        used.trim().parse().expect("a number")
    }

    /// What runs a load in it.
    fn command(&self, load: &Command) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&self.directory);
        command.arg(load.get_program()).args(load.get_args());
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Not before the last process in it is gone for good.
        if !std::thread::panicking() {
            wait_until("the cgroup is empty", || fs::remove_dir(&self.directory).is_ok());
        }
        let _ = fs::remove_dir(&self.directory);
    }
}
