//! `vaultctl collateral`: a store is filled ahead, and is all that is needed afterwards.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use vault_tests::forge::amd::Product;
use vault_tests::forge::kds::{Fault, SoftKds};
use vault_tests::forge::platform::SoftPlatform;
use vault_tests::process::binary;

use super::{bare, id, now, quick, source, verify};

fn prefetch(hosts: &Path, store: &Path, kds: &SoftKds) -> Output {
    let mut command = Command::new(binary("vaultctl"));
    command.args(["collateral", "prefetch", "--json", "--within", "1m", "--kds", &kds.url()]);
    command.arg("--hosts").arg(hosts).arg("--out").arg(store).output().unwrap()
}

fn json(output: &Output) -> Value {
    let parsed = serde_json::from_slice(&output.stdout);
    parsed.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn list_of_hosts_is_prefetched_and_then_no_network_is_needed() {
    let platforms: Vec<SoftPlatform> = Product::ALL.into_iter().map(SoftPlatform::new).collect();
    let dir = TempDir::new().unwrap();
    let (hosts, store) = (dir.path().join("hosts"), dir.path().join("store"));
    // Two by name, one by a report that was captured on it.
    std::fs::write(dir.path().join("genoa.report"), bare(&platforms[1]).report).unwrap();
    let text = format!("# racks 1 and 2\n{}\n\ngenoa.report\n{} # new\n", id(&platforms[0]), id(&platforms[2]));
    std::fs::write(&hosts, text).unwrap();
    // Its lists are not due yet.
    let kds = SoftKds::start(platforms.clone(), now() + 86_400).unwrap();
    // The service stops answering halfway.
    kds.shelf().always.insert("/Turin/".to_owned(), Fault::Status(404));
    let output = prefetch(&hosts, &store, &kds);
    let report = json(&output);
    assert_eq!((output.status.code(), &report["hosts"], &report["fetched"]), (Some(5), &3.into(), &6.into()));
    assert_eq!(report["missing"].as_array().unwrap().len(), 3);
    kds.shelf().always.clear();
    let asked = kds.shelf().requests.len();
    let output = prefetch(&hosts, &store, &kds);
    let report = json(&output);
    assert_eq!((output.status.code(), &report["fetched"], &report["present"]), (Some(0), &3.into(), &6.into()));
    // It went on where it was.
    assert!(kds.shelf().requests[asked..].iter().all(|request| request.contains("Turin")));
    drop(kds);
    for platform in &platforms {
        let complete = source(Some(&store), &[], quick()).complete_waiting(bare(platform)).unwrap();
        assert!(verify(&complete, platform.product).is_ok());
    }
    let listed = Command::new(binary("vaultctl")).args(["collateral", "list", "--json"]).arg(&store).output().unwrap();
    let objects = json(&listed)["objects"].clone();
    assert_eq!(objects.as_array().unwrap().len(), 9);
    assert!(objects.as_array().unwrap().iter().all(|object| object["usable"] == true && object["until"].is_u64()));
}

#[test]
fn service_that_throttles_is_left_alone() {
    let platforms: Vec<SoftPlatform> = (0..4).map(|_| SoftPlatform::new(Product::Milan)).collect();
    let dir = TempDir::new().unwrap();
    let hosts = dir.path().join("hosts");
    let lines: Vec<String> = platforms.iter().map(|platform| id(platform).to_string()).collect();
    std::fs::write(&hosts, lines.join("\n")).unwrap();
    let kds = SoftKds::start(platforms, now()).unwrap();
    kds.shelf().always.insert("SPL=".to_owned(), Fault::Throttle { retry_after: Some(3600) });
    let output = prefetch(&hosts, &dir.path().join("store"), &kds);
    assert_eq!(output.status.code(), Some(5));
    let missing = json(&output)["missing"].clone();
    assert!(missing.as_array().unwrap().iter().all(|one| one["code"] == "kds-throttled"), "{missing}");
    assert_eq!(missing.as_array().unwrap().len(), 4);
    assert_eq!(kds.shelf().requests.iter().filter(|request| request.contains("SPL=")).count(), 1);
}

#[test]
fn line_that_names_no_host_is_refused_with_its_number() {
    let dir = TempDir::new().unwrap();
    let hosts = dir.path().join("hosts");
    let kds = SoftKds::start(Vec::new(), now()).unwrap();
    for (line, code) in [
        ("Milan 00ff bootloader=1 tee=0 snp=1 microcode=1", "collateral-chip-id"),
        ("Rome 00ff", "report-unreadable"),
        ("nothing-there.report", "report-unreadable"),
    ] {
        std::fs::write(&hosts, format!("\n{line}\n")).unwrap();
        let output = prefetch(&hosts, &dir.path().join("store"), &kds);
        assert_eq!(output.status.code(), Some(2));
        let failure: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(failure["code"], code);
        assert!(failure["what"].as_str().unwrap().contains("line 2"), "{failure}");
    }
    assert!(kds.shelf().requests.is_empty());
}
