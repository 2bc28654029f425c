//! `vault-enclave keeper-join`: asks the keeper of a vault to take over from it, and waits until approvers say so.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use attestation::Sha256Digest;
use ledger::genesis::AntiRollback;
use ledger::keepers::NO_COUNTER;
use ledger::vault_file::VaultFile;
use vault_proto::collateral::Refresher;
use vault_proto::convert::{JoinAnswer, Proposal};

use crate::collateral_args::CollateralArgs;
use crate::ek_args::EkArgs;
use crate::failure::{Failure, Kind};
use crate::keeper::{Devices, Joining, JoiningError};
use crate::keeper_dir::KeeperDir;
use crate::keeper_main::chip;
use crate::publish::{Remote, VaultArgs};
use crate::region::harden_process;
use crate::snp::{SnpChoice, SnpDevice};
use crate::tpm::{TctiConfig, Tpm, silence_libtss2};

/// How long it waits before it shows itself again: each time with fresh evidence.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// After the first minute of waiting, so often.
const AGAIN_LATER: Duration = Duration::from_secs(30);
/// Tries at the shorter interval.
const SOON: u32 = 30;

/// Options of `vault-enclave keeper-join`.
#[derive(clap::Args)]
pub struct JoinArgs {
    /// The new keeper's own directory: an empty one, or the one that it began to join with.
    #[arg(long)]
    dir: PathBuf,
    /// The TPM: `device:/dev/tpmrm0`, or `swtpm:host=127.0.0.1,port=2321`.
    #[arg(long, default_value = "device:/dev/tpmrm0", env = "WEIGHTVAULT_TPM")]
    tpm: String,
    #[command(flatten)]
    ek: EkArgs,
    /// The SNP device, where the policy's `[keeper]` asks for one: as for `vault-enclave keeper`.
    #[arg(long, value_name = "DEVICE", env = "WEIGHTVAULT_SNP")]
    snp: Option<SnpChoice>,
    #[command(flatten)]
    collateral: CollateralArgs,
    #[command(flatten)]
    vault: VaultArgs,
}

/// Runs until it has the keys, or is told to stop: started again, it goes on.
pub fn run(args: &JoinArgs) -> ExitCode {
    match join(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn join(args: &JoinArgs) -> Result<(), Box<dyn std::error::Error>> {
    harden_process()?;
    silence_libtss2()?;
    let vault = args.vault.read()?;
    let tpm = Tpm::open(args.ek.apply(args.tpm.parse::<TctiConfig>()?)?)?;
    let collateral = args.collateral.open()?;
    let snp = match &args.snp {
        Some(choice) => Some(Arc::new(chip(SnpDevice::open(choice, Some(&tpm))?, &collateral))),
        None => None,
    };
    let _refresher = Refresher::start(collateral)?;
    let dir = KeeperDir::open(&args.dir)?;
    let joining = Joining::open(dir, &Devices { tpm, snp }, &vault).map_err(coded)?;
    show(&joining, &vault);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(wait(joining, args, &vault))?;
    match vault.genesis().core().anti_rollback() {
        AntiRollback::Witnesses => {
            println!("The vault's keys are here, sealed to this machine. The other keepers go on.");
        }
        AntiRollback::Counter | AntiRollback::None => {
            println!("The vault's keys are here, sealed to this machine, and the keeper before has retired.");
        }
    }
    println!("Next: start this keeper with `vault-enclave keeper --dir {} --listen ADDRESS`,", args.dir.display());
    println!(
        "  and give vault-host its address. Keep the machine of the keeper before until this one says that it is open."
    );
    Ok(())
}

/// For whoever stands beside the machine: what approvers have to compare.
fn show(joining: &Joining, vault: &VaultFile) {
    let keys = joining.keys();
    println!("This keeper asks for the keys of the vault {}.", vault.id());
    println!("Approvers compare these with what `vaultctl keeper pending` shows:");
    println!("  instance:        {}", hex::encode(keys.instance));
    println!("  attestation key: {}", hex::encode(joining.ak_name()));
    println!("  wrap key:        {}", Sha256Digest::of(keys.hpke_key.as_bytes()));
    if keys.counter_name != NO_COUNTER {
        println!("  NV counter:      {} at {}", hex::encode(keys.counter_name), keys.counter);
    }
}

async fn wait(mut joining: Joining, args: &JoinArgs, vault: &VaultFile) -> Result<(), Box<dyn std::error::Error>> {
    let mut said = None;
    for tries in 0_u32.. {
        match ask(&mut joining, args, vault).await {
            Ok((run, JoinAnswer::HandOver(hand_over))) => {
                return joining.take(&run, hand_over).map_err(coded).map_err(Into::into);
            }
            Ok((_, JoinAnswer::Proposal(proposal))) => said = Some(tell(said, proposal)),
            // Nothing was changed by asking. A host that is away may come back, and so may a keeper.
            Err(error) if may_come_back(&error) => tracing::warn!("not yet: {error}"),
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(if tries < SOON { AGAIN_AFTER } else { AGAIN_LATER }).await;
    }
    Ok(())
}

async fn ask(
    joining: &mut Joining,
    args: &JoinArgs,
    vault: &VaultFile,
) -> Result<(crate::keeper::JoinRun, JoinAnswer), Failure> {
    let remote: Remote = args.vault.connect(vault).await?;
    // A keeper that has retired says no more of it: then the vault is in the epoch that it was in before.
    if let Ok(followed) = remote.follow(vault.clone()).await {
        joining.expect_keys(followed.keys());
    }
    let challenge = remote.join_challenge(joining.identity()).await?;
    let (request, run) = joining.answer(challenge).map_err(coded)?;
    Ok((run, remote.join(request).await?))
}

/// Says where the proposal stands, once for each approval.
fn tell(before: Option<Proposal>, now: Proposal) -> Proposal {
    if before.as_ref() != Some(&now) {
        let names: Vec<&str> = now.approved_by.iter().map(|name| name.as_str()).collect();
        let signed = if names.is_empty() { "nobody yet".to_owned() } else { names.join(", ") };
        println!("Proposed as {}: approved by {signed}, it takes {}.", now.object, now.threshold);
        println!("  vaultctl approve {} --vault FILE --key KEY", now.object);
    }
    now
}

fn may_come_back(error: &Failure) -> bool {
    match error.kind() {
        Kind::Failed => true,
        Kind::Usage | Kind::Refused | Kind::NotVerified => false,
    }
}

fn coded(error: JoiningError) -> Failure {
    Failure::new(Kind::Usage, error.code(), error.to_string())
}
