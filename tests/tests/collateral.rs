//! Evidence is completed before it is sent: by AMD's key service on loopback, which throttles, breaks and lies to order; by a
//! store without any network; and never so that a verifier takes what it should not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "collateral/faults.rs"]
mod faults;
#[path = "collateral/freshness.rs"]
mod freshness;
#[path = "collateral/prefetch.rs"]
mod prefetch;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::{
    Anchor, CollateralKey, CrlRule, EndorsedReport, SnpError, SnpEvidence, Trust, TrustAnchors, UnixTime, VcekId,
};
use tempfile::TempDir;
use vault_enclave::chip::{Chip, CollateralUse};
use vault_enclave::snp::{SnpChoice, SnpDevice};
use vault_proto::collateral::{
    Collateral, CollateralFailure, CollateralOptions, CollateralStore, FetchError, Limits, Tried,
};
use vault_tests::forge::amd::{Authorities, Product, Tcb};
use vault_tests::forge::kds::SoftKds;
use vault_tests::forge::platform::{SoftGuest, SoftPlatform};
use vault_tests::forge::serve::{Form, Served};
use vault_tests::forge::tsm::SoftMachine;

const DATA: [u8; 64] = [7; 64];

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// Bounds that a test need not wait for.
fn quick() -> Limits {
    Limits {
        total: Duration::from_secs(20),
        request: Duration::from_secs(10),
        backoff: Duration::from_millis(1),
        negative: Duration::from_secs(600),
    }
}

/// A source on this store and these services.
fn source(store: Option<&Path>, kds: &[&str], limits: Limits) -> Arc<Collateral> {
    let store = store.map(Path::to_owned);
    let kds = kds.iter().map(|url| url.parse().unwrap()).collect();
    Arc::new(Collateral::new(CollateralOptions { store, kds, limits, ..CollateralOptions::default() }).unwrap())
}

fn kds(platform: &SoftPlatform) -> SoftKds {
    SoftKds::start(vec![platform.clone()], now()).unwrap()
}

/// The report alone, as from a host without certificates.
fn bare(platform: &SoftPlatform) -> SnpEvidence {
    let report = platform.signed_report(&SoftGuest::new([7; 48]), DATA).to_vec();
    SnpEvidence { report, certificates: Vec::new(), crls: Vec::new() }
}

fn id(platform: &SoftPlatform) -> VcekId {
    VcekId::of_report(&bare(platform).report).unwrap().remove(0)
}

fn verify(evidence: &SnpEvidence, product: Product) -> Result<EndorsedReport, SnpError> {
    let certificate = Authorities::new(product).ark.der();
    let anchor = Anchor { name: "soft".to_owned(), trust: Trust::Emulated, certificate };
    let anchors = TrustAnchors::built_in().with(anchor).unwrap();
    EndorsedReport::verify(evidence, &anchors, CrlRule::Required, UnixTime(u64::try_from(now()).unwrap()))
}

/// What the one service that was asked said.
fn said(failure: CollateralFailure) -> FetchError {
    match failure {
        CollateralFailure::Missing { mut tried, .. } => {
            assert_eq!(tried.len(), 1);
            let Tried { error, .. } = tried.remove(0);
            error
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn evidence_of_every_product_is_completed_by_the_key_service() {
    for product in Product::ALL {
        let platform = SoftPlatform::new(product);
        let kds = kds(&platform);
        let complete = source(None, &[&kds.url()], quick()).complete_waiting(bare(&platform)).unwrap();
        assert_eq!(verify(&complete, product).unwrap().check_report_data(&DATA), Ok(()));
        // The chain, the leaf, the list.
        assert_eq!(kds.shelf().requests.len(), 3);
    }
}

#[test]
fn report_that_does_not_name_its_product_finds_it() {
    for product in Product::ALL {
        let platform = SoftPlatform::new(product).with(|it| it.report_version = 2);
        let kds = kds(&platform);
        let complete = source(None, &[&kds.url()], quick()).complete_waiting(bare(&platform)).unwrap();
        assert!(verify(&complete, product).is_ok(), "{product:?}");
    }
}

#[test]
fn store_alone_completes_evidence_without_a_network() {
    for product in Product::ALL {
        let platform = SoftPlatform::new(product);
        let dir = TempDir::new().unwrap();
        let kds = kds(&platform);
        source(Some(dir.path()), &[&kds.url()], quick()).complete_waiting(bare(&platform)).unwrap();
        drop(kds);
        let complete = source(Some(dir.path()), &[], quick()).complete_waiting(bare(&platform)).unwrap();
        assert!(verify(&complete, product).is_ok(), "{product:?}");
    }
}

#[test]
fn nothing_is_asked_for_what_the_store_has() {
    let platform = SoftPlatform::new(Product::Milan);
    let (dir, kds) = (TempDir::new().unwrap(), kds(&platform));
    source(Some(dir.path()), &[&kds.url()], quick()).complete_waiting(bare(&platform)).unwrap();
    let asked = kds.shelf().requests.len();
    source(Some(dir.path()), &[&kds.url()], quick()).complete_waiting(bare(&platform)).unwrap();
    assert_eq!(kds.shelf().requests.len(), asked);
}

#[test]
fn without_a_source_a_person_hears_of_the_three() {
    let platform = SoftPlatform::new(Product::Milan);
    let failure = source(None, &[], quick()).complete_waiting(bare(&platform)).unwrap_err();
    assert_eq!(failure.code(), "collateral-missing");
    let text = failure.to_string();
    for way in ["host's certificate table", "--collateral DIR", "--kds URL"] {
        assert!(text.contains(way), "{text}");
    }
}

#[test]
fn what_no_service_has_is_said_at_once() {
    let cloud = SoftPlatform::new(Product::Milan).with(|it| it.vlek = Some("CN=cloud".to_owned()));
    let masked = SoftPlatform::new(Product::Milan).with(|it| it.mask_chip_id = true);
    let code =
        |platform| source(None, &["http://127.0.0.1:9"], quick()).complete_waiting(bare(platform)).unwrap_err().code();
    assert_eq!(code(&cloud), "collateral-vlek");
    assert_eq!(code(&masked), "collateral-chip-masked");
}

#[test]
fn broken_file_of_a_store_counts_as_missing() {
    let platform = SoftPlatform::new(Product::Milan);
    let (dir, kds) = (TempDir::new().unwrap(), kds(&platform));
    source(Some(dir.path()), &[&kds.url()], quick()).complete_waiting(bare(&platform)).unwrap();
    let stored = CollateralStore::new(dir.path().to_owned()).list().unwrap();
    assert_eq!(stored.len(), 3);
    for stored in stored {
        let good = std::fs::read(&stored.path).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        for broken in [flipped, good[..good.len() / 2].to_vec(), Vec::new(), vec![0; 1 << 20]] {
            std::fs::write(&stored.path, broken).unwrap();
            let complete = source(Some(dir.path()), &[&kds.url()], quick()).complete_waiting(bare(&platform)).unwrap();
            assert!(verify(&complete, Product::Milan).is_ok(), "{}", stored.key);
            // It was fetched, and put right.
            assert!(source(Some(dir.path()), &[], quick()).at_hand_now(&stored.key).is_some(), "{}", stored.key);
        }
    }
}

#[test]
fn poisoned_store_is_refused_by_whoever_verifies() {
    let platform = SoftPlatform::new(Product::Milan);
    let foreign = platform.clone().with(|it| it.authorities = Authorities::foreign(Product::Milan));
    let (dir, kds) = (TempDir::new().unwrap(), kds(&foreign));
    source(Some(dir.path()), &[&kds.url()], quick()).complete_waiting(bare(&foreign)).unwrap();
    let complete = source(Some(dir.path()), &[], quick()).complete_waiting(bare(&platform)).unwrap();
    assert_eq!(verify(&complete, Product::Milan).err(), Some(SnpError::RootUnknown));
}

#[test]
fn chip_of_a_guest_completes_what_the_host_left_out() {
    let platform = SoftPlatform::new(Product::Genoa);
    let (dir, store, kds) = (TempDir::new().unwrap(), TempDir::new().unwrap(), kds(&platform));
    let machine = SoftMachine::new(platform, SoftGuest::new([7; 48]));
    machine.lock().unwrap().certificates = Some(Vec::new());
    let _served = Served::start(dir.path(), machine, Form::Plain).unwrap();
    let choice: SnpChoice = format!("soft:{}", dir.path().display()).parse().unwrap();
    let evidence = |collateral| {
        let chip = Chip::new(SnpDevice::open(&choice, None).unwrap(), CollateralUse::Waiting(collateral));
        chip.evidence(&DATA)
    };
    assert_eq!(evidence(source(None, &[], quick())).unwrap_err().code(), "collateral-missing");
    let complete = evidence(source(Some(store.path()), &[&kds.url()], quick())).unwrap();
    assert!(verify(&complete, Product::Genoa).is_ok());
    drop(kds);
    assert!(verify(&evidence(source(Some(store.path()), &[], quick())).unwrap(), Product::Genoa).is_ok());
}

#[test]
fn vcek_from_before_an_update_of_the_firmware_is_replaced() {
    let mut platform = SoftPlatform::new(Product::Milan);
    let before = platform.chain().to_vec();
    let firmware = platform.firmware;
    platform.update(Tcb { snp: platform.current.snp + 1, ..platform.current }, firmware);
    let evidence = SnpEvidence { certificates: before, ..bare(&platform) };
    assert!(matches!(
        verify(&evidence, Product::Milan).err(),
        Some(SnpError::LeafTcbMismatch { .. } | SnpError::CrlMissing)
    ));
    let kds = kds(&platform);
    let complete = source(None, &[&kds.url()], quick()).complete_waiting(evidence).unwrap();
    assert!(verify(&complete, Product::Milan).is_ok());
}

#[test]
fn root_that_the_policy_has_may_be_missing() {
    let platform = SoftPlatform::new(Product::Milan);
    let mut evidence = bare(&platform);
    evidence.certificates = platform.chain()[..2].to_vec();
    let complete = source(None, &[], quick()).complete_waiting(evidence.clone()).unwrap();
    assert_eq!(complete, evidence);
    assert_eq!(verify(&complete, Product::Milan).err(), Some(SnpError::CrlMissing));
}

#[test]
fn key_of_the_store_is_the_key_of_the_report() {
    let platform = SoftPlatform::new(Product::Turin);
    let key = CollateralKey::Vcek(id(&platform));
    assert_eq!(CollateralKey::from_store_path(&key.store_path()), Some(key));
}
