//! Which program each keeper runs, and which fold the log asks for.
//!
//! A log asks for a fold that every keeper which decides on it knows: so one of two can run a newer program while the other
//! goes on with the older, and what only the newer one would write is legal once both have said that they know it.

use std::collections::BTreeMap;

use super::State;
use super::error::FoldError;
use super::stored::stored;
use crate::entry::{Entry, Program, Proposal, Propose, Start, Upgrade};
use crate::names::Version;
use crate::policy::Policy;
use crate::snapshot::FOLD_NUMBER;
use crate::upgrade::UpgradeError;

/// The programs of a vault's keepers.
#[derive(Debug, Clone, Default)]
pub struct Upgrades {
    fold: u32,
    /// By instance; of those that decide, and ever said it.
    programs: BTreeMap<[u8; 32], Program>,
    /// Where the last entry is a start.
    started: Option<Started>,
}

#[derive(Debug, Clone)]
struct Started {
    keeper: [u8; 32],
    version: Version,
}

stored!(Upgrades { fold, programs, started });
stored!(Started { keeper, version });
stored!(Program { version, fold, digest });

impl Upgrades {
    /// The fold that the log asks of its readers; 0 where it never said.
    pub fn fold(&self) -> u32 {
        self.fold
    }

    /// What this keeper runs, as it last said.
    pub fn program(&self, instance: [u8; 32]) -> Option<&Program> {
        self.programs.get(&instance)
    }

    /// An entry follows: the start of a run with another version must not be the last that is heard of it.
    pub(super) fn check_said(&self, next: &Entry) -> Result<(), UpgradeError> {
        let Some(Started { keeper, version }) = &self.started else { return Ok(()) };
        match self.programs.get(keeper) {
            Some(program) if program.version != *version && !matches!(next, Entry::Upgrade(_)) => {
                Err(UpgradeError::Missing { found: version.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn started(&mut self, keeper: [u8; 32], start: &Start) {
        self.started = Some(Started { keeper, version: start.version.clone() });
    }

    pub(super) fn silence(&mut self) {
        self.started = None;
    }

    /// The fold that the log asks for once this keeper runs this: what all that decide know, and never less than before.
    fn fold_with(&self, keeper: [u8; 32], program: &Program, deciding: &[[u8; 32]]) -> u32 {
        let known = |one: &[u8; 32]| match *one == keeper {
            true => program.fold,
            false => self.programs.get(one).map_or(0, |program| program.fold),
        };
        deciding.iter().map(known).min().unwrap_or(program.fold).max(self.fold)
    }

    /// A keeper whose program knows less than `needed` would stop at the entry, and the vault with it.
    fn check_known(&self, needed: u32, deciding: &[[u8; 32]]) -> Result<(), UpgradeError> {
        let known = |one: &[u8; 32]| self.programs.get(one).map_or(0, |program| program.fold);
        // Where one decides alone, it is the one that writes the entry.
        let behind = deciding.iter().filter(|_| deciding.len() > 1).find(|one| known(one) < needed);
        behind.map_or(Ok(()), |keeper| Err(UpgradeError::NotForAll { keeper: *keeper, fold: known(keeper), needed }))
    }

    fn take(&mut self, upgrade: &Upgrade, deciding: &[[u8; 32]]) -> Result<(), UpgradeError> {
        if upgrade.fold > FOLD_NUMBER {
            let (fold, version) = (upgrade.fold, upgrade.to.version.clone());
            return Err(UpgradeError::ProgramTooOld { fold, version });
        }
        let Started { keeper, version } = self.started.as_ref().ok_or(UpgradeError::NotAtStart)?;
        if upgrade.to.version != *version {
            return Err(UpgradeError::OtherVersion { start: version.clone() });
        }
        let before = self.programs.get(keeper);
        if upgrade.from.as_ref() != before {
            return Err(UpgradeError::OtherBefore);
        }
        if upgrade.to.fold < self.fold {
            return Err(UpgradeError::Older { fold: self.fold });
        }
        let fold = self.fold_with(*keeper, &upgrade.to, deciding);
        if upgrade.fold != fold {
            return Err(UpgradeError::OtherFold { expected: fold });
        }
        if before == Some(&upgrade.to) && fold == self.fold {
            return Err(UpgradeError::Unchanged);
        }
        let keeper = *keeper;
        self.fold = fold;
        self.programs.retain(|one, _| deciding.contains(one));
        self.programs.insert(keeper, upgrade.to.clone());
        Ok(())
    }
}

impl State {
    /// What the vault's keepers run.
    pub fn upgrades(&self) -> &Upgrades {
        &self.upgrades
    }

    /// The entry that a keeper owes which runs this, in the state behind its `start`: where it ran something else before, or
    /// never said what, or is the last to know a newer fold.
    pub fn upgrade_due(&self, program: &Program) -> Option<Upgrade> {
        let Started { keeper, .. } = self.upgrades.started.as_ref()?;
        let from = self.upgrades.program(*keeper).cloned();
        let fold = self.upgrades.fold_with(*keeper, program, &self.deciding());
        let is_new = from.as_ref() != Some(program) || fold > self.upgrades.fold;
        is_new.then(|| Upgrade { time: self.time, from, to: program.clone(), fold })
    }

    pub(super) fn upgrade(&mut self, upgrade: &Upgrade) -> Result<(), FoldError> {
        let deciding = self.deciding();
        self.upgrades.take(upgrade, &deciding).map_err(FoldError::Upgrade)
    }

    /// No policy is proposed that some keeper can't read. So none comes into force: a keeper that starts later with an older
    /// program can't read the proposal.
    pub(super) fn check_readable(&self, entry: &Entry) -> Result<(), FoldError> {
        let Entry::Propose(Propose { proposal: Proposal::Policy(proposed), .. }) = entry else { return Ok(()) };
        // One that does not parse is refused for that.
        let needed = Policy::parse(&proposed.policy).map_or(0, |policy| policy.fold());
        self.upgrades.check_known(needed, &self.deciding()).map_err(FoldError::Upgrade)
    }

    /// The instances of the keepers whose runs are in the log, or could be.
    fn deciding(&self) -> Vec<[u8; 32]> {
        let Some(vault) = self.vault() else {
            return self.genesis().map(|genesis| genesis.keeper().instance).into_iter().collect();
        };
        let keepers = vault.keepers();
        let others = keepers.others().iter().filter(|member| member.has_started());
        std::iter::once(keepers.current())
            .chain(others.map(|member| member.machine()))
            .map(|one| one.instance)
            .collect()
    }
}
