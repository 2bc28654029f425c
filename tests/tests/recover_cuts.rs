//! A recovery that is cut short: before the new keeper has counted its first head it is done again, after that it goes on.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use vault_tests::escrow::{self, approve, contribute, recovering};
use vault_tests::newcomer::Newcomer;
use vault_tests::relay::{self, Gate, Way};
use vault_tests::world::APPROVERS;
use vault_tests::{Guest, World, run, run_ok};

/// TPM2_NV_Increment (TPM 2.0 Part 2, table 12).
const NV_INCREMENT: [u8; 4] = [0, 0, 1, 0x34];
/// In the entries that the new keeper begins with.
const RECOVER: &[u8] = br#""type":"recover""#;

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    run_ok(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// Where the recovering keeper is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Its disk refuses this file.
    File(&'static str),
    /// It is killed in the place of its n-th increment, from 1.
    Increment(u32),
    /// Its TPM has counted the n-th time, and the answer is lost.
    Counted(u32),
    /// Its entries are with the host, which could not say so.
    Appended,
}

/// Kills a process at an increment of its TPM.
#[derive(Default)]
struct Knife(Mutex<State>);

#[derive(Default)]
struct State {
    armed: Option<(Pid, Cut)>,
    sent: u32,
    answered: u32,
    appended: bool,
}

impl Knife {
    fn arm(&self, pid: u32, cut: Cut) {
        let pid = Pid::from_raw(pid.try_into().expect("a process id")).expect("a process id");
        *self.lock() = State { armed: Some((pid, cut)), ..State::default() };
    }

    fn link(self: &Arc<Self>) -> Gate {
        let knife = Arc::clone(self);
        Arc::new(move |way, bytes| {
            let mut state = knife.lock();
            let is_data = bytes.get(3) == Some(&0);
            match way {
                Way::Down if bytes.windows(RECOVER.len()).any(|part| part == RECOVER) => {
                    state.appended = true;
                    true
                }
                Way::Up if state.appended && is_data => state.strike(Cut::Appended),
                Way::Up | Way::Down => true,
            }
        })
    }

    fn tpm(self: &Arc<Self>) -> Gate {
        let knife = Arc::clone(self);
        Arc::new(move |way, bytes| {
            let mut state = knife.lock();
            let here = match way {
                Way::Up if bytes.get(6..10) == Some(&NV_INCREMENT) => {
                    state.sent += 1;
                    Cut::Increment(state.sent)
                }
                Way::Down if state.sent > state.answered => {
                    state.answered = state.sent;
                    Cut::Counted(state.answered)
                }
                Way::Up | Way::Down => return true,
            };
            state.strike(here)
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether what comes by may go on.
    fn strike(&mut self, here: Cut) -> bool {
        match self.armed {
            Some((pid, cut)) if cut == here => {
                self.armed = None;
                kill_process(pid, Signal::KILL).expect("it is a process that this test started");
                false
            }
            Some(_) | None => true,
        }
    }
}

/// Approvals and shares; how the last of them ends.
fn give(world: &World) -> (Option<i32>, String) {
    for approver in &APPROVERS[..2] {
        run_ok(&mut approve(world, approver));
    }
    run_ok(&mut contribute(world, 1, "notary"));
    run(&mut contribute(world, 1, "safe"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_is_cut_short_is_done_again_or_goes_on() {
    let mut world = World::open();
    world.publish("1");
    escrow::split(&world, 1);
    drop(world.keeper.take());
    drop(world.host.take());
    drop(world.keeper_tpm.take());
    copy(&world.path("host"), &world.path("host-before"));
    // The first increment counts the head of the log that it goes on from; the second, that its own entries are in the log.
    let cuts = [
        (Cut::File("vault-keys.new"), false),
        (Cut::File("recovery.new"), false),
        (Cut::File("head.new"), false),
        (Cut::Increment(1), true),
        (Cut::Counted(1), true),
        (Cut::Appended, true),
        (Cut::Increment(2), true),
        (Cut::Counted(2), true),
    ];
    for (number, (cut, goes_on)) in cuts.into_iter().enumerate() {
        copy(&world.path("host-before"), &world.path("host"));
        let mut newcomer = Newcomer::new(&world, &format!("b{number}"));
        let knife = Arc::new(Knife::default());
        let tpm = newcomer.tpm.as_ref().expect("it is on").tcti.clone();
        newcomer.tcti = Some(relay::tpm(&tpm, knife.tpm()));
        let link = world.path("link.sock");
        let _ = fs::remove_file(&link);
        relay::unix(&link, &world.path("keeper.sock"), knife.link());
        world.keeper_link = Some(link);
        let mut keeper = recovering(&world, &newcomer, &["--accept-rollback"]);
        keeper.wait_for("keeper started");
        world.start_host();
        keeper.wait_for("shares and approvals may come");
        let in_the_way = match cut {
            Cut::File(name) => {
                let path = newcomer.dir(&world).join(name);
                fs::create_dir(&path).expect("the directory is ours");
                Some(path)
            }
            Cut::Increment(_) | Cut::Counted(_) | Cut::Appended => {
                knife.arm(keeper.pid(), cut);
                None
            }
        };
        let (code, said) = give(&world);
        match &in_the_way {
            Some(path) => {
                assert!(code != Some(0) && said.contains("keeper-dir-io"), "{cut:?}: {said}");
                fs::remove_dir(path).expect("the directory is ours");
                keeper.kill();
            }
            None => {
                let (code, log) = keeper.wait();
                assert!(code.is_none(), "{cut:?}: {log}");
            }
        }
        newcomer.tcti = None;
        let mut keeper = recovering(&world, &newcomer, &["--accept-rollback"]);
        if goes_on {
            keeper.wait_for("the vault is open");
        } else {
            keeper.wait_for("shares and approvals may come");
            let (code, said) = give(&world);
            assert_eq!(code, Some(0), "{cut:?}: {said}");
            keeper.wait_for("the vault is open");
        }
        let said = run_ok(world.vaultctl().args(["log", "verify"]));
        assert!(said.contains("Verified:"), "{cut:?}: {said}");
        let log = run_ok(world.vaultctl().args(["log", "show"]));
        assert_eq!(log.matches("ROLLBACK ACCEPTED").count(), 1, "{cut:?}: {log}");
        let mut guest = Guest::new(&world).await;
        guest.load().await.expect("a grant");
        assert!(!newcomer.dir(&world).join("recovery").exists(), "{cut:?}");
        keeper.kill();
        drop(world.host.take());
    }
}
