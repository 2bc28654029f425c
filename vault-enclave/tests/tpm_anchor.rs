//! Head and counter against real software TPMs: every cut is repaired, every older copy refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod tpm_support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use attestation::Sha256Digest;
use ring::rand::SystemRandom;
use tempfile::{TempDir, tempdir};
use tpm_support::link::{self, Fault, Link, Then};
use tpm_support::{SoftTpm, pcrs, raw};
use vault_enclave::derive::KeeperContext;
use vault_enclave::head::{Anchor, AnchorError, AntiRollback};
use vault_enclave::keeper_dir::KeeperDir;
use vault_enclave::root;
use vault_enclave::secret::Root;
use vault_enclave::tpm::{Tpm, TpmError};

/// A keeper's machine and directory, from one start to the next.
struct Machine {
    dir: TempDir,
    soft: SoftTpm,
}

impl Machine {
    fn new() -> Self {
        let dir = tempdir().unwrap();
        let soft = SoftTpm::start(&dir.path().join("tpm"));
        Self { dir, soft }
    }

    /// A machine whose keeper has been through the ceremony and `commits` commits.
    fn with_commits(commits: u64) -> Self {
        let machine = Self::new();
        let mut anchor = machine.create(AntiRollback::Counter);
        for size in 1..=commits {
            anchor.commit(size, merkle(size)).unwrap();
        }
        machine
    }

    fn keeper(&self) -> PathBuf {
        self.dir.path().join("keeper")
    }

    fn head(&self) -> PathBuf {
        self.keeper().join("head")
    }

    /// A copy of the keeper's directory as it is now.
    fn copy(&self, name: &str) -> PathBuf {
        let copy = self.dir.path().join(name);
        std::fs::create_dir(&copy).unwrap();
        for file in ["root.json", "head"] {
            std::fs::copy(self.keeper().join(file), copy.join(file)).unwrap();
        }
        copy
    }

    fn create(&self, anti_rollback: AntiRollback) -> Anchor {
        let tpm = self.soft.connect();
        let dir = Arc::new(KeeperDir::open(&self.keeper()).unwrap());
        let root = root::create(&dir, root::Seal::Tpm(&tpm), pcrs(), &SystemRandom::new()).unwrap().root;
        Anchor::create(dir, tpm, &root, anti_rollback, None).unwrap()
    }

    /// A start of the keeper.
    fn open(&self) -> Result<Anchor, AnchorError> {
        open(&self.keeper(), self.soft.connect())
    }

    fn refusal(&self) -> AnchorError {
        self.open().err().expect("the keeper starts")
    }

    /// A start of the keeper over a wire that can fail.
    fn open_over(&self, link: &Link) -> Anchor {
        open(&self.keeper(), Tpm::open(link.tcti().parse().unwrap()).unwrap()).unwrap()
    }
}

fn open(keeper: &Path, tpm: Tpm) -> Result<Anchor, AnchorError> {
    let dir = Arc::new(KeeperDir::open(keeper).unwrap());
    let root: Root = root::open(&dir, &tpm, None).unwrap().root;
    Anchor::open(dir, tpm, &root)
}

/// Any root: the anchor compares, it does not compute.
fn merkle(size: u64) -> [u8; 32] {
    *Sha256Digest::of(&size.to_be_bytes()).as_bytes()
}

#[test]
fn a_restart_finds_the_last_commit() {
    let machine = Machine::new();
    let mut anchor = machine.create(AntiRollback::Counter);
    assert_eq!((anchor.size(), anchor.root()), (0, Sha256Digest::of(b"")));
    let context = KeeperContext { instance: [3; 32], core: Sha256Digest::of(b"core") };
    anchor.give_core(context).unwrap();
    anchor.commit(1, merkle(1)).unwrap();
    anchor.commit(5, merkle(5)).unwrap();
    assert!(matches!(anchor.give_core(context), Err(AnchorError::NotEmpty)));
    drop(anchor);

    let mut anchor = machine.open().unwrap();
    assert_eq!((anchor.size(), anchor.root().as_bytes()), (5, &merkle(5)));
    assert_eq!(anchor.context(), Some(context));
    assert!(anchor.is_counted());
    // start, then a head with the same root: only then may it serve.
    assert_eq!((anchor.counted_commits(), anchor.may_serve()), (0, false));
    anchor.commit(6, merkle(6)).unwrap();
    assert_eq!((anchor.counted_commits(), anchor.may_serve()), (1, false));
    anchor.commit(6, merkle(6)).unwrap();
    assert_eq!((anchor.counted_commits(), anchor.may_serve()), (2, true));
}

#[test]
fn a_log_that_does_not_follow_the_committed_one_is_refused_and_changes_nothing() {
    let machine = Machine::with_commits(3);
    let mut anchor = machine.open().unwrap();
    for (size, root) in [(2, merkle(2)), (3, merkle(4)), (0, merkle(0))] {
        assert!(matches!(anchor.commit(size, root), Err(AnchorError::LogShrinks { committed: 3, .. })));
    }
    anchor.commit(3, merkle(3)).unwrap();
    assert_eq!(anchor.counted_commits(), 1);
}

#[test]
fn an_older_head_is_refused_however_little_older() {
    let machine = Machine::with_commits(2);
    let old = std::fs::read(machine.head()).unwrap();
    let mut anchor = machine.open().unwrap();
    anchor.commit(3, merkle(3)).unwrap();
    let new = std::fs::read(machine.head()).unwrap();
    drop(anchor);
    std::fs::write(machine.head(), &old).unwrap();
    let error = machine.refusal();
    assert!(matches!(error, AnchorError::OlderState { head, counter } if counter == head + 1), "{error}");

    std::fs::write(machine.head(), &new).unwrap();
    let mut anchor = machine.open().unwrap();
    anchor.commit(3, merkle(3)).unwrap();
    drop(anchor);
    for older in [&old, &new] {
        std::fs::write(machine.head(), older).unwrap();
        assert_eq!(machine.refusal().code(), "state-older-than-counter");
    }
}

#[test]
fn a_copy_of_the_directory_is_refused_after_a_further_commit() {
    let machine = Machine::with_commits(1);
    let copy = machine.copy("copy");
    machine.open().unwrap().commit(2, merkle(2)).unwrap();
    assert_eq!(open(&copy, machine.soft.connect()).err().unwrap().code(), "state-older-than-counter");
    machine.open().unwrap();
}

#[test]
fn a_cut_between_head_and_counter_is_finished_at_the_next_start() {
    for (fault, then) in [(Fault::CommandLost, Then::Works), (Fault::CommandLost, Then::Dead)] {
        let machine = Machine::with_commits(1);
        let link = Link::to(machine.soft.port());
        let mut anchor = machine.open_over(&link);
        link.arm(link::NV_INCREMENT, 0, fault, then);
        assert!(matches!(anchor.commit(2, merkle(2)), Err(AnchorError::Tpm(_))), "{then:?}");
        assert!(matches!(anchor.commit(2, merkle(2)), Err(AnchorError::Stopped)));
        assert_eq!((anchor.size(), anchor.may_serve()), (1, false));
        assert_eq!(link.sent(link::NV_INCREMENT), 0);
        drop(anchor);
        let mut anchor = machine.open().unwrap();
        assert_eq!((anchor.size(), anchor.counted_commits()), (2, 0), "{then:?}");
        anchor.commit(3, merkle(3)).unwrap();
    }
}

#[test]
fn a_cut_after_the_counter_leaves_a_state_that_fits() {
    for code in [link::NV_INCREMENT, link::NV_READ] {
        let machine = Machine::with_commits(1);
        let link = Link::to(machine.soft.port());
        let mut anchor = machine.open_over(&link);
        // The first read of a commit comes before the increment, the second after it.
        let skip = u32::from(code == link::NV_READ);
        link.arm(code, skip, Fault::AnswerLost, Then::Dead);
        assert!(matches!(anchor.commit(2, merkle(2)), Err(AnchorError::Tpm(_))));
        drop(anchor);
        assert_eq!(machine.open().unwrap().size(), 2);
    }
}

#[test]
fn a_count_that_may_be_a_copys_is_not_taken_for_the_keepers() {
    // The TPM did count, but the keeper cannot tell that from a copy of itself counting while its own command got lost.
    for (code, skip) in [(link::NV_INCREMENT, 0), (link::NV_READ, 1)] {
        let machine = Machine::with_commits(1);
        let link = Link::to(machine.soft.port());
        let mut anchor = machine.open_over(&link);
        link.arm(code, skip, Fault::AnswerLost, Then::Works);
        let error = anchor.commit(2, merkle(2)).unwrap_err();
        assert!(matches!(error, AnchorError::Tpm(TpmError::CounterUncertain)), "{error}");
        assert!(matches!(anchor.commit(2, merkle(2)), Err(AnchorError::Stopped)));
        drop(anchor);
        let anchor = machine.open_over(&link);
        assert_eq!((anchor.size(), anchor.may_serve()), (2, false));
    }
}

#[test]
fn what_fails_before_the_increment_is_asked_again() {
    let machine = Machine::with_commits(1);
    let link = Link::to(machine.soft.port());
    let mut anchor = machine.open_over(&link);
    for (size, code) in [(2, link::START_SESSION), (3, link::NV_READ)] {
        for fault in [Fault::CommandLost, Fault::AnswerLost] {
            link.arm(code, 0, fault, Then::Works);
            anchor.commit(size, merkle(size)).unwrap();
        }
    }
    assert_eq!(link.sent(link::NV_INCREMENT), 4, "one for each commit");
}

#[test]
fn a_cut_while_finishing_is_finished_later() {
    let machine = Machine::with_commits(1);
    let link = Link::to(machine.soft.port());
    let mut anchor = machine.open_over(&link);
    link.arm(link::NV_INCREMENT, 0, Fault::CommandLost, Then::Dead);
    anchor.commit(2, merkle(2)).unwrap_err();
    drop(anchor);
    for fault in [Fault::CommandLost, Fault::AnswerLost] {
        let link = Link::to(machine.soft.port());
        let tpm = Tpm::open(link.tcti().parse().unwrap()).unwrap();
        link.arm(link::NV_INCREMENT, 0, fault, Then::Dead);
        open(&machine.keeper(), tpm).err().unwrap();
    }
    assert_eq!(machine.open().unwrap().size(), 2);
}

#[test]
fn a_head_that_cannot_be_written_leaves_the_counter_alone() {
    let machine = Machine::with_commits(1);
    let mut anchor = machine.open().unwrap();
    std::fs::create_dir(machine.keeper().join("head.new")).unwrap();
    assert_eq!(anchor.commit(2, merkle(2)).unwrap_err().code(), "keeper-dir-io");
    assert_eq!(anchor.commit(2, merkle(2)).unwrap_err().code(), "keeper-stopped");
    drop(anchor);
    std::fs::remove_dir(machine.keeper().join("head.new")).unwrap();
    // What a crash in the middle of writing leaves.
    std::fs::write(machine.keeper().join("head.new"), "half").unwrap();
    let mut anchor = machine.open().unwrap();
    assert_eq!(anchor.size(), 1);
    anchor.commit(2, merkle(2)).unwrap();
}

#[test]
fn a_head_that_is_missing_damaged_or_another_keepers_is_refused() {
    let machine = Machine::with_commits(1);
    let head = std::fs::read(machine.head()).unwrap();
    for position in 0..head.len() {
        if position % 40 == 0 || position + 1 == head.len() {
            let mut damaged = head.clone();
            damaged[position] ^= 1;
            std::fs::write(machine.head(), damaged).unwrap();
            assert_eq!(machine.refusal().code(), "head-damaged", "byte {position}");
        }
    }
    std::fs::write(machine.head(), &head[..head.len() - 1]).unwrap();
    assert_eq!(machine.refusal().code(), "head-damaged");
    let other = machine.dir.path().join("other");
    let tpm = machine.soft.connect();
    let dir = Arc::new(KeeperDir::open(&other).unwrap());
    let root = root::create(&dir, root::Seal::Tpm(&tpm), pcrs(), &SystemRandom::new()).unwrap().root;
    drop(Anchor::create(dir, tpm, &root, AntiRollback::Counter, None).unwrap());
    std::fs::copy(other.join("head"), machine.head()).unwrap();
    assert_eq!(machine.refusal().code(), "head-damaged");
    std::fs::remove_file(machine.head()).unwrap();
    assert_eq!(machine.refusal().code(), "head-missing");
    open(&other, machine.soft.connect()).unwrap();
}

#[test]
fn a_counter_that_is_gone_replaced_or_counted_by_another_stops_the_keeper() {
    let machine = Machine::with_commits(1);
    let index = 0x0180_7700;
    let mut anchor = machine.open().unwrap();
    raw::undefine(machine.soft.port(), raw::OWNER, index);
    raw::undefine(machine.soft.port(), raw::OWNER, index + 1);
    let error = anchor.commit(2, merkle(2)).unwrap_err();
    assert!(matches!(error, AnchorError::Tpm(TpmError::CounterMissing)), "{error}");
    drop(anchor);
    assert!(matches!(machine.refusal(), AnchorError::Tpm(TpmError::CounterMissing)));
    // Another keeper's counter takes the free place; its name is even the same, but not its authorisation.
    let tpm = machine.soft.connect();
    let dir = Arc::new(KeeperDir::open(&machine.dir.path().join("other")).unwrap());
    let root = root::create(&dir, root::Seal::Tpm(&tpm), pcrs(), &SystemRandom::new()).unwrap().root;
    drop(Anchor::create(dir, tpm, &root, AntiRollback::Counter, None).unwrap());
    assert!(matches!(machine.refusal(), AnchorError::Tpm(TpmError::CounterReplaced)));
}

#[test]
fn a_copy_that_starts_stops_the_keeper() {
    let machine = Machine::with_commits(1);
    let mut keeper = machine.open().unwrap();
    let copy = machine.copy("copy");
    // A copy takes no heed of the keeper's lock on the TPM: over a wire it is another TPM to it.
    let passing_the_lock = || Tpm::open(Link::to(machine.soft.port()).tcti().parse().unwrap()).unwrap();
    drop(open(&copy, passing_the_lock()).unwrap());
    let error = keeper.commit(2, merkle(2)).unwrap_err();
    assert!(matches!(error, AnchorError::Tpm(TpmError::CounterClaimed)), "{error}");
    assert!(matches!(keeper.commit(2, merkle(2)), Err(AnchorError::Stopped)));
    drop(keeper);
    let mut keeper = machine.open().unwrap();
    open(&copy, passing_the_lock()).err().expect("the copy is older now");
    keeper.commit(3, merkle(3)).unwrap();
}

/// What a run signs between two commits it signs only while it has the counter: a copy that its host started meanwhile may
/// have decided otherwise.
#[test]
fn a_run_that_another_one_took_the_place_of_finds_that_out_before_its_next_commit() {
    let machine = Machine::with_commits(1);
    let mut keeper = machine.open().unwrap();
    keeper.commit(2, merkle(2)).unwrap();
    keeper.check_run().unwrap();
    keeper.commit(3, merkle(3)).unwrap();
    keeper.check_run().unwrap();

    let copy = machine.copy("copy");
    let link = Link::to(machine.soft.port());
    let mut other = open(&copy, Tpm::open(link.tcti().parse().unwrap()).unwrap()).unwrap();
    let error = keeper.check_run().unwrap_err();
    assert!(matches!(error, AnchorError::Tpm(TpmError::CounterClaimed)), "{error}");
    assert!(matches!(keeper.check_run(), Err(AnchorError::Stopped)));
    assert!(matches!(keeper.commit(4, merkle(4)), Err(AnchorError::Stopped)));
    // The one that has it goes on.
    other.check_run().unwrap();
    other.commit(4, merkle(4)).unwrap();
    other.commit(5, merkle(5)).unwrap();
    link.arm(link::NV_READ, 0, Fault::AnswerLost, Then::Works);
    other.check_run().unwrap();
    // A TPM that gives no answer says nothing of another run, and is no reason to sign.
    link.arm(link::NV_READ, 0, Fault::CommandLost, Then::Dead);
    let error = other.check_run().unwrap_err();
    assert!(!matches!(error, AnchorError::Stopped | AnchorError::Tpm(TpmError::CounterClaimed)), "{error}");
    assert!(other.may_serve());
}

/// A copy writes a head and is killed before it counts, the keeper counts, and so on: the copy's heads keep up with the
/// counter while it never counts. Without the register the copy could take over at any later time, and everything that
/// the keeper did meanwhile would be undone.
#[test]
fn a_copy_cannot_keep_up_with_a_keeper_that_serves() {
    let machine = Machine::with_commits(1);
    let copy = machine.copy("copy");
    let shadow = || {
        let link = Link::to(machine.soft.port());
        let tpm = Tpm::open(link.tcti().parse().unwrap()).unwrap();
        let mut anchor = open(&copy, tpm)?;
        link.arm(link::NV_INCREMENT, 0, Fault::CommandLost, Then::Dead);
        let size = anchor.size() + 1;
        anchor.commit(size, merkle(1000 + size)).unwrap_err();
        Ok::<_, AnchorError>(())
    };
    shadow().unwrap();
    let mut keeper = machine.open().unwrap();
    keeper.commit(2, merkle(2)).unwrap();
    // The copy's head, written before this run, fits the counter now. It starts, but then the keeper does not get to serve.
    shadow().unwrap();
    keeper.commit(3, merkle(3)).unwrap_err();
    assert!(!keeper.may_serve());
    drop(keeper);
    let mut keeper = machine.open().unwrap();
    keeper.commit(4, merkle(4)).unwrap();
    keeper.commit(4, merkle(4)).unwrap();
    assert!(keeper.may_serve());
    assert_eq!(shadow().unwrap_err().code(), "state-older-than-counter");
    keeper.commit(5, merkle(5)).unwrap();
}

#[test]
fn a_head_beside_another_tpm_is_refused() {
    let (machine, other) = (Machine::with_commits(1), Machine::new());
    let dir = Arc::new(KeeperDir::open(&machine.keeper()).unwrap());
    let root = root::open(&dir, &machine.soft.connect(), None).unwrap().root;
    let refused = Anchor::open(Arc::clone(&dir), other.soft.connect(), &root).err().unwrap();
    assert!(matches!(refused, AnchorError::OtherTpm), "{refused}");
    assert_eq!(Anchor::open(dir, machine.soft.connect(), &root).unwrap().size(), 1);
}

#[test]
fn a_tpm_that_was_itself_set_back_is_noticed_unless_by_one() {
    let machine = Machine::with_commits(1);
    let Machine { dir, soft } = machine;
    drop(soft);
    let nvram = dir.path().join("tpm/nvram/tpm2-00.permall");
    let old = std::fs::read(&nvram).unwrap();
    let machine = Machine { soft: SoftTpm::start(&dir.path().join("tpm")), dir };
    let mut anchor = machine.open().unwrap();
    for size in 2..=3 {
        anchor.commit(size, merkle(size)).unwrap();
    }
    drop(anchor);
    let Machine { dir, soft } = machine;
    drop(soft);
    std::fs::write(&nvram, old).unwrap();
    let machine = Machine { soft: SoftTpm::start(&dir.path().join("tpm")), dir };
    let error = machine.refusal();
    assert!(matches!(error, AnchorError::CounterBehind { head, counter } if head == counter + 2), "{error}");
}

#[test]
fn without_a_counter_an_older_copy_starts_and_the_head_says_so() {
    let machine = Machine::new();
    let mut anchor = machine.create(AntiRollback::None);
    let old = std::fs::read(machine.head()).unwrap();
    anchor.commit(1, merkle(1)).unwrap();
    assert!(!anchor.is_counted());
    drop(anchor);
    assert_eq!(machine.open().unwrap().size(), 1);
    std::fs::write(machine.head(), old).unwrap();
    let anchor = machine.open().unwrap();
    assert_eq!((anchor.size(), anchor.is_counted()), (0, false));
}

/// Names the keeper directory and the TPM of [`commits_until_killed`], where it is run to be killed.
const VICTIM: &str = "TPM_ANCHOR_VICTIM";

#[test]
fn a_keeper_killed_at_any_moment_starts_again_where_it_was() {
    let machine = Machine::with_commits(0);
    let mut size = 0;
    for round in 0..12_u64 {
        let before = std::fs::read(machine.head()).unwrap();
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "commits_until_killed", "--nocapture"])
            .env(VICTIM, format!("{} {}", machine.keeper().display(), machine.soft.tcti()))
            .env("TSS2_LOG", "all+none")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Half of them are killed wherever they are by then, the others while they commit, however slow the machine is.
        let commits = round % 2 == 1;
        let begun = Instant::now();
        while commits && std::fs::read(machine.head()).unwrap() == before {
            assert!(begun.elapsed() < Duration::from_secs(60), "it commits nothing");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(if commits { 3 * round } else { 60 + 7 * round }));
        victim.kill().unwrap();
        victim.wait().unwrap();
        let anchor = machine.open().unwrap();
        assert!(anchor.size() >= size, "round {round}");
        size = anchor.size();
        let expected = if size == 0 { *Sha256Digest::of(b"").as_bytes() } else { merkle(size) };
        assert_eq!(anchor.root().as_bytes(), &expected);
    }
    assert!(size > 0, "it was killed each time before it could commit anything");
}

#[test]
fn commits_until_killed() {
    let Ok(victim) = std::env::var(VICTIM) else { return };
    let (keeper, tcti) = victim.split_once(' ').unwrap();
    let mut anchor = open(Path::new(keeper), Tpm::open(tcti.parse().unwrap()).unwrap()).unwrap();
    loop {
        let next = anchor.size() + 1;
        anchor.commit(next, merkle(next)).unwrap();
    }
}
