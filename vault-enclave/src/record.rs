//! What a keeper keeps on disk sealed: the head, the DEK records, its snapshot, and the keys of a vault that it took over
//! (FORMAT.md §5).
//!
//! A record is one Cobblestone-256 message whose context says what it is, so that one record can't stand for another.

use attestation::{Sha256Digest, lv};
use ring::rand::SecureRandom;

use crate::aead::Small;
use crate::container::{Layout, OpenError, open_message, seal_message};
use crate::derive::{self, KeeperContext};
use crate::secret::{Dek, EpochSecrets, EscrowKey, HeadKey, Kek, Root, SnapshotKey, VaultSecrets};

const RECORD: &[u8] = b"weightvault/v1 record\0";
/// Of what no epoch makes anew: a keeper that joined was handed its keys under its first root, and the object of an escrow
/// names the epoch of its keys itself.
const FIRST_EPOCH: u32 = 1;

/// Seals a DEK under the KEK of this epoch. `plan` is the plan digest of the model version, `vault` the vault's id.
///
/// # Errors
/// [`OpenError::Secret`].
pub fn seal_dek(
    (kek, epoch): (&Kek, u32),
    vault: Sha256Digest,
    plan: Sha256Digest,
    dek: &Dek,
    rng: &dyn SecureRandom,
) -> Result<Vec<u8>, OpenError> {
    let context = dek_context(vault, plan, epoch);
    kek.with_bytes(|kek| dek.with_bytes(|dek| seal_message::<Small>(kek, &context, dek, rng)))
}

/// Opens a DEK record.
///
/// # Errors
/// [`OpenError`]; a record of another vault, plan or epoch has another commitment.
pub fn open_dek(
    (kek, epoch): (&Kek, u32),
    vault: Sha256Digest,
    plan: Sha256Digest,
    record: &[u8],
) -> Result<Dek, OpenError> {
    let context = dek_context(vault, plan, epoch);
    Dek::init_with(|dek| kek.with_bytes(|kek| open_message::<Small>(kek, &context, record, dek)))
}

/// Seals the head. Its content is not secret; that it is the keeper's own is what counts.
///
/// # Errors
/// [`OpenError::Secret`].
pub fn seal_head(key: &HeadKey, head: &[u8], rng: &dyn SecureRandom) -> Result<Vec<u8>, OpenError> {
    key.with_bytes(|key| seal_message::<Small>(key, &head_context(), head, rng))
}

/// What a snapshot is of, besides the vault.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotId<'a> {
    /// What the fold means ([`ledger::snapshot::FOLD`]).
    pub fold: &'a str,
    /// Entries folded.
    pub size: u64,
    /// Their Merkle root.
    pub root: &'a [u8; 32],
}

/// Seals a snapshot. Its content is not secret either.
///
/// # Errors
/// [`OpenError::Secret`].
pub fn seal_snapshot(
    key: &SnapshotKey,
    vault: Sha256Digest,
    id: &SnapshotId<'_>,
    snapshot: &[u8],
    rng: &dyn SecureRandom,
) -> Result<Vec<u8>, OpenError> {
    key.with_bytes(|key| seal_message::<Small>(key, &snapshot_context(vault, id), snapshot, rng))
}

/// Opens a snapshot.
///
/// # Errors
/// [`OpenError`]; one of another vault, size, root or fold has another commitment.
pub fn open_snapshot(
    key: &SnapshotKey,
    vault: Sha256Digest,
    id: &SnapshotId<'_>,
    record: &[u8],
) -> Result<Vec<u8>, OpenError> {
    let length = Layout::of_sealed(record.len() as u64)?.length();
    let mut snapshot = vec![0; usize::try_from(length).map_err(|_| OpenError::Length(length))?];
    key.with_bytes(|key| open_message::<Small>(key, &snapshot_context(vault, id), record, &mut snapshot))?;
    Ok(snapshot)
}

/// Opens the head.
///
/// # Errors
/// [`OpenError`].
pub fn open_head(key: &HeadKey, record: &[u8]) -> Result<Vec<u8>, OpenError> {
    let length = Layout::of_sealed(record.len() as u64)?.length();
    let mut head = vec![0; usize::try_from(length).map_err(|_| OpenError::Length(length))?];
    key.with_bytes(|key| open_message::<Small>(key, &head_context(), record, &mut head))?;
    Ok(head)
}

/// Seals the keys of a vault that another keeper handed over, under the root of the one that took them.
///
/// # Errors
/// [`OpenError::Secret`].
pub fn seal_vault_keys(
    root: &Root,
    context: &KeeperContext,
    secrets: &VaultSecrets,
    rng: &dyn SecureRandom,
) -> Result<Vec<u8>, OpenError> {
    let key = context.vault_keys_key(root)?;
    let context = vault_keys_context(context);
    key.with_bytes(|key| secrets.with_bytes(|secrets| seal_message::<Small>(key, &context, secrets, rng)))
}

/// Opens them.
///
/// # Errors
/// [`OpenError`]; those of another keeper or vault have another commitment.
pub fn open_vault_keys(root: &Root, context: &KeeperContext, record: &[u8]) -> Result<VaultSecrets, OpenError> {
    let key = context.vault_keys_key(root)?;
    let context = vault_keys_context(context);
    VaultSecrets::init_with(|secrets| key.with_bytes(|key| open_message::<Small>(key, &context, record, secrets)))
}

/// Seals the keys of a vault under a key that is about to be split. `object` is what approvals of the escrow named.
///
/// # Errors
/// [`OpenError::Secret`].
pub fn seal_escrow(
    key: &EscrowKey,
    vault: Sha256Digest,
    (object, epoch): (Sha256Digest, u32),
    secrets: &VaultSecrets,
    rng: &dyn SecureRandom,
) -> Result<Vec<u8>, OpenError> {
    let context = escrow_context(vault, object, epoch);
    key.with_bytes(|key| secrets.with_bytes(|secrets| seal_message::<Small>(key, &context, secrets, rng)))
}

/// Opens them: the commitment in the record refuses every other key.
///
/// # Errors
/// [`OpenError`].
pub fn open_escrow(
    key: &EscrowKey,
    vault: Sha256Digest,
    (object, epoch): (Sha256Digest, u32),
    record: &[u8],
) -> Result<VaultSecrets, OpenError> {
    let context = escrow_context(vault, object, epoch);
    VaultSecrets::init_with(|secrets| key.with_bytes(|key| open_message::<Small>(key, &context, record, secrets)))
}

/// Seals shares that wait for their entry, under the KEK: before it is in the log nobody sees them.
///
/// # Errors
/// [`OpenError::Secret`].
pub fn seal_outbox(
    kek: &Kek,
    vault: Sha256Digest,
    object: Sha256Digest,
    shares: &[u8],
    rng: &dyn SecureRandom,
) -> Result<Vec<u8>, OpenError> {
    let context = outbox_context(vault, object);
    kek.with_bytes(|kek| seal_message::<Small>(kek, &context, shares, rng))
}

/// Opens them.
///
/// # Errors
/// [`OpenError`]; those of another escrow have another commitment.
pub fn open_outbox(kek: &Kek, vault: Sha256Digest, object: Sha256Digest, record: &[u8]) -> Result<Vec<u8>, OpenError> {
    let length = Layout::of_sealed(record.len() as u64)?.length();
    let mut shares = vec![0; usize::try_from(length).map_err(|_| OpenError::Length(length))?];
    kek.with_bytes(|kek| open_message::<Small>(kek, &outbox_context(vault, object), record, &mut shares))?;
    Ok(shares)
}

fn outbox_context(vault: Sha256Digest, object: Sha256Digest) -> Vec<u8> {
    context("escrow outbox", object.as_bytes(), FIRST_EPOCH, vault)
}

fn escrow_context(vault: Sha256Digest, object: Sha256Digest, epoch: u32) -> Vec<u8> {
    context("escrow", object.as_bytes(), epoch, vault)
}

/// Seals the secrets of an epoch under the root that was made for it.
///
/// # Errors
/// [`OpenError::Secret`].
pub(crate) fn seal_epoch_secrets(
    root: &Root,
    epoch: u32,
    secrets: &EpochSecrets,
    rng: &dyn SecureRandom,
) -> Result<Vec<u8>, OpenError> {
    let (key, context) = (derive::epoch_key(root)?, epoch_context(epoch));
    key.with_bytes(|key| secrets.with_bytes(|secrets| seal_message::<Small>(key, &context, secrets, rng)))
}

/// Opens them.
///
/// # Errors
/// [`OpenError`]; those of another root or epoch have another commitment.
pub(crate) fn open_epoch_secrets(root: &Root, epoch: u32, record: &[u8]) -> Result<EpochSecrets, OpenError> {
    let (key, context) = (derive::epoch_key(root)?, epoch_context(epoch));
    EpochSecrets::init_with(|secrets| key.with_bytes(|key| open_message::<Small>(key, &context, record, secrets)))
}

/// The root is of one keeper, one vault and one epoch already.
fn epoch_context(epoch: u32) -> Vec<u8> {
    context("epoch keys", &[], epoch, Sha256Digest::from_bytes([0; 32]))
}

fn vault_keys_context(keeper: &KeeperContext) -> Vec<u8> {
    context("vault keys", &keeper.instance, FIRST_EPOCH, keeper.core)
}

fn dek_context(vault: Sha256Digest, plan: Sha256Digest, epoch: u32) -> Vec<u8> {
    context("dek", plan.as_bytes(), epoch, vault)
}

fn head_context() -> Vec<u8> {
    context("head", &[], 0, Sha256Digest::from_bytes([0; 32]))
}

fn snapshot_context(vault: Sha256Digest, id: &SnapshotId<'_>) -> Vec<u8> {
    let id = lv(&[id.fold.as_bytes(), &id.size.to_be_bytes(), id.root]);
    context("snapshot", &id, 0, vault)
}

pub(crate) fn context(kind: &str, id: &[u8], epoch: u32, vault: Sha256Digest) -> Vec<u8> {
    [RECORD, &lv(&[kind.as_bytes(), id, &epoch.to_be_bytes(), vault.as_bytes()])].concat()
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    const VAULT: Sha256Digest = Sha256Digest::from_bytes([1; 32]);
    const PLAN: Sha256Digest = Sha256Digest::from_bytes([2; 32]);

    #[test]
    fn a_dek_record_opens_under_its_own_kek_vault_and_plan_alone() {
        let rng = SystemRandom::new();
        let (kek, other_kek) = (Kek::generate(&rng).unwrap(), Kek::generate(&rng).unwrap());
        let dek = Dek::generate(&rng).unwrap();
        let record = seal_dek((&kek, 1), VAULT, PLAN, &dek, &rng).unwrap();
        let opened = open_dek((&kek, 1), VAULT, PLAN, &record).unwrap();
        opened.with_bytes(|opened| dek.with_bytes(|dek| assert_eq!(opened, dek)));
        assert_eq!(open_dek((&other_kek, 1), VAULT, PLAN, &record).err(), Some(OpenError::Commitment));
        assert_eq!(open_dek((&kek, 1), PLAN, PLAN, &record).err(), Some(OpenError::Commitment));
        assert_eq!(open_dek((&kek, 2), VAULT, PLAN, &record).err(), Some(OpenError::Commitment));
        assert_eq!(open_dek((&kek, 1), VAULT, VAULT, &record).err(), Some(OpenError::Commitment));
    }

    #[test]
    fn a_changed_or_cut_record_is_refused() {
        let rng = SystemRandom::new();
        let key = HeadKey::generate(&rng).unwrap();
        let record = seal_head(&key, b"{}", &rng).unwrap();
        assert_eq!(open_head(&key, &record).unwrap(), b"{}");
        for (position, error) in [(0, OpenError::Commitment), (24, OpenError::Commitment), (56, OpenError::Chunk(0))] {
            let mut changed = record.clone();
            changed[position] ^= 1;
            assert_eq!(open_head(&key, &changed), Err(error));
        }
        assert_eq!(open_head(&key, &record[..record.len() - 1]), Err(OpenError::Chunk(0)));
        assert_eq!(open_head(&key, &record[..60]), Err(OpenError::Length(60)));
        assert_eq!(open_head(&key, &[]), Err(OpenError::Length(0)));
    }

    #[test]
    fn the_keys_of_a_vault_open_under_the_root_and_instance_of_their_keeper_alone() {
        let rng = SystemRandom::new();
        let (root, other_root) = (Root::generate(&rng).unwrap(), Root::generate(&rng).unwrap());
        let secrets = VaultSecrets::generate(&rng).unwrap();
        let keeper = KeeperContext { instance: [1; 32], core: VAULT };
        let record = seal_vault_keys(&root, &keeper, &secrets, &rng).unwrap();
        let opened = open_vault_keys(&root, &keeper, &record).unwrap();
        opened.with_bytes(|opened| secrets.with_bytes(|secrets| assert_eq!(opened, secrets)));
        let refused = |root: &Root, keeper: KeeperContext| open_vault_keys(root, &keeper, &record).err();
        assert_eq!(refused(&other_root, keeper), Some(OpenError::Commitment));
        assert_eq!(refused(&root, KeeperContext { instance: [2; 32], ..keeper }), Some(OpenError::Commitment));
        assert_eq!(refused(&root, KeeperContext { core: PLAN, ..keeper }), Some(OpenError::Commitment));
    }

    #[test]
    fn epoch_secrets_open_under_their_own_root_and_epoch_alone() {
        let rng = SystemRandom::new();
        let (root, other) = (Root::generate(&rng).unwrap(), Root::generate(&rng).unwrap());
        let secrets = EpochSecrets::generate(&rng).unwrap();
        let record = seal_epoch_secrets(&root, 2, &secrets, &rng).unwrap();
        let opened = open_epoch_secrets(&root, 2, &record).unwrap();
        opened.with_bytes(|opened| secrets.with_bytes(|secrets| assert_eq!(opened, secrets)));
        assert_eq!(open_epoch_secrets(&other, 2, &record).err(), Some(OpenError::Commitment));
        assert_eq!(open_epoch_secrets(&root, 3, &record).err(), Some(OpenError::Commitment));
    }

    #[test]
    fn a_dek_record_of_another_length_is_refused() {
        let rng = SystemRandom::new();
        let kek = Kek::generate(&rng).unwrap();
        let context = dek_context(VAULT, PLAN, 1);
        let record = kek.with_bytes(|kek| seal_message::<Small>(kek, &context, &[7; 63], &rng)).unwrap();
        assert_eq!(open_dek((&kek, 1), VAULT, PLAN, &record).err(), Some(OpenError::Length(record.len() as u64)));
    }
}
