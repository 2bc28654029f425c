//! The guest side on a soft platform that another thread serves: reports through Linux's tree, derived keys, sealing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ring::rand::SystemRandom;
use rustix::io::Errno;
use tempfile::TempDir;
use vault_enclave::snp::{
    GuestFields, GuestState, KeyRequest, KeySpec, RootKey, SnpChoice, SnpDevice, SnpDeviceError, SnpDeviceKind,
    SnpSealing, SvsmService,
};
use vault_tests::forge::amd::Product;
use vault_tests::forge::platform::{SoftGuest, SoftPlatform};
use vault_tests::forge::serve::Served;
use vault_tests::forge::tsm::SoftMachine;

struct Scene {
    served: Served,
    dir: TempDir,
}

impl Scene {
    fn new(change: impl FnOnce(&mut SoftGuest)) -> Self {
        let dir = tempfile::Builder::new().prefix("weightvault-snp-").tempdir().unwrap();
        let machine = SoftMachine::new(SoftPlatform::new(Product::Milan), SoftGuest::new([7; 48]).with(change));
        let served = Served::start(dir.path(), machine).unwrap_or_else(|error| {
            panic!("{error}: the soft platform needs /dev/fuse, and root or fusermount3 (package fuse3)")
        });
        Self { served, dir }
    }

    fn change(&self, change: impl FnOnce(&mut SoftMachine)) {
        change(&mut self.served.machine.lock().unwrap());
    }

    /// By what a person writes on the command line.
    fn device(&self) -> SnpDevice {
        let choice: SnpChoice = format!("soft:{}", self.dir.path().display()).parse().unwrap();
        SnpDevice::open(&choice, None).unwrap()
    }

    /// The tree alone, as the kernel's own would be named.
    fn tsm(&self) -> SnpDevice {
        let choice: SnpChoice = format!("configfs:{}", self.dir.path().join("report").display()).parse().unwrap();
        SnpDevice::open(&choice, None).unwrap()
    }

    fn state(&self) -> GuestState {
        GuestState::of(&self.device().report(&[0; 64], None).unwrap()).unwrap()
    }

    fn entries(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("report")).unwrap().count()
    }
}

/// Has the key of a record derived, and gives what the soft platform makes of the very request: a key itself shows its bytes
/// to nobody outside its crate, whose own tests compare them.
fn derives(scene: &Scene, sealing: &SnpSealing) -> Result<[u8; 32], &'static str> {
    sealing.derive(&scene.device()).map_err(|error| error.code())?;
    let request = sealing.request().unwrap();
    let length = if request.message_version() == 1 { 32 } else { 40 };
    let request = vault_tests::forge::derived_key::KeyRequest::decode(&request.encode()[..length]).unwrap();
    let machine = scene.served.machine.lock().unwrap().clone();
    Ok(machine.platform.derive_key(&machine.guest, &request).unwrap())
}

#[test]
fn soft_platform_gives_the_guest_its_report_and_certificates() {
    let scene = Scene::new(|_| {});
    let device = scene.device();
    assert_eq!(device.kind(), SnpDeviceKind::Soft);
    let raw = device.report(&[0xa5; 64], None).unwrap();
    assert_eq!(
        (raw.report.len(), &raw.report[0x50..0x90], &raw.report[0x90..0xc0]),
        (1184, &[0xa5; 64][..], &[7; 48][..])
    );
    assert!(raw.certificate_table.len() > 1184);
    let tsm = scene.tsm();
    assert_eq!(tsm.kind(), SnpDeviceKind::ConfigfsTsm);
    assert_eq!(tsm.report(&[1; 64], None).unwrap().report[0x50..0x90], [1; 64]);
    assert_eq!(scene.entries(), 0, "an entry is left behind");
}

#[test]
fn guest_under_an_svsm_gets_its_own_level_or_the_svsms_report() {
    let scene = Scene::new(|guest| guest.vmpl = 2);
    scene.change(|machine| machine.manifest = b"the services".to_vec());
    assert_eq!(scene.device().report(&[1; 64], None).unwrap().report[0x30], 2);
    assert_eq!(scene.device().report(&[1; 64], Some(3)).unwrap().report[0x30], 3);
    let below = scene.device().report(&[1; 64], Some(0));
    assert_eq!(below, Err(SnpDeviceError::VmplBelowFloor { asked: 0, floor: 2 }));
    let svsm = scene.device().with_service(SvsmService::default()).unwrap().report(&[1; 64], None).unwrap();
    assert_eq!((svsm.report[0x30], svsm.manifest.as_deref()), (0, Some(&b"the services"[..])));
    assert_eq!(scene.entries(), 0);

    let alone = Scene::new(|_| {});
    let refused = alone.device().with_service(SvsmService::default()).unwrap().report(&[1; 64], None);
    // Linux's tree takes no new files: an attribute that is not there cannot be made by writing to it.
    assert!(matches!(refused, Err(SnpDeviceError::AttributeMissing("service_provider"))), "{refused:?}");
    assert_eq!(alone.entries(), 0);
}

#[test]
fn busy_host_and_other_failures_are_told_apart() {
    let scene = Scene::new(|_| {});
    for (failure, code) in [(Errno::INVAL, "snp-system"), (Errno::NXIO, "snp-no-provider"), (Errno::PERM, "snp-denied")]
    {
        scene.change(|machine| machine.failure = Some(failure));
        assert_eq!(scene.device().report(&[1; 64], None).err().map(|error| error.code()), Some(code), "{failure}");
        assert_eq!(scene.entries(), 0);
    }
    // Asked five times, a second apart.
    scene.change(|machine| machine.failure = Some(Errno::AGAIN));
    assert_eq!(scene.device().report(&[1; 64], None), Err(SnpDeviceError::Busy));
    scene.change(|machine| machine.failure = None);
    assert!(scene.device().report(&[1; 64], None).is_ok());
}

#[test]
fn oversize_certificate_table_is_refused() {
    let scene = Scene::new(|_| {});
    scene.change(|machine| machine.certificates = Some(vec![1; (64 << 10) + 1]));
    let refused = scene.device().report(&[1; 64], None);
    assert_eq!(refused, Err(SnpDeviceError::Oversize { what: "auxblob", max: 64 << 10 }));
    scene.change(|machine| machine.certificates = Some(Vec::new()));
    assert_eq!(scene.device().report(&[1; 64], None).unwrap().certificate_table, b"");
}

#[test]
fn sealed_key_comes_back_after_a_firmware_update_and_never_in_another_guest() {
    let scene = Scene::new(|guest| guest.guest_svn = 3);
    let sealing = SnpSealing::new(&scene.state(), RootKey::Vcek, &SystemRandom::new()).unwrap();
    let key = derives(&scene, &sealing).unwrap();

    scene.change(|machine| {
        let (mut tcb, firmware) = (machine.platform.current, machine.platform.firmware);
        tcb.snp += 1;
        machine.platform.update(tcb, firmware);
        machine.platform.commit();
    });
    let stored = SnpSealing::parse(&sealing.encode()).unwrap();
    assert_eq!(derives(&scene, &stored), Ok(key));
    let successor = stored.successor(&scene.state(), &SystemRandom::new()).unwrap().unwrap();
    assert_ne!(derives(&scene, &successor), Ok(key));

    // Where an update is taken back, the firmware refuses the later key, and the record says why before it is asked.
    let update = scene.served.machine.lock().unwrap().platform.clone();
    scene.change(|machine| machine.platform.committed.snp -= 1);
    assert_eq!(derives(&scene, &successor), Err("snp-key-parameters"));
    let behind = successor.successor(&scene.state(), &SystemRandom::new()).err();
    assert_eq!(behind.map(|error| error.code()), Some("snp-tcb-went-back"));
    scene.change(|machine| machine.platform = update);

    let changes: [fn(&mut SoftGuest); 2] = [|guest| guest.measurement[0] ^= 1, |guest| guest.policy |= 1 << 19];
    for change in changes {
        let before = scene.served.machine.lock().unwrap().guest.clone();
        scene.change(|machine| change(&mut machine.guest));
        assert_ne!(derives(&scene, &stored), Ok(key), "another guest");
        scene.change(|machine| machine.guest = before);
    }
    scene.change(|machine| machine.guest.guest_svn = 2);
    assert_eq!(derives(&scene, &stored), Err("snp-key-parameters"));
}

#[test]
fn root_key_that_the_chip_does_not_have_is_refused() {
    let scene = Scene::new(|_| {});
    for root_key in [RootKey::Vmrk, RootKey::Vlek] {
        let spec = KeySpec {
            root_key,
            fields: GuestFields::default(),
            guest_svn: None,
            tcb_version: None,
            launch_mit_vector: None,
            vmpl: 0,
        };
        let refused = scene.device().derived_key(&KeyRequest::new(spec).unwrap()).err();
        assert_eq!(refused, Some(SnpDeviceError::KeySelect), "{root_key:?}");
    }
}
