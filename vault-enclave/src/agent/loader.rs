//! `vault-enclave loader`: the child that does all that touches unit keys, and ends. What `ring` and `hpke` leave of a
//! key in memory is gone with the process.

use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use attestation::{LeaseKey, UnitSet};
use ledger::key_epoch::EpochLink;
use ledger::manifest::{Manifest, Selection};
use ledger::policy::UnitCheck;
use ledger::vault_file::VaultFile;
use ring::rand::SystemRandom;
use rustix::process::Signal;
use tokio::runtime::Runtime;
use vault_proto::convert::{ChallengeFor, ChallengeRequest};

use super::attester::Attester;
use super::fetch::RemoteUnits;
use super::holder::Lost;
use super::job::{ADOPTED, Base64, EpochStep, Job, JobDirectory, Leased, Loaded, Said, Times};
use super::part::{Found, Part};
use super::progress::Progress;
use super::remote::{Remote, RemoteError};
use super::session::{Granted, Session, Wanted};
use super::sources::Sources;
use super::term::{BootTime, Term};
use crate::failure::{Failure, Kind};
use crate::open::{Destination, GrantedModel, OpenedModel, View, check_views};
use crate::place::{Facts, judge};
use crate::region::harden_process;
use crate::tpm::silence_libtss2;

/// proc(5): before every other process.
const FIRST_TO_END: &str = "1000";
/// A job names a vault file and a few keys.
const JOB_BYTES_MAX: u64 = 1 << 20;
/// How often a new challenge is asked for, where something moved or there was too much at once.
const TRIES_MAX: u32 = 6;
const TRY_AFTER: Duration = Duration::from_millis(250);
/// Threads that receive: a connection is one task.
pub(super) const RECEIVERS: usize = 2;

/// Runs one job from stdin.
#[must_use]
pub fn run() -> ExitCode {
    match job() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Where the parent is gone, nobody needs to know.
            let _ = say(&Said::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

fn job() -> Result<(), Failure> {
    // Where memory runs out, the kernel ends the loader, after which its parent wipes, and not the parent, after which nobody
    // does. Before this process is closed: its files are root's then. Without it a load is as good.
    let _ = std::fs::write("/proc/self/oom_score_adj", FIRST_TO_END);
    harden_process()?;
    // Nobody would wipe what is opened after the parent's death.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| Failure::io("the parent's death can't be watched", &errno.into()))?;
    silence_libtss2().map_err(|error| Failure::io("the loader can't be started again", &error))?;
    let mut line = String::new();
    let mut stdin = io::BufReader::new(io::Read::take(io::stdin(), JOB_BYTES_MAX));
    stdin.read_line(&mut line).map_err(|error| Failure::io("no job", &error))?;
    let job: Job = serde_json::from_str(&line).map_err(|error| Failure::new(Kind::Failed, "job-malformed", error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(RECEIVERS).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::io("no threads", &error))?;
    let Some(into) = &job.into else { return say(&Said::Found(look(&job, &runtime, &tell)?)) };
    let (model, loaded) = load(&job, into, &runtime)?;
    say(&Said::Loaded(Box::new(loaded)))?;
    line.clear();
    match stdin.read_line(&mut line) {
        Ok(_) if line.trim_end() == ADOPTED => model.leave(),
        // The parent did not take over: wiped here.
        _ => drop(model),
    }
    Ok(())
}

/// What a job is about, before anything of it is granted.
pub(super) struct Asked {
    pub(super) vault: VaultFile,
    /// What led to its keys.
    links: Vec<EpochLink>,
    pub(super) remote: Remote,
    pub(super) manifest: Manifest,
}

impl Asked {
    pub(super) fn of(job: &Job, runtime: &Runtime) -> Result<Self, Failure> {
        let vault = VaultFile::parse(&job.vault.0)?;
        let remote = runtime.block_on(job.hosts().connect())?;
        let (vault, links) = runtime.block_on(remote.follow(&vault))?;
        let manifest = runtime.block_on(remote.manifest(job.name()))?;
        Ok(Self { vault, links, remote, manifest })
    }

    pub(super) fn wanted<'a>(&'a self, job: &'a Job, selection: &'a Selection) -> Wanted<'a> {
        let (vault, manifest) = (&self.vault, &self.manifest);
        Wanted {
            vault,
            rule: &job.rule,
            model: &job.model,
            version: &job.version,
            manifest,
            selection,
            workload: job.workload,
        }
    }

    pub(super) fn sources<'a>(&'a self, job: &Job, units: &UnitSet, runtime: &Runtime) -> Result<Sources<'a>, Failure> {
        let host = RemoteUnits::new(self.remote.clone(), job.name(), runtime.handle().clone());
        job.sources.open(&self.manifest, units, host, runtime.handle())
    }
}

fn load(job: &Job, into: &JobDirectory, runtime: &Runtime) -> Result<(OpenedModel, Loaded), Failure> {
    let about = Asked::of(job, runtime)?;
    let Asked { remote, manifest, .. } = &about;
    let selection = job.part.selection(manifest)?;
    let units = manifest.select(&selection)?;
    let (bytes, views) = (manifest.bytes_of(&units)?, job.part.views(manifest)?);
    // Before anything is released: a grant that can't be used would count against the limits of the rule.
    check_views(manifest, &views)?;
    let directory = into.open()?;
    let facts = Facts::of(&directory)?;
    let place = judge(&facts, View::bytes_of(&views, manifest)?, job.insecure_plaintext_on_disk)?;
    let destination = Destination::new(directory, place)?;
    let sources = about.sources(job, &units, runtime)?;

    let (asked, granted) = ask(&about.wanted(job, &selection), job, remote, runtime, &tell)?;
    // From here on the parent renews, however long the load takes, and ends this process where the lease is lost.
    say(&Said::Granted(Box::new(leased(&about, asked, &granted))))?;
    let (keys, first) = (BootTime::now(), OnceLock::new());
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let model = open(&views, manifest, &granted, &sources, destination, &Progress::new(bytes, &first))?;
    let (seconds, cpu_seconds) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    if let Some(owner) = job.owner {
        model.give(owner.uid, owner.gid)?;
        tracing::debug!(into = %into.path.display(), uid = owner.uid, "files given");
    }
    let loaded = Loaded {
        host: remote.address().to_owned(),
        files: model.files().count(),
        bytes,
        seconds,
        cpu_seconds,
        times: Times { keys, first: first.get().copied(), all: BootTime::now() },
        place: place.to_string(),
        insecure: place.is_insecure(),
        huge: facts.mount.huge,
        sources: sources.used(),
        huge_bytes: model.huge_bytes(),
    };
    Ok((model, loaded))
}

fn leased(about: &Asked, asked: BootTime, granted: &Granted) -> Leased {
    Leased {
        statement: Base64(granted.lease.statement.clone()),
        signature: Base64(granted.lease.signature.to_vec()),
        asked,
        entry: Base64(granted.entry.clone()),
        index: granted.index,
        epochs: about.links.iter().cloned().map(EpochStep::from).collect(),
    }
}

/// Opens the headers alone, to find the units of tensors. Nobody renews their lease: what comes later is worth nothing.
pub(super) fn look(job: &Job, runtime: &Runtime, tell: &Asking<'_>) -> Result<Found, Failure> {
    let nothing = || Failure::new(Kind::Failed, "job-malformed", "no tensors to look for");
    let named = job.part.by_name().ok_or_else(nothing)?;
    let about = Asked::of(job, runtime)?;
    let selection = Part::headers(&about.manifest)?;
    let sources = about.sources(job, &about.manifest.select(&selection)?, runtime)?;
    let (asked, granted) = ask(&about.wanted(job, &selection), job, &about.remote, runtime, tell)?;
    let verify_units = granted.statement.unit_check == UnitCheck::Hashed;
    let model = GrantedModel { manifest: &about.manifest, keys: &granted.keys, verify_units };
    let found = named.find(&about.manifest, &model.tensors(&sources, cores())?)?;
    if Term::first(asked, &granted.statement).is_over() { Err(Failure::from(&Lost::NotRenewed)) } else { Ok(found) }
}

/// Told of each session under which keys are about to be asked for: a lease may exist from then on.
pub(super) type Asking<'a> = dyn Fn([u8; 16]) -> Result<(), Failure> + 'a;

/// Tells the parent.
fn tell(session: [u8; 16]) -> Result<(), Failure> {
    say(&Said::Asking { session: hex::encode(session) })
}

/// From challenge to keys, again where something moved meanwhile. The TPM is closed afterwards.
pub(super) fn ask(
    wanted: &Wanted<'_>,
    job: &Job,
    remote: &Remote,
    runtime: &Runtime,
    tell: &Asking<'_>,
) -> Result<(BootTime, Granted), Failure> {
    let identity = job.identity()?;
    let lease_key = job.lease_key()?;
    let attester = identity.open()?;
    let request = ChallengeRequest {
        rule: job.rule.clone(),
        model: job.model.clone(),
        version: job.version.clone(),
        action: ChallengeFor::Load(wanted.selection.clone()),
        tpm: identity.tpm_identity(),
        forms: identity.forms(),
    };
    let mut tries = 1;
    loop {
        match exchange(wanted, &request, &attester, &lease_key, (remote, runtime), tell) {
            Err(Refused::Remote(error)) if error.is_try_again() && tries < TRIES_MAX => {
                std::thread::sleep(TRY_AFTER * 2_u32.pow(tries));
                tries += 1;
            }
            Err(Refused::Remote(error)) => return Err(error.into()),
            Err(Refused::Here(failure)) => return Err(failure),
            Ok(granted) => return Ok(granted),
        }
    }
}

enum Refused {
    Remote(RemoteError),
    Here(Failure),
}

fn exchange(
    wanted: &Wanted<'_>,
    request: &ChallengeRequest,
    attester: &Attester<'_>,
    lease_key: &LeaseKey,
    (remote, runtime): (&Remote, &Runtime),
    tell: &Asking<'_>,
) -> Result<(BootTime, Granted), Refused> {
    let here = |error: super::error::SessionError| Refused::Here(error.into());
    let challenge = runtime.block_on(remote.challenge(request.clone())).map_err(Refused::Remote)?;
    let (session, request) =
        Session::start(wanted, challenge, attester, lease_key.clone(), &SystemRandom::new()).map_err(here)?;
    tell(request.session).map_err(Refused::Here)?;
    let asked = BootTime::now();
    let grant = runtime.block_on(remote.release(request)).map_err(Refused::Remote)?;
    Ok((asked, session.accept(grant).map_err(here)?))
}

fn open(
    views: &[View],
    manifest: &Manifest,
    granted: &Granted,
    source: &Sources<'_>,
    destination: Destination,
    progress: &Progress<'_>,
) -> Result<OpenedModel, Failure> {
    let verify_units = granted.statement.unit_check == UnitCheck::Hashed;
    let model = GrantedModel { manifest, keys: &granted.keys, verify_units };
    let opened = model.open_views(views, source, destination, cores(), &|passed| progress.add(passed));
    progress.finish();
    Ok(opened?)
}

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Of all threads of this process: on a machine that others use it says more than the time on the wall.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn say(said: &Said) -> Result<(), Failure> {
    let line = serde_json::to_string(said).map_err(|error| Failure::new(Kind::Failed, "loader-malformed", error))?;
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    written.map_err(|error| Failure::io("the parent does not listen", &error))
}
