//! Where the weights of a command are not: core files, disks, swap, and what another user can reach.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use vault_tests::serve::{STRANGER, each_file, is_root, run_command, with_command_line};
use vault_tests::{Running, World, run};

const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// For a core that must come, and for one that must not.
const LONG: u32 = 1000;
const SHORT: u32 = 100;

/// Cores of this machine go to a program, as where apport or systemd-coredump are. As it was when this is dropped.
struct PipedCores {
    before: String,
    dir: PathBuf,
}

impl PipedCores {
    fn begin(dir: &Path) -> Option<Self> {
        let handler = dir.join("handler.sh");
        let script = format!("#!/bin/sh\ncat > {0}/core.tmp && mv {0}/core.tmp {0}/core\n", dir.display());
        fs::write(&handler, script).expect("it is ours");
        fs::set_permissions(&handler, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
        let before = fs::read_to_string(CORE_PATTERN).ok()?;
        fs::write(CORE_PATTERN, format!("|{}", handler.display())).ok()?;
        Some(Self { before, dir: dir.to_owned() })
    }

    /// The core that came within so many hundredths of a second, if one did.
    fn take(&self, hundredths: u32) -> Option<Vec<u8>> {
        // The kernel lets a process go when its core is written; the program then still renames it.
        for _ in 0..hundredths {
            let core = self.dir.join("core");
            if core.exists() {
                let bytes = fs::read(&core).expect("it is ours");
                fs::remove_file(core).expect("it is ours");
                return Some(bytes);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        None
    }
}

impl Drop for PipedCores {
    fn drop(&mut self) {
        fs::write(CORE_PATTERN, self.before.trim_end()).expect("it could be written before");
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn core_of_a_command_has_nothing_of_its_memory_even_where_it_lets_there_be_one() {
    if !is_root() {
        return;
    }
    let (world, guest) = World::open_with_guest();
    world.publish("1");
    let cores = world.path("cores");
    fs::create_dir(&cores).expect("it is ours");
    let Some(cores) = PipedCores::begin(&cores) else {
        println!("skipped: core_pattern can't be set here");
        return;
    };
    // What it reads of the weights is in its memory when it crashes.
    let crash =
        "w=$(od -An -v -tx1 -j 4096 -N 64 \"$1/model.safetensors\" | tr -d ' \\n'); test ${#w} = 128 && kill -SEGV $$";
    let weights = fs::read(world.source().join("model.safetensors")).expect("the source");
    let secret = hex::encode(&weights[4096..4096 + 64]);

    let (code, _) = run(Command::new("sh").args(["-c", &format!("ulimit -c 0; {crash}"), "sh"]).arg(world.source()));
    assert_ne!(code, Some(0));
    let Some(core) = cores.take(LONG) else {
        println!("skipped: no program takes cores here");
        return;
    };
    assert!(contains(&core, secret.as_bytes()), "the search does not find what is there");

    // As `run` starts it there is no core at all; with another limit there is one, without memory.
    let (code, said) = run(&mut run_command(&world, &guest, crash));
    assert_eq!((code, cores.take(SHORT).is_some()), (Some(128 + 11), false), "{said}");
    let (code, said) = run(&mut run_command(&world, &guest, &format!("ulimit -c 0; {crash}")));
    assert_eq!(code, Some(128 + 11), "{said}");
    let core = cores.take(LONG).expect("a limit of 0 brings a core: else nothing is shown");
    assert!(!contains(&core, secret.as_bytes()), "the core has weights");
    assert!(!contains(&core, &weights[4096..4096 + 64]), "the core has weights");
}

#[test]
fn weights_of_a_command_are_on_no_disk_in_no_swap_and_out_of_reach_of_another_user() {
    if !is_root() {
        return;
    }
    let (world, guest) = World::open_with_guest();
    world.publish("1");
    let marker = format!("{}.75", 200_000 + std::process::id());
    let script = format!("exec 3<\"$1/model.safetensors\"; echo \"has them\"; sleep {marker}");
    let mut running = Running::start(&mut run_command(&world, &guest, &script), &world.path("run.log"));
    running.wait_for("has them");
    let at = world.path("weights");
    let found = with_command_line(&format!("sleep {marker}"));
    let command = *found.last().expect("it runs");

    // In its namespace the files are there, in memory that is never swapped.
    let inside = PathBuf::from(format!("/proc/{command}/root{}", at.display()));
    let weights = fs::read(inside.join("model.safetensors")).expect("root sees them");
    assert_eq!(weights, fs::read(world.source().join("model.safetensors")).expect("the source"));
    let mounts = fs::read_to_string(format!("/proc/{command}/mountinfo")).expect("it runs");
    let mount = mounts.lines().find(|line| line.contains(&format!(" {} ", at.display()))).expect("it is mounted");
    let swaps = fs::read_to_string("/proc/swaps").expect("/proc").lines().count();
    assert!(mount.contains("noswap") || mount.contains("ramfs") || swaps == 1, "{mount}");

    // Outside they are not, and another user does not get in.
    assert_eq!(fs::read_dir(&at).expect("it is a directory").count(), 0);
    let process = format!("/proc/{command}");
    let files = ["root", "mem", "maps", "fd", "environ"].map(|file| format!("{process}/{file}"));
    let mut paths: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
    paths.extend([inside.join("model.safetensors"), PathBuf::from(format!("{process}/fd/3"))]);
    for pid in [running.pid(), command] {
        paths.push(PathBuf::from(format!("/proc/{pid}/map_files")));
    }
    for path in paths {
        let list = ["-c", "if [ -d \"$1\" ]; then ls -A \"$1/\"; else head -c 1 \"$1\"; fi", "sh"];
        let (code, said) = run(Command::new("sh").args(list).arg(&path).uid(STRANGER).gid(STRANGER));
        assert!(code != Some(0) && said.contains("ermission denied"), "{}: {code:?} {said}", path.display());
    }

    // Nothing of them lies on a disk: neither here nor where programs leave temporary files.
    let pieces: Vec<&[u8]> = [8_192, 1 << 20, 3 << 20].iter().map(|at| &weights[*at..*at + 48]).collect();
    let mut files = 0;
    let mut found = Vec::new();
    each_file(&world.path("."), &world.source(), &mut |path, bytes| {
        files += 1;
        if pieces.iter().any(|piece| contains(bytes, piece)) {
            found.push(path.to_owned());
        }
    });
    assert!(files > 20, "the search sees the files of keeper and host");
    assert_eq!(found, Vec::<PathBuf>::new());
    assert!(pieces.iter().all(|piece| contains(&weights, piece)));
    running.terminate();
    assert_eq!(with_command_line(&format!("sleep {marker}")), Vec::<u32>::new());
}
