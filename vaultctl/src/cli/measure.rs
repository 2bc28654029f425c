//! `vaultctl measure …`

use std::ffi::OsString;
use std::path::PathBuf;

use attestation::{CpuType, GUEST_FEATURES_SNP, Sha256Digest};
use clap::{Args, Subcommand};

/// `vaultctl measure …`
#[derive(Debug, Subcommand)]
pub enum MeasureCommand {
    /// The launch digest of an SEV-SNP guest, as QEMU builds it.
    Snp(MeasureSnpArgs),
    /// PCR values, from an event log, from kernel, initrd and command line, or from a unified kernel image.
    Pcr(MeasurePcrArgs),
    /// What `vault-enclave run --clean-env` shows of a command, for `workloads` of a rule. Run it where the guest's files are.
    Workload(MeasureWorkloadArgs),
}

/// `vaultctl measure snp`
#[derive(Debug, Args)]
pub struct MeasureSnpArgs {
    /// The firmware image: an OVMF with SEV metadata, whole or its code part, as QEMU gets it.
    #[arg(long, value_name = "FILE")]
    pub ovmf: PathBuf,
    /// The kernel, where QEMU runs with kernel-hashes=on.
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// The initrd.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub initrd: Option<PathBuf>,
    /// The kernel command line, exactly as QEMU gets it.
    #[arg(long, value_name = "TEXT", requires = "kernel")]
    pub append: Option<String>,
    /// How many vCPUs.
    #[arg(long, value_name = "COUNT")]
    pub vcpus: u32,
    /// QEMU's CPU model: EPYC, EPYC-Rome, EPYC-Milan, EPYC-Genoa or EPYC-Turin, with or without a version.
    #[arg(long, value_name = "MODEL", value_parser = cpu_type)]
    pub vcpu_type: CpuType,
    /// SEV_FEATURES of the vCPUs. Newer kernels and QEMU set more bits than the first: look into a report of that host.
    #[arg(long, value_name = "BITS", value_parser = bits, default_value_t = GUEST_FEATURES_SNP)]
    pub guest_features: u64,
}

/// `vaultctl measure pcr`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("from").required(true).args(["eventlog", "kernel", "uki"]))]
pub struct MeasurePcrArgs {
    /// An event log, such as /sys/kernel/security/tpm0/binary_bios_measurements: every PCR that it leads to.
    #[arg(long, value_name = "FILE")]
    pub eventlog: Option<PathBuf>,
    /// A kernel with an EFI stub that QEMU and OVMF start directly: PCR 9, and 4 with --loader.
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// What the firmware gets as that kernel; PCR 4 is of those bytes, so it is not given without this. `file`: the file as
    /// it is (in an SEV guest, or with QEMU 10 and an OVMF that asks for etc/boot/kernel). `qemu-q35:MIB`: the file with its
    /// header filled in by QEMU's -kernel, on machine q35 with -m MIB; checked with QEMU 7.2. For anything else take PCR 4
    /// from an event log.
    #[arg(long, value_name = "file|qemu-q35:MIB", value_parser = loader, requires = "kernel")]
    pub loader: Option<KernelLoader>,
    /// Its initrd.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub initrd: Option<PathBuf>,
    /// Its command line, as for QEMU's -append.
    #[arg(long, value_name = "TEXT", requires = "kernel")]
    pub append: Option<String>,
    /// An event log of the same machine and firmware: the PCRs of the firmware, and with --loader PCR 4 in this machine's order.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub base_eventlog: Option<PathBuf>,
    /// A unified kernel image with systemd-stub 252, 255 or 257, without profiles or parts chosen by hardware: PCR 11.
    #[arg(long, value_name = "FILE")]
    pub uki: Option<PathBuf>,
}

/// `vaultctl measure workload`
#[derive(Debug, Args)]
pub struct MeasureWorkloadArgs {
    /// An environment variable that the command gets; can be given more than once. With `run --user` it also gets HOME, USER
    /// and LOGNAME of that user.
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<(OsString, OsString)>,
    /// What `run --image` will say.
    #[arg(long, value_name = "sha256:HEX")]
    pub image: Option<Sha256Digest>,
    /// The file that CMD is in the guest, where it is not at that place here.
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Of a script, the file that its first line names in the guest, where it is not at that place here.
    #[arg(long, value_name = "FILE")]
    pub interpreter: Option<PathBuf>,
    /// The command and its arguments, exactly as `run` gets them.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// How a kernel comes to the firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelLoader {
    /// As the file is.
    File,
    /// By QEMU's `-kernel`, which fills in the setup header.
    QemuQ35 {
        /// The guest's memory in MiB.
        memory_mib: u32,
    },
}

fn loader(text: &str) -> Result<KernelLoader, String> {
    let qemu = || Some(KernelLoader::QemuQ35 { memory_mib: text.strip_prefix("qemu-q35:")?.parse().ok()? });
    if text == "file" { Some(KernelLoader::File) } else { qemu() }
        .ok_or_else(|| "write file, or qemu-q35: and the guest's memory in MiB, such as qemu-q35:512".to_owned())
}

fn cpu_type(name: &str) -> Result<CpuType, String> {
    CpuType::named(name).ok_or_else(|| {
        "write EPYC, EPYC-Rome, EPYC-Milan, EPYC-Genoa or EPYC-Turin, or one of their versions".to_owned()
    })
}

/// As `run --env` takes them.
fn variable(text: &str) -> Result<(OsString, OsString), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && name != "TSS2_LOG" => Ok((name.into(), value.into())),
        Some(_) | None => Err("want NAME=VALUE"),
    }
}

fn bits(text: &str) -> Result<u64, String> {
    let number = text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16));
    number.map_err(|_| "write a number, such as 0x1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loader_is_the_file_or_qemu_with_its_memory() {
        assert_eq!(loader("file"), Ok(KernelLoader::File));
        assert_eq!(loader("qemu-q35:512"), Ok(KernelLoader::QemuQ35 { memory_mib: 512 }));
        assert!(["", "qemu-q35", "qemu-q35:", "qemu-q35:2G", "qemu-pc:512"].iter().all(|text| loader(text).is_err()));
    }

    #[test]
    fn features_are_a_number_in_either_form() {
        assert_eq!((bits("0x21"), bits("1")), (Ok(0x21), Ok(1)));
        assert!(bits("x").is_err() && bits("0x").is_err() && cpu_type("host").is_err());
    }
}
