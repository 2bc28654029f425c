//! Which units of a model a request is for.

use std::collections::BTreeSet;

use attestation::UnitSet;

use super::{Manifest, SelectError, UNITS_MAX};
use crate::names::Group;

/// What a requester asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Every unit.
    All,
    /// Every unit with one of these labels, and every header unit. None twice.
    Groups(Vec<Group>),
    /// Exactly these units, ascending.
    Units(Vec<u32>),
}

impl Manifest {
    /// The units of a selection. A label that no unit has, or an index past the last unit, is refused.
    pub fn select(&self, selection: &Selection) -> Result<UnitSet, SelectError> {
        let indices = match selection {
            Selection::All => self.indices().collect(),
            Selection::Groups(groups) => self.with_groups(groups)?,
            Selection::Units(indices) => indices.clone(),
        };
        if indices.is_empty() {
            return Err(SelectError::Nothing);
        }
        if indices.len() > UNITS_MAX {
            return Err(SelectError::TooMany);
        }
        let set = UnitSet::try_from(indices).map_err(|_| SelectError::NotAscending)?;
        self.bytes_of(&set)?;
        Ok(set)
    }

    /// Bytes of plaintext of these units.
    pub fn bytes_of(&self, units: &UnitSet) -> Result<u64, SelectError> {
        let length = |index| self.unit(index).map(|unit| unit.length).ok_or(SelectError::NoSuchUnit { index });
        units.iter().map(length).sum()
    }

    /// The header units, which every grant has: ascending, perhaps none.
    pub fn header_units(&self) -> impl Iterator<Item = u32> + '_ {
        self.indices().filter(|&index| self.unit(index).is_some_and(|unit| unit.group.is_header()))
    }

    /// The labels of all units.
    pub fn groups(&self) -> BTreeSet<&Group> {
        self.units().iter().map(|unit| &unit.group).collect()
    }

    fn indices(&self) -> impl Iterator<Item = u32> + '_ {
        (0u32..).zip(self.units()).map(|(index, _)| index)
    }

    fn with_groups(&self, groups: &[Group]) -> Result<Vec<u32>, SelectError> {
        let mut wanted = BTreeSet::new();
        let known = self.groups();
        for group in groups {
            if !known.contains(group) {
                return Err(SelectError::NoSuchGroup { group: group.clone() });
            }
            if !wanted.insert(group) {
                return Err(SelectError::GroupTwice { group: group.clone() });
            }
        }
        if wanted.is_empty() {
            return Err(SelectError::Nothing);
        }
        let asked = |group: &Group| group.is_header() || wanted.contains(group);
        let units = (0u32..).zip(self.units());
        Ok(units.filter(|(_, unit)| asked(&unit.group)).map(|(index, _)| index).collect())
    }
}
