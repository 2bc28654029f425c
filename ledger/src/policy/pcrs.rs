//! Which PCRs are quoted, which values they may have, and what the events in them must say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use attestation::PcrSelection;

use super::boot::BootRule;
use super::error::PolicyProblem;

/// PCRs that any program on the machine can reset (PC Client Platform TPM Profile: debug and application support).
const RESETTABLE: [u32; 2] = [16, 23];
const UNTOUCHED: [u8; 32] = [0; 32];
/// What PCRs 17 to 22 hold until a dynamic launch.
const NEVER_LAUNCHED: [u8; 32] = [0xff; 32];

/// A set of PCRs of the SHA-256 bank, each with the values it may have. It is never one that a machine which measured
/// nothing fulfils.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcrRule {
    allowed: BTreeMap<u32, Vec<[u8; 32]>>,
    open: BTreeSet<u32>,
    boot: Option<BootRule>,
    selection: PcrSelection,
}

/// A quoted PCR that a rule does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PcrMismatch {
    /// Which.
    pub index: u32,
    /// Its value; `None`: it was not quoted.
    pub seen: Option<[u8; 32]>,
}

impl PcrRule {
    /// Every value list must be non-empty; the parser has checked that. `open` are PCRs that may have any value, since what
    /// is in them is asked by their events.
    pub(crate) fn new(
        allowed: BTreeMap<u32, Vec<[u8; 32]>>,
        open: BTreeSet<u32>,
        boot: Option<BootRule>,
    ) -> Result<Self, PolicyProblem> {
        let indices: Vec<u32> = allowed.keys().chain(&open).copied().collect();
        let selection = PcrSelection::try_from(indices.as_slice()).map_err(|_| PolicyProblem::PcrSetEmpty)?;
        let asked = boot.as_ref().map(BootRule::pcrs);
        if let Some(&pcr) = open.iter().find(|pcr| !asked.is_some_and(|asked| asked.contains(**pcr))) {
            return Err(PolicyProblem::PcrOpen { pcr });
        }
        if let Some(pcr) = asked.and_then(|asked| asked.iter().find(|pcr| !selection.contains(*pcr))) {
            return Err(PolicyProblem::BootPcrNotQuoted { pcr });
        }
        if boot.as_ref().is_some_and(|boot| boot.leaves_images_open(&allowed, &open)) {
            return Err(PolicyProblem::BootImagesOpen);
        }
        refuse_unmeasured(&allowed)?;
        Ok(Self { allowed, open, boot, selection })
    }

    /// What the events of the boot must say, if anything.
    pub fn boot(&self) -> Option<&BootRule> {
        self.boot.as_ref()
    }

    /// PCRs that are quoted and may have any value: their events are asked instead.
    pub fn open(&self) -> &BTreeSet<u32> {
        &self.open
    }

    /// Exactly the PCRs that must be quoted.
    pub fn selection(&self) -> PcrSelection {
        self.selection
    }

    /// The values that each PCR may have; not those that are [`open`](Self::open).
    pub fn allowed(&self) -> &BTreeMap<u32, Vec<[u8; 32]>> {
        &self.allowed
    }

    /// Whether each PCR of the rule has one of its values.
    pub fn check(&self, quoted: &BTreeMap<u32, [u8; 32]>) -> Result<(), PcrMismatch> {
        for (&index, values) in &self.allowed {
            let seen = quoted.get(&index).copied();
            if !seen.is_some_and(|value| values.contains(&value)) {
                return Err(PcrMismatch { index, seen });
            }
        }
        Ok(())
    }

    /// Whether no machine can fulfil both rules in one boot: there is a PCR that both name and no value that both allow.
    /// One that programs can reset does not count: it can have the value of the one rule now and of the other then.
    pub(super) fn is_disjoint(&self, other: &Self) -> bool {
        self.allowed.iter().filter(|(index, _)| !RESETTABLE.contains(index)).any(|(index, values)| {
            other.allowed.get(index).is_some_and(|others| values.iter().all(|value| !others.contains(value)))
        })
    }
}

/// Refuses a rule that a machine fulfils although nothing was measured on it. PCRs which programs can reset do not count:
/// they hold whatever an intruder extends into them.
fn refuse_unmeasured(allowed: &BTreeMap<u32, Vec<[u8; 32]>>) -> Result<(), PolicyProblem> {
    let measured: Vec<_> = allowed.iter().filter(|(index, _)| !RESETTABLE.contains(index)).collect();
    if measured.is_empty() {
        return Err(PolicyProblem::PcrsOnlyResettable);
    }
    let all = |blank: &[[u8; 32]]| measured.iter().all(|(_, values)| values.iter().any(|value| blank.contains(value)));
    if all(&[UNTOUCHED]) {
        Err(PolicyProblem::PcrsAllZero)
    } else if all(&[NEVER_LAUNCHED]) {
        Err(PolicyProblem::PcrsAllOnes)
    } else if all(&[UNTOUCHED, NEVER_LAUNCHED]) {
        Err(PolicyProblem::PcrsBlank)
    } else {
        Ok(())
    }
}

impl fmt::Display for PcrMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seen {
            Some(value) => write!(f, "PCR {} is {}", self.index, hex::encode(value)),
            None => write!(f, "PCR {} was not quoted", self.index),
        }
    }
}
