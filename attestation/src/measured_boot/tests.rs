//! Values against an image made here, and each refusal of one.

use proptest::prelude::*;

use super::*;
use crate::eventlog::EventLog;
use crate::eventlog::testlog;

/// A PE32+ image: headers of 0x200, then sections, then two bytes, then a certificate table of 8.
fn image(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 0x400];
    let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
    put(0, b"MZ");
    put(0x3c, &0x40u32.to_le_bytes());
    put(0x40, b"PE\0\0");
    put(0x46, &(sections.len() as u16).to_le_bytes());
    put(0x54, &240u16.to_le_bytes());
    put(0x58, &0x20bu16.to_le_bytes());
    put(0x58 + 60, &0x400u32.to_le_bytes());
    put(0x58 + 108, &16u32.to_le_bytes());
    put(0x58 + 112 + 36, &8u32.to_le_bytes());
    for (at, (name, data)) in sections.iter().enumerate() {
        let row = 0x58 + 240 + 40 * at;
        put(row, name.as_bytes());
        put(row + 8, &(data.len() as u32).to_le_bytes());
        put(row + 16, &512u32.to_le_bytes());
        put(row + 20, &(0x400 + 512 * at as u32).to_le_bytes());
    }
    for (_, data) in sections {
        let end = bytes.len() + 512;
        bytes.extend(*data);
        bytes.resize(end, 0);
    }
    bytes.extend(b"xx");
    bytes.extend([7; 8]);
    bytes
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    PeImage::parse(bytes).unwrap().authenticode_sha256().unwrap()
}

fn refusal(change: impl FnOnce(&mut Vec<u8>)) -> PeError {
    let mut bytes = image(&[(".linux", b"kernel")]);
    change(&mut bytes);
    PeImage::parse(&bytes).and_then(|image| image.authenticode_sha256()).unwrap_err()
}

#[test]
fn authenticode_digest_leaves_out_checksum_certificate_entry_and_certificates_alone() {
    let good = image(&[(".linux", b"kernel"), (".osrel", b"x")]);
    let expected = digest(&good);
    let skipped: Vec<usize> = (0..good.len() - 8)
        .filter(|at| {
            let mut changed = good.clone();
            changed[*at] ^= 0x80;
            PeImage::parse(&changed).and_then(|image| image.authenticode_sha256()) == Ok(expected)
        })
        .collect();
    // CheckSum, and the address in the certificate entry (its length decides what is left out).
    let unhashed = (0x98..0x9c).chain(0xe8..0xec).collect::<Vec<_>>();
    assert_eq!(skipped, unhashed);
    let mut resigned = good.clone();
    resigned.truncate(good.len() - 8);
    resigned.extend([9; 16]);
    resigned[0xec] = 16;
    assert_eq!(digest(&resigned), expected);
}

#[test]
fn image_with_one_thing_wrong_is_refused_for_that() {
    assert_eq!(refusal(|bytes| bytes[0] = 0), PeError::NotPe);
    assert_eq!(refusal(|bytes| bytes[0x40] = 0), PeError::NotPe);
    assert_eq!(refusal(|bytes| bytes[0x58] = 0), PeError::NotPe);
    assert_eq!(refusal(|bytes| bytes[0x46] = 97), PeError::SectionCount { found: 97 });
    assert_eq!(refusal(|bytes| bytes[0x58 + 61] = 0), PeError::HeaderLength { found: 0 });
    assert_eq!(refusal(|bytes| bytes[0x58 + 62] = 1), PeError::HeaderLength { found: 0x10400 });
    assert_eq!(refusal(|bytes| bytes[0xed] = 1), PeError::CertificateRange);
    assert_eq!(refusal(|bytes| bytes.truncate(0x500)), PeError::Truncated);
    let mut large = image(&[(".linux", b"kernel"), STUB_252]);
    large[0x58 + 240 + 11] = 0x7f;
    let parsed = PeImage::parse(&large).unwrap();
    assert_eq!(systemd_stub_pcr11(&parsed), Err(PeError::SectionLength { found: 0x7f00_0006 }));
    let found = crate::pe::PE_BYTES_MAX + 1;
    assert_eq!(PeImage::parse(&vec![0; found]).unwrap_err(), PeError::TooLong { found });
}

const STUB_252: (&str, &[u8]) = (".sdmagic", b"#### LoaderInfo: systemd-stub 252.39-1 ####");
const STUB_255: (&str, &[u8]) = (".sdmagic", b"#### LoaderInfo: systemd-stub 255.4 ####");
const STUB_257: (&str, &[u8]) = (".sdmagic", b"#### LoaderInfo: systemd-stub 257.13 ####");

fn pcr11(sections: &[(&str, &[u8])]) -> Result<[u8; 32], PeError> {
    let bytes = image(sections);
    systemd_stub_pcr11(&PeImage::parse(&bytes).unwrap())
}

#[test]
fn pcr_11_is_names_and_contents_in_the_order_of_the_stub() {
    let of = |parts: &[&[u8]]| Ok(pcr(parts.iter().map(|part| *Sha256Digest::of(part).as_bytes())));
    let linux: [&[u8]; 4] = [b".linux\0", b"kernel", b".osrel\0", b"os"];
    let (ucode, sbat): ([&[u8]; 2], [&[u8]; 2]) = ([b".ucode\0", b"code"], [b".sbat\0", b"sbat"]);
    let with = |stub| {
        pcr11(&[
            (".sbat", b"sbat"),
            (".osrel", b"os"),
            (".ucode", b"code"),
            (".linux", b"kernel"),
            (".pcrsig", b"no"),
            stub,
        ])
    };
    assert_eq!(with(STUB_252), of(&linux));
    assert_eq!(with(STUB_255), of(&[&linux[..], &sbat].concat()));
    assert_eq!(with(STUB_257), of(&[&linux[..], &ucode, &sbat].concat()));
}

#[test]
fn pcr_11_that_is_not_known_is_refused() {
    assert_eq!(pcr11(&[(".text", b"kernel"), STUB_252]), Err(PeError::NotUki));
    assert_eq!(pcr11(&[(".linux", b"kernel")]), Err(PeError::UkiStub { found: None }));
    let other: (&str, &[u8]) = (".sdmagic", b"#### LoaderInfo: systemd-stub 300 ####");
    assert_eq!(pcr11(&[(".linux", b"kernel"), other]), Err(PeError::UkiStub { found: Some(300) }));
    let choice = [(".linux", &b"kernel"[..]), (".profile", b"ID=a"), STUB_257];
    assert_eq!(pcr11(&choice), Err(PeError::UkiChoice { section: ".profile" }));
}

#[test]
fn base_log_gives_pcr_4_with_another_kernel_unless_it_has_several() {
    let bytes = testlog::write(&testlog::good());
    let replayed = EventLog::parse(&bytes).unwrap().replay();
    let same = replayed.pcr4_with_application(Sha256Digest::of(b"kernel image").as_bytes()).unwrap();
    assert_eq!(Some(same.as_slice()), replayed.pcr(Bank::Sha256, 4));
    assert_ne!(replayed.pcr4_with_application(&[1; 32]), Some(same));
    let mut two = testlog::good();
    two.push(two[8].clone());
    let bytes = testlog::write(&two);
    assert_eq!(EventLog::parse(&bytes).unwrap().replay().pcr4_with_application(&[1; 32]), None);
}

/// Debian 12, Linux 6.1, OVMF 2022.11, swtpm in QEMU 7.2 (q35, 512 MiB): `-append "console=ttyS0 quiet panic=-1"`, and an
/// initrd. Digests and PCRs as the guest showed them; [`QemuQ35`] made of the kernel file what has this digest.
mod recorded {
    pub(super) const KERNEL: &str = "14ea12cb8780504fc5e918864e3f41a6cc9698bace924ce173b108b91d6a93df";
    pub(super) const INITRD: &str = "c02a2c6a33eb48c3930ea36c63c48cb71521e099f0c16fec0da08d6b4bb6bbd8";
    pub(super) const OPTIONS: &str = "console=ttyS0 quiet panic=-1 initrd=initrd";
    pub(super) const PCR_4: &str = "227c684086ca0583491a9753801d521fa3894a2e1893d8002da59f265586284e";
    pub(super) const PCR_9: &str = "9b02de17e7695feb07913a5d30536b5c4b9326dc1a902f968ffff78d78738925";
}

fn hex32(text: &str) -> [u8; 32] {
    hex::decode(text).unwrap().try_into().unwrap()
}

#[test]
fn pcr_4_is_that_of_a_recorded_boot() {
    assert_eq!(hex::encode(direct_boot(hex32(recorded::KERNEL))), recorded::PCR_4);
    let bytes = image(&[(".text", b"kernel")]);
    assert_eq!(ovmf_direct_boot_pcr4(&PeImage::parse(&bytes).unwrap()), Ok(direct_boot(digest(&bytes))));
}

#[test]
fn pcr_9_is_that_of_a_recorded_boot() {
    let options = *Sha256Digest::of(&load_options(recorded::OPTIONS).unwrap()).as_bytes();
    assert_eq!(hex::encode(pcr([options, hex32(recorded::INITRD)])), recorded::PCR_9);
    let initrd = *Sha256Digest::of(b"initrd").as_bytes();
    assert_eq!(efi_stub_pcr9(recorded::OPTIONS, Some(b"initrd")), Ok(pcr([options, initrd])));
    assert_eq!(efi_stub_pcr9(recorded::OPTIONS, None), Ok(pcr([options])));
    assert_eq!(efi_stub_pcr9("ä", None), Err(EventLogError::CommandLineNotAscii));
}

proptest! {
    #[test]
    fn any_change_of_an_image_is_read_or_refused_without_a_panic(at in 0..1500usize, to in any::<u8>(), cut in 0..2000usize) {
        let mut bytes = image(&[(".linux", b"kernel"), (".osrel", b"x")]);
        bytes[at] = to;
        bytes.truncate(cut);
        if let Ok(image) = PeImage::parse(&bytes) {
            let _ = image.authenticode_sha256();
        }
    }
}
