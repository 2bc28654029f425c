//! `vault-enclave publish DIR`: uploads and proposes what `seal --out` made.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vault_proto::client::CallError;
use vault_proto::convert::Proposal;

use super::progress::Progress;
use super::remote::{Remote, VaultArgs};
use super::report::{Report, Step};
use super::sealed_dir::SealedDir;
use super::upload::{DAMAGED, upload};
use crate::failure::{Failure, Kind};

const TRIES_MAX: u32 = 3;
const PAUSE: Duration = Duration::from_secs(2);

/// Options of `vault-enclave publish`.
#[derive(Debug, clap::Args)]
pub struct PublishArgs {
    /// A directory that `vault-enclave seal --out` made. It stays as it is.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    vault: VaultArgs,
    /// The result as JSON on standard output, a failure as JSON on standard error.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &PublishArgs) -> Result<(), Failure> {
    let vault = args.vault.read()?;
    let sealed = Arc::new(SealedDir::open(&args.dir, vault.id())?);
    runtime()?.block_on(async {
        let remote = args.vault.connect(&vault).await?;
        let id = sealed.manifest().id();
        refuse_published(&remote, &id.model, &id.version).await?;
        let report = Report::new(sealed.manifest(), &args.vault.vault);
        let published = until_interrupted(publish(&remote, sealed, args.json)).await;
        let (uploaded, proposal) = published.map_err(|failure| resumable(failure, &args.dir, &args.vault.vault))?;
        report.published(uploaded, proposal).print(args.json);
        Ok(())
    })
}

/// For connections, not for work.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Kind::Failed, "runtime", error))
}

/// A version is published once.
pub(super) async fn refuse_published(
    remote: &Remote,
    model: &ledger::names::Name,
    version: &ledger::names::Version,
) -> Result<(), Failure> {
    match remote.is_published(model, version).await? {
        false => Ok(()),
        true => Err(Failure::new(
            Kind::Refused,
            "model-already-published",
            format!("{model}@{version} is published, and a version is published once"),
        )
        .next("choose another --version; `vaultctl models --vault FILE` lists what there is")),
    }
}

/// Uploads what the host has not, then proposes.
pub(super) async fn publish(remote: &Remote, sealed: Arc<SealedDir>, quiet: bool) -> Result<(Step, Proposal), Failure> {
    let begun = Instant::now();
    let progress = Arc::new(Progress::new("upload", sealed.sealed_bytes(), quiet));
    let sent = upload(remote, sealed.clone(), progress).await?;
    let uploaded = Step::new(sent, begun.elapsed());
    let mut tries = 1;
    let answer = loop {
        match remote.publish(sealed.publication()).await {
            Ok(answer) => break answer,
            // The keeper answers the same publication the same way.
            Err(error) if tries < TRIES_MAX && may_repeat(&error) => tries += 1,
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(PAUSE).await;
    };
    Ok((uploaded, remote.proposal(answer)?))
}

fn may_repeat(error: &CallError) -> bool {
    error.is_busy() || error.may_repeat()
}

/// Ends at SIGINT or SIGTERM.
pub(super) async fn until_interrupted<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        () = interrupted() => Err(Failure::new(Kind::Failed, "interrupted", "interrupted")),
    }
}

/// Resolves at SIGINT or SIGTERM.
pub(super) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
}

/// A failed upload or proposal: nothing that was sealed or sent is lost, unless it is damaged.
pub(super) fn resumable(failure: Failure, dir: &Path, vault: &Path) -> Failure {
    if failure.code() == DAMAGED {
        return failure;
    }
    let go_on = format!("vault-enclave publish {} --vault {}", dir.display(), vault.display());
    let next = match failure.next_step() {
        Some(step) => format!("{step}\nthen go on where it ended: {go_on}"),
        None => format!("go on where it ended: {go_on}"),
    };
    failure.next(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_upload_says_how_to_go_on_unless_it_cannot() {
        let next = |code| {
            let failure = Failure::new(Kind::Failed, code, "x").next("first");
            resumable(failure, Path::new("D"), Path::new("V")).next_step().unwrap_or_default().to_owned()
        };
        let go_on = "first\nthen go on where it ended: vault-enclave publish D --vault V";
        assert_eq!(next("host-unavailable"), go_on);
        assert_eq!(next(DAMAGED), "first");
    }
}
