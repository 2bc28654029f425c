//! Sources that die, are slow or lie, memory that is too small, loaders that are stopped or killed: a clear word, nothing
//! half-written that can be read, and a retry that goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use vault_tests::memory::children;
use vault_tests::relay::{self, Way};
use vault_tests::sealed::text;
use vault_tests::serve::wait_until;
use vault_tests::web::Behaviour;
use vault_tests::{Running, Sealed, Web};

const UNIT: &str = "units/00002.cob";

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().expect("a process id")).expect("a process id");
    kill_process(pid, signal).expect("it is a process of this test");
}

fn loader(load: &Running) -> u32 {
    let [loader] = children(load.pid()).try_into().expect("the loader");
    loader
}

/// The modes of all that lies below a directory, files alone.
fn modes(dir: &Path) -> Vec<u32> {
    let entries = fs::read_dir(dir).expect("it is there").map(|entry| entry.expect("it is there").path());
    let modes = entries.map(|path| match fs::symlink_metadata(&path).expect("it is there") {
        metadata if metadata.is_dir() => modes(&path),
        metadata => vec![metadata.permissions().mode() & 0o7777],
    });
    modes.collect::<Vec<_>>().concat()
}

#[test]
fn source_that_dies_is_slow_or_lies_in_the_middle_of_a_unit_is_left_there_and_named() {
    let scene = Sealed::open();
    for (behaviour, words) in
        [(Behaviour::Dies, "cut short"), (Behaviour::Wrong, ": chunk "), (Behaviour::Trickles, "too slow")]
    {
        let web = Web::start(&scene.sealed, move |_| behaviour);
        let said = scene.loads(&["--source", &web.url("127.0.0.1")]);
        assert!(said.contains("going on from the vault's host") && said.contains(words), "{behaviour:?}: {said}");
    }
    // What comes behind the range is not read: there is nothing to say.
    for announced in [false, true] {
        let web = Web::start(&scene.sealed, move |_| Behaviour::TooMuch { announced });
        let said = scene.loads(&["--source", &web.url("127.0.0.1")]);
        assert!(!said.contains("warning") && !web.ranges().is_empty(), "{said}");
    }
}

#[test]
fn retry_of_a_failed_load_asks_for_what_the_cache_has_not_and_for_nothing_else() {
    let scene = Sealed::open();
    scene.host_loses_units();
    let cache = scene.world.path("cache");
    let dying = Web::start(&scene.sealed, |path| if path == UNIT { Behaviour::Dies } else { Behaviour::Serve });
    let options = |web: &Web| {
        let url = web.url("127.0.0.1");
        ["--cache", text(&cache), "--cache-size", "1G", "--source", &url].map(str::to_owned)
    };
    let load = |web: &Web| {
        let mut load = scene.command(&[]);
        load.args(options(web));
        load
    };
    scene.refused_by(&mut load(&dying), "sealed unit 2");
    assert_eq!(scene.entries("release"), scene.entries("end"), "no lease is left of a load that failed");
    let good = Web::start(&scene.sealed, |_| Behaviour::Serve);
    scene.loads_by(&mut load(&good));
    let asked: Vec<String> = good.ranges().into_iter().map(|(path, _)| path).collect();
    assert!(!asked.is_empty() && asked.iter().all(|path| path == UNIT), "{asked:?}");
}

#[test]
fn place_that_is_too_small_is_refused_before_anything_is_asked() {
    let mounts = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).status();
    if !mounts.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI runs this as root");
        println!("skipped: only root can mount");
        return;
    }
    let scene = Sealed::of_size("64M");
    let load = scene.command(&[]);
    let by = |script: &str, first: &Path| {
        let mut small = Command::new("unshare");
        small.args(["-m", "sh", "-c", script]).arg(first).arg(load.get_program()).args(load.get_args());
        small
    };
    fs::create_dir(scene.place()).expect("/dev/shm is ours");
    let tmpfs = "mount -t tmpfs -o size=8m,mode=0700 tmpfs \"$0\" && exec \"$@\"";
    let said = scene.refused_by(&mut by(tmpfs, &scene.place()), "(place-full)");
    assert!(said.contains("make it larger"), "{said}");
    if let Some(group) = Group::new("48M") {
        let said =
            scene.refused_by(&mut by("echo 0 > \"$0/cgroup.procs\" && exec \"$@\"", &group.0), "(cgroup-too-small)");
        assert!(said.contains("raise its limit"), "{said}");
    }
    assert_eq!(scene.entries("release"), 0, "nothing was released for a load that can't be");
    scene.loads(&[]);
}

/// A cgroup with so much memory; it goes with the test.
struct Group(PathBuf);

impl Group {
    /// `None` where this system lets nobody make one.
    fn new(memory: &str) -> Option<Self> {
        let name = format!("weightvault-faults-{}", std::process::id());
        let of = |root: &str, limit: &str| {
            let group = Self(Path::new(root).join(&name));
            fs::create_dir(&group.0).ok()?;
            fs::write(group.0.join(limit), memory).ok().map(|()| group)
        };
        let made = of("/sys/fs/cgroup", "memory.max").or_else(|| of("/sys/fs/cgroup/memory", "memory.limit_in_bytes"));
        if made.is_none() {
            println!("skipped: no cgroup with a limit can be made here");
        }
        made
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn loader_or_load_that_is_killed_on_its_way_leaves_nothing_that_can_be_read() {
    let scene = Sealed::open();
    let web = Web::start(&scene.sealed, |path| if path == UNIT { Behaviour::Stops } else { Behaviour::Serve });
    let mut command = scene.command(&["--source", &web.url("127.0.0.1")]);
    let asked = |times: usize| {
        wait_until("the unit is asked for", || web.ranges().iter().filter(|(path, _)| path == UNIT).count() >= times);
    };

    let load = scene.start(&mut command);
    asked(1);
    assert!(modes(&scene.place()).iter().all(|mode| *mode == 0), "nobody reads what has not passed");
    signal(loader(&load), Signal::KILL);
    let (code, said) = load.wait();
    assert!(code == Some(1) && said.contains("loader-died"), "{code:?} {said}");
    assert!(!scene.has_files(), "{said}");
    assert_eq!(scene.entries("release"), scene.entries("end"));

    // Nobody wipes after one that was killed itself. What it leaves is hidden, and a retry says so.
    let load = scene.start(&mut command);
    asked(2);
    let loader = loader(&load);
    load.kill();
    wait_until("the loader is gone", || !Path::new(&format!("/proc/{loader}")).exists());
    let left = modes(&scene.place());
    assert!(!left.is_empty() && left.iter().all(|mode| *mode == 0), "{left:?}");
    let (code, said) = vault_tests::run(&mut scene.command(&[]));
    assert!(code != Some(0) && said.contains("destination-not-empty"), "{said}");
    fs::remove_dir_all(scene.place()).expect("it is ours");
    scene.loads(&[]);
}

#[test]
fn loader_that_stands_still_costs_the_host_no_memory_and_its_stream_is_given_up() {
    /// A loader that stands still answers no ping either; else the host lets a stream stand still for a minute.
    const GIVEN_UP_WITHIN: Duration = Duration::from_secs(150);
    /// What a few streams have in their queues; the model has 96.
    const GROWTH_MIB_MAX: u64 = 48;
    let scene = Sealed::of_size("96M");
    let between = scene.world.path("between.sock");
    let (came, stopped) = (AtomicU64::new(0), Arc::new(Mutex::new(None)));
    let (load, is_stopped) = (Arc::new(Mutex::new(None::<u32>)), Arc::clone(&stopped));
    let parent = Arc::clone(&load);
    let gate: relay::Gate = Arc::new(move |way, bytes| {
        if way == Way::Down && came.fetch_add(bytes.len() as u64, Ordering::SeqCst) > 8 << 20 {
            let mut stopped = is_stopped.lock().expect("no panic");
            if stopped.is_none()
                && let Some(parent) = *parent.lock().expect("no panic")
            {
                let [loader] = children(parent).try_into().expect("the loader");
                signal(loader, Signal::STOP);
                *stopped = Some(loader);
            }
        }
        true
    });
    relay::unix(&between, &scene.world.path("host.sock"), gate);
    let host = scene.world.host.as_ref().expect("it runs");
    let before = host.resident().now;
    let running = {
        let mut load = load.lock().expect("no panic");
        let running = scene.start(&mut scene.command(&["--host", &format!("unix:{}", between.display())]));
        *load = Some(running.pid());
        running
    };
    wait_until("the loader is stopped", || stopped.lock().expect("no panic").is_some());
    let begun = Instant::now();
    let given_up = ["the client ended its fetch", "stopped reading its fetch"];
    while !given_up.iter().any(|words| host.log().contains(words)) {
        assert!(begun.elapsed() < GIVEN_UP_WITHIN, "{}", host.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let grown = host.resident().peak.saturating_sub(before);
    assert!(grown < GROWTH_MIB_MAX, "the host grew by {grown} MiB");
    assert!(modes(&scene.place()).iter().all(|mode| *mode == 0));
    signal(stopped.lock().expect("no panic").expect("it is"), Signal::KILL);
    let (_, said) = running.wait();
    assert!(said.contains("loader-died") && !scene.has_files(), "{said}");
    scene.loads(&[]);
}
