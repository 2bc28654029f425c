//! `soft-snp`: a soft SEV-SNP platform for one guest in another process. SOFT TEST ONLY.
//!
//! It serves below `--dir` what [`vault_tests::forge::serve`] lists (`report/`, `derived-key`, `ark.pem`, `chain.pem`) and, with
//! `--kds`, a key server whose address it writes to `kds.url`. It prints `ready` when all is there, and ends with SIGTERM or
//! SIGINT, or when its stdin, where that is a pipe, closes. The chip is kept in `chip.json`: the next start below the same directory is the same chip,
//! so a firmware update is a start with another `--tcb`.

use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use vault_tests::forge::amd::{Product, Tcb};
use vault_tests::forge::fuse::unmount;
use vault_tests::forge::kds::SoftKds;
use vault_tests::forge::platform::{SoftGuest, SoftPlatform};
use vault_tests::forge::serve::{Form, Served};
use vault_tests::forge::tsm::SoftMachine;

/// What the chip has for life.
const CHIP: &str = "chip.json";

/// A soft SEV-SNP platform for one guest: report tree, derived keys, root. SOFT TEST ONLY: everybody can sign as its root.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where everything is; made if it is missing.
    #[arg(long)]
    dir: PathBuf,
    /// Milan, Genoa or Turin.
    #[arg(long, default_value = "Milan", value_parser = product)]
    product: Product,
    /// Launch digest of the guest: 96 hex digits.
    #[arg(long, value_parser = bytes::<48>)]
    measurement: Hex<48>,
    /// HOST_DATA of the guest: 64 hex digits.
    #[arg(long, value_parser = bytes::<32>)]
    host_data: Option<Hex<32>>,
    /// Policy of the guest, a number in hex. By default SMT is allowed, and debugging and migration are not.
    #[arg(long, value_parser = number)]
    policy: Option<u64>,
    /// Privilege level of the guest.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=3))]
    vmpl: u32,
    /// Security version of the guest.
    #[arg(long, default_value_t = 0)]
    guest_svn: u32,
    /// TCB that runs and is committed: BOOTLOADER,TEE,SNP,MICROCODE, on Turin FMC before them.
    #[arg(long, value_delimiter = ',')]
    tcb: Option<Vec<u8>>,
    /// Version of reports.
    #[arg(long, default_value_t = 5)]
    report_version: u32,
    /// The cloud whose leased key signs, such as CN=cloud.invalid.
    #[arg(long)]
    vlek: Option<String>,
    /// Keep the report tree as plain files. Without it FUSE is needed: root, or fusermount3. With it a guest must wait a little
    /// for answers, as the agent of this project does.
    #[arg(long)]
    plain: bool,
    /// Serve a key server too, at this address; port 0 is any free one.
    #[arg(long)]
    kds: Option<SocketAddr>,
}

#[derive(Clone, Copy)]
struct Hex<const N: usize>([u8; N]);

fn main() -> ExitCode {
    // The watcher has one argument of its own, which is no part of the interface.
    if let [_, flag, at] = &std::env::args_os().collect::<Vec<_>>()[..]
        && flag == WATCH
    {
        watch(Path::new(at));
        return ExitCode::SUCCESS;
    }
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soft-snp: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(&arguments.dir)?;
    let platform = platform(arguments)?;
    let guest = SoftGuest::new(arguments.measurement.0).with(|guest| {
        guest.policy = arguments.policy.unwrap_or(guest.policy);
        guest.host_data = arguments.host_data.map_or(guest.host_data, |data| data.0);
        guest.vmpl = arguments.vmpl;
        guest.guest_svn = arguments.guest_svn;
    });
    let _watcher = Watcher::start(&arguments.dir.join("report"))?;
    let form = if arguments.plain { Form::Plain } else { Form::Fuse };
    let served = Served::start(&arguments.dir, SoftMachine::new(platform.clone(), guest), form).map_err(|error| {
        let hint = if arguments.plain { "" } else { "; --plain does without FUSE" };
        format!("{}: {error}{hint}", arguments.dir.display())
    })?;
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let kds = arguments.kds.map(|address| SoftKds::start_at(address, vec![platform], now)).transpose()?;
    if let Some(kds) = &kds {
        fs::write(arguments.dir.join("kds.url"), kds.url())?;
    }
    wait_for_end()?;
    drop(served);
    Ok(())
}

fn platform(arguments: &Arguments) -> Result<SoftPlatform, Box<dyn Error>> {
    let mut platform = SoftPlatform::new(arguments.product);
    let file = arguments.dir.join(CHIP);
    match fs::read(&file) {
        Ok(bytes) => {
            let chip: Value = serde_json::from_slice(&bytes)?;
            let same = chip["product"] == arguments.product.name();
            let fields = (hex_field(&chip, "chip_secret"), hex_field(&chip, "chip_id"));
            let (true, (Some(secret), Some(id))) = (same, fields) else {
                return Err(format!("{}: not a chip of the line {}", file.display(), arguments.product.name()).into());
            };
            (platform.chip_secret, platform.chip_id) = (secret, id);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let chip = json!({
                "note": "SOFT TEST ONLY",
                "product": arguments.product.name(),
                "chip_secret": hex::encode(platform.chip_secret),
                "chip_id": hex::encode(platform.chip_id),
            });
            fs::write(&file, serde_json::to_vec_pretty(&chip)?)?;
        }
        Err(error) => return Err(format!("{}: {error}", file.display()).into()),
    }
    if let Some(parts) = &arguments.tcb {
        let tcb = match (arguments.product, parts.as_slice()) {
            (Product::Milan | Product::Genoa, &[bootloader, tee, snp, microcode]) => {
                Tcb { fmc: 0, bootloader, tee, snp, microcode }
            }
            (Product::Turin, &[fmc, bootloader, tee, snp, microcode]) => Tcb { fmc, bootloader, tee, snp, microcode },
            _ => return Err("--tcb: BOOTLOADER,TEE,SNP,MICROCODE, on Turin FMC before them".into()),
        };
        let firmware = platform.firmware;
        platform.update(tcb, firmware);
        platform.commit();
    }
    platform.report_version = arguments.report_version;
    platform.vlek.clone_from(&arguments.vlek);
    Ok(platform)
}

/// Says that all is ready, and waits for SIGTERM, SIGINT, or the end of stdin.
fn wait_for_end() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        // Before anybody knows that he may send one.
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        println!("ready");
        io::stdout().flush()?;
        let (closed, stdin_closed) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            // Somebody who holds a pipe to us may be killed; /dev/null and a terminal are nobody.
            if fs::metadata("/proc/self/fd/0").is_ok_and(|stdin| stdin.file_type().is_fifo()) {
                let _ = io::copy(&mut io::stdin(), &mut io::sink());
                let _ = closed.send(());
            } else {
                std::mem::forget(closed);
            }
        });
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = stdin_closed => {}
        }
        Ok(())
    })
}

/// What the watcher is started with.
const WATCH: &str = "--unmount-after";

/// A process that unmounts the tree when this one is gone, even if it was killed; else its directory could not be removed.
struct Watcher(Child);

impl Watcher {
    fn start(at: &Path) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(WATCH).arg(at).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // A process group of its own: what ends this one at the keyboard does not end it.
        command.process_group(0).spawn().map(Self)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Reads to the end of stdin, which is the end of who holds the other side.
fn watch(at: &Path) {
    let _ = io::stdin().read_to_end(&mut Vec::new());
    unmount(at);
}

fn product(text: &str) -> Result<Product, String> {
    Product::from_name(text).ok_or_else(|| "one of Milan, Genoa, Turin".to_owned())
}

fn bytes<const N: usize>(text: &str) -> Result<Hex<N>, String> {
    let bytes = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.map(Hex).ok_or_else(|| format!("{} hex digits", 2 * N))
}

fn number(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).map_err(|_| "a number in hex, such as 30000".to_owned())
}

fn hex_field<const N: usize>(chip: &Value, name: &str) -> Option<[u8; N]> {
    hex::decode(chip[name].as_str()?).ok()?.try_into().ok()
}
