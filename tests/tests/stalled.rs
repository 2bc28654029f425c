//! Readers that stop reading: what they cost the host is bounded, and their places go to others.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};
use vault_proto::v1::vault_client::VaultClient;
use vault_proto::v1::{FetchUnitsRequest, FetchUnitsResponse, UnitRange};
use vault_tests::relay::{self, Hold, Way};
use vault_tests::sealed::loader;
use vault_tests::serve::wait_until;
use vault_tests::{Running, Sealed, signal};

/// HTTP/2's least window, and what it has room for.
const SMALL: u32 = (1 << 16) - 1;
const ALL: u32 = (1 << 31) - 1;
/// What a host says when it takes a place away.
const GIVEN_UP: &str = "closed a connection that stopped reading its answer";

#[test]
fn loader_that_stands_still_costs_the_host_no_memory_and_its_places_go_to_who_waits() {
    /// What a few streams have in their queues; the model has 96.
    const GROWTH_MIB_MAX: u64 = 32;
    const STOPPED_AFTER: u64 = 8 << 20;
    let mut scene = Sealed::of_size("96M");
    scene.limit_host("streams = 1");
    let between = scene.world.path("between.sock");
    let (came, load, stopped) = (AtomicU64::new(0), Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
    let (parent, stops) = (Arc::clone(&load), Arc::clone(&stopped));
    let gate: relay::Gate = Arc::new(move |way, bytes| {
        let all = came.fetch_add(if way == Way::Down { bytes.len() as u64 } else { 0 }, Ordering::SeqCst);
        let (parent, mut stopped) = (*parent.lock().expect("no panic"), stops.lock().expect("no panic"));
        if let (Some(parent), None, true) = (parent, *stopped, all > STOPPED_AFTER) {
            let loader = loader(parent);
            signal(loader, Signal::STOP);
            *stopped = Some(loader);
        }
        true
    });
    relay::unix(&between, &scene.world.path("host.sock"), gate);
    let before = scene.world.host.as_ref().expect("it runs").resident().now;
    let running = {
        let mut load = load.lock().expect("no panic");
        let running = scene.start(&mut scene.command(&["--host", &format!("unix:{}", between.display())]));
        *load = Some(running.pid());
        running
    };
    wait_until("the loader is stopped", || stopped.lock().expect("no panic").is_some());
    assert!(!scene.modes().is_empty() && scene.modes().iter().all(|mode| *mode == 0));

    // Another load has to wait, and does not wait in vain.
    let other = scene.place().with_extension("other");
    let mut waits =
        Running::start(&mut scene.command_of(&scene.guest.tcti, &other, &[]), &scene.world.path("other.log"));
    waits.wait_for("ready");
    scene.assert_opened(&other);
    waits.terminate();
    fs::remove_dir(&other).expect("it was wiped");
    let host = scene.world.host.as_ref().expect("it runs");
    assert!(host.log().contains(GIVEN_UP), "{}", host.log());
    let grown = host.resident().peak.saturating_sub(before);
    println!("the host grew by {grown} MiB");
    assert!(grown < GROWTH_MIB_MAX, "the host grew by {grown} MiB");

    signal(stopped.lock().expect("no panic").expect("it is"), Signal::KILL);
    let (_, said) = running.wait();
    assert!(said.contains("loader-died") && !scene.has_files(), "{said}");
    scene.assert_no_lease();
    scene.loads(&[]);
}

#[test]
fn clients_that_never_read_take_bounded_memory_of_the_host_and_are_closed_for_others() {
    /// As a host has it unless it is told otherwise.
    const PLACES: usize = 64;
    /// Five messages of a megabyte for each: two that wait, one that was read, one in parts, one that is sent.
    const MIB_OF_PLACE: u64 = 5;
    /// Of everybody else.
    const MIB_BESIDE: u64 = 96;
    let scene = Sealed::of_size("96M");
    let before = scene.world.host.as_ref().expect("it runs").resident().now;
    let (unit, runtime) = (largest_unit(&scene), Runtime::new().expect("threads"));
    // These have room for a little, and take nothing out of it. All are under way.
    let direct: Vec<_> = (0..2)
        .map(|_| {
            runtime.block_on(async {
                let client = connect(&scene.world.url(), SMALL).await;
                let calls: Vec<_> = (0..PLACES / 4).map(|_| tokio::spawn(fetch(client.clone(), unit))).collect();
                let mut answers = Vec::new();
                for call in calls {
                    answers.push(call.await.expect("no panic").expect("there are places"));
                }
                answers
            })
        })
        .collect();
    // These say that they take all there is, and their sockets are not read. Half of them find a place.
    let between = scene.world.path("between.sock");
    let (hold, gate) = Hold::after(64 << 10);
    relay::unix(&between, &scene.world.path("host.sock"), gate);
    let held: Vec<_> = (0..PLACES)
        .map(|_| {
            let client = runtime.block_on(connect(&format!("unix:{}", between.display()), ALL));
            runtime.spawn(fetch(client, unit))
        })
        .collect();
    hold.wait();

    let said = scene.loads(&[]);
    assert!(!said.contains("warning"), "{said}");
    let host = scene.world.host.as_ref().expect("it runs");
    assert!(host.log().contains(GIVEN_UP), "{}", host.log());
    let grown = host.resident().peak.saturating_sub(before);
    println!("the host grew by {grown} MiB");
    assert!(grown < PLACES as u64 * MIB_OF_PLACE + MIB_BESIDE, "the host grew by {grown} MiB");
    drop((direct, held));
    hold.release();
}

fn largest_unit(scene: &Sealed) -> u32 {
    let units =
        fs::read_dir(scene.sealed.join("units")).expect("it was sealed").map(|unit| unit.expect("it was sealed"));
    let largest = units.max_by_key(|unit| unit.metadata().expect("a file").len()).expect("there are units");
    let name = largest.file_name().into_string().expect("ASCII");
    name.trim_end_matches(".cob").parse().expect("its number")
}

async fn connect(url: &str, window: u32) -> VaultClient<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL");
    let endpoint = endpoint.initial_stream_window_size(window).initial_connection_window_size(window);
    VaultClient::new(endpoint.connect().await.expect("the host listens"))
}

async fn fetch(mut client: VaultClient<Channel>, unit: u32) -> Result<Streaming<FetchUnitsResponse>, Status> {
    let ranges = vec![UnitRange { unit, offset: 0, length: 0 }];
    let request = FetchUnitsRequest { model: "demo".to_owned(), version: "1".to_owned(), ranges };
    client.fetch_units(request).await.map(Response::into_inner)
}
