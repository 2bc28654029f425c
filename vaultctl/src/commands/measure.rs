//! `vaultctl measure …`: what a machine will prove, computed before it boots.

mod workload;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use attestation::{
    EVENT_LOG_BYTES_MAX, EventLog, FIRMWARE_BYTES_MAX, Firmware, KernelHashes, Launch, PE_BYTES_MAX, PeImage, QemuQ35,
    ReplayedLog, Sha256Digest, efi_stub_pcr9, ovmf_direct_boot_pcr4, systemd_stub_pcr11, verity_root_hashes,
};
use serde::Serialize;

use crate::cli::{KernelLoader, MeasurePcrArgs, MeasureSnpArgs};
use crate::failure::{Failure, Kind};
use crate::session::read;

pub(crate) use workload::workload;

/// The longest initrd.
const INITRD_BYTES_MAX: usize = 4 << 30;

/// A launch digest.
#[derive(Debug, Serialize)]
pub(crate) struct SnpReport {
    measurement: String,
    kernel_covered: bool,
    verity_root_hashes: Vec<String>,
    policy: String,
}

/// PCR values of the SHA-256 bank.
#[derive(Debug, Serialize)]
pub(crate) struct PcrReport {
    pcrs: BTreeMap<u32, String>,
    notes: Vec<String>,
    verity_root_hashes: Vec<String>,
    policy: String,
    /// A `boot` section that says the same as PCRs 4 and 9, by events.
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
}

pub(crate) fn snp(args: &MeasureSnpArgs) -> Result<SnpReport, Failure> {
    let failed = |error: attestation::LaunchError| {
        Failure::new(Kind::Usage, error.code(), format!("{} gives no launch digest", args.ovmf.display()))
            .why(error)
            .next("give the OVMF that QEMU starts the guest with; for --kernel one with kernel hashes, such as OVMF.amdsev.fd")
    };
    let firmware = Firmware::parse(read(&args.ovmf, FIRMWARE_BYTES_MAX)?).map_err(failed)?;
    let line = args.append.as_deref().unwrap_or_default();
    let kernel = match &args.kernel {
        Some(path) => {
            let initrd = args.initrd.as_deref().map(|path| read(path, INITRD_BYTES_MAX)).transpose()?;
            Some(KernelHashes::of(&read(path, PE_BYTES_MAX)?, initrd.as_deref(), line))
        }
        None => None,
    };
    let kernel_covered = kernel.is_some();
    let launch = Launch {
        firmware: &firmware,
        vcpus: args.vcpus,
        cpu: args.vcpu_type,
        guest_features: args.guest_features,
        kernel,
    };
    let measurement = hex::encode(launch.digest().map_err(failed)?);
    // Without the kernel, the digest covers no code beyond the firmware, and the fragment must not say that it does.
    let covered = if kernel_covered { "code_covered_by = \"launch\"\n" } else { "" };
    let policy = format!("{covered}measurements = [\"{measurement}\"]\n");
    Ok(SnpReport { measurement, kernel_covered, verity_root_hashes: roots(line), policy })
}

pub(crate) fn pcr(args: &MeasurePcrArgs) -> Result<PcrReport, Failure> {
    match (&args.eventlog, &args.kernel, &args.uki) {
        (Some(path), _, _) => of_log(path),
        (None, Some(kernel), _) => of_kernel(kernel, args),
        (None, None, Some(path)) => of_uki(path),
        (None, None, None) => Err(Failure::new(Kind::Usage, "nothing-to-measure", "nothing was measured")
            .next("give --eventlog, --kernel or --uki")),
    }
}

fn of_log(path: &Path) -> Result<PcrReport, Failure> {
    let bytes = read(path, EVENT_LOG_BYTES_MAX)?;
    let replayed = log(path, &bytes)?.replay();
    let note = "A log is its machine's word: compare these values with a quote of the machine, or with its PCRs.";
    Ok(PcrReport::new(replayed.sha256().collect(), vec![note.to_owned()], Vec::new()))
}

fn of_kernel(path: &Path, args: &MeasurePcrArgs) -> Result<PcrReport, Failure> {
    let file = read(path, PE_BYTES_MAX)?;
    image(path, &file)?;
    let initrd = args.initrd.as_deref().map(|path| read(path, INITRD_BYTES_MAX)).transpose()?;
    let append = args.append.as_deref().unwrap_or_default();
    let options = if initrd.is_some() { format!("{append} initrd=initrd") } else { append.to_owned() };
    let pcr9 = efi_stub_pcr9(&options, initrd.as_deref()).map_err(|error| {
        Failure::new(Kind::Usage, error.code(), "PCR 9 can't be computed").why(error).next("write --append in ASCII")
    })?;
    let mut pcrs = BTreeMap::from([(9, pcr9)]);
    let mut notes = vec![format!("PCR 9: the load options {options:?} as QEMU and OVMF give them, and the initrd.")];
    let base = args.base_eventlog.as_deref().map(|path| read(path, EVENT_LOG_BYTES_MAX).map(|bytes| (path, bytes)));
    let base = base.transpose()?;
    let base = base.as_ref().map(|(path, bytes)| log(path, bytes).map(EventLog::replay)).transpose()?;
    match &base {
        Some(base) => {
            pcrs.extend(base.sha256().filter(|(index, _)| *index < 8 && *index != 4));
            notes.push(
                "PCRs 0 to 3 and 5 to 7 are those of the base log: same firmware, settings and disks.".to_owned(),
            );
        }
        None => notes
            .push("PCRs 0 to 3 and 5 to 7 need --base-eventlog: they are the firmware's and the machine's.".to_owned()),
    }
    let loaded = args.loader.map(|loader| as_loaded(path, &file, loader, initrd.as_ref().map(Vec::len), append));
    let loaded = loaded.transpose()?;
    let (value, note) = pcr4(path, loaded.as_deref(), base.as_ref())?;
    pcrs.extend(value.map(|value| (4, value)));
    notes.push(note);
    // A rule can't list a command line that is empty.
    let loaded = loaded.filter(|_| !options.is_empty());
    let boot = loaded.map(|loaded| boot_section(path, &loaded, &options, initrd.as_deref())).transpose()?;
    Ok(PcrReport { boot, ..PcrReport::new(pcrs, notes, roots(append)) })
}

/// What the firmware gets.
fn as_loaded<'a>(
    path: &Path,
    file: &'a [u8],
    loader: KernelLoader,
    initrd_bytes: Option<usize>,
    command_line: &str,
) -> Result<Cow<'a, [u8]>, Failure> {
    match loader {
        KernelLoader::File => Ok(Cow::Borrowed(file)),
        KernelLoader::QemuQ35 { memory_mib } => {
            QemuQ35 { memory_mib, initrd_bytes, command_line }.kernel(file).map(Cow::Owned).map_err(|error| {
                Failure::new(
                    Kind::Usage,
                    error.code(),
                    format!("it is not known what QEMU makes of {}", path.display()),
                )
                .why(error)
                .next("leave --loader out, and take PCR 4 from an event log of that guest: --eventlog")
            })
        }
    }
}

/// The events of that boot, for a rule that lists them in place of values of PCRs 4 and 9. The options are printable ASCII,
/// which Rust and TOML quote alike.
fn boot_section(path: &Path, loaded: &[u8], options: &str, initrd: Option<&[u8]>) -> Result<String, Failure> {
    let digest = image(path, loaded)?.authenticode_sha256().map_err(|error| not_an_image(path, &error))?;
    let initrds = initrd.map_or_else(|| "\"none\"".to_owned(), |bytes| format!("[\"{}\"]", Sha256Digest::of(bytes)));
    Ok(format!(
        "secure_boot = false\nimages = [\"sha256:{}\"]\ncommand_lines = [{options:?}]\ninitrds = {initrds}\n\
         verity_root_hashes = \"any\"\n",
        hex::encode(digest),
    ))
}

/// PCR 4 where it is known, and why or why not. A value that may be wrong would go into a policy, which then lets nobody in.
fn pcr4(
    path: &Path,
    loaded: Option<&[u8]>,
    base: Option<&ReplayedLog<'_>>,
) -> Result<(Option<[u8; 32]>, String), Failure> {
    let Some(loaded) = loaded else {
        let note = "PCR 4 is left out: it is of what the firmware gets, and QEMU's -kernel changes the file first. Say with --loader who loads it, or take PCR 4 from a log of that guest.";
        return Ok((None, note.to_owned()));
    };
    let kernel = image(path, loaded)?;
    let failed = |error| not_an_image(path, &error);
    let digest = kernel.authenticode_sha256().map_err(failed)?;
    let (value, order) = match base {
        Some(base) => (base.pcr4_with_application(&digest), "in the order of the base log"),
        None => (Some(ovmf_direct_boot_pcr4(&kernel).map_err(failed)?), "as OVMF starts -kernel"),
    };
    let note = match value {
        Some(_) => format!("PCR 4: {order}, of a kernel with the Authenticode digest {}.", hex::encode(digest)),
        None => "PCR 4 is left out: the base log does not have exactly one EFI application in it.".to_owned(),
    };
    Ok((value, note))
}

fn of_uki(path: &Path) -> Result<PcrReport, Failure> {
    let bytes = read(path, PE_BYTES_MAX)?;
    let uki = image(path, &bytes)?;
    let failed = |error| not_an_image(path, &error);
    let value = systemd_stub_pcr11(&uki).map_err(failed)?;
    let digest = uki.authenticode_sha256().map_err(failed)?;
    let line = uki.section(".cmdline").map(|section| section.in_memory().map_err(failed)).transpose()?;
    let line = String::from_utf8_lossy(&line.unwrap_or_default()).trim_end_matches('\0').to_owned();
    let notes = vec![
        "PCR 11: as systemd-stub leaves it, before any boot phase; systemd-pcrphase extends it further.".to_owned(),
        "PCR 4 and the firmware's PCRs depend on how the machine starts the image: take them from a log of it."
            .to_owned(),
        format!("Authenticode digest of the image: {}", hex::encode(digest)),
    ];
    Ok(PcrReport::new(BTreeMap::from([(11, value)]), notes, roots(&line)))
}

fn log<'a>(path: &Path, bytes: &'a [u8]) -> Result<EventLog<'a>, Failure> {
    EventLog::parse(bytes).map_err(|error| {
        Failure::new(Kind::Usage, error.code(), format!("{} is not an event log that can be used", path.display()))
            .why(error)
            .next("copy /sys/kernel/security/tpm0/binary_bios_measurements of a machine with a TPM 2.0")
    })
}

fn image<'a>(path: &Path, bytes: &'a [u8]) -> Result<PeImage<'a>, Failure> {
    PeImage::parse(bytes).map_err(|error| not_an_image(path, &error))
}

fn not_an_image(path: &Path, error: &attestation::PeError) -> Failure {
    Failure::new(Kind::Usage, error.code(), format!("{} can't be measured", path.display())).why(error)
}

fn roots(line: &str) -> Vec<String> {
    verity_root_hashes(line).into_iter().map(|root| format!("{} {}", root.parameter, root.hex)).collect()
}

impl PcrReport {
    fn new(values: BTreeMap<u32, [u8; 32]>, notes: Vec<String>, verity_root_hashes: Vec<String>) -> Self {
        let pcrs: BTreeMap<u32, String> =
            values.into_iter().map(|(index, value)| (index, hex::encode(value))).collect();
        let rows: Vec<String> = pcrs.iter().map(|(index, value)| format!("{index} = [\"{value}\"]")).collect();
        let policy = format!("pcrs = {{ {} }}\n", rows.join(", "));
        Self { pcrs, notes, verity_root_hashes, policy, boot: None }
    }
}

impl fmt::Display for SnpReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "measurement {}", self.measurement)?;
        match self.kernel_covered {
            true => writeln!(f, "It covers firmware, vCPUs, kernel, initrd and command line.")?,
            false => writeln!(f, "It covers firmware and vCPUs. It does NOT cover what the firmware boots.")?,
        }
        write_roots(f, &self.verity_root_hashes)?;
        write!(f, "\nFor [release.NAME.snp] or [keeper.snp] of a policy:\n{}", self.policy)
    }
}

impl fmt::Display for PcrReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pcrs.iter().try_for_each(|(index, value)| writeln!(f, "PCR {index:2} {value}"))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))?;
        write_roots(f, &self.verity_root_hashes)?;
        write!(f, "\nFor [release.NAME] or [keeper] of a policy:\n{}", self.policy)?;
        match &self.boot {
            Some(boot) => write!(
                f,
                "\nOr for [release.NAME.boot], with 4 = \"any\" and 9 = \"any\" in `pcrs`: refusals then name what differs. \
                 Write secure_boot = true where it has to be on.\n{boot}"
            ),
            None => Ok(()),
        }
    }
}

fn write_roots(f: &mut fmt::Formatter<'_>, roots: &[String]) -> fmt::Result {
    roots.iter().try_for_each(|root| writeln!(f, "dm-verity root hash on the command line: {root}"))
}
