//! Compares the launch digests of crate `attestation` with those of crate `sev`, over a small synthetic image and over
//! every firmware image that is named, for all CPU models, some vCPU counts, features and kernels.
//!
//! `cargo run -- [OVMF.fd …]`: prints the vectors of `attestation/src/launch/tests.rs`, then what was compared. Ends with
//! a panic at the first difference.

#[path = "../../../src/launch/image.rs"]
mod image;

use std::path::{Path, PathBuf};

use attestation::{CpuType, Firmware, KernelHashes, Launch};
use sev::measurement::snp::{SnpMeasurementArgs, snp_calc_launch_digest};
use sev::measurement::vcpu_types::CpuType as SevCpu;
use sev::measurement::vmsa::{GuestFeatures, VMMType};
use sev::parser::ByteParser;

type Kernel<'a> = Option<(&'a [u8], Option<&'a [u8]>, &'a str)>;

/// Both digests of one launch; they must be one.
fn both(path: &Path, vcpus: u32, cpu: &str, features: u64, kernel: Kernel<'_>) -> Option<String> {
    let firmware = Firmware::parse(std::fs::read(path).unwrap()).unwrap();
    let hashes = kernel.map(|(kernel, initrd, line)| KernelHashes::of(kernel, initrd, line));
    let cpu_type = CpuType::named(cpu).unwrap();
    let launch = Launch { firmware: &firmware, vcpus, cpu: cpu_type, guest_features: features, kernel: hashes };
    let ours = launch.digest().ok().map(hex::encode);
    let folder = std::env::temp_dir();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(format!("launch-digest-check-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let args = SnpMeasurementArgs {
        vcpus,
        vcpu_type: SevCpu::try_from(cpu).unwrap(),
        ovmf_file: path.to_owned(),
        guest_features: GuestFeatures::from_bytes(&features.to_le_bytes()).unwrap(),
        kernel_file: kernel.map(|(kernel, _, _)| write("kernel", kernel)),
        initrd_file: kernel.and_then(|(_, initrd, _)| initrd.map(|initrd| write("initrd", initrd))),
        append: kernel.map(|(_, _, line)| line),
        ovmf_hash_str: None,
        vmm_type: Some(VMMType::QEMU),
    };
    let theirs = snp_calc_launch_digest(args).ok().map(|digest| digest.get_hex_ld());
    assert_eq!(ours, theirs, "{} vcpus {vcpus} {cpu} {features:#x} kernel {}", path.display(), kernel.is_some());
    ours
}

fn main() {
    let synthetic = std::env::temp_dir().join(format!("launch-digest-check-{}.fd", std::process::id()));
    std::fs::write(&synthetic, image::full().bytes()).unwrap();
    let kernel: Kernel<'_> = Some((b"kernel", Some(b"initrd"), "console=ttyS0"));
    let bare: Kernel<'_> = Some((b"kernel", None, ""));
    for (vcpus, cpu, features, kernel) in [
        (1, "EPYC-Milan", 1, None),
        (4, "EPYC-Milan", 1, None),
        (2, "EPYC-Turin", 1, None),
        (1, "EPYC-Milan", 0x21, None),
        (1, "EPYC-Milan", 1, kernel),
        (1, "EPYC-Milan", 1, bare),
    ] {
        println!("{}", both(&synthetic, vcpus, cpu, features, kernel).unwrap());
    }
    let paths: Vec<PathBuf> =
        std::iter::once(synthetic).chain(std::env::args_os().skip(1).map(PathBuf::from)).collect();
    for path in &paths {
        let mut compared = 0;
        let mut refused = 0;
        for cpu in ["EPYC", "EPYC-v4", "EPYC-IBPB", "EPYC-Rome-v2", "EPYC-Milan-v2", "EPYC-Genoa", "EPYC-Turin"] {
            for vcpus in [1, 2, 3, 8, 64] {
                for features in [0, 1, 0x21, 0x4001] {
                    for kernel in [None, kernel, bare] {
                        match both(path, vcpus, cpu, features, kernel) {
                            Some(_) => compared += 1,
                            None => refused += 1,
                        }
                    }
                }
            }
        }
        let one = both(path, 1, "EPYC-Milan", 1, None).unwrap_or_default();
        println!("{}: {compared} digests equal, {refused} refused by both; 1 vCPU EPYC-Milan {one}", path.display());
    }
}
