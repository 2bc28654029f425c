//! What outlives a keeper's process: the host's disks, the keeper's directories, the TPM; and the head on top of them, as
//! `vault-enclave/src/head.rs` moves it.

use std::rc::Rc;

use ledger::merkle::Hash;

use crate::bug::Bug;
use crate::scene::Guard;
use crate::sim::Sim;

pub type Bytes = Rc<[u8]>;

/// A disk of the host.
#[derive(Clone, Default)]
pub struct Store {
    pub entries: Vec<Bytes>,
    pub checkpoint: Option<String>,
}

/// The keeper's sealed head: the host can copy it and put copies back, and can't make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub size: u64,
    pub root: Hash,
    pub count: u64,
}

/// Counter and run register: nobody rolls them back.
#[derive(Default)]
pub struct Tpm {
    pub count: u64,
    pub run: u32,
}

/// What ends a process, or makes it stop by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Killed,
    /// The host's disk or the way to the TPM failed.
    Io,
    OlderState,
    CounterBehind,
    CounterMoved,
    CounterClaimed,
    Miscounted,
    Stopped,
}

/// `Anchor` of `vault-enclave/src/head.rs`, step for step.
pub struct Anchor {
    pub head: Head,
    dir: usize,
    run: u32,
    stopped: bool,
}

impl Anchor {
    pub fn open(sim: &mut Sim, dir: usize, run: u32) -> Result<Self, Cut> {
        let anchor = Self { head: sim.dirs[dir], dir, run, stopped: false };
        if sim.scene.guard != Guard::Counter {
            return Ok(anchor);
        }
        anchor.fits(sim.tpm.count)?;
        sim.step(run, "before it takes the counter")?;
        sim.tpm.run = run;
        sim.step(run, "after it took the counter")?;
        let found = sim.tpm.count;
        if anchor.fits(found)? == Fit::Cut && sim.bug != Some(Bug::CounterStaysBehind) {
            sim.say(format!("run {run} finishes the increment of the commit before"));
            anchor.count(sim, found)?;
        }
        Ok(anchor)
    }

    pub fn commit(&mut self, sim: &mut Sim, size: u64, root: Hash) -> Result<(), Cut> {
        if std::mem::replace(&mut self.stopped, true) {
            return Err(Cut::Stopped);
        }
        let counts = sim.scene.guard == Guard::Counter;
        let next = Head { size, root, count: self.head.count + u64::from(counts) };
        if counts && sim.bug == Some(Bug::CounterBeforeHead) {
            self.count(sim, self.head.count)?;
            self.write(sim, next)?;
        } else {
            self.write(sim, next)?;
            if counts {
                self.count(sim, self.head.count)?;
            }
        }
        self.head = next;
        self.stopped = false;
        Ok(())
    }

    /// Whether this run is still the one that counts (`Anchor::check_run`). What its host does after that it does not see.
    pub fn check_run(&mut self, sim: &mut Sim) -> Result<(), Cut> {
        if self.stopped {
            return Err(Cut::Stopped);
        }
        if sim.scene.guard != Guard::Counter || sim.bug == Some(Bug::OvertakenRunRenews) {
            return Ok(());
        }
        sim.step(self.run, "before it asks whether it has the counter still")?;
        let (count, run) = (sim.tpm.count, sim.tpm.run);
        self.stopped = run != self.run || count != self.head.count;
        match self.stopped {
            true if run != self.run => Err(Cut::CounterClaimed),
            true => Err(Cut::CounterMoved),
            false => sim.step(self.run, "after it asked whether it has the counter still"),
        }
    }

    fn write(&self, sim: &mut Sim, head: Head) -> Result<(), Cut> {
        sim.step(self.run, "before its head is written")?;
        sim.dirs[self.dir] = head;
        sim.truth.head_written(self.run, head);
        sim.copies.push(head);
        sim.step(self.run, "after its head was written")
    }

    /// `increment_counter` of `vault-enclave/src/tpm/counter.rs`: one session, and between its commands others have theirs.
    fn count(&self, sim: &mut Sim, from: u64) -> Result<(), Cut> {
        let (found, run) = (sim.tpm.count, self.run);
        let behind = sim.bug == Some(Bug::CounterStaysBehind) && found + 1 == from;
        if found != from && !behind {
            return Err(Cut::CounterMoved);
        }
        sim.step(run, "before the counter counts")?;
        sim.tpm.count += 1;
        sim.truth.counted(run);
        sim.step(run, "after the counter counted")?;
        let found = sim.tpm.count;
        if sim.tpm.run != run && sim.bug != Some(Bug::NoRunRegister) {
            return Err(Cut::CounterClaimed);
        }
        if found == from + 1 || behind { Ok(()) } else { Err(Cut::Miscounted) }
    }

    fn fits(&self, counter: u64) -> Result<Fit, Cut> {
        let head = self.head.count;
        match counter {
            _ if counter == head => Ok(Fit::Whole),
            _ if counter + 1 == head => Ok(Fit::Cut),
            _ if counter > head => Err(Cut::OlderState),
            _ => Err(Cut::CounterBehind),
        }
    }
}

#[derive(PartialEq, Eq)]
enum Fit {
    Whole,
    Cut,
}
