//! The guest's own code on the soft platform, and the verifier on what comes of it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use attestation::{Anchor, CertificateTable, CrlRule, EndorsedReport, Trust, TrustAnchors, UnixTime};
use tempfile::TempDir;
use vault_enclave::snp::{
    GuestFields, KeyRequest, KeySpec, RootKey, SnpChoice, SnpDevice, SnpDeviceError, SvsmService,
};
use vault_tests::forge::amd::Product;
use vault_tests::forge::platform::{SoftGuest, SoftPlatform};
use vault_tests::forge::serve::{Form, Served};
use vault_tests::forge::tsm::SoftMachine;

const NOW: UnixTime = UnixTime(1_800_000_000);

fn serve(product: Product, form: Form, change: impl FnOnce(&mut SoftGuest)) -> (Served, SnpDevice, TempDir) {
    let dir = tempfile::Builder::new().prefix("weightvault-snp-").tempdir().unwrap();
    let guest = SoftGuest::new([7; 48]).with(change);
    let served = Served::start(dir.path(), SoftMachine::new(SoftPlatform::new(product), guest), form).unwrap();
    let device = SnpDevice::open(&SnpChoice::Soft(dir.path().to_owned()), None).unwrap();
    (served, device, dir)
}

#[test]
fn a_report_verifies_under_the_platforms_root_as_emulated() {
    for (product, form) in [(Product::Milan, Form::Fuse), (Product::Genoa, Form::Fuse), (Product::Turin, Form::Plain)] {
        let (served, device, dir) = serve(product, form, |_| {});
        let raw = device.report(&[5; 64], None).unwrap();
        let table = CertificateTable::parse(&raw.certificate_table).unwrap();
        let crl = served.machine.lock().unwrap().platform.authorities.crl(1_800_000_000).der();
        let mut evidence = table.evidence(raw.report);
        evidence.crls = vec![crl];
        let pem = std::fs::read_to_string(dir.path().join("ark.pem")).unwrap();
        let anchor = Anchor::from_pem("soft", Trust::Emulated, &pem).unwrap();
        let anchors = TrustAnchors::built_in().with(anchor).unwrap();
        let endorsed = EndorsedReport::verify(&evidence, &anchors, CrlRule::Required, NOW).unwrap();
        assert_eq!(endorsed.check_report_data(&[5; 64]), Ok(()));
        assert_eq!(endorsed.claims().trust(), Trust::Emulated);
        let left = std::fs::read_dir(dir.path().join("report")).unwrap();
        assert_eq!(left.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count(), 0, "the entry is gone");
    }
}

#[test]
fn an_svsm_is_asked_at_its_own_level() {
    for form in [Form::Fuse, Form::Plain] {
        check_svsm(form);
    }
}

fn check_svsm(form: Form) {
    let (served, device, _dir) = serve(Product::Genoa, form, |guest| guest.vmpl = 2);
    served.machine.lock().unwrap().manifest = b"the services".to_vec();
    assert_eq!(device.report(&[5; 64], None).unwrap().report[0x30], 2, "the floor");
    assert!(matches!(device.report(&[5; 64], Some(1)), Err(SnpDeviceError::VmplBelowFloor { .. })));
    let raw = device.with_service(SvsmService::default()).unwrap().report(&[5; 64], None).unwrap();
    assert_eq!(raw.report[0x30], 0);
    assert_eq!(raw.manifest.as_deref(), Some(b"the services".as_slice()));
}

#[test]
fn derived_keys_follow_the_guests_state() {
    let (served, device, _dir) = serve(Product::Milan, Form::Fuse, |guest| guest.guest_svn = 3);
    let tcb_version = served.machine.lock().unwrap().platform.committed.bytes(Product::Milan);
    let spec = KeySpec {
        root_key: RootKey::Vcek,
        fields: GuestFields { policy: true, image_id: false, family_id: false, measurement: true },
        guest_svn: Some(3),
        tcb_version: Some(tcb_version),
        launch_mit_vector: None,
        vmpl: 0,
    };
    let key = |spec| device.derived_key(&KeyRequest::new(spec).unwrap()).map(drop);
    assert_eq!(key(spec), Ok(()));
    assert_eq!(key(KeySpec { launch_mit_vector: Some(1), ..spec }), Ok(()));
    assert_eq!(key(KeySpec { guest_svn: Some(4), ..spec }), Err(SnpDeviceError::KeyParameters));
    let newer = [tcb_version[0] + 1, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(key(KeySpec { tcb_version: Some(newer), ..spec }), Err(SnpDeviceError::KeyParameters));
}
