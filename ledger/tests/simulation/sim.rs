//! The simulation: one thread, one source of chance, and a trace in words.

use std::collections::BTreeMap;
use std::rc::Rc;

use attestation::Sha256Digest;
use ledger::checkpoint::Checkpoint;
use ledger::lease::LeaseStatement;
use ledger::merkle::Hash;

use crate::agent::Agent;
use crate::bug::{Bug, Law};
use crate::clock::Time;
use crate::devices::{Bytes, Cut, Head, Store, Tpm};
use crate::fold::Fold;
use crate::mail::{Body, Letter, To};
use crate::mood::{Act, Mood};
use crate::people::Known;
use crate::rng::Rng;
use crate::run::Run;
use crate::scene::{GUESTS, Guard, LEASES_MAX, Scene};
use crate::truth::Truth;
use crate::witness::Witness;

/// Steps of one run of the simulation.
const STEPS: usize = 300;
/// Letters that the host remembers.
const SENT_MAX: usize = 200;

pub struct Sim {
    pub scene: &'static Scene,
    pub bug: Option<Bug>,
    pub rng: Rng,
    /// True time, which is everybody's boot time.
    pub now: u64,
    pub wall_ahead: i64,
    /// Disks lose nothing and there are no copies: keepers only die.
    pub honest: bool,
    mood: Mood,
    pub quiet: bool,
    depth: usize,
    /// A copy that is killed while it starts leaves heads behind.
    pub copy_starts: bool,
    pub stores: Vec<Store>,
    pub dirs: Vec<Head>,
    /// Every head that was ever written.
    pub copies: Vec<Head>,
    /// The log of each.
    pub known: BTreeMap<(u64, Hash), Rc<[Bytes]>>,
    /// Folds that were done before: of the same entries they are the same.
    pub folds: BTreeMap<(u64, Hash), Fold>,
    /// What the host calls the keeper's.
    pub dir: usize,
    pub store: usize,
    /// Where a keeper last was when it did something.
    pub newest: Head,
    /// Starts that failed since one did not.
    pub fails: u32,
    pub tpm: Tpm,
    pub witnesses: Vec<Witness>,
    pub runs: Vec<Option<Run>>,
    pub starts: u32,
    pub agents: Vec<Agent>,
    pub keys: u32,
    pub wishes: u64,
    pub policies: BTreeMap<Sha256Digest, String>,
    pub extensions: Vec<Vec<u8>>,
    pub post: Vec<Rc<Letter>>,
    pub sent: Vec<Rc<Letter>>,
    letters: u32,
    pub truth: Truth,
    pub counts: Counts,
    trace: Vec<String>,
}

/// That something happened at all.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub started: u32,
    pub refused_starts: u32,
    pub cut: u32,
    pub released: u32,
    pub held: u32,
    pub renewed: u32,
    pub most_held: usize,
}

impl Counts {
    pub fn with(self, other: Self) -> Self {
        Self {
            started: self.started + other.started,
            refused_starts: self.refused_starts + other.refused_starts,
            cut: self.cut + other.cut,
            released: self.released + other.released,
            held: self.held + other.held,
            renewed: self.renewed + other.renewed,
            most_held: self.most_held.max(other.most_held),
        }
    }

    /// A simulation in which nothing happens finds nothing.
    pub fn is_worth_something(self) -> bool {
        let Self { started, refused_starts, cut, released, held, renewed, most_held } = self;
        [started, refused_starts, cut, released, held, renewed].iter().all(|count| *count > 0)
            && most_held == LEASES_MAX
    }
}

/// What came of one seed.
pub struct Outcome {
    pub seed: u64,
    pub counts: Counts,
    pub violation: Option<(Law, String)>,
    pub trace: Vec<String>,
}

impl Sim {
    pub fn run(guard: Guard, bug: Option<Bug>, seed: u64) -> Outcome {
        let mut sim = Self::new(guard, bug, seed);
        sim.begin();
        for _ in 0..STEPS {
            if sim.truth.violation.is_some() {
                break;
            }
            sim.one_step();
            sim.deadlines();
            sim.look();
        }
        Outcome { seed, counts: sim.counts, violation: sim.truth.violation, trace: sim.trace }
    }

    fn new(guard: Guard, bug: Option<Bug>, seed: u64) -> Self {
        let scene = Scene::of(guard);
        let empty = Head { size: 0, root: ledger::merkle::empty_root(), count: 0 };
        let mut rng = Rng::new(seed);
        let mood = Mood::new(&mut rng);
        let honest = mood.is_honest();
        let witnesses = (0..scene.witnesses.len()).map(|number| Witness { faulty: number == 0, ..Witness::default() });
        let policy = scene.world.genesis.policy().digest();
        Self {
            scene,
            bug,
            rng,
            now: scene.world.now.seconds(),
            wall_ahead: 0,
            honest,
            mood,
            quiet: true,
            depth: 0,
            copy_starts: false,
            stores: vec![Store::default()],
            dirs: vec![empty],
            copies: Vec::new(),
            known: BTreeMap::new(),
            folds: BTreeMap::new(),
            dir: 0,
            store: 0,
            newest: empty,
            fails: 0,
            tpm: Tpm::default(),
            witnesses: witnesses.collect(),
            runs: Vec::new(),
            starts: 0,
            agents: (0..GUESTS).map(|_| Agent::default()).collect(),
            keys: 0,
            wishes: 0,
            policies: [(policy, scene.world.policy_text.clone())].into(),
            extensions: Vec::new(),
            post: Vec::new(),
            sent: Vec::new(),
            letters: 0,
            truth: Truth::new(guard, bug, scene.world.now.seconds()),
            counts: Counts::default(),
            trace: Vec::new(),
        }
    }

    /// The ceremony and the first model, while nobody does any harm.
    fn begin(&mut self) {
        self.host_starts();
        let entries = &self.scene.world.entries[1..];
        self.with_run(0, |run, sim| {
            for entry in entries {
                run.fold.apply(entry).map_err(|error| error.code().to_owned())?;
                run.pending.batch.add(entry.clone()).unwrap();
            }
            run.tick(sim)
        });
        assert!(self.runs[0].is_some(), "{:?}", self.trace);
        self.quiet = false;
        self.say(format!("the vault is open; the host is {}", if self.honest { "honest" } else { "hostile" }));
    }

    fn one_step(&mut self) {
        if self.runs.iter().all(Option::is_none) && !self.rng.one_in(4) {
            return self.host_starts();
        }
        match self.mood.next(&mut self.rng) {
            Act::Carry => self.carry(),
            Act::Agent => {
                let number = self.rng.below(GUESTS);
                self.agent_acts(number);
            }
            Act::Time => self.time_passes(),
            Act::Tick => self.tick(),
            Act::Sign => self.somebody_signs(),
            Act::Replay => self.replay(),
            Act::Witness => self.witness_comes_or_goes(),
            Act::Kill => self.kill(),
            Act::Read => self.read_checkpoint(),
            Act::Clock => self.set_clock(),
            Act::Attack => self.host_attacks(),
        }
    }

    fn time_passes(&mut self) {
        let seconds = self.mood.seconds(&mut self.rng);
        self.now += seconds;
        self.truth.now = self.now;
        self.say(format!("{seconds} s pass"));
        // Keepers run meanwhile.
        if self.rng.one_in(2) {
            self.tick();
        }
    }

    fn tick(&mut self) {
        let running: Vec<usize> = (0..self.runs.len()).filter(|index| self.runs[*index].is_some()).collect();
        if !running.is_empty() {
            let index = self.rng.of(&running);
            self.with_run(index, Run::tick);
        }
    }

    fn somebody_signs(&mut self) {
        let known = self.runs.iter().flatten().find_map(|run| Known::of(run, self));
        if let Some(known) = known {
            self.people_act(known);
        }
    }

    fn witness_comes_or_goes(&mut self) {
        if !self.witnesses.is_empty() {
            let number = self.rng.below(self.witnesses.len());
            let away = !self.witnesses[number].away && self.rng.one_in(3);
            self.witnesses[number].away = away;
            self.say(format!("witness {number} is {}", if away { "away" } else { "there" }));
        }
    }

    /// Between any two steps of a keeper: it may die there, and others may go on.
    pub fn step(&mut self, run: u32, place: &str) -> Result<(), Cut> {
        if self.quiet {
            return Ok(());
        }
        let often = if self.copy_starts { 8 } else { self.mood.cuts };
        if self.rng.one_in(often) {
            let cut = if self.rng.one_in(2) { Cut::Killed } else { Cut::Io };
            self.counts.cut += 1;
            self.say(format!("run {run} is cut ({cut:?}) {place}"));
            return Err(cut);
        }
        if !self.honest && self.depth < 2 && self.rng.one_in(40) {
            self.depth += 1;
            self.say(format!("run {run} is held up {place}"));
            match self.rng.below(4) {
                0 => self.host_attacks(),
                1 => self.carry(),
                2 => self.time_passes(),
                _ => self.tick(),
            }
            self.say(format!("run {run} goes on"));
            self.depth -= 1;
        }
        Ok(())
    }

    /// The fold of a log whose head is this one.
    pub fn folded(&mut self, head: Checkpoint, entries: &[Bytes]) -> Result<Fold, String> {
        if let Some(fold) = self.folds.get(&(head.size, head.root)) {
            return Ok(fold.clone());
        }
        let mut fold = Fold::new(self.bug);
        entries.iter().try_for_each(|entry| fold.apply(entry)).map_err(|error| error.code().to_owned())?;
        self.folds.insert((head.size, head.root), fold.clone());
        Ok(fold)
    }

    pub fn time(&self) -> Time {
        Time { boot: self.now, wall: self.now.saturating_add_signed(self.wall_ahead) }
    }

    /// Hands a letter to the host; gives its number.
    pub fn post(&mut self, to: To, body: Body) -> u32 {
        self.letters += 1;
        let letter = Rc::new(Letter { id: self.letters, to, body });
        self.post.push(Rc::clone(&letter));
        if self.sent.len() < SENT_MAX {
            self.sent.push(letter);
        }
        self.letters
    }

    pub fn key_leaves(&mut self, run: u32, (index, entry): (u64, &[u8]), decided: u64, statement: &LeaseStatement) {
        self.counts.released += 1;
        self.truth.key_leaves(run, index, entry, decided);
        self.truth.check_not_revoked(run, statement.lease);
        self.lease_signed(statement);
    }

    pub fn lease_signed(&mut self, statement: &LeaseStatement) {
        self.truth.lease_signed(statement, self.now);
    }

    pub fn holds(&mut self, lease: Sha256Digest, deadline: u64) {
        self.truth.holds(lease, deadline);
    }

    pub fn lease_extended(&mut self, object: Sha256Digest, deadline: u64) {
        self.truth.extended(object, deadline, self.now);
    }

    /// After each step.
    fn look(&mut self) {
        let held: Vec<_> = self.agents.iter().filter(|agent| agent.holds_by_grant()).filter_map(Agent::lease).collect();
        held.iter().for_each(|lease| self.truth.check_counted(*lease));
        let held = held.len();
        self.counts.most_held = self.counts.most_held.max(held);
        if held > LEASES_MAX {
            self.truth.breaks(Law::LeasesAtOnce, format!("{held} agents hold leases, and {LEASES_MAX} may"));
        }
    }

    pub fn say(&mut self, words: String) {
        let at = self.words_of(self.now);
        self.trace.push(format!("{at} {}{words}", "  ".repeat(self.depth)));
    }

    pub fn words_of(&self, time: u64) -> String {
        format!("{:>6} s:", time.saturating_sub(self.scene.world.now.seconds()))
    }
}
