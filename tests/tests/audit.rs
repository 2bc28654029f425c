//! An audit bundle: exported from a vault, then verified by somebody who has the folder and the vault file alone. Each thing
//! that is changed in it has its own exit code.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use vault_tests::binary;
use vault_tests::golden::{self, Golden};

/// A vault with every kind of entry, its bundle, and the auditor's desk.
struct Desk {
    golden: Golden,
    dir: tempfile::TempDir,
}

struct Answer {
    code: Option<i32>,
    report: Value,
    error: Value,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { golden: Golden::open("v1"), dir: tempfile::tempdir().expect("a temporary directory") };
        let exported = desk.vaultctl(&["audit", "export", "--out", text(&desk.bundle())]);
        assert_eq!((exported.code, &exported.report["missing"]), (Some(0), &json!([])), "{}", exported.error);
        desk
    }

    fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    fn vaultctl(&self, args: &[&str]) -> Answer {
        run(self.golden.world.vaultctl().arg("--json").args(args))
    }

    /// A copy of the bundle with one change, and what the auditor is told of it. He has no host to ask.
    fn verify_with(&self, change: impl FnOnce(&Path), args: &[&str]) -> Answer {
        let copy = self.dir.path().join("changed");
        let _ = fs::remove_dir_all(&copy);
        golden::copy(&self.bundle(), &copy);
        change(&copy);
        self.auditor(&copy, args)
    }

    fn auditor(&self, bundle: &Path, args: &[&str]) -> Answer {
        let mut vaultctl = std::process::Command::new(binary("vaultctl"));
        vaultctl.args(["--json", "audit", "verify"]).arg(bundle).arg("--vault").arg(self.golden.world.vault());
        run(vaultctl.args(args))
    }

    /// The first release.
    fn release(&self) -> Value {
        let mut show = self.golden.world.vaultctl();
        let shown = run(show.args(["--json", "log", "show"])).report;
        let entries = shown["entries"].as_array().expect("a list").clone();
        entries.into_iter().find(|entry| entry["entry"]["type"] == "release").expect("a release")
    }
}

fn run(command: &mut std::process::Command) -> Answer {
    let output = command.output().expect("the program runs");
    // Progress goes there as well.
    let error = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
    Answer {
        code: output.status.code(),
        report: serde_json::from_slice(&output.stdout).unwrap_or_default(),
        error: serde_json::from_str(&error).unwrap_or_default(),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn blob(bundle: &Path, digest: &Value) -> PathBuf {
    bundle.join("blob").join(digest.as_str().expect("a digest").trim_start_matches("sha256:"))
}

/// The one file of entries of a log this short.
fn entries(bundle: &Path) -> PathBuf {
    let dir = bundle.join("tile/entries/000.p");
    fs::read_dir(dir).expect("a partial bundle").next().expect("one file").expect("it can be listed").path()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("the file is there");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("the copy is ours");
}

#[test]
fn a_bundle_is_verified_by_somebody_who_has_nothing_else() {
    let desk = Desk::new();
    let page = desk.dir.path().join("report.html");
    let recorded = desk.golden.checkpoint();
    let answer = desk.verify_with(|_| (), &["--since", text(&recorded), "--html", text(&page)]);
    assert_eq!(answer.code, Some(0), "{} {}", answer.report, answer.error);
    let log = &answer.report["log"];
    assert_eq!((&answer.report["verdict"], &log["continues"]), (&json!("verified"), &json!(desk.golden.expected.size)));
    // Three witnesses of the genesis, and what releases and renewals rest on.
    assert!(log["evidence_verified"].as_u64() > Some(4), "{log}");
    let released = &log["released"];
    assert_eq!(released["total"]["releases"], 4, "{released}");
    // The guest that was recorded last and the one before, under another rule.
    assert_eq!(released["by_platform"].as_object().map(serde_json::Map::len), Some(2), "{released}");
    let code = released["by_code"].as_object().expect("an object");
    assert!(code.len() == 2 && code.keys().all(|code| code.starts_with("PCRs 0 2 4 7 9 11 of sha256:")), "{released}");
    assert!(log["denied"].as_object().is_some_and(|denied| !denied.is_empty()), "{log}");
    let html = fs::read_to_string(page).expect("the page was written");
    assert!(html.contains("VERIFIED") && html.contains("<svg") && !html.contains("<script"), "{html}");
}

#[test]
fn each_change_to_a_bundle_has_its_own_exit_code() {
    let desk = Desk::new();
    let release = desk.release();
    let (evidence, binding) = (&release["entry"]["evidence"], &release["entry"]["binding"]);
    let code = |change: &dyn Fn(&Path)| {
        let answer = desk.verify_with(change, &[]);
        let fault = answer.report["fault"]["code"].as_str().or(answer.error["code"].as_str());
        (answer.code, fault.unwrap_or("").to_owned())
    };
    let is = |code: i32, name: &str| (Some(code), name.to_owned());

    assert_eq!(code(&|_| ()), is(0, ""));
    assert_eq!(code(&|dir| flip(&dir.join("checkpoint"), 200)).0, Some(10));
    assert_eq!(code(&|dir| flip(&entries(dir), 900)), is(11, "log-root-mismatch"));
    assert_eq!(
        code(&|dir| flip(&fs::read_dir(dir.join("tile/0/000.p")).unwrap().next().unwrap().unwrap().path(), 70)),
        is(11, "tile-mismatch")
    );
    assert_eq!(code(&|dir| fs::remove_dir_all(dir.join("tile/0")).unwrap()), is(11, "tile-mismatch"));
    assert_eq!(code(&|dir| fs::remove_file(entries(dir)).unwrap()), is(1, "file"));
    assert_eq!(code(&|dir| fs::remove_file(blob(dir, evidence)).unwrap()), is(14, ""));
    // A file under another's name is not that file.
    assert_eq!(code(&|dir| fs::rename(blob(dir, binding), blob(dir, evidence)).unwrap()), is(14, ""));
    assert_eq!(code(&|dir| flip(&blob(dir, evidence), 40)), is(14, ""));
    assert_eq!(code(&|dir| fs::remove_file(dir.join("bundle.json")).unwrap()), is(2, "not-a-bundle"));
    assert_eq!(code(&|dir| fs::write(dir.join("bundle.json"), "{}").unwrap()), is(2, "bundle-malformed"));
}

#[test]
fn what_a_hostile_folder_holds_is_bounded_and_never_followed() {
    let desk = Desk::new();
    let release = desk.release();
    let evidence = &release["entry"]["evidence"];
    let secret = desk.dir.path().join("elsewhere");
    fs::write(&secret, "not for the auditor").unwrap();
    let linked = desk.verify_with(
        |dir| {
            fs::remove_file(dir.join("checkpoint")).unwrap();
            symlink(&secret, dir.join("checkpoint")).unwrap();
        },
        &[],
    );
    assert_eq!((linked.code, &linked.error["code"]), (Some(1), &json!("file")), "{}", linked.error);
    let endless = desk.verify_with(
        |dir| {
            fs::remove_file(blob(dir, evidence)).unwrap();
            symlink("/dev/zero", blob(dir, evidence)).unwrap();
        },
        &[],
    );
    assert_eq!(endless.code, Some(14));
    let large = desk
        .verify_with(|dir| fs::File::options().write(true).open(entries(dir)).unwrap().set_len(1 << 33).unwrap(), &[]);
    assert_eq!((large.code, &large.error["code"]), (Some(1), &json!("file")), "{}", large.error);
}

#[test]
fn an_older_checkpoint_tells_a_log_that_was_cut_and_one_of_another_vault() {
    let desk = Desk::new();
    let older = desk.dir.path().join("older");
    // The log of the run grew by an entry; the recorded bundle is what it was before.
    let newest = desk.dir.path().join("newest");
    let written = desk.vaultctl(&["log", "checkpoint", "--out", text(&newest)]);
    assert_eq!(written.code, Some(0), "{}", written.error);
    let cut = desk.vaultctl(&["audit", "export", "--out", text(&older)]);
    assert_eq!(cut.code, Some(0));
    assert_eq!(desk.auditor(&older, &["--since", text(&newest)]).code, Some(0));
    // An older state of the host: as recorded.
    let recorded = fs::read_to_string(desk.golden.checkpoint()).unwrap();
    let changed = desk.verify_with(|dir| fs::write(dir.join("checkpoint"), &recorded).unwrap(), &[]);
    assert_eq!((changed.code, &changed.error["code"]), (Some(2), &json!("bundle-malformed")), "{}", changed.error);
    let other = desk.verify_with(
        |dir| {
            let index = fs::read_to_string(dir.join("bundle.json")).unwrap();
            let mut index: Value = serde_json::from_str(&index).unwrap();
            index["vault"] = json!(format!("sha256:{}", "5".repeat(64)));
            fs::write(dir.join("bundle.json"), index.to_string()).unwrap();
        },
        &[],
    );
    assert_eq!((other.code, &other.error["code"]), (Some(2), &json!("bundle-other-vault")));
}

#[test]
fn a_span_of_evidence_leaves_named_gaps_and_a_bundle_is_written_once() {
    let desk = Desk::new();
    let release = desk.release();
    let index = release["index"].as_u64().expect("an index");
    let part = desk.dir.path().join("part");
    let from = (index + 1).to_string();
    let exported = desk.vaultctl(&["audit", "export", "--out", text(&part), "--from", &from]);
    assert_eq!((exported.code, &exported.report["evidence_from"]), (Some(0), &json!(index + 1)), "{}", exported.error);
    let answer = desk.auditor(&part, &[]);
    assert_eq!((answer.code, &answer.report["verdict"]), (Some(14), &json!("gaps")));
    let gaps = answer.report["log"]["gaps"]["first"].as_array().expect("a list").clone();
    assert!(gaps.iter().any(|gap| gap["index"] == index) && gaps.iter().all(|gap| gap["left_out"] == true), "{gaps:?}");
    let again = desk.vaultctl(&["audit", "export", "--out", text(&part)]);
    assert_eq!((again.code, &again.error["code"]), (Some(2), &json!("bundle-exists")));
    // One that was interrupted is gone on with.
    fs::remove_file(part.join("bundle.json")).unwrap();
    assert_eq!(desk.vaultctl(&["audit", "export", "--out", text(&part)]).code, Some(0));
    assert_eq!(desk.auditor(&part, &[]).code, Some(0));
    fs::remove_file(part.join("bundle.json")).unwrap();
    fs::write(part.join("mine.txt"), "").unwrap();
    let mixed = desk.vaultctl(&["audit", "export", "--out", text(&part)]);
    assert_eq!((mixed.code, &mixed.error["code"]), (Some(2), &json!("folder-not-empty")));
}
