//! The SEV-SNP launch digest: what the secure processor measures while a host builds a guest, computed before a boot.
//!
//! SEV-SNP Firmware ABI Specification (AMD 56860), section 8.17 "SNP_LAUNCH_UPDATE", PAGE_INFO: the digest starts as 48
//! zeros; each page makes it SHA-384 of 112 bytes, which hold the digest before, the page's own, type and address.
//! In which order pages come is the VMM's choice. Here it is QEMU's: the firmware image, the pages that its SEV metadata
//! lists, one VMSA per vCPU. The result was compared with crate `sev` (tools/launch-digest-check).
//!
//! It covers memory contents at launch and the first state of each vCPU. It does not cover disks, devices, or kernel and
//! initrd unless the firmware has a kernel hashes page.

#[cfg(test)]
mod image;
mod ovmf;
#[cfg(test)]
mod tests;
mod vmsa;

use ring::digest::{SHA256, SHA384, digest};

pub use ovmf::{FIRMWARE_BYTES_MAX, Firmware};
pub use vmsa::{CpuType, GUEST_FEATURES_SNP};

use crate::error::LaunchError;
use ovmf::{Section, SectionKind};

/// The most vCPUs (QEMU q35, KVM).
pub const VCPUS_MAX: u32 = 4096;
const PAGE: usize = 4096;
const PAGE_ADDRESS_STEP: u64 = 4096;
/// Where the RMP says that VMSAs are: all address bits, page-aligned (56860, "VMSA" page type).
const VMSA_ADDRESS: u64 = 0xffff_ffff_f000;

/// What a guest is launched with.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    /// The firmware image.
    pub firmware: &'a Firmware,
    /// How many vCPUs.
    pub vcpus: u32,
    /// QEMU's CPU model.
    pub cpu: CpuType,
    /// SEV_FEATURES of the VMSA. QEMU sets bit 0, SNPActive; newer kernels others too.
    pub guest_features: u64,
    /// The kernel hashes, where QEMU runs with `kernel-hashes=on`.
    pub kernel: Option<KernelHashes>,
}

/// SHA-256 of kernel, initrd and command line, as QEMU puts them in the kernel hashes page (QEMU, docs/system/i386/
/// amd-memory-encryption.rst; target/i386/sev.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelHashes {
    kernel: [u8; 32],
    initrd: [u8; 32],
    command_line: [u8; 32],
}

impl KernelHashes {
    /// Of the files' contents. No initrd hashes as an empty one; the command line is hashed with its NUL, so none is one
    /// NUL.
    #[must_use]
    pub fn of(kernel: &[u8], initrd: Option<&[u8]>, command_line: &str) -> Self {
        let terminated = [command_line.as_bytes(), &[0]].concat();
        Self { kernel: sha256(kernel), initrd: sha256(initrd.unwrap_or_default()), command_line: sha256(&terminated) }
    }

    /// The page: zeros, and at `offset` the table: GUID 16, length 2 (168), then for command line, initrd, kernel each
    /// GUID 16, length 2 (50), SHA-256 32.
    fn page(&self, offset: usize) -> Result<[u8; PAGE], LaunchError> {
        let mut table = guid(0x9438_d606, 0x4f22, 0x4cc9, 0xb479_a793_d411_fd21).to_vec();
        table.extend(168u16.to_le_bytes());
        let entries = [
            (guid(0x97d0_2dd8, 0xbd20, 0x4c94, 0xaa78_e771_4d36_ab2a), self.command_line),
            (guid(0x44ba_f731, 0x3a2f, 0x4bd7, 0x9af1_41e2_9169_781d), self.initrd),
            (guid(0x4de7_9437, 0xabd2, 0x427f, 0xb835_d5b1_72d2_045b), self.kernel),
        ];
        for (guid, hash) in entries {
            table.extend(guid);
            table.extend(50u16.to_le_bytes());
            table.extend(hash);
        }
        let mut page = [0; PAGE];
        let room = page.get_mut(offset..).and_then(|rest| rest.get_mut(..table.len()));
        room.ok_or(LaunchError::HashTableOutsidePage)?.copy_from_slice(&table);
        Ok(page)
    }
}

impl Launch<'_> {
    /// The launch digest, which a report has in its field MEASUREMENT.
    ///
    /// # Errors
    /// [`LaunchError`]: no vCPU or too many; kernel hashes where the firmware has no page for them. Without kernel hashes
    /// such a page is measured as zeros.
    pub fn digest(&self) -> Result<[u8; 48], LaunchError> {
        if self.vcpus == 0 || self.vcpus > VCPUS_MAX {
            return Err(LaunchError::VcpuCount { found: self.vcpus });
        }
        let mut context = Context { digest: [0; 48] };
        let mut address = self.firmware.address();
        for page in self.firmware.image().chunks_exact(PAGE) {
            context.update(PageType::Normal, address, sha384(page));
            address = address.wrapping_add(PAGE_ADDRESS_STEP);
        }
        for section in self.firmware.sections() {
            self.update_section(&mut context, section)?;
        }
        if self.kernel.is_some() && !self.firmware.sections().iter().any(|s| s.kind == SectionKind::KernelHashes) {
            return Err(LaunchError::NoKernelHashesSection);
        }
        let first = sha384(&vmsa::page(vmsa::RESET_VECTOR, self.cpu, self.guest_features));
        let other = sha384(&vmsa::page(self.firmware.reset_address(), self.cpu, self.guest_features));
        for vcpu in 0..self.vcpus {
            context.update(PageType::Vmsa, VMSA_ADDRESS, if vcpu == 0 { first } else { other });
        }
        Ok(context.digest)
    }

    fn update_section(&self, context: &mut Context, section: &Section) -> Result<(), LaunchError> {
        let address = u64::from(section.address);
        let pages = u64::from(section.size) / PAGE_ADDRESS_STEP;
        let addresses = (0..pages).map(|page| address.wrapping_add(page.wrapping_mul(PAGE_ADDRESS_STEP)));
        match (section.kind, &self.kernel) {
            (SectionKind::KernelHashes, Some(hashes)) => {
                let table = self.firmware.hash_table_address().ok_or(LaunchError::NoHashTable)?;
                // The page's digest has the table at the place that the firmware looks for it.
                let offset = usize::try_from(table % 4096).map_err(|_| LaunchError::HashTableOutsidePage)?;
                context.update(PageType::Normal, address, sha384(&hashes.page(offset)?));
            }
            (SectionKind::SecMemory | SectionKind::SvsmCaa | SectionKind::KernelHashes, _) => {
                addresses.for_each(|address| context.update(PageType::Zero, address, [0; 48]));
            }
            (SectionKind::Secrets, _) => context.update(PageType::Secrets, address, [0; 48]),
            (SectionKind::Cpuid, _) => context.update(PageType::Cpuid, address, [0; 48]),
        }
        Ok(())
    }
}

/// PAGE_TYPE (56860, table "Page Type Encodings").
#[derive(Clone, Copy)]
enum PageType {
    Normal = 1,
    Vmsa = 2,
    Zero = 3,
    Secrets = 5,
    Cpuid = 6,
}

struct Context {
    digest: [u8; 48],
}

impl Context {
    /// PAGE_INFO: DIGEST_CUR 48, CONTENTS 48, LENGTH 2 (0x70), PAGE_TYPE 1, IMI_PAGE 1, VMPL3, 2 and 1 permissions 1 each,
    /// reserved 1, GPA 8.
    fn update(&mut self, page_type: PageType, address: u64, contents: [u8; 48]) {
        let mut info = [0; 112];
        let mut at = 0;
        for field in [
            &self.digest[..],
            &contents,
            &0x70u16.to_le_bytes(),
            &[page_type as u8, 0, 0, 0, 0, 0],
            &address.to_le_bytes(),
        ] {
            for (to, from) in info.iter_mut().skip(at).zip(field) {
                *to = *from;
            }
            at += field.len();
        }
        self.digest = sha384(&info);
    }
}

/// A GUID in the byte order of UEFI: three little-endian fields, then eight bytes.
pub(crate) const fn guid(first: u32, second: u16, third: u16, rest: u64) -> [u8; 16] {
    let ([a, b, c, d], [e, f], [g, h]) = (first.to_le_bytes(), second.to_le_bytes(), third.to_le_bytes());
    let [i, j, k, l, m, n, o, p] = rest.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

fn sha384(bytes: &[u8]) -> [u8; 48] {
    let mut array = [0; 48];
    array.copy_from_slice(digest(&SHA384, bytes).as_ref());
    array
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut array = [0; 32];
    array.copy_from_slice(digest(&SHA256, bytes).as_ref());
    array
}
