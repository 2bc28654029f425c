//! The host: it starts, kills and copies keepers, puts back and forks what it stores, sets clocks, and carries letters.

use std::rc::Rc;

use crate::bug::Law;
use crate::devices::{Head, Store};
use crate::mail::{Letter, To};
use crate::run::Run;
use crate::scene::Guard;
use crate::sim::Sim;

/// Keepers that run at once.
const RUNS_MAX: usize = 3;

impl Sim {
    /// Starts a keeper where none runs.
    pub fn host_starts(&mut self) {
        if self.fails > 1 && !self.honest {
            self.restore();
        }
        let (dir, store) = (self.dir, self.store);
        self.start(dir, store);
    }

    /// Brings back what the keeper had when it last ran, so that there is something to attack.
    fn restore(&mut self) {
        let counter = self.tpm.count;
        let fits = |head: &&Head| head.count == counter || head.count == counter + 1;
        let head = match self.scene.guard {
            Guard::Counter => self.copies.iter().rev().find(fits).copied().unwrap_or(self.newest),
            _ => {
                let known = 1 + self.rng.below(self.witnesses.len() - 1);
                let cosigned = self.witnesses[known].latest;
                let same = |head: &&Head| cosigned.is_some_and(|seen| (seen.size, seen.root) == (head.size, head.root));
                self.copies.iter().find(same).copied().unwrap_or(self.newest)
            }
        };
        let entries = self.known.get(&(head.size, head.root)).map(|log| log.to_vec()).unwrap_or_default();
        let checkpoint = self.stores[self.store].checkpoint.clone();
        self.stores.push(Store { entries, checkpoint });
        self.dirs.push(head);
        (self.dir, self.store, self.fails) = (self.dirs.len() - 1, self.stores.len() - 1, 0);
        self.say(format!("the host restores the head of {} entries, count {}", head.size, head.count));
    }

    /// Starts a keeper beside the others, on a head that it once had, with the log that fits that head.
    pub fn host_starts_a_copy(&mut self) {
        let recent = self.copies.len().min(6);
        let head = match self.rng.below(3) {
            0 => self.dirs[self.dir],
            1 if recent > 0 => self.copies[self.copies.len() - 1 - self.rng.below(recent)],
            _ => self.copies[self.rng.below(self.copies.len())],
        };
        let log = self.known.get(&(head.size, head.root)).cloned();
        let checkpoint = self.stores[self.store].checkpoint.clone();
        let entries = log.map_or_else(|| self.stores[self.store].entries.clone(), |log| log.to_vec());
        self.stores.push(Store { entries, checkpoint });
        self.dirs.push(head);
        let (dir, store) = (self.dirs.len() - 1, self.stores.len() - 1);
        self.say(format!("the host copies the head of {} entries, count {}", head.size, head.count));
        // From now on this may be what it calls the keeper's.
        if self.rng.one_in(2) {
            (self.dir, self.store) = (dir, store);
        }
        self.copy_starts = true;
        self.start(dir, store);
        self.copy_starts = false;
    }

    fn start(&mut self, dir: usize, store: usize) {
        if self.runs.iter().flatten().count() >= RUNS_MAX {
            self.kill();
        }
        self.starts += 1;
        let number = self.starts;
        let (at, kind) = (self.dirs[dir], if dir == self.dir { "the keeper" } else { "a copy" });
        self.say(format!("the host starts {kind} as run {number} at head {}, count {}", at.size, at.count));
        match Run::start(self, number, dir, store) {
            Ok(run) => {
                self.say(format!("run {number} is open, {} entries", run.log.head().size));
                self.counts.started += 1;
                (self.fails, self.newest) = (0, run.head());
                self.runs.push(Some(run));
            }
            Err(why) => {
                self.say(format!("run {number} does not start: {why}"));
                self.counts.refused_starts += 1;
                self.fails += 1;
                let cut = ["Killed", "Io", "log-append", "log-commit", "log-sign", "log-publish", "log-cosign"];
                let quorum = self.scene.guard != Guard::Counter && why.contains("witness");
                if self.honest && !quorum && !cut.contains(&why.as_str()) {
                    self.truth.breaks(Law::KillsAreSurvived, format!("run {number} does not start: {why}"));
                }
            }
        }
    }

    pub fn kill(&mut self) {
        let running: Vec<usize> = (0..self.runs.len()).filter(|index| self.runs[*index].is_some()).collect();
        if running.is_empty() {
            return;
        }
        let index = self.rng.of(&running);
        let run = self.runs[index].take().map_or(0, |run| run.number);
        self.say(format!("the host kills run {run}"));
    }

    /// One of the things that only a hostile host does.
    pub fn host_attacks(&mut self) {
        match self.rng.below(8) {
            0..=5 => self.host_starts_a_copy(),
            6 => self.put_back(),
            _ => self.lose_the_end(),
        }
    }

    fn put_back(&mut self) {
        let head: Head = self.copies[self.rng.below(self.copies.len())];
        self.dirs[self.dir] = head;
        self.say(format!("the host puts back the head of {} entries, count {}", head.size, head.count));
    }

    fn lose_the_end(&mut self) {
        let keep = self.stores[self.store].entries.len();
        let keep = keep.saturating_sub(1 + self.rng.below(3)).max(1);
        self.stores[self.store].entries.truncate(keep);
        self.say(format!("the host loses what its log has after {keep} entries"));
    }

    pub fn set_clock(&mut self) {
        self.wall_ahead = self.rng.of(&[0, 3_600, 7_200, 86_400, -3_600, -60]);
        let ahead = self.wall_ahead;
        self.say(format!("the host sets the keepers' clocks {ahead} s ahead"));
    }

    /// Carries a few letters, in some order. Those to keepers go to one of them, which takes them for one batch.
    pub fn carry(&mut self) {
        let letters: Vec<_> = (0..1 + self.rng.below(4)).filter_map(|_| self.take_letter()).collect();
        self.deliver(&letters);
    }

    /// One that may come once more, or never.
    fn take_letter(&mut self) -> Option<Rc<Letter>> {
        if self.post.is_empty() {
            return None;
        }
        let index = if self.rng.one_in(2) { 0 } else { self.rng.below(self.post.len()) };
        match self.rng.below(12) {
            0 => Some(Rc::clone(&self.post[index])),
            1 => {
                self.post.remove(index);
                None
            }
            _ => Some(self.post.remove(index)),
        }
    }

    /// Shows something again that was sent before.
    pub fn replay(&mut self) {
        if !self.sent.is_empty() {
            let letter = Rc::clone(&self.sent[self.rng.below(self.sent.len())]);
            self.say(format!("the host shows {} again", letter.body.words()));
            self.deliver(&[letter]);
        }
    }

    fn deliver(&mut self, letters: &[Rc<Letter>]) {
        for letter in letters {
            if let To::Agent(number) = letter.to {
                self.agent_hears(number, letter);
            }
        }
        let batch: Vec<_> = letters.iter().filter(|letter| letter.to == To::Keeper).collect();
        let running: Vec<usize> = (0..self.runs.len()).filter(|index| self.runs[*index].is_some()).collect();
        if running.is_empty() || batch.is_empty() {
            return;
        }
        let index = self.rng.of(&running);
        self.with_run(index, |run, sim| {
            run.begin_batch();
            for letter in batch {
                sim.say(format!("run {} gets {}", run.number, letter.body.words()));
                run.handle(sim, letter);
            }
            run.tick(sim)
        });
    }

    /// Lets some run do something, which may be its end.
    pub fn with_run(&mut self, index: usize, act: impl FnOnce(&mut Run, &mut Self) -> Result<(), String>) {
        let Some(mut run) = self.runs[index].take() else { return };
        match act(&mut run, self) {
            Ok(()) => {
                self.newest = run.head();
                self.runs[index] = Some(run);
            }
            Err(why) => self.say(format!("run {} stops: {why}", run.number)),
        }
    }

    /// Somebody reads the newest checkpoint that the host shows.
    pub fn read_checkpoint(&mut self) {
        let store = self.rng.below(self.stores.len());
        let Some(checkpoint) = self.stores[store].checkpoint.clone() else { return };
        let mut logs = self.scene.readers_verifiers(self.bug).into_iter();
        if let Some(head) = logs.find_map(|log| log.verify_checkpoint(&checkpoint).ok()) {
            self.truth.accept(head);
        }
    }
}
