//! The file of a snapshot (FORMAT.md §5): what it is of, in clear, and the sealed message whose context says the same.

use attestation::{Sha256Digest, lv};
use ledger::checkpoint::Checkpoint;
use ledger::merkle::Tree;
use ledger::snapshot::{self, FOLD, Folded};
use ledger::state::State;
use ring::rand::SystemRandom;

use super::SnapshotError;
use crate::record::{SnapshotId, open_snapshot, seal_snapshot};
use crate::secret::SnapshotKey;

const TAG: &[u8] = b"weightvault/v1 snapshot\0";
/// Longest text that says what the fold means, in bytes.
const FOLD_BYTES_MAX: usize = 64;

/// A file that says it is a snapshot of this version's fold.
pub(super) struct SnapshotFile<'a> {
    vault: Sha256Digest,
    head: Checkpoint,
    message: &'a [u8],
}

impl<'a> SnapshotFile<'a> {
    /// Reads tag ‖ lv(fold, vault id, be64(size), root) ‖ message.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, SnapshotError> {
        let mut rest = bytes.strip_prefix(TAG).ok_or(SnapshotError::NoSnapshot)?;
        let fold = field(&mut rest).ok_or(SnapshotError::NoSnapshot)?;
        if fold != FOLD.as_bytes() {
            let shown = fold.get(..FOLD_BYTES_MAX.min(fold.len())).unwrap_or_default();
            let found = String::from_utf8_lossy(shown).escape_debug().to_string();
            return Err(SnapshotError::OtherFold { found });
        }
        let mut fields = || {
            let vault = Sha256Digest::from_bytes(field(&mut rest)?.try_into().ok()?);
            let size = u64::from_be_bytes(field(&mut rest)?.try_into().ok()?);
            Some((vault, Checkpoint { size, root: field(&mut rest)?.try_into().ok()? }))
        };
        let (vault, head) = fields().ok_or(SnapshotError::NoSnapshot)?;
        Ok(Self { vault, head, message: rest })
    }

    /// Opens what was sealed; it is what the file says.
    pub(super) fn open(&self, key: &SnapshotKey) -> Result<Folded, SnapshotError> {
        let Self { vault, head, message } = self;
        let id = SnapshotId { fold: FOLD, size: head.size, root: &head.root };
        let plain = open_snapshot(key, *vault, &id, message).map_err(|_| SnapshotError::Damaged)?;
        let folded = snapshot::decode(&plain).map_err(SnapshotError::Content)?;
        if head_of(&folded.tree) != *head || vault_of(&folded.state) != Some(*vault) {
            return Err(SnapshotError::OtherContent);
        }
        Ok(folded)
    }

    /// The bytes of a file.
    pub(super) fn seal(state: &State, tree: &Tree, plain: &[u8], key: &SnapshotKey) -> Result<Vec<u8>, SnapshotError> {
        let head = head_of(tree);
        let vault = vault_of(state).ok_or(SnapshotError::OtherContent)?;
        let id = SnapshotId { fold: FOLD, size: head.size, root: &head.root };
        let message = seal_snapshot(key, vault, &id, plain, &SystemRandom::new()).map_err(SnapshotError::Seal)?;
        let fields = lv(&[FOLD.as_bytes(), vault.as_bytes(), &head.size.to_be_bytes(), &head.root]);
        Ok([TAG, &fields, &message].concat())
    }
}

fn head_of(tree: &Tree) -> Checkpoint {
    Checkpoint { size: tree.len(), root: tree.root(tree.len()).expect("a tree has its own size") }
}

fn vault_of(state: &State) -> Option<Sha256Digest> {
    state.genesis().map(ledger::genesis::Genesis::vault_id)
}

/// The next length-prefixed field.
fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let (field, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *rest = after;
    Some(field)
}
