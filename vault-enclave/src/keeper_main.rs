//! `vault-enclave keeper`: opens the directory, then serves the link until it is told to stop.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use ledger::escrow::RecoveryMode;
use ledger::vault_file::VaultFile;
use vault_proto::collateral::{Collateral, Refresher};
use vault_proto::v1::keeper_link_server::KeeperLinkServer;

use crate::chip::{Chip, CollateralUse};
use crate::collateral_args::CollateralArgs;
use crate::ek_args::EkArgs;
use crate::keeper::{self, Devices, FRAME_BYTES_MAX, Keeper, Link, Requests, Store};
use crate::keeper_dir::KeeperDir;
use crate::keeper_listen::ListenArgs;
use crate::region::harden_process;
use crate::snp::{SnpChoice, SnpDevice};
use crate::tpm::{TctiConfig, Tpm, silence_libtss2};

/// Options of `vault-enclave keeper`.
#[derive(clap::Args)]
pub struct KeeperArgs {
    /// The keeper's own directory: its sealed root, its head, its core. Made where it is missing.
    #[arg(long)]
    dir: PathBuf,
    /// The TPM: `device:/dev/tpmrm0`, or `swtpm:host=127.0.0.1,port=2321`.
    #[arg(long, default_value = "device:/dev/tpmrm0", env = "WEIGHTVAULT_TPM")]
    tpm: String,
    #[command(flatten)]
    ek: EkArgs,
    /// The SNP device, where the policy's `[keeper]` asks for one: auto, configfs:/sys/kernel/config/tsm/report,
    /// sev-guest:/dev/sev-guest, or soft:/DIR. Without it the keeper proves its TPM alone.
    #[arg(long, value_name = "DEVICE", env = "WEIGHTVAULT_SNP")]
    snp: Option<SnpChoice>,
    #[command(flatten)]
    collateral: CollateralArgs,
    #[command(flatten)]
    listen: ListenArgs,
    /// Make the keeper empty again, and end: for a ceremony that came to nothing, since somebody else gave the keeper his
    /// core, or the core had a mistake. Refused once a genesis is committed. The counter is removed from the TPM.
    #[arg(long, conflicts_with = "listen")]
    reset_ceremony: bool,
    #[command(flatten)]
    recover: RecoverArgs,
}

/// The place of a lost keeper.
#[derive(clap::Args)]
struct RecoverArgs {
    /// Take the place of the lost keeper of this vault, by the shares of its custodians and approvals: its vault file. The
    /// directory is an empty one, or the one that this began with.
    #[arg(long, value_name = "FILE", conflicts_with = "reset_ceremony")]
    recover: Option<PathBuf>,
    /// Go on from the newest log that the host has, though nothing shows that it is: what the lost keeper wrote behind it
    /// would be forgotten. Approvers see this, and the log says it for ever.
    #[arg(long, requires = "recover", conflicts_with = "drill")]
    accept_rollback: bool,
    /// Practise it: check that the shares give the vault's keys, and wipe these.
    #[arg(long, requires = "recover")]
    drill: bool,
}

impl RecoverArgs {
    fn mode(&self) -> Result<RecoveryMode, String> {
        match (self.drill, self.accept_rollback) {
            (true, _) => Ok(RecoveryMode::Drill),
            (false, true) => Ok(RecoveryMode::Recover),
            (false, false) => Err("the counter that would show an old log is lost with the keeper's TPM, so nothing shows \
                 that the host's log is the newest one. Compare it with the last checkpoints that people have kept; then \
                 say --accept-rollback, or --drill to practise (recover-rollback)"
                .to_owned()),
        }
    }
}

/// Exit code after a fault of the keeper itself (`EX_SOFTWARE`).
const EXIT_PANICKED: i32 = 70;

/// Runs until SIGTERM or SIGINT.
pub fn run(args: &KeeperArgs) -> ExitCode {
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &KeeperArgs) -> Result<(), Box<dyn std::error::Error>> {
    harden_process()?;
    silence_libtss2()?;
    // Before anything is opened: a wrong address must not cost a start.
    let listen = match args.reset_ceremony {
        true => None,
        false => Some(args.listen.check().map_err(|error| format!("{error} ({})", error.code()))?),
    };
    let tpm = Tpm::open(args.ek.apply(args.tpm.parse::<TctiConfig>()?)?)?;
    let store = Store::default();
    let collateral = args.collateral.open()?;
    let snp = match &args.snp {
        Some(choice) => Some(Arc::new(chip(SnpDevice::open(choice, Some(&tpm))?, &collateral))),
        None => None,
    };
    // Until the end of this function: the thread that decides never waits for a key service.
    let _refresher = Refresher::start(collateral)?;
    let devices = Devices { tpm, snp };
    let dir = KeeperDir::open(&args.dir)?;
    let Some(listen) = listen else {
        keeper::reset(&dir, &devices).map_err(|error| format!("{error} ({})", error.code()))?;
        println!("the keeper is empty again: start it, and begin with `vaultctl init start`");
        return Ok(());
    };
    let mut keeper = open(args, dir, devices, &store)?;
    let (requests, queue) = keeper::queue();
    tracing::info!(phase = keeper.phase(), listen = args.listen.address(), "keeper started");
    // The thread ends with the process: every commit is durable before anybody hears of it.
    std::thread::Builder::new().name("keeper".to_owned()).spawn(move || {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| queue.run(&mut keeper)));
        // A keeper that answers nothing would look alive: end, so that whoever supervises it starts it anew.
        if ran.is_err() {
            std::process::exit(EXIT_PANICKED);
        }
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let stop = stopped(requests.clone());
    let link = KeeperLinkServer::new(Link::new(requests, store))
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX);
    let served = runtime.block_on(listen.serve(link, stop));
    Ok(served.map_err(|error| format!("{error} ({})", error.code()))?)
}

/// One that takes the place of a lost keeper goes on as any other once it has the vault's keys.
fn open(
    args: &KeeperArgs,
    dir: KeeperDir,
    devices: Devices,
    store: &Store,
) -> Result<Keeper, Box<dyn std::error::Error>> {
    if let Some(file) = &args.recover.recover {
        let mode = args.recover.mode()?;
        let vault = VaultFile::parse(&std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?)?;
        let keeper = Keeper::recover(dir, devices, store.clone(), &vault, mode);
        return Ok(keeper.map_err(|error| format!("{error} ({})", error.code()))?);
    }
    Ok(Keeper::open(dir, devices, store.clone()).map_err(|error| format!("{error} ({})", error.code()))?)
}

/// The keeper's chip. What its evidence needs is fetched now, while nobody waits for a decision.
pub(crate) fn chip(device: SnpDevice, collateral: &Arc<Collateral>) -> Chip {
    // Nobody takes this report for evidence. What fails is tried again in the background, and whoever needs it hears of it.
    if collateral.has_sources() {
        let waiting = Chip::new(device.clone(), CollateralUse::Waiting(Arc::clone(collateral)));
        if let Err(error) = waiting.evidence(&[0; 64]) {
            tracing::warn!("the keeper's own evidence: {error}");
        }
    }
    Chip::new(device, CollateralUse::AtOnce(Arc::clone(collateral)))
}

/// Resolves on SIGTERM or SIGINT, once the keeper's thread has ended. A host that stays attached does not keep the keeper alive for more than a moment.
async fn stopped(requests: Requests) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    tracing::info!("keeper stops");
    let _ = tokio::task::spawn_blocking(move || requests.stop()).await;
    tokio::spawn(async {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        std::process::exit(0);
    });
}
