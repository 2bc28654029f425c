//! Which part of a model is wanted: units, groups, a rank, tensors by name. Units are chosen here, from the manifest that the
//! publisher signed, and no others are asked of the keeper.
//!
//! Names of tensors are in the headers, which are sealed: where some are given, the headers are released first, alone
//! (`look.rs`).

mod options;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;

use attestation::UnitSet;
use ledger::manifest::{FilePath, Manifest, Rank, RankError, Ranks, SelectError, Selection};
use ledger::names::Group;
use regex::Regex;
use serde::{Deserialize, Serialize};
use vault_proto::convert::OrderedPart;

pub use options::PartArgs;
pub(super) use options::PartOptions;

use crate::failure::{Failure, Kind};
use crate::open::{TensorsOf, View};

/// Longest pattern of `--tensor`.
const PATTERN_BYTES_MAX: usize = 512;
/// Names that a message gives as examples.
const EXAMPLES: usize = 3;
const GROUPS_SHOWN: usize = 24;

/// What is wanted of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Part {
    /// All of it: only who says so gets it.
    All,
    /// What is named.
    Of(Named),
}

/// Units, groups, ranks, tensors: at least one of them, so that nothing named never stands for everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Names", into = "Names")]
pub(super) struct Named(Names);

/// The same, with any number of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    #[serde(default)]
    units: Vec<u32>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    ranks: Vec<String>,
    /// Each rank has a directory of its own.
    #[serde(default)]
    rank_dirs: bool,
    #[serde(default)]
    tensors: Vec<String>,
}

/// Units that have tensors of these names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Found {
    pub(super) named: Named,
    /// Tensors that match.
    pub(super) matching: usize,
    /// Tensors that there will be: units have others beside them.
    pub(super) tensors: usize,
}

impl TryFrom<Names> for Named {
    type Error = SelectError;

    fn try_from(names: Names) -> Result<Self, SelectError> {
        let Names { units, groups, ranks, rank_dirs: _, tensors } = &names;
        let nothing = units.is_empty() && groups.is_empty() && ranks.is_empty() && tensors.is_empty();
        if nothing { Err(SelectError::Nothing) } else { Ok(Self(names)) }
    }
}

impl From<Named> for Names {
    fn from(named: Named) -> Self {
        named.0
    }
}

impl TryFrom<&OrderedPart> for Part {
    type Error = SelectError;

    /// What somebody else chose already.
    fn try_from(part: &OrderedPart) -> Result<Self, SelectError> {
        let mut names = Names {
            ranks: part.ranks().into_iter().flat_map(Ranks::iter).map(|rank| rank.to_string()).collect(),
            rank_dirs: part.rank_dirs(),
            tensors: part.tensors().to_vec(),
            ..Names::default()
        };
        match part.selection() {
            Some(Selection::All) => return Ok(Self::All),
            Some(Selection::Groups(groups)) => names.groups = groups.iter().map(ToString::to_string).collect(),
            Some(Selection::Units(units)) => names.units.clone_from(units),
            None => {}
        }
        Named::try_from(names).map(Self::Of)
    }
}

/// As options say it.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Of(Named(names)) = self else { return f.write_str("all") };
        let units = names.units.iter().map(|unit| format!("units={unit}"));
        let labelled = [("group", &names.groups), ("rank", &names.ranks), ("tensor", &names.tensors)];
        let labelled =
            labelled.into_iter().flat_map(|(key, values)| values.iter().map(move |value| format!("{key}={value}")));
        let dirs = names.rank_dirs.then(|| "rank-dirs".to_owned());
        f.write_str(&units.chain(labelled).chain(dirs).collect::<Vec<_>>().join(","))
    }
}

impl Part {
    /// What is named with tensors among it: headers have to be opened to know the units.
    pub(super) fn by_name(&self) -> Option<&Named> {
        match self {
            Self::Of(named) if !named.0.tensors.is_empty() => Some(named),
            Self::Of(_) | Self::All => None,
        }
    }

    /// What to ask for, where that is known without names of tensors.
    pub(super) fn selection(&self, manifest: &Manifest) -> Result<Selection, Failure> {
        match self {
            Self::All => Ok(Selection::All),
            Self::Of(named) => named.selection(manifest),
        }
    }

    /// Which files there will be: those of all units together, or each rank's in a directory of its own.
    pub(super) fn views(&self, manifest: &Manifest) -> Result<Vec<View>, Failure> {
        match self {
            Self::Of(named) if named.0.rank_dirs && !named.0.ranks.is_empty() => named.views(manifest),
            Self::Of(_) | Self::All => Ok(vec![View::of(manifest.select(&self.selection(manifest)?)?)]),
        }
    }

    /// The headers, whose tensors say what to ask for.
    pub(super) fn headers(manifest: &Manifest) -> Result<Selection, Failure> {
        let headers: Vec<u32> = manifest.header_units().collect();
        if headers.is_empty() {
            let message = "this model has no safetensors file, and so no tensors with names";
            return Err(Failure::new(Kind::Usage, "no-tensors", message).next("choose by --group or --units"));
        }
        Ok(Selection::Units(headers))
    }
}

impl Named {
    fn selection(&self, manifest: &Manifest) -> Result<Selection, Failure> {
        if self.0.units.is_empty() && self.0.ranks.is_empty() {
            let groups = Selection::Groups(self.groups()?);
            return select(manifest, &groups).map(|_| groups);
        }
        Ok(Selection::Units(with_headers(manifest, self.units(manifest)?)))
    }

    /// What else is named is in the directory of each rank.
    fn views(&self, manifest: &Manifest) -> Result<Vec<View>, Failure> {
        let beside = self.beside_ranks(manifest)?;
        let view = |rank: Rank| {
            let mut units = beside.clone();
            units.extend(manifest.rank(rank).map_err(rank_refused)?);
            let units = manifest.select(&Selection::Units(with_headers(manifest, units)))?;
            let directory = FilePath::try_from(format!("rank{}", rank.index()).as_str());
            Ok(View::below(directory.expect("letters and digits are a path"), units))
        };
        self.ranks()?.iter().flat_map(Ranks::iter).map(view).collect()
    }

    /// How many units are named by their numbers.
    pub(super) fn unit_count(&self) -> usize {
        self.0.units.len()
    }

    /// The units of the tensors that are named, and of all else that is.
    pub(super) fn find(&self, manifest: &Manifest, files: &[TensorsOf]) -> Result<Found, Failure> {
        let all = || files.iter().flat_map(|file| &file.tensors);
        let (mut found, mut matching) = (BTreeSet::new(), BTreeSet::new());
        for pattern in &self.0.tensors {
            let matcher = matcher(pattern)?;
            let before = matching.len();
            for tensor in all().filter(|tensor| matcher.is_match(&tensor.name)) {
                found.extend(tensor.units.clone());
                matching.insert(&tensor.name);
            }
            if matching.len() == before && !all().any(|tensor| matcher.is_match(&tensor.name)) {
                return Err(not_found(pattern, all().map(|tensor| tensor.name.as_str())));
            }
        }
        let mut units = self.units(manifest)?;
        units.extend(&found);
        let there = |tensor: &&crate::open::UnitTensors| {
            !tensor.units.is_empty() && tensor.units.clone().all(|unit| units.contains(&unit))
        };
        let tensors = all().filter(there).count();
        let matching = matching.len();
        let mut names = Names::default();
        if self.0.rank_dirs {
            // Whose units are whose has to be known still.
            (names.ranks, names.rank_dirs) = (self.0.ranks.clone(), true);
            units = self.beside_ranks(manifest)?;
            units.extend(&found);
        }
        names.units = with_headers(manifest, units);
        let named = Self::try_from(names);
        let named = named.map_err(|_| {
            let message = "the tensors that match have no bytes: there is nothing to load";
            Failure::new(Kind::Usage, "tensors-empty", message).next("name others beside them")
        })?;
        Ok(Found { named, matching, tensors })
    }

    fn groups(&self) -> Result<Vec<Group>, Failure> {
        let group = |label: &String| Group::try_from(label.clone());
        let groups = self.0.groups.iter().map(group).collect::<Result<_, _>>();
        groups.map_err(|error| Failure::new(Kind::Usage, error.code(), error))
    }

    fn ranks(&self) -> Result<Option<Ranks>, Failure> {
        let ranks =
            self.0.ranks.iter().map(|rank| rank.parse()).collect::<Result<Vec<Rank>, _>>().map_err(rank_refused)?;
        if ranks.is_empty() { Ok(None) } else { Ranks::try_from(ranks).map(Some).map_err(rank_refused) }
    }

    /// Units by number, group and rank.
    fn units(&self, manifest: &Manifest) -> Result<BTreeSet<u32>, Failure> {
        let mut units = self.beside_ranks(manifest)?;
        for rank in self.ranks()?.iter().flat_map(Ranks::iter) {
            units.extend(manifest.rank(rank).map_err(rank_refused)?);
        }
        Ok(units)
    }

    /// Units by number and group.
    fn beside_ranks(&self, manifest: &Manifest) -> Result<BTreeSet<u32>, Failure> {
        let mut units: BTreeSet<u32> = self.0.units.iter().copied().collect();
        if !self.0.groups.is_empty() {
            let groups = select(manifest, &Selection::Groups(self.groups()?))?;
            units.extend(groups.iter().filter(|unit| manifest.unit(*unit).is_some_and(|unit| !unit.group.is_header())));
        }
        match units.last() {
            Some(last) if manifest.unit(*last).is_none() => Err(SelectError::NoSuchUnit { index: *last }.into()),
            Some(_) | None => Ok(units),
        }
    }
}

/// As the manifest selects; a group that is not there is answered with those that are.
fn select(manifest: &Manifest, selection: &Selection) -> Result<UnitSet, Failure> {
    manifest.select(selection).map_err(|error| {
        let groups: Vec<&str> = manifest.groups().into_iter().map(Group::as_str).collect();
        let some = groups.iter().take(GROUPS_SHOWN).copied().collect::<Vec<_>>().join(", ");
        let more = if groups.len() > GROUPS_SHOWN {
            format!(", and {} more", groups.len() - GROUPS_SHOWN)
        } else {
            String::new()
        };
        Failure::from(error).next(format!("its groups are {some}{more}"))
    })
}

/// These units, and the headers of the files that they are in: without them nobody could tell what they hold.
fn with_headers(manifest: &Manifest, mut units: BTreeSet<u32>) -> Vec<u32> {
    let files: BTreeSet<_> = units.iter().filter_map(|unit| manifest.unit(*unit)).map(|unit| &unit.file).collect();
    units.extend(
        manifest.header_units().filter(|header| manifest.unit(*header).is_some_and(|unit| files.contains(&unit.file))),
    );
    units.into_iter().collect()
}

fn matcher(pattern: &str) -> Result<Regex, Failure> {
    let refused = |why: String| Failure::new(Kind::Usage, "tensor-pattern", format!("--tensor {pattern:?}: {why}"));
    if pattern.is_empty() || pattern.len() > PATTERN_BYTES_MAX {
        return Err(refused(format!("a pattern has 1 to {PATTERN_BYTES_MAX} bytes")));
    }
    let expression = regex::escape(pattern).replace(r"\*", ".*").replace(r"\?", ".");
    Regex::new(&format!("^(?s:{expression})$")).map_err(|error| refused(error.to_string()))
}

fn not_found<'t>(pattern: &str, names: impl Iterator<Item = &'t str>) -> Failure {
    let names: Vec<&str> = names.collect();
    let some: Vec<String> = names.iter().take(EXAMPLES).map(|name| format!("{name:?}")).collect();
    let message = format!("no tensor matches {pattern:?}; the model has {}, such as {}", names.len(), some.join(", "));
    Failure::new(Kind::Usage, "tensor-not-found", message)
        .next("* stands for any characters, dots too; quote the pattern, or the shell takes it")
}

fn rank_refused(error: RankError) -> Failure {
    let failure = Failure::new(Kind::Usage, error.code(), &error);
    match error {
        RankError::NoLayers | RankError::SeveralKinds { .. } => failure.next("choose by --group, --tensor or --units"),
        RankError::Malformed
        | RankError::NoRank
        | RankError::Twice { .. }
        | RankError::OtherNumber { .. }
        | RankError::OtherCount { .. }
        | RankError::TooFewLayers { .. } => failure,
    }
}
