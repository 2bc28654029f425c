//! The kernel as QEMU's `-kernel` hands it to OVMF: not the file, but the file with a filled-in setup header.
//!
//! QEMU writes what a boot loader writes (hw/i386/x86.c, `x86_load_linux`; Linux, Documentation/arch/x86/boot.rst), and
//! the firmware then measures those bytes into PCR 4. It does not where the guest is an SEV guest, for the sake of the
//! kernel hashes; and from version 10.0 it offers the file as it is beside it, for firmware that asks for `etc/boot/kernel`.
//!
//! Seen with QEMU 7.2.22, machine q35: what it offers to the firmware for the memory sizes and kernels of the tests, and
//! PCRs 4 and 9 of two boots of Debian 12's kernel 6.1 under OVMF 2022.11, with 512 and 600 MiB, an initrd, with and without
//! `-append`.

use crate::error::KernelHeaderError;
use crate::le::{End, LeReader};

/// What ACPI tables take at the end of the memory below 4 GiB (`acpi_data_size` of pc machines).
const ACPI_BYTES: u64 = 0x28000;
/// From this much memory on, q35 has only [`SPLIT`] of it below 4 GiB.
const SPLIT_FROM: u64 = 0xb000_0000;
const SPLIT: u64 = 0x8000_0000;
/// Where the command line goes, and where it is from the real-mode code at 0x10000, less a boot sector.
const COMMAND_LINE: u32 = 0x2_0000;
const HEAP_END: u16 = 0xfe00;
/// XLF_CAN_BE_LOADED_ABOVE_4G.
const LOADED_ABOVE_4G: u16 = 1 << 1;

/// A guest of machine type q35 that QEMU starts with `-kernel`, without `-dtb`, and that is no SEV guest.
#[derive(Clone, Copy, Debug)]
pub struct QemuQ35<'a> {
    /// Memory, in MiB (`-m`), without `max-ram-below-4g`.
    pub memory_mib: u32,
    /// The length of the initrd.
    pub initrd_bytes: Option<usize>,
    /// `-append`.
    pub command_line: &'a str,
}

impl QemuQ35<'_> {
    /// The bytes that the firmware gets for that kernel file: type_of_loader 0xb0, CAN_USE_HEAP, heap_end_ptr,
    /// cmd_line_ptr, and for an initrd ramdisk_image and ramdisk_size. The initrd goes to the highest page that it fits at.
    ///
    /// # Errors
    /// [`KernelHeaderError`].
    pub fn kernel(&self, file: &[u8]) -> Result<Vec<u8>, KernelHeaderError> {
        let header = Header::read(file)?;
        if header.protocol < 0x20c {
            return Err(KernelHeaderError::Old { found: header.protocol });
        }
        if header.load_flags & 1 == 0 {
            return Err(KernelHeaderError::LoadedLow);
        }
        // QEMU looks for it anywhere in the text, so in the middle of a word too.
        if self.command_line.contains("vga=") {
            return Err(KernelHeaderError::VideoMode);
        }
        let mut kernel = file.to_vec();
        let mut put = |at: usize, value: &[u8]| {
            kernel.iter_mut().skip(at).zip(value).for_each(|(byte, new)| *byte = *new);
        };
        put(0x210, &[0xb0, header.load_flags | 0x80]);
        put(0x224, &HEAP_END.to_le_bytes());
        put(0x228, &COMMAND_LINE.to_le_bytes());
        if let Some(length) = self.initrd_bytes {
            let (address, length) = self.initrd(&header, length).ok_or(KernelHeaderError::InitrdOutsideMemory)?;
            put(0x218, &address.to_le_bytes());
            put(0x21c, &length.to_le_bytes());
        }
        Ok(kernel)
    }

    /// Where the initrd goes, and its length.
    fn initrd(&self, header: &Header, length: usize) -> Option<(u32, u32)> {
        let memory = u64::from(self.memory_mib) << 20;
        let below_4g = if memory >= SPLIT_FROM { SPLIT } else { memory };
        let highest = match header.xloadflags & LOADED_ABOVE_4G {
            0 => header.initrd_addr_max,
            _ => u32::MAX,
        };
        let highest = u64::from(highest).min(below_4g.checked_sub(ACPI_BYTES + 1)?);
        let length = u32::try_from(length).ok()?;
        let address = highest.checked_sub(u64::from(length)).filter(|room| *room > 0)? & !4095;
        Some((u32::try_from(address).ok()?, length))
    }
}

/// The fields that decide.
struct Header {
    protocol: u16,
    load_flags: u8,
    initrd_addr_max: u32,
    xloadflags: u16,
}

impl Header {
    fn read(file: &[u8]) -> Result<Self, KernelHeaderError> {
        let at = |offset| LeReader::at(file, offset);
        if at(0x202)?.take(4)? != b"HdrS" {
            return Err(KernelHeaderError::Missing);
        }
        Ok(Self {
            protocol: at(0x206)?.u16()?,
            load_flags: at(0x211)?.u8()?,
            initrd_addr_max: at(0x22c)?.u32()?,
            xloadflags: at(0x236)?.u16()?,
        })
    }
}

impl From<End> for KernelHeaderError {
    fn from(End: End) -> Self {
        Self::Missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel file with only a setup header: its protocol, `xloadflags` and `initrd_addr_max`.
    fn file(protocol: u16, xloadflags: u16, initrd_addr_max: u32) -> Vec<u8> {
        let mut file = vec![0; 4096];
        let mut put = |at: usize, what: &[u8]| file[at..at + what.len()].copy_from_slice(what);
        put(0x1f1, &[1]);
        put(0x202, b"HdrS");
        put(0x206, &protocol.to_le_bytes());
        put(0x211, &[1]);
        put(0x22c, &initrd_addr_max.to_le_bytes());
        put(0x236, &xloadflags.to_le_bytes());
        file
    }

    fn modern() -> Vec<u8> {
        file(0x20f, 0x7f, 0x7fff_ffff)
    }

    fn guest(memory_mib: u32, initrd_bytes: Option<usize>) -> QemuQ35<'static> {
        QemuQ35 { memory_mib, initrd_bytes, command_line: "console=ttyS0" }
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Read from the fw_cfg device of QEMU 7.2.22 (-machine q35), which was given these very files.
    #[test]
    fn initrd_addresses_are_those_that_qemu_gave() {
        let seen = [
            (modern(), 512, 5000, 0x1ffd_6000),
            (modern(), 1024, 5000, 0x3ffd_6000),
            (modern(), 2815, 5000, 0xafed_6000),
            (modern(), 2816, 5000, 0x7ffd_6000),
            (modern(), 2817, 5000, 0x7ffd_6000),
            (modern(), 4096, 5000, 0x7ffd_6000),
            (modern(), 16384, 5000, 0x7ffd_6000),
            (modern(), 512, 1, 0x1ffd_7000),
            (modern(), 512, 4096, 0x1ffd_6000),
            (modern(), 2048, 200 << 20, 0x737d_7000),
            (file(0x20f, 0, 0x7f_ffff), 512, 5000, 0x7f_e000),
            (file(0x20c, 2, 0x7f_ffff), 512, 5000, 0x1ffd_6000),
        ];
        for (file, memory, length, address) in seen {
            let kernel = guest(memory, Some(length)).kernel(&file).unwrap();
            assert_eq!(
                (u32_at(&kernel, 0x218), u32_at(&kernel, 0x21c) as usize),
                (address, length),
                "{memory} {length}"
            );
        }
    }

    #[test]
    fn only_the_fields_that_qemu_changed_change() {
        let before = modern();
        let changed = |initrd| -> Vec<usize> {
            let after = guest(512, initrd).kernel(&before).unwrap();
            (0..before.len()).filter(|at| after[*at] != before[*at]).collect()
        };
        assert_eq!(changed(None), [0x210, 0x211, 0x225, 0x22a]);
        assert_eq!(changed(Some(5000)), [0x210, 0x211, 0x219, 0x21a, 0x21b, 0x21c, 0x21d, 0x225, 0x22a]);
        let after = guest(512, None).kernel(&before).unwrap();
        assert_eq!((after[0x210], after[0x211], u32_at(&after, 0x228)), (0xb0, 0x81, 0x2_0000));
        assert_eq!(after[0x224..0x226], [0, 0xfe]);
    }

    #[test]
    fn kernel_that_qemu_fills_in_otherwise_is_refused() {
        let refusal = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut file = modern();
            change(&mut file);
            guest(512, Some(5000)).kernel(&file).unwrap_err()
        };
        assert_eq!(refusal(&|file| file[0x202] = 0), KernelHeaderError::Missing);
        assert_eq!(refusal(&|file| file.truncate(0x237)), KernelHeaderError::Missing);
        assert_eq!(refusal(&|file| file[0x206] = 0x0b), KernelHeaderError::Old { found: 0x20b });
        assert_eq!(refusal(&|file| file[0x211] = 0), KernelHeaderError::LoadedLow);
        let vga = QemuQ35 { command_line: "quiet vga=normal", ..guest(512, None) };
        assert_eq!(vga.kernel(&modern()), Err(KernelHeaderError::VideoMode));
        for (memory, length) in [(0, 1), (1, 1 << 20), (512, 512 << 20)] {
            let refused = guest(memory, Some(length)).kernel(&modern());
            assert_eq!(refused, Err(KernelHeaderError::InitrdOutsideMemory), "{memory} {length}");
        }
    }
}
