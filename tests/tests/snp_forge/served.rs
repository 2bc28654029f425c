//! What a guest sees of a soft platform: Linux's report tree, and derived keys.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use tempfile::TempDir;
use vault_tests::forge::amd::{Product, pem};
use vault_tests::forge::derived_key::{KeyRequest, MIX_MEASUREMENT};
use vault_tests::forge::platform::{SoftGuest, SoftPlatform};
use vault_tests::forge::serve::{Form, Served};
use vault_tests::forge::tsm::SoftMachine;

struct Scene {
    served: Served,
    dir: TempDir,
}

impl Scene {
    fn new(change: impl FnOnce(&mut SoftGuest)) -> Self {
        let dir = tempfile::Builder::new().prefix("weightvault-snp-").tempdir().unwrap();
        let guest = SoftGuest::new([7; 48]).with(change);
        let machine = SoftMachine::new(SoftPlatform::new(Product::Milan), guest);
        let served = Served::start(dir.path(), machine, Form::Fuse).unwrap_or_else(|error| {
            panic!("{error}: the soft platform needs /dev/fuse, and root or fusermount3 (package fuse3)")
        });
        Self { served, dir }
    }

    fn entry(&self, name: &str) -> PathBuf {
        let entry = self.dir.path().join("report").join(name);
        fs::create_dir(&entry).unwrap();
        entry
    }

    fn change(&self, change: impl FnOnce(&mut SoftMachine)) {
        change(&mut self.served.machine.lock().unwrap());
    }

    fn derived_key(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(self.dir.path().join("derived-key")).unwrap();
        stream.write_all(request).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Errno {
    Errno::from_io_error(&result.unwrap_err()).unwrap()
}

#[test]
fn a_report_is_made_of_what_was_written() {
    let scene = Scene::new(|_| {});
    let entry = scene.entry("one");
    assert_eq!(text(&entry.join("provider")), "sev_guest\n");
    assert_eq!(text(&entry.join("generation")), "0\n");
    assert_eq!(text(&entry.join("privlevel_floor")), "0\n");
    assert_eq!(errno(fs::read(entry.join("outblob"))), Errno::INVAL, "nothing was asked for");

    for round in 1..=3u8 {
        fs::write(entry.join("inblob"), [round; 64]).unwrap();
        assert_eq!(text(&entry.join("generation")), format!("{round}\n"));
        let report = fs::read(entry.join("outblob")).unwrap();
        assert_eq!(report.len(), 1184);
        assert_eq!(report[0x50..0x90], [round; 64]);
        assert_eq!(report[0x90..0xC0], [7; 48]);
        assert_eq!(fs::read(entry.join("outblob")).unwrap(), report, "one report a generation");
        assert_eq!(text(&entry.join("generation")), format!("{round}\n"));
        let table = fs::read(entry.join("auxblob")).unwrap();
        let platform = scene.served.machine.lock().unwrap().platform.clone();
        let [vek, _, ark] = platform.chain();
        let vek_len = u32::from_le_bytes(table[20..24].try_into().unwrap());
        assert_eq!(vek_len as usize, vek.len());
        let body = vek.len() - 512;
        assert_eq!(table[96..96 + body - 32], vek[..body - 32], "the same certificate, but for its salted signature");
        assert_eq!(table[..16], *b"\x63\xda\x75\x8d\xe6\x64\x45\x64\xad\xc5\xf4\xb9\x3b\xe8\xac\xcd");
        assert!(text(&scene.dir.path().join("ark.pem")).starts_with(&pem(&ark)[..400]));
    }
    fs::remove_dir(&entry).unwrap();
    assert!(!entry.exists());
}

#[test]
fn entries_do_not_disturb_each_other() {
    let scene = Scene::new(|_| {});
    let (one, two) = (scene.entry("one"), scene.entry("two"));
    assert_eq!(errno(fs::create_dir(&one)), Errno::EXIST);
    fs::write(one.join("inblob"), [1; 64]).unwrap();
    fs::write(two.join("inblob"), [2; 64]).unwrap();
    assert_eq!(fs::read(one.join("outblob")).unwrap()[0x50..0x90], [1; 64]);
    assert_eq!(fs::read(two.join("outblob")).unwrap()[0x50..0x90], [2; 64]);
    assert_eq!(text(&one.join("generation")), "1\n");
    let mut names: Vec<_> =
        fs::read_dir(&one).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["auxblob", "generation", "inblob", "outblob", "privlevel", "privlevel_floor", "provider"]);
    fs::remove_dir(&one).unwrap();
    assert_eq!(fs::read_dir(scene.dir.path().join("report")).unwrap().count(), 1);
}

#[test]
fn the_tree_refuses_what_the_kernel_refuses() {
    let scene = Scene::new(|_| {});
    let entry = scene.entry("one");
    assert_eq!(errno(fs::read(entry.join("inblob"))), Errno::ACCESS);
    assert_eq!(errno(fs::write(entry.join("outblob"), [0])), Errno::ACCESS);
    assert_eq!(errno(fs::write(entry.join("inblob"), [0; 65])), Errno::FBIG);
    assert_eq!(errno(fs::write(entry.join("privlevel"), "4")), Errno::INVAL);
    assert_eq!(errno(fs::write(entry.join("privlevel"), "-1")), Errno::INVAL);
    assert_eq!(errno(fs::create_dir(entry.join("more"))), Errno::PERM);
    assert_eq!(errno(fs::write(entry.join("more"), "x")), Errno::PERM);
    assert_eq!(errno(fs::remove_file(entry.join("inblob"))), Errno::PERM);
    assert_eq!(text(&entry.join("generation")), "0\n", "nothing of this was taken");
    // SNP takes 64 bytes, no fewer: this shows when the report is read.
    fs::write(entry.join("inblob"), [0; 63]).unwrap();
    assert_eq!(errno(fs::read(entry.join("outblob"))), Errno::INVAL);
    fs::write(entry.join("inblob"), [0; 64]).unwrap();
    scene.change(|machine| machine.failure = Some(Errno::AGAIN));
    assert_eq!(errno(fs::read(entry.join("outblob"))), Errno::AGAIN);
    scene.change(|machine| machine.failure = None);
    assert_eq!(fs::read(entry.join("outblob")).unwrap().len(), 1184);
}

#[test]
fn a_guest_gets_reports_of_its_own_level_and_below() {
    let scene = Scene::new(|guest| guest.vmpl = 2);
    let entry = scene.entry("one");
    assert_eq!(text(&entry.join("privlevel_floor")), "2\n");
    fs::write(entry.join("inblob"), [1; 64]).unwrap();
    assert_eq!(errno(fs::read(entry.join("outblob"))), Errno::IO, "level 0 is the default");
    assert_eq!(errno(fs::write(entry.join("privlevel"), "1")), Errno::INVAL);
    for level in [2, 3] {
        fs::write(entry.join("privlevel"), format!("{level}\n")).unwrap();
        assert_eq!(fs::read(entry.join("outblob")).unwrap()[0x30], level);
    }
    assert_eq!(text(&entry.join("generation")), "3\n", "each change counts");
}

#[test]
fn an_svsm_reports_at_its_own_level_over_its_manifest() {
    let scene = Scene::new(|guest| guest.vmpl = 2);
    scene.change(|machine| machine.manifest = b"the services".to_vec());
    let entry = scene.entry("one");
    fs::write(entry.join("service_provider"), "svsm\n").unwrap();
    fs::write(entry.join("inblob"), [1; 64]).unwrap();
    let report = fs::read(entry.join("outblob")).unwrap();
    assert_eq!(report[0x30], 0);
    let preimage = [[1; 64].as_slice(), b"the services"].concat();
    assert_eq!(report[0x50..0x90], *ring::digest::digest(&ring::digest::SHA512, &preimage).as_ref());
    assert_eq!(fs::read(entry.join("manifestblob")).unwrap(), b"the services");
}

#[test]
fn derived_keys_come_through_the_socket() {
    let scene = Scene::new(|_| {});
    let request = KeyRequest { guest_field_select: MIX_MEASUREMENT, ..KeyRequest::default() };
    let answer = scene.derived_key(&request.encode());
    let machine = scene.served.machine.lock().unwrap().clone();
    let key = machine.platform.derive_key(&machine.guest, &request).unwrap();
    assert_eq!(answer, [&[0; 32], key.as_slice()].concat());
    for bad in [&[][..], &[0; 31], &[0; 33], &[0; 48], &[0xFF; 32]] {
        assert_eq!(scene.derived_key(bad), [&[0x16][..], &[0; 63]].concat());
    }
}

#[test]
fn plain_files_answer_a_guest_that_waits() {
    let dir = tempfile::tempdir().unwrap();
    let guest = SoftGuest::new([7; 48]).with(|guest| guest.vmpl = 1);
    let machine = SoftMachine::new(SoftPlatform::new(Product::Genoa), guest);
    let _served = Served::start(dir.path(), machine, Form::Plain).unwrap();
    let wait = |path: PathBuf| {
        for _ in 0..5000 {
            match fs::read(&path) {
                Ok(content) if !content.is_empty() => return content,
                _ => std::thread::sleep(std::time::Duration::from_millis(2)),
            }
        }
        panic!("{} does not come", path.display())
    };
    for name in ["one", "two"] {
        let entry = dir.path().join("report").join(name);
        fs::create_dir(&entry).unwrap();
        assert_eq!(wait(entry.join("provider")), b"sev_guest\n");
        assert_eq!(text(&entry.join("generation")), "0\n");
        assert_eq!(text(&entry.join("privlevel_floor")), "1\n");
        fs::write(entry.join("privlevel"), "3").unwrap();
        fs::write(entry.join("inblob"), [5; 64]).unwrap();
        let report = wait(entry.join("outblob"));
        assert_eq!((report.len(), report[0x30]), (1184, 3));
        assert_eq!(report[0x50..0x90], [5; 64]);
        assert_eq!(text(&entry.join("generation")), "2\n");
        assert!(fs::read(entry.join("auxblob")).unwrap().len() > 4000);
        fs::remove_dir_all(&entry).unwrap();
    }
}
