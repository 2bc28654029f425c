//! `vault-enclave seal SRC`: from a directory of plaintext to a proposal.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use attestation::{Trust, UnixTime};
use ledger::manifest::Manifest;
use ledger::names::{Name, Version};
use ledger::vault_file::VaultFile;
use ring::rand::SystemRandom;

use super::group;
use super::progress::Progress;
use super::publish_command::{interrupted, publish, refuse_published, resumable, runtime, until_interrupted};
use super::remote::{Remote, VaultArgs, unix_now};
use super::report::{Report, Step};
use super::sealed_dir::SealedDir;
use super::stoppable::Stoppable;
use super::workplace::Workplace;
use crate::failure::{Failure, Kind};
use crate::publisher::PublisherSigner;
use crate::region::harden_process;
use crate::seal::{DirectoryTarget, SealRequest, SourceModel};

/// Longest private key file.
const KEY_BYTES_MAX: u64 = 16 << 10;

/// Options of `vault-enclave seal`.
#[derive(Debug, clap::Args)]
pub struct SealArgs {
    /// The model: a directory. Safetensors files are cut by layer, other files stay whole; links to files are followed.
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// Name of the model, as the vault's policy names it.
    #[arg(long, value_parser = name)]
    model: Name,
    /// Its version. A version is published once.
    #[arg(long, value_parser = version)]
    version: Version,
    #[command(flatten)]
    vault: VaultArgs,
    /// The publisher's private key: PEM, PKCS#8, ECDSA on P-256 or P-384. The policy lists its public half.
    #[arg(long, value_name = "PEM")]
    publisher_key: PathBuf,
    /// Groups of tensors that can be granted apart: NAME for the tensors whose names match, in which $1 is the first
    /// capture, as in 'stage.0=layers\.[0-7]\.'; without a NAME, the first capture. Can be given more than once: the first
    /// that matches counts, and what none matches is in `other`. Without it, by layer.
    #[arg(long, value_name = "[NAME=]REGEX")]
    group: Vec<String>,
    /// The same of whole files, by their paths, as in 'lora.$1=^adapters/([^/]+)/': a file that matches is one group with all
    /// that is in it, before --group is looked at.
    #[arg(long, value_name = "[NAME=]REGEX")]
    file_group: Vec<String>,
    /// Keep the sealed model here. Without it, it lies in a temporary directory until it is published.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Seal only; `vault-enclave publish` goes on.
    #[arg(long, requires = "out")]
    no_upload: bool,
    /// The result as JSON on standard output, a failure as JSON on standard error.
    #[arg(long)]
    pub(super) json: bool,
}

fn name(text: &str) -> Result<Name, ledger::names::NameError> {
    Name::try_from(text)
}

fn version(text: &str) -> Result<Version, ledger::names::NameError> {
    Version::try_from(text)
}

pub(super) fn run(args: &SealArgs) -> Result<(), Failure> {
    harden_process().map_err(|error| Failure::new(Kind::Failed, error.code(), error))?;
    let rng = SystemRandom::new();
    let vault = args.vault.read()?;
    let publisher = args.publisher(&rng)?;
    let (label, file_label) = (group::label(&args.group)?, group::file_label(&args.file_group)?);
    let source = SourceModel::scan_files(&args.source, &*label, &*file_label)?;
    let sealed_bytes = source.plan().units().iter().map(|unit| unit.sealed_len()).sum();
    let place = Workplace::find(&args.source, args.out.as_deref(), sealed_bytes)?;

    let runtime = runtime()?;
    let (remote, vault) = runtime.block_on(args.check_vault(vault, &publisher, &rng))?;
    let request = SealRequest {
        vault: vault.id(),
        // Of the present epoch: the keeper that just showed itself has it, else its evidence would not have verified.
        wrap_key: vault.wrap_key(),
        model: args.model.clone(),
        version: args.version.clone(),
        publisher: &publisher,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let (manifest, sealed) = args.seal(&request, &source, &place, &rng, &runtime)?;
    drop((publisher, source));
    let mut report = Report::new(&manifest, &args.vault.vault).sealed(sealed);
    if args.out.is_some() {
        report = report.directory(place.path());
    }
    if !args.no_upload {
        let published = runtime.block_on(until_interrupted(async {
            let sealed = Arc::new(SealedDir::open(place.path(), vault.id())?);
            publish(&remote, sealed, args.json).await
        }));
        match published {
            Ok((uploaded, proposal)) => report = report.published(uploaded, proposal),
            Err(failure) => return Err(resumable(failure, &place.keep(), &args.vault.vault)),
        }
    }
    report.print(args.json);
    Ok(())
}

impl SealArgs {
    /// Nothing is sealed for a keeper that did not show itself just now, nor what the vault is known to refuse.
    async fn check_vault(
        &self,
        vault: VaultFile,
        publisher: &PublisherSigner,
        rng: &SystemRandom,
    ) -> Result<(Remote, VaultFile), Failure> {
        let remote = self.vault.connect(&vault).await?;
        let vault = remote.follow(vault).await?;
        let now = unix_now();
        let keeper = remote.check_keeper(&vault, now, rng).await?;
        self.tell(format_args!("keeper:  {} shows the keys of vault {}", keeper.claims().platform(), vault.id()));
        if keeper.claims().trust() == Trust::Emulated {
            self.tell("warning: the keeper's hardware is EMULATED; whoever runs it can read the keys of this vault");
        }
        // Of a later policy nothing is known here: the keeper will say.
        if keeper.statement().policy() == vault.policy().digest() {
            self.check_policy(&vault, publisher, now)?;
        }
        refuse_published(&remote, &self.model, &self.version).await?;
        Ok((remote, vault))
    }

    fn check_policy(&self, vault: &VaultFile, publisher: &PublisherSigner, now: UnixTime) -> Result<(), Failure> {
        let (policy, key) = (vault.policy(), publisher.public_key().digest());
        let propose = "change the policy: vaultctl propose policy --help";
        if policy.is_expired(now) {
            return Err(
                Failure::new(Kind::Refused, "policy-expired", "the vault's policy is past its end").next(propose)
            );
        }
        if policy.approvals_to_publish(&self.model, key).is_none() {
            let message = format!("no [publish.*] of the vault's policy lists the key {key} for {}", self.model);
            return Err(Failure::new(Kind::Refused, "publisher-not-allowed", message)
                .next(format!("check --model and --publisher-key, or {propose}")));
        }
        Ok(())
    }

    fn seal(
        &self,
        request: &SealRequest<'_>,
        source: &SourceModel,
        place: &Workplace,
        rng: &SystemRandom,
        runtime: &tokio::runtime::Runtime,
    ) -> Result<(Manifest, Step), Failure> {
        static STOP: AtomicBool = AtomicBool::new(false);
        let watch = runtime.spawn(async {
            interrupted().await;
            STOP.store(true, Ordering::Relaxed);
        });
        let bytes = source.plan().total_bytes();
        let target = DirectoryTarget::begin(place.path())
            .map_err(|error| Failure::file("make a directory at", place.path(), &error))?;
        let (begun, progress) = (Instant::now(), Progress::new("seal", bytes, self.json));
        let target = Stoppable { target, stop: &STOP };
        let manifest = request.seal(source, target, rng, &|bytes| progress.add(bytes));
        watch.abort();
        match manifest {
            Ok(manifest) => Ok((manifest, Step::new(bytes, begun.elapsed()))),
            Err(_) if STOP.load(Ordering::Relaxed) => {
                let message = "interrupted; what was sealed so far was removed";
                Err(Failure::new(Kind::Failed, "interrupted", message).next(
                    "seal again: it begins anew, under a fresh key. An upload that is interrupted goes on where it was",
                ))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn publisher(&self, rng: &SystemRandom) -> Result<PublisherSigner, Failure> {
        use std::os::unix::fs::PermissionsExt;
        let path = &self.publisher_key;
        let failed = |error: std::io::Error| Failure::file("read", path, &error);
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if metadata.len() > KEY_BYTES_MAX {
            return Err(Failure::new(Kind::Usage, "publisher-key-not-pem", format!("{} is no key", path.display())));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            self.tell(format_args!("warning: others may read {0}; chmod 600 {0}", path.display()));
        }
        let pem = zeroize::Zeroizing::new(std::fs::read_to_string(path).map_err(failed)?);
        Ok(PublisherSigner::from_pem(&pem, rng)?)
    }

    fn tell(&self, line: impl std::fmt::Display) {
        if !self.json {
            eprintln!("{line}");
        }
    }
}
