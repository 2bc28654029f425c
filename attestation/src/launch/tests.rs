//! The digest of images made here, with values that crate `sev` gave for the same inputs (tools/launch-digest-check,
//! which prints this table); and each refusal.

use proptest::prelude::*;

use super::image::{Image, full};
use super::{CpuType, FIRMWARE_BYTES_MAX, Firmware, KernelHashes, Launch};
use crate::error::LaunchError;

fn firmware(change: impl FnOnce(&mut Image)) -> Result<Firmware, LaunchError> {
    let mut image = full();
    change(&mut image);
    Firmware::parse(image.bytes())
}

fn refusal(change: impl FnOnce(&mut Image)) -> LaunchError {
    firmware(change).unwrap_err()
}

fn launch(firmware: &Firmware) -> Launch<'_> {
    Launch { firmware, vcpus: 1, cpu: CpuType::EpycMilan, guest_features: 1, kernel: None }
}

#[test]
fn digests_are_those_that_crate_sev_computes() {
    let firmware = firmware(|_| {}).unwrap();
    let good = launch(&firmware);
    let kernel = Some(KernelHashes::of(b"kernel", Some(b"initrd"), "console=ttyS0"));
    let no_initrd = Some(KernelHashes::of(b"kernel", None, ""));
    let rows = [
        (good.clone(), VECTORS[0]),
        (Launch { vcpus: 4, ..good.clone() }, VECTORS[1]),
        (Launch { cpu: CpuType::EpycTurin, vcpus: 2, ..good.clone() }, VECTORS[2]),
        (Launch { guest_features: 0x21, ..good.clone() }, VECTORS[3]),
        (Launch { kernel, ..good.clone() }, VECTORS[4]),
        (Launch { kernel: no_initrd, ..good.clone() }, VECTORS[5]),
    ];
    for (launch, expected) in rows {
        assert_eq!(hex::encode(launch.digest().unwrap()), expected);
    }
}

/// Crate `sev` 8.0.0, `snp_calc_launch_digest`, VMM QEMU.
const VECTORS: [&str; 6] = [
    "5765bd00f7be5b6ce8736e1e55424f1b7212b86aedfaf27bae135073904c73a389c389d9f7ae3b66ea6e6aab0f45df76",
    "c110c52222969ac118bab899195fa25c3704957432ee45ce397a660fd5c8f89cf97eb3952a2c619e53ba01b8b7aa4f6a",
    "e54d68995bc172d417320acac6b82ea90b1e616dbeb9e7180286c3f614ee0788f62d3eab6942a5fb6d2f0b77e9c1f1a6",
    "d9277987de96bb7f522e25cfb02f6630d33dd316d5cf16418b8960bf28d238a471f79a6f40ca54da62d55f89923d830e",
    "f08081e9fabdae3e97ba3abdbea6e5104485c247a6b729e12257343a408e0acf792e79e4432b741806e85df70a889597",
    "4b8487f0fb9d564eecd4bfa422415981937cac4dc54815592cb51222c738908571b5bad64439a1dfa19987b9777ebb65",
];

#[test]
fn launch_that_has_no_digest_is_refused() {
    let good = firmware(|_| {}).unwrap();
    assert_eq!(Launch { vcpus: 0, ..launch(&good) }.digest(), Err(LaunchError::VcpuCount { found: 0 }));
    assert_eq!(Launch { vcpus: 4097, ..launch(&good) }.digest(), Err(LaunchError::VcpuCount { found: 4097 }));
    let kernel = Some(KernelHashes::of(b"k", None, ""));
    let plain = firmware(|image| image.sections.truncate(4)).unwrap();
    assert_eq!(Launch { kernel, ..launch(&plain) }.digest(), Err(LaunchError::NoKernelHashesSection));
    let no_table = firmware(|image| image.hashes = None).unwrap();
    assert_eq!(Launch { kernel, ..launch(&no_table) }.digest(), Err(LaunchError::NoHashTable));
    assert!(!no_table.takes_kernel_hashes() && !plain.takes_kernel_hashes() && good.takes_kernel_hashes());
    let at_end = firmware(|image| image.hashes = Some(0x0081_0fff)).unwrap();
    assert_eq!(Launch { kernel, ..launch(&at_end) }.digest(), Err(LaunchError::HashTableOutsidePage));
}

#[test]
fn image_with_one_thing_wrong_is_refused_for_that() {
    let good = full().bytes();
    let parse = |image: &[u8]| Firmware::parse(image.to_vec()).unwrap_err();
    assert_eq!(parse(&good[1..]), LaunchError::FirmwareLength { found: good.len() - 1 });
    assert_eq!(parse(&[]), LaunchError::FirmwareLength { found: 0 });
    let found = FIRMWARE_BYTES_MAX + 4096;
    assert_eq!(parse(&vec![0; found]), LaunchError::FirmwareLength { found });
    let with = |at_from_end: usize, byte: u8| {
        let mut image = good.clone();
        let at = image.len() - at_from_end;
        image[at] = byte;
        parse(&image)
    };
    assert_eq!(with(33, 0), LaunchError::NoFooter);
    assert_eq!(with(50, 1), LaunchError::TableMalformed);
    assert_eq!(with(4096, b'B'), LaunchError::MetadataMalformed);
    assert_eq!(with(4096 - 8, 2), LaunchError::MetadataMalformed);
    assert_eq!(with(4096 - 12, 255), LaunchError::MetadataMalformed);
    assert_eq!(refusal(|image| image.reset = None), LaunchError::NoResetBlock);
    assert_eq!(refusal(|image| image.sections[0].2 = 7), LaunchError::SectionKind { kind: 7 });
    let range = |address, size| LaunchError::SectionRange { address, size };
    assert_eq!(refusal(|image| image.sections[0].1 = 100), range(0x80_0000, 100));
    assert_eq!(refusal(|image| image.sections[0].0 = 1), range(1, 0x9000));
    assert_eq!(refusal(|image| image.sections[1].1 = 0x2000), range(0x80_d000, 0x2000));
    assert_eq!(refusal(|image| image.sections[0].1 = 0x8000_0000), range(0x80_0000, 0x8000_0000));
    let mut no_metadata = good.clone();
    let entry = good.len() - 32 - 18 - 22 - 22 - 1;
    no_metadata[entry] ^= 1;
    assert_eq!(parse(&no_metadata), LaunchError::NoMetadata);
}

#[test]
fn every_input_changes_the_digest() {
    let good = firmware(|_| {}).unwrap();
    let base = launch(&good);
    let hashes = |line| Some(KernelHashes::of(b"k", None, line));
    let other = firmware(|image| image.reset = Some(0x0080_b005)).unwrap();
    let moved = firmware(|image| image.sections[1].0 = 0x90_0000).unwrap();
    let digests = [
        base.clone(),
        Launch { vcpus: 2, ..base.clone() },
        Launch { cpu: CpuType::EpycGenoa, ..base.clone() },
        Launch { guest_features: 0, ..base.clone() },
        Launch { kernel: hashes("a"), ..base.clone() },
        Launch { kernel: hashes("b"), ..base.clone() },
        launch(&moved),
        Launch { vcpus: 2, ..launch(&other) },
    ]
    .map(|launch| launch.digest().unwrap());
    for (at, digest) in digests.iter().enumerate() {
        assert!(!digests[..at].contains(digest), "{at}");
    }
}

proptest! {
    #[test]
    fn any_change_of_an_image_is_read_or_refused_without_a_panic(at in 0..16384usize, to in any::<u8>()) {
        let mut image = full().bytes();
        image[at] = to;
        if let Ok(firmware) = Firmware::parse(image) {
            let _ = launch(&firmware).digest();
        }
    }
}
