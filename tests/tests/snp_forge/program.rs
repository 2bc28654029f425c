//! The program `soft-snp`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use vault_tests::forge::amd::Product;

const WITHIN: Duration = Duration::from_secs(20);

/// A run of it that is ready.
struct Program(Child);

impl Program {
    fn start(dir: &Path, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_soft-snp"));
        command.arg("--dir").arg(dir).args(["--measurement", &"07".repeat(48)]).args(more);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn report(dir: &Path) -> Vec<u8> {
    let entry = dir.join("report/one");
    fs::create_dir(&entry).unwrap();
    fs::write(entry.join("inblob"), [9; 64]).unwrap();
    let report = fs::read(entry.join("outblob")).unwrap();
    fs::remove_dir(entry).unwrap();
    report
}

/// Whether the tree is gone within bounds, so that the directory can be removed.
fn assert_unmounted(dir: &Path) {
    let start = Instant::now();
    while fs::remove_dir(dir.join("report")).is_err() {
        assert!(start.elapsed() < WITHIN, "it is still mounted");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_chip_stays_the_same_over_updates() {
    let dir = tempfile::Builder::new().prefix("weightvault-snp-").tempdir().unwrap();
    let mut program = Program::start(dir.path(), &["--product", "Turin", "--tcb", "1,2,3,4,5", "--kds", "127.0.0.1:0"]);
    let first = report(dir.path());
    assert_eq!(first[0x90..0xC0], [7; 48]);
    assert_eq!(first[0x38..0x40], [1, 2, 3, 4, 0, 0, 0, 5]);
    assert_eq!(first[0x188..0x18B], Product::Turin.cpuid());
    assert!(fs::read_to_string(dir.path().join("kds.url")).unwrap().starts_with("http://127.0.0.1:"));
    drop(program.0.stdin.take());
    assert!(program.0.wait().unwrap().success(), "its stdin was closed");
    assert_unmounted(dir.path());

    let mut program = Program::start(dir.path(), &["--product", "Turin", "--tcb", "1,2,3,4,6", "--vmpl", "1"]);
    fs::create_dir(dir.path().join("report/two")).unwrap();
    assert_eq!(fs::read(dir.path().join("report/two/privlevel_floor")).unwrap(), b"1\n");
    program.signal(Signal::TERM);
    assert!(program.0.wait().unwrap().success());
    let mut plain = Program::start(dir.path(), &["--product", "Turin", "--plain"]);
    assert!(dir.path().join("derived-key").exists());
    plain.signal(Signal::INT);
    assert!(plain.0.wait().unwrap().success());
    let program = Program::start(dir.path(), &["--product", "Turin", "--tcb", "1,2,3,4,6"]);
    let second = report(dir.path());
    assert_eq!(second[0x1A0..0x1E0], first[0x1A0..0x1E0], "the same chip");
    assert_eq!(second[0x38..0x40], [1, 2, 3, 4, 0, 0, 0, 6]);
    program.signal(Signal::KILL);
    drop(program);
    assert_unmounted(dir.path());
}

#[test]
fn what_it_cannot_do_it_says() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("chip.json"), r#"{"product": "Genoa"}"#).unwrap();
    let fails = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_soft-snp"));
        command.arg("--dir").arg(dir.path()).args(["--measurement", &"07".repeat(48)]).args(more);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(fails(&[]).contains("not a chip of the line Milan"));
    assert!(fails(&["--product", "Rome"]).contains("one of Milan, Genoa, Turin"));
    fs::remove_file(dir.path().join("chip.json")).unwrap();
    assert!(fails(&["--tcb", "1,2,3"]).contains("BOOTLOADER,TEE,SNP,MICROCODE"));
}
