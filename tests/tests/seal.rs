//! `vault-enclave seal` and `publish`: what they read, what they leave when they are killed, and where they go on.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vault_tests::relay::{self, Gate, Hold, Way};
use vault_tests::sealed::text;
use vault_tests::serve::{is_root, wait_until};
use vault_tests::world::APPROVERS;
use vault_tests::{Running, World, binary, run_ok};

/// How the name of a directory begins that is not whole.
const PARTIAL: &str = ".weightvault-sealing-";
/// A machine that is fast enough seals all of it before a test looks again.
const TRIES: usize = 20;

/// More units than the model has.
const UNITS_MAX: u64 = 64;

fn open() -> World {
    let world = World::open();
    run_ok(Command::new(binary("xtask")).args(["model", "--size", "64M", "--out"]).arg(world.path("source")));
    world
}

fn seal(world: &World, options: &[&str]) -> Command {
    let mut seal = world.enclave("seal");
    seal.arg(world.source()).args(["--model", "demo", "--version", "1", "--vault"]).arg(world.vault());
    seal.arg("--publisher-key").arg(world.path("publisher.pem")).args(options);
    seal
}

fn bytes_in(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).expect("it is there").map(|entry| entry.expect("it is there"));
    entries.map(|entry| entry.metadata().expect("a file").len()).sum()
}

fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).expect("it is there").map(|entry| entry.expect("it is there"));
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        // It got its name meanwhile.
        Err(_) => 0,
    });
    bytes.sum()
}

/// Names of the world's directory that begin so.
fn left(world: &World, prefix: &str) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(world.path(".")).expect("it is ours").map(|entry| entry.expect("it is ours"));
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).map(|entry| entry.path()).collect()
}

#[test]
fn source_is_read_once_and_the_sealed_model_written_once() {
    if !is_root() {
        return;
    }
    /// Programs, libraries, the vault file and what the keeper says.
    const BESIDE: u64 = 8 << 20;
    let world = open();
    let sealed = world.path("sealed");
    let mut child = seal(&world, &["--out", text(&sealed), "--no-upload"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it was built");
    let process = format!("/proc/{}", child.id());
    // A process that nobody waited for still has its counters: proc(5), `io`.
    wait_until("it has ended", || {
        let stat = fs::read_to_string(format!("{process}/stat")).expect("nobody waited for it");
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
    });
    let io = fs::read_to_string(format!("{process}/io")).expect("root may");
    assert!(child.wait().expect("it is our child").success());
    let counted = |name: &str| {
        let line = io.lines().find_map(|line| line.strip_prefix(name)).expect("a counter");
        line.trim().parse::<u64>().expect("a number")
    };
    let (source, units) = (bytes_in(&world.source()), bytes_in(&sealed.join("units")));
    assert!(source > 8 * BESIDE - (BESIDE / 2), "what is beside it would hide a second read");
    for (name, bytes) in [("rchar:", source), ("wchar:", units)] {
        assert!((bytes..bytes + BESIDE).contains(&counted(name)), "{name} {bytes}: {io}");
    }
}

#[test]
fn killed_seal_leaves_no_model_and_the_next_one_takes_its_rest_away() {
    let world = open();
    let sealed = world.path("sealed");
    let options = ["--out", text(&sealed), "--no-upload"];
    let begun = || {
        let units = left(&world, PARTIAL).into_iter().map(|dir| dir.join("units"));
        units.into_iter().any(|units| fs::read_dir(units).is_ok_and(|mut units| units.next().is_some()))
    };
    let killed = (0..TRIES).any(|_| {
        let running = Running::start(&mut seal(&world, &options), &world.path("seal.log"));
        wait_until("it seals", || begun() || sealed.exists());
        running.kill();
        let is_whole = sealed.exists();
        let _ = fs::remove_dir_all(&sealed);
        !is_whole
    });
    assert!(killed, "it was whole each time before it was killed");
    let [rest] = left(&world, PARTIAL).try_into().expect("what it left");
    assert!(!rest.join("manifest.json").exists() && !rest.join("dek.hpke").exists());
    let (code, said) = vault_tests::run(world.enclave("publish").arg(&rest).arg("--vault").arg(world.vault()));
    assert!(code != Some(0) && said.contains("manifest.json"), "{said}");
    run_ok(&mut seal(&world, &options));
    assert!(left(&world, PARTIAL).is_empty() && sealed.join("model.sig").exists());
}

#[test]
fn upload_goes_on_where_it_was_in_the_same_process_and_in_the_next_one() {
    /// The first connection that has sent so much breaks. Where all have sent twice as much, nothing goes on.
    const BREAKS_AT: u64 = 12 << 20;
    let world = open();
    let sealed = world.path("sealed");
    run_ok(&mut seal(&world, &["--out", text(&sealed), "--no-upload"]));
    let units = bytes_in(&sealed.join("units"));
    let publish = |host: &str| {
        let mut publish = world.enclave("publish");
        publish.arg(&sealed).args(["--host", host, "--json", "--vault"]).arg(world.vault());
        publish
    };

    let between = world.path("between.sock");
    let came = Arc::new(AtomicU64::new(0));
    let (all, broke) = (Arc::clone(&came), AtomicBool::new(false));
    let (hold, held) = Hold::at({
        let all = Arc::clone(&came);
        move |way, _| way == Way::Up && all.load(Ordering::SeqCst) > 2 * BREAKS_AT
    });
    let gate: Gate = Arc::new(move |way, bytes| {
        let sent = if way == Way::Up { bytes.len() as u64 } else { 0 };
        let breaks = all.fetch_add(sent, Ordering::SeqCst) + sent > BREAKS_AT && !broke.swap(true, Ordering::SeqCst);
        !breaks && held(way, bytes)
    });
    relay::unix(&between, &world.path("host.sock"), gate);
    let running = Running::start(&mut publish(&format!("unix:{}", between.display())), &world.path("publish.log"));
    hold.wait();
    running.kill();
    // Here at least; the host may have to do with what is on its way.
    let kept = bytes_below(&world.path("host/uploads"));
    hold.release();
    assert!(kept > BREAKS_AT, "it went on behind the break: {kept}");

    let said = run_ok(&mut publish(&world.url()));
    let report: serde_json::Value = serde_json::from_str(&said[said.find('{').expect("JSON")..]).expect("JSON");
    let sent = report["uploaded"]["bytes"].as_u64().unwrap_or_else(|| panic!("{report}"));
    // Of a unit whose digest was not checked, a byte is asked for again.
    assert!(sent > 0 && sent <= units - kept + UNITS_MAX, "{sent} of {units} bytes were sent, {kept} were there");
    world.approve(&APPROVERS[..2]);
    assert!(run_ok(world.vaultctl().arg("models")).contains("demo"));
}
