//! Which witnesses a log has, and how many of them must have cosigned a checkpoint before it counts.

use attestation::UnixTime;

use super::{CosignatureError, WitnessKey, WitnessPolicyError};
use crate::checkpoint::Checkpoint;
use crate::note::{NoteError, SIGNATURES_MAX, parse_signature_line, split};

/// Most witnesses of a log: what every reader of notes takes, beside the log's own signature.
pub const WITNESSES_MAX: usize = 16;

/// n witnesses, of which f may be faulty, and the quorum q of them that a checkpoint needs: 2q > n + f.
///
/// Two quorums then have more than f witnesses in common, one of them faultless: and that one never cosigns two logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessPolicy {
    witnesses: Vec<WitnessKey>,
    quorum: usize,
    faulty: usize,
}

/// A cosignature that verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosignature {
    /// Name of the witness.
    pub witness: String,
    /// When it saw this checkpoint as the largest.
    pub time: UnixTime,
}

/// A checkpoint that a quorum of distinct witnesses cosigned. Nothing but their signatures makes one.
///
/// ```compile_fail,E0451
/// # use ledger::checkpoint::Checkpoint;
/// # use ledger::cosignature::CosignedCheckpoint;
/// fn forge(checkpoint: Checkpoint) -> CosignedCheckpoint { CosignedCheckpoint { checkpoint, cosignatures: Vec::new(), faulty: 0 } }
/// ```
/// ```
/// # use ledger::checkpoint::Checkpoint;
/// # use ledger::cosignature::CosignedCheckpoint;
/// fn read(cosigned: &CosignedCheckpoint) -> Checkpoint { *cosigned.checkpoint() }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CosignedCheckpoint {
    checkpoint: Checkpoint,
    cosignatures: Vec<Cosignature>,
    faulty: usize,
}

impl WitnessPolicy {
    /// 1 to 16 witnesses with distinct names and keys.
    ///
    /// # Errors
    /// [`WitnessPolicyError`].
    pub fn new(witnesses: Vec<WitnessKey>, quorum: usize, faulty: usize) -> Result<Self, WitnessPolicyError> {
        let count = witnesses.len();
        if count == 0 || count > WITNESSES_MAX {
            return Err(WitnessPolicyError::Count { count });
        }
        for (index, witness) in witnesses.iter().enumerate() {
            let before = witnesses.iter().take(index);
            if before.clone().any(|other| other.name() == witness.name()) {
                return Err(WitnessPolicyError::NameRepeated { name: witness.name().to_owned() });
            }
            if before.clone().any(|other| other.key() == witness.key()) {
                return Err(WitnessPolicyError::KeyRepeated { name: witness.name().to_owned() });
            }
        }
        if quorum > count {
            return Err(WitnessPolicyError::QuorumUnreachable { quorum, count });
        }
        if 2 * quorum <= count.saturating_add(faulty) {
            return Err(WitnessPolicyError::QuorumTooSmall { quorum, count, faulty });
        }
        Ok(Self { witnesses, quorum, faulty })
    }

    /// The witnesses, in the order of the policy.
    pub fn witnesses(&self) -> &[WitnessKey] {
        &self.witnesses
    }

    /// How many must have cosigned.
    pub fn quorum(&self) -> usize {
        self.quorum
    }

    /// How many may be faulty without harm.
    pub fn faulty(&self) -> usize {
        self.faulty
    }

    /// Counts the witnesses under a note whose log signature was verified. A line of a witness that does not verify refuses
    /// the note (C2SP signed-note); lines of strangers are ignored; whoever signed twice counts once.
    pub(crate) fn verify(&self, checkpoint: Checkpoint, note: &str) -> Result<CosignedCheckpoint, CosignatureError> {
        let (text, lines) = split(note).map_err(CosignatureError::Note)?;
        let mut found = vec![None; self.witnesses.len()];
        for (count, line) in lines.split_terminator('\n').enumerate() {
            if count == SIGNATURES_MAX {
                return Err(CosignatureError::Note(NoteError::TooManySignatures));
            }
            if let Some((index, time)) = self.verify_line(text, line)? {
                found[index].get_or_insert(time);
            }
        }
        self.counted(checkpoint, found)
    }

    /// Which witness signed a line and when; nothing for a stranger's.
    pub(crate) fn verify_line(&self, text: &str, line: &str) -> Result<Option<(usize, UnixTime)>, CosignatureError> {
        let (name, id, signature) = parse_signature_line(line).map_err(CosignatureError::Note)?;
        let Some(index) = self.witnesses.iter().position(|witness| witness.is_named(name, id)) else {
            return Ok(None);
        };
        let time = self.witnesses[index].verify(text, &signature)?;
        Ok(Some((index, time)))
    }

    pub(super) fn counted(
        &self,
        checkpoint: Checkpoint,
        found: Vec<Option<UnixTime>>,
    ) -> Result<CosignedCheckpoint, CosignatureError> {
        let signed = self.witnesses.iter().zip(found);
        let cosignatures: Vec<Cosignature> = signed
            .filter_map(|(witness, time)| time.map(|time| Cosignature { witness: witness.name().to_owned(), time }))
            .collect();
        let counted = cosignatures.len();
        if counted < self.quorum {
            return Err(CosignatureError::QuorumMissing { counted, quorum: self.quorum });
        }
        Ok(CosignedCheckpoint { checkpoint, cosignatures, faulty: self.faulty })
    }
}

impl CosignedCheckpoint {
    /// Size and root.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Who cosigned it, in the order of the policy.
    pub fn cosignatures(&self) -> &[Cosignature] {
        &self.cosignatures
    }

    /// A moment that was not before now when it was cosigned: the (f+1)-th of the cosignatures' times, the latest first. One
    /// of those that said it or a later one is faultless, so that f faulty witnesses can't set it ahead of what a faultless
    /// one said; and where 2f+1 cosigned, they can't hold it back behind all of them either. A quorum has more than f.
    pub fn not_before(&self) -> UnixTime {
        let mut times: Vec<UnixTime> = self.cosignatures.iter().map(|cosignature| cosignature.time).collect();
        times.sort_unstable_by(|one, other| other.cmp(one));
        times[self.faulty]
    }

    /// The (lower) median of the cosignatures' times. Where more than 2f witnesses cosigned, a faultless one's time is not
    /// after it and another's is not before it, so that faulty witnesses can't move it past what some faultless one said.
    pub fn time(&self) -> UnixTime {
        let mut times: Vec<UnixTime> = self.cosignatures.iter().map(|cosignature| cosignature.time).collect();
        times.sort_unstable();
        times[(times.len() - 1) / 2]
    }
}
