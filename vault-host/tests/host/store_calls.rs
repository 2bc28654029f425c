use std::time::Duration;

use attestation::Sha256Digest;
use vault_proto::v1::{AppendLog, store_call};

use crate::audit::{checkpoint, entries};
use crate::keeper::Keeper;
use crate::setup::{Place, RunningHost, host_and_keeper};

#[tokio::test]
async fn a_keeper_reads_what_it_wrote_also_over_the_next_stream_and_after_a_restart() {
    let place = Place::new();
    let (host, mut keeper) = host_and_keeper(&place, |_| None).await;
    keeper.append(0, &entries(0..600)).await.unwrap();
    keeper.put_checkpoint(&checkpoint(&entries(0..600)), 600).await.unwrap();
    keeper.append(600, &entries(600..610)).await.unwrap();
    let digest = Sha256Digest::of(b"evidence");
    keeper.put_blob(digest.as_bytes(), b"evidence").await.unwrap();

    keeper.end_stream();
    keeper.attached_times(2).await;
    assert_eq!(keeper.read(0, 4096).await.unwrap(), entries(0..610));
    host.stop().await;

    let host = RunningHost::start(&place.config("")).await;
    keeper.attached_times(3).await;
    assert_eq!(keeper.read(599, 5).await.unwrap(), entries(599..604));
    assert_eq!(keeper.read(610, 5).await.unwrap(), entries(0..0));
    assert_eq!(keeper.blob(digest.as_bytes()).await.unwrap(), b"evidence");
    host.stop().await;
}

#[tokio::test]
async fn what_the_store_refuses_comes_back_with_its_code_and_the_stream_lives_on() {
    let place = Place::new();
    let (_host, keeper) = host_and_keeper(&place, |_| None).await;
    keeper.append(0, &entries(0..5)).await.unwrap();
    keeper.put_checkpoint(&checkpoint(&entries(0..5)), 5).await.unwrap();
    let code = |result: Result<(), String>| result.unwrap_err().split(':').next().unwrap().to_owned();
    assert_eq!(code(keeper.append(6, &entries(6..7)).await), "log-gap");
    assert_eq!(code(keeper.append(4, &entries(4..5)).await), "log-under-checkpoint");
    assert_eq!(code(keeper.append(5, &[vec![0; 16385]]).await), "log-entry-size");
    assert_eq!(code(keeper.append(5, &vec![vec![0; 16384]; 600]).await), "store-call-too-large");
    assert_eq!(code(keeper.put_checkpoint("x", 5).await), "checkpoint-form");
    assert_eq!(code(keeper.put_checkpoint(&checkpoint(&entries(0..6)), 6).await), "checkpoint-size");
    assert_eq!(code(keeper.put_checkpoint(&checkpoint(&entries(1..6)), 5).await), "checkpoint-root");
    assert_eq!(code(keeper.put_blob(&[1; 32], b"other").await), "digest-mismatch");
    assert_eq!(code(keeper.put_blob(b"../../etc/passwd", b"other").await), "digest-mismatch");
    assert_eq!(code(keeper.blob(&[1; 32]).await.map(drop)), "not-found");
    assert_eq!(code(keeper.read(0, 5000).await.map(drop)), "store-call-too-large");
    assert_eq!(keeper.read(0, 10).await.unwrap(), entries(0..5));
}

#[tokio::test]
async fn log_calls_run_in_the_order_they_came() {
    let place = Place::new();
    let (_host, keeper) = host_and_keeper(&place, |_| None).await;
    let mut begun = Vec::new();
    for first in 0..50 {
        let call = AppendLog { first, entries: entries(first..first + 1) };
        begun.push(keeper.begin_store(store_call::Call::AppendLog(call)).await);
    }
    for answered in begun {
        answered.await.unwrap();
    }
    assert_eq!(keeper.read(0, 100).await.unwrap(), entries(0..50));
}

#[tokio::test]
async fn store_calls_of_a_dead_stream_never_land_on_the_next_one() {
    let place = Place::new();
    let (_host, mut keeper) = host_and_keeper(&place, |_| None).await;
    for round in 1..6 {
        let size = keeper.read(0, 4096).await.unwrap().len() as u64;
        // A keeper that dies in the middle of its work: whatever of this lands, lands before the next stream begins.
        for offset in 0..30 {
            let call = AppendLog { first: size + offset, entries: vec![b"late".to_vec()] };
            drop(keeper.begin_store(store_call::Call::AppendLog(call)).await);
        }
        keeper.end_stream();
        keeper.attached_times(round + 1).await;
        let seen = keeper.read(0, 4096).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(keeper.read(0, 4096).await.unwrap(), seen);
    }
}

#[tokio::test]
async fn a_full_disk_is_reported_and_what_was_stored_stays() {
    let Some(disk) = SmallDisk::mount(3 << 20) else { return };
    let place = Place::new();
    let config = crate::setup::config(&disk.0.path().join("data"), &place.keeper_socket(), "");
    let mut keeper = Keeper::start(&place.keeper_socket(), |_| None);
    let host = RunningHost::start(&config).await;
    keeper.attached().await;
    keeper.append(0, &entries(0..10)).await.unwrap();
    keeper.put_checkpoint(&checkpoint(&entries(0..10)), 10).await.unwrap();
    let full = keeper.append(10, &vec![vec![7; 16384]; 400]).await.unwrap_err();
    assert!(full.starts_with("disk-full"), "{full}");
    let blob = vec![7; 4 << 20];
    let full = keeper.put_blob(Sha256Digest::of(&blob).as_bytes(), &blob).await.unwrap_err();
    assert!(full.starts_with("disk-full"), "{full}");
    assert_eq!(keeper.read(0, 4096).await.unwrap(), entries(0..10));
    keeper.append(10, &entries(10..12)).await.unwrap();
    keeper.put_checkpoint(&checkpoint(&entries(0..12)), 12).await.unwrap();
    host.stop().await;
    let _host = RunningHost::start(&config).await;
    keeper.attached_times(2).await;
    assert_eq!(keeper.read(0, 4096).await.unwrap(), entries(0..12));
}

/// A file system of a few MiB.
pub struct SmallDisk(pub tempfile::TempDir);

impl SmallDisk {
    /// `None`, and a line that says so, where this user may not mount one.
    pub fn mount(bytes: usize) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(dir.path())
            .output();
        if !mount.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: only root can mount a small disk");
            return None;
        }
        Some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
