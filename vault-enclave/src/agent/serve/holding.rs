//! One model of an agent: loaded, shared, renewed, and wiped; again where it was lost and may come back.

use std::sync::Arc;
use std::time::Duration;

use ledger::policy::LeaseEnd;
use ring::rand::SystemRandom;
use tokio::sync::watch;
use vault_proto::convert::LoadOrder;

use super::agent::Agent;
use super::models::{Entry, State, Why};
use super::shared::Shared;
use crate::agent::child::{Held, Load};
use crate::agent::holder::{Lease, Lost};
use crate::agent::lease_signer::LeaseSigner;
use crate::agent::load::{EXIT_REVOKED, end};
use crate::agent::look::look;
use crate::agent::mount::{MountPoint, PrivateMount};
use crate::agent::options::Order;
use crate::agent::part::Part;
use crate::agent::report;
use crate::agent::run::END_GRACE;
use crate::agent::served::size;
use crate::agent::sources::SourceList;
use crate::agent::term::BootTime;
use crate::failure::{Failure, Kind};
use crate::open::{Destination, OpenedModel};
use crate::place::{Facts, judge};

/// Least and most that a load which failed waits before the next try.
const RETRY_MIN: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(300);
/// Of a problem: 64 models with one each, and all of it escaped, are half a frame.
const PROBLEM_BYTES_MAX: usize = 1 << 10;

/// What one model needs.
pub(super) struct Holding {
    pub(super) agent: Arc<Agent>,
    pub(super) order: LoadOrder,
    pub(super) entry: Arc<Entry>,
}

/// How a load that succeeded ended.
enum Ended {
    Asked,
    Lost(Lost),
}

/// Says whether, and why, a model is to end.
type Stops = watch::Receiver<Option<Why>>;

/// An order, as options of a command line would say it.
///
/// # Errors
/// `select-nothing`.
pub(super) fn wanted(order: &LoadOrder) -> Result<Order, Failure> {
    Ok(Order {
        model: order.model.clone(),
        rule: order.rule.clone(),
        part: Part::try_from(&order.part)?,
        sources: SourceList::only(order.ciphertext.clone()),
    })
}

impl Holding {
    /// Until the model ends for good. What passes is tried again, slower each time: a host that is not there, a keeper that
    /// gave no renewal in time. What was refused, revoked or does not verify is not.
    pub(super) async fn run(self) {
        let mut stops = self.entry.stops();
        let mut wait = RETRY_MIN;
        let why = loop {
            let problem = match self.once(&mut stops).await {
                Ok(Ended::Asked) => break asked(&stops),
                Ok(Ended::Lost(Lost::Revoked(revoked))) => break Why::Revoked(Lost::Revoked(revoked).to_string()),
                Ok(Ended::Lost(lost @ Lost::NotRenewed)) => {
                    wait = RETRY_MIN;
                    // So that a reader who held it is told so, whatever comes next.
                    self.set(State::Gone { why: Why::LeaseLost });
                    lost.to_string()
                }
                Err(failure) if failure.kind() == Kind::Failed => brief(&failure),
                Err(failure) if failure.lost_lease() == Some(EXIT_REVOKED) => {
                    self.say(&failure);
                    break Why::Revoked(failure.message().to_owned());
                }
                Err(failure) => {
                    self.say(&failure);
                    break Why::Failed(brief(&failure));
                }
            };
            self.say(format!("{problem}; the next try is in {} s", wait.as_secs()));
            self.set(State::Loading { problem: Some(problem) });
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stopped(&mut stops) => break asked(&stops),
            }
            wait = wait.saturating_mul(2).min(RETRY_MAX);
        };
        self.set(State::Gone { why });
    }

    /// From the first request to wiped memory.
    async fn once(&self, stops: &mut Stops) -> Result<Ended, Failure> {
        let mut request = self.agent.machine.request(wanted(&self.order)?)?;
        let identity = self.agent.identity.clone();
        if look(&mut request, &identity, stopped(stops)).await?.is_none() {
            return Ok(Ended::Asked);
        }
        let (bytes, files) = tokio::select! {
            size = size(&request) => size?,
            () = stopped(stops) => return Ok(Ended::Asked),
        };
        let (memory, view) = self.agent.points()?;
        let mount = PrivateMount::new(memory, bytes, files, None)?;
        let directory = mount.directory()?;
        let place = judge(&Facts::of(&directory)?, bytes, false)?;
        let destination = Destination::new(directory, place)?;
        let signer = Arc::new(LeaseSigner::generate(&SystemRandom::new())?);
        let load = Load {
            request: &request,
            identity: &identity,
            signer: &signer,
            into: Some(mount.path()),
            owner: None,
            insecure_plaintext_on_disk: false,
        };
        let Some(held) = load.run(destination, stopped(stops)).await? else { return Ok(Ended::Asked) };
        report::loaded(&held, mount.path());
        let Held { model, lease, statement, .. } = held;
        let ended = self.share(&mount, view, &model, &lease, statement.lease_end, stops).await;
        wipe(model).await;
        drop(mount);
        // What could not be shared has a lease, too.
        end(lease).await;
        ended
    }

    /// From ready to the moment in which it has to be wiped.
    async fn share(
        &self,
        mount: &PrivateMount,
        view: MountPoint,
        model: &OpenedModel,
        lease: &Lease,
        lease_end: LeaseEnd,
        stops: &mut Stops,
    ) -> Result<Ended, Failure> {
        let view = mount.read_only(view)?;
        let shared = Arc::new(Shared::new(model, &view)?);
        // Nobody is given what is to be wiped.
        if let Some(lost) = lease.lost_by_now() {
            return Ok(Ended::Lost(lost));
        }
        self.set(State::Ready { shared: Arc::clone(&shared), terms: lease.terms() });
        self.say("is shared");
        let lost = tokio::select! {
            lost = lease.lost() => lost,
            () = stopped(stops) => {
                self.drain(&shared, asked(stops), END_GRACE).await;
                return Ok(Ended::Asked);
            }
        };
        self.say(&lost);
        let why = match &lost {
            Lost::NotRenewed => Why::LeaseLost,
            Lost::Revoked(_) => Why::Revoked(lost.to_string()),
        };
        let grace = match lease_end {
            LeaseEnd::End => END_GRACE,
            LeaseEnd::Drain { seconds } => Duration::from_secs(seconds.into()),
        };
        tokio::select! {
            () = self.drain(&shared, why, grace) => {}
            () = stopped(stops) => self.drain(&shared, asked(stops), END_GRACE).await,
        }
        Ok(Ended::Lost(lost))
    }

    /// Readers are told before the memory is touched, so that each knows what it read was the model.
    async fn drain(&self, shared: &Arc<Shared>, why: Why, grace: Duration) {
        // Nobody has it, and nobody gets it any more.
        let grace = if self.entry.has_readers() { grace } else { Duration::ZERO };
        let until = BootTime::now().plus(grace);
        self.set(State::Draining { shared: Arc::clone(shared), why, until });
        tokio::time::sleep(grace).await;
    }

    fn set(&self, state: State) {
        self.agent.models.set(&self.entry, state);
    }

    fn say(&self, what: impl std::fmt::Display) {
        let name = &self.entry.name;
        eprintln!("{}@{}: {what}", name.model, name.version);
    }
}

/// What readers and others are told of a failure. Some of it may be a host's words: however long they are, a list of all models
/// fits a frame.
fn brief(failure: &Failure) -> String {
    let mut text = failure.to_string();
    if text.len() > PROBLEM_BYTES_MAX {
        text.truncate(text.floor_char_boundary(PROBLEM_BYTES_MAX));
        text.push('…');
    }
    text
}

/// Writing zeros to all of a model takes a while, in which others are served.
async fn wipe(model: OpenedModel) {
    let wiped = tokio::task::spawn_blocking(|| model.wipe()).await;
    match wiped.map(|wiped| wiped.map_err(Failure::from)) {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => eprintln!("error: not wiped: {failure}"),
        Err(error) => eprintln!("error: not wiped: {error}"),
    }
}

async fn stopped(stops: &mut Stops) {
    // It fails where the entry is gone, and with it whoever could ask.
    let _ = stops.wait_for(Option::is_some).await;
}

fn asked(stops: &Stops) -> Why {
    stops.borrow().clone().unwrap_or(Why::Stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_says_is_cut_where_it_is_too_long_to_be_listed() {
        let told = |words: &str| brief(&Failure::new(Kind::Failed, "x", words));
        assert_eq!(told("away"), "away (x)");
        let long = told(&"ä".repeat(100_000));
        assert!(long.ends_with('…') && long.len() <= PROBLEM_BYTES_MAX + '…'.len_utf8(), "{}", long.len());
    }
}
