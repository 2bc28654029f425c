//! Group commit, and the only code able to make a [`Logged`]: no log entry, no key.
//!
//! A commit has one order, and the [`Writer`] sees nothing else: entries durable, head and counter, signature of the
//! checkpoint, cosignatures of a quorum where the log has witnesses, checkpoint published. Only then can a [`Ticket`] be redeemed. After any error the log is stopped, since
//! nobody knows what reached the disk: whoever wants to go on folds anew from what is there.
//!
//! A batch takes decisions of any types. Each is turned into its entry by its own [`Loggable::entry_bytes`], and waits in
//! a ticket of its own type, from which it cannot be taken out before it is in the log:
//!
//! ```
//! # use attestation::{LogKey, Sha256Digest};
//! # use ledger::checkpoint::LogVerifier;
//! # use ledger::merkle::Hash;
//! # use ring::signature::{Ed25519KeyPair, KeyPair};
//! use ledger::release_log::{Batch, ClosedLog, Loggable, Ticket, Writer};
//! # struct Disk(Ed25519KeyPair);
//! # impl Writer for Disk {
//! #     type Error = std::convert::Infallible;
//! #     fn append(&mut self, _: u64, _: &[Vec<u8>]) -> Result<(), Self::Error> { Ok(()) }
//! #     fn commit(&mut self, _: u64, _: Hash) -> Result<(), Self::Error> { Ok(()) }
//! #     fn sign(&mut self, text: &str) -> Result<[u8; 64], Self::Error> {
//! #         Ok(self.0.sign(text.as_bytes()).as_ref().try_into().expect("64 bytes"))
//! #     }
//! #     fn publish(&mut self, _: &str, _: u64) -> Result<(), Self::Error> { Ok(()) }
//! # }
//!
//! struct Grant { to: &'static str }
//! impl Loggable for Grant {
//!     fn entry_bytes(&self) -> Vec<u8> { format!("release to {}", self.to).into_bytes() }
//! }
//! struct End(u64);
//! impl Loggable for End {
//!     fn entry_bytes(&self) -> Vec<u8> { format!("end of lease {}", self.0).into_bytes() }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mut disk = Disk(Ed25519KeyPair::from_seed_unchecked(&[1; 32]).map_err(|_| "key")?);
//! # let verifier = LogVerifier::new(Sha256Digest::of(b"genesis"), LogKey::try_from(disk.0.public_key().as_ref())?);
//! let mut first = Batch::new();
//! first.add(b"genesis".to_vec())?;
//! let mut log = ClosedLog::empty().start(verifier.clone(), first, &mut disk)?;
//!
//! let mut batch = Batch::new();
//! let grant: Ticket<Grant> = batch.stage(Grant { to: "a guest" })?;
//! let end: Ticket<End> = batch.stage(End(7))?;
//! log.commit(batch, &mut disk)?;
//!
//! let (Ok(grant), Ok(end)) = (grant.redeem(), end.redeem()) else { unreachable!("they are in the log") };
//! assert_eq!((grant.value().to, grant.index(), end.index()), ("a guest", 1, 2));
//! // What the guest checks before it opens a key:
//! assert_eq!(verifier.verify_proof(&grant.proof(), b"release to a guest")?.0, 1);
//! # Ok(()) }
//! ```

mod batch;
mod error;
mod newest;

use attestation::Sha256Digest;

pub use batch::{BATCH_ENTRIES_MAX, Batch, ENTRY_BYTES_MAX, Loggable, Logged, StageError, Ticket};
pub use error::{LogError, OpenError};
pub use newest::Newest;

use crate::checkpoint::{Checkpoint, CountedCheckpoint, LogVerifier, Seen};
use crate::cosignature::{Gathering, LastSizes};
use crate::merkle::{BUNDLE_LEAVES, Hash, MerkleError, Tree, leaf_hash};
use crate::proof::proof_text;
use newest::Shown;

/// What a commit does outside this crate. Each call comes only after the one before it has succeeded.
pub trait Writer {
    /// Why a step failed.
    type Error;

    /// Makes entries durable at `first` and after. What stood there was under no committed head.
    fn append(&mut self, first: u64, entries: &[Vec<u8>]) -> Result<(), Self::Error>;

    /// Makes the head of this size and root durable, and counts it where the vault has a counter.
    fn commit(&mut self, size: u64, root: Hash) -> Result<(), Self::Error>;

    /// Signs the text of a checkpoint with the log key: Ed25519.
    fn sign(&mut self, note_body: &str) -> Result<[u8; 64], Self::Error>;

    /// Asks witnesses to cosign the signed checkpoint, and gives the entries that are [wanted](Gathering::wants) for that,
    /// until [`Gathering::is_over`] or for as long as it may take; never called for a log without witnesses. Whoever asks
    /// nobody has no quorum.
    fn cosign(&mut self, gathering: &mut Gathering<'_>) -> Result<(), Self::Error> {
        let _ = gathering;
        Ok(())
    }

    /// Stores the signed checkpoint of this size where others read it, with the tiles up to it.
    fn publish(&mut self, checkpoint: &str, size: u64) -> Result<(), Self::Error>;
}

/// Reads a log up to a head, entry by entry, so that a caller can fold the same entries on the way.
#[derive(Debug)]
pub struct LogReader {
    head: Checkpoint,
    tree: Tree,
    vault: Option<Sha256Digest>,
}

impl LogReader {
    /// For the log of this head.
    pub fn new(head: Checkpoint) -> Self {
        Self { head, tree: Tree::new(), vault: None }
    }

    /// For the same, where the first entries were read before: `tree` is theirs, `vault` the digest of entry 0. That they
    /// are the first of this log shows when the root comes out.
    pub fn resume(head: Checkpoint, tree: Tree, vault: Sha256Digest) -> Self {
        Self { head, tree, vault: Some(vault) }
    }

    /// Takes the next entry. What lies behind the head was never committed, and is refused.
    pub fn push(&mut self, entry: &[u8]) -> Result<(), OpenError> {
        if self.tree.len() == self.head.size {
            return Err(OpenError::Size { expected: self.head.size, found: self.head.size + 1 });
        }
        self.vault.get_or_insert_with(|| Sha256Digest::of(entry));
        self.tree.push(leaf_hash(entry));
        if self.tree.len().is_multiple_of(BUNDLE_LEAVES) {
            self.tree.forget();
        }
        Ok(())
    }

    /// Checks that the entries were those of the head.
    pub fn finish(self) -> Result<ClosedLog, OpenError> {
        if self.tree.len() != self.head.size {
            return Err(OpenError::Size { expected: self.head.size, found: self.tree.len() });
        }
        if root_of(&self.tree) != self.head.root {
            return Err(OpenError::Root);
        }
        Ok(ClosedLog { tree: self.tree, vault: self.vault })
    }
}

/// A log that is the one of its head, and that signs nothing until the run has started.
#[derive(Debug)]
pub struct ClosedLog {
    tree: Tree,
    vault: Option<Sha256Digest>,
}

impl ClosedLog {
    /// Its tree, of which the leaves of whole bundles are forgotten.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Its size and root.
    pub fn head(&self) -> Checkpoint {
        Checkpoint { size: self.tree.len(), root: root_of(&self.tree) }
    }

    /// The log of a vault that is about to be made.
    pub fn empty() -> Self {
        Self { tree: Tree::new(), vault: None }
    }

    /// Reads as many entries as the head has, and no further.
    pub fn open<E: AsRef<[u8]>>(entries: impl IntoIterator<Item = E>, head: Checkpoint) -> Result<Self, OpenError> {
        let mut reader = LogReader::new(head);
        let size = usize::try_from(head.size).unwrap_or(usize::MAX);
        entries.into_iter().take(size).try_for_each(|entry| reader.push(entry.as_ref()))?;
        reader.finish()
    }

    /// Has the log as it is cosigned, where it has witnesses: those that cosigned a newer one refuse, and nothing is written
    /// to a copy that was put back. A log without witnesses, or without entries, is current as it is. The vault's id must
    /// be that of entry 0.
    pub fn recosign<W: Writer>(self, verifier: LogVerifier, writer: &mut W) -> Result<CurrentLog, LogError<W::Error>> {
        if self.vault.is_some_and(|vault| vault != verifier.vault()) {
            return Err(LogError::OtherVault);
        }
        let size = self.tree.len();
        let mut current = CurrentLog {
            sizes: LastSizes::all_at(size, verifier.witnesses()),
            tree: self.tree,
            vault: self.vault,
            verifier,
            cosigned: None,
        };
        if size > 0 && current.verifier.witnesses().is_some() {
            let head = Checkpoint { size, root: root_of(&current.tree) };
            let CurrentLog { verifier, tree, sizes, .. } = &mut current;
            current.cosigned = Some(counted(verifier, head, tree, sizes, writer)?);
        }
        Ok(current)
    }

    /// Recosigns, then starts a run.
    pub fn start<W: Writer>(
        self,
        verifier: LogVerifier,
        first: Batch,
        writer: &mut W,
    ) -> Result<Log, LogError<W::Error>> {
        self.recosign(verifier, writer)?.start(first, writer)
    }
}

/// A log of which no witnesses know a newer copy, as far as it has any.
#[derive(Debug)]
pub struct CurrentLog {
    verifier: LogVerifier,
    tree: Tree,
    vault: Option<Sha256Digest>,
    sizes: LastSizes,
    cosigned: Option<CountedCheckpoint>,
}

impl CurrentLog {
    /// Who has just cosigned it; nothing for a log without witnesses or without entries.
    pub fn seen(&self) -> Option<&Seen> {
        self.cosigned.as_ref().map(CountedCheckpoint::seen)
    }

    /// Starts a run with its first entries. They are committed twice before the first signature, so that the head of a
    /// run which was killed in its first commit can never come back. The vault's id must be that of entry 0.
    pub fn start<W: Writer>(self, first: Batch, writer: &mut W) -> Result<Log, LogError<W::Error>> {
        let genesis = self.vault.or_else(|| first.first_entry().map(Sha256Digest::of));
        if genesis != Some(self.verifier.vault()) {
            return Err(LogError::OtherVault);
        }
        let Self { verifier, tree, sizes, .. } = self;
        let mut log = Log { verifier, size: tree.len(), tree, sizes, counted: None, stopped: false };
        log.write(first, Commits::Twice, writer)?;
        Ok(log)
    }
}

/// Signs a checkpoint and has it cosigned as its log needs it.
fn counted<W: Writer>(
    verifier: &LogVerifier,
    head: Checkpoint,
    tree: &mut Tree,
    sizes: &mut LastSizes,
    writer: &mut W,
) -> Result<CountedCheckpoint, LogError<W::Error>> {
    let signature = writer.sign(&verifier.checkpoint_text(&head)).map_err(LogError::Sign)?;
    let signed = verifier.signed(head, &signature).map_err(LogError::Signature)?;
    let (signed, witnesses) = match signed.unwitnessed(verifier) {
        Ok(counted) => return Ok(counted),
        Err(asks) => asks,
    };
    let mut gathering = Gathering::new(signed, witnesses, tree, sizes);
    writer.cosign(&mut gathering).map_err(LogError::Cosign)?;
    let (signed, cosigned, lines) = gathering.finish().map_err(LogError::NoQuorum)?;
    Ok(signed.cosigned(cosigned, &lines))
}

/// The log of a running keeper: the one writer.
#[derive(Debug)]
pub struct Log {
    verifier: LogVerifier,
    tree: Tree,
    /// Committed entries; the tree has more only while a commit runs, or after one failed.
    size: u64,
    /// What the witnesses are thought to have cosigned last.
    sizes: LastSizes,
    /// The newest checkpoint, of this size; there is one from the first commit on.
    counted: Option<CountedCheckpoint>,
    stopped: bool,
}

/// How often a head is counted before its checkpoint is signed.
enum Commits {
    Once,
    Twice,
}

impl Log {
    /// Commits a batch, after which its tickets can be redeemed. An empty batch counts the same head once more. After an
    /// error none of its tickets can, and the log takes no more.
    pub fn commit<W: Writer>(&mut self, batch: Batch, writer: &mut W) -> Result<Checkpoint, LogError<W::Error>> {
        self.write(batch, Commits::Once, writer)
    }

    /// Committed size and root.
    pub fn head(&self) -> Checkpoint {
        let root = self.tree.root(self.size).expect("committed entries are in the tree");
        Checkpoint { size: self.size, root }
    }

    /// The newest checkpoint, with every signature that it needs.
    pub fn checkpoint(&self) -> &str {
        self.counted.as_ref().map_or("", |counted| counted.note())
    }

    /// Who has seen the newest checkpoint.
    pub fn seen(&self) -> Option<&Seen> {
        self.counted.as_ref().map(CountedCheckpoint::seen)
    }

    /// The log's own key, and its witnesses.
    pub fn verifier(&self) -> &LogVerifier {
        &self.verifier
    }

    /// Its tree, of which the leaves of whole bundles are forgotten.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Takes the 256 entries of a bundle again, for proofs about them. Anybody may give them: the tree knows their root.
    ///
    /// # Errors
    /// [`MerkleError::OtherBundle`].
    pub fn recall<E: AsRef<[u8]>>(&mut self, bundle: u64, entries: &[E]) -> Result<(), MerkleError> {
        let leaves: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry.as_ref())).collect();
        self.tree.recall(bundle, &leaves)
    }

    /// Proof for any committed entry, under the newest checkpoint.
    ///
    /// # Errors
    /// [`MerkleError::Forgotten`] for one in a bundle that has to be [recalled](Self::recall) first.
    pub fn proof(&self, index: u64) -> Result<String, MerkleError> {
        Ok(proof_text(index, &self.tree.inclusion(index, self.size)?, self.checkpoint()))
    }

    /// Proof that the newest checkpoint continues the log of `first` entries.
    ///
    /// # Errors
    /// [`MerkleError::Forgotten`] where that log ended in a bundle that has to be [recalled](Self::recall) first.
    pub fn consistency(&self, first: u64) -> Result<Vec<Hash>, MerkleError> {
        self.tree.consistency(first, self.size)
    }

    /// Takes the entries behind this log's up to a checkpoint that somebody shows: another keeper of the vault wrote them.
    /// One that no quorum is known to have cosigned is brought to its end, as its keeper would have: nothing else may follow
    /// on what this log has. Whether the entries may stand there is for the fold to say, before or after.
    ///
    /// # Errors
    /// [`LogError::Followed`] where they are not those of the checkpoint; otherwise as a commit. The log takes no more then.
    pub fn follow<W: Writer>(
        &mut self,
        entries: &[Vec<u8>],
        newest: Newest,
        writer: &mut W,
    ) -> Result<Checkpoint, LogError<W::Error>> {
        if std::mem::replace(&mut self.stopped, true) {
            return Err(LogError::Stopped);
        }
        let head = newest.checkpoint();
        entries.iter().for_each(|entry| self.tree.push(leaf_hash(entry)));
        if self.tree.len() != head.size {
            return Err(LogError::Followed(OpenError::Size { expected: head.size, found: self.tree.len() }));
        }
        if root_of(&self.tree) != head.root {
            return Err(LogError::Followed(OpenError::Root));
        }
        writer.commit(head.size, head.root).map_err(LogError::Commit)?;
        let counted = match newest.0 {
            Shown::Published(counted, _) => {
                self.sizes = LastSizes::all_at(head.size, self.verifier.witnesses());
                counted
            }
            Shown::Proposed(_) => {
                let counted = counted(&self.verifier, head, &mut self.tree, &mut self.sizes, writer)?;
                writer.publish(counted.note(), head.size).map_err(LogError::Publish)?;
                counted
            }
        };
        self.size = head.size;
        self.counted = Some(counted);
        self.tree.forget();
        self.stopped = false;
        Ok(head)
    }

    fn write<W: Writer>(
        &mut self,
        batch: Batch,
        commits: Commits,
        writer: &mut W,
    ) -> Result<Checkpoint, LogError<W::Error>> {
        // Set until all is done, so that a panic of the writer stops the log too.
        if std::mem::replace(&mut self.stopped, true) {
            return Err(LogError::Stopped);
        }
        let (entries, slots) = batch.into_parts();
        if !entries.is_empty() {
            writer.append(self.size, &entries).map_err(LogError::Append)?;
        }
        entries.iter().for_each(|entry| self.tree.push(leaf_hash(entry)));
        let head = Checkpoint { size: self.tree.len(), root: root_of(&self.tree) };
        for _ in 0..match commits {
            Commits::Once => 1,
            Commits::Twice => 2,
        } {
            writer.commit(head.size, head.root).map_err(LogError::Commit)?;
        }
        let counted = counted(&self.verifier, head, &mut self.tree, &mut self.sizes, writer)?;
        writer.publish(counted.note(), head.size).map_err(LogError::Publish)?;

        let first = std::mem::replace(&mut self.size, head.size);
        for ((index, entry), slot) in (first..).zip(entries).zip(slots) {
            let path = self.tree.inclusion(index, head.size).expect("the entry was just pushed");
            slot.fill(index, entry, path, &counted);
        }
        self.counted = Some(counted);
        self.tree.forget();
        self.stopped = false;
        Ok(head)
    }
}

fn root_of(tree: &Tree) -> Hash {
    tree.root(tree.len()).expect("a tree has its own size")
}
