//! The parent's side of a load: starts the loader, renews the lease from the grant on, takes the files over, and leaves nothing
//! where that fails.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use attestation::lease_id;
use ledger::entry::{Entry, Release};
use ledger::key_epoch::EpochLink;
use ledger::lease::LeaseStatement;
use ledger::vault_file::VaultFile;
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use vault_proto::convert::SignedLease;

use super::attester::AgentIdentity;
use super::error::SessionError;
use super::holder::{END_TIME_MAX, Holder, Lease, end_lease};
use super::job::{ADOPTED, Base64, Job, JobChip, JobDirectory, JobTpm, Leased, Loaded, Owner, Said};
use super::lease_signer::LeaseSigner;
use super::load::end;
use super::options::Request;
use super::outage::Outage;
use super::part::Found;
use super::session::verify_lease;
use super::term::{BootTime, Term};
use crate::failure::{Failure, Kind};
use crate::open::{Destination, DirectoryId, OpenedModel};
use crate::tpm::starting_child;

/// How long a loader that was told to give up may take to wipe.
const WIPE_TIME_MAX: Duration = Duration::from_secs(60);

/// For the C library's allocator (mallopt(3)): frames of 1 MiB come out of memory that is there already. Otherwise each is
/// mapped, faulted in and unmapped, which costs more than to decrypt it.
const ALLOCATOR: [(&str, &str); 3] = [
    ("MALLOC_MMAP_THRESHOLD_", "1073741824"),
    ("MALLOC_TRIM_THRESHOLD_", "1073741824"),
    ("MALLOC_TOP_PAD_", "16777216"),
];

/// What a load is for.
pub(super) struct Load<'a> {
    pub(super) request: &'a Request,
    pub(super) identity: &'a AgentIdentity,
    pub(super) signer: &'a Arc<LeaseSigner>,
    /// `None` where nothing is opened into files.
    pub(super) into: Option<&'a Path>,
    pub(super) owner: Option<Owner>,
    pub(super) insecure_plaintext_on_disk: bool,
}

/// A model in its place, and the lease on it.
pub(super) struct Held {
    pub(super) model: OpenedModel,
    pub(super) lease: Lease,
    /// When the load began.
    pub(super) began: BootTime,
    pub(super) loaded: Loaded,
    pub(super) release: Release,
    /// Its place in the log.
    pub(super) index: u64,
    /// As it was at first.
    pub(super) statement: LeaseStatement,
}

/// A lease that is renewed, and what it came with.
struct Renewed {
    lease: Lease,
    release: Release,
    index: u64,
    statement: LeaseStatement,
}

impl Load<'_> {
    /// Loads into `destination`, unless `stop` comes first: `None`. The lease is renewed as long as that takes.
    ///
    /// # Errors
    /// What the loader says; `lease-lost` and `lease-revoked` where that came before the files. Whatever was written has been
    /// wiped, and the lease that there may be is ended.
    pub(super) async fn run(
        &self,
        destination: Destination,
        stop: impl Future<Output = ()>,
    ) -> Result<Option<Held>, Failure> {
        let began = BootTime::now();
        // Looked through where the load fails, once nobody writes there any more.
        let left = destination.again()?;
        let mut loader = Loader::start(&self.job(Some(destination.id()?))?).await?;
        let mut stop = pin!(stop);
        let mut asked = None;
        let renewed = tokio::select! {
            told = loader.told(&mut asked) => told.and_then(|told| self.renew(told)).map(Some),
            () = stop.as_mut() => Ok(None),
        };
        let (ended, lease) = match renewed {
            Ok(Some(Renewed { lease, release, index, statement })) => {
                match loader.files(destination, &lease, stop).await {
                    Ok(Some((model, loaded))) => {
                        return Ok(Some(Held { model, lease, began, loaded, release, index, statement }));
                    }
                    ended => (ended.map(drop), Some(lease)),
                }
            }
            ended => (ended.map(drop), None),
        };
        loader.kill().await;
        let wiped = wipe(left);
        match lease {
            Some(lease) => end(lease).await,
            None => self.end(asked).await,
        }
        match (ended, wiped) {
            (Err(failure), Err(left)) => Err(failure.beside(&left)),
            (Err(failure), Ok(())) | (Ok(()), Err(failure)) => Err(failure),
            (Ok(()), Ok(())) => Ok(None),
        }
    }

    /// Finds the units of the tensors that are wanted, unless `stop` comes first. The lease of the headers is over then.
    pub(super) async fn look(&self, stop: impl Future<Output = ()>) -> Result<Option<Found>, Failure> {
        let mut loader = Loader::start(&self.job(None)?).await?;
        let mut asked = None;
        let told = tokio::select! {
            told = loader.told(&mut asked) => Some(told),
            () = stop => None,
        };
        loader.kill().await;
        self.end(asked).await;
        match told.transpose()? {
            Some(Told::Found(found)) => Ok(Some(found)),
            Some(Told::Granted(_) | Told::Loaded(_)) => Err(malformed("the loader opened what it was only to look at")),
            None => Ok(None),
        }
    }

    /// Ends the lease of a session that may have come to one.
    pub(super) async fn end(&self, asked: Option<[u8; 16]>) {
        if let Some(session) = asked {
            let lease = lease_id(&self.request.vault.id(), &session, self.signer.public());
            let end = end_lease(&self.request.hosts, &self.request.vault, lease, self.signer);
            // As likely as not there is no such lease, and the rule's own end of it comes anyway.
            let _ = tokio::time::timeout(END_TIME_MAX, end).await;
        }
    }

    /// Checks what the loader was granted, and renews the lease from now on.
    fn renew(&self, told: Told) -> Result<Renewed, Failure> {
        let Told::Granted(leased) = told else { return Err(malformed("the loader opened what nobody granted")) };
        let (vault, release, newest, statement) = self.check(&leased)?;
        let Request { hosts, model, extensions, .. } = self.request.clone();
        let holder = Holder {
            vault,
            hosts,
            model,
            workload: release.workload,
            identity: self.identity.clone(),
            signer: Arc::clone(self.signer),
            newest,
            statement: statement.clone(),
            extensions,
            outage: Outage::default(),
        };
        let lease = Lease::hold(holder, Term::first(leased.asked, &statement))?;
        Ok(Renewed { lease, release, index: leased.index, statement })
    }

    fn check(&self, leased: &Leased) -> Result<(VaultFile, Release, SignedLease, LeaseStatement), Failure> {
        let lease = leased.lease()?;
        let links: Vec<EpochLink> = leased.epochs.iter().map(EpochLink::from).collect();
        let vault = self.request.vault.clone().following(&links).map_err(SessionError::Epoch)?;
        let statement = verify_lease(&vault, &lease)?;
        let Ok(Entry::Release(release)) = Entry::parse(&leased.entry.0) else {
            return Err(malformed("what the loader gave is no release"));
        };
        if statement.lease_key != *self.signer.public() {
            return Err(malformed("the loader's lease is of another key"));
        }
        Ok((vault, *release, lease, statement))
    }

    pub(super) fn job(&self, into: Option<DirectoryId>) -> Result<Job, Failure> {
        let Request { vault, hosts, rule, model, part, sources, workload, .. } = self.request;
        let AgentIdentity { tpm, chip, event_log } = self.identity;
        Ok(Job {
            vault: Base64(vault.encode()),
            hosts: hosts.addresses.clone(),
            ca: hosts.ca.clone(),
            rule: rule.clone(),
            model: model.model.clone(),
            version: model.version.clone(),
            part: part.clone(),
            sources: sources.clone(),
            tpm: tpm.as_ref().map(JobTpm::from),
            chip: chip.as_ref().map(JobChip::from),
            event_log: event_log.clone(),
            lease_key: Base64(self.signer.public().as_bytes().to_vec()),
            into: self.into.zip(into).map(|(path, id)| JobDirectory { path: path.to_owned(), id }),
            workload: *workload,
            owner: self.owner,
            insecure_plaintext_on_disk: self.insecure_plaintext_on_disk,
        })
    }
}

fn died(status: ExitStatus) -> Failure {
    let died = Failure::new(Kind::Failed, "loader-died", format!("the loader ended without a word: {status}"));
    if status.signal() != Some(Signal::KILL.as_raw()) {
        return died;
    }
    died.next(
        "if nobody killed it, the memory of this machine or of its cgroup ran out (`dmesg`, memory.events of the cgroup): free \
         memory, raise the limit, or load fewer groups",
    )
}

fn malformed(why: &str) -> Failure {
    Failure::new(Kind::Failed, "loader-malformed", why)
}

/// What came of a job.
enum Told {
    Granted(Box<Leased>),
    Loaded(Box<Loaded>),
    Found(Found),
}

/// A running loader. It is killed when this is dropped.
struct Loader {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

fn loader() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg("loader").envs(ALLOCATOR).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

impl Loader {
    async fn start(job: &Job) -> Result<Self, Failure> {
        let failed = |error| Failure::io("the loader can't be started", &error);
        let job = serde_json::to_string(job).map_err(|error| Failure::new(Kind::Failed, "job-malformed", error))?;
        let mut child = starting_child(|| loader().spawn()).map_err(failed)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(Failure::new(Kind::Failed, "io", "the loader has no pipes"));
        };
        stdin.write_all(format!("{job}\n").as_bytes()).await.map_err(failed)?;
        Ok(Self { child, stdin: Some(stdin), lines: BufReader::new(stdout).lines() })
    }

    /// Waits for the grant or the outcome, and keeps the last session that keys were asked under.
    async fn told(&mut self, asked: &mut Option<[u8; 16]>) -> Result<Told, Failure> {
        loop {
            let line = self.lines.next_line().await.map_err(|error| Failure::io("the loader", &error))?;
            let Some(line) = line else {
                let status = self.child.wait().await.map_err(|error| Failure::io("the loader", &error))?;
                return Err(died(status));
            };
            let malformed = |error: serde_json::Error| Failure::new(Kind::Failed, "loader-malformed", error);
            match serde_json::from_str(&line).map_err(malformed)? {
                Said::Asking { session } => {
                    let mut bytes = [0; 16];
                    *asked = hex::decode_to_slice(&session, &mut bytes).is_ok().then_some(bytes);
                }
                Said::Granted(leased) => return Ok(Told::Granted(leased)),
                Said::Loaded(loaded) => return Ok(Told::Loaded(loaded)),
                Said::Found(found) => return Ok(Told::Found(found)),
                Said::Failed(failure) => return Err(failure),
            }
        }
    }

    /// Waits for the files and takes them over, unless `stop` comes first, or `lease` is lost: however slowly a source gives what
    /// it has, nothing is taken over later than that.
    async fn files(
        &mut self,
        destination: Destination,
        lease: &Lease,
        stop: impl Future<Output = ()>,
    ) -> Result<Option<(OpenedModel, Loaded)>, Failure> {
        let mut asked = None;
        let told = tokio::select! {
            // What comes at the same moment came too late.
            biased;
            lost = lease.lost() => return Err(Failure::from(&lost)),
            () = stop => return Ok(None),
            told = self.told(&mut asked) => told?,
        };
        let Told::Loaded(loaded) = told else { return Err(malformed("the loader did not open what it was granted")) };
        // The files are this process's own before the loader ends. One that has to give up wipes what it made by itself.
        let adopted = OpenedModel::adopt(destination);
        let finished = self.finish(if adopted.is_ok() { ADOPTED } else { "" }).await;
        let model = adopted?;
        finished?;
        match lease.lost_by_now() {
            Some(lost) => Err(Failure::from(&lost)),
            None => Ok(Some((model, *loaded))),
        }
    }

    /// Says a last word, and waits until it is gone.
    async fn finish(&mut self, word: &str) -> Result<(), Failure> {
        if let Some(mut stdin) = self.stdin.take() {
            // A loader that does not listen is one that is gone.
            let _ = stdin.write_all(format!("{word}\n").as_bytes()).await;
        }
        match tokio::time::timeout(WIPE_TIME_MAX, self.child.wait()).await {
            // Where a command has no namespace, whoever collects what it left behind may have collected the loader.
            Ok(Ok(_) | Err(_)) => Ok(()),
            Err(_) => {
                self.kill().await;
                Err(Failure::new(Kind::Failed, "loader-stuck", "the loader did not end"))
            }
        }
    }

    async fn kill(&mut self) {
        let _ = self.child.kill().await;
    }
}

/// Wipes what a loader left that was killed or failed.
fn wipe(destination: Destination) -> Result<(), Failure> {
    Ok(OpenedModel::adopt(destination)?.wipe()?)
}

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use super::*;

    const ROUNDS: u64 = 50;
    const FRAMES: u64 = 8;
    const PAGES_OF_FRAME: u64 = 256;

    /// Page faults that a process had without reading from a disk (proc(5), `stat`: minflt).
    fn faults() -> u64 {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(7).unwrap().parse().unwrap()
    }

    /// What frames cost that come and go, in this process. Run by the test below, in a process of its own.
    #[test]
    #[ignore = "a part of frames_come_out_of_memory_that_is_there_already"]
    fn faults_of_frames() {
        let frames = || (0..FRAMES).for_each(|_| drop(std::hint::black_box(vec![1_u8; 1 << 20])));
        let together = || drop(std::hint::black_box((0..FRAMES).map(|_| vec![1_u8; 1 << 20]).collect::<Vec<_>>()));
        together();
        let before = faults();
        (0..ROUNDS).for_each(|_| (frames(), together()).1);
        println!("faults: {}", faults() - before);
    }

    /// As a loader is started, and without what it is given.
    fn faults_with(settings: bool) -> u64 {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--ignored", "--nocapture", "agent::child::tests::faults_of_frames"]);
        for (name, value) in loader().as_std().get_envs() {
            match value.filter(|_| settings) {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let faults = said.split_once("faults: ").unwrap_or_else(|| panic!("{said}")).1;
        faults.split_whitespace().next().unwrap().parse().unwrap()
    }

    #[test]
    fn frames_come_out_of_memory_that_is_there_already() {
        let (with, without) = (faults_with(true), faults_with(false));
        let all = ROUNDS * FRAMES * PAGES_OF_FRAME;
        assert!(with < all / 20, "{with} faults for {all} pages");
        assert!(without > with, "{without} faults without the settings, {with} with them: they change nothing");
    }
}
