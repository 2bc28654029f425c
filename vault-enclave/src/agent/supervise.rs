//! What happens while a command runs: signals, leases, other versions of its models, and files that it needs no more.
//!
//! ```text
//! loaded ──the server is ready, nobody uses the files──▶ dropped ──signal──▶ loaded again beside ──▶ shown, signal passed on
//!    └──────another version is named──▶ loaded beside ──▶ shown ──▶ command told ──nobody uses the old one──▶ wiped, lease ended
//! ```
//! A load that fails changes nothing: what was there stays as long as its lease does. A lease that is lost ends the command,
//! whichever of its models it is of.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use ledger::names::Version;
use ledger::policy::LeaseEnd;
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::command::{Exit, Running};
use super::follow::followed;
use super::holder::Lost;
use super::ready::Readiness;
use super::run::{Caught, END_GRACE, Happened, OnSwap, Told, asks_for_end};
use super::served::{Loading, Served};
use super::spec::Wanted;
use super::started::Started;
use super::user::User;
use crate::failure::Failure;

/// From SIGTERM to SIGKILL where a command is started again with another version.
const RESTART_GRACE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a load of another version failed. Its approvals may still come.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// How a command came to its end.
pub(super) enum Ended {
    ByItself(Exit),
    Lost(Lost),
}

/// A command with its models.
pub(super) struct Supervisor {
    pub(super) loading: Arc<Loading>,
    pub(super) wanted: Vec<Wanted>,
    /// One for each that is wanted.
    pub(super) served: Vec<Served>,
    /// Versions that others took the place of, and that are still used.
    pub(super) retiring: Vec<Served>,
    pub(super) readiness: Option<Readiness>,
    pub(super) told: Told,
    pub(super) command: Started,
    pub(super) user: User,
    pub(super) job: Option<Job>,
    pub(super) failed: Option<Failed>,
    /// Came while something else was loaded.
    pub(super) reload_later: Option<Signal>,
    pub(super) waits_said: bool,
    pub(super) ends: JoinSet<()>,
}

/// Models that were loaded beside those that are there, each with the number of the one whose place it takes.
type Beside = Result<Vec<(usize, Served)>, Failure>;

/// A load beside what is there.
pub(super) struct Job {
    why: Why,
    work: Pin<Box<dyn Future<Output = Beside>>>,
    stop: watch::Sender<bool>,
}

/// What could not be loaded, and when to try it again.
pub(super) struct Failed {
    versions: Vec<(usize, Version)>,
    retry_at: Instant,
}

#[derive(Clone)]
enum Why {
    /// These versions are named.
    Version(Vec<(usize, Version)>),
    /// A worker starts again, at this signal.
    Reload(Signal),
}

enum Event {
    Ended(Exit),
    Signal(Signal),
    Lost(Lost, LeaseEnd),
    Loaded(Why, Beside),
    Look,
}

impl Supervisor {
    /// Runs the command to its end, or to that of a lease. Nothing of the command, and no file, is left afterwards.
    ///
    /// # Errors
    /// What could not be started, ended or wiped.
    pub(super) async fn run(mut self, caught: &mut Caught) -> Result<Ended, Failure> {
        let started = self.served.iter().try_for_each(Served::make_replaceable).and_then(|()| self.start());
        let ended = match started {
            Ok(mut running) => {
                let ended = self.watch(&mut running, caught).await;
                // Whatever went wrong: nobody is to use files that are wiped.
                running.kill_all().and(ended)
            }
            Err(failure) => Err(failure),
        };
        self.stop_job().await;
        self.release().await.and(ended)
    }

    /// What was shown is what is started, and nothing under a lease that is over.
    fn start(&self) -> Result<Running, Failure> {
        if let Some(lost) = self.served.iter().find_map(Served::lost_by_now) {
            return Err(Failure::from(&lost));
        }
        let is_shown = self.served.iter().any(|served| served.shows_workload);
        if is_shown {
            self.command.check_unchanged()?;
        }
        // A relative path leads elsewhere from each directory, and no digest says from which.
        Running::start(&self.command, &self.user, is_shown.then_some(Path::new("/")))
    }

    /// Wipes all files and ends all leases that still run.
    ///
    /// # Errors
    /// What could not be wiped.
    pub(super) async fn release(mut self) -> Result<(), Failure> {
        let mut released = Ok(());
        for served in self.served.into_iter().chain(self.retiring) {
            match served.release() {
                Ok(end) => drop(self.ends.spawn(end)),
                Err(failure) => released = Err(failure),
            }
        }
        while self.ends.join_next().await.is_some() {}
        released
    }

    async fn watch(&mut self, running: &mut Running, caught: &mut Caught) -> Result<Ended, Failure> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let looks = self.has_to_look();
            let event = tokio::select! {
                happened = caught.next(running) => match happened {
                    Happened::Exit(exit) => Event::Ended(exit),
                    Happened::Signal(signal) => Event::Signal(signal),
                },
                (lost, lease_end) = first_lost(self.served.iter().chain(&self.retiring)) => Event::Lost(lost, lease_end),
                (why, loaded) = done(&mut self.job) => Event::Loaded(why, loaded),
                _ = look.tick(), if looks => Event::Look,
            };
            match event {
                Event::Ended(exit) => return Ok(Ended::ByItself(exit)),
                Event::Signal(signal) if self.told.reload_on == Some(signal) => self.reload(signal, running),
                Event::Signal(signal) => running.forward(signal),
                Event::Lost(lost, lease_end) => {
                    end_command(&lost, grace(lease_end), running, caught).await;
                    return Ok(Ended::Lost(lost));
                }
                Event::Loaded(why, loaded) => {
                    self.job = None;
                    if let Some(ended) = self.take(why, loaded, running, caught).await? {
                        return Ok(ended);
                    }
                    if let Some(signal) = self.reload_later.take() {
                        self.reload(signal, running);
                    }
                }
                Event::Look => self.look().await?,
            }
        }
    }

    fn has_to_look(&self) -> bool {
        let follows = self.wanted.iter().any(|wanted| wanted.follow.is_some());
        let drops = self.readiness.is_some() && self.served.iter().any(Served::has_files);
        follows || drops || !self.retiring.is_empty()
    }

    async fn look(&mut self) -> Result<(), Failure> {
        let mut still_used = Vec::new();
        for old in std::mem::take(&mut self.retiring) {
            if old.users().is_empty() {
                eprintln!("{}@{} is used no more: wiped", old.name.model, old.name.version);
                self.ends.spawn(old.release()?);
            } else {
                still_used.push(old);
            }
        }
        self.retiring = still_used;
        if self.job.is_some() {
            return Ok(());
        }
        if let Some(readiness) = &mut self.readiness
            && self.served.iter().any(Served::has_files)
            && (self.waits_said || readiness.has_come().await)
        {
            self.drop_files()?;
        }
        self.follow();
        Ok(())
    }

    /// The server has read its models. One that maps the files needs them as long as it runs.
    fn drop_files(&mut self) -> Result<(), Failure> {
        let users: Vec<u32> = self.served.iter().flat_map(Served::users).collect();
        if users.is_empty() {
            self.served.iter_mut().try_for_each(Served::drop_files)?;
            self.waits_said = false;
            eprintln!("the server is ready: the files are dropped");
        } else if !self.waits_said {
            self.waits_said = true;
            eprintln!(
                "the server is ready, and these processes still use the files, which stay as long as they do: {users:?}"
            );
        }
        Ok(())
    }

    /// Starts to load what the followed files name.
    fn follow(&mut self) {
        let (mut changed, mut versions) = (Vec::new(), Vec::new());
        for (index, (wanted, served)) in self.wanted.iter().zip(&self.served).enumerate() {
            let Some(file) = &wanted.follow else { continue };
            // A file that is missing or half written says nothing.
            let Ok(version) = followed(file, &served.name.model) else { continue };
            if version != served.name.version {
                let mut wanted = wanted.clone();
                wanted.request.model.version = version.clone();
                changed.push((index, wanted));
                versions.push((index, version));
            }
        }
        let waits = |failed: &Failed| failed.versions == versions && failed.retry_at > Instant::now();
        if !changed.is_empty() && !self.failed.as_ref().is_some_and(waits) {
            self.start_job(Why::Version(versions), changed);
        }
    }

    /// A worker is to start again: it finds the files, and then gets the signal.
    fn reload(&mut self, signal: Signal, running: &Running) {
        let dropped = self.wanted.iter().zip(&self.served).enumerate().filter(|(_, (_, served))| !served.has_files());
        let dropped: Vec<_> = dropped.map(|(index, (wanted, _))| (index, wanted.clone())).collect();
        if dropped.is_empty() {
            running.forward(signal);
        } else if self.job.is_some() {
            self.reload_later = Some(signal);
        } else {
            self.start_job(Why::Reload(signal), dropped);
        }
    }

    fn start_job(&mut self, why: Why, wanted: Vec<(usize, Wanted)>) {
        let (stop, stopped) = watch::channel(false);
        let loading = Arc::clone(&self.loading);
        let work = async move {
            let mut loaded: Vec<(usize, Served)> = Vec::new();
            for (index, wanted) in wanted {
                let (mut stopped, mut lost) = (stopped.clone(), None);
                let stop = async {
                    tokio::select! {
                        _ = stopped.wait_for(|stop| *stop) => {}
                        (which, _) = first_lost(loaded.iter().map(|(_, served)| served)) => lost = Some(which),
                    }
                };
                let served = loading.load_beside(&wanted, stop).await?;
                if let Some(lost) = lost {
                    return Err(Failure::from(&lost));
                }
                loaded.extend(served.map(|served| (index, served)));
            }
            Ok(loaded)
        };
        self.job = Some(Job { why, work: Box::pin(work), stop });
    }

    /// Shows what was loaded, and tells the command. `Some` where it came to its end meanwhile.
    async fn take(
        &mut self,
        why: Why,
        loaded: Beside,
        running: &mut Running,
        caught: &mut Caught,
    ) -> Result<Option<Ended>, Failure> {
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(failure) => {
                self.fail(why, running, &failure);
                return Ok(None);
            }
        };
        self.failed = None;
        for (index, mut new) in loaded {
            if let Err(failure) = new.show(&mut self.served[index]) {
                self.ends.spawn(new.release()?);
                self.fail(why, running, &failure);
                return Ok(None);
            }
            self.wanted[index].request.model = new.name.clone();
            self.retiring.push(std::mem::replace(&mut self.served[index], new));
        }
        if let Some(readiness) = &mut self.readiness {
            readiness.begin_again();
        }
        self.waits_said = false;
        match (why, self.told.on_swap) {
            (Why::Reload(signal), _) | (Why::Version(_), OnSwap::Signal(signal)) => running.signal(signal),
            (Why::Version(_), OnSwap::Nothing) => {}
            (Why::Version(_), OnSwap::Restart) => return self.restart(running, caught).await,
        }
        Ok(None)
    }

    fn fail(&mut self, why: Why, running: &Running, failure: &Failure) {
        match why {
            Why::Version(versions) => {
                eprintln!(
                    "warning: the version that is there stays, and the other is tried again in {} s: {failure}",
                    RETRY_AFTER.as_secs()
                );
                self.failed = Some(Failed { versions, retry_at: Instant::now() + RETRY_AFTER });
            }
            // It may do without.
            Why::Reload(signal) => {
                eprintln!("warning: the files could not be loaded again: {failure}");
                running.signal(signal);
            }
        }
    }

    /// Ends the command and starts it again. `Some` where somebody asked for its end meanwhile, or a lease was lost.
    async fn restart(&mut self, running: &mut Running, caught: &mut Caught) -> Result<Option<Ended>, Failure> {
        eprintln!("the command is started again with the other version");
        running.signal(Signal::TERM);
        let killed_at = tokio::time::Instant::now() + RESTART_GRACE;
        let mut asked = false;
        let ended = async {
            loop {
                match caught.next(running).await {
                    Happened::Exit(exit) => return exit,
                    Happened::Signal(signal) => {
                        asked |= asks_for_end(signal);
                        running.forward(signal);
                    }
                }
            }
        };
        let ended = tokio::select! {
            exit = tokio::time::timeout_at(killed_at, ended) => Ended::ByItself(exit.unwrap_or(Exit::KILLED)),
            (lost, lease_end) = first_lost(self.served.iter().chain(&self.retiring)) => {
                // It has been told to end already.
                let grace = grace(lease_end).min(killed_at.saturating_duration_since(tokio::time::Instant::now()));
                end_command(&lost, grace, running, caught).await;
                Ended::Lost(lost)
            }
        };
        running.kill_all()?;
        if asked || matches!(ended, Ended::Lost(_)) {
            return Ok(Some(ended));
        }
        for old in std::mem::take(&mut self.retiring) {
            self.ends.spawn(old.release()?);
        }
        *running = self.start()?;
        Ok(None)
    }

    /// Nothing of a load that nobody waits for is left.
    async fn stop_job(&mut self) {
        if let Some(job) = self.job.take() {
            let _ = job.stop.send(true);
            if let Ok(loaded) = job.work.await {
                self.retiring.extend(loaded.into_iter().map(|(_, served)| served));
            }
        }
    }
}

/// The time that the rule gives the command.
fn grace(lease_end: LeaseEnd) -> Duration {
    match lease_end {
        LeaseEnd::End => END_GRACE,
        LeaseEnd::Drain { seconds } => Duration::from_secs(seconds.into()),
    }
}

/// Ends the command, within this time.
async fn end_command(lost: &Lost, grace: Duration, running: &Running, caught: &mut Caught) {
    eprintln!("error: {lost}; the command has {} s", grace.as_secs());
    running.signal(Signal::TERM);
    let _ = tokio::time::timeout(grace, caught.exit(running)).await;
}

/// The first lease that is lost.
pub(super) async fn first_lost<'a>(served: impl Iterator<Item = &'a Served>) -> (Lost, LeaseEnd) {
    let mut leases: Vec<_> = served.map(|served| Box::pin(served.lost())).collect();
    std::future::poll_fn(|context| {
        let mut lost = leases.iter_mut().filter_map(|lease| match lease.as_mut().poll(context) {
            Poll::Ready(lost) => Some(lost),
            Poll::Pending => None,
        });
        lost.next().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// The end of a load, where there is one.
async fn done(job: &mut Option<Job>) -> (Why, Beside) {
    match job {
        Some(job) => {
            let loaded = job.work.as_mut().await;
            (job.why.clone(), loaded)
        }
        None => std::future::pending().await,
    }
}
