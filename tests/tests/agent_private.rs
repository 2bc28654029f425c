//! Where the weights that an agent shares are not: on a disk, in swap, or within reach of whoever it does not serve.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use vault_tests::memory::children;
use vault_tests::reader::Reader;
use vault_tests::serve::{STRANGER, each_file, is_root};
use vault_tests::{Running, World, run};

const WEIGHTS: &str = "model.safetensors";
/// Prints the first byte of a file, or the names in a directory.
const LOOK: &str = "if [ -d \"$1\" ]; then ls -A \"$1/\"; else head -c 1 \"$1\"; fi";

#[test]
fn weights_of_an_agent_are_on_no_disk_in_no_swap_and_closed_to_users_and_to_root_without_capabilities() {
    if !is_root() {
        return;
    }
    let (world, guest) = World::open_with_guest();
    world.publish("1");
    let root = world.path("x").parent().expect("it lies in a directory").to_owned();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o711)).expect("the directory is ours");
    let (sockets, memory) = (world.path("sockets"), world.path("memory"));
    let mut agent = world.enclave("agent");
    agent.args(["demo@1:guest", "--tpm", &guest.tcti, "--vault"]).arg(world.vault());
    agent.arg("--sockets").arg(&sockets).arg("--memory").arg(&memory).args(["--allow", "0"]);
    let mut running = Running::start(&mut agent, &world.path("agent.log"));
    running.wait_for("ready ");
    let reader = Reader::open(&sockets.join("agent.sock"), "demo@1");
    let weights = fs::read(world.source().join(WEIGHTS)).expect("the source");

    // It and its wiper have the memory mounted; nobody else sees more than an empty directory.
    let processes: Vec<u32> = std::iter::once(running.pid()).chain(children(running.pid())).collect();
    assert!(processes.len() > 1, "the wiper runs");
    assert_eq!(fs::read_dir(&memory).expect("it was made").count(), 0);
    let swaps = fs::read_to_string("/proc/swaps").expect("/proc").lines().count();
    for pid in &processes {
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("it runs");
        let mount = mounts.lines().find(|line| line.contains(&format!(" {}", memory.display())));
        let mount = mount.expect("it is mounted");
        assert!(mount.contains("noswap") || mount.contains("ramfs") || swaps == 1, "{mount}");
    }

    // What root with its capabilities can open, neither a user can nor a root that has lost them: ptrace(2) asks the same.
    for pid in processes {
        for name in ["mem", "maps", "root", "fd", "map_files", "environ"] {
            let path = PathBuf::from(format!("/proc/{pid}/{name}"));
            assert!(fs::File::open(&path).is_ok(), "{}: root itself gets in", path.display());
            let mut user = Command::new("sh");
            is_refused(user.args(["-c", LOOK, "sh"]).arg(&path).uid(STRANGER).gid(STRANGER), &path);
            // Which descriptors there are any process of the same user may list, and follow none of them.
            let path = if name == "fd" { path.join("0") } else { path };
            let mut bare = Command::new("setpriv");
            bare.args(["--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs", "sh", "-c", LOOK, "sh"]);
            is_refused(bare.arg(&path), &path);
        }
    }

    // Nothing of them lies on a disk, while a reader has them.
    let pieces: Vec<&[u8]> = [8_192, 1 << 20, 3 << 20].iter().map(|at| &weights[*at..*at + 48]).collect();
    let mut files = 0;
    let mut found = Vec::new();
    each_file(&root, &world.source(), &mut |path, bytes| {
        files += 1;
        if pieces.iter().any(|piece| bytes.windows(piece.len()).any(|window| window == *piece)) {
            found.push(path.to_owned());
        }
    });
    assert!(files > 20, "the search sees the files of keeper and host");
    assert_eq!(found, Vec::<PathBuf>::new());
    let mut shared = vec![0; weights.len()];
    std::os::unix::fs::FileExt::read_exact_at(reader.file(WEIGHTS), &mut shared, 0).expect("it is readable");
    assert!(shared == weights, "the search was for what the reader has");
    assert_eq!(running.terminate(), Some(0));
}

fn is_refused(command: &mut Command, path: &Path) {
    let (code, said) = run(command);
    let refused = said.contains("ermission denied") || said.contains("not permitted");
    assert!(code != Some(0) && refused, "{command:?} {}: {code:?} {said}", path.display());
}
