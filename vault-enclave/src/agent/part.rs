//! Which part of a model is wanted: units, groups, a rank, tensors by name. Units are chosen here, from the manifest that the
//! publisher signed, and no others are asked of the keeper.
//!
//! Names of tensors are in the headers, which are sealed: where some are given, the headers are released first, alone
//! (`look.rs`).

use std::collections::BTreeSet;

use attestation::UnitSet;
use ledger::manifest::{Manifest, Rank, RankError, SelectError, Selection};
use ledger::names::Group;
use regex::Regex;
use serde::{Deserialize, Serialize};
use vault_proto::limits::GROUPS_MAX;

use super::options::UnitList;
use crate::failure::{Failure, Kind};
use crate::open::TensorsOf;

/// Longest pattern of `--tensor`.
const PATTERN_BYTES_MAX: usize = 512;
/// Names that a message gives as examples.
const EXAMPLES: usize = 3;
const GROUPS_SHOWN: usize = 24;

/// What is loaded of a model: without any of these all of it, else what any of them names.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct PartArgs {
    /// Only units of this group, as in layer.0; `files` has configuration and tokenizer. Can be given more than once.
    #[arg(long, value_name = "GROUP")]
    pub group: Vec<Group>,
    /// Only these units, as in 0,3-5.
    #[arg(long, value_name = "LIST", conflicts_with_all = ["group", "rank", "tensor"])]
    pub units: Option<UnitList>,
    /// Only units with a tensor of such a name; * stands for any characters, ? for one. Can be given more than once. Costs a
    /// release of its own: names are in the headers, which are sealed.
    #[arg(long, value_name = "PATTERN")]
    pub tensor: Vec<String>,
    /// Only what rank R of N needs, as in 0/4: the files of that rank where the model has some (model-rank-R-part-P), else
    /// its share of the layers; files that are not weights; the first and the last also what is in no layer.
    #[arg(long, value_name = "R/N")]
    pub rank: Option<Rank>,
}

/// What is wanted of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Part {
    /// All of it: only who says so gets it.
    All,
    /// What is named.
    Of(Named),
}

/// Units, groups, a rank, tensors: at least one of them, so that nothing named never stands for everything.
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
    rank: Option<String>,
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

impl PartArgs {
    /// One of them that was given and whose values are of one model. A rank is of any.
    pub(super) fn option(&self) -> Option<&'static str> {
        let given = [
            ("--group", !self.group.is_empty()),
            ("--units", self.units.is_some()),
            ("--tensor", !self.tensor.is_empty()),
        ];
        given.iter().find(|(_, is_given)| *is_given).map(|(option, _)| *option)
    }

    pub(super) fn part(&self) -> Result<Part, Failure> {
        if self.group.len() > GROUPS_MAX {
            let message = format!("a request names at most {GROUPS_MAX} groups");
            return Err(Failure::new(Kind::Usage, "too-many-groups", message));
        }
        self.tensor.iter().try_for_each(|pattern| matcher(pattern).map(drop))?;
        let names = Names {
            units: self.units.as_ref().map(|units| units.as_slice().to_vec()).unwrap_or_default(),
            groups: self.group.iter().map(ToString::to_string).collect(),
            rank: self.rank.map(|rank| rank.to_string()),
            tensors: self.tensor.clone(),
        };
        // No option at all: that is how a person says all of it.
        if names == Names::default() { Ok(Part::All) } else { Ok(Part::Of(Named::try_from(names)?)) }
    }
}

impl TryFrom<Names> for Named {
    type Error = SelectError;

    fn try_from(names: Names) -> Result<Self, SelectError> {
        if names == Names::default() { Err(SelectError::Nothing) } else { Ok(Self(names)) }
    }
}

impl From<Named> for Names {
    fn from(named: Named) -> Self {
        named.0
    }
}

impl TryFrom<&Selection> for Part {
    type Error = SelectError;

    /// What somebody else chose already.
    fn try_from(selection: &Selection) -> Result<Self, SelectError> {
        let names = match selection {
            Selection::All => return Ok(Self::All),
            Selection::Groups(groups) => {
                Names { groups: groups.iter().map(ToString::to_string).collect(), ..Names::default() }
            }
            Selection::Units(units) => Names { units: units.clone(), ..Names::default() },
        };
        Named::try_from(names).map(Self::Of)
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
        if self.0.units.is_empty() && self.0.rank.is_none() {
            let groups = Selection::Groups(self.groups()?);
            return select(manifest, &groups).map(|_| groups);
        }
        Ok(Selection::Units(with_headers(manifest, self.units(manifest)?)))
    }

    /// How many units are named by their numbers.
    pub(super) fn unit_count(&self) -> usize {
        self.0.units.len()
    }

    /// The units of the tensors that are named, and of all else that is.
    pub(super) fn find(&self, manifest: &Manifest, files: &[TensorsOf]) -> Result<Found, Failure> {
        let all = || files.iter().flat_map(|file| &file.tensors);
        let (mut units, mut matching) = (self.units(manifest)?, BTreeSet::new());
        for pattern in &self.0.tensors {
            let matcher = matcher(pattern)?;
            let before = matching.len();
            for tensor in all().filter(|tensor| matcher.is_match(&tensor.name)) {
                units.extend(tensor.units.clone());
                matching.insert(&tensor.name);
            }
            if matching.len() == before && !all().any(|tensor| matcher.is_match(&tensor.name)) {
                return Err(not_found(pattern, all().map(|tensor| tensor.name.as_str())));
            }
        }
        let there = |tensor: &&crate::open::UnitTensors| {
            !tensor.units.is_empty() && tensor.units.clone().all(|unit| units.contains(&unit))
        };
        let tensors = all().filter(there).count();
        let matching = matching.len();
        let named = Self::try_from(Names { units: with_headers(manifest, units), ..Names::default() });
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

    /// Units by number, group and rank.
    fn units(&self, manifest: &Manifest) -> Result<BTreeSet<u32>, Failure> {
        let mut units: BTreeSet<u32> = self.0.units.iter().copied().collect();
        if !self.0.groups.is_empty() {
            let groups = select(manifest, &Selection::Groups(self.groups()?))?;
            units.extend(groups.iter().filter(|unit| manifest.unit(*unit).is_some_and(|unit| !unit.group.is_header())));
        }
        if let Some(rank) = &self.0.rank {
            let rank: Rank = rank.parse().map_err(rank_refused)?;
            units.extend(manifest.rank(rank).map_err(rank_refused)?);
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
        RankError::Malformed | RankError::OtherCount { .. } | RankError::TooFewLayers { .. } => failure,
    }
}

#[cfg(test)]
mod tests {
    use attestation::Sha256Digest;
    use clap::Parser;
    use ledger::manifest::{Blake3Digest, ModelId, Plan, PlanUnit, SealedDigests};

    use super::*;
    use crate::open::UnitTensors;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        part: PartArgs,
    }

    fn part(options: &[&str]) -> Part {
        Line::try_parse_from([&["load"], options].concat()).unwrap().part.part().unwrap()
    }

    fn find(options: &[&str], names: &[TensorsOf]) -> Result<Found, Failure> {
        part(options).by_name().unwrap().find(&manifest(), names)
    }

    /// config; a.safetensors: header, layers 0 and 1; b.safetensors: header, other.
    fn manifest() -> Manifest {
        let unit = |file: &str, offset, group: &str| PlanUnit {
            file: file.parse().unwrap(),
            offset,
            length: 10,
            group: group.parse().unwrap(),
        };
        let (a, b) = ("a.safetensors", "b.safetensors");
        let units = [
            (a, 0, "header"),
            (a, 10, "layer.0"),
            (a, 20, "layer.1"),
            (b, 0, "header"),
            (b, 10, "other"),
            ("config.json", 0, "files"),
        ];
        let plan = Plan::new(units.map(|(file, offset, group)| unit(file, offset, group)).to_vec()).unwrap();
        let digest = SealedDigests { sha256: Sha256Digest::of(b""), blake3: Blake3Digest::from_bytes([0; 32]) };
        let id = ModelId {
            vault: Sha256Digest::of(b"vault"),
            model: "m".parse().unwrap(),
            version: "1".parse().unwrap(),
            publisher: Sha256Digest::of(b"publisher"),
        };
        Manifest::build(id, plan, vec![digest; 6]).unwrap()
    }

    fn names() -> Vec<TensorsOf> {
        let tensor = |name: &str, units| UnitTensors { name: name.to_owned(), units };
        let a = vec![tensor("h.0.q", 1..2), tensor("h.0.k", 1..2), tensor("h.1.q", 2..3), tensor("nil", 0..0)];
        let b = vec![tensor("embed", 4..5)];
        let file = |name: &str, header, tensors| TensorsOf { file: name.parse().unwrap(), header, tensors };
        vec![file("a.safetensors", 0, a), file("b.safetensors", 3, b)]
    }

    fn units(options: &[&str]) -> Vec<u32> {
        let model = manifest();
        let selection = part(options).selection(&model).unwrap();
        model.select(&selection).unwrap().iter().collect()
    }

    #[test]
    fn units_come_with_the_headers_of_their_files_and_with_nothing_else() {
        assert_eq!(part(&[]).selection(&manifest()).unwrap(), Selection::All);
        assert_eq!(units(&["--units", "2"]), [0, 2]);
        assert_eq!(units(&["--units", "4-5"]), [3, 4, 5]);
        assert_eq!(units(&["--rank", "0/2"]), [0, 1, 3, 4, 5]);
        assert_eq!(units(&["--rank", "1/2", "--group", "layer.0"]), [0, 1, 2, 3, 4, 5]);
        // As the keeper selects by groups: all headers.
        assert_eq!(units(&["--group", "layer.1"]), [0, 2, 3]);
        let refused = part(&["--units", "9"]).selection(&manifest()).unwrap_err();
        assert_eq!(refused.code(), "select-no-such-unit");
        let refused = part(&["--group", "layer.7"]).selection(&manifest()).unwrap_err();
        assert_eq!(refused.code(), "select-no-such-group");
        assert_eq!(refused.next_step(), Some("its groups are files, header, layer.0, layer.1, other"));
        let refused = part(&["--rank", "0/9"]).selection(&manifest()).unwrap_err();
        assert_eq!(refused.code(), "rank-too-few-layers");
    }

    #[test]
    fn tensors_are_found_by_patterns_of_whole_names() {
        let find = |options: &[&str]| find(options, &names());
        let found = find(&["--tensor", "*.0.?"]).unwrap();
        assert_eq!((found.named.0.units.as_slice(), found.matching, found.tensors), ([0, 1].as_slice(), 2, 2));
        // What shares a unit with it comes along.
        let found = find(&["--tensor", "h.0.k", "--tensor", "embed"]).unwrap();
        assert_eq!((found.named.0.units.as_slice(), found.matching, found.tensors), ([0, 1, 3, 4].as_slice(), 2, 3));
        assert_eq!(find(&["--tensor", "h.1.*", "--group", "files"]).unwrap().named.0.units, [0, 2, 5]);
        for pattern in ["h.0", "H.0.q", "h?0?q?", "[a-z]*"] {
            let refused = find(&["--tensor", pattern]).unwrap_err();
            assert_eq!(refused.code(), "tensor-not-found", "{pattern}");
            assert!(refused.message().contains("5, such as \"h.0.q\""), "{refused}");
        }
    }

    #[test]
    fn tensors_without_bytes_do_not_stand_for_the_whole_model() {
        let empty = UnitTensors { name: "none".to_owned(), units: 1..1 };
        let mut names = names();
        names[0].tensors.push(empty);
        let find = |options: &[&str]| find(options, &names);
        assert_eq!(find(&["--tensor", "none"]).unwrap_err().code(), "tensors-empty");
        assert_eq!(find(&["--tensor", "none", "--group", "files"]).unwrap().named.0.units, [5]);
    }

    #[test]
    fn nothing_named_is_refused_wherever_it_comes_from_and_never_stands_for_all() {
        assert_eq!(part(&[]), Part::All);
        assert_eq!(Part::try_from(&Selection::All), Ok(Part::All));
        for nothing in [Selection::Groups(Vec::new()), Selection::Units(Vec::new())] {
            assert_eq!(Part::try_from(&nothing), Err(SelectError::Nothing));
        }
        // As a loader is told, and as it tells.
        let read = |json: &str| serde_json::from_str::<Part>(json).map_err(|error| error.to_string());
        assert_eq!(read(r#""all""#), Ok(Part::All));
        for empty in [r#"{"of":{}}"#, r#"{"of":{"units":[],"groups":[],"rank":null,"tensors":[]}}"#] {
            assert_eq!(read(empty).unwrap_err(), SelectError::Nothing.to_string());
        }
        for other in ["{}", "null", r#""""#, r#"{"of":{"unit":[1]}}"#, r#"{"units":[1]}"#] {
            assert!(read(other).is_err(), "{other}");
        }
        for options in [["--units", "2"], ["--group", "layer.0"], ["--rank", "0/2"], ["--tensor", "h.*"]] {
            let part = part(&options);
            assert_eq!(read(&serde_json::to_string(&part).unwrap()), Ok(part));
        }
        let found = r#"{"named":{"units":[]},"matching":1,"tensors":0}"#;
        assert!(serde_json::from_str::<Found>(found).is_err());
    }

    #[test]
    fn a_pattern_has_a_bounded_length() {
        for pattern in [String::new(), "a".repeat(PATTERN_BYTES_MAX + 1)] {
            assert_eq!(matcher(&pattern).unwrap_err().code(), "tensor-pattern");
        }
    }
}
