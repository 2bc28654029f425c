//! Ciphertext from elsewhere than the vault's host, and from a cache: what opens is the publisher's, wherever it came from.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[path = "../../vault-host/tests/host/s3.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "shared with the tests of the host")]
mod s3;

use s3::S3;
use vault_tests::relay::{self, Way};
use vault_tests::sealed::{flip, text};
use vault_tests::web::TlsAuthority;
use vault_tests::{Sealed, Web};

#[test]
fn units_of_a_directory_open_and_nothing_else_is_asked_where_it_is_the_only_place() {
    let scene = Sealed::open();
    let sealed = scene.sealed.clone();
    scene.host_loses_units();
    scene.loads(&["--ciphertext", text(&sealed)]);
    scene.loads(&["--source", text(&sealed)]);
    flip(&sealed.join("units/00002.cob"));
    scene.refused(&["--ciphertext", text(&sealed)], "unit 2");
    // The host is the last place, and has them no more.
    scene.refused(&["--source", text(&sealed)], "unit 2");
    scene.refused(&["--ciphertext", "/nonexistent"], "/nonexistent");
    scene.refused(&["--source", "ftp://somewhere"], "is not a place of sealed units");
}

#[test]
fn place_that_lies_or_is_gone_costs_nothing_but_a_word() {
    let scene = Sealed::open();
    let lying = scene.world.path("lying");
    scene.copy(&lying);
    flip(&lying.join("units/00002.cob"));
    fs::remove_file(lying.join("units/00003.cob")).expect("a unit");
    // Nobody listens there.
    let dead = "http://127.0.0.1:1/models";
    let said = scene.loads(&["--source", dead, "--source", text(&lying)]);
    for words in
        ["127.0.0.1:1/models: sealed unit", "going on from", "the vault's host", "sealed unit 2: chunk", "sources   "]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    let said = scene.loads(&["--source", "/nonexistent", "--source", text(&lying)]);
    assert!(said.contains("the next source is asked"), "{said}");
}

#[test]
fn units_come_from_a_bucket_by_signed_requests() {
    let Some(s3) = S3::start() else { return };
    let scene = Sealed::open();
    // The server keeps objects as files.
    scene.copy(&s3.object("models/demo"));
    let config = s3.config("");
    let value = |key: &str| {
        let line = config.lines().find_map(|line| line.strip_prefix(key)).expect("a line of the configuration");
        line.trim_matches(|c| "= \"".contains(c)).to_owned()
    };
    let (endpoint, credentials) = (value("endpoint"), value("credentials"));
    let wrong = credentials.replace("/credentials", "/wrong");
    let bucket = ["--source", "s3://vaults/models/demo", "--s3-endpoint", &endpoint, "--s3-credentials"];
    // Without a secret that it knows it gives nothing, and the host is asked.
    let said = scene.loads(&[bucket.as_slice(), &[&wrong]].concat());
    assert!(
        said.contains("HTTP status 403: see --s3-credentials and --s3-region; going on from the vault's host"),
        "{said}"
    );
    scene.host_loses_units();
    let said = scene.loads(&[bucket.as_slice(), &[&credentials]].concat());
    assert!(!said.contains("warning"), "{said}");
    scene.refused(
        &["--source", "s3://vaults/models/demo", "--s3-endpoint", &endpoint, "--s3-credentials", "/dev/null"],
        "unit",
    );
}

/// The time of a far-away service, for each request of a load.
const FAR: Duration = Duration::from_millis(50);
/// Fewer at once would leave it idle. The small model has more units than these.
const AT_ONCE_MIN: usize = 6;

#[test]
fn ranges_of_a_bucket_that_is_far_away_are_asked_for_side_by_side() {
    let Some(s3) = S3::start() else { return };
    let scene = Sealed::open();
    scene.copy(&s3.object("models/demo"));
    scene.host_loses_units();
    let (now, most, requests) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (seen, counted) = (Arc::clone(&most), Arc::clone(&requests));
    let delay: relay::Gate = Arc::new(move |way, bytes| {
        if way == Way::Up && bytes.starts_with(b"GET ") {
            counted.fetch_add(1, Ordering::SeqCst);
            seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(FAR);
            now.fetch_sub(1, Ordering::SeqCst);
        }
        true
    });
    let far = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", far.local_addr().expect("a port"));
    relay::tcp(far, s3.address(), delay);
    let config = s3.config("");
    let credentials = config.lines().find_map(|line| line.strip_prefix("credentials = ")).expect("a line");
    let said = scene.loads(&[
        "--source",
        "s3://vaults/models/demo",
        "--s3-endpoint",
        &endpoint,
        "--s3-credentials",
        credentials.trim_matches('"'),
    ]);
    assert!(!said.contains("warning"), "{said}");
    let (most, requests) = (most.load(Ordering::SeqCst), requests.load(Ordering::SeqCst));
    println!("{most} of {requests} requests at once");
    assert!(most >= AT_ONCE_MIN, "{most} of {requests} requests at once");
}

#[test]
fn web_server_over_tls_is_asked_under_the_authority_that_was_named_while_its_certificate_is_good() {
    let scene = Sealed::open();
    scene.host_loses_units();
    let (ours, strangers) = (TlsAuthority::new("ours"), TlsAuthority::new("strangers"));
    let [ours_pem, strangers_pem] = ["ours.pem", "strangers.pem"].map(|name| scene.world.path(name));
    fs::write(&ours_pem, ours.pem()).expect("the directory is ours");
    fs::write(&strangers_pem, strangers.pem()).expect("the directory is ours");
    let good = Web::start_tls(&scene.sealed, ours.server("localhost", 1));
    let expired = Web::start_tls(&scene.sealed, ours.server("localhost", -1));
    let from = |web: &Web, name: &str, ca: &std::path::Path| {
        ["--source", &web.url(name), "--source-ca", text(ca)].map(str::to_owned)
    };
    let load = |options: &[String]| {
        let mut load = scene.command(&[]);
        load.args(options);
        load
    };
    let said = scene.loads_by(&mut load(&from(&good, "localhost", &ours_pem)));
    assert!(!said.contains("warning") && !good.ranges().is_empty(), "{said}");

    let before = good.ranges().len();
    for (options, words) in [
        (from(&good, "localhost", &strangers_pem), "UnknownIssuer"),
        (from(&good, "127.0.0.1", &ours_pem), "not valid for name"),
        (from(&expired, "localhost", &ours_pem), "expired"),
        (from(&good, "localhost", &scene.sealed.join("manifest.json")), "no certificate in it can be used"),
    ] {
        scene.refused_by(&mut load(&options), words);
    }
    // Those of the system know nothing of it.
    let url = good.url("localhost");
    scene.refused(&["--source", &url], "going on from the vault's host");
    assert_eq!((good.ranges().len(), expired.ranges().len()), (before, 0), "nothing was asked of them");
}

#[test]
fn cache_serves_what_is_there_no_more_and_is_never_believed() {
    let scene = Sealed::open();
    let cache = scene.world.path("cache");
    let options = ["--cache", text(&cache), "--cache-size", "1G"];
    scene.loads(&options);
    scene.host_loses_units();
    let said = scene.loads(&options);
    assert!(!said.contains("warning"), "{said}");
    // Ciphertext alone is in it, under the digests of the manifest.
    let entries: Vec<PathBuf> =
        fs::read_dir(&cache).expect("the cache").map(|entry| entry.expect("the cache").path()).collect();
    let sealed: Vec<Vec<u8>> = fs::read_dir(scene.sealed.join("units"))
        .expect("the sealed units")
        .map(|unit| fs::read(unit.expect("a unit").path()).expect("a unit"))
        .collect();
    let mut units = entries.iter().filter(|entry| entry.extension().is_some_and(|ending| ending == "cob"));
    assert!(units.all(|entry| sealed.contains(&fs::read(entry).expect("an entry"))));
    let largest = entries.iter().max_by_key(|entry| fs::metadata(entry).expect("an entry").len()).expect("an entry");
    flip(largest);
    scene.refused(&options, "the cache: sealed unit");
    scene.loads(&[options.as_slice(), &["--source", text(&scene.sealed)]].concat());
    scene.loads(&options);
}

#[test]
fn full_disk_under_the_cache_ends_the_caching_and_not_the_load() {
    let mounts = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).status();
    if !mounts.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI runs this as root");
        println!("skipped: only root can mount a small disk");
        return;
    }
    let scene = Sealed::open();
    let cache = scene.world.path("cache");
    fs::create_dir(&cache).expect("the directory is ours");
    let load = scene.command(&["--cache", text(&cache), "--cache-size", "1G"]);
    let mut small = Command::new("unshare");
    let script = "mount -t tmpfs -o size=1m,mode=0700 tmpfs \"$0\" && exec \"$@\"";
    small.args(["-m", "sh", "-c", script]).arg(&cache).arg(load.get_program()).args(load.get_args());
    let said = scene.loads_by(&mut small);
    assert!(said.contains("takes nothing more") && said.contains("goes on without it"), "{said}");
}
