//! How a part is said: by options of a command, or by options behind the commas of one model.

use ledger::manifest::{Rank, Ranks, Selection};
use ledger::names::Group;
use vault_proto::convert::OrderedPart;
use vault_proto::limits::GROUPS_MAX;

use super::{Named, Names, Part, matcher, rank_refused};
use crate::agent::options::UnitList;
use crate::agent::spec::SpecError;
use crate::failure::{Failure, Kind};

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
    /// its share of the layers; files that are not weights; the first and the last also what is in no layer. Can be given more
    /// than once: the ranks of one machine share one lease, and their files are together, as the publisher laid them out.
    #[arg(long, value_name = "R/N")]
    pub rank: Vec<Rank>,
    /// Give each rank a directory of its own, rank0, rank1 and so on: for programs that read all that is in one.
    #[arg(long, requires = "rank")]
    rank_dirs: bool,
}

/// The same behind the commas of a model: group=GROUP, units=LIST (each range for itself), rank=R/N, rank-dirs, tensor=PATTERN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::agent) struct PartOptions {
    groups: Vec<Group>,
    units: Option<String>,
    ranks: Vec<Rank>,
    rank_dirs: bool,
    tensors: Vec<String>,
}

impl PartArgs {
    /// One of them that was given and whose values are of one model. A rank is of any.
    pub(in crate::agent) fn option(&self) -> Option<&'static str> {
        let given = [
            ("--group", !self.group.is_empty()),
            ("--units", self.units.is_some()),
            ("--tensor", !self.tensor.is_empty()),
        ];
        given.iter().find(|(_, is_given)| *is_given).map(|(option, _)| *option)
    }

    pub(in crate::agent) fn part(&self) -> Result<Part, Failure> {
        part(Names {
            units: self.units.as_ref().map(|units| units.as_slice().to_vec()).unwrap_or_default(),
            groups: self.group.iter().map(ToString::to_string).collect(),
            ranks: ranks(&self.rank)?.iter().flat_map(Ranks::iter).map(|rank| rank.to_string()).collect(),
            rank_dirs: self.rank_dirs,
            tensors: self.tensor.clone(),
        })
    }
}

impl PartOptions {
    /// Takes one option; whether it is one of these.
    ///
    /// # Errors
    /// [`SpecError`]: its value.
    pub(in crate::agent) fn set(&mut self, option: &str) -> Result<bool, SpecError> {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            "group" => self.groups.push(Group::try_from(value.to_owned()).map_err(SpecError::Name)?),
            "units" => {
                let units = self.units.take().map_or_else(|| value.to_owned(), |units| format!("{units},{value}"));
                units.parse::<UnitList>().map_err(SpecError::Units)?;
                self.units = Some(units);
            }
            "rank" => self.ranks.push(value.parse().map_err(SpecError::Rank)?),
            "rank-dirs" if option == key => self.rank_dirs = true,
            "tensor" if !value.is_empty() => self.tensors.push(value.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(in crate::agent) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As an agent is told.
    ///
    /// # Errors
    /// What does not go together.
    pub(in crate::agent) fn ordered(&self) -> Result<OrderedPart, Failure> {
        let units = self.units.as_deref().map(str::parse::<UnitList>).transpose();
        let units = units.map_err(|error| Failure::new(Kind::Usage, "bad-units", error))?;
        let selection = match (units, self.groups.is_empty(), self.is_empty()) {
            (Some(_), false, _) => {
                let message = "units and groups of one model don't go together";
                return Err(Failure::new(Kind::Usage, "part-malformed", message).next("name the units of the groups"));
            }
            (Some(units), true, _) => Some(Selection::Units(units.as_slice().to_vec())),
            (None, false, _) => Some(Selection::Groups(self.groups.clone())),
            // No option at all: that is how a person says all of it.
            (None, true, true) => Some(Selection::All),
            (None, true, false) => None,
        };
        self.tensors.iter().try_for_each(|pattern| matcher(pattern).map(drop))?;
        let ordered = OrderedPart::new(selection, ranks(&self.ranks)?, self.rank_dirs, self.tensors.clone());
        ordered.map_err(|error| Failure::new(Kind::Usage, "part-malformed", error))
    }

    /// What a command of this process is to have.
    ///
    /// # Errors
    /// As [`PartOptions::ordered`].
    pub(in crate::agent) fn part(&self) -> Result<Part, Failure> {
        Ok(Part::try_from(&self.ordered()?)?)
    }
}

fn part(names: Names) -> Result<Part, Failure> {
    if names.groups.len() > GROUPS_MAX {
        let message = format!("a request names at most {GROUPS_MAX} groups");
        return Err(Failure::new(Kind::Usage, "too-many-groups", message));
    }
    names.tensors.iter().try_for_each(|pattern| matcher(pattern).map(drop))?;
    // No option at all: that is how a person says all of it.
    if names == Names::default() { Ok(Part::All) } else { Ok(Part::Of(Named::try_from(names)?)) }
}

fn ranks(ranks: &[Rank]) -> Result<Option<Ranks>, Failure> {
    if ranks.is_empty() { Ok(None) } else { Ranks::try_from(ranks.to_vec()).map(Some).map_err(rank_refused) }
}
