//! What a run of the simulation is about: each seed has more of one thing and none of another, for what happens rarely among
//! everything else happens often among little.

use crate::rng::Rng;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Carry,
    Agent,
    Time,
    Tick,
    Sign,
    Replay,
    Witness,
    Kill,
    Read,
    Clock,
    Attack,
}

pub struct Mood {
    weights: [(Act, usize); 11],
    /// A keeper is cut at one of so many places.
    pub cuts: usize,
    hurries: bool,
}

impl Mood {
    pub fn new(rng: &mut Rng) -> Self {
        let attacks = rng.of(&[0, 0, 2, 6]);
        let weights = [
            (Act::Carry, 48),
            (Act::Agent, 16),
            (Act::Time, rng.of(&[6, 12])),
            (Act::Tick, 4),
            (Act::Sign, rng.of(&[0, 2, 6])),
            (Act::Replay, rng.of(&[0, 4])),
            (Act::Witness, 2),
            (Act::Kill, rng.of(&[0, 2, 4])),
            (Act::Read, 2),
            (Act::Clock, rng.of(&[0, 0, 3])),
            (Act::Attack, attacks),
        ];
        Self { weights, cuts: rng.of(&[60, 150, 1_000]), hurries: rng.one_in(2) }
    }

    /// Disks lose nothing and there are no copies: keepers only die.
    pub fn is_honest(&self) -> bool {
        self.weights.iter().all(|(act, weight)| *act != Act::Attack || *weight == 0)
    }

    pub fn next(&self, rng: &mut Rng) -> Act {
        let mut left = rng.below(self.weights.iter().map(|(_, weight)| weight).sum());
        for (act, weight) in self.weights {
            match left.checked_sub(weight) {
                None => return act,
                Some(rest) => left = rest,
            }
        }
        Act::Tick
    }

    /// Seconds that pass at once.
    pub fn seconds(&self, rng: &mut Rng) -> u64 {
        match self.hurries {
            true => rng.of(&[1, 5, 10, 60, 200, 320, 500, 900, 1_800]),
            false => rng.of(&[1, 1, 1, 5, 5, 10, 10, 60, 200]),
        }
    }
}
