//! One field, one refusal: for every key of an `snp` section.

use attestation::{FirmwareVersion, SnpError, SnpProduct, TcbVersion, Trust, VerifyError, chip_platform, csp_platform};
use ledger::decide::DenialReason;
use ledger::entry::{Entry, Machine};
use ledger::policy::{PlatformFeature, SnpMismatch, TcbField};
use vault_tests::forge::amd::{Product, Tcb};
use vault_tests::forge::platform::SoftPlatform;
use vault_tests::forge::report::{Firmware, POLICY_SMT};

use crate::scene::{Rule, Scene, Shown, TCB};
use crate::support::policy_text::{LAUNCH_GUEST, PCR_0};
use crate::support::world::rule;

const CLOUD: &str = "CN=cc-us-east-2.amazonaws.com";

/// A good scene with one thing changed is denied for exactly this, under this key of the policy; the words say what was
/// expected and what was seen.
#[track_caller]
fn denied(scene: &Scene, mismatch: SnpMismatch, code: &str, key: &str) {
    let reason = scene.denied(Shown::Snp);
    assert_eq!(reason, DenialReason::ReportNotAllowed { rule: rule(), mismatch });
    assert_eq!(reason.code(), code);
    let explained = reason.explain();
    assert_eq!(explained.policy_key, Some(format!("release.minilm.snp.{key}")));
    assert!(!explained.expected.is_empty() && !explained.seen.is_empty() && explained.expected != explained.seen);
}

#[track_caller]
fn changed(change: impl FnOnce(&mut Scene)) -> Scene {
    Scene::good().with(change)
}

/// The rule with one line in another form.
#[track_caller]
fn ruled(from: &str, to: &str) -> Scene {
    Scene::under(Rule::Snp, |text| {
        let at = text.find("[release.minilm.snp]").unwrap();
        assert_eq!(text[at..].matches(from).count(), 1, "{from:?} must stand in the rule once");
        format!("{}{}", &text[..at], text[at..].replacen(from, to, 1))
    })
}

#[test]
fn good_guest_is_granted_and_the_entry_says_which_guest_it_was() {
    let scene = Scene::good();
    let grant = scene.granted(1, Shown::Snp);
    assert_eq!(grant.claims().trust(), Trust::Emulated);
    assert_eq!(grant.claims().anchor(), "soft-amd");
    assert_eq!(grant.claims().platform(), chip_platform(SnpProduct::Milan, &scene.platform.chip_id));
    let Entry::Release(entry) = grant.entry(attestation::Sha256Digest::of(b"evidence")) else { panic!("a release") };
    assert_eq!(entry.machine, Machine::Snp { report_id: scene.guest.report_id });
    assert_eq!((entry.platform, entry.tier), (grant.claims().platform(), Trust::Emulated));
    // A TPM beside the report that nothing binds to it neither helps nor harms.
    let beside = scene.granted(2, Shown::SnpTpm);
    assert_eq!(beside.claims().platform(), grant.claims().platform());
    assert_eq!(Machine::of(beside.claims()), Machine::of(grant.claims()));
    // Every line of chips that the rule names; the fold takes the entry.
    let mut turin = Scene::on(Product::Turin);
    turin.must_release(3, Shown::Snp);
}

#[test]
fn launch_digest_is_one_of_the_listed() {
    let seen = Box::new([0x78; 48]);
    let scene = changed(|scene| scene.guest.measurement = [0x78; 48]);
    denied(&scene, SnpMismatch::Measurement { seen }, "snp-measurement-not-allowed", "measurements");
    let two = format!("\"{LAUNCH_GUEST}\", \"{}\"", "78".repeat(48));
    let scene = ruled(&format!("\"{LAUNCH_GUEST}\""), &two).with(|scene| scene.guest.measurement = [0x78; 48]);
    scene.granted(1, Shown::Snp);
}

#[test]
fn chip_is_one_of_the_listed() {
    let platform = SoftPlatform::new(Product::Milan);
    let listed = chip_platform(SnpProduct::Milan, &platform.chip_id);
    let line = format!("chips = [\"{listed}\"]");
    let scene = ruled("chips = \"any\"", &line);
    let seen = chip_platform(SnpProduct::Milan, &scene.platform.chip_id);
    denied(&scene, SnpMismatch::Chip { seen }, "snp-chip-not-listed", "chips");
    ruled("chips = \"any\"", &line).with(|scene| scene.platform.chip_id = platform.chip_id).granted(1, Shown::Snp);
}

#[test]
fn cloud_is_one_of_the_listed_whatever_chips_says() {
    let leased = |cloud: &str| {
        let cloud = cloud.to_owned();
        move |scene: &mut Scene| scene.platform.vlek = Some(cloud)
    };
    let grant = changed(leased(CLOUD)).granted(1, Shown::Snp);
    assert_eq!(grant.claims().platform(), csp_platform(CLOUD));
    let other = "CN=cloud.invalid".to_owned();
    let mismatch = SnpMismatch::Csp { seen: other.clone() };
    denied(&changed(leased(&other)), mismatch, "snp-csp-not-listed", "csps");
    let none = ruled(&format!("csps = [\"{CLOUD}\"]\n"), "").with(leased(CLOUD));
    let mismatch = SnpMismatch::Csp { seen: CLOUD.to_owned() };
    denied(&none, mismatch, "snp-csp-not-listed", "csps");
    // A list of chips says nothing of clouds, and does not keep a listed cloud out.
    let line = format!("chips = [\"sha256:{PCR_0}\"]");
    ruled("chips = \"any\"", &line).with(leased(CLOUD)).granted(1, Shown::Snp);
}

#[test]
fn product_without_a_lowest_tcb_is_refused() {
    let scene = Scene::on(Product::Genoa);
    denied(&scene, SnpMismatch::Product { seen: SnpProduct::Genoa }, "snp-product-not-listed", "min_tcb");
}

/// One component below the lowest.
fn lower(tcb: Tcb, component: usize) -> Tcb {
    let mut tcb = tcb;
    let part = [&mut tcb.bootloader, &mut tcb.tee, &mut tcb.snp, &mut tcb.microcode].into_iter().nth(component);
    *part.unwrap() -= 1;
    tcb
}

fn version(tcb: Tcb) -> TcbVersion {
    TcbVersion { fmc: None, bootloader: tcb.bootloader, tee: tcb.tee, snp: tcb.snp, microcode: tcb.microcode }
}

/// Each component of each TCB. What runs is never below what is reported or committed, so it brings them along.
#[test]
fn every_component_of_every_tcb_counts() {
    type Change = fn(&mut Scene, Tcb);
    let cases: [(TcbField, &str, Change); 4] = [
        (TcbField::Current, "snp-current-tcb-below-minimum", |scene, low| {
            let platform = &mut scene.platform;
            (platform.current, platform.reported, platform.committed) = (low, low, low);
        }),
        (TcbField::Reported, "snp-reported-tcb-below-minimum", |scene, low| scene.platform.reported = low),
        (TcbField::Committed, "snp-committed-tcb-below-minimum", |scene, low| scene.platform.committed = low),
        (TcbField::Launch, "snp-launch-tcb-below-minimum", |scene, low| scene.guest.launch_tcb = Some(low)),
    ];
    for (field, code, change) in cases {
        for component in 0..4 {
            let low = lower(TCB, component);
            let (min, seen) = (version(TCB), version(low));
            let mismatch = SnpMismatch::Tcb { field, product: SnpProduct::Milan, min, seen };
            denied(&changed(|scene| change(scene, low)), mismatch, code, "min_tcb.milan");
        }
    }
}

#[test]
fn component_that_only_turin_has_counts_there() {
    let scene = Scene::on(Product::Turin).with(|scene| {
        let low = Tcb { fmc: 0, ..scene.platform.current };
        (scene.platform.current, scene.platform.reported, scene.platform.committed) = (low, low, low);
    });
    let min = TcbVersion { fmc: Some(1), bootloader: 2, tee: 1, snp: 4, microcode: 71 };
    let seen = TcbVersion { fmc: Some(0), ..min };
    let mismatch = SnpMismatch::Tcb { field: TcbField::Current, product: SnpProduct::Turin, min, seen };
    denied(&scene, mismatch, "snp-current-tcb-below-minimum", "min_tcb.turin");
}

#[test]
fn level_is_exactly_the_one_that_is_named() {
    let mismatch = SnpMismatch::Vmpl { expected: 0, seen: 1 };
    denied(&changed(|scene| scene.guest.vmpl = 1), mismatch, "snp-vmpl-not-allowed", "vmpl");
    let mismatch = SnpMismatch::Vmpl { expected: 2, seen: 0 };
    denied(&ruled("vmpl = 0", "vmpl = 2"), mismatch, "snp-vmpl-not-allowed", "vmpl");
    ruled("vmpl = 0", "vmpl = 2").with(|scene| scene.guest.vmpl = 2).granted(1, Shown::Snp);
}

#[test]
fn report_has_at_least_the_lowest_version() {
    let mismatch = SnpMismatch::ReportVersion { min: 3, seen: 2 };
    let old = |scene: &mut Scene| scene.platform.report_version = 2;
    denied(&changed(old), mismatch, "snp-report-version-below-minimum", "min_report_version");
    ruled("min_report_version = 3", "min_report_version = 2").with(old).granted(1, Shown::Snp);
    for version in 3..=5 {
        changed(|scene| scene.platform.report_version = version).granted(1, Shown::Snp);
    }
}

#[test]
fn smt_is_off_by_the_guests_policy_and_on_the_platform() {
    type Change = fn(&mut Scene);
    let changes: [Change; 2] = [|scene| scene.guest.policy |= POLICY_SMT, |scene| scene.platform.platform_info |= 1];
    for change in changes {
        let scene = Scene::good().with(change);
        // A guest that forbids SMT is not started where it is on; both are looked at all the same.
        denied(&scene, SnpMismatch::Smt, "snp-smt-not-allowed", "smt");
        ruled("smt = false", "smt = true").with(change).granted(1, Shown::Snp);
    }
}

#[test]
fn firmware_that_can_be_rolled_back_is_provisional() {
    type Change = fn(&mut Scene);
    let changes: [Change; 2] = [|scene| scene.platform.current.snp += 1, |scene| scene.platform.firmware.build += 1];
    for change in changes {
        let scene = Scene::good().with(change);
        denied(&scene, SnpMismatch::ProvisionalFirmware, "snp-provisional-firmware", "provisional_firmware");
        ruled("provisional_firmware = false", "provisional_firmware = true").with(change).granted(1, Shown::Snp);
    }
}

#[test]
fn host_data_is_one_of_the_listed() {
    let change = |scene: &mut Scene| scene.guest.host_data = [0; 32];
    denied(&changed(change), SnpMismatch::HostData { seen: [0; 32] }, "snp-host-data-not-allowed", "host_data");
    ruled(&format!("host_data = [\"{PCR_0}\"]\n"), "").with(change).granted(1, Shown::Snp);
}

#[test]
fn id_block_is_signed_by_one_of_the_listed_keys() {
    for seen in [[0; 48], [0x89; 48]] {
        let mismatch = SnpMismatch::IdKey { seen: Box::new(seen) };
        denied(&changed(|scene| scene.guest.id_key_digest = seen), mismatch, "snp-id-key-not-allowed", "id_keys");
        let mismatch = SnpMismatch::AuthorKey { seen: Box::new(seen) };
        let scene = changed(|scene| scene.guest.author_key_digest = seen);
        denied(&scene, mismatch, "snp-author-key-not-allowed", "author_keys");
    }
}

#[test]
fn guest_svn_is_at_least_the_lowest() {
    let mismatch = SnpMismatch::GuestSvn { min: 7, seen: 6 };
    denied(&changed(|scene| scene.guest.guest_svn = 6), mismatch, "snp-guest-svn-below-minimum", "min_guest_svn");
    changed(|scene| scene.guest.guest_svn = u32::MAX).granted(1, Shown::Snp);
}

#[test]
fn firmware_in_use_and_committed_is_at_least_the_lowest() {
    let min = FirmwareVersion { major: 1, minor: 55, build: 21 };
    for (major, minor, build) in [(1, 55, 20), (1, 54, 255), (0, 255, 255)] {
        let seen = FirmwareVersion { major, minor, build };
        let old = Firmware { build, minor, major };
        let all = changed(|scene| (scene.platform.firmware, scene.platform.committed_firmware) = (old, old));
        denied(&all, SnpMismatch::Firmware { min, seen }, "snp-firmware-below-minimum", "min_firmware");
        // The host could still go back to it.
        let committed = changed(|scene| scene.platform.committed_firmware = old);
        denied(&committed, SnpMismatch::Firmware { min, seen }, "snp-firmware-below-minimum", "min_firmware");
    }
}

#[test]
fn platform_has_every_feature_that_is_named() {
    let bits = [(PlatformFeature::Tsme, 1), (PlatformFeature::Ecc, 2), (PlatformFeature::RaplDisabled, 3)];
    let more = [(PlatformFeature::CiphertextHiding, 4), (PlatformFeature::AliasCheck, 5)];
    for (missing, bit) in bits.into_iter().chain(more) {
        let line = format!("platform = [\"{missing}\"]");
        let ruled = || ruled("platform = [\"ecc\", \"alias-check\"]", &line);
        let scene = ruled().with(|scene| scene.platform.platform_info = 0x3e & !(1 << bit));
        denied(&scene, SnpMismatch::Platform { missing }, "snp-platform-feature-missing", "platform");
        ruled().with(|scene| scene.platform.platform_info = 1 << bit).granted(1, Shown::Snp);
    }
}

#[test]
fn revocation_list_is_a_must_where_the_rule_says_so() {
    let without = |scene: &mut Scene| scene.crls = false;
    let Err(refused) = changed(without).try_load(1, Shown::Snp) else { panic!("must be refused") };
    assert!(matches!(refused, VerifyError::Snp(SnpError::CrlMissing)), "{refused:?}");
    ruled("crl = \"required\"", "crl = \"if-present\"").with(without).granted(1, Shown::Snp);
}
