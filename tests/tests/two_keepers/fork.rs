//! A host that shows each keeper a log of its own, and older copies of what a keeper keeps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ledger::checkpoint::LogVerifier;
use tokio::task::JoinSet;
use vault_tests::{Guest, Running, binary, run_ok};

use super::live::Two;
use super::{count, log, release};

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    run_ok(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// A second host of the same adversary, with a copy of the first one's directory and one of the keepers.
struct Forked {
    host: Running,
    url: String,
}

impl Forked {
    fn start(two: &Two, keeper: &Path) -> Self {
        let (dir, socket) = (two.world.path("host-fork"), two.world.path("host-fork.sock"));
        let witnesses = two.world.witnesses.as_ref().expect("it has witnesses").host_config();
        let lines =
            [("data_dir", &dir), ("unix", &socket)].map(|(name, path)| format!("{name} = \"{}\"\n", path.display()));
        let config = format!("{}keeper = \"unix:{}\"\n{witnesses}", lines.concat(), keeper.display());
        let file: PathBuf = two.world.path("host-fork.toml");
        fs::write(&file, config).expect("the configuration can be written");
        let mut command = Command::new(binary("vault-host"));
        command.args(["serve", "--config"]).arg(&file);
        let mut host = Running::start(&mut command, &two.world.path("host-fork.log"));
        host.wait_for("attached to the keeper");
        Self { host, url: format!("unix:{}", socket.display()) }
    }
}

/// Size and root under every grant that was given, from either log.
async fn grants(two: &Two, url: &str, count: usize) -> Vec<(u64, Vec<u8>)> {
    let log = LogVerifier::of(two.world.vault_file().genesis());
    let mut loads = JoinSet::new();
    for _ in 0..count {
        let mut guest = Guest::at(url.to_owned(), &two.world.forge).await;
        loads.spawn(async move { guest.load().await.ok() });
    }
    let granted = loads.join_all().await.into_iter().flatten();
    let seen = granted.map(|grant| {
        let (_, note) = grant.log_proof.split_once("\n\n").expect("a proof ends with its checkpoint");
        let checkpoint = log.verify_checkpoint(note).expect("a quorum cosigned it");
        (checkpoint.size, checkpoint.root.to_vec())
    });
    seen.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_forks_the_log_between_two_keepers_gets_one_of_them_cosigned() {
    let mut two = Two::open();
    release(&two.world).await;
    two.world.host.take().expect("it runs").terminate();
    copy(&two.world.path("host"), &two.world.path("host-fork"));
    let sockets = [two.world.path("keeper.sock"), two.world.path("keeper-b.sock")];
    two.world.host_keeper = Some(format!("keeper = \"unix:{}\"\n", sockets[0].display()));
    two.world.start_host();
    let forked = Forked::start(&two, &sockets[1]);
    // Both are asked at once, and each sees nothing of the other's log.
    let (urls, two) = ([two.world.url(), forked.url.clone()], two);
    let (first, second) = tokio::join!(grants(&two, &urls[0], 8), grants(&two, &urls[1], 8));
    let mut seen = [first, second].concat();
    seen.sort();
    seen.dedup();
    assert!(!seen.is_empty(), "one of the two goes on");
    for pair in seen.windows(2) {
        assert_ne!(pair[0].0, pair[1].0, "two cosigned heads of one size");
    }
    // Whichever lost says so, and goes on once it sees the log that counts.
    let [first, second] = [two.world.keeper.as_ref(), two.second.as_ref()].map(|keeper| keeper.expect("it runs").log());
    let lost = |said: &str| {
        ["state-older-than-witnesses", "log-forked-from-witnesses", "witness-quorum-missing"]
            .iter()
            .any(|code| said.contains(code))
    };
    assert!(lost(&first) || lost(&second), "{first}\n{second}");
    drop(forked.host);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_one_keepers_directory_is_caught_up_and_never_goes_back() {
    let mut two = Two::open();
    release(&two.world).await;
    two.second.take().expect("it runs").terminate();
    let dir = two.newcomer.dir(&two.world);
    copy(&dir, &two.world.path("keeper-b-old"));
    two.start_second();
    two.wait_open();
    for _ in 0..4 {
        release(&two.world).await;
    }
    // Its own head says less than what it has signed; the log says more.
    two.second.take().expect("it runs").kill();
    copy(&two.world.path("keeper-b-old"), &dir);
    two.start_second();
    two.wait_open();
    for _ in 0..2 {
        release(&two.world).await;
    }
    let shown = log(&two.world);
    assert_eq!(count(&shown, " release "), 7, "{shown}");

    // With a copy of the host's directory from then it finds no witness.
    two.world.host.take().expect("it runs").terminate();
    two.world.keeper.take().expect("it runs").terminate();
    two.second.take().expect("it runs").kill();
    copy(&two.world.path("host"), &two.world.path("host-old"));
    two.world.start_keeper();
    two.start_second();
    two.world.start_host();
    two.wait_open();
    release(&two.world).await;
    two.world.host.take().expect("it runs").terminate();
    two.second.take().expect("it runs").kill();
    copy(&two.world.path("host"), &two.world.path("host-new"));
    copy(&two.world.path("host-old"), &two.world.path("host"));
    copy(&two.world.path("keeper-b-old"), &dir);
    two.start_second();
    two.world.start_host();
    two.second.as_mut().expect("it runs").wait_for("state-older-than-witnesses");
    let refused = Guest::new(&two.world).await.load().await.expect_err("neither serves an older log");
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    two.world.host.take().expect("it runs").terminate();
    copy(&two.world.path("host-new"), &two.world.path("host"));
    two.world.start_host();
    two.wait_open();
    let started = std::time::Instant::now();
    while Guest::new(&two.world).await.load().await.is_err() {
        assert!(started.elapsed().as_secs() < 60, "it does not go on");
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
}
