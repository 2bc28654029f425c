//! How a keeper comes by a quorum of cosignatures (C2SP tlog-witness, the client's side), without a network: what to ask
//! which witness, and what its answer is worth.
//!
//! Answers may come in any order, late, twice, or not at all, and whoever relays them may change them: what counts is a
//! signature that verifies. A witness that says 409 is asked once more from the size that it names.
//!
//! A keeper does not hold every leaf of its tree. To show a witness that the log continues one of which the leaves were
//! forgotten takes the 256 entries around that size once more, from anybody: [`Gathering::wants`] says which.

use attestation::UnixTime;

use super::{CosignedCheckpoint, WitnessPolicy};
use crate::checkpoint::SignedCheckpoint;
use crate::merkle::{Hash, MerkleError, Tree, leaf_hash};
use crate::note::parse_signature_line;
use crate::text::parse_decimal;
use crate::witness::AddCheckpoint;

pub use super::quorum::{NoQuorum, Outcome};

/// Longest answer of a witness that is read, in bytes: lines of other keys of its may come along.
pub const ANSWER_BYTES_MAX: usize = 16 << 10;
/// How often one witness is asked about one checkpoint: it may name a size, and once more another.
const ASKS_MAX: u32 = 3;

/// What a witness is to be asked: `POST …/add-checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Its place in the policy.
    pub witness: usize,
    /// Its name.
    pub name: String,
    /// Body of the request.
    pub body: String,
}

/// What came of an [`Ask`], as far as whoever relays it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// An HTTP response.
    Response {
        /// Its status.
        status: u16,
        /// Its body.
        body: Vec<u8>,
    },
    /// None.
    Unreached {
        /// Why.
        why: String,
    },
}

/// Sizes that the witnesses of a log are thought to have cosigned last. A wrong one costs one more request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastSizes(Vec<u64>);

/// Cosignatures of one checkpoint that are being gathered.
#[derive(Debug)]
pub struct Gathering<'a> {
    signed: SignedCheckpoint,
    witnesses: &'a WitnessPolicy,
    tree: &'a mut Tree,
    sizes: &'a mut LastSizes,
    asks: Vec<u32>,
    /// Who is to be asked next.
    due: Vec<bool>,
    lines: Vec<Option<(UnixTime, String)>>,
    outcomes: Vec<Outcome>,
}

impl LastSizes {
    /// All of them at this size.
    pub(crate) fn all_at(size: u64, witnesses: Option<&WitnessPolicy>) -> Self {
        Self(vec![size; witnesses.map_or(0, |witnesses| witnesses.witnesses().len())])
    }
}

impl<'a> Gathering<'a> {
    pub(crate) fn new(
        signed: SignedCheckpoint,
        witnesses: &'a WitnessPolicy,
        tree: &'a mut Tree,
        sizes: &'a mut LastSizes,
    ) -> Self {
        let count = witnesses.witnesses().len();
        let (asks, lines, outcomes) = (vec![0; count], vec![None; count], vec![Outcome::Waiting; count]);
        Self { signed, witnesses, tree, sizes, asks, due: vec![true; count], lines, outcomes }
    }

    /// The signed checkpoint, as witnesses are shown it.
    pub fn note(&self) -> &str {
        self.signed.note()
    }

    /// Its entries.
    pub fn size(&self) -> u64 {
        self.signed.checkpoint().size
    }

    /// What to ask now: at first every witness, at once; after an answer, whoever named another size, from there. Nobody
    /// whose ask [wants](Self::wants) entries.
    pub fn asks(&mut self) -> Vec<Ask> {
        (0..self.lines.len()).filter_map(|witness| self.due[witness].then(|| self.ask(witness))?).collect()
    }

    /// The bundle (256 entries each, from 0) without which the next one can't be asked: to be given to
    /// [`recall`](Self::recall).
    pub fn wants(&self) -> Option<u64> {
        (0..self.lines.len()).filter(|witness| self.due[*witness]).find_map(|witness| self.forgotten(witness))
    }

    /// Takes the 256 entries of a bundle; the tree knows which they are. Those that it does not have leave the witnesses
    /// that wait for them unasked.
    pub fn recall<E: AsRef<[u8]>>(&mut self, bundle: u64, entries: &[E]) {
        let leaves: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry.as_ref())).collect();
        if self.tree.recall(bundle, &leaves).is_err() {
            for witness in 0..self.lines.len() {
                if self.due[witness] && self.forgotten(witness) == Some(bundle) {
                    self.settle(witness, Outcome::NotShown { size: self.sizes.0[witness] });
                }
            }
        }
    }

    /// Takes the answer to an ask; it may have to be asked once more. Answers that nobody asked for change nothing.
    pub fn answer(&mut self, witness: usize, answer: Answer) {
        let waits = self.outcomes.get(witness) == Some(&Outcome::Waiting) && !self.due[witness];
        if !waits {
            return;
        }
        let (status, body) = match answer {
            Answer::Response { status, body } if body.len() <= ANSWER_BYTES_MAX => (status, body),
            Answer::Response { .. } => return self.settle(witness, Outcome::NotCosigned),
            Answer::Unreached { why } => return self.settle(witness, Outcome::unreached(&why)),
        };
        let body = String::from_utf8(body).unwrap_or_default();
        match status {
            200 => self.cosignature(witness, &body),
            409 => self.conflict(witness, body.strip_suffix('\n').and_then(parse_decimal)),
            422 => self.settle(witness, Outcome::Forked),
            status => self.settle(witness, Outcome::Refused { status }),
        }
    }

    /// Whether there is nothing to wait for: a quorum, or no answer that could still come.
    pub fn is_over(&self) -> bool {
        self.counted() >= self.witnesses.quorum() || !self.outcomes.contains(&Outcome::Waiting)
    }

    /// The checkpoint with the lines of a quorum.
    pub(crate) fn finish(self) -> Result<(SignedCheckpoint, CosignedCheckpoint, String), NoQuorum> {
        let (times, lines): (Vec<_>, Vec<_>) = self.lines.into_iter().map(Option::unzip).unzip();
        match self.witnesses.counted(self.signed.checkpoint(), times) {
            Ok(cosigned) => Ok((self.signed, cosigned, lines.into_iter().flatten().collect())),
            Err(_) => Err(NoQuorum::new(self.witnesses, self.outcomes)),
        }
    }

    fn counted(&self) -> usize {
        self.lines.iter().flatten().count()
    }

    /// From the size that it is thought to have, with the proof from there.
    fn ask(&mut self, witness: usize) -> Option<Ask> {
        let (old, new) = (self.sizes.0[witness], self.signed.checkpoint().size);
        let proof = match self.proof(witness) {
            Ok(proof) => proof,
            Err(MerkleError::Forgotten { .. }) => return None,
            Err(_) => {
                self.settle(witness, Outcome::Ahead { size: old });
                return None;
            }
        };
        self.asks[witness] += 1;
        self.due[witness] = false;
        let name = self.witnesses.witnesses()[witness].name().to_owned();
        // As it will be, should its answer come too late to be seen.
        self.sizes.0[witness] = new;
        Some(Ask { witness, name, body: AddCheckpoint::new(old, proof, self.signed.note().to_owned()).encode() })
    }

    /// That the checkpoint continues what the witness is thought to have cosigned last.
    fn proof(&self, witness: usize) -> Result<Vec<Hash>, MerkleError> {
        match (self.sizes.0[witness], self.signed.checkpoint().size) {
            (0, _) => Ok(Vec::new()),
            (old, new) => self.tree.consistency(old, new),
        }
    }

    fn forgotten(&self, witness: usize) -> Option<u64> {
        match self.proof(witness) {
            Err(MerkleError::Forgotten { bundle }) => Some(bundle),
            Ok(_) | Err(_) => None,
        }
    }

    fn cosignature(&mut self, witness: usize, body: &str) {
        for line in body.split_terminator('\n').filter(|line| parse_signature_line(line).is_ok()) {
            match self.witnesses.verify_line(self.signed.text(), line) {
                Ok(Some((index, time))) if index == witness => {
                    self.lines[witness] = Some((time, format!("{line}\n")));
                    return self.settle(witness, Outcome::Cosigned);
                }
                // Of another key, or no good: a later line may be the one.
                Ok(_) | Err(_) => {}
            }
        }
        self.settle(witness, Outcome::NotCosigned)
    }

    /// It cosigned another size last: smaller, and it is asked again from there; larger, and this log is not the newest.
    fn conflict(&mut self, witness: usize, size: Option<u64>) {
        let Some(size) = size else { return self.settle(witness, Outcome::Refused { status: 409 }) };
        if size > self.signed.checkpoint().size {
            return self.settle(witness, Outcome::Ahead { size });
        }
        if self.asks[witness] >= ASKS_MAX {
            return self.settle(witness, Outcome::Refused { status: 409 });
        }
        self.sizes.0[witness] = size;
        self.due[witness] = true;
    }

    fn settle(&mut self, witness: usize, outcome: Outcome) {
        self.outcomes[witness] = outcome;
        self.due[witness] = false;
    }
}
