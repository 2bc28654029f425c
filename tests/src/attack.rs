//! The attack suite of `cargo xtask attack`: what an adversary tries on a real vault, and what stops him.
//!
//! Each attack changes one thing in an exchange that works. Whether the exchange works without it is tried as well: else a
//! vault that refuses everything would pass.

mod approvers;
mod custody;
pub mod hostile;
mod keepers;
mod permits;
mod relay;
mod replay;
mod revoked;
mod storage;
mod stored;
mod witnessed;

use std::fmt;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::Status;

use crate::{Guest, World};

/// How a try has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Nothing was changed: it works.
    Works,
    /// It is refused, with this code.
    Refused(&'static str),
}

/// How it ended: `Err` is the code of a refusal, or what was said where that code is not in it.
pub type Seen = Result<(), String>;

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Kind of attack.
    pub attack: &'static str,
    /// What was tried.
    pub tried: String,
    /// How it has to end.
    pub expected: Expected,
    /// How it ended.
    pub seen: Seen,
}

/// What a line comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Refused as expected.
    Stopped,
    /// What nobody attacked works.
    Works,
    /// The attack succeeded.
    Succeeded,
    /// It failed, though not by the check that is there for it.
    StoppedOtherwise,
    /// What nobody attacked does not work, so that the attacks beside it show nothing.
    Broken,
}

impl Row {
    /// What it comes to.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match (&self.expected, &self.seen) {
            (Expected::Works, Ok(())) => Verdict::Works,
            (Expected::Works, Err(_)) => Verdict::Broken,
            (Expected::Refused(_), Ok(())) => Verdict::Succeeded,
            (Expected::Refused(code), Err(seen)) if code == seen => Verdict::Stopped,
            (Expected::Refused(_), Err(_)) => Verdict::StoppedOtherwise,
        }
    }
}

impl Verdict {
    /// Whether the vault did as it should.
    #[must_use]
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Stopped | Self::Works)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::Works => "works",
            Self::Succeeded => "SUCCEEDED",
            Self::StoppedOtherwise => "STOPPED OTHERWISE",
            Self::Broken => "BROKEN",
        })
    }
}

/// Where lines go as they come about.
pub struct Report {
    attack: &'static str,
    rows: UnboundedSender<Row>,
}

impl Report {
    fn attack(&mut self, name: &'static str) {
        self.attack = name;
    }

    fn works(&self, what: &str, seen: Seen) {
        self.row(what, Expected::Works, seen);
    }

    fn refused(&self, tried: &str, code: &'static str, seen: Seen) {
        self.row(tried, Expected::Refused(code), seen);
    }

    fn row(&self, tried: &str, expected: Expected, seen: Seen) {
        // Nobody listens any more where the suite is being ended.
        let _ = self.rows.send(Row { attack: self.attack, tried: tried.to_owned(), expected, seen });
    }
}

/// How much is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// What one running vault can be asked: some seconds.
    Quick,
    /// Also what takes vaults and machines of its own, or a minute.
    Whole,
}

/// Plays the attacks one after the other; lines come as they come about. Whoever drops what this gives ends them.
#[must_use]
pub fn play(extent: Extent) -> UnboundedReceiver<Row> {
    let (rows, lines) = unbounded_channel();
    tokio::spawn(async move {
        let stages = if extent == Extent::Quick { &STAGES[..1] } else { STAGES };
        for stage in stages {
            if rows.is_closed() {
                return;
            }
            let report = Report { attack: stage, rows: rows.clone() };
            let played = match *stage {
                "one vault" => tokio::spawn(one_vault(report, extent)).await,
                "host" => tokio::spawn(stored::play(report)).await,
                "witnesses" => tokio::spawn(witnessed::play(report)).await,
                "several keepers" => tokio::spawn(keepers::play(report)).await,
                "custody" => tokio::spawn(custody::play(report)).await,
                _ => tokio::spawn(storage::play(report)).await,
            };
            if let Err(error) = played {
                let seen = Err(format!("it could not be played to its end: {error}"));
                let _ =
                    rows.send(Row { attack: stage, tried: "all that is left".into(), expected: Expected::Works, seen });
            }
        }
    });
    lines
}

const STAGES: &[&str] = &["one vault", "host", "storage", "witnesses", "several keepers", "custody"];

/// A ceremony takes longer than what is tried on its vault.
async fn one_vault(mut report: Report, extent: Extent) {
    let world = World::before_ceremony(|_, policy| {
        let thresholds = "threshold = 2\nrevoke_threshold = 1\nbreak_glass_threshold = 2\n";
        *policy = policy.replacen("threshold = 2\n", thresholds, 1);
        policy.push_str(&permits::rule());
    });
    world.sign_genesis();
    world.publish("1");
    relay::play(&world, &mut report).await;
    replay::play(&world, &mut report).await;
    approvers::play(&world, &mut report).await;
    permits::play(&world, &mut report).await;
    if extent == Extent::Whole {
        permits::outlived(&world, &mut report).await;
    }
    revoked::play(&world, &mut report).await;
}

/// The exact code behind the refusal of a guest's call.
async fn code_of<T>(guest: &mut Guest, answer: Result<T, Status>) -> Seen {
    match answer {
        Ok(_) => Ok(()),
        Err(refused) => Err(guest.code_of(refused).await),
    }
}

/// A program that was refused: the code if it said it, else the last that it said.
fn said(exit: Option<i32>, log: &str, code: &str) -> Seen {
    match exit {
        Some(0) => Ok(()),
        _ if log.contains(code) => Err(code.to_owned()),
        _ => Err(log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()),
    }
}
