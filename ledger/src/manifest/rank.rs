//! Which units one of several equal machines needs: FORMAT.md §6, "Ranks".
//!
//! The split follows from the manifest alone, so that every rank, whoever grants to it, and whoever looks at the log later
//! find the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use super::{Manifest, PlanUnit};
use crate::names::Group;

/// More ranks than any model has layers.
pub const RANKS_MAX: u32 = 65_536;

/// One of several machines, or processes, that share a model: `R/N`, with R from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    index: u32,
    count: u32,
}

/// The ranks of one machine, in their order: of one number of ranks, none twice, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranks(Vec<Rank>);

/// Why a model has no such rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RankError {
    /// Not `R/N` with R below N.
    Malformed,
    /// No rank at all.
    NoRank,
    /// The same rank twice.
    Twice {
        /// Which.
        rank: Rank,
    },
    /// Ranks of different numbers of ranks.
    OtherNumber {
        /// Two of the numbers.
        counts: [u32; 2],
    },
    /// The model's files are those of another number of ranks.
    OtherCount {
        /// Ranks that the files are for.
        files: u32,
    },
    /// No units are numbered, as `layer.0` is.
    NoLayers,
    /// Units are numbered in more than one way.
    SeveralKinds {
        /// Two of the ways.
        kinds: [String; 2],
    },
    /// There are fewer layers than ranks.
    TooFewLayers {
        /// How many there are.
        layers: u32,
    },
}

impl Rank {
    /// `index` of `count`, if there is such a rank.
    pub fn new(index: u32, count: u32) -> Result<Self, RankError> {
        if index < count && count <= RANKS_MAX { Ok(Self { index, count }) } else { Err(RankError::Malformed) }
    }

    /// Its place, from 0.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Whether layer `layer` of `layers` is this rank's.
    fn has(self, layer: u32, layers: u32) -> bool {
        let border = |rank: u32| u64::from(rank) * u64::from(layers) / u64::from(self.count);
        (border(self.index)..border(self.index + 1)).contains(&u64::from(layer))
    }

    /// What stands before the first layer and behind the last is needed there.
    fn is_at_an_end(self) -> bool {
        self.index == 0 || self.index + 1 == self.count
    }
}

impl Ranks {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = Rank> + '_ {
        self.0.iter().copied()
    }
}

impl TryFrom<Vec<Rank>> for Ranks {
    type Error = RankError;

    fn try_from(mut ranks: Vec<Rank>) -> Result<Self, RankError> {
        let Some(first) = ranks.first().copied() else { return Err(RankError::NoRank) };
        if let Some(other) = ranks.iter().find(|rank| rank.count != first.count) {
            return Err(RankError::OtherNumber { counts: [first.count, other.count] });
        }
        ranks.sort_unstable_by_key(|rank| rank.index);
        match ranks.windows(2).find(|pair| pair.first() == pair.last()).and_then(<[_]>::first) {
            Some(rank) => Err(RankError::Twice { rank: *rank }),
            None => Ok(Self(ranks)),
        }
    }
}

impl Manifest {
    /// The units of a rank, header units aside, ascending.
    ///
    /// # Errors
    /// [`RankError`].
    pub fn rank(&self, rank: Rank) -> Result<Vec<u32>, RankError> {
        let units = || (0_u32..).zip(self.units());
        let files: BTreeSet<u32> = self.units().iter().filter_map(rank_of_file).collect();
        if let Some(last) = files.last() {
            if *last + 1 != rank.count {
                return Err(RankError::OtherCount { files: last + 1 });
            }
            let own = |unit: &PlanUnit| rank_of_file(unit).is_none_or(|of| of == rank.index);
            return Ok(units()
                .filter(|(_, unit)| !unit.group.is_header() && own(unit))
                .map(|(index, _)| index)
                .collect());
        }
        let layers = self.layers()?;
        if (layers.len() as u64) < u64::from(rank.count) {
            return Err(RankError::TooFewLayers { layers: layers.len() as u32 });
        }
        let own = |group: &Group| match layers.get(group) {
            Some(layer) => rank.has(*layer, layers.len() as u32),
            None => *group == Group::files() || !group.is_header() && rank.is_at_an_end(),
        };
        Ok(units().filter(|(_, unit)| own(&unit.group)).map(|(index, _)| index).collect())
    }

    /// The groups that are numbered, each with its place in the order of the numbers.
    fn layers(&self) -> Result<BTreeMap<&Group, u32>, RankError> {
        let numbered = self.groups().into_iter().filter_map(|group| {
            let (kind, number) = group.as_str().rsplit_once('.')?;
            Some((number.parse::<u64>().ok()?, kind, group))
        });
        let numbered: BTreeSet<_> = numbered.collect();
        let kinds: BTreeSet<&str> = numbered.iter().map(|(_, kind, _)| *kind).collect();
        match kinds.into_iter().collect::<Vec<_>>().as_slice() {
            [] => Err(RankError::NoLayers),
            [_] => Ok(numbered.into_iter().map(|(_, _, group)| group).zip(0..).collect()),
            [one, another, ..] => Err(RankError::SeveralKinds { kinds: [(*one).to_owned(), (*another).to_owned()] }),
        }
    }
}

/// The R of a file `model-rank-R-part-P.safetensors`, as vLLM's `sharded_state` has them.
fn rank_of_file(unit: &PlanUnit) -> Option<u32> {
    let name = unit.file.as_str().rsplit('/').next()?;
    let (rank, part) = name.strip_prefix("model-rank-")?.strip_suffix(".safetensors")?.split_once("-part-")?;
    part.parse::<u32>().ok()?;
    rank.parse().ok().filter(|rank| *rank < RANKS_MAX)
}

impl FromStr for Rank {
    type Err = RankError;

    fn from_str(text: &str) -> Result<Self, RankError> {
        let (index, count) = text.split_once('/').ok_or(RankError::Malformed)?;
        let number = |text: &str| text.parse().map_err(|_| RankError::Malformed);
        Self::new(number(index)?, number(count)?)
    }
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl RankError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            RankError::Malformed => "rank-malformed",
            RankError::NoRank => "rank-none",
            RankError::Twice { .. } => "rank-twice",
            RankError::OtherNumber { .. } => "rank-other-number",
            RankError::OtherCount { .. } => "rank-other-count",
            RankError::NoLayers => "rank-no-layers",
            RankError::SeveralKinds { .. } => "rank-several-kinds",
            RankError::TooFewLayers { .. } => "rank-too-few-layers",
        }
    }
}

impl fmt::Display for RankError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RankError::Malformed => f.write_str("want R/N with R from 0 to N - 1, as in 0/4"),
            RankError::NoRank => f.write_str("no rank is named"),
            RankError::Twice { rank } => write!(f, "rank {rank} is named twice"),
            RankError::OtherNumber { counts: [one, other] } => {
                write!(
                    f,
                    "one rank is of {one} and another of {other}: those of one machine share a model as one number of ranks"
                )
            }
            RankError::OtherCount { files } => write!(f, "the files of this model are for {files} ranks"),
            RankError::NoLayers => f.write_str("no group of this model is numbered, so there is nothing to split"),
            RankError::SeveralKinds { kinds: [one, another] } => {
                write!(f, "groups of this model are numbered as '{one}' and as '{another}'")
            }
            RankError::TooFewLayers { layers } => write!(f, "this model has {layers} layers, fewer than ranks"),
        }
    }
}

impl std::error::Error for RankError {}
