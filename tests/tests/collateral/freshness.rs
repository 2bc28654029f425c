//! Revocation lists: the newest at hand is sent, a newer one is fetched in time, and nobody who must not wait does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use attestation::{CollateralChain, CollateralError, CollateralKey, SnpError, SnpEvidence, UnixTime};
use tempfile::TempDir;
use vault_proto::collateral::{Collateral, FetchError, Refresher};
use vault_tests::forge::amd::{ASK_SERIAL, Product};
use vault_tests::forge::kds::Fault;
use vault_tests::forge::platform::SoftPlatform;

use super::{bare, id, kds, now, quick, said, source, verify};

const DAY: i64 = 86_400;
/// How long the background may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

/// With what a host gives: the chain, and this list.
fn with_crl(platform: &SoftPlatform, crl: Option<Vec<u8>>) -> SnpEvidence {
    SnpEvidence { certificates: platform.chain().to_vec(), crls: crl.into_iter().collect(), ..bare(platform) }
}

/// When the list of evidence was made.
fn made(platform: &SoftPlatform, evidence: &SnpEvidence) -> UnixTime {
    let [_, ask, ark] = platform.chain();
    CollateralChain::from_der(ask, ark).unwrap().check_crl(&evidence.crls[0]).unwrap().this_update
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < WITHIN, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn list_that_the_host_withholds_is_added() {
    let platform = SoftPlatform::new(Product::Milan);
    let kds = kds(&platform);
    let revoking = platform.authorities.crl(now()).revoking(ASK_SERIAL);
    kds.shelf().crls.push((Product::Milan, revoking));
    let complete = source(None, &[&kds.url()], quick()).complete_waiting(with_crl(&platform, None)).unwrap();
    assert!(matches!(verify(&complete, Product::Milan).err(), Some(SnpError::Revoked(_))));
    // The chain was there: the list alone was asked for.
    assert_eq!(kds.shelf().requests.len(), 1);
}

#[test]
fn list_of_the_host_never_takes_the_place_of_ours() {
    let platform = SoftPlatform::new(Product::Milan);
    let (dir, kds) = (TempDir::new().unwrap(), kds(&platform));
    kds.shelf().crls.push((Product::Milan, platform.authorities.crl(now()).revoking(ASK_SERIAL)));
    source(Some(dir.path()), &[&kds.url()], quick()).complete_waiting(bare(&platform)).unwrap();
    let old = platform.authorities.crl(now() - DAY).der();
    let offline = source(Some(dir.path()), &[], quick());
    let complete = offline.complete_waiting(with_crl(&platform, Some(old))).unwrap();
    assert!(matches!(verify(&complete, Product::Milan).err(), Some(SnpError::Revoked(_))));
    // Nor a newer one, which may be the list for the other kind of key.
    let new = platform.authorities.crl(now() + DAY).der();
    let complete = offline.complete_waiting(with_crl(&platform, Some(new.clone()))).unwrap();
    assert!(complete.crls.contains(&new) && complete.crls.len() == 2);
    assert!(matches!(verify(&complete, Product::Milan).err(), Some(SnpError::Revoked(_))));
}

#[test]
fn list_of_another_root_is_not_sent() {
    let platform = SoftPlatform::new(Product::Milan);
    let other = SoftPlatform::new(Product::Genoa).authorities.crl(now()).der();
    let kds = kds(&platform);
    let complete = source(None, &[&kds.url()], quick()).complete_waiting(with_crl(&platform, Some(other))).unwrap();
    assert!(verify(&complete, Product::Milan).is_ok());
}

#[test]
fn older_list_of_a_mirror_is_refused() {
    let platform = SoftPlatform::new(Product::Milan);
    let kds = kds(&platform);
    let source = source(None, &[&kds.url()], quick());
    source.complete_waiting(bare(&platform)).unwrap();
    kds.shelf().crls.push((Product::Milan, platform.authorities.crl(now() - DAY)));
    let failure = fetch(&source, &CollateralKey::Crl(id(&platform).chain())).unwrap_err();
    assert_eq!(said(failure), FetchError::Wrong(CollateralError::CrlOlder));
    assert_eq!(CollateralError::CrlOlder.code(), "collateral-crl-older");
}

#[test]
fn list_that_ended_is_sent_where_there_is_no_newer() {
    let platform = SoftPlatform::new(Product::Milan);
    let (dir, kds) = (TempDir::new().unwrap(), kds(&platform));
    kds.shelf().crls.push((Product::Milan, platform.authorities.crl(now() - 30 * DAY)));
    let source = source(Some(dir.path()), &[&kds.url()], quick());
    let complete = source.complete_waiting(bare(&platform)).unwrap();
    assert_eq!(verify(&complete, Product::Milan).err(), Some(SnpError::CrlStale));
}

#[test]
fn who_must_not_wait_finds_it_the_next_time() {
    let platform = SoftPlatform::new(Product::Milan);
    let kds = kds(&platform);
    let source = source(None, &[&kds.url()], quick());
    let _refresher = Refresher::start(Arc::clone(&source)).unwrap();
    // Until it is released, the service answers nothing that could be waited for.
    kds.shelf().always.insert("/".to_owned(), Fault::Slow(Duration::from_millis(100)));
    assert_eq!(source.complete_at_once(bare(&platform)).unwrap_err().code(), "collateral-missing");
    eventually("the background fetches", || {
        source.complete_at_once(bare(&platform)).is_ok_and(|complete| verify(&complete, Product::Milan).is_ok())
    });
}

#[test]
fn list_is_fetched_anew_before_it_ends() {
    let platform = SoftPlatform::new(Product::Milan);
    let kds = kds(&platform);
    // Halfway through its time, and in force for 14 days more.
    let old = platform.authorities.crl(now() - DAY);
    kds.shelf().crls.push((Product::Milan, old));
    let source = source(None, &[&kds.url()], quick());
    let complete = source.complete_waiting(bare(&platform)).unwrap();
    let before = made(&platform, &complete);
    kds.shelf().crls.clear();
    let _refresher = Refresher::start(Arc::clone(&source)).unwrap();
    eventually("the list is renewed", || made(&platform, &source.complete_at_once(bare(&platform)).unwrap()) > before);
    assert!(verify(&source.complete_at_once(bare(&platform)).unwrap(), Product::Milan).is_ok());
}

fn fetch(source: &Collateral, key: &CollateralKey) -> Result<Vec<u8>, vault_proto::collateral::CollateralFailure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(source.fetch(key))
}
