//! A host that shows each keeper a log of its own, and older copies of what a keeper keeps.

use vault_tests::Guest;
use vault_tests::process::copy;
use vault_tests::two::{Forked, Two, grants};

use super::{count, log, release};

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_forks_the_log_between_two_keepers_gets_one_of_them_cosigned() {
    let mut two = Two::open();
    release(&two.world).await;
    two.world.host.take().expect("it runs").terminate();
    copy(&two.world.path("host"), &two.world.path("host-fork"));
    let sockets = [two.world.path("keeper.sock"), two.world.path("keeper-b.sock")];
    two.world.host_keeper = Some(format!("keeper = \"unix:{}\"\n", sockets[0].display()));
    two.world.start_host();
    let forked = Forked::start(&two.world, &sockets[1]);
    // Both are asked at once, and each sees nothing of the other's log.
    let (urls, two) = ([two.world.url(), forked.url.clone()], two);
    let (first, second) = tokio::join!(grants(&two.world, &urls[0], 8), grants(&two.world, &urls[1], 8));
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
